package origin

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store/memory"
	"waitingroom/origin/store/storetest"
	"waitingroom/origin/wire"
)

// setStore is a store whose clock somebody puts forward or back.
type setStore struct {
	*memory.Store
	ahead *atomic.Int64
}

func (s setStore) Now(ctx context.Context) (time.Time, error) {
	now, err := s.Store.Now(ctx)
	return now.Add(time.Duration(s.ahead.Load())), err
}

// TestNobodyLosesAPlaceWhenTheStoresClockIsSet has the store's own clock set while a sale runs on two
// origins, by hand or by a failover to another machine. Time is the store's, so that somebody notices; but
// nobody loses a place, nothing lapses that was not the fan's fault, no offer is made at capacity, and
// the sale goes on. What is noticed:
//
//   - Put forward, sessions end that had less to go, and running offers are prolonged by the leap.
//   - Put back, nothing is noticed: origins follow by at most largestStepBack at each measurement.
//     But an origin that starts afterwards, when no other one is left, makes no offers until its clock has come
//     to where the others' was.
func TestNobodyLosesAPlaceWhenTheStoresClockIsSet(t *testing.T) {
	const window = time.Minute
	for _, test := range []struct {
		name string
		sets []time.Duration // ahead of the right time, one after the other
		// cut is by how much less than its window a session may last, and quiet how long the sale may
		// stand still: until both origins have measured, or in the end until the clock has caught up.
		cut, quiet time.Duration
		afresh     bool // no origin is left that knew the clock before
	}{
		{"five minutes back", []time.Duration{-5 * time.Minute}, 0, 5 * time.Second, false},
		{"an hour back", []time.Duration{-time.Hour}, 0, 5 * time.Second, false},
		{"an hour back and right again", []time.Duration{-time.Hour, 0}, 0, 5 * time.Second, false},
		{"five minutes forward", []time.Duration{5 * time.Minute}, window, 65 * time.Second, false},
		{"an hour forward and right again", []time.Duration{time.Hour, 0}, window, 65 * time.Second, false},
		{"five minutes back, and all origins start afresh", []time.Duration{-5 * time.Minute}, 0, 5*time.Minute + window + 5*time.Second, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				creds, ahead := newCredentials(t), new(atomic.Int64)
				shared := setStore{&memory.Store{}, ahead}
				rigs := [2]*rig{newRig(t, creds, shared)}
				time.Sleep(measureEvery / 2) // so that they do not measure at the same time
				rigs[1] = newRig(t, creds, shared)
				id := rigs[0].create("sale", `"capacity":4,"purchaseWindowSeconds":60,"holdSeconds":120,"claimSeconds":60`)
				s := &setSale{t: t, id: id, window: window, mayBeQuiet: test.quiet, started: make(map[uint64]time.Time), lasted: make(map[uint64]time.Duration)}
				s.goOn(2*time.Minute, rigs[:]...)
				for _, to := range test.sets {
					ahead.Store(int64(to))
					s.goOn(4*time.Minute, rigs[:]...)
				}
				// The one that coordinates dies, and the other takes over.
				rigs[0].stop()
				if test.afresh {
					rigs[1].stop()
					rigs[1] = newRig(t, creds, shared)
				}
				s.goOn(8*time.Minute, rigs[1])
				s.check(test.cut, shared.Store)
				rigs[1].stop()
			})
		})
	}
}

// setSale is a sale with a line: everybody is here all the time and claims when it is their turn.
type setSale struct {
	t       *testing.T
	rig     *rig // asked last
	id      queue.ID
	window  time.Duration
	joins   uint64
	started map[uint64]time.Time     // sessions, by the right time
	lasted  map[uint64]time.Duration // those that are over

	quiet, mayBeQuiet time.Duration // the longest time for which a slot stood free
}

// goOn lets time pass. One fan in four claims at once, the others when most of the claim time is over.
func (s *setSale) goOn(d time.Duration, rigs ...*rig) {
	s.t.Helper()
	free := time.Now()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(250 * time.Millisecond) {
		s.rig = rigs[int(time.Now().Unix())%len(rigs)]
		view := s.rig.view(s.id)
		for range 10 - view.Waiting {
			s.joins++
			s.rig.joins = s.joins - 1
			s.rig.joinOne(s.id)
		}
		view = s.rig.view(s.id)
		var line []uint64
		taken := 0
		for p := uint64(1); p <= view.Issued; p++ {
			switch view.Status(p, s.rig.clock.Now()).State {
			case queue.TicketWaiting:
				line = append(line, p)
			case queue.TicketAdmitted:
				taken++
				if claimBy, _ := view.Offer(p); p%4 == 0 || claimBy.Sub(s.rig.clock.Now()) < 10*time.Second {
					// Until the next tick has prolonged the offers, a claim may find its own run out.
					got := s.rig.claimAs(s.id, p, "fan")
					if got.Error == "" {
						s.started[p] = time.Now()
					} else if got.Error != wire.CodeNotYourTurn {
						s.t.Fatalf("claim of position %d: got %s", p, got.Error)
					}
				}
			case queue.TicketActive:
				if time.Since(s.started[p]) < s.window+2*time.Second { // tokens know whole seconds
					taken++
				}
			case queue.TicketEnded:
				if _, over := s.lasted[p]; !over {
					s.lasted[p] = time.Since(s.started[p])
				}
			default:
				s.t.Fatalf("position %d is %s: it lost its place", p, view.Status(p, s.rig.clock.Now()).State)
			}
		}
		s.rig.see(s.id, line...)
		if taken >= 4 {
			free = time.Now()
		}
		s.quiet = max(s.quiet, time.Since(free))
	}
}

// check wants that everybody who waited still waits or was let in, and that sessions lasted.
func (s *setSale) check(cut time.Duration, shared *memory.Store) {
	s.t.Helper()
	entries, err := shared.Entries(s.t.Context(), s.id, s.rig.view(s.id).Incarnation, 0, "", 1_000_000)
	must(s.t, err)
	if err := storetest.CheckHistory(entries); err != nil {
		s.t.Error(err)
	}
	for _, e := range entries {
		if e.Kind == queue.EntryLapsed || e.Kind == queue.EntryDone && e.Fate != queue.Ended {
			s.t.Errorf("entry %d: %s %v %s of %v, want nobody to miss or lose anything", e.Number, e.Kind, e.Fate, e.Reason, e.Positions)
		}
	}
	shortest := 100 * s.window
	for _, lasted := range s.lasted {
		shortest = min(shortest, lasted)
	}
	if shortest < s.window-cut-time.Second {
		s.t.Errorf("a session lasted %v, want %v at the least", shortest, s.window-cut)
	}
	if s.quiet > s.mayBeQuiet {
		s.t.Errorf("a slot stood free for %v, want %v at the most", s.quiet, s.mayBeQuiet)
	}
	s.t.Logf("%d sessions are over, the shortest after %v; a slot stood free for %v", len(s.lasted), shortest, s.quiet)
}
