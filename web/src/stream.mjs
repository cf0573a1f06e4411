// The page's live connection: at most one at a time, a WebSocket or Server-Sent Events read by
// fetch, which unlike EventSource tells why it was refused and lets the page choose when to come
// back. What to do when is decided in live.mjs.

import { afterEnd, DOUBT, newPlan, PATIENCE, SILENCE, takeEvents } from './live.mjs';

// The longest that an event may be, in characters; nothing of ours comes near.
const LONGEST_EVENT = 1 << 16;

export class Live {
  #world;
  #path = null; // of the ticket; null while no connection is wanted
  #plan = newPlan();
  #tryAt = 0;
  #asked = false; // #tryAt is the server's wish
  #stream = null;

  /**
   * @param world origin, WebSocket, fetch, locks (or undefined), clocks() as [monotonic, wall] in
   *              ms, serverNow(), random(), online(); tell(status) takes what the edge says;
   *              ended(ask) hears that there is no connection any more and when to poll
   */
  constructor(world) {
    this.#world = world;
  }

  /** The kind of the connection that tells statuses, or '' when there is none. */
  kind() {
    return this.#stream && this.#stream.firstAt !== null ? this.#stream.kind : '';
  }

  /**
   * Called at least once a second: opens a connection when it is time, gives up one that has died,
   * and closes it when it is not wanted, which is when path is null. The first one of a ticket is
   * opened at a random time within `spread` ms, as many pages are opened at once.
   */
  run(path, spread) {
    const [now] = this.#world.clocks();
    if (path !== this.#path) {
      this.close();
      this.#path = path;
      this.#plan = newPlan();
      this.#tryAt = now + this.#world.random() * spread;
      this.#asked = false;
    }
    this.#check(SILENCE);
    if (path !== null && !this.#stream && now >= this.#tryAt && this.#world.online()) this.#open();
  }

  /** Somebody looks at the page again. */
  wake() {
    this.#check(DOUBT);
  }

  /** The device has lost its network: what is open will not be heard of again. */
  offline() {
    if (this.#stream) this.#stream.end({ silent: true });
  }

  /** The device has a network, perhaps another one, in which other things may work. */
  online() {
    if (this.#stream || this.#asked) return;
    this.#plan = newPlan();
    this.#tryAt = this.#world.clocks()[0] + this.#world.random() * 1000;
  }

  /** Closes the connection without a word to the page. */
  close() {
    const stream = this.#stream;
    this.#stream = null;
    if (stream) stream.stop();
  }

  // The wall clock counts as well, because some systems stop the other one while they sleep.
  #check(limit) {
    const stream = this.#stream;
    if (!stream) return;
    const [now, wall] = this.#world.clocks();
    const silent = stream.firstAt === null ? now - stream.openedAt >= PATIENCE
      : Math.max(now - stream.heardAt[0], wall - stream.heardAt[1]) >= limit;
    if (silent) stream.end({ silent: true });
  }

  #open() {
    const world = this.#world;
    const { kind } = this.#plan;
    const stream = { kind, openedAt: world.clocks()[0], firstAt: null, heardAt: null, stop: () => {} };
    // Whatever comes from a connection that was given up comes too late.
    const current = () => this.#stream === stream;
    stream.hear = (text) => {
      if (!current()) return;
      stream.heardAt = world.clocks();
      const status = parse(text);
      if (!status) return;
      if (stream.firstAt === null) [stream.firstAt] = stream.heardAt;
      world.tell(status);
    };
    stream.end = (how) => {
      if (!current()) return;
      this.close();
      const [now] = world.clocks();
      const held = stream.firstAt === null ? null : now - stream.firstAt;
      const next = afterEnd(this.#plan, { held, now: world.serverNow(), ...how }, world.random());
      this.#plan = next.plan;
      this.#tryAt = now + next.wait;
      this.#asked = how.code === 1013 || Boolean(how.retryAfter);
      world.ended(next.ask);
    };
    this.#stream = stream;
    try {
      stream.stop = (kind === 'ws' ? openSocket : openEvents)(world, this.#path, stream);
    } catch {
      stream.end({}); // there are no WebSockets here, or they are forbidden
    }
  }
}

/** A status, or null when the text is something else. */
function parse(text) {
  try {
    const status = JSON.parse(text);
    return status && typeof status.state === 'string' ? status : null;
  } catch {
    return null;
  }
}

function openSocket(world, path, { hear, end }) {
  const socket = new world.WebSocket(world.origin.replace(/^http/, 'ws') + path + '/ws', 'waitingroom.v1');
  socket.onmessage = ({ data }) => hear(data);
  socket.onclose = ({ code }) => end({ code });
  return () => socket.close();
}

function openEvents(world, path, { hear, end }) {
  const stop = new AbortController();
  const follow = async () => {
    const response = await world.fetch(path + '/events', {
      headers: { Accept: 'text/event-stream' }, cache: 'no-store', credentials: 'same-origin',
      redirect: 'error', signal: stop.signal,
    });
    const type = response.headers.get('Content-Type') || '';
    if (response.status !== 200 || !type.startsWith('text/event-stream')) {
      stop.abort();
      return { refusal: response.status, retryAfter: response.headers.get('Retry-After') };
    }
    const reader = response.body.getReader();
    const decoder = new TextDecoder();
    for (let text = ''; text.length < LONGEST_EVENT;) {
      const { done, value } = await reader.read();
      if (done) break;
      const events = takeEvents(text + decoder.decode(value, { stream: true }));
      text = events.rest;
      hear(''); // a comment is a sign of life
      events.data.forEach(hear);
    }
    stop.abort();
    return {};
  };
  // Without HTTP/2 a browser opens six connections to a host, and each stream holds one for good:
  // one tab may, lest nothing is left for the questions of the others.
  const only = world.locks
    ? world.locks.request('waitingroom.events', { ifAvailable: true }, (lock) => (lock ? follow() : {}))
    : follow();
  only.then(end, () => end({}));
  return () => stop.abort();
}
