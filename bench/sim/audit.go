package main

import (
	"waitingroom/origin/queue"
)

// audit judges everything in full: the books against themselves, the store's snapshot and the
// view that edges compute.
func (w *world) audit() {
	b := w.books
	b.now = max(b.now, w.now)
	var tally [standings]int
	for i := 1; i < len(b.places); i++ {
		tally[b.places[i].standing]++
	}
	sum := 0
	for _, n := range tally {
		sum += n
	}
	if !b.ok(fatesAddUp, tally == b.tally && sum == int(b.issued())) {
		b.breaks(fatesAddUp, 0, "counted %v, booked %v, issued %d", tally, b.tally, b.issued())
	}
	w.auditSnapshot()
	w.auditView()
}

func standingOf(f queue.Fate, offered bool) standing {
	switch f {
	case queue.Waiting:
		if offered {
			return isOffered
		}
		return isWaiting
	case queue.Claimed:
		return isActive
	case queue.Ended:
		return isEnded
	case queue.Expired:
		return isExpired
	case queue.Missed:
		return isMissed
	case queue.Left:
		return isLeft
	}
	return standings
}

// auditSnapshot compares the store's snapshot with the books.
func (w *world) auditSnapshot() {
	b := w.books
	s, err := w.memory.Snapshot(w.ctx, w.queue)
	if err != nil {
		w.failed = err
		return
	}
	same := b.ok(sameTold, s.Issued == b.issued() && len(s.Offers) == b.tally[isOffered] && len(s.Sessions) == b.tally[isActive])
	if !same {
		b.breaks(sameTold, s.Issued, "the snapshot has %d issued, %d offers, %d sessions", s.Issued, len(s.Offers), len(s.Sessions))
		return
	}
	offers := make(map[uint64]bool, len(s.Offers))
	for _, o := range s.Offers {
		offers[o.Position] = true
		if p := &b.places[o.Position]; !b.ok(timesKept, p.standing == isOffered && p.until == sinceBegan(o.ClaimBy)) {
			b.breaks(timesKept, o.Position, "the snapshot has an offer until %v", o.ClaimBy)
		}
	}
	for _, session := range s.Sessions {
		if p := &b.places[session.Position]; !b.ok(timesKept, p.standing == isActive && p.until == sinceBegan(session.ExpiresAt)) {
			b.breaks(timesKept, session.Position, "the snapshot has a session until %v", session.ExpiresAt)
		}
	}
	for p := uint64(1); p <= s.Issued; p++ {
		fate := queue.Fate(s.Fates[(p-1)/2] >> 4)
		if (p-1)%2 == 1 {
			fate = queue.Fate(s.Fates[(p-1)/2] & 0x0f)
		}
		want := b.places[p].standing
		if !b.ok(sameTold, fate != queue.Waiting && standingOf(fate, false) == want || fate == queue.Waiting && (want == isWaiting || want == isOffered && offers[p])) {
			b.breaks(sameTold, p, "the snapshot has %s, the books %s", fate, standingNames[want])
			return
		}
	}
}

// auditView compares the view with the books, and what it tells everybody with the truth and with
// what it told a minute ago.
func (w *world) auditView() {
	b, v := w.books, w.feed.view
	owed := 0
	var notDone uint64 // between the watermark and the position
	for p := uint64(1); p <= b.issued(); p++ {
		place := &b.places[p]
		_, offered := v.Offer(p)
		if !b.ok(sameTold, standingOf(v.Fate(p), offered) == place.standing) {
			b.breaks(sameTold, p, "the view has %s, offered %v, the books %s", v.Fate(p), offered, standingNames[place.standing])
			return
		}
		if place.standing == isWaiting {
			if p <= v.Watermark {
				owed++
			}
			ahead := v.Ahead(p)
			if !b.ok(aheadFalls, ahead >= notDone && ahead <= uint64(place.ahead)) {
				b.breaks(aheadFalls, p, "%d ahead, in truth %d, a minute ago %d", ahead, notDone, place.ahead)
				return
			}
			place.ahead = uint32(ahead)
		}
		if p > v.Watermark && (place.standing == isWaiting || place.standing == isOffered) {
			notDone++
		}
	}
	if !b.ok(sameTold, v.Waiting == b.tally[isWaiting] && v.Owed == owed && v.Offers == b.tally[isOffered] && v.Sessions == b.tally[isActive]) {
		b.breaks(sameTold, 0, "the view has %d waiting, %d owed, %d offers, %d sessions; there are %d, %d, %d, %d",
			v.Waiting, v.Owed, v.Offers, v.Sessions, b.tally[isWaiting], owed, b.tally[isOffered], b.tally[isActive])
	}
}
