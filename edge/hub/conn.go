package hub

import (
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// The close codes that the hub sends (RFC 6455, section 7.4.1). What each one asks of the client:
const (
	CloseNormal   = 1000 // the ticket is out, as was told before: do not come back
	CloseProtocol = 1002 // what came is not WebSocket
	CloseData     = 1003 // binary data, which means nothing here
	CloseText     = 1007 // text that is not UTF-8
	ClosePolicy   = 1008 // the ticket is not good any more: ask for its status
	CloseTooBig   = 1009 // more than longestMessage at once
	CloseRestart  = 1012 // this edge stops: come back at once
	CloseOverload = 1013 // too many connections, or too slow: come back later
)

const (
	// closePatience is how long a connection stays open for the client to read what was written
	// last, and to answer a close.
	closePatience = 2 * time.Second
	// framePatience is how long a frame, or a message in several, may take to arrive.
	framePatience = 10 * time.Second
	// longestMessage is the most that a client may send at once; what it says is not heeded.
	longestMessage = 512
)

type kind uint8

const (
	webSocket kind = iota
	serverSent
)

var kinds = [...]string{"websocket", "sse"}

// What a connection waits for a worker to write.
const (
	wantTell  uint32 = 1 << iota // an event
	wantPing                     // a sign of life, and where it is time for one, the question for one
	wantPong                     // pong
	wantClose                    // the end
	inUrgent                     // it stands in this part of the queue
	inRoutine                    // and in this one

	wantAny = wantTell | wantPing | wantPong | wantClose
)

// Fan is whose connection it is.
type Fan struct {
	Position uint64
	// Key is the id of the key that the ticket was verified with, and Expires until when it is
	// valid, in unix seconds.
	Key     string
	Expires int64
}

// Conn is one live connection.
type Conn struct {
	Fan
	line  *Line
	conn  net.Conn
	raw   syscall.RawConn // nil where conn is not a plain socket
	kind  kind
	deaf  bool  // nothing that comes can be understood any more; for who reads, which is one at a time
	index int32 // in its block; the line's lock guards it

	// Marks and notes that are read without a lock.
	wants atomic.Uint32
	ahead atomic.Uint64 // as told, by which Advance judges
	state atomic.Uint32 // as told; 0 before the first event
	heard atomic.Int64  // when bytes came last; progress of the hub
	told  atomic.Int64  // when something was written last
	until atomic.Int64  // when a closed connection is dropped; 0 while it is open
	gone  atomic.Bool   // it is dropped

	mu      sync.Mutex    // guards what follows, and the writing
	busy    bool          // a goroutine writes what was not taken at once
	later   bool          // the Teller said Later
	closing bool          // the last frame is on its way, or was written
	reason  Drop          // why it ends
	asked   time.Duration // when the last ping was written; progress of the hub
	seldom  *seldom       // nil for nearly all connections at nearly all times
}

// seldom is what a connection needs for a moment.
type seldom struct {
	pong     []byte // the frame, for the latest ping
	farewell []byte // the close frame to send
	after    string // Last-Event-ID, until the Teller has caught up
}

// aside returns the connection's seldom, to be changed.
func (c *Conn) aside() *seldom {
	if c.seldom == nil {
		c.seldom = &seldom{}
	}
	return c.seldom
}

// Told is the State of the last event; 0 before the first one.
func (c *Conn) Told() uint8 { return uint8(c.state.Load()) }

// After is the id of the last event that the client got on an earlier connection; empty when
// there was none, or it does not matter any more. Only the Teller may call it.
func (c *Conn) After() string {
	if c.seldom == nil {
		return ""
	}
	return c.seldom.after
}

// mark notes that there is something to write, and puts the connection into the queue unless it
// stands there already.
func (c *Conn) mark(want uint32, pressing bool) {
	part := inRoutine
	if pressing {
		part = inUrgent
	}
	if had := c.wants.Or(want | part); had&part == 0 {
		c.line.hub.queue.put(c, pressing)
	}
}

// close ends the connection with a close code, after what it was told before. A stream just ends.
func (c *Conn) close(code int, reason Drop) {
	c.closeWith(appendClose(nil, code), reason)
}

// closeWith does the same with a close frame; it reports false when the connection ends already.
func (c *Conn) closeWith(frame []byte, reason Drop) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reason != dropNone {
		return false
	}
	c.reason, c.aside().farewell = reason, frame
	c.mark(wantClose, true)
	return true
}

// drop ends the connection at once. The first reason is the one that counts.
func (c *Conn) drop(reason Drop) {
	if c.gone.Swap(true) {
		return
	}
	// Whoever reads or writes is woken. Nothing is said any more, not even that this is the end.
	if over, ok := c.conn.(interface{ NetConn() net.Conn }); ok {
		_ = over.NetConn().Close()
	} else {
		_ = c.conn.Close()
	}
	c.mu.Lock()
	if c.reason != dropNone && reason != DropSlow && reason != DropPanic {
		reason = c.reason
	}
	c.mu.Unlock()
	c.line.hub.Metrics.dropped(reason) // first: who no longer is among the open ones has been counted
	c.line.remove(c)
}
