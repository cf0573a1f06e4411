import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import * as cached from './src/cached.mjs';

// The same file tests the Go side, in origin/queue/cached_vectors_test.go.
const vectors = JSON.parse(readFileSync(new URL('../origin/queue/testdata/cached.json', import.meta.url)));

// Times are written in more than one way.
const plain = (status) => status && Object.fromEntries(Object.entries(status)
  .map(([name, value]) => [name, ['now', 'opensAt', 'heldUntil'].includes(name) ? Date.parse(value) : value]));

test('what a fan is told by the public state is what the edge would tell', () => {
  let told = 0;
  let silent = 0;
  for (const { name, state, fans } of vectors) {
    for (const fan of fans) {
      const got = cached.statusIn(state, fan.told, Date.parse(fan.now));
      assert.deepEqual(plain(got), plain(fan.want), `${name}: position ${fan.told.position}`);
      if (got) told += 1;
      else silent += 1;
    }
  }
  assert.ok(told > 200 && silent > 50, `${told} and ${silent} vectors`);
});

const now = Date.parse('2026-03-01T10:00:00Z');
const at = (seconds) => new Date(now + seconds * 1000).toISOString();
const bits = (...done) => {
  const bytes = new Uint8Array(128).fill(255);
  for (const position of [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ...done]) bytes[(position - 1) >> 3] &= ~(1 << ((position - 1) & 7));
  return btoa(String.fromCharCode(...bytes));
};
const state = (more) => ({
  queueState: 'open', watermark: 10, issued: 100, owed: 0, ratePerMinute: 60, firstBlock: 1, blocks: [1014], bits: bits(),
  estimate: null, likelySoldOutFrom: null, turn: 3, sightAfterSeconds: 48, seq: 'g.20', stale: false, now: at(0), ...more,
});
const status = (more) => ({
  state: 'waiting', queueState: 'open', position: 30, ahead: 25, waitSeconds: null, likelySoldOut: false,
  heldUntil: at(1800), pollAfterSeconds: 2, now: at(-5), seq: 'g.10', stale: false, ...more,
});

test('the edge is asked when the turn may have come, and when the document says nothing of the fan', () => {
  const cases = [
    ['not reached yet', {}, {}, true],
    ['the next', {}, { position: 11 }, true],
    ['reached', { watermark: 30 }, {}, false],
    ['owed', {}, { position: 4 }, false],
    ['owed while nobody is let in', { queueState: 'paused' }, { position: 4, queueState: 'paused' }, true],
    ['owed, and the pause is over', {}, { position: 4, queueState: 'paused' }, false],
    ['owed, and the pause is new', { queueState: 'paused' }, { position: 4 }, false],
    ['owed, and sold out again', { queueState: 'sold_out' }, { position: 4, queueState: 'paused' }, false],
    ['owed, and closed', { queueState: 'closed' }, { position: 4 }, false],
    ['sold out', { queueState: 'sold_out' }, {}, true],
    ['closed', { queueState: 'closed' }, {}, true],
    ['out of the line', { bits: bits(30) }, {}, false],
    ['the one before is out of the line', { bits: bits(29) }, {}, true],
    ['another generation', { seq: 'h.1' }, {}, false],
    ['no seq', { seq: undefined }, {}, false],
    ['no time', { now: undefined }, {}, false],
    ['the clock of the page has slept', { now: at(16) }, {}, false],
    ['the clock of the page is late', { now: at(14) }, {}, true],
  ];
  for (const [what, moreState, moreStatus, want] of cases) {
    assert.equal(cached.statusIn(state(moreState), status(moreStatus), now) !== null, want, what);
  }
  for (const broken of [null, {}, [], 'x', { title: 'a problem' }]) {
    assert.equal(cached.statusIn(broken, status(), now), null, JSON.stringify(broken));
  }
});

test('an older document never replaces what the fan was told', () => {
  const told = status({ seq: 'g.21', ahead: 19 });
  assert.equal(cached.statusIn(state({ watermark: 30 }), told, now), told);
  assert.deepEqual(cached.statusIn(state({ seq: 'g.22' }), told, now).seq, 'g.22');
  assert.equal(cached.statusIn(state({ seq: 'g.21' }), told, now).ahead, 19);
});

test('a document that is older than the place tells nothing of it', () => {
  const told = status({ position: 101, ahead: 99 });
  assert.equal(cached.statusIn(state({ likelySoldOutFrom: 90 }), told, now), told);
});

test('a document that a cache has kept for long is marked, and nobody asks more often for it', () => {
  const old = state({ now: at(-16) });
  assert.equal(cached.statusIn(old, status(), now).stale, true);
  assert.deepEqual(cached.statusIn(old, status({ seq: 'g.21' }), now), status({ seq: 'g.21', stale: true }));
  assert.equal(cached.statusIn(state({ now: at(-14) }), status(), now).stale, false);
  assert.equal(cached.statusIn(state({ stale: true }), status(), now).stale, true);
});

test('the place is held from the last sighting on, and not from the last reading', () => {
  assert.equal(cached.statusIn(state(), status(), now).heldUntil, at(1800));
});

test('the own status is asked for within 0.8 of a turn, and whenever it is not a place in line', () => {
  let asking = cached.newAsking();
  assert.equal(cached.readsState(asking, status(), now), false, 'before anything was told');
  asking = cached.asked(asking, now, 0);
  assert.equal(cached.readsState(asking, status(), now), true);
  assert.equal(cached.readsState(asking, null, now), false);
  for (const own of ['admitted', 'active', 'ended', 'left']) {
    assert.equal(cached.readsState(asking, status({ state: own }), now), false, own);
  }
  asking = cached.hasRead(asking, state());
  assert.equal(cached.untilSighting(asking, now + 8_000), 40_000);
  assert.equal(cached.readsState(asking, status({ state: 'scheduled' }), now + 47_999), true);
  assert.equal(cached.readsState(asking, status(), now + 48_000), false);
  assert.equal(cached.untilSighting(asking, now + 90_000), 0);
  // The jitter only shortens.
  assert.equal(cached.untilSighting(cached.asked(asking, now, 1), now), 38_400);
  // A shorter hold counts from the next reading on.
  asking = cached.hasRead(asking, state({ sightAfterSeconds: 4 }));
  assert.equal(cached.readsState(asking, status(), now + 4_000), false);
});
