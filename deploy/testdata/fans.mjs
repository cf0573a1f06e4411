// A crowd that polls where a cache answers, by the waiting page's own rules: web/src/line.mjs and
// cached.mjs decide, as in wait.mjs, what each fan asks for and when. Only screen and clicks are left out: a fan whose
// turn it is claims at once.
//
//   node fans.mjs '{"base","queue","key","fans","seconds"}'
//
// The last line of output is a JSON object with what was asked, answered and found wrong.

import http from 'node:http';
import { gunzipSync } from 'node:zlib';
import { isDeepStrictEqual } from 'node:util';
import { asked, hasRead, newAsking, readsState, statusIn, untilSighting } from '../../web/src/cached.mjs';
import { isOlder, isOut, newMemory, pollDelay, receive, retryDelay } from '../../web/src/line.mjs';

const { base, queue, key, fans, seconds, claimSeconds } = JSON.parse(process.argv[2]);
const agent = new http.Agent({ keepAlive: true, maxSockets: 128 });

const sent = { join: 0, state: 0, ticket: 0, claim: 0 };
const why = { sighting: 0, turn: 0, own: 0 }; // why the own status was asked for
const cache = {}; // how the cache answered for the public state
const refused = {};
const wrong = [];
const delays = []; // from offer to knowing, ms
const gaps = []; // the longest between two sightings of a fan, ms
let stateBytes = 0;
let compared = 0;
let over = false;
let flying = 0; // requests that wait for their answer

function fault(text) {
  if (wrong.length < 20) wrong.push(text);
}

/** Asks as a browser does; answers {code, body, cache}, code 0 where nobody answered. */
function ask(kind, method, path, headers, body) {
  sent[kind] += 1;
  flying += 1;
  return new Promise((landed) => {
    const resolve = (answer) => {
      flying -= 1;
      landed(answer);
    };
    const request = http.request(base + path, { agent, method, headers: { 'Accept-Encoding': 'gzip', ...headers } }, (response) => {
      const parts = [];
      response.on('data', (part) => parts.push(part));
      response.on('end', () => {
        let text = Buffer.concat(parts);
        if (kind === 'state') stateBytes += text.length;
        if (response.headers['content-encoding'] === 'gzip') text = gunzipSync(text);
        resolve({
          code: response.statusCode, body: text.length > 0 ? JSON.parse(text) : {},
          cache: response.headers['x-cache'], retryAfter: response.headers['retry-after'],
        });
      });
    });
    request.setTimeout(10_000, () => request.destroy());
    request.on('error', () => resolve({ code: 0 }));
    request.end(body);
  });
}

let offset = null; // the server's clock minus this one's, by the own statuses
const now = () => Date.now() + (offset || 0);

class Fan {
  memory = newMemory();
  ownStatus = newAsking();
  attempt = 0;
  lowest = Infinity;
  seenAt = null;
  gap = 0;

  async join() {
    for (let attempt = 0; attempt < 50; attempt += 1) {
      const sentAt = Date.now();
      const answer = await ask('join', 'POST', `/queues/${queue}/tickets`, { 'X-API-Key': key, 'Content-Type': 'application/json' }, '{}');
      if (answer.code === 201) {
        if (offset === null) offset = Date.parse(answer.body.now) - (sentAt + Date.now()) / 2;
        this.path = `/tickets/${answer.body.ticketId}`;
        this.bearer = { Authorization: `Bearer ${answer.body.ticket}` };
        this.isToldItself(answer.body);
        return;
      }
      refused[answer.code] = (refused[answer.code] || 0) + 1;
      await new Promise((resolve) => { setTimeout(resolve, 200 + 200 * Math.random()); });
    }
    throw new Error(`nobody can join: ${JSON.stringify(refused)}`);
  }

  async run() {
    while (!over && !isOut(this.memory.status)) {
      const delay = await this.next();
      if (delay === null || over) return;
      await new Promise((resolve) => { setTimeout(resolve, delay); });
    }
  }

  async next() {
    const { status } = this.memory;
    if (status.state === 'admitted') return this.claim();
    if (readsState(this.ownStatus, status, now())) {
      const answer = await ask('state', 'GET', `/queues/${queue}/state`, {});
      if (answer.code !== 200) return this.again(answer);
      cache[answer.cache] = (cache[answer.cache] || 0) + 1;
      const told = statusIn(answer.body, status, now());
      if (told) {
        this.attempt = 0;
        this.ownStatus = hasRead(this.ownStatus, answer.body);
        this.isTold(told);
        return Math.min(pollDelay(told.pollAfterSeconds, Math.random()), untilSighting(this.ownStatus, now()));
      }
      why.turn += 1;
    } else {
      why[status.state === 'waiting' || status.state === 'scheduled' ? 'sighting' : 'own'] += 1;
    }
    const answer = await ask('ticket', 'GET', this.path, this.bearer);
    if (answer.code !== 200) return this.again(answer);
    this.attempt = 0;
    this.isToldItself(answer.body);
    return isOut(this.memory.status) ? null : pollDelay(answer.body.pollAfterSeconds, Math.random());
  }

  /** The next who is admitted claims, and the session's end is the end of this fan's visit. */
  async claim() {
    const answer = await ask('claim', 'POST', `${this.path}/session`, this.bearer);
    if (answer.code !== 200) return this.again(answer);
    this.claimed = true;
    return null;
  }

  again({ code, retryAfter }) {
    refused[code] = (refused[code] || 0) + 1;
    this.attempt += 1;
    return retryDelay(retryAfter, this.attempt, now(), Math.random());
  }

  isToldItself(status) {
    const at = Date.parse(status.now);
    if (this.seenAt !== null) this.gap = Math.max(this.gap, at - this.seenAt);
    this.seenAt = at;
    this.ownStatus = asked(this.ownStatus, now(), Math.random());
    const last = this.memory.status;
    if (last && last.seq === status.seq && last.state === status.state) {
      // By the same entry page and edge say the same.
      for (const member of ['queueState', 'position', 'ahead', 'waitSeconds', 'likelySoldOut']) {
        if (!isDeepStrictEqual(last[member], status[member])) {
          fault(`position ${status.position} at ${status.seq}: ${member} is ${JSON.stringify(last[member])} by the public state, ${JSON.stringify(status[member])} by the edge`);
        }
      }
      compared += 1;
    }
    if (status.state === 'admitted' && last && last.state === 'waiting') delays.push(at - (Date.parse(status.claimBy) - claimSeconds * 1000));
    this.isTold(status);
  }

  isTold(status) {
    const last = this.memory.status;
    this.memory = receive(this.memory, status);
    const shown = this.memory.status;
    if (last && isOlder(shown.seq, last.seq)) fault(`position ${shown.position} was shown ${shown.seq} after ${last.seq}`);
    if (shown.stale) fault(`position ${shown.position} was told that the state is stale`);
    if (Number.isInteger(shown.ahead)) {
      if (shown.ahead > this.lowest) fault(`ahead of position ${shown.position} rose from ${this.lowest} to ${shown.ahead}`);
      this.lowest = shown.ahead;
    }
    if (isOut(shown) && shown.state !== 'ended') fault(`position ${shown.position} is ${shown.state} (${shown.reason})`);
  }
}

const crowd = Array.from({ length: fans }, () => new Fan());
const beganAt = Date.now();
await Promise.all(crowd.map((fan) => fan.join()));
const joinedAt = Date.now();
process.stdout.write('joined\n');
const running = crowd.map((fan) => fan.run());
await new Promise((resolve) => { setTimeout(resolve, seconds * 1000); });
over = true;
while (flying > 0) await new Promise((resolve) => { setTimeout(resolve, 20); });
const quantile = (list, share) => (list.length > 0 ? list.sort((a, b) => a - b)[Math.min(Math.floor(share * list.length), list.length - 1)] : null);
for (const fan of crowd) gaps.push(fan.gap);
const result = {
  fans, sent, why, cache, refused, wrong, compared, stateBytes,
  joiningSeconds: (joinedAt - beganAt) / 1000, seconds: (Date.now() - joinedAt) / 1000,
  claimed: crowd.filter((fan) => fan.claimed).length,
  delayMillis: { n: delays.length, p50: quantile(delays, 0.5), p99: quantile(delays, 0.99), max: quantile(delays, 1) },
  longestGapMillis: quantile(gaps, 1),
};
process.stdout.write(JSON.stringify(result) + '\n', () => {
  agent.destroy();
  process.exit(0);
});
