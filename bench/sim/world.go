package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
	"waitingroom/origin/store/memory"
)

// world is one simulation: everything in it happens in virtual time, on one goroutine, and in an
// order that the seed determines.
type world struct {
	*rand.Rand
	ctx   context.Context
	about plan

	abandoning float64
	purchase   time.Duration

	queue       queue.ID
	incarnation string
	memory      *memory.Store
	store       store.Store // what the links go to: the memory store
	books       *books
	feed        feed
	origins     []*originNode
	edges       []*edge
	wheel       wheel
	quality     *quality

	now      int32
	time     time.Time
	coming   []int32 // when fans arrive, in order
	arrived  uint32
	tickets  []ticket
	holder   []uint32 // the ticket of a position
	notedAt  []int32  // when the sighting of a position that is forwarded next was made
	mishaps  []mishap // in order of time
	patches  []change // what the operator does, likewise: merge patches
	shop     shop
	away     bool // the store cannot be reached
	stalls   bool // the next commit comes too late
	flushed  bool // what happens in this frame has happened
	minutes  int32
	events   uint64
	polls    uint64
	joins    uint64
	ticks    uint64
	failed   error
	progress func(*world)
}

func newWorld(ctx context.Context, p plan) (*world, error) {
	w := &world{
		Rand: rand.New(rand.NewPCG(p.seed, 0x51)), ctx: ctx, about: p,
		abandoning: losePatience, purchase: purchases,
		queue: "demo.final", incarnation: "simulated", memory: &memory.Store{LogEntries: 10_000},
		quality: newQuality(p),
		time:    began, progress: func(*world) {},
		tickets: make([]ticket, 0, p.fans+p.fans/8),
	}
	settings, err := w.settings()
	if err != nil {
		return nil, fmt.Errorf("make settings: %w", err)
	}
	w.books = newBooks(settings)
	w.store = w.memory
	w.memory.Clock = func() time.Time { return w.time }
	if _, _, err := w.memory.Create(ctx, w.queue, w.incarnation, "g1", settings, began); err != nil {
		return nil, fmt.Errorf("create queue: %w", err)
	}
	snapshot, err := w.memory.Snapshot(ctx, w.queue)
	if err != nil {
		return nil, fmt.Errorf("read queue: %w", err)
	}
	w.feed.view = queue.NewView(snapshot)
	w.books.onOffer = func(position uint64) { w.quality.offered(w, position) }
	for n := range 2 {
		w.origins = append(w.origins, newOrigin(w, n))
	}
	for n, lag := range []int32{0, 100, 200, 3000} {
		w.edges = append(w.edges, newEdge(w, n, lag))
	}
	w.coming = w.arrivals()
	w.script()
	return w, nil
}

func (w *world) has(e element) bool { return w.about.has(e) }

// run simulates until everybody has a fate. The error is a *breach when an invariant was broken.
func (w *world) run() error {
	for !w.over() {
		w.step()
		if err := w.trouble(); err != nil {
			return err
		}
	}
	return w.end()
}

// trouble is why the simulation cannot go on.
func (w *world) trouble() error {
	switch {
	case w.books.broken != nil:
		return w.books.broken
	case w.failed != nil:
		return w.failed
	case w.ctx.Err() != nil:
		return w.ctx.Err()
	case w.now > longest:
		return errors.New("the simulation does not end")
	}
	return nil
}

// over reports whether nobody comes any more and everybody in line has a fate.
func (w *world) over() bool {
	t := &w.books.tally
	return int(w.arrived) == len(w.coming) && len(w.mishaps)+len(w.patches) == 0 && w.wheel.planned == 0 &&
		t[isWaiting]+t[isOffered]+t[isActive] == 0
}

// step is one frame.
func (w *world) step() {
	w.now += frame
	w.time = timeAt(w.now)
	w.flushed = false
	for len(w.mishaps) > 0 && w.mishaps[0].at <= w.now {
		w.mishaps[0].do(w)
		w.mishaps = w.mishaps[1:]
	}
	for int(w.arrived) < len(w.coming) && w.coming[w.arrived] <= w.now {
		w.arrive(w.coming[w.arrived])
	}
	for _, e := range w.wheel.take(w.now) {
		switch e.kind() {
		case eventWake:
			w.wake(e.ticket())
		case eventClaim:
			w.claim(e.ticket())
		case eventRelease:
			w.release(e.ticket())
		}
	}
	// Half of the time what edges send arrives before the tick, else within it.
	if w.chance(0.5) {
		w.flush()
	}
	for _, o := range w.origins {
		o.coordinate()
	}
	w.flush()
	if w.now%readLogEvery == 0 {
		w.show()
	}
	if w.has(soldout) && w.now%second == 0 {
		w.reportRemaining()
	}
	if w.now%sweepEvery == 0 {
		for _, o := range w.origins {
			if !o.busy {
				o.sweep()
			}
		}
	}
	if m := w.now / minute; m > w.minutes {
		w.minutes = m
		w.show()
		w.audit()
		w.progress(w)
	}
}

// flush sends what edges have gathered in this frame, and what the operator does.
func (w *world) flush() {
	if w.flushed {
		return
	}
	w.flushed = true
	for _, e := range w.edges {
		e.sendJoins()
		if w.now >= e.next {
			e.handIn()
		}
	}
	w.retune(patience)
}

// meanwhile is what happens between a tick's look and its commit. The operator likes to retune
// when the tick is about to make offers.
func (w *world) meanwhile(offers int) {
	w.flush()
	if offers > 0 {
		w.retune(0)
	}
	if !w.stalls {
		return
	}
	w.stalls = false
	for until := w.now + stallFor; w.now < until && w.trouble() == nil; {
		w.step()
	}
}

// show has the edges read the log.
func (w *world) show() {
	if err := w.readLog(); err != nil {
		w.failed = err
		return
	}
	for _, e := range w.edges {
		e.follow()
	}
	w.feed.forget(w.edges)
}

// end closes the queue and judges it for the last time.
func (w *world) end() error {
	if !w.patch(`{"state": "closed"}`) {
		return fmt.Errorf("close queue: %w", cmp.Or(w.failed, errAway))
	}
	w.show()
	w.audit()
	return w.trouble()
}
