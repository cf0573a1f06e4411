package edge

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/wire"
)

const (
	// gatherFor is how long a join waits for company at the most.
	gatherFor = 2 * time.Millisecond
	// batchSize bounds how many joins go to the origin at once.
	batchSize = 1024
	// joinDeadline is how long a batch is repeated while its outcome is unknown; then its fans are
	// asked to try again. It stays far below the time for which the store remembers batches.
	joinDeadline = 5 * time.Second
	// The pause between repetitions doubles from the one to the other.
	leastPause, mostPause = 20 * time.Millisecond, 500 * time.Millisecond
)

// joinAnswer is what the origin says to one join.
type joinAnswer struct {
	wire.Joined
	incarnation, generation string
	entry                   uint64
	err                     error
}

// joinCall is a join that waits in a batch.
type joinCall struct {
	user   string
	since  time.Time
	answer chan joinAnswer // takes one without blocking
}

// gatherer sends the joins of one queue to the origin in batches, in order of arrival, one batch
// at a time. It outlives the queue's line: its numbers must never be used twice in this process,
// or a new batch would be answered with the positions of an old one.
type gatherer struct {
	id   queue.ID
	edge string
	// limit is how many joins may wait, slow for how long one may have waited before new ones are
	// turned away.
	limit  int
	slow   time.Duration
	origin Origin
	// floor is the highest position known to have been issued, and the incarnation that did.
	floor   func() (position uint64, incarnation string)
	metrics *metrics

	mu      sync.Mutex
	waiting []*joinCall
	running bool
	asking  time.Time // since when the first join of the batch under way has waited; zero without one

	seq uint64 // the running sender's alone
}

// join waits for a position, for at most twice the joinDeadline; where too many wait already, it
// does not. ctx is the work's, not the request's: a fan who hangs up may have been given a position.
func (g *gatherer) join(ctx context.Context, group *sync.WaitGroup, user string) joinAnswer {
	call := &joinCall{user: user, since: time.Now(), answer: make(chan joinAnswer, 1)}
	g.mu.Lock()
	switch {
	case ctx.Err() != nil:
		g.mu.Unlock()
		return joinAnswer{err: errStopping}
	default:
		if reason := g.refusal(user != ""); reason != "" {
			g.mu.Unlock()
			g.metrics.turnedAway(reason)
			return joinAnswer{err: errTooManyJoins}
		}
	}
	g.waiting = append(g.waiting, call)
	if !g.running {
		g.running = true
		group.Go(func() { g.send(ctx) })
	}
	g.mu.Unlock()
	return <-call.answer
}

// overloaded tells why a join would be turned away now; empty where it would not.
func (g *gatherer) overloaded(named bool) turnedAwayReason {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.refusal(named)
}

// refusal is what overloaded tells, for those who hold mu. A join that names a user may be that of
// a fan who has a place and comes back for it, so the last quarter of the room is for those, and
// they are turned away for slowness only when it is twice as bad.
func (g *gatherer) refusal(named bool) turnedAwayReason {
	limit, slow := g.limit, 2*g.slow
	if !named {
		limit, slow = limit-limit/4, g.slow
	}
	oldest := g.asking
	if oldest.IsZero() && len(g.waiting) > 0 {
		oldest = g.waiting[0].since
	}
	switch {
	case len(g.waiting) >= limit:
		return turnedAwayFull
	case !oldest.IsZero() && time.Since(oldest) > slow:
		return turnedAwaySlow
	}
	return ""
}

// send works until nobody waits. The first join of a quiet queue goes at once; those that come
// while a batch is under way wait for its answer, and for company until the first of them has
// waited for gatherFor.
func (g *gatherer) send(ctx context.Context) {
	for first := true; ; first = false {
		batch := g.next(ctx, first)
		if batch == nil {
			return
		}
		g.settle(ctx, batch)
	}
}

// settle answers everybody in a batch. The origin refuses a batch as a whole where the queue has come
// to require an identity and somebody in it has none; then the others are asked for alone.
func (g *gatherer) settle(ctx context.Context, batch []*joinCall) {
	g.metrics.joinBatchSize.Observe(float64(len(batch)))
	answers := g.ask(ctx, batch)
	var refusal *wire.Error
	if errors.As(answers[0].err, &refusal) && refusal.Code == wire.CodeIdentity {
		var users []*joinCall
		for i, call := range batch {
			if call.user != "" {
				users = append(users, call)
			} else {
				call.answer <- answers[i]
			}
		}
		if 0 < len(users) && len(users) < len(batch) {
			g.settle(ctx, users)
			return
		}
		batch = users
	}
	for i, call := range batch {
		call.answer <- answers[i]
	}
}

// next takes the joins of the next batch; nil when nobody waits, and the sender is to end. Joins
// that were kept waiting for too long by batches without an outcome are turned away.
func (g *gatherer) next(ctx context.Context, atOnce bool) []*joinCall {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asking = zeroTime
	for len(g.waiting) > 0 && time.Since(g.waiting[0].since) > joinDeadline {
		g.waiting[0].answer <- joinAnswer{err: errOriginAway}
		g.waiting = g.waiting[1:]
	}
	if len(g.waiting) == 0 {
		g.running = false
		return nil
	}
	if wait := gatherFor - time.Since(g.waiting[0].since); wait > 0 && !atOnce && len(g.waiting) < batchSize {
		g.mu.Unlock()
		pause(ctx, wait)
		g.mu.Lock()
	}
	n := min(len(g.waiting), batchSize)
	batch := g.waiting[:n:n]
	g.asking = batch[0].since
	if g.waiting = g.waiting[n:]; len(g.waiting) == 0 {
		g.waiting = nil
	}
	return batch
}

// ask sends one batch under the next number and repeats it under the same number while its outcome is unknown: the
// origin answers a repetition as it answered the first time, so nobody is issued two positions.
func (g *gatherer) ask(ctx context.Context, batch []*joinCall) []joinAnswer {
	g.seq++
	request := wire.JoinRequest{Queue: g.id, Edge: g.edge, Seq: g.seq, Users: make([]string, len(batch))}
	request.Floor, request.FloorOf = g.floor()
	for i, call := range batch {
		request.Users[i] = call.user
	}
	ctx, cancel := context.WithTimeout(ctx, joinDeadline)
	defer cancel()
	answers := make([]joinAnswer, len(batch))
	for wait := leastPause; ; wait = min(2*wait, mostPause) {
		response, err := g.origin.Join(ctx, request)
		if err == nil {
			err = checkJoins(response, len(batch))
		}
		switch {
		case err == nil:
			for i, joined := range response.Joins {
				answers[i] = joinAnswer{joined, response.Incarnation, response.Generation, response.Entry, nil}
			}
			return answers
		case refused(err):
			return failed(answers, err)
		}
		g.metrics.joinRetries.Inc()
		pause(ctx, wait/2+rand.N(wait/2))
		if ctx.Err() != nil {
			return failed(answers, errOriginAway)
		}
	}
}

func failed(answers []joinAnswer, err error) []joinAnswer {
	for i := range answers {
		answers[i].err = err
	}
	return answers
}

// checkJoins wants an answer from which tickets can be signed.
func checkJoins(r wire.JoinResponse, n int) error {
	if len(r.Joins) != n || r.Incarnation == "" || r.Generation == "" {
		return fmt.Errorf("%w: the answer to a batch of joins is incomplete", wire.ErrUnavailable)
	}
	for _, joined := range r.Joins {
		if joined.Position == 0 {
			return fmt.Errorf("%w: a join was answered without a position", wire.ErrUnavailable)
		}
	}
	return nil
}

// refused reports whether the origin decided against a request; anything else leaves the outcome
// unknown.
func refused(err error) bool {
	var refusal *wire.Error
	return errors.As(err, &refusal) && refusal.Code != wire.CodeUnavailable && !errors.Is(err, wire.ErrUnavailable)
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
