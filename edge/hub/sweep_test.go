package hub

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// pipe opens a live connection whose client is the other end of a pipe.
func pipe(l *Line, kind kind) net.Conn {
	server, client := net.Pipe()
	go l.open(server, kind, Fan{Position: 1}, nil, "")
	return client
}

// swept runs a hub and its sweeps for a while in which nothing else happens.
func swept(t *testing.T, teller Teller, during func(h *Hub, l *Line)) {
	synctest.Test(t, func(t *testing.T) {
		h := New(10, 10*time.Second, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { _ = h.Run(ctx); close(done) }()
		swept := make(chan struct{})
		go func() {
			defer close(swept)
			tick := time.NewTicker(time.Second)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
					h.Sweep()
				}
			}
		}()
		during(h, h.NewLine(teller))
		cancel()
		<-done
		<-swept
	})
}

// TestEverybodyHearsSomething at least every 15 s: who waits a status, who does not a sign of life.
func TestEverybodyHearsSomething(t *testing.T) {
	for name, quietly := range map[string]bool{"told again": false, "nothing to say": true} {
		for k := range kinds {
			t.Run(name+" "+kinds[k], func(t *testing.T) {
				plain := &counting{}
				teller := &counting{tell: func(b []byte, c *Conn) ([]byte, Event) {
					if quietly && c.Told() != 0 {
						return b, Event{}
					}
					return plain.Tell(b, c)
				}}
				swept(t, teller, func(h *Hub, l *Line) {
					conn := pipe(l, kind(k))
					defer conn.Close()
					in := bufio.NewReader(conn)
					last, since := time.Now(), time.Now()
					c := &client{Conn: conn, t: t, socket: kind(k) == webSocket, in: in}
					for time.Since(since) < 5*time.Minute {
						if c.socket {
							opcode, payload, err := c.readFrame()
							if err != nil {
								t.Fatalf("after %v: %v", time.Since(since), err)
							}
							if opcode == 9 {
								c.send(frame(0x8A, string(payload)))
							}
						} else if _, err := in.ReadString('\n'); err != nil {
							t.Fatalf("after %v: %v", time.Since(since), err)
						}
						if heard := time.Since(last); heard > 15*time.Second {
							t.Fatalf("heard nothing for %v", heard)
						}
						last = time.Now()
					}
				})
			})
		}
	}
}

// TestSilentSocketsAreDropped: a client that answers no ping is dead, whatever its network takes.
func TestSilentSocketsAreDropped(t *testing.T) {
	swept(t, &counting{}, func(h *Hub, l *Line) {
		conn := pipe(l, webSocket)
		defer conn.Close()
		since := time.Now()
		if _, err := io.Copy(io.Discard, conn); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(since); took < time.Minute || took > 90*time.Second {
			t.Errorf("dropped after %v, want about 75 s", took)
		}
		if h.Open() != 0 {
			t.Errorf("open: got %d, want 0", h.Open())
		}
	})
}

// TestSocketsInAMovingLineAreKept: who hears of every move, and is never told again for lack of news,
// is asked for a sign of life all the same, and not more often than others.
func TestSocketsInAMovingLineAreKept(t *testing.T) {
	swept(t, &counting{}, func(h *Hub, l *Line) {
		conn := pipe(l, webSocket)
		defer conn.Close()
		c := &client{Conn: conn, t: t, socket: true, in: bufio.NewReader(conn)}
		quiet := make(chan struct{})
		defer close(quiet)
		go func() {
			for {
				select {
				case <-time.After(2 * time.Second):
					l.TellAll(false)
				case <-quiet:
					return
				}
			}
		}()
		asked := 0
		for since := time.Now(); time.Since(since) < 5*time.Minute; {
			opcode, payload, err := c.readFrame()
			if err != nil {
				t.Fatalf("after %v, asked %d times: %v", time.Since(since), asked, err)
			}
			if opcode == 9 {
				asked++
				c.send(frame(0x8A, string(payload)))
			}
		}
		if asked < 8 || asked > 11 {
			t.Errorf("asked %d times in five minutes, want about every 30 s", asked)
		}
	})
}

// TestAMessageHasItsTime: it may come slowly, but must have come ten seconds after it began.
func TestAMessageHasItsTime(t *testing.T) {
	const inTime, late = time.Second / 2, 3 * time.Second // from byte to byte
	for _, every := range []time.Duration{inTime, late} {
		swept(t, &counting{}, func(h *Hub, l *Line) {
			conn := pipe(l, webSocket)
			defer conn.Close()
			since := time.Now()
			ended := make(chan time.Duration, 1)
			go func() {
				_, _ = io.Copy(io.Discard, conn)
				ended <- time.Since(since)
			}()
			message := append(frame(0x01, ""), frame(0x80, "")...)
			for _, b := range bytes.Repeat(message, 5) {
				time.Sleep(every)
				if _, err := conn.Write([]byte{b}); err != nil {
					break
				}
			}
			if every == inTime {
				if h.Open() != 1 {
					t.Errorf("messages that take 6 s each: dropped after %v", <-ended)
				}
			} else if took := <-ended; took != every+framePatience {
				t.Errorf("a message of which a byte comes every 3 s: dropped %v after the first one, want %v", took-every, framePatience)
			}
		})
	}
}

// TestAClientThatDoesNotClose is closed.
func TestAClientThatDoesNotClose(t *testing.T) {
	swept(t, &counting{}, func(h *Hub, l *Line) {
		conn := pipe(l, webSocket)
		defer conn.Close()
		var read atomic.Int64
		go func() {
			n, _ := io.Copy(io.Discard, conn)
			read.Store(n)
		}()
		time.Sleep(time.Second) // of the bubble's clock
		l.Refuse(func(Fan) bool { return true })
		time.Sleep(closePatience + 2*time.Second)
		if h.Open() != 0 {
			t.Errorf("open: got %d, want 0", h.Open())
		}
	})
}

// TestWhoKnowsMoreWaits: a stream whose client was told of a later state hears nothing before the
// Teller has caught up.
func TestWhoKnowsMoreWaits(t *testing.T) {
	var caughtUp atomic.Bool
	plain := &counting{}
	teller := &counting{tell: func(b []byte, c *Conn) ([]byte, Event) {
		if !caughtUp.Load() {
			return b, Event{Later: true}
		}
		return plain.Tell(b, c)
	}}
	swept(t, teller, func(h *Hub, l *Line) {
		conn := pipe(l, serverSent)
		defer conn.Close()
		lines := make(chan string, 100)
		go func() {
			defer close(lines)
			for in := bufio.NewScanner(conn); in.Scan(); {
				lines <- in.Text()
			}
		}()
		time.Sleep(20 * time.Second)
		l.TellLater()
		synctest.Wait()
		for len(lines) > 0 {
			if line := <-lines; line != "" && line != ":" {
				t.Errorf("before it has caught up: got %q, want comments alone", line)
			}
		}
		caughtUp.Store(true)
		l.TellLater()
		synctest.Wait()
		if line := <-lines; !strings.HasPrefix(line, "id: ") {
			t.Errorf("afterwards: got %q, want the event", line)
		}
		if got := len(l.later); got != 0 {
			t.Errorf("those who wait: got %d, want none", got)
		}
	})
}

// TestLostConnectionsHaveAReason: whoever closes is told from whoever vanished.
func TestLostConnectionsHaveAReason(t *testing.T) {
	for err, want := range map[error]Drop{
		io.EOF:             DropGone,
		net.ErrClosed:      DropGone,
		syscall.ECONNRESET: DropGone,
		syscall.ETIMEDOUT:  DropUnacknowledged,
		error(&net.OpError{Op: "write", Err: os.NewSyscallError("write", syscall.ETIMEDOUT)}): DropUnacknowledged,
	} {
		if got := lost(err); got != want {
			t.Errorf("%v: got %s, want %s", err, dropNames[got], dropNames[want])
		}
	}
}

// TestNobodyIsSilentWhileTheEdgeIsStopped: whoever was neither asked nor heard meanwhile gets the time to
// answer afterwards.
func TestNobodyIsSilentWhileTheEdgeIsStopped(t *testing.T) {
	h := New(10, 10*time.Second, slog.New(slog.DiscardHandler))
	l := h.NewLine(&counting{})
	server, client := tcpPair(t)
	defer client.Close()
	defer server.Close()
	c := &Conn{Fan: Fan{Position: 1}, line: l, conn: server, kind: webSocket}
	c.hear()
	l.add(c)
	h.open.Add(1)
	h.Sweep()
	h.start = h.start.Add(-2 * silentAfter) // nothing runs for so long
	h.Sweep()
	if c.gone.Load() {
		t.Fatal("dropped at once when the edge ran again")
	}
	for range 2 * silentAfter / time.Second {
		h.start = h.start.Add(-time.Second)
		h.Sweep()
	}
	if !c.gone.Load() {
		t.Error("not dropped, though it has answered nothing since")
	}
}
