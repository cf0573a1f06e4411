package redis_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
	"waitingroom/origin/store/redis"
)

// goesOnWithin bounds how long everything may stand still after a fault, on a busy machine.
const goesOnWithin = 30 * time.Second

// kinds of what a crowd does.
const (
	joins = iota
	sightings
	ticks
	claims
	ends
	reads
	kinds
)

var kindNames = [kinds]string{"joins", "sightings", "ticks", "claims", "ends", "reads"}

// crowd does to one queue what two origins and their edges do, all at once and without a pause,
// and keeps its own book of what it was answered. What no fault excuses is noted as wrong.
type crowd struct {
	t       *testing.T
	id      queue.ID
	origins [2]store.Store
	stop    context.CancelFunc
	work    sync.WaitGroup
	view    *queue.View // by the log; the reader's alone

	done [kinds]progress
	// mayLose says that entries of the log that were never acknowledged may get lost, although
	// somebody has read them; rewritten counts how often the reader was told so.
	mayLose   bool
	rewritten atomic.Int64
	// unknown counts the calls whose outcome nobody could tell.
	unknown atomic.Int64

	mu       sync.Mutex
	places   map[store.Key]uint64 // of users
	fans     map[uint64]store.Key // by position; what they claim with
	highest  uint64               // position that was answered
	offered  []uint64             // positions that the log says were offered, and nobody claimed yet
	sessions map[uint64]string    // ids
	held     []uint64             // positions of sessions
	ending   map[uint64]bool      // whose session's end was asked for
	retired  map[store.Key]bool   // users whose session's end was asked for
	wrongs   []string
}

// progress counts what succeeded, and the longest time during which nothing did.
type progress struct {
	count   atomic.Int64
	last    atomic.Int64 // nanoseconds since 1970
	longest atomic.Int64 // nanoseconds
}

func (p *progress) step() {
	now := time.Now().UnixNano()
	if before := p.last.Swap(now); before != 0 {
		p.longest.Store(max(p.longest.Load(), now-before))
	}
	p.count.Add(1)
}

const (
	// crowdUsers is how many users join at a time; after a while others do.
	crowdUsers    = 200
	crowdCapacity = 30
	crowdEdges    = 4
)

// startCrowd makes a queue and sets a crowd on it, until end is called. config says where Redis is.
// See crowd.mayLose.
func startCrowd(t *testing.T, config redis.Config, id queue.ID, mayLose bool) *crowd {
	t.Helper()
	c := &crowd{
		t: t, id: id, mayLose: mayLose, places: make(map[store.Key]uint64), fans: make(map[uint64]store.Key),
		sessions: make(map[uint64]string), ending: make(map[uint64]bool), retired: make(map[store.Key]bool),
	}
	settings := queue.DefaultSettings()
	settings.Capacity = crowdCapacity
	settings.ClaimSeconds = 3600 // nobody misses an offer
	config.Timeout = 2 * time.Second
	config.LogEntries = 1_000_000 // the whole log is checked in the end
	for i := range c.origins {
		c.origins[i] = openWith(t, config)
	}
	if _, _, err := c.origins[0].Create(t.Context(), id, "inc", "g1", settings, time.Now()); err != nil {
		t.Fatalf("Create: %v", err)
	}
	empty, err := c.origins[0].Snapshot(t.Context(), id)
	if err != nil {
		t.Fatalf("Snapshot: %v", err)
	}
	c.view = queue.NewView(empty)
	ctx, stop := context.WithCancel(t.Context())
	c.stop = stop
	t.Cleanup(func() {
		c.stop()
		c.work.Wait()
	})
	for n := range crowdEdges {
		c.work.Go(func() { c.joinAll(ctx, n) })
	}
	for n, origin := range c.origins {
		c.work.Go(func() { c.coordinate(ctx, origin, fmt.Sprint("origin-", n)) })
		c.work.Go(func() { c.shop(ctx, origin, uint64(n)) })
	}
	c.work.Go(func() { c.see(ctx) })
	c.work.Go(func() { c.read(ctx) })
	c.goesOn("at first")
	return c
}

// goesOn waits until everything that the crowd does has succeeded again several times, and tells
// for how long it stood still since the last call.
func (c *crowd) goesOn(after string) {
	c.t.Helper()
	var before [kinds]int64
	for i := range before {
		before[i] = c.done[i].count.Load()
	}
	for i := range before {
		c.wait(after+": "+kindNames[i], func() bool { return c.done[i].count.Load() >= before[i]+10 })
	}
	text := after + ": the longest pause was"
	for i := range c.done {
		longest := time.Duration(c.done[i].longest.Swap(0))
		text += fmt.Sprintf(" %v of %s,", longest.Round(time.Millisecond), kindNames[i])
	}
	c.t.Log(text[:len(text)-1])
}

// joinsOn waits until some more batches of joins were answered.
func (c *crowd) joinsOn(batches int) {
	c.t.Helper()
	want := c.done[joins].count.Load() + int64(batches)
	c.wait("joins", func() bool { return c.done[joins].count.Load() >= want })
}

// feels waits until the crowd has met a fault: until the outcome of several calls was unknown.
func (c *crowd) feels(fault string) {
	c.t.Helper()
	before := c.unknown.Load()
	c.wait("notice that "+fault, func() bool { return c.unknown.Load() >= before+3 })
}

// wait waits for what the crowd does.
func (c *crowd) wait(what string, holds func() bool) {
	c.t.Helper()
	limit := time.NewTimer(goesOnWithin)
	defer limit.Stop()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for !holds() {
		select {
		case <-again.C:
		case <-limit.C:
			c.mu.Lock()
			defer c.mu.Unlock()
			c.t.Fatalf("not within %v: %s; %d answers are wrong so far: %.2000q", goesOnWithin, what, len(c.wrongs), c.wrongs)
		}
	}
}
