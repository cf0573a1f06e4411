package hub

import (
	"sync"
	"sync/atomic"
	"time"
)

// mostDevices is how many connections one position can have: many more than a fan has devices and
// tabs, those that died lately included. Else one ticket could take all places of an edge.
const mostDevices = 32

// blockSize is the number of positions whose connections are kept together.
const blockSize = 1024

// Event is what a Teller has to say to a connection.
type Event struct {
	// Name of the event; empty when there is nothing to say.
	Name string
	// Seq names the state from which it was computed.
	Seq string
	// State is the Teller's own note of what is told, at least 1; Conn.Told returns it.
	State uint8
	// Ahead is the number that is told, by which Advance judges; NoAhead where there is none.
	Ahead uint64
	// Out says that the ticket is out: nothing can follow.
	Out bool
	// Later says that nothing can be said yet, since the connection knows more than the Teller.
	Later bool
}

// NoAhead is the Ahead of who does not wait.
const NoAhead = ^uint64(0)

// Teller renders what connections of a line are told. It is called by several goroutines, under the
// connection's own lock, and must not call back into the hub.
type Teller interface {
	// Tell appends the members of the status document, without braces, to b, and says what event
	// it is. It is computed from what is known at this moment.
	Tell(b []byte, c *Conn) ([]byte, Event)
}

// Line are the connections of one queue. All methods may be called concurrently.
type Line struct {
	hub    *Hub
	teller Teller

	n atomic.Int64 // connections

	mu     sync.Mutex
	later  map[*Conn]struct{} // those that wait for the Teller to catch up with them
	blocks map[uint64]*block  // by (position-1) / blockSize; only those that are not empty
	closed bool
}

// block are the connections of 1,024 positions.
type block struct {
	conns []*Conn
	// What Advance found when it looked at this block last; see there.
	fresh     bool // it did, and nobody has come since
	passed    bool // the watermark was beyond the block already
	end, room uint64
	scanned   time.Duration
}

// NewLine makes a line without connections.
func (h *Hub) NewLine(t Teller) *Line {
	return &Line{hub: h, teller: t, blocks: make(map[uint64]*block), later: make(map[*Conn]struct{})}
}

// Len is how many connections there are.
func (l *Line) Len() int { return int(l.n.Load()) }

// add registers a connection, unless the line has closed or the fan has too many; it returns what
// speaks against it.
func (l *Line) add(c *Conn) (against Drop) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return DropRefused
	}
	index := (c.Position - 1) / blockSize
	b := l.blocks[index]
	if b == nil {
		b = &block{}
		l.blocks[index] = b
	}
	devices := 0
	for _, other := range b.conns {
		if other.Position == c.Position {
			devices++
		}
	}
	if devices >= mostDevices {
		return DropLimit
	}
	b.fresh, b.passed = false, false
	c.index = int32(len(b.conns))
	b.conns = append(b.conns, c)
	if l.n.Add(1) == 1 {
		l.hub.mu.Lock()
		l.hub.lines[l] = struct{}{}
		l.hub.mu.Unlock()
	}
	l.hub.Metrics.connections.WithLabelValues(kinds[c.kind]).Inc()
	l.hub.Metrics.opened.WithLabelValues(kinds[c.kind]).Inc()
	return dropNone
}

// remove takes a registered connection out.
func (l *Line) remove(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.later, c)
	at := (c.Position - 1) / blockSize
	b := l.blocks[at]
	last := len(b.conns) - 1
	b.conns[c.index] = b.conns[last]
	b.conns[c.index].index = c.index
	b.conns[last] = nil
	if b.conns = b.conns[:last]; last == 0 {
		delete(l.blocks, at)
	}
	if l.n.Add(-1) == 0 {
		l.hub.mu.Lock()
		delete(l.hub.lines, l)
		l.hub.mu.Unlock()
	}
	l.hub.open.Add(-1)
	l.hub.Metrics.connections.WithLabelValues(kinds[c.kind]).Dec()
}

func (l *Line) appendAll(conns []*Conn) []*Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.blocks {
		conns = append(conns, b.conns...)
	}
	return conns
}

// Tell marks the connections of some positions, in any order: something happened to each of them.
// It returns how many of the positions are connected, and calls each, where it is not nil, for
// every connection among them.
func (l *Line) Tell(positions []uint64, each func(c *Conn)) {
	if l.Len() == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(positions) > 0 {
		// Positions come in ascending order, for the most part: take those of one block together.
		index := (positions[0] - 1) / blockSize
		var named [blockSize / 64]uint64
		n := 0
		for n < len(positions) && (positions[n]-1)/blockSize == index {
			at := (positions[n] - 1) % blockSize
			named[at/64] |= 1 << (at % 64)
			n++
		}
		positions = positions[n:]
		b := l.blocks[index]
		if b == nil {
			continue
		}
		for _, c := range b.conns {
			if at := (c.Position - 1) % blockSize; named[at/64]&(1<<(at%64)) != 0 {
				c.mark(wantTell, true)
				if each != nil {
					each(c)
				}
			}
		}
	}
}

// TellAll marks every connection.
func (l *Line) TellAll(urgent bool) {
	l.Each(func(c *Conn) { c.mark(wantTell, urgent) })
}

// TellUpTo marks the connections of all positions up to one.
func (l *Line) TellUpTo(position uint64) {
	l.Each(func(c *Conn) {
		if c.Position <= position {
			c.mark(wantTell, false)
		}
	})
}

// TellLater marks those that were told Later.
func (l *Line) TellLater() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.later {
		c.mark(wantTell, true)
	}
}

// putOff notes whether a connection was told Later.
func (l *Line) putOff(c *Conn, later bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if later {
		l.later[c] = struct{}{}
	} else {
		delete(l.later, c)
	}
}

// Each calls f for every connection, under the line's lock: f must be quick, and must not call the
// line.
func (l *Line) Each(f func(c *Conn)) {
	if l.Len() == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.blocks {
		for _, c := range b.conns {
			f(c)
		}
	}
}

// Close ends all connections, because their tickets are not good any more, and takes no others.
func (l *Line) Close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.Refuse(func(Fan) bool { return true })
}

// Refuse ends the connections of some fans, whose tickets are not good any more.
func (l *Line) Refuse(some func(Fan) bool) {
	var refused []*Conn
	l.Each(func(c *Conn) {
		if some(c.Fan) {
			refused = append(refused, c)
		}
	})
	for _, c := range refused {
		c.close(ClosePolicy, DropRefused)
	}
}
