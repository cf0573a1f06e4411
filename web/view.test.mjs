import assert from 'node:assert/strict';
import { test } from 'node:test';
import { newMemory, receive } from './src/line.mjs';
import { languages } from './src/texts.mjs';
import { announce, formatClock, formatDuration, silence, view } from './src/view.mjs';

const texts = languages.en;
const now = Date.parse('2026-03-01T10:00:00Z');
const at = (seconds) => new Date(now + seconds * 1000).toISOString();
const env = (more) => ({
  now, visible: true, clickOnly: false, handing: false, trouble: null, problem: null,
  language: 'en', shopName: 'Shop', ...more,
});
const seen = (more) => receive(newMemory(), {
  state: 'waiting', queueState: 'open', position: 1234, ahead: 1000, seq: 'g.1', now: at(0),
  heldUntil: at(1800), pollAfterSeconds: 5, stale: false, ...more,
});

test('durations and times read as people write them', () => {
  const cases = [[0, '0:00'], [-5, '0:00'], [6_001, '0:07'], [750_000, '12:30'], [3_723_000, '1:02:03']];
  for (const [ms, want] of cases) assert.equal(formatDuration(ms), want);
  assert.match(formatClock(now, 'en'), /\d{1,2}:\d{2}/);
});

test('every state and every trouble of a ticket has a heading, a next step and the right button', () => {
  const cases = [
    [{ state: 'scheduled', queueState: 'scheduled', opensAt: at(90) }, {}, 'scheduled', 'leave'],
    [{ state: 'scheduled', queueState: 'scheduled', opensAt: at(0) }, {}, 'opening', 'leave'],
    [{ state: 'waiting' }, {}, 'waiting', 'leave'],
    [{ state: 'waiting', ahead: 0 }, {}, 'next', 'leave'],
    [{ state: 'waiting', queueState: 'paused' }, {}, 'paused', 'leave'],
    [{ state: 'waiting', queueState: 'sold_out' }, {}, 'soldOut', 'leave'],
    [{ state: 'admitted', ahead: null, claimBy: at(90) }, {}, 'entering', ''],
    [{ state: 'admitted', ahead: null, claimBy: at(90) }, { visible: false }, 'admitted', 'go leave'],
    [{ state: 'admitted', ahead: null, claimBy: at(90) }, { clickOnly: true }, 'admitted', 'go leave'],
    [{ state: 'active', ahead: null, sessionExpiresAt: at(90) }, { visible: false }, 'active', 'go'],
    [{ state: 'active', ahead: null, sessionExpiresAt: at(90) }, {}, 'entering', ''],
    [{ state: 'ended', ahead: null }, {}, 'ended', 'again'],
    [{ state: 'expired', ahead: null, reason: 'absent' }, {}, 'expiredAbsent', 'again'],
    [{ state: 'expired', ahead: null, reason: 'missed_offers' }, {}, 'expiredMissed', 'again'],
    [{ state: 'left', ahead: null }, {}, 'left', 'again'],
    [{ state: 'closed', ahead: null }, {}, 'closed', ''],
    [{ state: 'waiting' }, { problem: 'taken' }, 'taken', 'again'],
    [{ state: 'waiting' }, { problem: 'refused' }, 'refused', 'again'],
    [{ state: 'waiting' }, { problem: 'missing' }, 'missing', ''],
    [{ state: 'waiting' }, { problem: 'identity' }, 'identity', 'again'],
  ];
  for (const [status, how, key, buttons] of cases) {
    const v = view(seen(status), env(how), texts);
    const shown = ['go', 'again', 'leave'].filter((b) => v[b] !== '').join(' ');
    assert.equal(v.key, key, JSON.stringify([status, how]));
    assert.equal(shown, buttons, key);
    assert.ok(v.title && v.lead && v.pageTitle, key);
  }
  assert.equal(view(newMemory(), env(), texts).key, 'loading');
  assert.equal(view(newMemory(), env({ trouble: 'crowded' }), texts).key, 'busy');
});

test('a waiting fan reads the place, the way gone and until when it is kept', () => {
  const v = view(seen({}), env({ now: now + 133_000 }), texts);
  assert.equal(v.ahead, '1,000');
  assert.equal(v.position, '1,234');
  assert.equal(v.pageTitle, '1,000 ahead of you');
  assert.equal(v.clock, 'You have been waiting for 2:13.');
  assert.ok(v.held.includes(formatClock(now + 1_800_000, 'en')), v.held);
});

test('before the opening the countdown goes by the server, and a day away by the date', () => {
  const memory = seen({ state: 'scheduled', queueState: 'scheduled', opensAt: at(3661), heldUntil: at(3661 + 1800) });
  let v = view(memory, env(), texts);
  assert.ok(v.clock.startsWith('The sale opens in 1:01:01, at '), v.clock);
  assert.equal(v.pageTitle, 'Opens in 1:01:01');
  assert.ok(v.held.includes(formatClock(now + 5_461_000, 'en')), v.held);
  v = view(memory, env({ now: now + 3_660_001 }), texts);
  assert.ok(v.clock.startsWith('The sale opens in 0:01, at '), v.clock);
  v = view(memory, env({ now: now + 3_661_000 }), texts);
  assert.deepEqual([v.key, v.clock, v.ahead, v.pageTitle], ['opening', '', '1,000', texts.opening.title]);
  v = view(seen({ state: 'scheduled', queueState: 'scheduled', opensAt: at(3 * 86_400) }), env(), texts);
  assert.ok(/^The sale opens on .*Mar.*\.$/.test(v.clock), v.clock);
  assert.equal(v.pageTitle, texts.scheduled.title);
});

test('a place that is kept until another day says which', () => {
  assert.match(formatClock(now + 3 * 86_400_000, 'en', now), /Mar/);
  assert.doesNotMatch(formatClock(now, 'en', now), /Mar/);
});

test('sold out, withdrawn, reopened and probably sold out are told in time and once', () => {
  let memory = seen({ state: 'admitted', ahead: null, claimBy: at(90) });
  const next = (seq, more) => {
    memory = receive(memory, { ...memory.status, state: 'waiting', ahead: 0, seq: `g.${seq}`, now: at(seq), ...more });
    return view(memory, env({ now: now + seq * 1000 }), texts);
  };
  let v = next(2, { queueState: 'sold_out' });
  assert.deepEqual([v.key, v.note], ['soldOut', texts.withdrawn]);
  v = next(3, { queueState: 'sold_out' });
  assert.equal(v.note, texts.withdrawn);
  v = next(4, { queueState: 'open' });
  assert.deepEqual([v.key, v.note], ['next', texts.reopened]);
  v = next(63, { queueState: 'open' });
  assert.equal(v.note, texts.reopened);
  v = next(64, { queueState: 'open' });
  assert.equal(v.note, '');
  v = next(65, { queueState: 'open', likelySoldOut: true });
  assert.equal(v.note, texts.likelySoldOut);
  v = next(66, { queueState: 'sold_out', likelySoldOut: true });
  assert.deepEqual([v.key, v.note], ['soldOut', ''], 'nobody had a turn this time');
});

test('an estimate counts down between the answers of the server', () => {
  const memory = seen({ waitSeconds: { p50: 240, p90: 420 } });
  assert.equal(view(memory, env(), texts).clock, 'About 4–7 minutes to go.');
  assert.equal(view(memory, env({ now: now + 125_000 }), texts).clock, 'About 1–5 minutes to go.');
  assert.equal(view(memory, env({ now: now + 3_600_000 }), texts).clock, 'About 1 minute to go.');
});

test('an estimate is told in words no finer than it is known', () => {
  const cases = [
    [1, 1, '1 minute'], [20, 59, '1 minute'], [60, 61, '1–2 minutes'], [119, 121, '1–3 minutes'],
    [540, 600, '9–10 minutes'], [600, 601, '10–15 minutes'], [30, 900, '1–15 minutes'],
    [1500, 1500, '25 minutes'], [5400, 7200, '90–120 minutes'], [7200, 7201, '2–2.5 hours'],
    [7200, 10800, '2–3 hours'], [7300, 86_400, '2–24 hours'],
  ];
  for (const [p50, p90, want] of cases) {
    assert.equal(view(seen({ waitSeconds: { p50, p90 } }), env(), texts).clock, `About ${want} to go.`);
  }
});

test('nothing is said of the wait while there is no estimate', () => {
  assert.equal(view(seen({ waitSeconds: null }), env(), texts).clock, 'You have been waiting for 0:00.');
  const memory = receive(seen({ waitSeconds: { p50: 240, p90: 420 } }), { ...seen({}).status, queueState: 'paused', waitSeconds: null });
  assert.equal(view(memory, env(), texts).clock, 'You have been waiting for 0:00.');
});

test('an estimate is changed when it matters', () => {
  let memory = seen({ waitSeconds: { p50: 1200, p90: 1500 } });
  const hear = (seconds, p50, p90) => {
    memory = receive(memory, { ...memory.status, now: at(seconds), waitSeconds: { p50, p90 } });
    return view(memory, env({ now: now + seconds * 1000 }), texts).clock;
  };
  assert.equal(hear(0, 1200, 1500), 'About 20–25 minutes to go.');
  assert.equal(hear(60, 1290, 1590), 'About 15–25 minutes to go.', 'it wavers');
  assert.equal(hear(120, 1000, 1290), 'About 15–25 minutes to go.');
  assert.equal(hear(180, 2000, 2500), 'About 30–45 minutes to go.', 'something happened');
  assert.equal(hear(240, 90, 110), 'About 1–2 minutes to go.');
  assert.equal(hear(250, 30, 50), 'About 1 minute to go.', 'the last minutes count');
});

test('a hidden tab tells in its title that it is the turn, with the time left', () => {
  const v = view(seen({ state: 'admitted', ahead: null, claimBy: at(272) }), env({ visible: false }), texts);
  assert.equal(v.pageTitle, 'Your turn! 4:32');
  assert.equal(v.go, 'Enter the shop (4:32)');
});

test('a lost connection says until when the place is kept', () => {
  const v = view(seen({}), env({ trouble: 'offline' }), texts);
  assert.ok(v.note.startsWith('Connection lost. Your place is kept until'), v.note);
  assert.equal(v.held, '', 'the same is not said twice');
  assert.equal(view(seen({}), env({ trouble: 'offline', now: now + 2_000_000 }), texts).note, texts.offline);
  assert.equal(view(seen({ stale: true }), env(), texts).note, texts.stale);
});

test('a screen reader hears what matters and nothing twice', () => {
  const heard = [];
  let said = silence;
  const hear = (status, how) => {
    const spoken = announce(said, view(seen(status), env(how), texts), texts);
    said = spoken.said;
    heard.push(spoken.text);
  };
  hear({ ahead: 100 });
  hear({ ahead: 100 });
  hear({ ahead: 80 });
  hear({ ahead: 50 });
  hear({ ahead: 50 }, { trouble: 'offline' });
  hear({ ahead: 50 }, { trouble: 'offline' });
  hear({ ahead: 50 });
  hear({ state: 'admitted', ahead: null, claimBy: at(90) }, { visible: false });
  hear({ state: 'admitted', ahead: null, claimBy: at(59) }, { visible: false });
  hear({ state: 'admitted', ahead: null, claimBy: at(58) }, { visible: false });
  const offline = view(seen({}), env({ trouble: 'offline' }), texts).note;
  assert.deepEqual(heard, [
    'You are in line. ' + texts.waiting.lead + ' 100 ahead of you.',
    '', '', '50 ahead of you.',
    offline, '', 'Connected again.',
    'It is your turn. ' + texts.admitted.lead, 'One minute left to enter the shop.', '',
  ]);
});
