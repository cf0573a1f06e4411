// Polling where a cache answers: the page reads the public state of its queue, which is the same for
// everybody, and computes its own status from it. Its ticket it asks about once a turn, which keeps
// the place, and whenever the public state cannot tell what became of it. No DOM, no network, no
// clock, as in line.mjs; times are in ms by the server's clock.

import { aheadIn, bitAt, isOlder, parseSeq, pollDelay, waitIn } from './line.mjs';

const SECOND = 1000;
const NANO = 1e9;
const LONGEST_POLL = 30;
// How far the times of a document and of the page may lie apart. One that is older comes from a cache
// that reaches no edge any more (a good one is a second late, and five more where nothing changes);
// one that is newer shows that the page's clock has slept.
const TRUST = 15 * SECOND;

/** What a page remembers of its asking: `at` is when it was last told its own status. */
export function newAsking() {
  return { at: null, random: 0, after: null };
}

/** The own status was told. */
export function asked(asking, now, random) {
  return { ...asking, at: now, random };
}

/** The public state was read. */
export function hasRead(asking, state) {
  return { ...asking, after: state.sightAfterSeconds };
}

/** Milliseconds until the own status is to be asked for, lest the fan is absent. */
export function untilSighting({ at, random, after }, now) {
  if (at === null) return 0;
  return after === null ? Infinity : Math.max(at + pollDelay(after, random) - now, 0);
}

/** Whether the next poll reads the public state; if not, it asks for the own status. */
export function readsState(asking, status, now) {
  return inLine(status) && untilSighting(asking, now) > 0;
}

function inLine(status) {
  return Boolean(status) && (status.state === 'waiting' || status.state === 'scheduled');
}

/**
 * The status of a fan in line by the public state, or null when only the edge can tell it. It is
 * what queue.View.Status computes; both are tested by the same vectors. What the fan was told
 * last comes back when that is newer. The place is kept as long as the last sighting says.
 */
export function statusIn(state, status, now) {
  const seq = parseSeq(state && state.seq);
  const last = parseSeq(status.seq);
  const at = Date.parse(state && state.now);
  if (!seq || !last || seq.generation !== last.generation || !(at - now <= TRUST)) return null;
  const old = now - at > TRUST;
  const { position } = status;
  // Made before this place was, or before the last answer.
  if (position > state.issued || isOlder(state.seq, status.seq)) return old ? { ...status, stale: true } : status;

  const { queueState } = state;
  const reached = position <= state.watermark;
  // A fan whom the line has passed gets an offer sooner or later, if any are made; one who was not
  // told so yet may have it already.
  if (reached && (queueState === 'open' || queueState === 'closed' || queueState !== status.queueState)) return null;
  if (!reached && bitAt(state, position) === 0) return null; // left, on another device

  const told = { state: 'waiting', queueState, position };
  if (queueState === 'closed') {
    told.state = 'closed';
    told.ahead = null;
    told.waitSeconds = null;
    told.likelySoldOut = false;
  } else {
    if (queueState === 'scheduled') {
      told.state = 'scheduled';
      told.opensAt = state.opensAt;
    }
    told.ahead = aheadIn(state, position);
    told.waitSeconds = waitIn(state.estimate, told.ahead, reached);
    const from = state.likelySoldOutFrom;
    told.likelySoldOut = told.state === 'waiting' && from !== null && told.ahead - (reached ? 1 : 0) >= from;
    told.heldUntil = status.heldUntil;
  }
  told.pollAfterSeconds = pollAfter(told, state, now);
  told.now = new Date(now).toISOString();
  told.seq = state.seq;
  told.stale = state.stale || old;
  return told;
}

/** When to poll next, as queue.PollAfter and queue.PollBeforeOpening say it. */
function pollAfter({ state, position, ahead, opensAt }, { issued, ratePerMinute, sightAfterSeconds }, now) {
  const most = Math.min(sightAfterSeconds, LONGEST_POLL);
  let wait = most;
  if (state === 'waiting') {
    const each = ratePerMinute > 0 ? Math.trunc(ahead / ratePerMinute * 60 * NANO / 10) : ahead * NANO / 20;
    wait = Math.floor(each / NANO);
  } else if (state === 'scheduled') {
    const untilOpening = (Date.parse(opensAt) - now) * (NANO / SECOND);
    const spread = Math.min(issued * NANO / 5000, 24 * NANO);
    const after = Math.trunc(spread * Math.min(position, issued) / Math.max(issued, 1));
    wait = untilOpening + after;
    if (untilOpening <= 0) wait = Math.trunc(after / 8) - Math.trunc(untilOpening / 4);
    wait = Math.ceil(wait / NANO);
  }
  return Math.max(Math.min(wait, most), 1);
}
