package origin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

const (
	// mostOffers bounds the offers of one tick; where more slots are free the next tick goes on.
	mostOffers = 10_000
	// longestPause is the longest wait before a store that failed is asked again.
	longestPause = time.Second
)

// coordinator ticks one queue for as long as it holds the queue's lease. One goroutine owns it.
type coordinator struct {
	*coordinators
	id    queue.ID
	kicks chan struct{}

	pacing
	epoch uint64
	// reminder is when another origin looks after the queue should this one vanish; zero while
	// none was written.
	reminder time.Time
	entry    uint64 // the log's last entry as of the last commit
}

// run takes the lease and ticks until the queue is idle, the lease is another's, the queue is
// gone or ctx ends. It returns the reason, nil for idleness.
func (k *coordinator) run(ctx context.Context) error {
	if err := k.takeUp(ctx); err != nil {
		return k.ended(ctx, err)
	}
	k.metrics.leases.Inc()
	defer k.metrics.leases.Dec()
	k.logger.Debug("coordinating", "queue", k.id, "epoch", k.epoch)

	next := time.NewTimer(0)
	defer next.Stop()
	for pause := k.tickEvery; ; {
		started := time.Now()
		idle, err := k.tick(ctx)
		k.metrics.tickSeconds.Observe(time.Since(started).Seconds())
		switch {
		case ctx.Err() != nil:
			k.giveUp(ctx)
			return ctx.Err()
		case err != nil && isFinal(err):
			return k.ended(ctx, err)
		case err != nil:
			k.failed("tick", err)
			pause = min(pause*2, longestPause)
		case idle:
			k.logger.Debug("idle", "queue", k.id)
			return nil
		default:
			pause = k.tickEvery
		}
		if !k.wait(ctx, next, started, pause) {
			k.giveUp(ctx)
			return ctx.Err()
		}
	}
}

// wait lasts until the next tick is due; a kick brings it forward, but ticks keep a fifth of
// their usual distance, so that a burst of kicks is one tick. It reports whether to go on.
func (k *coordinator) wait(ctx context.Context, next *time.Timer, started time.Time, pause time.Duration) bool {
	next.Reset(time.Until(started.Add(pause)))
	for {
		select {
		case <-ctx.Done():
			return false
		case <-next.C:
			return true
		case <-k.kicks:
			next.Reset(time.Until(started.Add(pause / 5)))
		}
	}
}

// takeUp acquires the lease. It goes on trying while the store fails.
func (k *coordinator) takeUp(ctx context.Context) error {
	k.reminder = time.Time{}
	for pause := k.tickEvery; ; pause = min(pause*2, longestPause) {
		now := k.clock.Now()
		epoch, err := k.store.Acquire(ctx, k.id, k.owner, k.leaseTTL, now)
		if err == nil {
			k.epoch = epoch
			// From here on this origin looks after the queue; its first tick, before it can
			// go idle, writes the next reminder.
			if err := k.store.Settle(ctx, k.id, now); err != nil {
				k.failed("settle", err)
			}
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if isFinal(err) {
			return err
		}
		k.failed("acquire", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// tick is one step: it closes the turn where that is due, expires, counts, offers, and commits.
func (k *coordinator) tick(ctx context.Context) (idle bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, k.leaseTTL)
	defer cancel()
	now := k.clock.Now()
	look, err := k.look(ctx, now)
	if err != nil {
		return false, err
	}
	// After an interruption the commit below restarts the turn: nobody could be seen meanwhile.
	if now.Sub(look.LastTick) < queue.Interruption && queue.TurnDue(look, now) {
		expired, ack, err := k.store.CloseTurn(ctx, k.id, k.epoch, look.Turn, now)
		if err != nil {
			return false, fmt.Errorf("close turn: %w", err)
		}
		k.metrics.turns.Inc()
		k.metrics.expired.Add(float64(expired))
		k.publish(ack.Entry)
		if look, err = k.look(ctx, now); err != nil {
			return false, err
		}
	}
	// Joins took these slots by themselves since the last tick.
	pace := k.pace.Spend(max(k.granted-look.JoinSlots, 0))
	tick, pace := queue.Plan(look, pace, now)
	if err := k.remind(ctx, look, tick, now); err != nil {
		return false, err
	}
	result, err := k.store.Commit(ctx, k.id, k.owner, k.leaseTTL, tick)
	if err != nil {
		return false, fmt.Errorf("commit tick: %w", err)
	}
	k.pace, k.granted = pace, tick.JoinSlots
	k.count(result)
	k.publish(result.Entry)
	return result.Idle, nil
}

func (k *coordinator) look(ctx context.Context, now time.Time) (queue.Look, error) {
	look, err := k.store.Look(ctx, k.id, mostOffers, now)
	if err != nil {
		return queue.Look{}, fmt.Errorf("look at queue: %w", err)
	}
	if look.Epoch != k.epoch {
		return queue.Look{}, fmt.Errorf("look at queue: %w", store.ErrLeaseLost)
	}
	return look, nil
}

// remind sees to it that somebody looks after the queue whatever happens after this tick: at the
// end of the next session if the queue goes idle, soon after the lease if this origin vanishes.
// A reminder that proves superfluous costs one more tick.
func (k *coordinator) remind(ctx context.Context, look queue.Look, tick queue.Tick, now time.Time) error {
	state := look.Settings.State
	mayIdle := state == queue.Closed || state == queue.Scheduled ||
		look.Waiting == 0 && look.Offers <= len(tick.Lapse)
	if mayIdle {
		if look.NextSessionEnd.IsZero() {
			return nil
		}
		return k.remindAt(ctx, look.NextSessionEnd)
	}
	if k.reminder.Sub(now) > k.leaseTTL {
		return nil
	}
	if !k.reminder.IsZero() {
		if err := k.store.Settle(ctx, k.id, k.reminder); err != nil {
			return fmt.Errorf("settle reminder: %w", err)
		}
	}
	at := now.Add(2 * k.leaseTTL)
	if err := k.remindAt(ctx, at); err != nil {
		return err
	}
	k.reminder = at
	return nil
}

func (k *coordinator) remindAt(ctx context.Context, at time.Time) error {
	if err := k.store.Remind(ctx, k.id, at); err != nil {
		return fmt.Errorf("write reminder: %w", err)
	}
	return nil
}

func (k *coordinator) count(r store.TickResult) {
	k.metrics.offers.Add(float64(len(r.Offered)))
	k.metrics.lapses.Add(float64(len(r.Lapsed) + len(r.Missed)))
	k.metrics.sessionEnds.WithLabelValues(queue.ReasonWindow).Add(float64(len(r.Ended)))
}

// publish tells the feed of this origin what a hint from the store would tell it later.
func (k *coordinator) publish(entry uint64) {
	if entry > k.entry {
		k.entry = entry
		k.changed(k.id)
	}
}

// giveUp releases the lease, so that another origin need not wait for its end.
func (k *coordinator) giveUp(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseWithin)
	defer cancel()
	// The reminder first: whoever finds it then finds the lease free, or a moment later.
	if err := k.remindAt(ctx, k.clock.Now()); err != nil {
		k.failed("release", err)
	}
	if err := k.store.Release(ctx, k.id, k.owner, k.epoch); err != nil && !isFinal(err) {
		k.failed("release", err)
	}
}

// ended deals with the errors after which this origin has nothing to do with the queue any more.
func (k *coordinator) ended(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, store.ErrLeaseLost):
		// Lost to another origin or to a store that forgot it; acquiring tells which.
		k.logger.Warn("lost the lease", "queue", k.id, "epoch", k.epoch)
		k.Kick(k.id)
	case errors.Is(err, store.ErrNotFound):
		if err := k.store.Settle(ctx, k.id, k.clock.Now()); err != nil {
			k.failed("settle", err)
		}
	}
	return err
}

func (k *coordinator) failed(what string, err error) {
	k.metrics.storeErrors.WithLabelValues(what).Inc()
	k.logger.Warn("coordinator cannot "+what, "queue", k.id, "error", err)
}

// isFinal reports whether trying again is useless.
func isFinal(err error) bool {
	return errors.Is(err, store.ErrLeaseLost) || errors.Is(err, store.ErrLeaseHeld) || errors.Is(err, store.ErrNotFound)
}
