//go:build linux

package fans

import (
	"bytes"
	"fmt"
	"strings"
	"time"
)

// appendRequest appends the request that begins a live connection. A WebSocket is asked for as an app
// does it whose library sends headers; browsers put the ticket into the subprotocol, which is no other
// work for the edge.
func (f *fan) appendRequest(b []byte, host string) []byte {
	b = append(b, "GET /tickets/"...)
	b = append(b, f.id...)
	if f.socket {
		b = append(b, "/ws"...)
	} else {
		b = append(b, "/events"...)
	}
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, host...)
	b = append(b, "\r\nAuthorization: Bearer "...)
	b = append(b, f.ticket...)
	if f.socket {
		b = append(b, "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: waitingroom.v1\r\nSec-WebSocket-Key: "+socketKey...)
	} else {
		b = append(b, "\r\nAccept: text/event-stream"...)
		if f.generation != "" {
			b = fmt.Appendf(b, "\r\nLast-Event-ID: %s.%d", f.generation, f.entry)
		}
	}
	return append(b, "\r\n\r\n"...)
}

// heard takes in what was read on a fan's connection.
func (c *crowd) heard(i int32, data []byte, at time.Time) {
	f := &c.fans[i]
	f.heard = at
	serial := f.serial
	if f.phase == greeting {
		if len(f.rest) > 0 {
			f.rest = append(f.rest, data...)
			data = f.rest
		}
		h, err := parseHead(data)
		if err != nil {
			c.broken(i, fmt.Errorf("%w: %.100q", err, data))
			return
		}
		if h.size == 0 {
			f.keep(data)
			return
		}
		if !c.greeted(i, h, data) {
			return
		}
		data = data[h.size:]
		f.rest = nil
	}
	if f.chunked {
		var err error
		if data, err = c.unchunk(f, data); err != nil {
			c.broken(i, err)
			return
		}
	}
	if len(f.rest) > 0 {
		f.rest = append(f.rest, data...)
		data = f.rest
	}
	for len(data) > 0 {
		var size int
		if f.socket {
			size = c.hearFrame(i, data, at)
		} else {
			size = c.hearEvent(i, data, at)
		}
		if f.serial != serial || f.fd < 0 {
			return // the connection has ended
		}
		if size == 0 {
			break
		}
		data = data[size:]
	}
	f.keep(data)
	if f.chunked && f.chunks.last && f.chunks.left == 0 {
		c.finish(i, "end of stream", ending{code: closeAbnormal, retry: f.retry})
	}
}

// keep keeps what is not complete. It may be the end of what is kept already.
func (f *fan) keep(data []byte) {
	if len(data) == 0 {
		f.rest = nil
		return
	}
	f.rest = append(f.rest[:0], data...)
}

// unchunk takes the chunks off, into a buffer of the loop's.
func (c *crowd) unchunk(f *fan, data []byte) ([]byte, error) {
	if len(f.line) > 0 {
		data = append(f.line, data...)
		f.line = nil
	}
	c.body = c.body[:0]
	for len(data) > 0 {
		content, size, err := f.chunks.next(data)
		if err != nil {
			return nil, err
		}
		if size == 0 {
			f.line = bytes.Clone(data)
			break
		}
		c.body = append(c.body, content...)
		data = data[size:]
	}
	return c.body, nil
}

// greeted takes in the head of the answer and reports whether a stream of events follows it.
func (c *crowd) greeted(i int32, h head, data []byte) bool {
	f := &c.fans[i]
	switch {
	case f.socket && h.status == 101 && h.accept == socketAccept:
	case !f.socket && h.status == 200 && strings.HasPrefix(h.content, "text/event-stream"):
		f.chunked = h.chunked
	case h.status == 503:
		c.tally.report.Refused++
		c.finish(i, "", ending{refused: true, retryAfter: h.retryAfter})
		return false
	case !f.socket && h.status == 204: // the ticket is out, and the fan knows it or learns it by asking
		if !f.state.out() {
			c.tally.wrong("position %d is %v and gets no stream", f.position, f.state)
			f.state = ended
		}
		c.finish(i, "no content", ending{})
		return false
	default:
		c.broken(i, fmt.Errorf("answered with %.300q", data))
		return false
	}
	f.phase = live
	return true
}

// hearFrame takes in the frame with which data begins and returns its size.
func (c *crowd) hearFrame(i int32, data []byte, at time.Time) int {
	f := &c.fans[i]
	frame, err := parseFrame(data)
	if err != nil {
		c.broken(i, err)
		return 0
	}
	if frame.size == 0 {
		return 0
	}
	switch frame.opcode {
	case opText:
		c.told(i, nil, frame.payload, at)
	case opPing:
		c.tally.report.Signs++
		c.write(f, appendControl(nil, opPong, frame.payload, c.random.Uint32()))
	case opClose:
		code := closeCode(frame.payload)
		c.write(f, appendControl(nil, opClose, frame.payload[:min(2, len(frame.payload))], c.random.Uint32()))
		if (code == closeNormal) != f.state.out() {
			c.tally.wrong("position %d is %v and its connection is closed with %d", f.position, f.state, code)
		}
		c.finish(i, fmt.Sprint(code), ending{code: code})
	}
	return frame.size
}

// hearEvent takes in the event with which data begins and returns its size.
func (c *crowd) hearEvent(i int32, data []byte, at time.Time) int {
	f := &c.fans[i]
	e, err := parseEvent(data)
	if err != nil {
		c.broken(i, err)
		return 0
	}
	if e.size == 0 {
		return 0
	}
	if e.retry > 0 {
		f.retry = e.retry
	}
	switch {
	case e.data != nil:
		c.told(i, e.name, e.data, at)
		if want := fmt.Appendf(nil, "%s.%d", f.generation, f.entry); f.fd >= 0 && !bytes.Equal(e.id, want) {
			c.tally.wrong("position %d: an event with the status of %s has the id %q", f.position, want, e.id)
		}
	case e.comment:
		c.tally.report.Signs++
	}
	return e.size
}

// broken ends a connection on which something came that must not come.
func (c *crowd) broken(i int32, err error) {
	c.tally.wrong("position %d: %v", c.fans[i].position, err)
	c.finish(i, "broken", ending{code: closeAbnormal})
}

// finish ends a connection, and the fan comes back by the rules, elsewhere, unless the ticket is out.
func (c *crowd) finish(i int32, how string, e ending) {
	f := &c.fans[i]
	c.hangUp(f)
	f.rest, f.line = nil, nil
	f.serial++
	if f.state.out() {
		f.phase = done
		if c.behaviour.Renews && f.state != closed {
			c.renew(i)
		}
		return
	}
	if how != "" {
		c.tally.report.Ended[how]++
		f.returns = true
	}
	f.phase = pausing
	f.edge = c.elsewhere(f.edge)
	c.after(i, toReturn, e.pause(int(f.failures), c.random.Float64()))
	if f.failures < 100 {
		f.failures++
	}
}
