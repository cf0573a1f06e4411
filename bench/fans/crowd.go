//go:build linux

package fans

import (
	"container/heap"
	"context"
	"encoding/json"
	"math/rand/v2"
	"time"
)

const (
	// mostFans is how many a process can hold with the 20,000 files that it may open.
	mostFans = 19_000
	// silence is after how long without a sign a fan takes the connection for dead.
	silence = 30 * time.Second
	// sipEvery is how often a slow reader reads sipBytes.
	sipEvery = time.Second
	sipBytes = 64
	// checkEvery is how many statuses are read between two that encoding/json checks too.
	checkEvery = 256
)

// crowd is the fans of one process. One goroutine, its loop, owns all of it; others hand it what it
// is to do through calls.
type crowd struct {
	config    Config
	shop      *shop
	behaviour Behaviour
	random    *rand.Rand
	fans      []fan
	timers    timers
	tally     *tally
	closing   time.Time // announced moment of the queue's closing

	// queue are the fans who are to connect at the pace of perSecond.
	queue     []int32
	perSecond int
	allowance float64
	paced     time.Time
	swept     time.Time

	jobs  chan job      // to the callers; has room for one of every fan
	calls chan func()   // to the loop
	ended chan struct{} // closed when the loop is
	poller
}

// job is a request that a caller sends; then does what follows from it in the loop.
type job func(ctx context.Context) (then func())

// purpose of a timer.
type purpose uint8

const (
	toReturn purpose = iota
	toClaim
	toBuy
	toSip
)

// timer is when a fan does something next.
type timer struct {
	at      time.Time
	fan     int32
	serial  int32  // of the connection, where it is about that
	person  uint16 // who sat there when it was set
	purpose purpose
}

// timers is a heap, the next one on top.
type timers []timer

func (t timers) Len() int           { return len(t) }
func (t timers) Less(i, j int) bool { return t[i].at.Before(t[j].at) }
func (t timers) Swap(i, j int)      { t[i], t[j] = t[j], t[i] }
func (t *timers) Push(x any)        { *t = append(*t, x.(timer)) }
func (t *timers) Pop() any {
	last := (*t)[len(*t)-1]
	*t = (*t)[:len(*t)-1]
	return last
}

func (c *crowd) after(i int32, purpose purpose, d time.Duration) {
	f := &c.fans[i]
	heap.Push(&c.timers, timer{at: time.Now().Add(d), fan: i, serial: f.serial, person: f.person, purpose: purpose})
}

// spread is half of a time to half as much again.
func (c *crowd) spread(d time.Duration) time.Duration {
	return time.Duration((0.5 + c.random.Float64()) * float64(d))
}

// runTimers does what is due and returns how long it is until the next.
func (c *crowd) runTimers(now time.Time) time.Duration {
	for len(c.timers) > 0 {
		next := c.timers[0]
		if wait := next.at.Sub(now); wait > 0 {
			return wait
		}
		heap.Pop(&c.timers)
		f := &c.fans[next.fan]
		if f.person != next.person {
			continue
		}
		switch next.purpose {
		case toReturn:
			if f.phase == pausing && f.serial == next.serial {
				c.connect(next.fan)
			}
		case toClaim:
			c.claim(next.fan)
		case toBuy:
			c.buy(next.fan)
		case toSip:
			if f.phase == live && f.serial == next.serial {
				c.sip(next.fan)
			}
		}
	}
	return time.Hour
}

// runPace lets fans connect who have not been connected before, and returns when it wants to run
// again.
func (c *crowd) runPace(now time.Time) time.Duration {
	const step = 5 * time.Millisecond
	if len(c.queue) == 0 {
		c.paced = now
		return time.Hour
	}
	c.allowance += now.Sub(c.paced).Seconds() * float64(c.perSecond)
	c.allowance = min(c.allowance, max(float64(c.perSecond)*0.05, 1))
	c.paced = now
	for c.allowance >= 1 && len(c.queue) > 0 {
		i := c.queue[0]
		c.queue = c.queue[1:]
		if c.fans[i].phase == queued {
			c.allowance--
			c.connect(i)
		}
	}
	return step
}

// sweep ends connections on which nothing was heard for too long. Bad readers do not notice.
func (c *crowd) sweep(now time.Time) {
	if now.Sub(c.swept) < time.Second {
		return
	}
	c.swept = now
	for i := range c.fans {
		f := &c.fans[i]
		waits := f.phase == connecting || f.phase == greeting || f.phase == live && (f.reading == well || f.first)
		if waits && now.Sub(f.heard) > silence {
			c.finish(int32(i), "silence", ending{code: closeAbnormal})
		}
	}
}

// told takes in a status that a fan has read.
func (c *crowd) told(i int32, name, data []byte, at time.Time) {
	f := &c.fans[i]
	t := c.tally
	t.report.Statuses++
	if t.report.Statuses%checkEvery == 0 && !json.Valid(data) {
		t.wrong("position %d: not JSON: %.300q", f.position, data)
	}
	var s status
	if err := s.read(data); err != nil {
		t.wrong("position %d: %v", f.position, err)
		return
	}
	if name == nil {
		name = s.event
	}
	before, first, older := f.state, f.first, f.ignored(&s)
	if err := f.take(&s, name); err != nil {
		t.wrong("%v", err)
	}
	if first {
		f.first, f.failures = false, 0
		if f.returns {
			f.returns = false
			t.report.Back = append(t.report.Back, at.UnixMicro())
		}
		c.settle(i)
	} else if f.reading == well {
		record(t.told, at.Sub(s.now))
	}
	if older {
		t.report.Older++
		return
	}
	switch {
	case s.state == admitted && s.claimBy.UnixMilli() != f.claimBy:
		f.claimBy = s.claimBy.UnixMilli()
		// The moment of the tick: an offer runs for the queue's claimSeconds from the time that the
		// coordinator read at the tick's beginning, before it asked and told Redis anything. That
		// time is Redis's clock, which is this machine's, carried on by the origin's monotonic
		// clock. So all that comes after the tick's beginning is in the figure, and the origin's
		// own part too.
		tick := s.claimBy.Add(-c.config.Claim)
		t.report.Offered++
		if !first {
			t.report.OfferedLive++
			t.report.Ticks[tick.UnixMilli()]++
			record(t.offers, at.Sub(tick))
		}
		c.decide(i)
	case s.state == closed && before != closed:
		t.report.Closed++
		if !first && !c.closing.IsZero() {
			record(t.closing, at.Sub(c.closing))
		}
	}
}

// decide is what a fan does who is let in.
func (c *crowd) decide(i int32) {
	switch {
	case c.behaviour == Behaviour{}:
	case c.random.Float64() < c.behaviour.Claims:
		c.after(i, toClaim, c.spread(c.behaviour.Think))
	default:
		c.tally.report.Passed++
	}
}

// hand gives a caller something to do.
func (c *crowd) hand(i int32, j job) {
	select {
	case c.jobs <- j:
	default:
		c.tally.wrong("position %d: too many requests at once", c.fans[i].position)
	}
}

func (c *crowd) claim(i int32) {
	f := &c.fans[i]
	edge, id, ticket, person := c.config.Edges[f.edge], f.id, f.ticket, f.person
	c.hand(i, func(ctx context.Context) func() {
		session, err := c.shop.claim(ctx, edge, id, ticket)
		return func() {
			f := &c.fans[i]
			switch {
			case f.person != person:
			case err != nil:
				c.tally.wrong("position %d: %v", f.position, err)
			case session == "":
				c.tally.report.Late++
			default:
				c.tally.report.Claimed++
				f.session = session
				if c.random.Float64() < c.behaviour.Buys {
					c.after(i, toBuy, c.spread(c.behaviour.Shop))
				}
			}
		}
	})
}

func (c *crowd) buy(i int32) {
	session := c.fans[i].session
	c.hand(i, func(ctx context.Context) func() {
		err := c.shop.end(ctx, session)
		return func() {
			if err != nil {
				c.tally.wrong("position %d: %v", c.fans[i].position, err)
				return
			}
			c.tally.report.Bought++
		}
	})
}

// renew lets a new fan take the seat of one who is out of the line.
func (c *crowd) renew(i int32) {
	socket := c.fans[i].socket
	c.hand(i, func(ctx context.Context) func() {
		joined, err := c.shop.join(ctx)
		return func() {
			if err != nil {
				c.tally.wrong("renew: %v", err)
				return
			}
			f := c.seat(joined)
			f.person, f.serial = c.fans[i].person+1, c.fans[i].serial+1
			f.socket, f.phase = socket, queued
			c.fans[i] = f
			c.queue = append(c.queue, i)
			if f.state == admitted {
				c.decide(i)
			}
		}
	})
}

// seat is a fan who has just joined and is not connected.
func (c *crowd) seat(joined newcomer) fan {
	f := fan{ticket: joined.Ticket, id: joined.ID, position: joined.Position, fd: -1, edge: int16(c.config.Home)}
	if err := f.state.read([]byte(joined.State)); err != nil {
		c.tally.wrong("join: state %q", joined.State)
	}
	if f.state == admitted { // a slot was free, and nobody waited
		f.claimBy = joined.ClaimBy.UnixMilli()
		c.tally.report.Offered++
	}
	return f
}

// elsewhere is another edge than the one that a fan was connected to: what stands before the edges
// sends nobody to one that does not answer.
func (c *crowd) elsewhere(edge int16) int16 {
	n := len(c.config.Edges)
	if n == 1 {
		return edge
	}
	return int16((int(edge) + 1 + c.random.IntN(n-1)) % n)
}
