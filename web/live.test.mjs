import assert from 'node:assert/strict';
import { test } from 'node:test';
import { afterEnd, newPlan, takeEvents } from './src/live.mjs';

const end = (more) => ({ held: null, now: Date.parse('2026-03-01T10:00:00Z'), ...more });
const plan = (kind, failures) => ({ kind, failures });

test('what follows from each end of a connection', () => {
  const cases = [
    // name, plan, end, wait at random 0 and 1, when to poll, the next kind
    ['the ticket is out', plan('ws', 0), { held: 5e3, code: 1000 }, 7500, 15000, 'now', 'ws'],
    ['the ticket is out, by events', plan('sse', 0), { refusal: 204 }, 7500, 15000, 'now', 'ws'],
    ['the ticket is not good any more', plan('ws', 0), { held: 5e3, code: 1008 }, 7500, 15000, 'now', 'ws'],
    ['the ticket is refused', plan('sse', 1), { refusal: 401 }, 7500, 15000, 'now', 'ws'],
    ['the edge stops', plan('ws', 0), { held: 5e3, code: 1012 }, 0, 1000, 'soon', 'ws'],
    ['the edge stops before it told anything', plan('ws', 0), { code: 1012 }, 0, 1000, 'soon', 'ws'],
    ['one edge after the other stops', plan('ws', 1), { held: 5e3, code: 1012 }, 0, 20000, 'soon', 'sse'],
    ['the edge has too much to do', plan('ws', 2), { held: 5e3, code: 1013 }, 10000, 30000, 'soon', 'ws'],
    ['the edge has too much to do already', plan('ws', 0), { code: 1013 }, 10000, 30000, 'later', 'ws'],
    ['lost', plan('ws', 0), { held: 70e3, code: 1006 }, 0, 10000, 'soon', 'ws'],
    ['lost after many failures, but it had lasted', plan('ws', 9), { held: 70e3, code: 1006 }, 0, 10000, 'soon', 'ws'],
    ['cut in its first minute', plan('ws', 0), { held: 5e3, code: 1006 }, 0, 10000, 'soon', 'sse'],
    ['cut again', plan('sse', 1), { held: 5e3 }, 0, 20000, 'soon', 'ws'],
    ['cut a third time', plan('ws', 2), { held: 5e3, code: 1006 }, 0, 30000, 'soon', 'sse'],
    ['cut again and again', plan('sse', 5), { held: 5e3 }, 30000, 60000, 'soon', 'ws'],
    ['events that ended after they had lasted', plan('sse', 3), { held: 70e3 }, 0, 10000, 'soon', 'ws'],
    ['fallen silent', plan('ws', 0), { held: 70e3, silent: true }, 0, 10000, 'now', 'ws'],
    ['WebSockets are blocked', plan('ws', 0), { code: 1006 }, 0, 2000, 'later', 'sse'],
    ['there are no WebSockets', plan('ws', 0), {}, 0, 2000, 'later', 'sse'],
    ['a proxy holds back what comes', plan('ws', 0), { silent: true }, 0, 2000, 'later', 'sse'],
    ['both are blocked', plan('sse', 1), { refusal: 502 }, 7500, 15000, 'later', 'ws'],
    ['a page of a hotel instead of events', plan('sse', 1), { refusal: 200 }, 7500, 15000, 'later', 'ws'],
    ['both are blocked for the second time', plan('sse', 3), {}, 15000, 30000, 'later', 'ws'],
    ['both are blocked all day', plan('sse', 99), {}, 150000, 300000, 'later', 'ws'],
    ['refused for load', plan('sse', 1), { refusal: 503, retryAfter: '20' }, 20000, 30000, 'later', 'ws'],
    ['refused by a limit', plan('sse', 1), { refusal: 429, retryAfter: '4' }, 4000, 6000, 'later', 'ws'],
  ];
  for (const [name, before, how, least, most, ask, kind] of cases) {
    const [low, high] = [0, 1].map((random) => afterEnd(before, end(how), random));
    assert.deepEqual([low.wait, high.wait], [least, most], `${name}: wait`);
    assert.equal(low.ask, ask, `${name}: poll`);
    assert.equal(low.plan.kind, kind, `${name}: next kind`);
  }
});

test('an edge that dies with fifteen thousand pages sends them to its neighbours evenly', () => {
  const perSecond = new Array(10).fill(0);
  for (let i = 0; i < 15_000; i++) {
    const { wait } = afterEnd(newPlan(), end({ held: 600e3, code: 1006 }), (i + 0.5) / 15_000);
    perSecond[Math.min(Math.floor(wait / 1000), 9)] += 1;
  }
  assert.ok(perSecond.every((n) => n >= 1490 && n <= 1510), String(perSecond));
});

test('a page that is refused everything tries both kinds, ever more seldom', () => {
  let now = newPlan();
  const tries = [];
  const waits = [];
  for (let i = 0; i < 14; i++) {
    tries.push(now.kind);
    const next = afterEnd(now, end({ code: 1006 }), 1);
    waits.push(next.wait / 1000);
    now = next.plan;
  }
  assert.equal(tries.slice(0, 4).join(' '), 'ws sse ws sse');
  assert.deepEqual(waits, [2, 15, 2, 30, 2, 60, 2, 120, 2, 240, 2, 300, 2, 300]);
});

test('events are taken out of the stream as they become complete', () => {
  const stream = 'retry: 4321\n\n: here\n\nid: g.7\nevent: status\ndata: {"a":"č"}\n\nid: g.8\nevent: admitted\ndata:{"b":2}\n\ndata: {"c"';
  for (let cut = 0; cut <= stream.length; cut++) {
    const first = takeEvents(stream.slice(0, cut));
    const second = takeEvents(first.rest + stream.slice(cut));
    assert.deepEqual([...first.data, ...second.data], ['{"a":"č"}', '{"b":2}'], `cut at ${cut}`);
    assert.equal(second.rest, 'data: {"c"');
  }
  assert.deepEqual(takeEvents('data: one\ndata: two\n\n').data, ['one\ntwo']);
  assert.deepEqual(takeEvents(''), { data: [], rest: '' });
});
