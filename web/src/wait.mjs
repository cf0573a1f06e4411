// The waiting page: one loop that does the next thing that its place in line needs, and shows
// what it knows. It polls while no live connection tells it how the line moves. The ticket itself
// stays in a cookie that no script can read.

import { asked, hasRead, newAsking, readsState, statusIn, untilSighting } from './cached.mjs';
import {
  asksForClick, fromStorage, handOverAddress, hasLeft, isOut, measureOffset, newMemory, pollDelay,
  queueOfPath, receive, retryDelay, returnAddress, toStorage, userMark, userTokenOf, wantsSession,
  withoutUserToken,
} from './line.mjs';
import { Live } from './stream.mjs';
import { languages } from './texts.mjs';
import { announce, silence, view } from './view.mjs';

const REQUEST_TIMEOUT = 10_000;
// How long the shop may take to answer before the page offers to try again by hand.
const HAND_OVER_PATIENCE = 15_000;
// Within how many seconds to open a live connection after joining, and to poll after losing it.
const SOON = 5;

const texts = languages.en;
const queue = queueOfPath(location.pathname);
const storageKey = `waitingroom.${queue}`;
const returnText = new URLSearchParams(location.search).get('return');

// Who the fan is, as the shop says. The token is kept nowhere: a reload has the cookie, and whoever
// has lost the place fetches another one from the shop.
const userToken = userTokenOf(location.hash);
const user = userToken && userMark(userToken);
let memory = fromStorage(readStorage());
// What somebody else left in this browser, or the same fan before signing in, is not this user's.
if (userToken && memory.user !== user) memory = newMemory();
// The server's clock minus the time that this page is open; the phone's clock, which may be wrong or
// be put right meanwhile, only stands in until the first answer.
let offset = Date.now() - performance.now();
let shop = null; // the queue's public description
let target = null; // where the fan goes in the shop
let problem = queue ? null : 'missing';
let trouble = null;
let attempt = 0;
let ownStatus = newAsking(); // when it was asked for, which matters where a cache answers the polls
let joinsInDoubt = 0; // joins since an answer last proved that the cookie comes back
let clickOnly = asksForClick(location.hash);
let clicked = false;
let leaving = false;
let handing = false;

let timer = 0;
let busy = false;
let again = false;
let kept = null; // what this page wrote into the storage last

const live = new Live({
  origin: location.origin,
  WebSocket: window.WebSocket,
  fetch: (path, options) => window.fetch(path, options),
  locks: navigator.locks,
  clocks: () => [performance.now(), Date.now()],
  serverNow,
  random: Math.random,
  online: () => navigator.onLine !== false,
  tell: hear,
  ended: pollAgain,
});

/** The server cannot answer now, or cannot be reached: the same is tried again later. */
class Trouble extends Error {
  constructor(kind, retryAfter) {
    super(kind);
    this.kind = kind;
    this.retryAfter = retryAfter;
  }
}

/** Asks the edge; problem documents are answers too, only overload and lost connections throw. */
async function ask(method, path, body) {
  const stop = new AbortController();
  const timeout = setTimeout(() => stop.abort(), REQUEST_TIMEOUT);
  const sentAt = performance.now();
  try {
    const response = await fetch(path, {
      method,
      headers: body ? { 'Content-Type': 'application/json' } : {},
      body: body && JSON.stringify(body),
      cache: method === 'GET' && path.startsWith('/queues/') ? 'no-cache' : 'no-store',
      credentials: 'same-origin',
      redirect: 'error',
      signal: stop.signal,
    });
    if (response.status === 429 || response.status >= 500) {
      throw new Trouble('crowded', response.headers.get('Retry-After'));
    }
    const text = await response.text();
    const answer = { code: response.status, body: text === '' ? {} : JSON.parse(text) };
    // What a cache answers was true some time ago.
    const measured = path.endsWith('/state') ? null : measureOffset(answer.body.now, sentAt, performance.now());
    if (measured !== null) offset = measured;
    return answer;
  } catch (error) {
    throw error instanceof Trouble ? error : new Trouble('offline', null);
  } finally {
    clearTimeout(timeout);
  }
}

/** Does the next thing; returns in how many ms there is another, or null when there is none. */
async function next() {
  if (problem || handing) return null;
  if (!shop) {
    const answer = await ask('GET', `/queues/${queue}`);
    if (answer.code !== 200) return fail(answer.code === 404 ? 'missing' : 'refused');
    shop = answer.body;
    target = returnAddress(returnText, shop.returnOrigins);
    return target ? 0 : fail('noReturn');
  }
  if (leaving) return leave();
  if (isOut(memory.status)) return null;
  if (!memory.ticketId) return join();
  if (wantsSession(memory.status, { visible: visible(), clickOnly, clicked })) return claim();
  return live.kind() ? null : poll();
}

/** Joins, or comes back to the place that the cookie, or the user, has already. */
async function join() {
  if (nameless()) return fail('identity');
  const answer = await ask('POST', `/queues/${queue}/tickets`, userToken ? { userToken } : {});
  switch (answer.code) {
    case 200:
    case 201:
      joinsInDoubt += 1;
      memory = { ...newMemory(), ticketId: answer.body.ticketId, user };
      ownStatus = asked(ownStatus, serverNow(), Math.random());
      return take(answer.body);
    case 410:
      return fail('closed');
    case 401:
    case 403:
      return fail('identity');
    case 404:
      return fail('missing');
    default:
      return fail('refused');
  }
}

async function poll() {
  if (shop.polling === 'cached' && readsState(ownStatus, memory.status, serverNow())) {
    const answer = await ask('GET', `/queues/${queue}/state`);
    const told = answer.code === 200 ? statusIn(answer.body, memory.status, serverNow()) : null;
    if (told) {
      ownStatus = hasRead(ownStatus, answer.body);
      const delay = take(told);
      return delay && Math.min(delay, untilSighting(ownStatus, serverNow()));
    }
  }
  const answer = await ask('GET', ticketPath());
  if (answer.code !== 200) return forgotten();
  joinsInDoubt = 0;
  ownStatus = asked(ownStatus, serverNow(), Math.random());
  return take(answer.body);
}

async function claim() {
  const answer = await ask('POST', `${ticketPath()}/session`, {});
  clicked = false;
  if (answer.code === 200) {
    handOver(answer.body.sessionToken);
    return null;
  }
  if (answer.code === 409) {
    if (answer.body.code === 'position_taken') return fail('taken');
    return Math.max(take(answer.body), pollDelay(1, Math.random()));
  }
  if (answer.code === 410) {
    // Out of the line, and the answer says why; if it does not, the polls will.
    const delay = answer.body.state ? take(answer.body) : await poll();
    return delay === 0 ? pollDelay(1, Math.random()) : delay;
  }
  return forgotten();
}

async function leave() {
  const answer = await ask('DELETE', ticketPath());
  leaving = false;
  if (![204, 401, 404, 410].includes(answer.code)) return fail('refused');
  memory = hasLeft(memory);
  keep();
  return null;
}

/** Takes in a status and says when to go on. */
function take(status) {
  memory = receive(memory, status);
  keep();
  if (isOut(memory.status)) return null;
  if (wantsSession(memory.status, { visible: visible(), clickOnly, clicked })) return 0;
  return live.kind() ? null : pollDelay(status.pollAfterSeconds, Math.random());
}

/** Takes in a status that the live connection told; nothing needs to be polled then. */
function hear(status) {
  joinsInDoubt = 0;
  // It was sent before it came, so the server's clock is at least there.
  offset = Math.max(offset, (Date.parse(status.now) || 0) - performance.now());
  const delay = take(status);
  if (delay === 0 && !trouble) step();
  if (delay === null && !leaving) {
    trouble = null;
    attempt = 0;
    schedule(null);
  }
  attend();
}

/** The live connection has ended; unless the polls go on anyway, there is a next one. */
function pollAgain(ask) {
  if (trouble || ask === 'later') return;
  schedule(ask === 'now' ? 0 : Math.random() * Math.min(pace(), SOON * 1000));
}

/**
 * Sees to the screen and to the live connection, which is wanted until the fan is in the shop: of
 * who is there an edge has nothing to tell for many minutes, which would look like silence. Where
 * edges leave the polls to a cache, they do not want to hold a connection for each fan either.
 */
function attend() {
  const { ticketId, status } = memory;
  const wanted = ticketId && status && !isOut(status) && status.state !== 'active'
    && !problem && !handing && !leaving && shop && shop.polling !== 'cached';
  live.run(wanted ? ticketPath() : null, Math.min(pace() / 2, SOON * 1000));
  show();
}

/** Milliseconds between polls: who is far from the front has more time for everything. */
function pace() {
  return 1000 * ((memory.status && memory.status.pollAfterSeconds) || 1);
}

/**
 * The edge does not take this ticket (any more). Perhaps another tab has left the line or joined
 * again; if not, the line starts anew, but not in a circle.
 */
function forgotten() {
  const kept = fromStorage(readStorage());
  if (kept.ticketId && (kept.left || kept.ticketId !== memory.ticketId)) {
    memory = kept;
    return isOut(memory.status) ? null : 0;
  }
  if (joinsInDoubt >= 2) return fail('cookies');
  startAnew();
  return 0;
}

/** Whether whoever had a place by name would join as nobody: then only the shop can help. */
function nameless() {
  return memory.user !== null && !userToken;
}

/** Forgets the place, but not whose it was. */
function startAnew() {
  memory = { ...newMemory(), user: memory.user };
}

function fail(name) {
  problem = name;
  return null;
}

function handOver(sessionToken) {
  handing = true;
  setTimeout(() => {
    handing = false;
    clickOnly = true;
    wake();
  }, HAND_OVER_PATIENCE);
  location.replace(handOverAddress(target, sessionToken));
}

function schedule(delay) {
  clearTimeout(timer);
  if (delay !== null) timer = setTimeout(step, delay);
}

async function step() {
  schedule(null);
  if (busy) {
    again = true;
    return;
  }
  busy = true;
  let delay = null;
  try {
    delay = await next();
    trouble = null;
    attempt = 0;
  } catch (error) {
    if (!(error instanceof Trouble)) console.error(error);
    trouble = error.kind || 'offline';
    delay = retryDelay(error.retryAfter, attempt, serverNow(), Math.random());
    attempt += 1;
  } finally {
    busy = false;
  }
  if (again && !trouble) delay = 0;
  again = false;
  schedule(delay);
  attend();
}

/** Something happened that is worth asking at once for; a server that asked for a pause gets it. */
function wake() {
  live.wake();
  if (trouble !== 'crowded') step();
  show();
}

function visible() {
  return document.visibilityState === 'visible';
}

function serverNow() {
  return performance.now() + offset;
}

function ticketPath() {
  return `/tickets/${encodeURIComponent(memory.ticketId)}`;
}

function readStorage() {
  try {
    return localStorage.getItem(`waitingroom.${queueOfPath(location.pathname)}`);
  } catch {
    return null; // storage is switched off: the cookie alone keeps the place
  }
}

function keep() {
  const text = toStorage(memory);
  if (text === kept) return; // a live connection tells more than that changes
  kept = text;
  try {
    localStorage.setItem(storageKey, text);
  } catch {
    // as above
  }
}

// What is on the screen.

const $ = (id) => document.getElementById(id);
let said = silence;
let asking = false; // whether to leave

function show() {
  const env = {
    now: serverNow(), visible: visible(), clickOnly, handing, trouble, problem,
    language: document.documentElement.lang, shopName: shop && shop.branding && shop.branding.name,
  };
  const v = view(memory, env, texts);
  if (document.body.dataset.state !== v.key) document.body.dataset.state = v.key;
  if (document.body.dataset.live !== live.kind()) document.body.dataset.live = live.kind();
  if (document.title !== v.pageTitle) document.title = v.pageTitle;
  put('shop', v.shop && texts.atShop(v.shop));
  put('title', v.title);
  put('lead', v.lead);
  put('ahead', v.ahead);
  put('position', v.position);
  $('place').hidden = v.position === '';
  $('progress').hidden = v.progress === null;
  $('progress').value = Math.round((v.progress || 0) * 1000);
  for (const id of ['clock', 'held', 'note', 'go', 'again', 'leave']) put(id, v[id]);
  if (!v.leave) asking = false;
  $('leave').hidden = !v.leave || asking;
  $('confirm').hidden = !asking;
  const spoken = announce(said, v, texts);
  said = spoken.said;
  if (spoken.text) put('live', spoken.text);
}

/** Sets an element's text, and hides it when there is none; what is the same is not touched. */
function put(id, text) {
  const element = $(id);
  if (element.textContent !== text) element.textContent = text;
  element.hidden = text === '' && id !== 'live';
}

function prepare() {
  put('ahead-label', texts.ahead);
  put('position-label', texts.position);
  $('progress').setAttribute('aria-label', texts.progress);
  put('confirm-text', texts.confirm);
  put('stay', texts.stay);
  put('really-leave', texts.reallyLeave);
  $('go').addEventListener('click', () => {
    clicked = true;
    wake();
  });
  $('again').addEventListener('click', () => {
    if (problem === 'identity' || nameless()) {
      // Where the shop names nobody, the fan comes back as nobody, and not here again.
      memory = newMemory();
      keep();
      location.assign(target);
      return;
    }
    if (problem === 'taken' || isOut(memory.status)) startAnew();
    problem = null;
    keep();
    wake();
  });
  $('leave').addEventListener('click', () => {
    asking = true;
    show();
    $('stay').focus();
  });
  $('stay').addEventListener('click', () => {
    asking = false;
    show();
    $('leave').focus();
  });
  $('really-leave').addEventListener('click', () => {
    asking = false;
    leaving = true;
    wake();
  });
  document.addEventListener('visibilitychange', () => {
    if (visible()) wake();
    else show();
  });
  window.addEventListener('online', () => {
    live.online();
    wake();
  });
  window.addEventListener('offline', () => {
    live.offline();
    wake();
  });
  // A page with an open connection could not be kept for the way back.
  window.addEventListener('pagehide', () => live.close());
  window.addEventListener('pageshow', (event) => {
    if (!event.persisted) return;
    // Somebody came back from the shop: do not send them there again unasked.
    handing = false;
    clickOnly = true;
    wake();
  });
  setInterval(attend, 1000);
}

if (userToken) history.replaceState(null, '', location.pathname + location.search + withoutUserToken(location.hash));
prepare();
step();
