package redis_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

// every does something every so often until ctx ends.
func every(ctx context.Context, pause time.Duration, do func()) {
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			do()
		}
	}
}

// refusal is the sentinel that an error is, nil for one that says that the outcome is unknown.
func refusal(err error) error {
	for _, s := range []error{
		store.ErrNotFound, store.ErrExists, store.ErrConflict, store.ErrClosed, store.ErrNotClosed, store.ErrRunning,
		store.ErrNotOffered, store.ErrTaken, store.ErrOut, store.ErrNotIssued, store.ErrLeaseLost, store.ErrLeaseHeld,
		store.ErrNoSession, store.ErrTrimmed, store.ErrRewritten, store.ErrBatchExpired,
	} {
		if errors.Is(err, s) {
			return s
		}
	}
	return nil
}

// insist repeats a call for as long as its outcome is unknown, as edges do. It returns the refusal,
// if it was refused, and false when ctx ended first.
func (c *crowd) insist(ctx context.Context, call func(context.Context) error) (refused error, answered bool) {
	pause := time.NewTicker(20 * time.Millisecond)
	defer pause.Stop()
	for {
		limited, cancel := context.WithTimeout(ctx, 3*time.Second)
		err := call(limited)
		cancel()
		if err == nil {
			return nil, true
		}
		if refused = refusal(err); refused != nil {
			return refused, true
		}
		c.unknown.Add(1)
		select {
		case <-ctx.Done():
			return nil, false
		case <-pause.C:
		}
	}
}

// joinAll is an edge whose fans join, a third of them with user ids that repeat. The edge speaks
// now to the one origin and now to the other, also when it repeats a batch.
func (c *crowd) joinAll(ctx context.Context, n int) {
	random := rand.New(rand.NewPCG(uint64(n), 1))
	edge := fmt.Sprint("edge-", n)
	seq := uint64(0)
	every(ctx, 5*time.Millisecond, func() {
		seq++
		users := make([]store.Key, 1+random.IntN(8))
		for i := range users {
			if random.IntN(3) == 0 {
				users[i] = userKey(int(seq)/2 + random.IntN(crowdUsers))
			}
		}
		c.mu.Lock()
		highest := c.highest
		c.mu.Unlock()
		var got store.JoinResult
		send := func(ctx context.Context) (err error) {
			got, err = c.origins[random.IntN(2)].Join(ctx, store.JoinBatch{
				Queue: c.id, Edge: edge, Seq: seq, Floor: highest, FloorOf: "inc", Users: users, Now: time.Now(),
			})
			return err
		}
		refused, answered := c.insist(ctx, send)
		if !answered {
			return
		}
		if refused != nil || len(got.Joins) != len(users) {
			c.note("a batch of %d joins: %d answers, %v", len(users), len(got.Joins), refused)
			return
		}
		c.done[joins].step()
		c.enter(edge, seq, users, got.Joins, highest)
		if random.IntN(4) == 0 {
			first := got.Joins
			if refused, answered := c.insist(ctx, send); answered && (refused != nil || !reflect.DeepEqual(got.Joins, first)) {
				c.note("batch %d of %s repeated: %v %v, before: %v", seq, edge, got.Joins, refused, first)
			}
		}
	})
}

// coordinate is an origin that ticks whenever it can get the lease.
func (c *crowd) coordinate(ctx context.Context, s store.Store, owner string) {
	const ttl = time.Second
	last := time.Time{}
	every(ctx, 50*time.Millisecond, func() {
		limited, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		now := time.Now()
		epoch, err := s.Acquire(limited, c.id, owner, ttl, now)
		if errors.Is(err, store.ErrLeaseHeld) {
			return
		}
		if c.failed("Acquire", err) {
			return
		}
		look, err := s.Look(limited, c.id, 1000, now)
		if c.failed("Look", err) || look.Epoch != epoch {
			return
		}
		if queue.TurnDue(look, now) {
			_, _, err := s.CloseTurn(limited, c.id, epoch, look.Turn, now)
			c.failed("CloseTurn", err)
			return
		}
		if look.Sessions+look.Offers > crowdCapacity {
			c.note("%d sessions and %d offers run, the capacity is %d", look.Sessions, look.Offers, crowdCapacity)
		}
		if !now.After(last) {
			return
		}
		last = now
		tick, _ := queue.Plan(look, queue.Pace{}, now)
		result, err := s.Commit(limited, c.id, owner, ttl, tick)
		if c.failed("Commit", err) {
			return
		}
		if result.Sessions+result.Offers > crowdCapacity {
			c.note("a tick left %d sessions and %d offers, the capacity is %d", result.Sessions, result.Offers, crowdCapacity)
		}
		c.done[ticks].step()
	})
}

// failed notes an error that no fault excuses, and reports whether there was any.
func (c *crowd) failed(what string, err error) bool {
	if refused := refusal(err); refused != nil && refused != store.ErrLeaseLost {
		c.note("%s: %v", what, err)
	}
	return err != nil
}

// see hands in sightings of some who are in line, and now and then of all, so that they stay present.
func (c *crowd) see(ctx context.Context) {
	calls := 0
	every(ctx, 20*time.Millisecond, func() {
		calls++
		positions := c.inLine(calls%250 == 0)
		refused, answered := c.insist(ctx, func(ctx context.Context) error {
			_, err := c.origins[0].See(ctx, store.SightingBatch{
				Queue: c.id, Incarnation: "inc", Edge: "edge-0", Turn: 1 << 30, // the running one
				Positions: positions, Complete: true, At: time.Now(), Now: time.Now(),
			})
			return err
		})
		if answered && refused == nil {
			c.done[sightings].step()
		} else if answered {
			c.note("See: %v", refused)
		}
	})
}

// shop claims what is offered, again and again, and ends sessions of anonymous fans, so that the
// line moves on.
func (c *crowd) shop(ctx context.Context, s store.Store, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 2))
	attempt := 0
	every(ctx, 10*time.Millisecond, func() {
		position, fan, before := c.pick(random)
		if position == 0 {
			return
		}
		var session queue.Session
		refused, answered := c.insist(ctx, func(ctx context.Context) (err error) {
			attempt++
			session, _, err = s.Claim(ctx, store.Claim{
				Queue: c.id, Incarnation: "inc", Position: position, Subject: fan,
				SessionID: fmt.Sprintf("%s~%d-%d", c.id, seed, attempt), Now: time.Now(),
			})
			return err
		})
		if !answered {
			return
		}
		c.mu.Lock()
		ending := c.ending[position]
		c.mu.Unlock()
		switch {
		case refused != nil && ending && errors.Is(refused, store.ErrOut):
			return
		case c.mayLose && before == "" && errors.Is(refused, store.ErrNotOffered):
			return // the offer was lost; another one will be in the log
		case refused != nil:
			c.note("Claim of position %d, which was offered: %v", position, refused)
			return
		case session.Position != position || before != "" && session.ID != before:
			c.note("Claim of position %d: %+v, the session was %q before", position, session, before)
			return
		}
		c.done[claims].step()
		if !c.enterShop(position, session.ID, random.IntN(4) > 0) {
			return
		}
		refused, answered = c.insist(ctx, func(ctx context.Context) error {
			_, err := s.EndSession(ctx, c.id, session.ID, queue.Ended, queue.ReasonReleased, time.Now())
			return err
		})
		if answered && refused == nil {
			c.done[ends].step()
		} else if answered {
			c.note("EndSession of position %d: %v", position, refused)
		}
	})
}

// read follows the log, as the feed does.
func (c *crowd) read(ctx context.Context) {
	every(ctx, 10*time.Millisecond, func() {
		limited, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		if c.readOn(limited) {
			c.done[reads].step()
		}
	})
}

// readOn reads the next entries of the log, and reports whether there were any. Entries that it has
// may have been lost with a master: then it hands them back, as origins do.
func (c *crowd) readOn(ctx context.Context) bool {
	s := c.origins[1]
	entries, err := s.Entries(ctx, c.id, "inc", c.view.Number, c.view.Chain, 1000)
	if c.mayLose && errors.Is(err, store.ErrRewritten) {
		generation := fmt.Sprint("g", 2+c.rewritten.Load())
		if _, _, err := s.Renew(ctx, c.view, generation, time.Now()); c.failed("Renew", err) {
			return false
		}
		return c.readAnew(ctx)
	}
	if c.mayLose && errors.Is(err, store.ErrTrimmed) {
		// It was handed back, and the answer to that is not known: numbers go on higher up.
		return c.readAnew(ctx)
	}
	if c.failed("Entries", err) || len(entries) == 0 {
		return false
	}
	next, ok := c.view.Apply(entries)
	if !ok {
		c.note("the log goes on with entry %d (%s) after %d", entries[0].Number, entries[0].Kind, c.view.Number)
		return false
	}
	c.view = next
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, entry := range entries {
		if entry.Kind == queue.EntryOffered {
			c.offered = append(c.offered, entry.Positions...)
		}
	}
	return true
}

// readAnew begins with a snapshot.
func (c *crowd) readAnew(ctx context.Context) bool {
	snapshot, err := c.origins[1].Snapshot(ctx, c.id)
	if c.failed("Snapshot", err) {
		return false
	}
	c.view = queue.NewView(snapshot)
	c.rewritten.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, offer := range snapshot.Offers { // some may be there twice, which does no harm
		c.offered = append(c.offered, offer.Position)
	}
	return true
}
