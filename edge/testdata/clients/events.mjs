// Watches a stream with the npm package eventsource and prints what comes, as a line of JSON each
// time something does. Leaves when the EventSource has closed itself for good.
//
//   node events.mjs URL HEADERS
//
// HEADERS is a JSON object of the request's headers.
import { EventSource } from 'eventsource';

const [url, headers] = process.argv.slice(2);
if (headers === undefined) {
  console.error('usage: node events.mjs URL HEADERS');
  process.exit(2);
}

const say = (event, more) => console.log(JSON.stringify({ event, at: performance.now(), ...more }));

// connect adds the headers, and looks for the time that the server asks to be left alone for.
async function connect(input, init) {
  say('connect', { lastEventId: init.headers['Last-Event-ID'] });
  const response = await fetch(input, { ...init, headers: { ...init.headers, ...JSON.parse(headers) } });
  const { status, redirected } = response;
  say('answer', { status });
  const first = new TransformStream({
    transform(part, on) {
      const retry = /^retry: (\d+)$/m.exec(new TextDecoder().decode(part));
      if (retry !== null) {
        say('retry', { retry: Number(retry[1]) });
      }
      on.enqueue(part);
    },
  });
  return { status, redirected, url: response.url, headers: response.headers, body: response.body?.pipeThrough(first) };
}

const source = new EventSource(url, { fetch: connect });
for (const name of ['message', 'status', 'position_changed', 'admitted', 'expired', 'session_expired', 'queue_closed']) {
  source.addEventListener(name, ({ data, lastEventId }) => {
    const { state, ahead, seq } = JSON.parse(data);
    say(name, { id: lastEventId, state, ahead, seq });
  });
}
source.addEventListener('error', ({ code }) => {
  say('error', { code, closed: source.readyState === EventSource.CLOSED });
});
