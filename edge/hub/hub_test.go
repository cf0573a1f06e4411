package hub

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"), // sleeps on for ten seconds
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"))    // never ends
}

func TestEventsComeInOrderAndTheNewestIsNotMissed(t *testing.T) {
	teller := &counting{}
	r := startRig(t, teller, nil)
	for _, kind := range bothKinds {
		c := r.dial(kind, 7)
		last := c.number()
		for range 200 {
			n := teller.number.Add(1)
			r.line.Tell([]uint64{3, 7, 4000}, nil)
			for last < n {
				got := c.number()
				if got <= last {
					t.Fatalf("%s: got event %d after %d", kind, got, last)
				}
				last = got
			}
		}
	}
}

func TestOnlyThoseNamedAreTold(t *testing.T) {
	teller := &counting{}
	r := startRig(t, teller, nil)
	positions := []uint64{1, 2, 1024, 1025, 2048, 2049, 5000, 5000} // the last one on two devices
	var clients []*client
	for i, position := range positions {
		c := r.dial(bothKinds[i%2], position)
		c.number()
		clients = append(clients, c)
	}
	teller.number.Store(1)
	told := 0
	r.line.Tell([]uint64{2, 1025, 5000, 9999}, func(*Conn) { told++ })
	if told != 4 {
		t.Errorf("told: got %d connections, want 4", told)
	}
	for i, position := range positions {
		if position == 2 || position == 1025 || position == 5000 {
			if got := clients[i].number(); got != 1 {
				t.Errorf("position %d: got event %d, want 1", position, got)
			}
		}
	}
	teller.number.Store(2)
	r.line.TellAll(false)
	for i, c := range clients {
		if got := c.number(); got != 2 {
			t.Errorf("position %d: got event %d, want 2 and nothing before it", positions[i], got)
		}
	}
}

// TestConnectionsComeAndGo lets thousands come and go while everybody is told things, and leaves
// nothing behind.
func TestConnectionsComeAndGo(t *testing.T) {
	teller := &counting{}
	r := startRig(t, teller, nil)
	const fans, rounds = 64, 60 // 3,840 connections
	var served atomic.Int64
	stop := make(chan struct{})
	var feed sync.WaitGroup
	feed.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for i := uint64(1); ; i++ {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			teller.number.Add(1)
			switch i % 4 {
			case 0:
				r.line.TellAll(i%8 == 0)
			case 1:
				r.line.Advance(evenLine{i}, true)
			case 2:
				r.hub.Sweep()
			default:
				r.line.Tell([]uint64{1 + i%5000, 2 + i%5000}, nil)
			}
		}
	})
	var all sync.WaitGroup
	for fan := range fans {
		all.Go(func() {
			for round := range rounds {
				c, err := r.connect(bothKinds[round%2], uint64(1+rand.N(5000)))
				if err != nil {
					t.Error(err)
					return
				}
				for range rand.N(4) {
					if _, err := c.readNumber(); err != nil {
						t.Errorf("event: %v", err)
					}
				}
				switch (fan + round) % 3 {
				case 0: // a reset
					_ = c.Conn.(*net.TCPConn).SetLinger(0)
				case 1:
					if c.socket {
						_, _ = c.Write(frame(0x88, "\x03\xe8"))
						for err = nil; err == nil; {
							_, err = c.readEvent()
						}
						if !errors.Is(err, errClosed) {
							t.Errorf("close: got %v, want an answer to it", err)
						}
					}
				}
				_ = c.Close()
				served.Add(1)
			}
		})
	}
	all.Wait()
	close(stop)
	feed.Wait()
	waitFor(t, "all connections to be gone", func() bool { return r.hub.Open() == 0 })
	if r.line.Len() != 0 || len(r.line.blocks) != 0 || len(r.hub.lines) != 0 {
		t.Errorf("left in the line: %d connections, %d blocks", r.line.Len(), len(r.line.blocks))
	}
	if got := r.dropped(DropGone); int64(got) != served.Load() {
		t.Errorf("gone: got %d, want %d", got, served.Load())
	}
	r.stop()
}

// evenLine is a line in which everybody waits and the watermark is mark.
type evenLine struct{ mark uint64 }

func (l evenLine) Mark() uint64                 { return l.mark }
func (l evenLine) Ahead(position uint64) uint64 { return position - min(position, l.mark+1) }
func (l evenLine) OpenThrough(index uint64) uint64 {
	return (index+1)*blockSize - min((index+1)*blockSize, l.mark)
}

// TestDeadReadersHarmNobody: many read nothing at all. They are dropped when the time to accept a
// write is over, each is counted, and in the meantime the others hear everything.
func TestDeadReadersHarmNobody(t *testing.T) {
	teller := &counting{padding: 60_000} // so that the kernel's buffers are soon full
	r := startRig(t, teller, func(h *Hub) { h.WriteTimeout = time.Second })
	const dead, well = 100, 20
	for i := range dead {
		c := r.dial(bothKinds[i%2], uint64(i+1))
		_ = c.Conn.(*net.TCPConn).SetReadBuffer(4096)
	}
	var done sync.WaitGroup
	for i := range well {
		c := r.dial(bothKinds[i%2], uint64(5000+i))
		done.Go(func() {
			for {
				n, err := c.readNumber()
				if err != nil {
					t.Errorf("a good reader: %v", err)
				}
				if err != nil || n == 400 {
					return
				}
			}
		})
	}
	for range 400 {
		teller.number.Add(1)
		r.line.TellAll(false)
	}
	done.Wait()
	waitFor(t, "the dead readers to be dropped", func() bool {
		r.line.TellAll(false)
		return r.dropped(DropSlow) == dead
	})
	if got := r.hub.Open(); got > well {
		t.Errorf("open: got %d, want at most the %d good ones", got, well)
	}
}

// TestASlowReaderGetsTheNewest: what could not be written while a client did not read is not
// kept; it hears the newest when it reads again.
func TestASlowReaderGetsTheNewest(t *testing.T) {
	for _, kind := range bothKinds {
		teller := &counting{padding: 100_000}
		r := startRig(t, teller, nil)
		c := r.dial(kind, 1)
		const events = 1000
		for range events {
			teller.number.Add(1)
			r.line.TellAll(false)
		}
		waitFor(t, "a stall", func() bool { return testutil.ToFloat64(r.hub.Metrics.stalls) > 0 })
		read, last := 0, int64(-1)
		for last < events {
			n := c.number()
			if n < last {
				t.Fatalf("%s: got event %d after %d", kind, n, last)
			}
			last = n
			read++
		}
		if read > events/2 {
			t.Errorf("%s: read %d of %d events, want most of them replaced by newer ones", kind, read, events)
		}
		r.stop()
	}
}

func TestAPanicEndsOneConnectionOnly(t *testing.T) {
	teller := &counting{}
	plain := &counting{}
	teller.tell = func(b []byte, c *Conn) ([]byte, Event) {
		if c.Position == 13 && c.Told() != 0 || c.Position == 14 {
			panic("unlucky")
		}
		return plain.Tell(b, c)
	}
	r := startRig(t, teller, nil)
	for _, kind := range bothKinds {
		other, unlucky := r.dial(kind, 1), r.dial(kind, 13)
		other.number()
		unlucky.number()
		if c, err := r.connect(kind, 14); err == nil { // the stream's head is not written either
			if _, err := c.readNumber(); err == nil {
				t.Errorf("%s: the one that panics at once got an event", kind)
			}
			_ = c.Close()
		}
		plain.number.Add(1)
		r.line.TellAll(true)
		if got := other.number(); got != plain.number.Load() {
			t.Errorf("%s: the other: got event %d, want %d", kind, got, plain.number.Load())
		}
		if _, err := unlucky.readNumber(); err == nil {
			t.Errorf("%s: the unlucky one got an event", kind)
		}
		_ = other.Close()
		waitFor(t, "all to be gone", func() bool { return r.hub.Open() == 0 })
	}
	if got := r.dropped(DropPanic); got != 4 {
		t.Errorf("panics: got %d, want 4", got)
	}
}

func TestDrainMovesEvenly(t *testing.T) {
	r := startRig(t, &counting{}, nil)
	const conns = 100
	const over = time.Second
	var ends [conns]time.Duration
	var all sync.WaitGroup
	clients := make([]*client, conns)
	for i := range clients {
		clients[i] = r.dial(bothKinds[i%2], uint64(i+1))
		clients[i].number()
	}
	since := time.Now()
	for i, c := range clients {
		all.Go(func() {
			payload, err := c.readEvent()
			ends[i] = time.Since(since)
			if c.socket {
				if !errors.Is(err, errClosed) || !bytes.Equal(payload, []byte{0x03, 0xf4}) {
					t.Errorf("connection %d: got %x %v, want close code 1012", i, payload, err)
				}
				_, _ = c.Write(frame(0x88, string(payload)))
			} else if !errors.Is(err, io.EOF) {
				t.Errorf("connection %d: got %v, want the end of the stream", i, err)
			}
			_ = c.Close()
		})
	}
	r.hub.Drain(context.Background(), over)
	all.Wait()
	if r.hub.Open() != 0 || r.dropped(DropMoved) != conns {
		t.Errorf("moved: got %d of %d, %d left", r.dropped(DropMoved), conns, r.hub.Open())
	}
	early := 0
	for _, at := range ends {
		if at < over/2 {
			early++
		}
	}
	if early > conns*3/4 {
		t.Errorf("in the first half of the time: %d of %d, want them spread", early, conns)
	}
}

func TestTheLimitHolds(t *testing.T) {
	r := startRig(t, &counting{}, func(h *Hub) { h.MostConnections = 3 })
	for i := range 3 {
		r.dial(bothKinds[i%2], 1).number()
	}
	payload, err := r.dial("ws", 1).readEvent()
	if !errors.Is(err, errClosed) || !bytes.Equal(payload, []byte{0x03, 0xf5}) {
		t.Errorf("one too many: got %x %v, want close code 1013", payload, err)
	}
	if _, err := r.dial("events", 1).readEvent(); !errors.Is(err, io.EOF) {
		t.Errorf("one too many: got %v, want the end of the stream", err)
	}
	waitFor(t, "3 open and 2 refused", func() bool { return r.hub.Open() == 3 && r.dropped(DropLimit) == 2 })
}

// TestOneFanTakesOnlySomePlaces, however many connections are opened with the ticket.
func TestOneFanTakesOnlySomePlaces(t *testing.T) {
	r := startRig(t, &counting{}, nil)
	for i := range mostDevices {
		r.dial(bothKinds[i%2], 7).number()
	}
	payload, err := r.dial("ws", 7).readEvent()
	if !errors.Is(err, errClosed) || !bytes.Equal(payload, []byte{0x03, 0xf5}) {
		t.Errorf("one too many: got %x %v, want close code 1013", payload, err)
	}
	if _, err := r.dial("events", 7).readEvent(); !errors.Is(err, io.EOF) {
		t.Errorf("one too many: got %v, want the end of the stream", err)
	}
	r.dial("ws", 8).number() // another fan
	waitFor(t, "all but 2 open, and those refused", func() bool {
		return r.hub.Open() == mostDevices+1 && r.dropped(DropLimit) == 2
	})
}

func TestAClosedLineRefuses(t *testing.T) {
	r := startRig(t, &counting{}, nil)
	before := []*client{r.dial("ws", 1), r.dial("events", 2)}
	for _, c := range before {
		c.number()
	}
	r.line.Close()
	for i, c := range append(before, r.dial("ws", 3), r.dial("events", 4)) {
		payload, err := c.readEvent()
		if c.socket && fmt.Sprintf("%x", payload) != "03f0" || !c.socket && !errors.Is(err, io.EOF) {
			t.Errorf("connection %d: got %x %v, want close code 1008, or the end", i, payload, err)
		}
	}
}
