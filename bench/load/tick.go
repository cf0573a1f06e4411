package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
	"waitingroom/origin/store/redis"
)

const (
	tickEvery = 250 * time.Millisecond
	// changingHands is how many slots are freed before each tick: 6,000 fans a minute are let in.
	changingHands = 25
	tickCapacity  = 5000
	mostOffers    = 10_000 // of one tick, as the coordinator asks for
)

// ticker ticks a crowd's queue as its coordinator does: look, plan, commit.
type ticker struct {
	*crowd
	pace    queue.Pace
	granted int
	// sessions run; starting from the front they are ended.
	sessions []string
	named    int
}

// runTick ticks while slots change hands, then closes turns, then takes the queue over.
func runTick(ctx context.Context, l *lab) (measured, error) {
	c, err := newCrowd(ctx, l, min(tickCapacity, l.sizes.storeFans/2))
	if err != nil {
		return measured{}, err
	}
	defer c.close()
	l.progress(fmt.Sprintf("joining %d fans", l.sizes.storeFans))
	if err := c.join(l.sizes.storeFans, false); err != nil {
		return measured{}, err
	}
	if err := c.passHold(l); err != nil {
		return measured{}, err
	}
	t := &ticker{crowd: c}
	took, most, err := t.tickMany(l)
	if err != nil {
		return measured{}, err
	}
	l.progress("closing turns")
	closing, err := t.closeMany(l.sizes.turns)
	if err != nil {
		return measured{}, err
	}
	l.progress("taking over")
	taking, err := t.takeOverMany(l.sizes.turns)
	if err != nil {
		return measured{}, err
	}
	return measured{values: []float64{
		milliseconds(percentile(took, 99)), float64(most) / 1024,
		milliseconds(slices.Max(closing)), milliseconds(slices.Max(taking)),
	}}, nil
}

// tickMany returns how long each tick took and the most bytes that one read.
func (t *ticker) tickMany(l *lab) (took []time.Duration, most int64, err error) {
	if _, _, err := t.tick(); err != nil { // fills the shop, and is not like the others
		return nil, 0, err
	}
	turnEnds := t.now.Add(queue.DefaultSettings().TurnLength())
	for i := range l.sizes.ticks {
		if i%100 == 0 {
			l.progress(fmt.Sprintf("tick %d of %d", i, l.sizes.ticks))
		}
		if err := t.free(); err != nil {
			return nil, 0, err
		}
		t.now = t.now.Add(tickEvery)
		if !t.now.Before(turnEnds) {
			if err := t.see(); err != nil {
				return nil, 0, err
			}
			if _, _, err := t.store.CloseTurn(t.ctx, crowdQueue, t.epoch, t.turn, t.now); err != nil {
				return nil, 0, fmt.Errorf("close turn: %w", err)
			}
			t.turn++
			turnEnds = t.now.Add(queue.DefaultSettings().TurnLength())
		}
		asking, err := t.sentSince(0)
		if err != nil {
			return nil, 0, err
		}
		before, err := t.sentSince(asking) // all of it is the answer to the question before
		if err != nil {
			return nil, 0, err
		}
		one, offered, err := t.tick()
		if err != nil {
			return nil, 0, err
		}
		if offered != changingHands {
			return nil, 0, fmt.Errorf("tick: %d offers for %d free slots", offered, changingHands)
		}
		after, err := t.sentSince(asking + before)
		if err != nil {
			return nil, 0, err
		}
		took, most = append(took, one), max(most, after-before)
	}
	return took, most, nil
}

// sentSince is how many bytes Redis has sent beyond a number that it told before.
func (t *ticker) sentSince(n int64) (int64, error) {
	sent, err := info(t.ctx, t.client, "stats", "total_net_output_bytes")
	return sent - n, err
}

// tick is one step of the coordinator, and then the fans claim, which is not timed.
func (t *ticker) tick() (took time.Duration, offered int, err error) {
	begin := time.Now()
	look, err := t.store.Look(t.ctx, crowdQueue, mostOffers, t.now)
	if err != nil {
		return 0, 0, fmt.Errorf("look: %w", err)
	}
	pace := t.pace.Spend(max(t.granted-look.JoinSlots, 0))
	plan, pace := queue.Plan(look, pace, t.now)
	result, err := t.store.Commit(t.ctx, crowdQueue, crowdOwner, crowdLease, plan)
	if err != nil {
		return 0, 0, fmt.Errorf("commit: %w", err)
	}
	took = time.Since(begin)
	t.pace, t.granted = pace, plan.JoinSlots
	for _, position := range result.Offered {
		t.named++
		session := fmt.Sprintf("%s~%d", crowdQueue, t.named)
		if _, _, err := t.store.Claim(t.ctx, store.Claim{
			Queue: crowdQueue, Incarnation: crowdIncarnation, Position: position,
			Subject: userKey(int(position)), SessionID: session, Now: t.now,
		}); err != nil {
			return 0, 0, fmt.Errorf("claim: %w", err)
		}
		t.sessions = append(t.sessions, session)
	}
	return took, len(result.Offered), nil
}

// free ends the oldest sessions.
func (t *ticker) free() error {
	n := min(changingHands, len(t.sessions))
	for _, session := range t.sessions[:n] {
		if _, err := t.store.EndSession(t.ctx, crowdQueue, session, queue.Ended, queue.ReasonReleased, t.now); err != nil {
			return fmt.Errorf("end session: %w", err)
		}
	}
	t.sessions = t.sessions[n:]
	return nil
}

// closeMany closes turns with everybody present.
func (t *ticker) closeMany(n int) ([]time.Duration, error) {
	list := make([]time.Duration, n)
	for i := range list {
		if err := t.see(); err != nil {
			return nil, err
		}
		var err error
		if list[i], err = t.closeTurn(); err != nil {
			return nil, err
		}
	}
	return list, nil
}

var errNotTaken = errors.New("take over: the queue is not as it was")

// takeOverMany lets one origin after the other take the queue over: each knows nothing of it
// before, takes the lease, builds its view and looks for the first time.
func (t *ticker) takeOverMany(n int) ([]time.Duration, error) {
	list := make([]time.Duration, n)
	owner := crowdOwner
	for i := range list {
		fresh, err := redis.Open(redis.Config{Addresses: []string{t.address}})
		if err != nil {
			return nil, err
		}
		if _, err := fresh.Now(t.ctx); err != nil { // an origin that runs is connected
			return nil, err
		}
		if err := t.store.Release(t.ctx, crowdQueue, owner, t.epoch); err != nil {
			return nil, fmt.Errorf("release: %w", err)
		}
		owner = fmt.Sprintf("owner %d", i)
		begin := time.Now()
		if t.epoch, err = fresh.Acquire(t.ctx, crowdQueue, owner, crowdLease, t.now); err != nil {
			return nil, fmt.Errorf("acquire: %w", err)
		}
		snapshot, err := fresh.Snapshot(t.ctx, crowdQueue)
		if err != nil {
			return nil, fmt.Errorf("read snapshot: %w", err)
		}
		view := queue.NewView(snapshot)
		if _, err := fresh.Look(t.ctx, crowdQueue, mostOffers, t.now); err != nil {
			return nil, fmt.Errorf("look: %w", err)
		}
		list[i] = time.Since(begin)
		_ = fresh.Close()
		if view.Issued != uint64(t.size) {
			return nil, errNotTaken
		}
	}
	return list, nil
}
