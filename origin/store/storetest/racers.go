package storetest

import (
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

// race starts all functions at once, in a random order, and waits for them.
func race(fs []func()) {
	start := make(chan struct{})
	var wait sync.WaitGroup
	for _, i := range rand.Perm(len(fs)) {
		wait.Go(func() {
			<-start
			fs[i]()
		})
	}
	close(start)
	wait.Wait()
}

// racers is a queue with what concurrent callers were told of it.
type racers struct {
	*scene
	mu   sync.Mutex
	told map[uint64][]queue.Session // by position: what claims returned
}

func newRacers(t *testing.T, s store.Store) *racers {
	sc := newScene(t, s, func(s *queue.Settings) {
		s.Capacity = racePositions
		s.MaxMissedOffers = 1
		s.HoldSeconds = 1
		s.ClaimSeconds = 1
		s.PurchaseWindowSeconds = 5
	})
	return &racers{scene: sc, told: make(map[uint64][]queue.Session)}
}

// offered brings racePositions new positions and an offer for each.
func (r *racers) offered() queue.Positions {
	r.t.Helper()
	first := r.joinAnonymous(racePositions)
	r.tick()
	if got := r.view().Offers; got != racePositions {
		r.t.Fatalf("%d offers run at the start of a round, want %d", got, racePositions)
	}
	return fromTo(first, first+racePositions-1)
}

func fromTo(first, last uint64) queue.Positions {
	var list queue.Positions
	for p := first; p <= last; p++ {
		list = append(list, p)
	}
	return list
}

// clear ends all sessions, and has everybody else leave.
func (r *racers) clear() {
	r.t.Helper()
	snapshot := r.snapshot()
	for _, session := range snapshot.Sessions {
		r.now = maxTime(r.now, session.StartsAt)
		r.endSession(session.ID)
	}
	view := queue.NewView(snapshot)
	for p := max(snapshot.Issued, 4*racePositions) - 4*racePositions + 1; p <= snapshot.Issued; p++ {
		if view.Fate(p) == queue.Waiting {
			r.leave(p)
		}
	}
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// try runs a call of the store and checks that its error is one of those that may be.
func (r *racers) try(what string, err error, allowed ...error) (ok bool) {
	if err == nil {
		return true
	}
	for _, one := range allowed {
		if errors.Is(err, one) {
			return false
		}
	}
	r.t.Errorf("%s: %v", what, err)
	return false
}

func (r *racers) claimAs(position uint64, by store.Key, now time.Time) {
	request := r.claimRequest(position)
	request.Subject, request.Now = by, now
	session, _, err := r.s.Claim(r.t.Context(), request)
	if r.try("Claim", err, store.ErrTaken, store.ErrOut, store.ErrNotOffered) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.told[position] = append(r.told[position], session)
	}
}

func (r *racers) leaveAt(position uint64, now time.Time) {
	_, err := r.s.Leave(r.t.Context(), r.id, r.inc, position, now)
	r.try("Leave", err, store.ErrRunning)
}

func (r *racers) end(session string, fate queue.Fate, reason string, now time.Time) {
	_, err := r.s.EndSession(r.t.Context(), r.id, session, fate, reason, now)
	r.try("EndSession", err)
}

// commitRace commits a tick, after a look or at once; when everybody is out the queue is idle,
// and the lease was given up.
func (r *racers) commitRace(tick queue.Tick, look bool) {
	tick.Epoch = r.epoch
	if look {
		_, err := r.s.Look(r.t.Context(), r.id, 0, tick.Now.Add(-time.Millisecond))
		r.try("Look", err)
	}
	_, err := r.s.Commit(r.t.Context(), r.id, r.owner, leaseTTL, tick)
	r.try("Commit", err, store.ErrLeaseLost)
}

// histories are what the log tells of each position.
func (r *racers) histories() map[uint64][]queue.Entry {
	r.t.Helper()
	entries, err := r.s.Entries(r.t.Context(), r.id, r.inc, 0, "", 1_000_000)
	if err != nil {
		r.t.Fatalf("Entries: %v", err)
	}
	history := make(map[uint64][]queue.Entry)
	for _, e := range entries {
		for _, position := range e.Positions {
			history[position] = append(history[position], e)
		}
	}
	return history
}

// check compares what claims returned with the log: a session that the log has, always the
// same one; and whoever has a session in the log was told of it. It counts how positions ended.
func (r *racers) check(toldOnce bool) {
	r.t.Helper()
	outcomes := make(map[string]int)
	for position, history := range r.histories() {
		last := history[len(history)-1]
		outcomes[last.Fate.String()+" "+last.Reason]++
		var started queue.Entry
		for _, e := range history {
			if e.Kind == queue.EntryClaimed {
				started = e
			}
		}
		for _, session := range r.told[position] {
			if session.ID != started.Session || !session.StartsAt.Equal(started.Since) || !session.ExpiresAt.Equal(started.Until) {
				r.t.Errorf("a claim of %d was told of %+v, the log of %+v", position, session, started)
			}
		}
		if n := len(r.told[position]); toldOnce && started.Session != "" && n != 1 {
			r.t.Errorf("%d of several subjects were told of the session of %d, want one", n, position)
		}
	}
	r.t.Logf("outcomes: %v", outcomes)
}
