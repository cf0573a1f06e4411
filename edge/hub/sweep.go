package hub

import (
	"math/rand/v2"
	"time"
)

const (
	// refreshAfter and refreshWithin are after how long a connection that was told nothing is told
	// how it stands: at a random moment between them, so that those who were told together do not
	// stay together.
	refreshAfter, refreshWithin = 9 * time.Second, 14 * time.Second
	// pingEvery is how often a WebSocket is asked for a sign of life, and silentAfter how long
	// one may do without any.
	pingEvery, silentAfter = 30 * time.Second, 75 * time.Second
	// suspendedAfter is how long a sweep may be late; if it is later, this process was stopped, asked
	// nobody and heard nobody meanwhile.
	suspendedAfter = 10 * time.Second
)

// Sweep does what falls due with time: it refreshes, asks for signs of life and drops who gives
// none, and closed connections whose clients leave them open. Call it about once a second.
func (h *Hub) Sweep() {
	now := h.now()
	var dead []*Conn
	h.mu.Lock()
	if now-h.swept > suspendedAfter {
		h.resumed = now
	}
	h.swept = now
	resumed := h.resumed
	lines := make([]*Line, 0, len(h.lines))
	for l := range h.lines {
		lines = append(lines, l)
	}
	h.mu.Unlock()
	for _, l := range lines {
		l.Each(func(c *Conn) {
			if until := c.until.Load(); until != 0 {
				if now > time.Duration(until) {
					dead = append(dead, c)
				}
				return
			}
			silent := now - max(time.Duration(c.heard.Load()), resumed)
			if c.kind == webSocket && silent > silentAfter {
				dead = append(dead, c)
				return
			}
			if c.kind == webSocket && silent > pingEvery {
				c.mark(wantPing, false) // also where the line moves so fast that it is never refreshed
			}
			if quiet := now - time.Duration(c.told.Load()); quiet > refreshAfter {
				left := int64((refreshWithin - quiet) / time.Second)
				if left <= 0 || rand.Int64N(left) == 0 {
					c.mark(wantTell|wantPing, false)
				}
			}
		})
	}
	for _, c := range dead {
		c.drop(DropSilent)
	}
}
