package edge

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"waitingroom/origin/wire"
)

// batches is an origin that issues positions, remembers batches by their number as the store does,
// and takes a while.
type batches struct {
	scripted
	took     time.Duration
	fail     func(seq uint64, attempt int) error // before or after it was executed, as executed says
	executed bool

	mu       sync.Mutex
	requests []wire.JoinRequest
	answers  map[uint64]wire.JoinResponse
	issued   uint64
}

func (b *batches) Join(ctx context.Context, r wire.JoinRequest) (wire.JoinResponse, error) {
	b.mu.Lock()
	attempt := 0
	for _, earlier := range b.requests {
		if earlier.Seq == r.Seq {
			attempt++
		}
	}
	b.requests = append(b.requests, r)
	var err error
	if b.fail != nil {
		err = b.fail(r.Seq, attempt)
	}
	answer, replay := b.answers[r.Seq]
	if !replay && (err == nil || b.executed) {
		answer = wire.JoinResponse{Incarnation: "inc1", Generation: "gen1"}
		for range r.Users {
			b.issued++
			answer.Joins = append(answer.Joins, wire.Joined{Position: b.issued, New: true})
		}
		if b.answers == nil {
			b.answers = make(map[uint64]wire.JoinResponse)
		}
		b.answers[r.Seq] = answer
	}
	b.mu.Unlock()
	pause(ctx, b.took)
	return answer, err
}

func newTestGatherer(b *batches, limit int) *gatherer {
	s := &Server{known: newKnowledge(1024, testHub())}
	return &gatherer{id: "acme.sale", edge: "e", limit: limit, slow: joinDeadline, origin: b, metrics: newMetrics(s), floor: func() (uint64, string) { return 0, "" }}
}

// joinMany starts n joins at once and waits for their answers, in the order of their users.
func joinMany(ctx context.Context, g *gatherer, group *sync.WaitGroup, n int) []joinAnswer {
	answers := make([]joinAnswer, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { answers[i] = g.join(ctx, group, fmt.Sprint(i)) })
	}
	all.Wait()
	return answers
}

func TestJoinsAreGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &batches{took: 5 * time.Millisecond}
		g := newTestGatherer(b, 10_000)
		var group sync.WaitGroup
		start := time.Now()
		answers := joinMany(t.Context(), g, &group, 3000)
		group.Wait()
		// One goes at once, the others while it is under way, no more than batchSize together.
		if len(b.requests) > 5 {
			t.Errorf("3000 joins at once: got %d batches, want a few", len(b.requests))
		}
		if took := time.Since(start); took > 30*time.Millisecond {
			t.Errorf("3000 joins took %v, want a few round trips", took)
		}
		seen := make(map[uint64]bool)
		for _, a := range answers {
			if a.err != nil || seen[a.Position] || a.incarnation != "inc1" || a.generation != "gen1" {
				t.Fatalf("join: got %+v, want a position of its own", a)
			}
			seen[a.Position] = true
		}
		for i, r := range b.requests {
			if r.Seq != uint64(i+1) || len(r.Users) > batchSize {
				t.Errorf("batch %d: number %d with %d joins, want number %d and at most %d", i, r.Seq, len(r.Users), i+1, batchSize)
			}
		}
	})
}

func TestAJoinWaitsNoLongerThanTheGathering(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &batches{took: 100 * time.Microsecond}
		g := newTestGatherer(b, 100)
		var group sync.WaitGroup
		start := time.Now()
		g.join(t.Context(), &group, "first")
		if took := time.Since(start); took > time.Millisecond {
			t.Errorf("the first join of a quiet queue took %v, want it to go at once", took)
		}
		var all sync.WaitGroup
		for i := range 40 {
			pause(t.Context(), 100*time.Microsecond)
			all.Go(func() {
				since := time.Now()
				if a := g.join(t.Context(), &group, fmt.Sprint(i)); a.err != nil {
					t.Error(a.err)
				}
				if took := time.Since(since); took > gatherFor+2*b.took {
					t.Errorf("join %d took %v, want at most %v and its round trip", i, took, gatherFor)
				}
			})
		}
		all.Wait()
		group.Wait()
		// Arrival order is kept: users came one after the other.
		var users []string
		for _, r := range b.requests[1:] {
			users = append(users, r.Users...)
		}
		for i, user := range users {
			if user != fmt.Sprint(i) {
				t.Fatalf("order of arrival: got %v", users)
			}
		}
	})
}

func TestABatchOfUnknownOutcomeIsRepeatedUnderItsNumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &batches{executed: true, fail: func(seq uint64, attempt int) error {
			if seq == 1 && attempt < 3 {
				return fmt.Errorf("join: %w", wire.ErrUnavailable) // the answer was lost
			}
			return nil
		}}
		g := newTestGatherer(b, 100)
		var group sync.WaitGroup
		a := g.join(t.Context(), &group, "u")
		group.Wait()
		if a.err != nil || a.Position != 1 || b.issued != 1 {
			t.Errorf("got %+v with %d issued, want position 1 and no other", a, b.issued)
		}
		for _, r := range b.requests {
			if r.Seq != 1 || !slices.Equal(r.Users, []string{"u"}) {
				t.Errorf("repetition: got %+v, want the same request", r)
			}
		}
	})
}

func TestABatchThatWasGivenUpIsNeverUsedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &batches{executed: true, fail: func(seq uint64, _ int) error {
			if seq == 1 {
				return errScript
			}
			return nil
		}}
		g := newTestGatherer(b, 100)
		var group sync.WaitGroup
		start := time.Now()
		if a := g.join(t.Context(), &group, "u"); !errors.Is(a.err, errOriginAway) {
			t.Errorf("given up: got %v, want errOriginAway", a.err)
		}
		if took := time.Since(start); took < joinDeadline || took > joinDeadline+time.Second {
			t.Errorf("given up after %v, want about %v", took, joinDeadline)
		}
		if a := g.join(t.Context(), &group, "v"); a.err != nil || a.Position != 2 {
			t.Errorf("the next one: got %+v, want position 2, for 1 is burned", a)
		}
		group.Wait()
	})
}

func TestAFullGatherTurnsAwayAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &batches{fail: func(uint64, int) error { return wire.ErrUnavailable }}
		g := newTestGatherer(b, 10)
		var group sync.WaitGroup
		start := time.Now()
		var away, full int
		var mu sync.Mutex
		var all sync.WaitGroup
		for i := range 40 {
			all.Go(func() {
				a := g.join(t.Context(), &group, fmt.Sprint(i))
				mu.Lock()
				defer mu.Unlock()
				switch {
				case errors.Is(a.err, errTooManyJoins):
					full++
					if time.Since(start) > 0 {
						t.Errorf("turned away after %v, want at once", time.Since(start))
					}
				case errors.Is(a.err, errOriginAway):
					away++
				default:
					t.Errorf("got %+v, want a refusal", a)
				}
			})
		}
		all.Wait()
		group.Wait()
		if full < 20 || away < 10 {
			t.Errorf("40 joins, 10 may wait: %d turned away, %d given up", full, away)
		}
		if took := time.Since(start); took > 2*joinDeadline+time.Second {
			t.Errorf("nobody may wait for longer than two deadlines, but it took %v", took)
		}
	})
}

func TestJoinsEndWithTheWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &batches{fail: func(uint64, int) error { return wire.ErrUnavailable }}
		g := newTestGatherer(b, 10)
		ctx, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		time.AfterFunc(time.Second, cancel)
		start := time.Now()
		for _, a := range joinMany(ctx, g, &group, 5) {
			if a.err == nil {
				t.Errorf("got %+v, want a refusal", a)
			}
		}
		group.Wait()
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("took %v, want the work to end with its context", took)
		}
		if a := g.join(ctx, &group, "late"); !errors.Is(a.err, errStopping) {
			t.Errorf("after the end: got %v, want errStopping", a.err)
		}
	})
}

func TestAFullGatherAnswers503WithRetryAfter(t *testing.T) {
	o := newScripted(t)
	release := make(chan struct{})
	o.join = func(ctx context.Context, r wire.JoinRequest) (wire.JoinResponse, error) {
		select {
		case <-release:
		case <-ctx.Done():
		}
		return o.joinInOrder(ctx, r)
	}
	e := startEdge(t, o, func(c *Config) { c.Limits.GatheredJoins = 1 })
	answers := make(chan answer, 20)
	for range 20 {
		go func() {
			answers <- e.do("POST", "/queues/acme.sale/tickets", headers{"X-API-Key": o.apiKeys["acme secret"]}, `{}`)
		}()
	}
	for range 18 { // one is under way, one waits
		got := <-answers
		if got.status != http.StatusServiceUnavailable || got.code(t) != "too_many_joins" || got.header.Get("Retry-After") == "" {
			t.Errorf("one too many: got %d %s, want 503 too_many_joins with Retry-After", got.status, got.body)
		}
	}
	close(release)
	for range 2 {
		if got := <-answers; got.status != http.StatusCreated {
			t.Errorf("who waited: got %d %s, want 201", got.status, got.body)
		}
	}
}

func TestFloorIsTheHighestPositionSeen(t *testing.T) {
	o := newScripted(t)
	floors := make(chan uint64, 10)
	o.join = func(ctx context.Context, r wire.JoinRequest) (wire.JoinResponse, error) {
		floors <- r.Floor
		return o.joinInOrder(ctx, r)
	}
	e := startEdge(t, o, nil)
	join := func() uint64 {
		t.Helper()
		if got := e.do("POST", "/queues/acme.sale/tickets", headers{"X-API-Key": o.apiKeys["acme secret"]}, `{}`); got.status != http.StatusCreated {
			t.Fatalf("join: got %d %s", got.status, got.body)
		}
		return <-floors
	}
	if got := join(); got != 0 {
		t.Errorf("first join: got floor %d, want 0", got)
	}
	if got := join(); got != 1 {
		t.Errorf("second join: got floor %d, want the first one's position", got)
	}
	token, id := o.ticketAt(t, 77)
	if got := e.do("GET", "/tickets/"+id, e.bearer(token), ""); got.status != http.StatusOK {
		t.Fatalf("status: got %d %s", got.status, got.body)
	}
	if got := join(); got != 77 {
		t.Errorf("after a verified ticket with position 77: got floor %d, want 77", got)
	}
}

func TestNobodyWaitsForManyBatchesWithoutAnOutcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &batches{fail: func(uint64, int) error { return wire.ErrUnavailable }}
		g := newTestGatherer(b, 10_000)
		var group sync.WaitGroup
		start := time.Now()
		for _, a := range joinMany(t.Context(), g, &group, 4*batchSize) {
			if !errors.Is(a.err, errOriginAway) {
				t.Fatalf("got %+v, want errOriginAway", a)
			}
		}
		group.Wait()
		if took := time.Since(start); took > 2*joinDeadline+time.Second {
			t.Errorf("took %v, want at most two deadlines", took)
		}
	})
}
