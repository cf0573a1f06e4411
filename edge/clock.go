package edge

import (
	"sync/atomic"
	"time"
)

const (
	// staleAfter is how long after the last word from an origin that reaches its store the state
	// counts as stale: a few heartbeats.
	staleAfter = 5 * time.Second
	// clockStep is a difference beyond which the clock jumps back; smaller ones are slewed away, so
	// that the times that fans are told do not jitter with the network.
	clockStep = 2 * time.Second
	clockSlew = 5 * time.Millisecond
	// stepBackAfter is for how long nothing else must have been heard before the clock jumps back.
	// When this edge or its origin was stopped for a while, what is heard at first is as old as that.
	stepBackAfter = 2 * staleAfter
)

// clock tells the store's time: what the last heartbeats said plus the progress of this
// machine's monotonic clock. The wall clock is never asked. Readers take one atomic load.
type clock struct {
	// start anchors monotonic readings.
	start time.Time
	// offset is store time at start, in nanoseconds since 1970; 0 before the first heartbeat.
	offset atomic.Int64
	// ready is when the last heartbeat came from an origin that reaches its store, as progress
	// since start in nanoseconds; 0 before the first.
	ready atomic.Int64

	// behind is since when all that is heard lies more than clockStep below, as progress since
	// start; 0 while it does not. The heartbeats' goroutine owns it.
	behind time.Duration
}

func newClock() *clock { return &clock{start: time.Now()} }

// heartbeat takes in what an origin says the store's time is. One goroutine calls it.
func (c *clock) heartbeat(now time.Time, ready bool) {
	progress := time.Since(c.start)
	offset, heard := c.offset.Load(), now.UnixNano()-int64(progress)
	switch {
	case offset == 0 || heard-offset >= -int64(clockStep):
		c.behind = 0
		c.offset.Store(steer(offset, heard))
	case c.behind == 0:
		c.behind = progress
	case progress-c.behind >= stepBackAfter:
		c.behind = 0
		c.offset.Store(heard)
	}
	if ready {
		c.ready.Store(max(int64(progress), 1))
	}
}

// steer moves an offset towards what was heard. Messages are only ever late, so an offset that
// is heard to be higher is the better one and is taken at once; lower ones pull slowly.
func steer(offset, heard int64) int64 {
	difference := heard - offset
	if offset == 0 || difference > 0 {
		return heard
	}
	return offset + max(difference, -int64(clockSlew))
}

// reading is one look at the clock: a poll needs all of it, and looks once.
type reading struct {
	now   time.Time // the store's time, with the precision of the domain
	own   time.Time // this machine's, with its monotonic reading
	stale bool
}

func (c *clock) read() reading {
	own := time.Now()
	progress, ready := own.Sub(c.start), c.ready.Load()
	return reading{
		now:   time.Unix(0, c.offset.Load()+int64(progress)).UTC().Truncate(time.Millisecond),
		own:   own,
		stale: ready == 0 || progress-time.Duration(ready) > staleAfter,
	}
}

// now is the store's time with the precision of the domain. It makes sense only once known.
func (c *clock) now() time.Time { return c.read().now }

// age is how long ago an origin that reaches its store was last heard; ok is false before the first time.
func (c *clock) age() (age time.Duration, ok bool) {
	ready := c.ready.Load()
	return time.Since(c.start) - time.Duration(ready), ready != 0
}

func (c *clock) stale() bool { return c.read().stale }
