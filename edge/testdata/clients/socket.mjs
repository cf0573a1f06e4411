// Opens WebSockets with the npm package ws and prints what becomes of them, as a line of JSON each
// time something does.
//
//   node socket.mjs URL CASES
//
// CASES is a JSON object: by name, the subprotocols to offer, the request's headers, whether to
// print every message, and what to do once the first message has come: a list of steps
//
//   ["send", TEXT, OPTIONS], ["binary", TEXT, OPTIONS], ["bytes", HEX], ["ping", TEXT], ["close", CODE, REASON]
//
// A step that pings waits for the pong. When all is done, a last ping tells that the connection
// is well; the case ends with that, or with the end of the connection.
import WebSocket from 'ws';

const [url, cases] = process.argv.slice(2);
if (cases === undefined) {
  console.error('usage: node socket.mjs URL CASES');
  process.exit(2);
}

for (const [name, c] of Object.entries(JSON.parse(cases))) {
  run(name, c);
}

function run(name, { protocols = [], headers = {}, watch = false, steps = [] }) {
  const say = (event, more) => console.log(JSON.stringify({ name, event, ...more }));
  const socket = new WebSocket(url, protocols, { headers });
  let begun = false;
  socket.on('open', () => say('open', { protocol: socket.protocol, extensions: socket.extensions }));
  socket.on('unexpected-response', (request, response) => {
    let body = '';
    response.on('data', (part) => { body += part; });
    response.on('end', () => {
      say('refused', { status: response.statusCode, code: JSON.parse(body).code });
      request.socket.destroy(); // it would be kept for another request
    });
  });
  socket.on('error', (error) => say('error', { message: error.message }));
  socket.on('close', (code, reason) => say('close', { code, reason: reason.toString() }));
  socket.on('message', (data, isBinary) => {
    const { type, state } = JSON.parse(data.toString());
    if (watch || !begun) {
      say('message', { type, state, isBinary });
    }
    if (!begun && !watch) {
      play().catch((error) => say('error', { message: error.message }));
    }
    begun = true;
  });

  async function play() {
    for (const [what, ...args] of [...steps, ['ping', 'the last one']]) {
      if (what === 'send') {
        socket.send(args[0], args[1]);
      } else if (what === 'binary') {
        socket.send(Buffer.from(args[0]), { binary: true, ...args[1] });
      } else if (what === 'bytes') {
        socket.send(Buffer.from(args[0], 'hex'), { binary: false });
      } else if (what === 'ping') {
        const answer = new Promise((resolve) => { socket.once('pong', resolve); });
        socket.ping(args[0]);
        const payload = (await answer).toString();
        if (payload !== args[0]) {
          say('error', { message: `ping ${args[0]} was answered ${payload}` });
        }
      } else if (what === 'close') {
        socket.close(...args);
        return;
      }
    }
    say('well');
    socket.terminate();
  }
}
