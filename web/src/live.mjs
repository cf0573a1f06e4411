// What the page decides about its live connection: which kind to try, what its end means, when to
// come back. No network, no clock, no dice: the caller passes in what it has.
//
// A WebSocket is tried first and Server-Sent Events next. Until one of them has told a status the
// page polls, so a proxy that refuses, holds back or cuts them costs a fan nothing but the speed.

import { retryDelay } from './line.mjs';

const SECOND = 1000;

/** How long a connection may take to tell its first status; a proxy that holds back never does. */
export const PATIENCE = 10 * SECOND;
/** An edge is heard of at least every 15 s; who has heard nothing for this long is cut off. */
export const SILENCE = 30 * SECOND;
/** The same for a page that somebody looks at again, whose connection may have died in its sleep. */
export const DOUBT = 20 * SECOND;

// A connection that lasted this long has shown that nobody on the way minds it.
const LASTING = 60 * SECOND;
// Ends in a row, each within its first minute, after which polling is worth more than trying.
const MANY = 4;

/** Which kind of connection is the next one, and how many in a row have not lasted. */
export function newPlan() {
  return { kind: 'ws', failures: 0 };
}

/**
 * What follows from the end of a connection.
 *
 * @param end    held: for how many ms statuses came, null when none did; code: of the WebSocket's
 *               close frame; refusal: the HTTP status instead of a stream, with its retryAfter;
 *               silent: given up by the page itself; now: the server's time in ms
 * @param random from 0 to 1
 * @returns the next plan; wait: ms until it; ask: whether to poll 'now' or 'soon', so that those
 *          who were cut off together do not ask together, or to go on polling 'later' as before
 */
export function afterEnd({ kind, failures }, end, random) {
  const told = end.held !== null;
  if (told && end.held >= LASTING) failures = 0;
  const next = (wait, ask, nextKind = kind) => ({
    plan: { kind: nextKind, failures: failures + 1 }, wait: Math.round(wait), ask,
  });
  const other = kind === 'ws' ? 'sse' : 'ws';
  // From a quarter of a minute to five minutes, growing with every two failures: one of each kind.
  const pause = () => Math.min(15 * 2 ** Math.min(failures >> 1, 5), 300) * SECOND * (0.5 + 0.5 * random);

  if (end.code === 1012 && failures === 0) return next(random * SECOND, 'soon'); // this edge stops
  if (end.code === 1013) return next((10 + 20 * random) * SECOND, told ? 'soon' : 'later');
  // The ticket is out, or not good any more: the answer to a poll says which.
  const final = [1000, 1008].includes(end.code) || end.refusal === 204 || (end.refusal >= 400 && end.refusal < 429);
  if (final) return next(pause(), 'now', 'ws');
  if (end.retryAfter) return next(retryDelay(end.retryAfter, failures, end.now, random), 'later', 'ws');
  if (!told) {
    return kind === 'ws' ? next(2 * random * SECOND, 'later', 'sse') : next(pause(), 'later', 'ws');
  }
  const ask = end.silent ? 'now' : 'soon';
  if (failures >= MANY) return next(pause(), ask, other);
  // Full jitter: the neighbours of an edge that died take in everybody that it had.
  const window = Math.min(10 * (failures + 1), 30) * SECOND;
  return next(random * window, ask, end.held >= LASTING ? 'ws' : other);
}

/**
 * The data of the events that are complete in a text of Server-Sent Events as the edge writes
 * them, and the rest, which is not. Comments and the other fields are left out.
 */
export function takeEvents(text) {
  const blocks = text.split('\n\n');
  const rest = blocks.pop();
  const data = blocks.map((block) => block.split('\n')
    .filter((row) => row.startsWith('data:'))
    .map((row) => row.slice(5).trimStart()).join('\n'));
  return { data: data.filter(Boolean), rest };
}
