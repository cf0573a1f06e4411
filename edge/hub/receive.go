package hub

import (
	"bytes"
	"sync"
)

// discarding is what it takes to read and throw away.
type discarding struct {
	try attempt
	b   [1024]byte
}

var discards = sync.Pool{New: func() any {
	d := &discarding{}
	d.try.bind()
	return d
}}

// await waits until the client sends something. It is the goroutine of an idle connection: nothing
// that needs more than the smallest stack may be called from here.
func (c *Conn) await() {
	defer c.guard()
	if c.raw.Read(readable) != nil {
		c.drop(DropGone)
		return
	}
	c.line.hub.work.Go(c.receive)
}

// receive reads all that has come, then waits again.
func (c *Conn) receive() { c.receiveWith(nil) }

// receiveWith does the same with bytes that were read with the request already.
func (c *Conn) receiveWith(early []byte) {
	defer c.guard()
	if !c.deaf {
		r := readers.Get().(*reader)
		if r.read(c, early) {
			readers.Put(r)
		}
	}
	if c.gone.Load() || c.deaf && !c.discard() {
		return
	}
	c.line.hub.work.Go(c.await)
}

// discard reads what has come and throws it away; ok is false when the connection has ended.
func (c *Conn) discard() (ok bool) {
	w := discards.Get().(*discarding)
	defer discards.Put(w)
	for {
		var err error
		if c.raw != nil {
			_, err = w.try.read(c.raw, w.b[:])
		} else {
			_, err = c.conn.Read(w.b[:])
		}
		switch {
		case err == errNothing:
			return true
		case err != nil:
			c.drop(lost(err))
			return false
		}
		c.hear()
	}
}

// hear notes that the client is there.
func (c *Conn) hear() { c.heard.Store(int64(c.line.hub.now())) }

// answerPing has a pong written; it may take the place of one for an earlier ping (RFC 6455,
// section 5.5.3).
func (c *Conn) answerPing(frame []byte) {
	c.mu.Lock()
	c.aside().pong = bytes.Clone(frame)
	c.mu.Unlock()
	c.mark(wantPong, false)
}
