package origin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

// mostOffers bounds the offers of one tick; where more slots are free the next tick goes on.
const mostOffers = 10_000

// Stepper takes the steps of one queue's coordinator: it acquires the lease, ticks, and remembers
// what has to be remembered between two ticks. It has no goroutine and no clock: whoever owns it
// says when a step is taken and what time it is, so that a simulation takes the very same steps.
type Stepper struct {
	Store    store.Store
	Queue    queue.ID
	Owner    string // names the origin in leases
	LeaseTTL time.Duration
	// View returns the queue as this origin last read its log, nil before it has. Waits are estimated
	// from it; without it they are not.
	View func() *queue.View

	pacing
	epoch uint64
	// reminder is when another origin looks after the queue should this one vanish; zero while
	// none was written.
	reminder  time.Time
	estimator queue.Estimator
}

// pacing is what a coordinator has to remember of a queue between two ticks.
type pacing struct {
	pace queue.Pace
	// admitted is the total of the offers that the pace knows of, granted how many more joins could
	// make by themselves since.
	admitted uint64
	granted  int
}

// Step is what one tick came to. Also a tick that failed can have closed a turn.
type Step struct {
	store.TickResult // Entry is the last one that the step knows of
	TurnClosed       bool
	Expired          int // fans whom the closing of the turn expired
	// Deleted says that the queue's data had been kept for long enough and is gone.
	Deleted bool
}

// TakeUp acquires the lease, once. From here on this origin looks after the queue.
func (s *Stepper) TakeUp(ctx context.Context, now time.Time) error {
	s.reminder = time.Time{}
	epoch, err := s.Store.Acquire(ctx, s.Queue, s.Owner, s.LeaseTTL, now)
	if err != nil {
		return fmt.Errorf("acquire lease: %w", err)
	}
	s.epoch = epoch
	return nil
}

// Tick opens and reopens the queue and closes the turn where that is due, expires, counts, offers,
// and commits. It deletes a closed queue whose retention is over, with store.ErrNotFound.
func (s *Stepper) Tick(ctx context.Context, now time.Time) (step Step, err error) {
	look, err := s.look(ctx, now)
	if err != nil {
		return step, err
	}
	// Another origin's clock may be ahead, where the store's was set and this one has not measured since:
	// then the queue's time has leapt, and that is an interruption.
	now = look.Now
	if look.Settings.Over(now) && look.Sessions == 0 {
		return s.delete(ctx, look)
	}
	if next, due := look.Settings.At(now); due {
		_, ack, err := s.Store.Update(ctx, s.Queue, look.Version, next, now)
		if err != nil && !errors.Is(err, store.ErrConflict) {
			return step, fmt.Errorf("change state: %w", err)
		}
		// Somebody who changed the settings meanwhile decided by the same time.
		step.Entry = ack.Entry
		if look, err = s.look(ctx, now); err != nil {
			return step, err
		}
	}
	// After an interruption the commit below restarts the turn: nobody could be seen meanwhile.
	if now.Sub(look.LastTick) < queue.Interruption && queue.TurnDue(look, now) {
		expired, ack, err := s.Store.CloseTurn(ctx, s.Queue, s.epoch, look.Turn, now)
		if err != nil {
			return step, fmt.Errorf("close turn: %w", err)
		}
		step.TurnClosed, step.Expired, step.Entry = true, expired, max(step.Entry, ack.Entry)
		if look, err = s.look(ctx, now); err != nil {
			return step, err
		}
	}
	// Joins took these slots by themselves since the last look. What others offered before this
	// origin took the queue up is not among them.
	taken := min(max(look.Admitted, s.admitted)-s.admitted, uint64(s.granted))
	pace := s.pace.Spend(int(taken))
	tick, pace := queue.Plan(look, pace, now)
	tick.Estimate = s.estimate(look, now)
	if err := s.remind(ctx, look, tick, now); err != nil {
		return step, err
	}
	result, err := s.Store.Commit(ctx, s.Queue, s.Owner, s.LeaseTTL, tick)
	if err != nil {
		return step, fmt.Errorf("commit tick: %w", err)
	}
	// Joins can have taken slots also between the look and the commit.
	s.pace, s.granted = pace, look.JoinSlots+tick.JoinSlots
	s.admitted = look.Admitted + uint64(len(result.Offered))
	step.TickResult = result
	return step, nil
}

// estimate is what fans are told of their wait from now on, nil while nothing new can be said.
func (s *Stepper) estimate(look queue.Look, now time.Time) *queue.Estimate {
	if s.View == nil {
		return nil
	}
	view := s.View()
	if view == nil || !s.estimator.Due(view, now) {
		return nil
	}
	return s.estimator.Observe(view, look.Present, now)
}

func (s *Stepper) look(ctx context.Context, now time.Time) (queue.Look, error) {
	look, err := s.Store.Look(ctx, s.Queue, mostOffers, now)
	if err != nil {
		return queue.Look{}, fmt.Errorf("look at queue: %w", err)
	}
	if look.Epoch != s.epoch {
		return queue.Look{}, fmt.Errorf("look at queue: %w", store.ErrLeaseLost)
	}
	return look, nil
}

func (s *Stepper) delete(ctx context.Context, look queue.Look) (Step, error) {
	if err := s.Store.Delete(ctx, s.Queue, look.Incarnation); err != nil {
		return Step{}, fmt.Errorf("delete queue: %w", err)
	}
	return Step{Deleted: true}, fmt.Errorf("deleted after its retention: %w", store.ErrNotFound)
}

// remind sees to it that somebody looks after the queue whatever happens after this tick: if the
// queue goes idle, when something falls due by time alone; soon after the lease if this origin
// vanishes. A reminder that proves superfluous costs one more tick.
func (s *Stepper) remind(ctx context.Context, look queue.Look, tick queue.Tick, now time.Time) error {
	mayIdle := look.Settings.State == queue.Closed || look.Settings.Asleep(now) ||
		look.Waiting == 0 && look.Offers <= len(tick.Lapse)
	if mayIdle {
		at := look.NextDue(now)
		if at.IsZero() {
			return nil
		}
		return s.remindAt(ctx, at)
	}
	if s.reminder.Sub(now) > s.LeaseTTL {
		return nil
	}
	if !s.reminder.IsZero() {
		if err := s.Store.Settle(ctx, s.Queue, s.reminder); err != nil {
			return fmt.Errorf("settle reminder: %w", err)
		}
	}
	at := now.Add(2 * s.LeaseTTL)
	if err := s.remindAt(ctx, at); err != nil {
		return err
	}
	s.reminder = at
	return nil
}

func (s *Stepper) remindAt(ctx context.Context, at time.Time) error {
	if err := s.Store.Remind(ctx, s.Queue, at); err != nil {
		return fmt.Errorf("write reminder: %w", err)
	}
	return nil
}
