package origin

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

const (
	// sweepEvery is how often the schedule is asked which queues are due.
	sweepEvery = time.Second
	// sweepMost is how many due queues one sweep takes up.
	sweepMost = 1000
	// releaseWithin bounds giving up a lease once the origin was told to stop.
	releaseWithin = 2 * time.Second
)

// coordinators runs one coordinator for each queue whose lease this origin holds or tries to get.
type coordinators struct {
	store     store.Store
	clock     *storeClock
	owner     string // names this origin in leases; new at each start
	tickEvery time.Duration
	leaseTTL  time.Duration
	changed   func(queue.ID) // tells that a queue's log has grown
	view      func(queue.ID) *queue.View
	// journal keeps a queue's journal until ctx ends, and a moment longer.
	journal func(ctx context.Context, id queue.ID)
	metrics *metrics
	logger  *slog.Logger

	group sync.WaitGroup // the coordinators that run, and the journals that are kept beside them

	mu      sync.Mutex
	ctx     context.Context              // guarded by mu; nil before begin, and after Run
	running map[queue.ID]chan<- struct{} // guarded by mu; a send makes the queue's coordinator tick at once
	paces   map[queue.ID]pacing          // guarded by mu; what outlives idleness
}

// begin lets Wake start coordinators from now on; Run, with the same ctx, is to follow. Whoever is
// told that this origin is ready may rely on it: a call that came before Run would be lost.
func (c *coordinators) begin(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ctx = ctx
	c.running = make(map[queue.ID]chan<- struct{})
	c.paces = make(map[queue.ID]pacing)
}

// Run takes up the queues that are due, and those that Wake names, until ctx ends; then it gives
// up the leases and returns.
func (c *coordinators) Run(ctx context.Context) error {
	defer func() {
		c.mu.Lock()
		c.ctx = nil // none starts from here on
		c.mu.Unlock()
		c.group.Wait()
	}()

	every := time.NewTicker(sweepEvery)
	defer every.Stop()
	for {
		due, err := c.store.Due(ctx, c.clock.Now(), sweepMost)
		if err != nil && ctx.Err() == nil {
			c.metrics.storeErrors.WithLabelValues("due").Inc()
			c.logger.Warn("cannot read the schedule", "error", err)
		}
		for _, id := range due {
			c.Wake(id)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
		}
	}
}

// Wake has the queue's coordinator tick at once, and starts it where it does not run.
func (c *coordinators) Wake(id queue.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx == nil || c.kickLocked(id) {
		return
	}
	kicks := make(chan struct{}, 1)
	c.running[id] = kicks
	ctx := c.ctx
	c.group.Go(func() { c.keep(ctx, id, kicks) })
}

// Kick has the queue's coordinator tick at once if it runs here.
func (c *coordinators) Kick(id queue.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kickLocked(id)
}

// Forget drops what is remembered of a queue that is gone.
func (c *coordinators) Forget(id queue.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.paces, id)
}

func (c *coordinators) kickLocked(id queue.ID) bool {
	kicks, runs := c.running[id]
	if runs {
		select {
		case kicks <- struct{}{}:
		default: // one is waiting already
		}
	}
	return runs
}

// keep coordinates until nothing calls for it any more. A kick that comes while the coordinator
// is about to stop makes it start again, so that none is lost.
func (c *coordinators) keep(ctx context.Context, id queue.ID, kicks chan struct{}) {
	k := &coordinator{
		coordinators: c, kicks: kicks,
		Stepper: Stepper{Store: c.store, Queue: id, Owner: c.owner, LeaseTTL: c.leaseTTL, View: func() *queue.View { return c.view(id) }},
	}
	for {
		c.guard(ctx, k)
		c.mu.Lock()
		select {
		case <-kicks:
			if ctx.Err() == nil {
				c.mu.Unlock()
				continue
			}
		default:
		}
		delete(c.running, id)
		c.mu.Unlock()
		return
	}
}

// guard keeps a bug that one queue brings to light from ending the others.
func (c *coordinators) guard(ctx context.Context, k *coordinator) {
	defer func() {
		if p := recover(); p != nil {
			c.metrics.panics.Inc()
			c.logger.Error("coordinator panicked", "queue", k.Queue, "panic", p, "stack", string(debug.Stack()))
		}
	}()
	c.mu.Lock()
	k.pacing = c.paces[k.Queue]
	c.mu.Unlock()

	err := k.run(ctx)

	c.mu.Lock()
	defer c.mu.Unlock()
	if errors.Is(err, store.ErrNotFound) {
		delete(c.paces, k.Queue)
	} else {
		c.paces[k.Queue] = k.pacing
	}
}
