package hub

import "sync"

// queue holds the connections for which there is something to write: those whose fan is waited for
// by a slot go before those who only hear that the line moved. A connection is in each part at most
// once, which bounds it.
type queue struct {
	mu      sync.Mutex
	some    sync.Cond
	urgent  fifo
	routine fifo
	closed  bool
}

func newQueue() *queue {
	q := &queue{}
	q.some.L = &q.mu
	return q
}

func (q *queue) put(c *Conn, urgent bool) {
	q.mu.Lock()
	if urgent {
		q.urgent.push(c)
	} else {
		q.routine.push(c)
	}
	q.mu.Unlock()
	q.some.Signal()
}

// take waits for a connection; ok is false when the queue is closed.
func (q *queue) take() (c *Conn, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		if c := q.urgent.pop(); c != nil {
			c.wants.And(^inUrgent)
			return c, true
		}
		if c := q.routine.pop(); c != nil {
			c.wants.And(^inRoutine)
			return c, true
		}
		if q.closed {
			return nil, false
		}
		q.some.Wait()
	}
}

func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.some.Broadcast()
}

// fifo is a ring that grows by doubling, and is let go when it has become empty after a rush.
type fifo struct {
	ring    []*Conn
	head, n int
}

const smallRing = 1024

func (f *fifo) push(c *Conn) {
	if f.n == len(f.ring) {
		grown := make([]*Conn, max(2*f.n, smallRing))
		for i := range f.n {
			grown[i] = f.ring[(f.head+i)%len(f.ring)]
		}
		f.ring, f.head = grown, 0
	}
	f.ring[(f.head+f.n)%len(f.ring)] = c
	f.n++
}

func (f *fifo) pop() *Conn {
	if f.n == 0 {
		return nil
	}
	c := f.ring[f.head]
	f.ring[f.head] = nil
	f.head = (f.head + 1) % len(f.ring)
	if f.n--; f.n == 0 && len(f.ring) > smallRing {
		f.ring, f.head = nil, 0
	}
	return c
}
