package storetest

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

var logCases = []testCase{
	{"entries in parts", logParts},
	{"a log that was rewritten", logRewritten},
	{"time never goes back", logTime},
	{"random histories", logRandom},
	{"hints", logHints},
}

func logParts(t *testing.T, s store.Store) {
	sc := newScene(t, s, nil)
	for range 9 {
		sc.joinAnonymous(1)
	}
	for _, c := range []struct {
		after uint64
		limit int
		first uint64
		n     int
	}{{0, 100, 1, 10}, {0, 3, 1, 3}, {4, 3, 5, 3}, {8, 3, 9, 2}, {9, 1, 10, 1}, {10, 5, 0, 0}, {11, 5, 0, 0}, {1 << 40, 5, 0, 0}} {
		got, err := s.Entries(t.Context(), sc.id, sc.inc, c.after, "", c.limit)
		if err != nil || len(got) != c.n {
			t.Errorf("Entries after %d, at most %d: %d entries, error %v, want %d", c.after, c.limit, len(got), err, c.n)
			continue
		}
		for i, e := range got {
			if e.Number != c.first+uint64(i) {
				t.Errorf("Entries after %d: entry %d has number %d", c.after, i, e.Number)
			}
		}
	}
}

// logRewritten reads on from entries that the store does not have, or has otherwise.
func logRewritten(t *testing.T, s store.Store) {
	sc := newScene(t, s, nil)
	sc.joinAnonymous(1)
	early := sc.snapshot()
	for range 3 {
		sc.joinAnonymous(1)
	}
	last := sc.snapshot()
	other := newScene(t, s, nil)
	other.joinAnonymous(1)
	foreign := other.snapshot()
	if early.Chain == "" || early.Chain == last.Chain || early.Chain == foreign.Chain {
		t.Fatalf("chains %q, %q, and of another queue %q: want three different ones", early.Chain, last.Chain, foreign.Chain)
	}
	for name, c := range map[string]struct {
		after uint64
		chain string
		want  error
		n     int
	}{
		"from the middle":                 {early.Number, early.Chain, nil, 3},
		"from the end":                    {last.Number, last.Chain, nil, 0},
		"from before the first":           {0, "anything", nil, 5},
		"the middle was another":          {early.Number, foreign.Chain, store.ErrRewritten, 0},
		"the end was another":             {last.Number, early.Chain, store.ErrRewritten, 0},
		"from beyond the end":             {last.Number + 1, last.Chain, store.ErrRewritten, 0},
		"from beyond the end, unknown":    {last.Number + 1, "", nil, 0},
		"the middle, of whatever history": {early.Number, "", nil, 3},
	} {
		entries, err := s.Entries(t.Context(), sc.id, sc.inc, c.after, c.chain, 10)
		if !errors.Is(err, c.want) || len(entries) != c.n {
			t.Errorf("%s: %d entries, error %v, want %d and %v", name, len(entries), err, c.n, c.want)
		}
		for i, e := range entries {
			if e.Number != c.after+uint64(i)+1 {
				t.Errorf("%s: entry %d has number %d", name, i, e.Number)
			}
		}
		if c.n > 0 && entries[c.n-1].Chain != last.Chain {
			t.Errorf("%s: the last entry has the chain %q, the snapshot %q", name, entries[c.n-1].Chain, last.Chain)
		}
	}
}

func logTime(t *testing.T, s store.Store) {
	sc := newScene(t, s, nil)
	begin := sc.now
	sc.advance(time.Minute + 1234*time.Microsecond)
	sc.joinAnonymous(1)
	want := begin.Add(time.Minute + time.Millisecond)
	if e := sc.lastEntry(); !e.At.Equal(want) {
		t.Errorf("entry is of %v, want %v, cut to milliseconds", e.At, want)
	}
	// Another origin's clock lags by half a minute.
	sc.now = begin.Add(30 * time.Second)
	sc.joinAnonymous(1)
	if e := sc.lastEntry(); !e.At.Equal(want) {
		t.Errorf("entry of a clock that lags is of %v, want %v", e.At, want)
	}
	if look := sc.look(); !look.Now.Equal(want) {
		t.Errorf("a look by a clock that lags is as of %v, want %v", look.Now, want)
	}
	sc.tick()
	sc.wantOffer(1, want.Add(20*time.Second))
	if got := sc.claim(1); !got.StartsAt.Equal(want) {
		t.Errorf("session starts at %v, want %v", got.StartsAt, want)
	}
}

// logRandom plays random histories, and lets a reader start from the middle of each.
func logRandom(t *testing.T, s store.Store) {
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 1))
		sc := newScene(t, s, func(s *queue.Settings) {
			s.Capacity = 1 + r.IntN(10)
			s.HoldSeconds = 1 + r.IntN(20)
			s.ClaimSeconds = 1 + r.IntN(10)
			s.PurchaseWindowSeconds = 1 + r.IntN(20)
			s.MaxMissedOffers = 1 + r.IntN(3)
		})
		middle := 75 + r.IntN(75)
		var snapshot queue.Snapshot
		for i := range 150 {
			if i == middle {
				snapshot = sc.snapshot()
			}
			sc.randomStep(r)
		}
		view := queue.NewView(snapshot)
		entries, err := s.Entries(t.Context(), sc.id, sc.inc, view.Number, view.Chain, 10_000)
		if err != nil {
			t.Fatalf("Entries: %v", err)
		}
		view, ok := view.Apply(entries)
		if !ok {
			t.Fatal("the entries do not follow on a snapshot from the middle")
		}
		got, want := view.Snapshot(), sc.view().Snapshot()
		got.Admitted, want.Admitted = nil, nil
		if diff := firstDifference(got, want); diff != "" {
			t.Errorf("seed %d, from the middle: %s", seed, diff)
		}
		look := sc.look()
		if look.Waiting != view.Waiting || look.Offers != view.Offers || look.Sessions != view.Sessions || look.Present > look.Waiting {
			t.Errorf("seed %d: Look counts %d waiting, %d present, %d offers, %d sessions; the log %d, -, %d, %d", seed,
				look.Waiting, look.Present, look.Offers, look.Sessions, view.Waiting, view.Offers, view.Sessions)
		}
	}
}

func (sc *scene) randomStep(r *rand.Rand) {
	sc.t.Helper()
	view := sc.view()
	any := func() uint64 { return 1 + r.Uint64N(view.Issued+1) }
	switch r.IntN(12) {
	case 0, 1:
		users := make([]store.Key, 1+r.IntN(8))
		for i := range users {
			if r.IntN(2) == 0 {
				users[i] = key(1 + r.IntN(20))
			}
		}
		batch := sc.batch(users...)
		if r.IntN(10) == 0 {
			batch.Floor = view.Issued + r.Uint64N(2000)
		}
		sc.joinBatch(batch)
	case 2, 3:
		var seen queue.Positions
		for p := any(); p <= view.Issued && len(seen) < 30; p += 1 + r.Uint64N(5) {
			seen = append(seen, p)
		}
		sc.seeIn(sc.look().Turn-min(r.Uint64N(3), 1), seen...)
	case 4, 5, 6:
		for _, offer := range sc.snapshot().Offers {
			if r.IntN(2) == 0 {
				_, _, err := sc.s.Claim(sc.t.Context(), sc.claimRequest(offer.Position))
				if err != nil && !errors.Is(err, store.ErrNotOffered) {
					sc.t.Fatalf("Claim: %v", err)
				}
			}
		}
	case 7:
		_, err := sc.s.Leave(sc.t.Context(), sc.id, sc.inc, any(), sc.now)
		if err != nil && !errors.Is(err, store.ErrRunning) && !errors.Is(err, store.ErrNotIssued) {
			sc.t.Fatalf("Leave: %v", err)
		}
	case 8:
		for _, session := range sc.snapshot().Sessions {
			if r.IntN(3) == 0 {
				sc.endSession(session.ID)
			}
		}
	case 9:
		states := []queue.State{queue.Open, queue.Open, queue.Open, queue.Paused, queue.SoldOut}
		sc.update(func(s *queue.Settings) {
			s.State = states[r.IntN(len(states))]
			s.Capacity = 1 + r.IntN(10)
			s.HoldSeconds = max(s.HoldSeconds+r.IntN(3)-1, 1)
		})
	default:
		sc.advance(time.Duration(r.IntN(3000)) * time.Millisecond)
		sc.tick()
	}
}

// logHints changes things until the hint comes: one that is lost is no fault.
func logHints(t *testing.T, s store.Store) {
	sc := newScene(t, s, nil)
	tenant := sc.id.Tenant()
	for _, c := range []struct {
		name   string
		want   queue.ID
		change func()
	}{
		{"listening", store.Listening, func() {}},
		{"join", sc.id, func() { sc.joinAnonymous(1) }},
		{"update", sc.id, func() { sc.update(func(s *queue.Settings) { s.Capacity++ }) }},
		{"leave", sc.id, func() { sc.leave(sc.joinAnonymous(1)) }},
		{"revocation", store.RevocationHint(tenant), func() {
			err := s.Revoke(t.Context(), tenant, store.Revocation{ID: randomName(), ExpiresAt: sc.now.Add(time.Hour)}, sc.now)
			if err != nil {
				t.Fatalf("Revoke: %v", err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			hinted, ended := make(chan struct{}, 1), make(chan error, 1)
			go func() {
				ended <- s.Hints(ctx, func(id queue.ID) {
					if id == c.want {
						select {
						case hinted <- struct{}{}:
						default:
						}
					}
				})
			}()
			for arrived := false; !arrived; {
				c.change()
				select {
				case <-hinted:
					arrived = true
				case <-time.After(20 * time.Millisecond):
					if ctx.Err() != nil {
						cancel()
						<-ended
						t.Fatal("no hint came")
					}
				}
			}
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("Hints ended with %v, want nil at the end of its context", err)
			}
		})
	}
}
