package main

import (
	"errors"
	"time"

	"waitingroom/origin"
	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

const (
	tickEvery    = 250
	leaseTTL     = 3 * time.Second
	longestPause = 1000
	sweepEvery   = 1000
	sweepMost    = 1000
)

// originNode is the model of an origin: it keeps the time for the coordinator's steps as
// origin/coordinator.go does, and takes them by the origin's own Stepper.
type originNode struct {
	*world
	link    *link
	stepper *origin.Stepper
	runs    bool // it coordinates, or tries to
	leads   bool // it holds the lease, as far as it knows
	busy    bool // a step is under way
	started int32
	next    int32
	pause   int32
}

func newOrigin(w *world, number int) *originNode {
	l := &link{Store: w.store, world: w}
	return &originNode{world: w, link: l, pause: tickEvery, stepper: &origin.Stepper{
		Store: l, Queue: w.queue, Owner: []string{"origin-a", "origin-b"}[number], LeaseTTL: leaseTTL,
		View: func() *queue.View { return w.feed.view },
	}}
}

// acted does what the origin does after a change: where no lease is live it takes the queue up.
func (o *originNode) acted(ack store.Ack) {
	if ack.Leaderless {
		o.wake()
	}
}

func (o *originNode) wake() {
	if o.kick() {
		return
	}
	o.runs, o.leads, o.next, o.pause = true, false, o.now, tickEvery
}

// kick brings the next tick forward, if the origin coordinates.
func (o *originNode) kick() bool {
	if o.runs {
		o.next = min(o.next, max(o.now, o.started+tickEvery/5))
	}
	return o.runs
}

// coordinate takes the step that is due.
func (o *originNode) coordinate() {
	if !o.runs || o.busy || o.now < o.next {
		return
	}
	o.busy = true
	defer func() { o.busy = false }()
	o.started = o.now
	now := timeAt(o.now)
	if !o.leads {
		switch err := o.stepper.TakeUp(o.ctx, now); {
		case errors.Is(err, store.ErrLeaseHeld):
			o.runs = false
			return
		case err != nil:
			o.retry()
			return
		}
		o.leads = true
		_ = o.link.Settle(o.ctx, o.queue, now)
	}
	step, err := o.stepper.Tick(o.ctx, now)
	o.ticks++
	switch {
	case errors.Is(err, store.ErrLeaseLost):
		o.leads, o.next = false, o.now
	case err != nil:
		o.retry()
	case step.Idle:
		o.runs, o.leads = false, false
	default:
		o.pause = tickEvery
		o.next = o.started + o.pause
	}
}

func (o *originNode) retry() {
	o.next = o.started + o.pause
	o.pause = min(2*o.pause, longestPause)
}

// sweep takes up the queue when its reminder is due.
func (o *originNode) sweep() {
	due, err := o.link.Due(o.ctx, timeAt(o.now), sweepMost)
	if err == nil && len(due) > 0 {
		o.wake()
	}
}
