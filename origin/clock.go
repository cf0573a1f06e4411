package origin

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"waitingroom/origin/store"
)

const (
	// measureEvery is how often the offset to the store's time is measured again.
	measureEvery = time.Minute
	// goodRoundTrip is short enough to take a measurement at once; the error is at most half
	// of it.
	goodRoundTrip = 20 * time.Millisecond
	measureTries  = 5
	// longestRoundTrip bounds the error of a measurement: one that took longer says too little,
	// since the process may have been stopped anywhere within it.
	longestRoundTrip = time.Second
	// largestStepBack is how far one measurement may put the clock back.
	largestStepBack = 50 * time.Millisecond
)

// storeClock tells the store's time: as it was measured last, plus what the own monotonic clock
// says has passed since. The own wall clock has no say. Safe for concurrent use.
type storeClock struct{ last atomic.Pointer[measurement] }

type measurement struct {
	store time.Time // the store's time …
	own   time.Time // … at this reading of the own clock, which carries the monotonic one
}

// Measured reports whether Now can be asked.
func (c *storeClock) Measured() bool { return c.last.Load() != nil }

// Now is the store's time, in UTC and whole milliseconds; the zero time before the first
// measurement.
func (c *storeClock) Now() time.Time {
	m := c.last.Load()
	if m == nil {
		return time.Time{}
	}
	return m.store.Add(time.Since(m.own)).UTC().Truncate(time.Millisecond)
}

// Measure asks the store, up to a few times, and keeps the answer that came back fastest. When all
// took too long it fails, and the clock goes on by the last measurement.
func (c *storeClock) Measure(ctx context.Context, clock store.Clock) error {
	var best *measurement
	var bestTrip time.Duration
	var failed error
	for range measureTries {
		before := time.Now()
		now, err := clock.Now(ctx)
		trip := time.Since(before)
		if err != nil {
			failed = err
			break
		}
		if trip > longestRoundTrip {
			failed = fmt.Errorf("an answer took %v", trip)
			continue
		}
		if best == nil || trip < bestTrip {
			best, bestTrip = &measurement{store: now, own: before.Add(trip / 2)}, trip
		}
		if trip <= goodRoundTrip {
			break
		}
	}
	if best == nil {
		return fmt.Errorf("measure the store's time: %w", failed)
	}
	c.last.Store(follow(c.last.Load(), best))
	return nil
}

// follow is the measurement to go by after another one. A store whose clock was put back, by hand
// or by a failover, is followed in small steps only: ticks, offers and tickets that already
// carry later times would otherwise stand still until the clock comes there again. Being ahead
// hurts nobody, since a store goes by the latest time that it has seen.
func follow(old, measured *measurement) *measurement {
	if old == nil {
		return measured
	}
	least := old.store.Add(measured.own.Sub(old.own) - largestStepBack)
	if measured.store.After(least) {
		return measured
	}
	return &measurement{store: least, own: measured.own}
}
