import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Live } from './src/stream.mjs';

const status = (seq) => JSON.stringify({ type: 'status', state: 'waiting', seq });

// A page with a clock, dice and a network of its own.
function newPage({ random = 0.5 } = {}) {
  const page = {
    now: 0, wall: 0, sockets: [], requests: [], told: [], asked: [], connected: true, answer: null,
    /** Lets time pass as a page does, which looks after its connection once a second. */
    pass(seconds) {
      for (let i = 0; i < seconds; i++) {
        page.now += 1000;
        page.wall += 1000;
        page.live.run('/tickets/t', 0);
      }
    },
    socket: () => page.sockets[page.sockets.length - 1],
  };
  page.WebSocket = class {
    constructor(address, protocol) {
      if (page.forbidden) throw new Error('forbidden');
      Object.assign(this, { address, protocol, closed: false });
      page.sockets.push(this);
    }

    close() {
      this.closed = true;
      this.onclose({ code: 1005 });
    }
  };
  page.live = new Live({
    origin: 'https://edge.example', WebSocket: page.WebSocket,
    fetch: (path, options) => {
      page.requests.push({ path, options });
      return page.answer();
    },
    locks: page.locks, clocks: () => [page.now, page.wall], serverNow: () => page.wall,
    random: () => random, online: () => page.connected,
    tell: (s) => page.told.push(s.seq), ended: (ask) => page.asked.push(ask),
  });
  return page;
}

/** A stream of events that the test writes, as fetch answers it. */
function eventStream(type = 'text/event-stream', code = 200, headers = {}) {
  let control;
  const stream = { reads: 0 }; // how often the page asked for more
  const body = new ReadableStream({
    start(c) { control = c; },
    pull() { stream.reads += 1; },
  }, { highWaterMark: 0 });
  return Object.assign(stream, {
    response: new Response(code === 204 ? null : body, { status: code, headers: { 'Content-Type': type, ...headers } }),
    write: (text) => control.enqueue(new TextEncoder().encode(text)),
    finish: () => control.close(),
  });
}

/** Waits until what other turns of the event loop bring about is there. */
async function until(condition) {
  for (let i = 0; i < 1000 && !condition(); i++) await new Promise((resolve) => { setImmediate(resolve); });
  assert.ok(condition(), String(condition));
}

test('a WebSocket tells statuses; it counts from the first one', () => {
  const page = newPage();
  page.live.run('/tickets/t', 0);
  assert.equal(page.socket().address, 'wss://edge.example/tickets/t/ws');
  assert.equal(page.socket().protocol, 'waitingroom.v1');
  assert.equal(page.live.kind(), '');
  for (const rubbish of ['', 'hello', 'null', '{}', '{"state":7}']) page.socket().onmessage({ data: rubbish });
  assert.equal(page.live.kind(), '');
  page.socket().onmessage({ data: status('g.1') });
  assert.equal(page.live.kind(), 'ws');
  page.socket().onmessage({ data: status('g.2') });
  assert.deepEqual(page.told, ['g.1', 'g.2']);
  page.pass(29);
  page.socket().onmessage({ data: status('g.3') });
  page.pass(29);
  assert.deepEqual([page.sockets.length, page.asked], [1, []]);
});

test('the first connection of a ticket is opened at a random time, as many pages come at once', () => {
  const page = newPage();
  page.live.run('/tickets/t', 4000);
  page.now = 1999;
  page.live.run('/tickets/t', 4000);
  assert.equal(page.sockets.length, 0);
  page.now = 2000;
  page.live.run('/tickets/t', 4000);
  assert.equal(page.sockets.length, 1);
});

test('silence is noticed, by either clock, and what comes afterwards comes too late', () => {
  const page = newPage();
  page.live.run('/tickets/t', 0);
  page.socket().onmessage({ data: status('g.1') });
  page.pass(30);
  assert.deepEqual([page.asked, page.live.kind(), page.sockets[0].closed], [['now'], '', true]);
  page.sockets[0].onmessage({ data: status('g.2') });
  page.sockets[0].onclose({ code: 1006 });
  assert.deepEqual([page.told, page.asked], [['g.1'], ['now']]);

  const asleep = newPage();
  asleep.live.run('/tickets/t', 0);
  asleep.socket().onmessage({ data: status('g.1') });
  asleep.wall += 3600_000;
  asleep.live.run('/tickets/t', 0);
  assert.deepEqual(asleep.asked, ['now']);

  const shown = newPage();
  shown.live.run('/tickets/t', 0);
  shown.socket().onmessage({ data: status('g.1') });
  shown.pass(19);
  shown.live.wake();
  assert.deepEqual(shown.asked, []);
  shown.pass(1);
  shown.live.wake();
  assert.deepEqual(shown.asked, ['now']);
});

test('a proxy that holds everything back is left for the other kind, and for polling', async () => {
  const page = newPage();
  const stream = eventStream();
  page.answer = () => Promise.resolve(stream.response);
  page.live.run('/tickets/t', 0);
  page.pass(10);
  assert.deepEqual([page.asked, page.sockets[0].closed], [['later'], true]);
  page.pass(1);
  assert.equal(page.requests[0].path, '/tickets/t/events');
  stream.write(': comments alone are not enough\n\n');
  page.pass(10);
  assert.deepEqual(page.asked, ['later', 'later']);
  await until(() => page.requests[0].options.signal.aborted);
  page.pass(11);
  assert.equal(page.sockets.length, 1);
  page.pass(1);
  assert.equal(page.sockets.length, 2);
});

test('events are read where WebSockets are blocked; a comment is a sign of life', async () => {
  const page = newPage();
  const stream = eventStream();
  page.answer = () => Promise.resolve(stream.response);
  page.live.run('/tickets/t', 0);
  page.socket().onclose({ code: 1006 });
  page.pass(1);
  stream.write(`retry: 1000\n\nid: g.1\nevent: status\ndata: ${status('g.1')}\n\n`);
  await until(() => page.live.kind() === 'sse');
  page.pass(25);
  const reads = stream.reads;
  stream.write(':\n\n');
  await until(() => stream.reads > reads);
  page.pass(25);
  assert.equal(page.live.kind(), 'sse');
  stream.write('id: g.2\nevent: position_changed\ndata: ' + status('g.2'));
  stream.write('\n\n');
  await until(() => page.told.length === 2);
  assert.deepEqual([page.told, page.live.kind()], [['g.1', 'g.2'], 'sse']);
  stream.finish();
  await until(() => page.asked.length === 2);
  assert.deepEqual(page.asked, ['later', 'soon']);
});

test('a refusal tells when to come back, and nothing shortens that', async () => {
  const page = newPage();
  page.answer = () => Promise.resolve(eventStream('application/problem+json', 503, { 'Retry-After': '20' }).response);
  page.live.run('/tickets/t', 0);
  page.socket().onclose({ code: 1006 });
  page.pass(1);
  await until(() => page.asked.length === 2);
  page.live.online();
  page.live.wake();
  page.pass(24);
  assert.equal(page.sockets.length, 1);
  page.pass(1);
  assert.equal(page.sockets.length, 2);
});

test('without a network nothing is tried; with a new one everything is, at once', () => {
  const page = newPage();
  page.live.run('/tickets/t', 0);
  page.socket().onmessage({ data: status('g.1') });
  page.connected = false;
  page.live.offline();
  assert.deepEqual([page.asked, page.live.kind()], [['now'], '']);
  page.pass(600);
  assert.equal(page.sockets.length, 1);
  page.connected = true;
  page.live.online();
  page.pass(1);
  assert.equal(page.sockets.length, 2);
});

test('a second tab leaves the stream of events to the first', async () => {
  const taken = newPage();
  taken.locks = { request: (name, how, use) => Promise.resolve(use(null)) };
  taken.live = new Live({
    origin: 'https://edge.example', WebSocket: undefined, fetch: () => assert.fail('asked for events'),
    locks: taken.locks, clocks: () => [taken.now, taken.wall], serverNow: () => 0, random: () => 0,
    online: () => true, tell: () => {}, ended: (ask) => taken.asked.push(ask),
  });
  taken.live.run('/tickets/t', 0); // there are no WebSockets
  taken.live.run('/tickets/t', 0);
  await until(() => taken.asked.length === 2);
  assert.deepEqual(taken.asked, ['later', 'later']);
});

test('a connection that is not wanted is closed without a word; another ticket has its own', () => {
  const page = newPage();
  page.live.run('/tickets/t', 0);
  page.socket().onmessage({ data: status('g.1') });
  page.live.run(null, 0);
  assert.deepEqual([page.socket().closed, page.live.kind(), page.asked], [true, '', []]);
  page.live.run('/tickets/u', 0);
  assert.equal(page.socket().address, 'wss://edge.example/tickets/u/ws');
  page.live.close(); // the page is put away
  page.live.run('/tickets/u', 0);
  assert.equal(page.sockets.length, 3);
});

test('a forbidden WebSocket is a failed one', () => {
  const page = newPage();
  page.forbidden = true;
  page.live.run('/tickets/t', 0);
  assert.deepEqual([page.asked, page.live.kind()], [['later'], '']);
});
