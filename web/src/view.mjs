// What the page shows and says, computed from what it knows. No DOM.

import { isOut } from './line.mjs';

/** Milliseconds as 0:07, 12:30 or 1:02:03; never below zero. */
export function formatDuration(ms) {
  const seconds = Math.max(Math.ceil(ms / 1000), 0);
  const parts = [Math.floor(seconds / 60) % 60, seconds % 60];
  const hours = Math.floor(seconds / 3600);
  if (hours > 0) parts.unshift(hours);
  return parts.map((part, i) => (i === 0 ? String(part) : String(part).padStart(2, '0'))).join(':');
}

const DAY = 86_400_000;
// For how long a fan reads that tickets have come back.
const REOPENED_FOR = 60_000;

/** A time of day for people, in the phone's zone; with the day when it is not the day of `now`. */
export function formatClock(ms, language, now = ms) {
  const time = { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' };
  const day = { weekday: 'short', day: 'numeric', month: 'short' };
  const write = (format, at) => new Intl.DateTimeFormat(language, format).format(at);
  return write(write(day, ms) === write(day, now) ? time : { ...day, ...time }, ms);
}

/**
 * An estimated wait in words, counted down since it was told: whole minutes up to ten, then steps of
 * five, then half hours, as nobody knows it better; it begins low and ends high.
 */
export function formatWait(wait, env, texts) {
  const passed = (env.now - wait.at) / 1000;
  const [from, to] = [wait.p50, wait.p90].map((seconds) => Math.max((seconds - passed) / 60, 0));
  const step = to <= 10 ? 1 : to <= 120 ? 5 : 30;
  const low = Math.max(Math.floor(from / step) * step, 1);
  const high = Math.max(Math.ceil(to / step) * step, 1);
  const unit = step === 30 ? 'hour' : 'minute';
  const value = (minutes) => (step === 30 ? minutes / 60 : minutes);
  const number = (n) => new Intl.NumberFormat(env.language).format(value(n));
  const range = low === high ? number(low) : `${number(low)}–${number(high)}`;
  const form = new Intl.PluralRules(env.language).select(value(high));
  return texts.wait(range, texts.units[unit][form] || texts.units[unit].other);
}

/**
 * @param memory what line.mjs remembers of the ticket
 * @param env    now: the server's time in ms; visible; clickOnly; handing: on the way to the shop;
 *               trouble: null, 'offline' or 'crowded'; problem: null or the name of a text that
 *               replaces the status; language; shopName
 * @param texts  one of the languages
 */
export function view(memory, env, texts) {
  const { status } = memory;
  const key = viewKey(memory, env);
  const number = (n) => new Intl.NumberFormat(env.language).format(n);
  const until = (time) => formatDuration(Date.parse(time) - env.now);
  const v = {
    key, title: texts[key].title, lead: texts[key].lead,
    shop: env.shopName || '', pageTitle: texts[key].title,
    ahead: '', aheadCount: null, position: '', progress: null, clock: '', held: '', note: '',
    go: '', again: '', leave: '', minuteLeft: false, trouble: false,
  };
  v.note = noteOf(memory, env, texts);
  v.trouble = Boolean(env.trouble) && v.note !== '';
  if (env.problem) {
    if (env.problem === 'taken') v.again = texts.again;
    if (env.problem === 'refused') v.again = texts.retry;
    if (env.problem === 'identity') v.again = texts.toShop;
    return v;
  }
  if (!status) return v;
  const inLine = status.state === 'waiting' || status.state === 'scheduled';
  if (inLine && Number.isInteger(status.ahead)) {
    v.ahead = number(status.ahead);
    v.aheadCount = status.ahead;
    if (key === 'waiting') v.pageTitle = texts.tabWaiting(v.ahead);
    if (key === 'scheduled' && Date.parse(status.opensAt) - env.now < DAY) v.pageTitle = texts.tabOpens(until(status.opensAt));
  }
  if (inLine) {
    v.position = number(status.position);
    v.progress = memory.fraction;
    v.clock = clockInLine(memory, env, texts);
    if (status.heldUntil && !env.trouble) {
      v.held = texts.keptUntil(formatClock(Date.parse(status.heldUntil), env.language, env.now));
    }
  }
  if (key === 'admitted') {
    const left = until(status.claimBy);
    v.clock = texts.claimWithin(left);
    v.pageTitle = texts.tabTurn(left);
    v.go = texts.enterWithin(left);
    v.progress = 1;
    v.minuteLeft = Date.parse(status.claimBy) - env.now <= 60000;
  }
  if (key === 'active') {
    if (status.sessionExpiresAt) v.clock = texts.inShopFor(until(status.sessionExpiresAt));
    v.go = texts.enter;
  }
  if ((inLine || key === 'admitted') && !env.handing) v.leave = texts.leave;
  if (isOut(status) && status.state !== 'closed') v.again = texts.again;
  return v;
}

function viewKey({ status }, env) {
  if (env.problem) return env.problem;
  if (!status) return env.trouble ? 'busy' : 'loading';
  if (env.handing) return 'entering';
  switch (status.state) {
    case 'admitted':
    case 'active':
      return env.visible && !env.clickOnly ? 'entering' : status.state;
    case 'expired':
      return status.reason === 'missed_offers' ? 'expiredMissed' : 'expiredAbsent';
    case 'waiting':
      if (status.queueState === 'paused') return 'paused';
      if (status.queueState === 'sold_out') return 'soldOut';
      return status.ahead === 0 ? 'next' : 'waiting';
    case 'scheduled':
      return Date.parse(status.opensAt) <= env.now ? 'opening' : 'scheduled';
    case 'ended':
    case 'left':
    case 'closed':
      return status.state;
    default:
      return 'refused';
  }
}

function clockInLine(memory, env, texts) {
  const { status } = memory;
  if (status.state === 'scheduled') {
    const opens = Date.parse(status.opensAt);
    const time = formatClock(opens, env.language, env.now);
    if (!(opens > env.now)) return '';
    return opens - env.now < DAY ? texts.opensIn(formatDuration(opens - env.now), time) : texts.opensOn(time);
  }
  if (memory.wait) return formatWait(memory.wait, env, texts);
  return memory.since === null ? '' : texts.waitedFor(formatDuration(env.now - memory.since));
}

function noteOf(memory, env, texts) {
  const { status } = memory;
  if (env.problem || isOut(status)) return '';
  if (env.trouble) {
    const kept = status && status.heldUntil && Date.parse(status.heldUntil) > env.now
      ? formatClock(Date.parse(status.heldUntil), env.language, env.now) : null;
    if (env.trouble === 'offline') return kept ? texts.offlineKept(kept) : texts.offline;
    return kept ? texts.crowdedKept(kept) : status ? texts.crowded : '';
  }
  if (!status) return '';
  if (status.stale) return texts.stale;
  if (env.clickOnly && (status.state === 'admitted' || status.state === 'active')) return texts.clickOnly;
  if (status.state !== 'waiting') return '';
  if (memory.withdrawn) return texts.withdrawn;
  if (status.queueState === 'sold_out') return '';
  if (status.likelySoldOut) return texts.likelySoldOut;
  if (memory.reopenedAt !== null && env.now - memory.reopenedAt < REOPENED_FOR) return texts.reopened;
  return '';
}

/**
 * What a screen reader is told, and what to remember of it: a new view, a lost or regained
 * connection, half of those ahead gone, the last minute of an offer. '' when nothing matters.
 */
export function announce(said, v, texts) {
  const next = { key: v.key, note: v.note, trouble: v.trouble, ahead: said.ahead, minute: v.minuteLeft };
  const parts = [];
  const moved = v.aheadCount !== null && (said.ahead === null || v.aheadCount <= said.ahead / 2);
  if (v.key !== said.key && v.key !== 'loading') {
    parts.push(/[.!?…]$/.test(v.title) ? v.title : v.title + '.', v.lead);
    next.ahead = null;
  }
  if (v.aheadCount !== null && (moved || next.ahead === null)) {
    if (v.aheadCount > 0 && said.ahead !== v.aheadCount) parts.push(texts.sayAhead(v.ahead));
    next.ahead = v.aheadCount;
  }
  if (v.trouble ? !said.trouble : v.note !== '' && v.note !== said.note) parts.push(v.note);
  if (said.trouble && !v.trouble) parts.push(texts.backAgain);
  if (v.minuteLeft && !said.minute) parts.push(texts.sayMinute);
  return { said: next, text: parts.filter(Boolean).join(' ') };
}

/** What has been said before anything was. */
export const silence = { key: 'loading', note: '', trouble: false, ahead: null, minute: false };
