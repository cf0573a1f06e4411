package main

import (
	"encoding/binary"
	"errors"
	"math"
	"strconv"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

const (
	never     = math.MaxInt32
	unlimited = math.MaxUint32

	second = 1000
	minute = 60 * second
)

// doing is what a fan does with a ticket.
type doing uint8

const (
	joins  doing = iota // asks for a position
	waits               // polls
	sleeps              // the phone is dark
	claims              // will press the button
	shops
	gone
)

// ticket is a place in line as its holder sees it. Most fans have one; the impatient join more
// than once.
type ticket struct {
	position uint32
	fan      uint32
	ahead    uint32 // as told last
	entry    uint32 // the latest one that was told of
	leaveAt  int32  // when patience ends
	sleepAt  int32  // when the phone goes dark next, and for how long
	sleepFor int32
	backAt   int32 // when the fan was back from the last absence
	samples  int32 // the newest estimate that was noted, one more than its index
	sampled  int32
	edge     uint8
	doing    doing
	ending   ending
	user     bool
	twice    bool // joins again from another device
	covered  coverage
}

// ending is how a session ends.
type ending uint8

const (
	bought ending = iota
	leftShop
	revoked
	ranOut
)

// key is what the origin makes of the user id or the ticket's random subject.
func (t *ticket) key() store.Key {
	var k store.Key
	if t.user {
		k[0] = 1
		binary.LittleEndian.PutUint32(k[4:], t.fan)
	} else {
		k[0] = 2
		binary.LittleEndian.PutUint32(k[4:], t.position)
	}
	return k
}

// arrive brings a fan to the waiting page.
func (w *world) arrive(at int32) {
	fan := w.arrived
	w.arrived++
	t := ticket{fan: fan, leaveAt: never, sleepAt: never, backAt: at, edge: w.anEdge(), ahead: unlimited}
	t.user = w.chance(0.5)
	t.twice = t.user && w.chance(0.06)
	more := 0
	if w.has(multijoin) && !t.user && w.chance(0.06) {
		more = 1 + int(w.upTo(3))
	}
	w.temper(&t, at)
	w.enter(t, at)
	for range more {
		extra := ticket{fan: fan, leaveAt: never, sleepAt: never, backAt: at, edge: w.anEdge(), ahead: unlimited}
		w.temper(&extra, at)
		if w.chance(0.7) { // the one ticket brings the others to an end, most of them
			extra.leaveAt = min(extra.leaveAt, at+w.upTo(20*minute))
		}
		w.tickets = append(w.tickets, extra)
		w.plan(uint32(len(w.tickets)-1), eventWake, at+w.upTo(3*minute))
	}
}

// temper gives a fan patience and a phone.
func (w *world) temper(t *ticket, at int32) {
	if w.has(abandon) && w.chance(w.abandoning) {
		t.leaveAt = at + 10*second + w.upTo(60*minute)
	}
	if w.has(phones) && w.chance(0.25) {
		w.drowse(t, at+w.upTo(20*minute))
	}
}

// drowse plans the next time that the phone goes dark: mostly for minutes, at times for longer
// than the hold.
func (w *world) drowse(t *ticket, at int32) {
	t.sleepAt = at
	t.sleepFor = int32(3 * minute * math.Exp(1.1*w.NormFloat64()))
	t.sleepFor = min(max(t.sleepFor, 5*second), 45*minute)
}

func (w *world) enter(t ticket, at int32) {
	w.tickets = append(w.tickets, t)
	w.askToJoin(uint32(len(w.tickets)-1), at, false)
}

// askToJoin sends a join. again says that it comes from another device of a user in line.
func (w *world) askToJoin(n uint32, at int32, again bool) {
	t := &w.tickets[n]
	j := join{ticket: n, again: again}
	if t.user {
		j.user = t.key()
	}
	w.edges[t.edge].ask(j, at)
}

// joined is the answer to a join.
func (e *edge) joined(j join, answer store.Joined) {
	w, t := e.world, &e.tickets[j.ticket]
	w.joins++
	position := uint32(answer.Position)
	if t.user && t.position != 0 && t.position != position {
		own := &w.books.places[t.position]
		live := own.standing == isWaiting || own.standing == isOffered || own.standing == isActive && w.now < own.until
		if !w.books.ok(userOnce, !live) {
			w.books.breaks(userOnce, answer.Position, "given to a user who holds %d, which is %s", t.position, standingNames[own.standing])
		}
	}
	if t.user && !w.books.ok(userOnce, answer.New == (position != t.position)) {
		w.books.breaks(userOnce, answer.Position, "new: %v, the user holds %d", answer.New, t.position)
	}
	if position != t.position {
		t.position, t.ahead, t.samples, t.sampled = position, unlimited, 0, 0
		for uint32(len(w.holder)) <= position {
			w.holder = append(w.holder, 0)
			w.notedAt = append(w.notedAt, 0)
		}
		w.holder[position], w.notedAt[position] = j.ticket, w.now
	}
	if j.again {
		return
	}
	t.doing = waits
	w.plan(j.ticket, eventWake, w.now+int32(w.upTo(second)))
}

// wake is what a fan does when looking at the page again.
func (w *world) wake(n uint32) {
	t := &w.tickets[n]
	switch t.doing {
	case gone, shops, claims:
		return
	case joins:
		w.askToJoin(n, w.now, false)
		return
	case sleeps:
		t.doing, t.backAt, t.edge = waits, w.now, w.anEdge()
		if t.sleepAt = never; w.chance(0.3) {
			w.drowse(t, w.now+w.upTo(20*minute))
		}
	}
	w.poll(n, t)
}

// poll asks an edge for the status and acts on it.
func (w *world) poll(n uint32, t *ticket) {
	e, p := w.edges[t.edge], uint64(t.position)
	status := e.view.Status(p, w.time)
	w.events++
	w.polls++
	pause := int32(status.PollAfterSeconds) * second
	pause -= w.upTo(pause / 5)
	if e.view.Number < uint64(t.entry) { // a page ignores what is older than what it shows
		if status.State == queue.TicketWaiting || status.State == queue.TicketAdmitted {
			e.note(p)
		}
		w.plan(n, eventWake, w.now+pause)
		return
	}
	t.entry = uint32(e.view.Number)
	switch status.State {
	case queue.TicketWaiting, queue.TicketScheduled:
		e.note(p)
		ahead := uint32(*status.Ahead)
		if !w.books.ok(aheadFalls, ahead <= t.ahead) {
			w.books.breaks(aheadFalls, p, "told %d after %d", ahead, t.ahead)
		}
		t.ahead = ahead
		w.quality.told(w, t, &status, e.view.Waiting)
		switch {
		case w.now >= t.leaveAt:
			w.abandon(n, t)
		case w.now >= t.sleepAt:
			t.doing = sleeps
			w.plan(n, eventWake, w.now+t.sleepFor)
		default:
			if t.twice && w.chance(0.02) {
				w.askToJoin(n, w.now, true)
			}
			w.plan(n, eventWake, w.now+pause)
		}
	case queue.TicketAdmitted:
		e.note(p)
		w.admitted(n, t, sinceBegan(status.ClaimBy))
	case queue.TicketExpired:
		if again := w.chance(0.6); again {
			t.doing, t.leaveAt = joins, never
			if !t.user {
				t.position = 0
			}
			w.plan(n, eventWake, w.now+w.upTo(20*second))
			return
		}
		t.doing = gone
	default:
		t.doing = gone
	}
}

// abandon is the end of patience: some say that they leave, most fall silent.
func (w *world) abandon(n uint32, t *ticket) {
	if w.chance(0.3) {
		e := w.edges[t.edge]
		ack, err := store.Ack{}, errAway
		if e.reaches() {
			ack, err = e.origin.link.Leave(w.ctx, w.queue, w.incarnation, uint64(t.position), timeAt(w.now))
		}
		if errors.Is(err, errAway) {
			w.plan(n, eventWake, w.now+second+w.upTo(2*second))
			return
		}
		e.origin.acted(ack)
		e.origin.kick()
	}
	t.doing = gone
}

// admitted is what a fan does about an offer: most pages claim at once; some wait for a click,
// some of those until the last moment, and some fans never see it.
func (w *world) admitted(n uint32, t *ticket, claimBy int32) {
	at := w.now + 200 + int32(4*second*w.ExpFloat64())
	left := claimBy + milliseconds(queue.ClaimGrace) - w.now
	switch u := w.Float64(); {
	case u < 0.04:
		if t.doing = sleeps; u < 0.01 {
			t.doing = gone
			return
		}
		w.plan(n, eventWake, claimBy+5*second+w.upTo(5*minute))
		return
	case u < 0.12:
		at = w.now + w.upTo(max(left-2*frame, 1))
	case u < 0.121:
		at = w.now + left + w.upTo(second) // too late
	}
	t.doing = claims
	w.plan(n, eventClaim, at)
}

func sessionID(position uint32) string {
	return "demo.final~" + strconv.FormatUint(uint64(position), 10)
}

func (w *world) claim(n uint32) {
	t := &w.tickets[n]
	e := w.edges[t.edge]
	w.events++
	if !e.reaches() || w.away {
		w.plan(n, eventClaim, w.now+second+w.upTo(second))
		return
	}
	claim := store.Claim{
		Queue: w.queue, Incarnation: w.incarnation, Position: uint64(t.position),
		Subject: t.key(), SessionID: sessionID(t.position), Now: timeAt(w.now),
	}
	session, ack, err := e.origin.link.Claim(w.ctx, claim)
	if err == nil && w.chance(0.02) { // a second device, or a reload
		claim.SessionID += "-again"
		var same queue.Session
		same, ack, err = e.origin.link.Claim(w.ctx, claim)
		if !w.books.ok(claimsKept, err == nil && same == session) {
			w.books.breaks(claimsKept, claim.Position, "claimed again: %v", err)
		}
	}
	if err != nil {
		t.doing = waits
		w.plan(n, eventWake, w.now+second)
		return
	}
	e.origin.acted(ack)
	t.doing = shops
	lasts := int32(w.purchase.Seconds() * 1000 * math.Exp(0.5*w.NormFloat64()-0.125))
	switch u := w.Float64(); {
	case u < 0.02:
		t.ending, t.doing = ranOut, gone
		return
	case u < 0.04:
		t.ending = leftShop
	case u < 0.045:
		t.ending = revoked
	default:
		t.ending = bought
	}
	w.plan(n, eventRelease, w.now+max(lasts, 5*second))
}

// release ends a session before its window is over, if it still runs.
func (w *world) release(n uint32) {
	t := &w.tickets[n]
	o := w.origins[int(n)%len(w.origins)]
	fate, reason := queue.Ended, queue.ReasonReleased
	switch t.ending {
	case leftShop:
		fate, reason = queue.Left, queue.ReasonLeft
	case revoked:
		reason = queue.ReasonRevoked
	}
	ack, err := o.link.EndSession(w.ctx, w.queue, sessionID(t.position), fate, reason, timeAt(w.now))
	if err != nil {
		w.plan(n, eventRelease, w.now+second+w.upTo(2*second))
		return
	}
	o.acted(ack)
	o.kick()
	t.doing = gone
	if t.ending == bought && w.has(soldout) {
		w.sell()
	}
}

// Chances and durations, all of them from the seed.

func (w *world) chance(p float64) bool { return w.Float64() < p }

// upTo is a number from 0 to n-1; 0 where n is not positive.
func (w *world) upTo(n int32) int32 {
	if n <= 0 {
		return 0
	}
	return w.Int32N(n)
}

func (w *world) anEdge() uint8 { return uint8(w.upTo(int32(len(w.edges)))) }

func (w *world) plan(n uint32, e event, at int32) { w.wheel.add(at, event(n<<2)|e) }
