package hub

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/valyala/fasthttp"
)

// rig is a hub with one line behind a real server: GET /ws/POSITION and GET /events/POSITION.
type rig struct {
	t       testing.TB
	hub     *Hub
	line    *Line
	address string
	stop    func()
}

// counting is a Teller that tells a counter, as the number of the newest event.
type counting struct {
	number  atomic.Int64
	padding int
	tell    func(b []byte, c *Conn) ([]byte, Event) // where set, instead
}

func (t *counting) Tell(b []byte, c *Conn) ([]byte, Event) {
	if t.tell != nil {
		return t.tell(b, c)
	}
	n := t.number.Load()
	b = fmt.Appendf(b, `"number":%d,"padding":"%s"`, n, strings.Repeat("x", t.padding))
	return b, Event{Name: "told", Seq: "g." + strconv.FormatInt(n, 10), State: 1, Ahead: NoAhead}
}

func startRig(t testing.TB, teller Teller, change func(*Hub)) *rig {
	t.Helper()
	h := New(100_000, 10*time.Second, slog.New(slog.DiscardHandler))
	if change != nil {
		change(h)
	}
	r := &rig{t: t, hub: h, line: h.NewLine(teller)}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.address = listener.Addr().String()
	server := &fasthttp.Server{KeepHijackedConns: true, Logger: quiet{}, Handler: func(ctx *fasthttp.RequestCtx) {
		kind, rest, _ := strings.Cut(string(ctx.Path()[1:]), "/")
		position, err := strconv.ParseUint(rest, 10, 64)
		if err != nil {
			ctx.SetStatusCode(404)
			return
		}
		if kind == "events" {
			r.line.ServeEvents(ctx, Fan{Position: position}, string(ctx.Request.Header.Peek("Last-Event-ID")))
		} else if r.line.UpgradeWebSocket(ctx, Fan{Position: position}) != nil {
			ctx.SetStatusCode(400)
		}
	}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	go func() { _ = server.Serve(listener); done <- struct{}{} }()
	go func() { _ = h.Run(ctx); done <- struct{}{} }()
	stopped := false
	r.stop = func() {
		if !stopped {
			stopped = true
			_ = server.Shutdown()
			cancel()
			<-done
			<-done
		}
	}
	t.Cleanup(r.stop)
	return r
}

type quiet struct{}

func (quiet) Printf(string, ...any) {}

// value reads a metric.
func (r *rig) dropped(reason Drop) int {
	return int(testutil.ToFloat64(r.hub.Metrics.drops.WithLabelValues(dropNames[reason])))
}

// client is one end of a live connection, down to the bytes.
type client struct {
	net.Conn
	t      testing.TB
	socket bool
	in     *bufio.Reader
}

func (r *rig) dial(kind string, position uint64) *client {
	r.t.Helper()
	c, err := r.connect(kind, position)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (r *rig) connect(kind string, position uint64) (*client, error) {
	return r.connectWith(kind, position, nil)
}

// connectWith sends more in the same packet as the request.
func (r *rig) connectWith(kind string, position uint64, early []byte) (*client, error) {
	conn, err := net.Dial("tcp", r.address)
	if err != nil {
		return nil, err
	}
	c := &client{Conn: conn, t: r.t, socket: kind == "ws", in: bufio.NewReaderSize(conn, 512)}
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	more := ""
	if c.socket {
		more = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
	}
	if _, err := fmt.Fprintf(conn, "GET /%s/%d HTTP/1.1\r\nHost: x\r\n%s\r\n%s", kind, position, more, early); err != nil {
		return nil, err
	}
	for first := true; ; first = false {
		line, err := c.in.ReadString('\n')
		if err != nil {
			return nil, err
		}
		if first && !strings.HasPrefix(line, "HTTP/1.1 ") {
			return nil, fmt.Errorf("the answer begins with %q", line)
		}
		if line == "\r\n" {
			return c, nil
		}
	}
}

var bothKinds = []string{"ws", "events"}

// number reads the next event and returns its number.
func (c *client) number() int64 {
	c.t.Helper()
	n, err := c.readNumber()
	if err != nil {
		c.t.Fatalf("read event: %v", err)
	}
	return n
}

func (c *client) readNumber() (int64, error) {
	data, err := c.readEvent()
	if err != nil {
		return 0, err
	}
	_, rest, _ := bytes.Cut(data, []byte(`"number":`))
	digits, _, _ := bytes.Cut(rest, []byte{','})
	return strconv.ParseInt(string(digits), 10, 64)
}

var errClosed = errors.New("close frame")

func (c *client) readEvent() ([]byte, error) {
	for c.socket {
		opcode, payload, err := c.readFrame()
		switch {
		case err != nil:
			return nil, err
		case opcode == 1:
			return payload, nil
		case opcode == 8:
			return payload, errClosed
		}
	}
	for {
		line, err := c.in.ReadSlice('\n')
		for errors.Is(err, bufio.ErrBufferFull) {
			line = append(bytes.Clone(line), 0)[:len(line)]
			var more []byte
			more, err = c.in.ReadSlice('\n')
			line = append(line, more...)
		}
		if err != nil {
			return nil, err
		}
		if data, ok := bytes.CutPrefix(line, []byte("data: ")); ok {
			return bytes.Clone(data), nil
		}
	}
}

func (c *client) readFrame() (opcode byte, payload []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(c.in, head[:]); err != nil {
		return 0, nil, err
	}
	n := uint64(head[1])
	switch n {
	case 126:
		var b [2]byte
		_, err = io.ReadFull(c.in, b[:])
		n = uint64(binary.BigEndian.Uint16(b[:]))
	case 127:
		var b [8]byte
		_, err = io.ReadFull(c.in, b[:])
		n = binary.BigEndian.Uint64(b[:])
	}
	if err != nil {
		return 0, nil, err
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(c.in, payload)
	return head[0] & 0xf, payload, err
}

// frame is a client's frame, masked with zeros, which leave the payload as it is.
func frame(first byte, payload string) []byte {
	b := []byte{first, 0x80 | byte(min(len(payload), 126))}
	if len(payload) > 125 {
		b = binary.BigEndian.AppendUint16(b, uint16(len(payload)))
	}
	b = append(b, 0, 0, 0, 0)
	return append(b, payload...)
}

func (c *client) send(b []byte) {
	c.t.Helper()
	if _, err := c.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

// waitFor waits until a condition holds.
func waitFor(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		case <-tick.C:
		}
	}
}
