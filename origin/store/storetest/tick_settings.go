package storetest

import (
	"reflect"
	"testing"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

func tickSmaller(t *testing.T, s store.Store) {
	sc := newScene(t, s, func(s *queue.Settings) { s.Capacity = 4 })
	sc.joinAnonymous(8)
	sc.tick()
	one, two := sc.claim(1), sc.claim(2)
	sc.update(func(s *queue.Settings) { s.Capacity = 2 })
	tick := func() queue.Positions {
		t.Helper()
		sc.advance(250 * time.Millisecond)
		sc.see(5, 6, 7, 8)
		return sc.tick().Offered
	}
	sc.wantPositions("offered above the capacity", tick())
	if look := sc.look(); look.Sessions != 2 || look.Offers != 2 {
		t.Errorf("%d sessions, %d offers after the retune, want 2, 2: it ends nobody's", look.Sessions, look.Offers)
	}
	sc.endSession(one.ID)
	sc.leave(4)
	sc.wantPositions("offered at the capacity", tick())
	sc.claim(3)
	sc.wantPositions("offered at the capacity", tick())
	sc.endSession(two.ID)
	sc.wantPositions("offered below the capacity", tick(), 5)
}

func tickWithdrawn(t *testing.T, s store.Store) {
	for _, state := range []queue.State{queue.SoldOut, queue.Closed, queue.Scheduled} {
		t.Run(string(state), func(t *testing.T) {
			sc := newScene(t, s, func(s *queue.Settings) { s.Capacity = 3; s.MaxMissedOffers = 1 })
			sc.joinAnonymous(5)
			sc.tick()
			session := sc.claim(2)
			sc.setState(state)
			e := sc.lastEntry()
			if e.Kind != queue.EntryWithdrawn {
				t.Fatalf("last entry is %+v, want withdrawn", e)
			}
			sc.wantPositions("withdrawn", e.Positions, 1, 3)
			for _, position := range []uint64{1, 3} {
				sc.wantFate(position, queue.Waiting)
				sc.wantOffer(position, time.Time{})
			}
			look := sc.look()
			if look.Offers != 0 || look.Sessions != 1 || look.Waiting != 4 || look.Present != 4 {
				t.Errorf("%d offers, %d sessions, %d waiting, %d present, want 0, 1, 4, 4", look.Offers, look.Sessions, look.Waiting, look.Present)
			}
			sc.acquire()
			sc.advance(250 * time.Millisecond)
			sc.wantPositions("offered while "+string(state), sc.commit(queue.Tick{Offer: queue.Positions{1, 3, 4}}).Offered)
			if got, err := s.Session(t.Context(), sc.id, session.ID); err != nil || got != session {
				t.Errorf("the session while %s: %+v, error %v, want %+v", state, got, err, session)
			}
			if state == queue.Closed {
				return
			}
			// Nothing counts as missed, and they are the first when it opens again.
			due := sc.claimBy().Add(queue.ClaimGrace)
			sc.setState(queue.Open)
			sc.see(1, 3)
			sc.wantPositions("candidates", sc.look().Candidates, 1, 3)
			sc.advance(time.Second)
			sc.acquire()
			sc.wantPositions("offered again", sc.commit(queue.Tick{Offer: queue.Positions{1, 3}}).Offered, 1, 3)
			sc.now = due
			sc.wantPositions("due when the withdrawn offers would have been", sc.look().DueOffers)
			if got := sc.counts(); got.MissedOffers != 0 {
				t.Errorf("%d missed offers, want 0", got.MissedOffers)
			}
		})
	}
}

// tickEstimate: an estimate is logged last, and readers that come later have it too, until the
// settings for which it was made change.
func tickEstimate(t *testing.T, s store.Store) {
	sc := newScene(t, s, nil)
	sc.joinAnonymous(3)
	sc.acquire()
	if got := sc.snapshot().Estimate; got != nil {
		t.Fatalf("estimate of a new queue is %+v, want none", got)
	}
	make := func(seconds int) *queue.Estimate {
		return &queue.Estimate{
			Curve:   queue.Curve{Ahead: []uint64{0, 1 << 53}, P50: []int{1, seconds}, P90: []int{2, 2 * seconds}},
			Learned: queue.Learned{P50: []float64{-0.125, 0}, P90: []float64{1.25, 5}},
		}
	}
	want := func(what string, want *queue.Estimate) {
		t.Helper()
		if got := sc.snapshot().Estimate; !reflect.DeepEqual(got, want) {
			t.Errorf("%s: the snapshot's estimate is %+v, want %+v", what, got, want)
		}
		if got := sc.view().Estimate; !reflect.DeepEqual(got, want) {
			t.Errorf("%s: the log's estimate is %+v, want %+v", what, got, want)
		}
	}
	first, second := make(100), make(70)
	sc.advance(250 * time.Millisecond)
	tick := queue.Tick{Offer: queue.Positions{1}, Estimate: first}
	sc.commit(tick)
	if e := sc.lastEntry(); e.Kind != queue.EntryEstimate || !reflect.DeepEqual(e.Estimate, first) {
		t.Errorf("last entry is %+v, want the estimate, after the offers", e)
	}
	want("made", first)
	sc.unchanged("the same tick again", func() { sc.commit(tick) })
	sc.advance(250 * time.Millisecond)
	sc.unchanged("a tick without an estimate", func() { sc.commit(queue.Tick{}) })
	want("a tick later", first)
	sc.advance(250 * time.Millisecond)
	sc.commit(queue.Tick{Estimate: second})
	want("made anew", second)
	sc.update(func(s *queue.Settings) { s.Capacity++ })
	want("after a retune", nil)
	sc.advance(250 * time.Millisecond)
	sc.commit(queue.Tick{Estimate: first})
	want("made for the new settings", first)
}

func tickPaused(t *testing.T, s store.Store) {
	sc := newScene(t, s, nil)
	sc.joinAnonymous(4)
	sc.tick()
	claimBy := sc.claimBy()
	sc.setState(queue.Paused)
	sc.wantOffer(2, claimBy)
	sc.leave(1)
	sc.advance(250 * time.Millisecond)
	sc.wantPositions("candidates while paused", sc.look().Candidates)
	sc.acquire()
	sc.wantPositions("offered while paused", sc.commit(queue.Tick{Offer: queue.Positions{3}}).Offered)
	sc.run(30*time.Second, func() { sc.see(2, 3, 4) })
	sc.wantFate(2, queue.Waiting)
	sc.wantOffer(2, time.Time{})
	sc.setState(queue.Open)
	sc.advance(250 * time.Millisecond)
	sc.wantPositions("offered after the pause", sc.tick().Offered, 2, 3)
}
