package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// answerBuffer holds any answer that is measured.
	answerBuffer = 16 << 10
	// answerWithin bounds the wait for one answer, so that a server that hangs ends the run.
	answerWithin = 20 * time.Second
	// checkEvery is how often the body of an answer is looked at besides its status.
	checkEvery = 256
)

// requests are ready to be written to a connection. They lie in one piece of memory without
// pointers, so that the driver's garbage collector has nothing to do with them.
type requests struct {
	bytes []byte
	ends  []int
}

func (r *requests) add(parts ...string) {
	for _, part := range parts {
		r.bytes = append(r.bytes, part...)
	}
	r.ends = append(r.ends, len(r.bytes))
}

func (r *requests) len() int { return len(r.ends) }

func (r *requests) at(i int) []byte {
	start := 0
	if i > 0 {
		start = r.ends[i-1]
	}
	return r.bytes[start:r.ends[i]]
}

// target is a server with keep-alive connections to it.
type target struct {
	name        string
	connections []net.Conn
	status      int                     // what every answer must have
	check       func(body []byte) error // of some bodies; nil is no check
}

// dial opens connections to a server.
func dial(ctx context.Context, name, address string, n, status int, check func([]byte) error) (*target, error) {
	t := &target{name: name, status: status, check: check}
	var dialer net.Dialer
	for range n {
		c, err := dialer.DialContext(ctx, "tcp", address)
		if err != nil {
			t.close()
			return nil, fmt.Errorf("connect to %s: %w", name, err)
		}
		t.connections = append(t.connections, c)
	}
	return t, nil
}

func (t *target) close() {
	for _, c := range t.connections {
		_ = c.Close()
	}
}

// pace is what a drive came to.
type pace struct {
	answers   int
	elapsed   time.Duration
	latencies []time.Duration
}

func (p pace) perSecond() float64 { return float64(p.answers) / p.elapsed.Seconds() }

// drive sends the requests in rotation over all connections, each of which sends its next request
// when it has the answer to its last. It ends after a duration, or when every request was sent
// once where they are not to be repeated. The first wrong answer ends it too.
func (t *target) drive(ctx context.Context, r *requests, duration time.Duration, once bool) (pace, error) {
	d := drive{target: t, requests: r, once: once}
	stopped := context.AfterFunc(ctx, func() { d.fail(ctx.Err()) })
	defer stopped()
	timer := time.AfterFunc(duration, func() { d.stop.Store(true) })
	defer timer.Stop()
	latencies := make([][]time.Duration, len(t.connections))
	begin := time.Now()
	var group sync.WaitGroup
	for i, c := range t.connections {
		group.Go(func() {
			var err error
			if latencies[i], err = d.connection(c, begin.Add(duration+answerWithin)); err != nil {
				d.fail(err)
			}
		})
	}
	group.Wait()
	p := pace{elapsed: time.Since(begin)}
	for _, list := range latencies {
		p.answers += len(list)
		p.latencies = append(p.latencies, list...)
	}
	if err := d.failed.Load(); err != nil {
		return p, fmt.Errorf("drive %s: %w", t.name, *err)
	}
	if p.answers == 0 {
		return p, fmt.Errorf("drive %s: no answer", t.name)
	}
	return p, nil
}

// drive is one call of target.drive; its connections share it.
type drive struct {
	target   *target
	requests *requests
	once     bool
	next     atomic.Int64
	stop     atomic.Bool
	failed   atomic.Pointer[error]
}

func (d *drive) fail(err error) {
	d.failed.CompareAndSwap(nil, &err)
	d.stop.Store(true)
}

// connection sends one request after the other.
func (d *drive) connection(c net.Conn, deadline time.Time) ([]time.Duration, error) {
	if err := c.SetDeadline(deadline); err != nil {
		return nil, err
	}
	buffer := make([]byte, answerBuffer)
	var latencies []time.Duration
	before := time.Now()
	for !d.stop.Load() {
		i := int(d.next.Add(1) - 1)
		if i >= d.requests.len() {
			if d.once {
				break
			}
			i %= d.requests.len()
		}
		if _, err := c.Write(d.requests.at(i)); err != nil {
			return latencies, err
		}
		r, err := readResponse(c, buffer)
		if err != nil {
			return latencies, err
		}
		after := time.Now()
		latencies = append(latencies, after.Sub(before))
		before = after
		body := buffer[r.head:r.size]
		if r.status != d.target.status {
			return latencies, fmt.Errorf("got status %d %.200s, want %d", r.status, body, d.target.status)
		}
		if d.target.check != nil && i%checkEvery == 0 {
			if err := d.target.check(body); err != nil {
				return latencies, fmt.Errorf("%w: %.200s", err, body)
			}
		}
	}
	return latencies, nil
}

// readResponse reads one answer. Nothing may follow it, for nothing else was asked.
func readResponse(c io.Reader, buffer []byte) (response, error) {
	for n := 0; ; {
		if n == len(buffer) {
			return response{}, errLongMessage
		}
		m, err := c.Read(buffer[n:])
		n += m
		r, complete, parseErr := parseResponse(buffer[:n])
		switch {
		case parseErr != nil:
			return response{}, parseErr
		case complete && n > r.size:
			return response{}, errors.New("more was answered than asked")
		case complete:
			return r, nil
		case err != nil:
			return response{}, fmt.Errorf("read answer: %w", err)
		}
	}
}
