package storetest

import (
	"slices"
	"testing"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

var tickCases = []testCase{
	{"lowest present first", tickOrder},
	{"the absent are passed and owed", tickOwed},
	{"a missed offer waits for a later sighting", tickLapse},
	{"a second missed offer", tickLapseAgain},
	{"missed offers end the ticket", tickMissed},
	{"session ends", tickSessionEnds},
	{"counts again", tickCountsAgain},
	{"repeated", tickRepeated},
	{"prolong", tickProlong},
	{"smaller capacity", tickSmaller},
	{"withdrawn offers", tickWithdrawn},
	{"paused", tickPaused},
	{"estimate", tickEstimate},
	{"candidates", tickCandidates},
	{"across pages", tickAcrossPages},
}

func tickOrder(t *testing.T, s store.Store) {
	sc := newScene(t, s, func(s *queue.Settings) { s.Capacity = 3 })
	sc.joinAnonymous(5)
	sc.leave(2)
	result := sc.tick()
	sc.wantPositions("offered", result.Offered, 1, 3, 4)
	if result.Sessions != 0 || result.Offers != 3 || result.Idle {
		t.Errorf("tick: %+v, want 3 offers, not idle", result)
	}
	e := sc.lastEntry()
	if e.Number != result.Entry || e.Kind != queue.EntryOffered || e.Watermark != 4 || e.Issued != 5 || !e.Until.Equal(sc.claimBy()) {
		t.Errorf("last entry is %+v, want entry %d, offered until %v, watermark 4, issued 5", e, result.Entry, sc.claimBy())
	}
	sc.advance(250 * time.Millisecond)
	sc.wantPositions("offered at capacity", sc.tick().Offered)
	sc.leave(3)
	sc.advance(250 * time.Millisecond)
	sc.wantPositions("offered in the slot that became free", sc.tick().Offered, 5)
}

func tickOwed(t *testing.T, s store.Store) {
	sc := newScene(t, s, func(s *queue.Settings) { s.Capacity = 1 })
	sc.joinAnonymous(6)
	sc.tick()
	session := sc.claim(1)
	// 2 and 3 fall silent, the others stay.
	sc.run(10*time.Second, func() { sc.see(4, 5, 6) })
	sc.endSession(session.ID)
	result := sc.tick()
	sc.wantPositions("offered while 2 and 3 are absent", result.Offered, 4)
	sc.advance(time.Second)
	// Both are owed on their return, lowest first, before 5.
	sc.see(3, 5, 6)
	sc.leave(4)
	sc.wantPositions("offered when 3 is back", sc.tick().Offered, 3)
	sc.advance(time.Second)
	sc.see(2, 5, 6)
	sc.leave(3)
	sc.wantPositions("offered when 2 is back", sc.tick().Offered, 2)
	sc.advance(time.Second)
	sc.leave(2)
	sc.wantPositions("offered last", sc.tick().Offered, 5)
	if got := sc.counts(); got.Watermark != 5 || got.MissedOffers != 0 || got.Admitted != 5 {
		t.Errorf("watermark %d, missed offers %d, admitted %d, want 5, 0, 5", got.Watermark, got.MissedOffers, got.Admitted)
	}
}

// lapseOnce lets the offer of a position lapse while the first three fans go on being seen.
func (sc *scene) lapseOnce(position uint64) {
	sc.t.Helper()
	sc.wantOffer(position, sc.claimBy())
	sc.run(24*time.Second, func() { sc.see(1, 2, 3) })
	sc.wantOffer(position, sc.claimBy().Add(-24*time.Second))
	sc.advance(time.Second)
}

// lastOf is the number of the log's last entry of a kind.
func (sc *scene) lastOf(kind queue.Kind) uint64 {
	sc.t.Helper()
	entries, err := sc.s.Entries(sc.t.Context(), sc.id, sc.inc, 0, "", 10_000)
	if err != nil {
		sc.t.Fatalf("Entries: %v", err)
	}
	for _, entry := range slices.Backward(entries) {
		if entry.Kind == kind {
			return entry.Number
		}
	}
	sc.t.Fatalf("the log has no entry %q", kind)
	return 0
}

func tickLapse(t *testing.T, s store.Store) {
	sc := newScene(t, s, func(s *queue.Settings) { s.Capacity = 1; s.MaxMissedOffers = 5 })
	sc.join(key(1), key(2), key(3))
	sc.tick()
	sc.lapseOnce(1)
	// 1 was seen a second ago, but not since the lapse.
	result := sc.tick()
	sc.wantPositions("lapsed", result.Lapsed, 1)
	sc.wantPositions("offered in the slot of the lapsed offer", result.Offered, 2)
	sc.wantFate(1, queue.Waiting)
	sc.leave(2)
	sc.wantPositions("candidates", sc.look().Candidates, 3)
	// A sighting of an earlier turn comes from before the lapse.
	sc.seeIn(sc.look().Turn-1, 1)
	sc.wantPositions("candidates", sc.look().Candidates, 3)
	// So does one that an edge noted before it heard of the lapse, however late it is handed in.
	lapsedAt := sc.lastOf(queue.EntryLapsed)
	sc.seeAsOf(sc.look().Turn, lapsedAt-1, 1)
	sc.wantPositions("candidates", sc.look().Candidates, 3)
	many := make(queue.Positions, 0, 100)
	for position := range uint64(100) {
		many = append(many, position+1) // a store may take many together another way
	}
	sc.joinAnonymous(100)
	sc.seeAsOf(sc.look().Turn, lapsedAt-1, many...)
	sc.wantPositions("candidates", sc.look().Candidates, 3)
	sc.seeAsOf(sc.look().Turn, lapsedAt, many...)
	sc.wantPositions("candidates", sc.look().Candidates, 1)
	sc.leave(1)
	sc.wantPositions("candidates", sc.look().Candidates, 3)
}

func tickLapseAgain(t *testing.T, s store.Store) {
	sc := newScene(t, s, func(s *queue.Settings) { s.Capacity = 1; s.MaxMissedOffers = 5 })
	sc.join(key(1), key(2), key(3))
	lapse := sc.lapseOnce
	sc.tick()
	lapse(1)
	sc.tick()
	sc.leave(2)
	sc.wantPositions("candidates", sc.look().Candidates, 3)
	// One of this turn, after it, makes 1 the first again.
	sc.see(1)
	sc.wantPositions("candidates", sc.look().Candidates, 1)
	sc.advance(250 * time.Millisecond)
	sc.wantPositions("offered after a sighting", sc.tick().Offered, 1)
	lapse(1)
	sc.wantPositions("offered in the slot of the second lapsed offer", sc.tick().Offered, 3)
	sc.leave(3)
	// Joining again is a sighting as well.
	if j := sc.join(key(1))[0]; j.Position != 1 || j.New {
		t.Errorf("join of the user who missed an offer: %+v, want position 1", j)
	}
	sc.advance(250 * time.Millisecond)
	sc.wantPositions("offered after joining again", sc.tick().Offered, 1)
	if got := sc.counts(); got.MissedOffers != 2 || got.Missed != 0 || got.Admitted != 5 {
		t.Errorf("missed offers %d, missed %d, admitted %d, want 2, 0, 5", got.MissedOffers, got.Missed, got.Admitted)
	}
}

func tickMissed(t *testing.T, s store.Store) {
	sc := newScene(t, s, func(s *queue.Settings) { s.Capacity = 2 })
	sc.joinAnonymous(2)
	sc.tick()
	sc.run(25*time.Second, nil)
	sc.wantFate(1, queue.Waiting)
	sc.see(1, 2)
	sc.advance(250 * time.Millisecond)
	sc.wantPositions("offered again", sc.tick().Offered, 1, 2)
	sc.run(24*time.Second, nil)
	sc.claim(2)
	sc.advance(time.Second)
	result := sc.tick()
	sc.wantPositions("missed", result.Missed, 1)
	sc.wantPositions("lapsed", result.Lapsed)
	sc.wantFate(1, queue.Missed)
	sc.wantFate(2, queue.Claimed)
	if e := sc.lastEntry(); e.Kind != queue.EntryDone || e.Fate != queue.Missed || e.Reason != queue.ReasonMissed {
		t.Errorf("last entry is %+v, want 1 missed, reason %s", e, queue.ReasonMissed)
	}
	sc.unchanged("sightings of the missed", func() { sc.see(1) })
	sc.wantPositions("candidates", sc.look().Candidates)
	if got := sc.counts(); got.MissedOffers != 3 || got.Missed != 1 || got.Claimed != 1 {
		t.Errorf("missed offers %d, missed %d, claimed %d, want 3, 1, 1", got.MissedOffers, got.Missed, got.Claimed)
	}
	// A stricter setting binds the next lapse.
	third := sc.joinAnonymous(1)
	sc.advance(250 * time.Millisecond)
	sc.tick()
	if _, running := sc.view().Offer(third); !running {
		t.Errorf("%d has no offer", third)
	}
	sc.update(func(s *queue.Settings) { s.MaxMissedOffers = 1 })
	sc.run(26*time.Second, nil)
	sc.wantFate(third, queue.Missed)
}

func tickSessionEnds(t *testing.T, s store.Store) {
	sc := newScene(t, s, func(s *queue.Settings) { s.PurchaseWindowSeconds = 10 })
	sc.joinAnonymous(3)
	sc.tick()
	one, two := sc.claim(1), sc.claim(2)
	sc.advance(10*time.Second - time.Millisecond)
	sc.acquire()
	sc.wantPositions("due sessions before the end", sc.look().DueSessions)
	sc.wantPositions("ended before the end", sc.commit(queue.Tick{EndSessions: queue.Positions{1, 2}}).Ended)
	sc.endSession(one.ID)
	sc.advance(time.Millisecond)
	sc.see(3)
	look := sc.look()
	sc.wantPositions("due sessions", look.DueSessions, 2)
	sc.wantPositions("candidates for the slots of the ended", look.Candidates, 3)
	if !look.NextSessionEnd.Equal(two.ExpiresAt) {
		t.Errorf("next session end is %v, want %v", look.NextSessionEnd, two.ExpiresAt)
	}
	result := sc.commit(queue.Tick{EndSessions: queue.Positions{1, 2, 3}, Offer: queue.Positions{3}})
	sc.wantPositions("ended", result.Ended, 2)
	sc.wantPositions("offered", result.Offered, 3)
	if got := sc.look(); got.Sessions != 0 || !got.NextSessionEnd.IsZero() {
		t.Errorf("%d sessions, next end %v, want none", got.Sessions, got.NextSessionEnd)
	}
	if _, err := s.Session(t.Context(), sc.id, two.ID); err == nil {
		t.Error("an ended session is still found")
	}
}

func tickCountsAgain(t *testing.T, s store.Store) {
	sc := newScene(t, s, func(s *queue.Settings) { s.Capacity = 4 })
	sc.joinAnonymous(10)
	sc.leave(2)
	sc.acquire()
	commit := func(offer ...uint64) store.TickResult {
		t.Helper()
		sc.advance(250 * time.Millisecond)
		return sc.commit(queue.Tick{Offer: offer})
	}
	result := commit(1, 2, 11, 1<<62)
	sc.wantPositions("offered of one that waits, one that left and two not issued", result.Offered, 1)
	sc.claim(1)
	result = commit(1, 3)
	sc.wantPositions("offered of one in the shop and one that waits", result.Offered, 3)
	result = commit(3, 4, 5, 6, 7)
	sc.wantPositions("offered beyond the capacity", result.Offered, 4, 5)
	if result.Sessions != 1 || result.Offers != 3 {
		t.Errorf("%d sessions, %d offers, want 1, 3", result.Sessions, result.Offers)
	}
	sc.unchanged("a tick at capacity", func() {
		sc.wantPositions("offered at capacity", commit(6, 7).Offered)
	})
	// The slot of an offer that lapses in the same tick is free, and the offer of one that does
	// not is not.
	sc.advance(25 * time.Second)
	sc.update(func(s *queue.Settings) { s.Capacity = 5 })
	sc.wantPositions("offered in the fifth slot", commit(6).Offered, 6)
	result = sc.commit(queue.Tick{
		Now: sc.now.Add(time.Millisecond), Lapse: queue.Positions{1, 3, 6, 7}, Offer: queue.Positions{7, 8},
	})
	sc.wantPositions("lapsed", result.Lapsed, 3)
	sc.wantPositions("offered", result.Offered, 7)
}

func tickRepeated(t *testing.T, s store.Store) {
	sc := newScene(t, s, func(s *queue.Settings) { s.Capacity = 6; s.PurchaseWindowSeconds = 30 })
	sc.joinAnonymous(4)
	sc.tick()
	sc.claim(1)
	sc.claim(2)
	sc.advance(30 * time.Second)
	sc.see(3, 4)
	sc.acquire()
	tick := queue.Tick{
		Now: sc.now, EndSessions: queue.Positions{1, 2}, Lapse: queue.Positions{3}, Prolong: time.Second, JoinSlots: 2,
	}
	result := sc.commit(tick)
	sc.wantPositions("ended", result.Ended, 1, 2)
	sc.wantPositions("lapsed although prolonged", result.Lapsed, 3)
	j := sc.joinAnonymous(1)
	sc.wantOffer(j, sc.claimBy())
	before := sc.snapshot()
	sc.unchanged("the same tick again", func() {
		for range 2 {
			again := sc.commit(tick)
			if again.Idle || again.Sessions != 0 || again.Offers != 2 || again.Entry != before.Number {
				t.Errorf("the same tick again: %+v, want 0 sessions, 2 offers, entry %d", again, before.Number)
			}
		}
	})
	if got := sc.look().JoinSlots; got != 1 {
		t.Errorf("%d join slots after the same tick again, want the 1 that was left", got)
	}
	sc.wantOffer(4, before.Offers[0].ClaimBy)
	// An old tick that comes after a newer one changes nothing either.
	sc.advance(time.Second)
	sc.commit(queue.Tick{})
	sc.see(3)
	sc.unchanged("an old tick", func() {
		old := tick
		old.Offer = queue.Positions{3}
		sc.commit(old)
	})
}

func tickProlong(t *testing.T, s store.Store) {
	sc := newScene(t, s, nil)
	sc.joinAnonymous(2)
	sc.tick()
	claimBy := sc.claimBy()
	sc.claim(1)
	session := sc.snapshot().Sessions[0]
	// Nothing ticks for five minutes, much longer than the claim time.
	sc.advance(5 * time.Minute)
	sc.acquire()
	look := sc.look()
	sc.wantPositions("due offers", look.DueOffers, 2)
	tick, _ := queue.Plan(look, queue.Pace{}, sc.now)
	if tick.Prolong != 5*time.Minute {
		t.Fatalf("the plan prolongs by %v, want 5m", tick.Prolong)
	}
	tick.Lapse = queue.Positions{2}
	result := sc.commit(tick)
	sc.wantPositions("lapsed", result.Lapsed)
	sc.wantPositions("ended", result.Ended, 1) // the purchase window is not prolonged
	sc.wantOffer(2, claimBy.Add(5*time.Minute))
	if session.ExpiresAt.After(sc.now) {
		t.Fatal("the test is wrong: the session has not expired")
	}
	again := sc.look()
	if again.Turn != look.Turn || !again.TurnStarted.Equal(sc.now) || !again.LastTick.Equal(sc.now) {
		t.Errorf("turn %d from %v, last tick %v, want turn %d from now, %v", again.Turn, again.TurnStarted, again.LastTick, look.Turn, sc.now)
	}
	sc.now = claimBy.Add(5*time.Minute + queue.ClaimGrace - time.Millisecond)
	sc.wantPositions("due offers", sc.look().DueOffers)
	sc.advance(time.Millisecond)
	sc.wantPositions("due offers", sc.look().DueOffers, 2)
	sc.acquire()
	sc.wantPositions("lapsed", sc.commit(queue.Tick{Lapse: queue.Positions{2}}).Lapsed, 2)
}

func tickCandidates(t *testing.T, s store.Store) {
	sc := newScene(t, s, func(s *queue.Settings) { s.Capacity = 100 })
	sc.joinAnonymous(130)
	look, err := s.Look(t.Context(), sc.id, 3, sc.now)
	if err != nil {
		t.Fatalf("Look: %v", err)
	}
	sc.wantPositions("candidates up to the limit", look.Candidates, 1, 2, 3)
	if got := len(sc.look().Candidates); got != 100 {
		t.Errorf("%d candidates, want as many as slots are free, 100", got)
	}
	look, err = s.Look(t.Context(), sc.id, 0, sc.now)
	if err != nil || len(look.Candidates) != 0 {
		t.Errorf("candidates up to a limit of 0: %v, error %v", look.Candidates, err)
	}
	sc.tick()
	if look := sc.look(); len(look.Candidates) != 0 || look.Offers != 100 || look.Waiting != 30 {
		t.Errorf("%d candidates, %d offers, %d waiting, want 0, 100, 30", len(look.Candidates), look.Offers, look.Waiting)
	}
	// The slots of what is due count as free; the fans whose offers are due are no candidates.
	sc.run(24*time.Second, func() { sc.see(120, 121) })
	sc.advance(time.Second)
	look = sc.look()
	if len(look.DueOffers) != 100 {
		t.Errorf("%d offers are due, want 100", len(look.DueOffers))
	}
	sc.wantPositions("candidates", look.Candidates, 120, 121)
}

// tickAcrossPages crosses positions at which stores begin a new page, block or word.
func tickAcrossPages(t *testing.T, s store.Store) {
	sc := newScene(t, s, func(s *queue.Settings) { s.Capacity = 4; s.PurchaseWindowSeconds = 60 })
	var edges []uint64
	for _, floor := range []uint64{1020, 4090, 8185, 32_760, 65_530, 131_070} {
		batch := sc.batch(make([]store.Key, 12)...)
		batch.Floor = floor
		first := sc.joinBatch(batch).Joins[0].Position
		for i := range uint64(12) {
			edges = append(edges, first+i)
		}
	}
	sc.tick()
	for position := uint64(1); position <= 4; position++ {
		sc.leave(position)
	}
	// Everybody but the last joiners falls silent.
	sc.run(10*time.Second, func() { sc.see(edges...) })
	var served []uint64
	for range len(edges) {
		sc.advance(250 * time.Millisecond)
		sc.see(edges...)
		for _, position := range sc.tick().Offered {
			served = append(served, position)
			session := sc.claim(position)
			switch position % 3 {
			case 0:
				sc.endSession(session.ID)
			case 1:
				if _, err := s.EndSession(t.Context(), sc.id, session.ID, queue.Left, queue.ReasonLeft, sc.now); err != nil {
					t.Fatalf("EndSession: %v", err)
				}
			}
		}
		if len(served) == len(edges) {
			break
		}
		sc.advance(time.Second)
	}
	for i, position := range served {
		if position != edges[i] {
			t.Fatalf("served %v, want %v", served, edges)
		}
	}
	if len(served) < 20 {
		t.Errorf("only %d were served", len(served))
	}
	for _, position := range served {
		if got := sc.view().Fate(position); position%3 == 0 && got != queue.Ended || position%3 == 1 && got != queue.Left {
			t.Errorf("fate of %d is %v", position, got)
		}
	}
}
