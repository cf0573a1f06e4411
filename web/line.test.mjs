import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import * as line from './src/line.mjs';

const status = (more) => ({
  state: 'waiting', queueState: 'open', position: 9, ahead: 4, seq: 'g1.10', pollAfterSeconds: 5,
  now: '2026-03-01T10:00:00Z', ...more,
});

test('the queue is read from the path of the page, and from nothing else', () => {
  assert.equal(line.queueOfPath('/wait/hns.final'), 'hns.final');
  assert.equal(line.queueOfPath('/wait/hns.final/'), 'hns.final');
  for (const path of ['/wait/', '/wait/final', '/wait/Hns.final', '/wait/a.b.c', '/wait/a.b/plain', '/wait/a.%2e', '/x/a.b']) {
    assert.equal(line.queueOfPath(path), null, path);
  }
});

test('an older entry of the same generation is older; nothing else is', () => {
  const cases = [
    ['g.9', 'g.10', true],
    ['g.10', 'g.10', false],
    ['g.11', 'g.10', false],
    ['h.1', 'g.10', false],
    ['a.b.1', 'a.b.2', true],
    ['g.9007199254740993', 'g.9007199254740994', true],
    ['rubbish', 'g.10', false],
    [undefined, 'g.10', false],
    ['g.1', undefined, false],
  ];
  for (const [seq, than, want] of cases) assert.equal(line.isOlder(seq, than), want, `${seq} < ${than}`);
});

test('a status that comes late is ignored; a new generation replaces everything', () => {
  let memory = line.receive(line.newMemory(), status({ seq: 'g1.10', ahead: 4 }));
  memory = line.receive(memory, status({ seq: 'g1.9', ahead: 7 }));
  assert.equal(memory.status.ahead, 4);
  memory = line.receive(memory, status({ seq: 'g2.1', ahead: 3 }));
  assert.equal(memory.status.ahead, 3);
  assert.equal(line.receive(memory, null), memory);
  assert.equal(line.receive(memory, { title: 'a problem' }), memory);
});

test('the progress never moves backwards, and ends only with the own turn', () => {
  let memory = line.newMemory();
  const seen = [];
  let entry = 0;
  for (const more of [{ ahead: 9 }, { ahead: 5 }, { ahead: 8 }, { ahead: 20 }, { ahead: 0 }]) {
    entry += 1;
    memory = line.receive(memory, status({ seq: `g.${entry}`, ...more }));
    seen.push(memory.fraction);
  }
  assert.deepEqual(seen.map((f) => f.toFixed(2)), ['0.00', '0.40', '0.40', '0.40', '0.90']);
  memory = line.receive(memory, status({ seq: 'g.7', state: 'admitted', ahead: null }));
  assert.equal(memory.fraction, 1);
  memory = line.receive(memory, status({ seq: 'g.8', ahead: 0 }));
  assert.equal(memory.fraction, 1, 'a missed offer does not draw it back');
});

test('a reload remembers the ticket and the progress; damaged storage is a new start', () => {
  let memory = { ...line.newMemory(), ticketId: 'tkt_1-a', user: 'x1' };
  memory = line.receive(memory, status({ seq: 'g.1', ahead: 9 }));
  memory = line.receive(memory, status({ seq: 'g.2', ahead: 4 }));
  const kept = line.fromStorage(line.toStorage(memory));
  assert.deepEqual({ ...kept, status: memory.status }, memory);
  assert.deepEqual(Object.keys(JSON.parse(line.toStorage(memory))).sort(), ['firstAhead', 'fraction', 'left', 'since', 'ticketId', 'user']);
  for (const text of [null, '', 'x', '1', 'null', '[]', '{"ticketId":7}', '{"ticketId":"../x/y"}', '{"ticketId":""}']) {
    assert.deepEqual(line.fromStorage(text), line.newMemory(), String(text));
  }
  assert.deepEqual(line.fromStorage('{"ticketId":"t","fraction":7,"firstAhead":-1,"since":"x","user":7}'), { ...line.newMemory(), ticketId: 't' });
});

test('who left the line stays out over a reload, until asked to join again', () => {
  const memory = line.receive({ ...line.newMemory(), ticketId: 't' }, status({}));
  const kept = line.fromStorage(line.toStorage(line.hasLeft(memory)));
  assert.equal(kept.status.state, 'left');
  assert.equal(line.isOut(kept.status), true);
});

test('the server clock is taken from the middle of the exchange', () => {
  const now = Date.parse('2026-03-01T10:00:00Z');
  assert.equal(line.measureOffset('2026-03-01T10:00:00Z', now - 60_100, now - 59_900), 60_000);
  assert.equal(line.measureOffset(undefined, 1, 2), null);
});

test('the jitter of a poll only shortens', () => {
  assert.equal(line.pollDelay(10, 0), 10_000);
  assert.equal(line.pollDelay(10, 1), 8_000);
  assert.equal(line.pollDelay(0, 0), 1_000);
  assert.equal(line.pollDelay(undefined, 0), 1_000);
});

test('Retry-After is obeyed and jitter only lengthens it', () => {
  const now = Date.parse('2026-03-01T10:00:00Z');
  const cases = [
    ['4', 0, 0, 4_000],
    ['4', 0, 1, 6_000],
    ['0', 0, 0, 1_000],
    ['Sun, 01 Mar 2026 10:00:10 GMT', 0, 0, 10_000],
    ['Sun, 01 Mar 2026 09:00:00 GMT', 0, 0, 1_000],
    ['99999', 0, 0, 300_000],
    [null, 0, 1, 1_000],
    [null, 3, 1, 8_000],
    [null, 99, 1, 15_000],
    [null, 99, 0, 9_000],
    ['soon', 1, 1, 2_000],
  ];
  for (const [header, attempt, random, want] of cases) {
    assert.equal(line.retryDelay(header, attempt, now, random), want, `${header} ${attempt} ${random}`);
  }
});

// The same file tests the Go side, in origin/queue/vectors_test.go.
const vectors = JSON.parse(readFileSync(new URL('../origin/queue/testdata/line.json', import.meta.url)));

test('ahead by the public state is what the edge computes', () => {
  let checked = 0;
  for (const { name, state, positions } of vectors.ahead) {
    for (const [position, want] of positions) {
      assert.equal(line.aheadIn(state, position), want, `${name}: position ${position}`);
      checked += 1;
    }
  }
  assert.ok(checked > 500, `${checked} vectors`);
});

test('the wait by the public state is what the edge computes', () => {
  let checked = 0;
  for (const { name, curve, waits } of vectors.wait) {
    for (const { ahead, owed, wait } of waits) {
      assert.deepEqual(line.waitIn(curve, ahead, owed), wait, `${name}: ${ahead} ahead, owed ${owed}`);
      checked += 1;
    }
  }
  assert.ok(checked > 200, `${checked} vectors`);
});

test('the session is asked for when somebody looks or clicks, and it is the turn', () => {
  const cases = [
    ['admitted', { visible: true }, true],
    ['admitted', { visible: false }, false],
    ['admitted', { visible: false, clicked: true }, true],
    ['admitted', { visible: true, clickOnly: true }, false],
    ['admitted', { visible: true, clickOnly: true, clicked: true }, true],
    ['active', { visible: true }, true],
    ['waiting', { visible: true, clicked: true }, false],
    ['ended', { visible: true, clicked: true }, false],
  ];
  for (const [state, how, want] of cases) {
    const got = line.wantsSession({ state }, { visible: false, clickOnly: false, clicked: false, ...how });
    assert.equal(got, want, `${state} ${JSON.stringify(how)}`);
  }
  assert.equal(line.wantsSession(null, { visible: true, clickOnly: false, clicked: true }), false);
});

test('a fan is sent to the shop of this queue and nowhere else', () => {
  const origins = ['https://shop.example', 'http://127.0.0.1:8082'];
  const cases = [
    ['https://shop.example/match?x=1#seats', 'https://shop.example/match?x=1#seats'],
    ['http://127.0.0.1:8082/', 'http://127.0.0.1:8082/'],
    ['https://shop.example', 'https://shop.example/'],
    [null, 'https://shop.example/'],
    ['', null],
    ['/match', null],
    ['https://evil.example/', null],
    ['http://shop.example/', null],
    ['https://shop.example:444/', null],
    ['https://shop.example.evil.example/', null],
    ['https://shop.example@evil.example/', null],
    ['https://user@shop.example/', null],
    ['https://@shop.example/', null],
    ['https:\\\\shop.example/', null],
    ['https://evil.example\\@shop.example/', null],
    ['https://shop.example/\nx', null],
    [' https://shop.example/', null],
    ['javascript:alert(1)', null],
    ['data:text/html,x', null],
  ];
  for (const [text, want] of cases) {
    const got = line.returnAddress(text, origins);
    assert.equal(got && got.href, want, String(text));
  }
  assert.equal(line.returnAddress(null, []), null);
  assert.equal(line.returnAddress(null, undefined), null);
});

test('the hand-over keeps the query letter for letter and the fragment', () => {
  const cases = [
    ['https://s.example/', 'https://s.example/?wr_session=a.b-c'],
    ['https://s.example/m?a=1%20b&c&d=+#x', 'https://s.example/m?a=1%20b&c&d=+&wr_session=a.b-c#x'],
    ['https://s.example/m?wr_session=old&a=1&wr_session', 'https://s.example/m?a=1&wr_session=a.b-c'],
    ['https://s.example/m?wr_sessions=1', 'https://s.example/m?wr_sessions=1&wr_session=a.b-c'],
  ];
  for (const [address, want] of cases) {
    assert.equal(line.handOverAddress(new URL(address), 'a.b-c'), want);
  }
});

test('a token that the return address names already, however it is written, gives way', () => {
  for (const name of ['wr_session', 'wr%5Fsession', '%77r_session', 'wr_session=x&wr%5fsession']) {
    const address = line.handOverAddress(new URL(`https://shop.example/?a=1&${name}=old&b=%20`), 'new');
    assert.equal(address, 'https://shop.example/?a=1&b=%20&wr_session=new', name);
  }
});

test('only the fragment of a refused token asks for a click', () => {
  assert.equal(line.asksForClick('#wr_click=1'), true);
  assert.equal(line.asksForClick('#a=b&wr_click=1'), true);
  for (const fragment of ['', '#', '#wr_click=0', '#wr_clicks=1']) assert.equal(line.asksForClick(fragment), false, fragment);
});

test('the token of a user is taken out of the fragment, and nothing else is', () => {
  const cases = [
    ['#wr_user=a.b-c', 'a.b-c', ''],
    ['#wr_click=1&wr_user=a.b.c', 'a.b.c', '#wr_click=1'],
    ['#wr%5Fuser=a&seats=A%2F1&wr_user=b', 'a', '#seats=A%2F1'],
    ['#wr_user=', null, ''],
    ['#wr_users=a', null, '#wr_users=a'],
    ['', null, ''],
  ];
  for (const [fragment, token, rest] of cases) {
    assert.equal(line.userTokenOf(fragment), token, fragment);
    assert.equal(line.withoutUserToken(fragment), rest, fragment);
  }
});

test('a mark tells users apart and does not name them', () => {
  const token = (claims) => `e30.${Buffer.from(JSON.stringify(claims)).toString('base64url')}.sig`;
  const marks = new Set();
  for (let i = 0; i < 2000; i += 1) marks.add(line.userMark(token({ iss: 'https://id.example/', sub: `fan-ü-${i}` })));
  assert.equal(marks.size, 2000);
  const ana = line.userMark(token({ iss: 'i', sub: 'ana' }));
  assert.equal(ana, line.userMark(token({ exp: 1, sub: 'ana', iss: 'i' })), 'whatever else the token says');
  assert.notEqual(ana, line.userMark(token({ iss: 'j', sub: 'ana' })));
  assert.match(ana, /^[0-9a-z]{1,13}$/);
  for (const bad of ['', 'x', 'a.b.c', 'a.e30.c', token({ sub: '' }), token({ sub: 7 }), token(null)]) {
    assert.equal(line.userMark(bad), null, bad);
  }
});
