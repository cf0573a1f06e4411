package storetest

import (
	"errors"
	"sync"
	"testing"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

// In each round of a race, goroutines do what cannot all come true to a few positions at once.
// That every position went through one lawful history, that each slot was counted once, and that
// the log tells the state of the store, is checked by checkLog when the test ends, and by the
// rounds themselves: each starts with all slots free and needs every one of them. What the callers
// were told is checked against the log.
var raceCases = []testCase{
	{"claim, leave and lapse", raceOffer},
	{"claim, release, leave and expiry", raceSession},
	{"offer, claim, leave, sighting and expiry of the place", raceWaiting},
	{"joins of the same users", raceJoin},
	{"two coordinators", raceCoordinators},
	{"settings", raceSettings},
}

const (
	raceRounds    = 100
	racePositions = 6 // raced for in each round; also the capacity
)

func raceOffer(t *testing.T, s store.Store) {
	r := newRacers(t, s)
	for range raceRounds {
		positions := r.offered()
		lapse := r.claimBy().Add(queue.ClaimGrace)
		within := lapse.Add(-time.Millisecond)
		r.now = within
		r.acquire()
		var fs []func()
		for _, p := range positions {
			fs = append(fs,
				func() { r.claimAs(p, key(1), within) },
				func() { r.claimAs(p, key(2), within) },
				func() { r.leaveAt(p, within) },
			)
		}
		// The same tick twice.
		for i := range 2 {
			fs = append(fs, func() { r.commitRace(queue.Tick{Now: lapse, Lapse: positions}, i == 0) })
		}
		race(fs)
		r.now = lapse.Add(time.Second)
		if view := r.view(); view.Offers != 0 {
			// All were claimed or left before the lapse, or it took them.
			t.Errorf("%d offers are left, want 0", view.Offers)
		}
		r.clear()
	}
	r.check(true)
}

func raceSession(t *testing.T, s store.Store) {
	r := newRacers(t, s)
	for range raceRounds {
		positions := r.offered()
		sessions := make([]queue.Session, len(positions))
		for i, p := range positions {
			sessions[i] = r.claim(p)
		}
		expiry := sessions[0].ExpiresAt
		within := expiry.Add(-time.Millisecond)
		r.now = within
		r.acquire()
		var fs []func()
		for i, p := range positions {
			fs = append(fs,
				func() { r.end(sessions[i].ID, queue.Ended, queue.ReasonReleased, within) },
				func() { r.end(sessions[i].ID, queue.Ended, queue.ReasonRevoked, within) },
				func() { r.end(sessions[i].ID, queue.Left, queue.ReasonLeft, within) },
				func() { r.leaveAt(p, within) },
				func() { r.claimAs(p, subject(p), within) },
				func() { r.claimAs(p, key(1), within) },
			)
		}
		turnedAway := r.look().TurnedAway
		for range 2 {
			fs = append(fs, func() {
				r.commitRace(queue.Tick{
					Now: expiry, EndSessions: positions, JoinSlots: racePositions, TurnedAway: turnedAway,
				}, true)
			})
		}
		// Newcomers take the slots that become free.
		newcomers := r.batch(make([]store.Key, racePositions)...)
		newcomers.Now = within
		fs = append(fs, func() {
			_, err := r.s.Join(t.Context(), newcomers)
			r.try("Join", err)
		})
		race(fs)
		r.now = expiry.Add(time.Second)
		if view := r.view(); view.Sessions != 0 {
			t.Errorf("%d sessions are left, want 0", view.Sessions)
		}
		r.clear()
	}
	r.check(false)
	for position, history := range r.histories() {
		if n := len(history); n != 2 && n != 3 || history[n-1].Kind != queue.EntryDone {
			if n != 1 || history[0].Fate != queue.Left {
				t.Errorf("position %d went through %d entries, the last %s", position, n, history[n-1].Kind)
			}
		}
	}
}

func raceWaiting(t *testing.T, s store.Store) {
	r := newRacers(t, s)
	for range raceRounds {
		// Twice as many as there are slots, not seen for so long that they expire with this turn.
		r.acquire()
		first := r.joinAnonymous(2 * racePositions)
		positions := fromTo(first, first+2*racePositions-1)
		turn := r.look().Turn
		for range 2 {
			r.advance(2 * time.Second)
			r.closeTurn(turn)
			turn++
		}
		r.advance(time.Second)
		r.acquire()
		var fs []func()
		for i, p := range positions {
			fs = append(fs,
				func() { r.claimAs(p, subject(p), r.now) },
				func() {
					if i%3 == 0 {
						r.leaveAt(p, r.now)
						return
					}
					_, err := s.See(t.Context(), store.SightingBatch{
						Queue: r.id, Incarnation: r.inc, Edge: r.edge, Turn: turn,
						Positions: queue.Positions{p}, Now: r.now,
					})
					r.try("See", err)
				})
		}
		for i := range 4 {
			fs = append(fs, func() {
				r.commitRace(queue.Tick{Now: r.now.Add(time.Duration(i/2) * time.Millisecond), Offer: positions[2*i:]}, i == 3)
			})
		}
		before := r.counts().Expired
		expired := make([]int, 2)
		for i := range expired {
			fs = append(fs, func() {
				n, _, err := s.CloseTurn(t.Context(), r.id, r.epoch, turn, r.now)
				r.try("CloseTurn", err, store.ErrLeaseLost)
				expired[i] = n
			})
		}
		race(fs)
		r.advance(time.Second)
		if sum, want := expired[0]+expired[1], r.counts().Expired-before; sum != want {
			t.Errorf("closing the turn reported %d expired, but %d are", sum, want)
		}
		if look := r.look(); look.Sessions+look.Offers > racePositions {
			t.Errorf("%d sessions and %d offers, capacity %d", look.Sessions, look.Offers, racePositions)
		}
		r.clear()
	}
	r.check(true)
}

func raceJoin(t *testing.T, s store.Store) {
	sc := newScene(t, s, func(s *queue.Settings) { s.Capacity = 10 })
	sc.tick()
	const users, devices = 40, 5
	var mu sync.Mutex
	positions := make(map[int]map[uint64]int) // by user: how often each position was answered as new
	var fs []func()
	for device := range devices {
		for user := 1; user <= users; user++ {
			fs = append(fs, func() {
				batch := store.JoinBatch{
					Queue: sc.id, Edge: sc.edge + string(rune('a'+device)), Seq: uint64(user),
					Users: []store.Key{key(user), {}}, Now: sc.now,
				}
				for range 2 { // the second one is a replay
					result, err := s.Join(t.Context(), batch)
					if err != nil {
						t.Errorf("Join: %v", err)
						return
					}
					mu.Lock()
					if positions[user] == nil {
						positions[user] = make(map[uint64]int)
					}
					if result.Joins[0].New {
						positions[user][result.Joins[0].Position]++
					} else {
						positions[user][result.Joins[0].Position] += 0
					}
					mu.Unlock()
				}
			})
		}
	}
	race(fs)
	for user, list := range positions {
		if len(list) != 1 {
			t.Errorf("user %d got the positions %v, want one", user, list)
		}
		for position, n := range list {
			if n != 2 { // the batch that made it, and its replay
				t.Errorf("position %d was new for %d answers, want 2", position, n)
			}
		}
	}
	view := sc.view()
	if want := uint64(users + users*devices); view.Issued != want {
		t.Errorf("issued %d, want %d", view.Issued, want)
	}
	if view.Offers != 10 {
		t.Errorf("joins took %d slots, want 10", view.Offers)
	}
}

// raceCoordinators lets two origins coordinate the same queue, each believing that it is the one.
func raceCoordinators(t *testing.T, s store.Store) {
	sc := newScene(t, s, func(s *queue.Settings) { s.Capacity = 5; s.ClaimSeconds = 1; s.MaxMissedOffers = 100 })
	sc.joinAnonymous(100)
	var fs []func()
	for range 3 {
		c := sc.other()
		c.seq = 0
		fs = append(fs, func() {
			for range 60 {
				c.advance(400 * time.Millisecond)
				// A lease of a moment: the others take it all the time.
				epoch, err := s.Acquire(t.Context(), c.id, c.owner, 500*time.Millisecond, c.now)
				if err == nil {
					c.epoch = epoch
				} else if !errors.Is(err, store.ErrLeaseHeld) {
					t.Errorf("Acquire: %v", err)
				}
				look, err := s.Look(t.Context(), c.id, 20, c.now)
				if err != nil {
					t.Errorf("Look: %v", err)
					return
				}
				tick, _ := queue.Plan(look, queue.Pace{}, c.now)
				tick.Epoch = c.epoch // also where Look told of another
				if _, err := s.Commit(t.Context(), c.id, c.owner, 500*time.Millisecond, tick); err != nil && !errors.Is(err, store.ErrLeaseLost) {
					t.Errorf("Commit: %v", err)
				}
				for _, position := range look.Candidates[:min(len(look.Candidates), 2)] {
					if session, _, err := s.Claim(t.Context(), c.claimRequest(position)); err == nil && position%2 == 0 {
						if _, err := s.EndSession(t.Context(), c.id, session.ID, queue.Ended, queue.ReasonReleased, c.now); err != nil {
							t.Errorf("EndSession: %v", err)
						}
					}
				}
			}
		})
	}
	race(fs)
	if counts := sc.counts(); counts.Admitted == 0 || counts.Claimed == 0 {
		t.Errorf("nobody got in: %+v", counts)
	}
}

// raceSettings changes capacity and state while offers are made and claimed.
func raceSettings(t *testing.T, s store.Store) {
	sc := newScene(t, s, func(s *queue.Settings) { s.Capacity = 20 })
	sc.joinAnonymous(60)
	sc.acquire()
	states := []queue.State{queue.SoldOut, queue.Open, queue.Paused, queue.Open}
	var fs []func()
	for i := range 40 {
		fs = append(fs,
			func() {
				meta, err := s.Get(t.Context(), sc.id)
				if err != nil {
					t.Errorf("Get: %v", err)
					return
				}
				meta.Settings.State = states[i%len(states)]
				meta.Settings.Capacity = 5 + i%10
				_, _, err = s.Update(t.Context(), sc.id, meta.Version, meta.Settings, sc.now)
				if err != nil && !errors.Is(err, store.ErrConflict) {
					t.Errorf("Update: %v", err)
				}
			},
			func() {
				tick := queue.Tick{Epoch: sc.epoch, Now: sc.now.Add(time.Duration(i) * time.Millisecond), Offer: fromTo(1, 60), JoinSlots: 20}
				if _, err := s.Commit(t.Context(), sc.id, sc.owner, leaseTTL, tick); err != nil {
					t.Errorf("Commit: %v", err)
				}
			},
			func() {
				batch := store.JoinBatch{Queue: sc.id, Edge: randomName(), Seq: 1, Users: make([]store.Key, 3), Now: sc.now}
				if _, err := s.Join(t.Context(), batch); err != nil {
					t.Errorf("Join: %v", err)
				}
			},
			func() {
				_, _, err := s.Claim(t.Context(), sc.claimRequest(uint64(i)+1))
				if err != nil && !errors.Is(err, store.ErrNotOffered) {
					t.Errorf("Claim: %v", err)
				}
			},
		)
	}
	race(fs)
}
