package origin

import (
	"context"
	"errors"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

// longestPause is the longest wait before a store that failed is asked again.
const longestPause = time.Second

// coordinator ticks one queue for as long as it holds the queue's lease. One goroutine owns it.
type coordinator struct {
	*coordinators
	Stepper
	kicks chan struct{}
	entry uint64 // the log's last entry as of the last commit
}

// run takes the lease and ticks until the queue is idle, the lease is another's, the queue is
// gone or ctx ends. It returns the reason, nil for idleness.
func (k *coordinator) run(ctx context.Context) error {
	if err := k.takeUp(ctx); err != nil {
		return k.ended(ctx, err)
	}
	k.metrics.leases.Inc()
	defer k.metrics.leases.Dec()
	k.logger.Debug("coordinating", "queue", k.Queue, "epoch", k.epoch)

	journaling, stop := context.WithCancel(ctx)
	defer stop()
	k.group.Go(func() { k.journal(journaling, k.Queue) })

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
			k.logger.Debug("idle", "queue", k.Queue)
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
	for pause := k.tickEvery; ; pause = min(pause*2, longestPause) {
		now := k.clock.Now()
		err := k.TakeUp(ctx, now)
		if err == nil {
			// The first tick, before the queue can go idle, writes the next reminder.
			if err := k.store.Settle(ctx, k.Queue, now); err != nil {
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

// tick takes one step and tells of what it came to.
func (k *coordinator) tick(ctx context.Context) (idle bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, k.leaseTTL)
	defer cancel()
	step, err := k.Tick(ctx, k.clock.Now())
	k.count(step)
	k.publish(step.Entry)
	return step.Idle, err
}

func (k *coordinator) count(r Step) {
	if r.TurnClosed {
		k.metrics.turns.Inc()
		k.metrics.expired.Add(float64(r.Expired))
	}
	if r.Deleted {
		k.logger.Info("deleted a closed queue after its retention", "queue", k.Queue)
	}
	k.metrics.offers.Add(float64(len(r.Offered)))
	k.metrics.lapses.Add(float64(len(r.Lapsed) + len(r.Missed)))
	k.metrics.sessionEnds.WithLabelValues(queue.ReasonWindow).Add(float64(len(r.Ended)))
}

// publish tells the feed of this origin what a hint from the store would tell it later.
func (k *coordinator) publish(entry uint64) {
	if entry > k.entry {
		k.entry = entry
		k.changed(k.Queue)
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
	if err := k.store.Release(ctx, k.Queue, k.owner, k.epoch); err != nil && !isFinal(err) {
		k.failed("release", err)
	}
}

// ended deals with the errors after which this origin has nothing to do with the queue any more.
func (k *coordinator) ended(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, store.ErrLeaseLost):
		// Lost to another origin or to a store that forgot it; acquiring tells which.
		k.logger.Warn("lost the lease", "queue", k.Queue, "epoch", k.epoch)
		k.Kick(k.Queue)
	case errors.Is(err, store.ErrNotFound):
		if err := k.store.Settle(ctx, k.Queue, k.clock.Now()); err != nil {
			k.failed("settle", err)
		}
	}
	return err
}

func (k *coordinator) failed(what string, err error) {
	k.metrics.storeErrors.WithLabelValues(what).Inc()
	k.logger.Warn("coordinator cannot "+what, "queue", k.Queue, "error", err)
}

// isFinal reports whether trying again is useless.
func isFinal(err error) bool {
	return errors.Is(err, store.ErrLeaseLost) || errors.Is(err, store.ErrLeaseHeld) || errors.Is(err, store.ErrNotFound)
}
