package hub

import (
	"bytes"
	"errors"
	"os"
	"time"
)

// writer is what a worker needs to write.
type writer struct {
	frame  []byte // what is written
	status []byte // the members of the status in it
	try    attempt
}

func newWriter() *writer {
	w := &writer{frame: make([]byte, 0, 2048), status: make([]byte, 0, 1024)}
	w.try.bind()
	return w
}

// serve writes all that the connection waits for, as far as the network takes it at once.
func (c *Conn) serve(w *writer) {
	defer c.guard()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.busy || c.gone.Load() {
		return // whoever writes looks again when done
	}
	w.frame = c.compose(w.frame[:0], w)
	if len(w.frame) > 0 {
		c.send(w)
	} else if c.closing {
		c.shut()
	}
}

// compose takes down the marks and appends what they stand for.
func (c *Conn) compose(b []byte, w *writer) []byte {
	wants := c.wants.And(^wantAny)
	if c.closing {
		return b
	}
	if wants&wantPong != 0 && c.seldom != nil {
		b = append(b, c.seldom.pong...)
		c.seldom.pong = nil
	}
	before := len(b)
	if wants&wantTell != 0 {
		b = c.event(b, w)
	}
	if wants&wantPing != 0 {
		now := c.line.hub.now()
		switch {
		case c.kind == serverSent && len(b) == before:
			b = append(b, comment...)
		case c.kind == webSocket && (wants&wantTell != 0 && len(b) == before || now-c.asked >= pingEvery):
			b = append(b, pingFrame...)
			c.asked = now
		}
	}
	if c.reason != dropNone {
		c.closing = true
		if c.kind == webSocket {
			b = append(b, c.seldom.farewell...)
		}
	}
	if c.seldom != nil && c.seldom.after == "" {
		c.seldom = nil
	}
	return b
}

// event appends what the Teller says.
func (c *Conn) event(b []byte, w *writer) []byte {
	var e Event
	w.status, e = c.line.teller.Tell(w.status[:0], c)
	if e.Later != c.later {
		c.later = e.Later
		c.line.putOff(c, e.Later)
	}
	if e.Name == "" {
		return b
	}
	if c.seldom != nil {
		c.seldom.after = ""
	}
	c.state.Store(uint32(e.State))
	c.ahead.Store(e.Ahead)
	c.line.hub.Metrics.events.WithLabelValues(e.Name).Inc()
	if e.Out && c.reason == dropNone {
		c.reason, c.aside().farewell = DropOut, appendClose(nil, CloseNormal)
	}
	if c.kind == webSocket {
		return appendFrame(b, e.Name, w.status)
	}
	return appendServerSent(b, e.Seq, e.Name, w.status)
}

// send writes w.frame. What is not taken at once is left to a goroutine.
func (c *Conn) send(w *writer) {
	c.told.Store(int64(c.line.hub.now()))
	rest := w.frame
	if c.raw != nil {
		n, err := w.try.write(c.raw, w.frame)
		if err != nil {
			c.line.hub.work.Go(func() { c.drop(lost(err)) }) // it needs the lock that is held here
			return
		}
		rest = w.frame[n:]
	}
	if len(rest) == 0 {
		c.written()
		return
	}
	if c.raw != nil {
		c.line.hub.Metrics.stalls.Inc()
	}
	c.busy = true
	rest = bytes.Clone(rest)
	c.line.hub.work.Go(func() { c.finish(rest) })
}

// finish writes what the network did not take at once.
func (c *Conn) finish(rest []byte) {
	defer c.guard()
	_ = c.conn.SetWriteDeadline(time.Now().Add(c.line.hub.WriteTimeout))
	if _, err := c.conn.Write(rest); err != nil {
		reason := lost(err)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			reason = DropSlow
		}
		c.drop(reason)
		return
	}
	_ = c.conn.SetWriteDeadline(time.Time{})
	c.mu.Lock()
	c.busy = false
	c.written()
	c.mu.Unlock()
	if c.wants.Load()&wantAny != 0 {
		c.mark(0, true)
	}
}

// written goes on when all was written.
func (c *Conn) written() {
	if c.closing {
		c.shut()
	}
}

// shut says that nothing will follow, and leaves the client some time to read it. Closing at
// once could make its network throw away what it has not read yet.
func (c *Conn) shut() {
	if c.until.Load() != 0 {
		return
	}
	c.until.Store(int64(c.line.hub.now() + closePatience))
	half, ok := c.conn.(interface{ CloseWrite() error })
	switch {
	case ok && c.raw != nil:
		_ = half.CloseWrite()
	case ok: // it writes
		c.line.hub.work.Go(func() { _ = half.CloseWrite() })
	}
}
