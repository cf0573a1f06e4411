// The rules of a place in line as the page follows them: which answer is newer, when to ask again,
// where a fan may be sent. No DOM, no network, no clock: the caller passes in what it has.

const SECOND = 1000;

// The states in which the ticket is out of the line for good; nothing is asked any more.
const OUT = new Set(['ended', 'expired', 'left', 'closed']);

/** Whether a status is the last word on its ticket. */
export function isOut(status) {
  return Boolean(status) && OUT.has(status.state);
}

/** The queue's id from the path of its waiting page, or null. */
export function queueOfPath(path) {
  const match = /^\/wait\/([a-z0-9-]{1,63}\.[a-z0-9-]{1,63})\/?$/.exec(path);
  return match ? match[1] : null;
}

/** seq is "generation.entry"; null when it is anything else. */
export function parseSeq(seq) {
  const match = /^(.+)\.(\d{1,20})$/.exec(String(seq));
  return match ? { generation: match[1], entry: BigInt(match[2]) } : null;
}

/** Whether seq was computed from an earlier entry of the same generation than `than`. */
export function isOlder(seq, than) {
  const a = parseSeq(seq);
  const b = parseSeq(than);
  return Boolean(a && b) && a.generation === b.generation && a.entry < b.entry;
}

// The number of positions that the public state counts together.
const BLOCK = 1024;

/**
 * 1 while a position beyond the watermark is not done, 0 when it is, by the public state; null in
 * later blocks, which are not told bit by bit.
 */
export function bitAt(state, position) {
  const n = position - state.firstBlock;
  return n >= BLOCK ? null : (atob(state.bits).charCodeAt(n >> 3) >> (n & 7)) & 1;
}

/**
 * How many are ahead of a position, by the public state: exact in the block of the watermark,
 * elsewhere an upper bound, as queue.View.Ahead computes it. Both are tested by the same vectors.
 */
export function aheadIn(state, position) {
  if (position <= state.watermark + 1) return 0;
  const index = Math.floor((position - state.firstBlock) / BLOCK);
  const offset = (position - state.firstBlock) % BLOCK;
  if (index === 0) {
    const bits = atob(state.bits);
    let ahead = 0;
    for (let n = 0; n < offset; n++) ahead += (bits.charCodeAt(n >> 3) >> (n & 7)) & 1;
    return ahead;
  }
  const count = (i) => {
    if (i < state.blocks.length) return state.blocks[i];
    return i === 0 ? BLOCK - (state.watermark % BLOCK) : BLOCK;
  };
  let ahead = 0;
  for (let i = 0; i < index; i++) ahead += count(i);
  return ahead + Math.min(offset, Math.max(count(index), 1) - 1);
}

/**
 * The estimated wait of a fan, by the curve of the public state, as queue.Curve.Wait computes it;
 * null when there is none. The owed are those whose position the watermark has passed.
 */
export function waitIn(curve, ahead, owed) {
  if (!curve) return null;
  const i = curve.ahead.findIndex((point) => point >= ahead);
  if (i < 0) return null;
  let p50 = curve.p50[i];
  let p90 = curve.p90[i];
  if (i > 0 && ahead < curve.ahead[i]) {
    const part = (ahead - curve.ahead[i - 1]) / (curve.ahead[i] - curve.ahead[i - 1]);
    const between = (from, to) => from + Math.floor((to - from) * part + 0.5);
    p50 = between(curve.p50[i - 1], p50);
    p90 = between(curve.p90[i - 1], p90);
  }
  return { p50: owed ? Math.floor((p50 + 1) / 2) : p50, p90 };
}

/**
 * What a page remembers of a ticket; `since` is when it first saw it, `reopenedAt` when it saw the
 * queue open again, both by the server's clock; `withdrawn` says that the fan's turn had come when
 * everything was sold; `user` is whom the ticket was given to (see userMark), or null where that is
 * nobody by name.
 */
export function newMemory() {
  return {
    ticketId: null, status: null, firstAhead: null, fraction: 0, since: null, left: false,
    withdrawn: false, reopenedAt: null, user: null, wait: null,
  };
}

/**
 * Takes in a status. An older one of the same generation changes nothing. The progress, a
 * fraction from 0 to 1, never moves backwards.
 */
export function receive(memory, status) {
  if (!status || typeof status.state !== 'string') return memory;
  if (memory.status && isOlder(status.seq, memory.status.seq)) return memory;
  const next = { ...memory, status };
  if (next.since === null) next.since = Date.parse(status.now);
  const soldOut = status.state === 'waiting' && status.queueState === 'sold_out';
  const before = memory.status || {};
  next.withdrawn = soldOut && (memory.withdrawn || before.state === 'admitted');
  if (before.queueState === 'sold_out' && status.queueState === 'open') next.reopenedAt = Date.parse(status.now);
  next.wait = settleWait(memory.wait, status);
  if (Number.isInteger(status.ahead)) {
    if (next.firstAhead === null) next.firstAhead = status.ahead;
    // The fan's own turn is the last step, so a place with nobody ahead is not yet the end.
    const gone = 1 - (status.ahead + 1) / (Math.max(next.firstAhead, status.ahead) + 1);
    next.fraction = Math.max(next.fraction, gone);
  } else if (status.state === 'admitted' || status.state === 'active') {
    next.fraction = 1;
  }
  return next;
}

/**
 * The estimate that the page goes by: a new one replaces the one that has been counting down only
 * when it differs by more than a minute and a seventh, lest the page contradicts itself all the time.
 */
function settleWait(shown, { waitSeconds, now }) {
  if (!waitSeconds) return null;
  const next = { p50: waitSeconds.p50, p90: waitSeconds.p90, at: Date.parse(now) };
  if (!shown) return next;
  const passed = (next.at - shown.at) / SECOND;
  const near = (is, was) => Math.abs(is - (was - passed)) <= Math.max(60, is / 7);
  // The last minutes are told as they come.
  return next.p90 > 120 && near(next.p50, shown.p50) && near(next.p90, shown.p90) ? shown : next;
}

/** The memory after the fan has left the line; the cookie is gone, so nobody can be asked. */
export function hasLeft(memory) {
  return { ...memory, left: true, status: { ...memory.status, state: 'left' } };
}

/**
 * What is kept in the browser's storage: the ticket's id, how far the line had moved, whose it
 * is, and whether the fan left it, lest a reload or another tab joins again unasked.
 */
export function toStorage(memory) {
  const { ticketId, firstAhead, fraction, since, left, user } = memory;
  return JSON.stringify({ ticketId, firstAhead, fraction, since, left, user });
}

/** The memory from the browser's storage; a new one when that holds nothing sensible. */
export function fromStorage(text) {
  const memory = newMemory();
  let kept = null;
  try {
    kept = JSON.parse(text);
  } catch {
    return memory;
  }
  if (!kept || typeof kept.ticketId !== 'string' || !/^[\w.~-]{1,200}$/.test(kept.ticketId)) return memory;
  memory.ticketId = kept.ticketId;
  if (Number.isInteger(kept.firstAhead) && kept.firstAhead >= 0) memory.firstAhead = kept.firstAhead;
  if (kept.fraction >= 0 && kept.fraction <= 1) memory.fraction = kept.fraction;
  if (Number.isFinite(kept.since)) memory.since = kept.since;
  if (typeof kept.user === 'string') memory.user = kept.user;
  return kept.left === true ? hasLeft(memory) : memory;
}

/**
 * Milliseconds to add to the page's clock to get the server's, from one answer: its `now` was
 * true about half way between sending and receiving.
 */
export function measureOffset(now, sentAt, receivedAt) {
  const server = Date.parse(now);
  return Number.isNaN(server) ? null : server - (sentAt + receivedAt) / 2;
}

/** Milliseconds until the next poll. The jitter only shortens, by a fifth at the most. */
export function pollDelay(pollAfterSeconds, random) {
  const seconds = pollAfterSeconds >= 1 ? pollAfterSeconds : 1;
  return Math.round(seconds * SECOND * (1 - 0.2 * random));
}

/**
 * Milliseconds until the next try after a refusal for load or a lost connection. Retry-After
 * (seconds or a date) is obeyed, and jitter lengthens it by up to a half, so that those who were
 * refused together do not come back together. Without it the pauses grow from one second to
 * fifteen. No server can silence a page for more than five minutes.
 */
export function retryDelay(retryAfter, attempt, serverNow, random) {
  let wait = NaN;
  if (/^\s*\d+\s*$/.test(retryAfter || '')) {
    wait = Number(retryAfter) * SECOND;
  } else if (retryAfter) {
    wait = Date.parse(retryAfter) - serverNow;
  }
  if (!Number.isNaN(wait)) {
    wait = Math.min(Math.max(wait, SECOND), 300 * SECOND);
    return Math.round(wait * (1 + 0.5 * random));
  }
  const pause = Math.min(2 ** Math.min(attempt, 10), 15) * SECOND;
  return Math.round(pause * (0.6 + 0.4 * random));
}

/**
 * Whether the page asks for the session now: it is the fan's turn (or a session runs already),
 * and somebody is looking or has clicked. After a refused token only a click counts.
 */
export function wantsSession(status, { visible, clickOnly, clicked }) {
  if (!status || (status.state !== 'admitted' && status.state !== 'active')) return false;
  return clicked || (visible && !clickOnly);
}

/**
 * The address in the shop to go to, as a URL, or null when `text` is none of the shop's: its
 * origin must be exactly one of returnOrigins. Without a text it is the first origin's root.
 */
export function returnAddress(text, returnOrigins) {
  const origins = Array.isArray(returnOrigins) ? returnOrigins : [];
  if (text === null || text === undefined) {
    return origins.length > 0 ? new URL('/', origins[0]) : null;
  }
  // eslint-disable-next-line no-control-regex
  if (/[\u0000-\u0020\u007f\\]/.test(text)) return null;
  let url;
  try {
    url = new URL(text);
  } catch {
    return null;
  }
  if (url.protocol !== 'http:' && url.protocol !== 'https:') return null;
  if (url.username || url.password || /^[a-z]+:\/\/[^/?#]*@/i.test(text)) return null;
  return origins.includes(url.origin) ? url : null;
}

/**
 * The address that hands the fan over: wr_session in the query beside what else is there, letter
 * for letter, and the fragment kept.
 */
export function handOverAddress(returnURL, sessionToken) {
  const url = new URL(returnURL);
  const others = url.search.replace(/^\?/, '').split('&')
    .filter((part) => part !== '' && !new URLSearchParams(part).has('wr_session'));
  url.search = [...others, 'wr_session=' + encodeURIComponent(sessionToken)].join('&');
  return url.href;
}

/** Whether the page's fragment asks to hand over only on a click (the shop refused a token). */
export function asksForClick(fragment) {
  return new URLSearchParams(fragment.replace(/^#/, '')).get('wr_click') === '1';
}

/** The token in the page's fragment with which the shop says who its fan is, or null. */
export function userTokenOf(fragment) {
  return new URLSearchParams(fragment.replace(/^#/, '')).get('wr_user') || null;
}

/**
 * A mark by which the page knows the token's user again, a hash, so that no storage holds the user's
 * id. Nobody believes anything because of it. Null when there is no user in the token.
 */
export function userMark(token) {
  try {
    const text = atob(token.split('.')[1].replace(/-/g, '+').replace(/_/g, '/'));
    const { iss, sub } = JSON.parse(text); // UTF-8 taken for Latin-1, which marks as well
    if (typeof sub !== 'string' || sub === '') return null;
    let mark = 0xcbf29ce484222325n; // FNV-1a, 64 bits
    for (const c of `${iss} ${sub}`) mark = BigInt.asUintN(64, (mark ^ BigInt(c.charCodeAt(0))) * 0x100000001b3n);
    return mark.toString(36);
  } catch {
    return null;
  }
}

/** The fragment without that token, letter for letter: nobody is to find it in the address. */
export function withoutUserToken(fragment) {
  const kept = fragment.replace(/^#/, '').split('&')
    .filter((part) => part !== '' && !new URLSearchParams(part).has('wr_user'));
  return kept.length > 0 ? '#' + kept.join('&') : '';
}
