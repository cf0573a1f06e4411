package hub

import (
	"bytes"
	"encoding/base64"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/fasthttp/websocket"
	"github.com/valyala/fasthttp"
)

// Protocol is the subprotocol of the live events.
const Protocol = "waitingroom.v1"

// upgrader answers the handshake. Who may connect from where, the caller has decided before.
var upgrader = websocket.FastHTTPUpgrader{
	Subprotocols: []string{Protocol},
	CheckOrigin:  func(*fasthttp.RequestCtx) bool { return true },
	Error:        func(*fasthttp.RequestCtx, int, error) {}, // the caller answers
}

// IsHandshake reports whether a request is the handshake of a WebSocket.
func IsHandshake(ctx *fasthttp.RequestCtx) bool {
	h := &ctx.Request.Header
	if len(h.PeekAll("Sec-WebSocket-Version")) != 1 || len(h.PeekAll("Sec-WebSocket-Key")) != 1 {
		return false
	}
	key, err := base64.StdEncoding.Strict().DecodeString(string(h.Peek("Sec-WebSocket-Key")))
	return err == nil && len(key) == 16 && h.IsHTTP11() && !h.ConnectionClose() &&
		websocket.FastHTTPIsWebSocketUpgrade(ctx) && string(h.Peek("Sec-WebSocket-Version")) == "13"
}

// UpgradeWebSocket answers a handshake, and opens the connection once the answer is sent. An error
// says that the request is no handshake, and leaves the answer to the caller.
func (l *Line) UpgradeWebSocket(ctx *fasthttp.RequestCtx, fan Fan) error {
	if !IsHandshake(ctx) {
		return websocket.ErrBadHandshake
	}
	h := &ctx.Request.Header
	if offered := h.PeekAll("Sec-WebSocket-Protocol"); len(offered) > 1 { // the library reads the first line only
		h.SetBytesV("Sec-WebSocket-Protocol", bytes.Join(offered, []byte{','}))
	}
	if err := upgrader.Upgrade(ctx, nil); err != nil {
		return err
	}
	// The library would keep the connection together with fasthttp's buffer, so its own way to take
	// it over is not taken: see reader.
	ctx.Hijack(func(conn net.Conn) { l.open(conn, webSocket, fan, nil, "") })
	return nil
}

// ServeEvents answers with a stream of Server-Sent Events. after is the Last-Event-ID.
func (l *Line) ServeEvents(ctx *fasthttp.RequestCtx, fan Fan, after string) {
	h := &ctx.Response.Header
	h.SetContentType("text/event-stream")
	h.Set(fasthttp.HeaderCacheControl, "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would gather events
	h.SetContentLength(-2)           // the end of the connection is the end
	head := append([]byte(nil), h.Header()...)
	head = append(head, "retry: "...)
	head = strconv.AppendInt(head, int64(1000+rand.N(9001)), 10)
	head = append(head, "\n\n"...)
	ctx.HijackSetNoResponse(true)
	ctx.Hijack(func(conn net.Conn) { l.open(conn, serverSent, fan, head, after) })
}

// open takes a connection over from fasthttp, whose goroutine runs it.
func (l *Line) open(hijacked net.Conn, kind kind, fan Fan, head []byte, after string) {
	h := l.hub
	defer func() {
		if cause := recover(); cause != nil {
			h.panicked(cause)
			_ = hijacked.Close()
		}
	}()
	conn, early := takeOver(hijacked)
	if !h.enter() {
		_ = conn.Close()
		return
	}
	defer h.work.Done()
	c := &Conn{Fan: fan, line: l, conn: conn, kind: kind, deaf: kind == serverSent}
	if after != "" {
		c.aside().after = after
	}
	c.ahead.Store(NoAhead)
	c.hear()
	c.raw = tune(conn)
	if h.open.Add(1) > int64(h.MostConnections) {
		h.turnAway(c, head, DropLimit)
		return
	}
	c.mu.Lock() // until begin has written, so that nothing is written before
	if against := l.add(c); against != dropNone {
		c.mu.Unlock()
		h.turnAway(c, head, against)
		return
	}
	h.work.Go(func() {
		if c.raw == nil || len(early) > 0 {
			c.receiveWith(early)
		} else {
			c.await()
		}
	})
	c.begin(head)
	if h.hasStopped() { // perhaps before it was registered, and then Run has not seen it
		c.drop(DropStopped)
	}
}

// begin writes the head of a stream and the first event, and unlocks the connection.
func (c *Conn) begin(head []byte) {
	w := writers.Get().(*writer)
	defer writers.Put(w)
	defer c.guard()
	defer c.mu.Unlock()
	c.wants.Or(wantTell)
	w.frame = append(w.frame[:0], head...)
	w.frame = c.compose(w.frame, w)
	if len(w.frame) > 0 && !c.gone.Load() {
		c.send(w)
	}
}

// turnAway ends a connection that was let in a moment too early.
func (h *Hub) turnAway(c *Conn, head []byte, reason Drop) {
	h.open.Add(-1)
	h.Metrics.dropped(reason)
	if c.kind == webSocket {
		code := CloseOverload
		if reason == DropRefused {
			code = ClosePolicy
		}
		head = appendClose(nil, code)
	}
	_ = c.conn.SetDeadline(time.Now().Add(closePatience))
	_, _ = c.conn.Write(head)
	_ = c.conn.Close()
}

// writers are for first events, which no worker writes.
var writers = sync.Pool{New: func() any { return newWriter() }}

// takeOver gets the connection out of what fasthttp wraps it in, which holds a buffer of 16 KiB,
// and the bytes that this buffer has read already.
func takeOver(hijacked net.Conn) (conn net.Conn, early []byte) {
	inner, ok := hijacked.(interface{ UnsafeConn() net.Conn })
	if !ok {
		return hijacked, nil
	}
	conn = inner.UnsafeConn()
	// Past its deadline the connection has nothing to read, so this gives what is in the buffer.
	_ = conn.SetReadDeadline(time.Unix(1, 0))
	var b [512]byte
	for {
		n, err := hijacked.Read(b[:])
		early = append(early, b[:n]...)
		if err != nil {
			break
		}
	}
	_ = conn.SetReadDeadline(time.Time{})
	return conn, early
}
