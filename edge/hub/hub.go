package hub

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// Hub holds live connections. Make it with New; Run must run for anything to be written.
type Hub struct {
	// WriteTimeout is how long a connection may take to accept what is written to it.
	WriteTimeout time.Duration
	// MostConnections is how many are held at once.
	MostConnections int
	Logger          *slog.Logger
	Metrics         *Metrics

	start time.Time
	queue *queue
	open  atomic.Int64
	// work counts the workers, the goroutines of connections, and those who open one.
	work sync.WaitGroup

	mu      sync.Mutex
	lines   map[*Line]struct{} // those with connections
	stopped bool
	// When the last sweep was, and when the first one after a time in which this process was stopped.
	swept, resumed time.Duration
}

// New makes a hub.
func New(mostConnections int, writeTimeout time.Duration, logger *slog.Logger) *Hub {
	return &Hub{
		WriteTimeout: writeTimeout, MostConnections: mostConnections, Logger: logger, Metrics: newMetrics(),
		start: time.Now(), queue: newQueue(), lines: make(map[*Line]struct{}),
	}
}

// Open is how many connections there are.
func (h *Hub) Open() int { return int(h.open.Load()) }

// Run writes until ctx ends, then drops what is still connected, and returns when no goroutine of
// the hub is left.
func (h *Hub) Run(ctx context.Context) error {
	for range max(2, runtime.GOMAXPROCS(0)) {
		h.work.Go(h.write)
	}
	<-ctx.Done()
	h.mu.Lock()
	h.stopped = true
	h.mu.Unlock()
	for _, c := range h.all() {
		c.drop(DropStopped)
	}
	h.queue.close()
	h.work.Wait()
	return nil
}

// enter lets a goroutine open a connection, unless the hub has stopped; it must call work.Done.
func (h *Hub) enter() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopped {
		return false
	}
	h.work.Add(1)
	return true
}

func (h *Hub) hasStopped() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.stopped
}

// write is what a worker does: it serves those who wait in the queue.
func (h *Hub) write() {
	w := newWriter()
	for {
		c, ok := h.queue.take()
		if !ok {
			return
		}
		c.serve(w)
	}
}

// Drain tells all connections to go elsewhere, evenly over a time, and returns when they are gone or
// ctx has ended. Who connects meanwhile is the caller's business.
func (h *Hub) Drain(ctx context.Context, over time.Duration) {
	conns := h.all()
	rand.Shuffle(len(conns), func(i, j int) { conns[i], conns[j] = conns[j], conns[i] })
	const step = 20 * time.Millisecond
	tick := time.NewTicker(step)
	defer tick.Stop()
	since := time.Now()
	for next := 0; next < len(conns) && h.Open() > 0; {
		due := len(conns)
		if spent := time.Since(since); spent < over {
			due = int(int64(len(conns)) * int64(spent) / int64(over))
		}
		for ; next < due; next++ {
			conns[next].close(CloseRestart, DropMoved)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
	for _, c := range h.all() { // also who was let in just before the drain began
		c.close(CloseRestart, DropMoved)
	}
	for h.Open() > 0 && time.Since(since) < over+closePatience {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			h.Sweep()
		}
	}
}

// all lists the connections.
func (h *Hub) all() []*Conn {
	h.mu.Lock()
	lines := make([]*Line, 0, len(h.lines))
	for l := range h.lines {
		lines = append(lines, l)
	}
	h.mu.Unlock()
	var conns []*Conn
	for _, l := range lines {
		conns = l.appendAll(conns)
	}
	return conns
}

// now is the progress since the hub was made.
func (h *Hub) now() time.Duration { return time.Since(h.start) }

// guard keeps a panic in a goroutine of one connection from ending the process: that connection is
// dropped. It must be deferred.
func (c *Conn) guard() {
	if cause := recover(); cause != nil {
		c.line.hub.panicked(cause)
		c.drop(DropPanic)
	}
}

// panicked tells of a panic, but not its text unless it is the runtime's, which holds nothing that
// was sent.
func (h *Hub) panicked(cause any) {
	h.Metrics.panics.Inc()
	text := fmt.Sprintf("%T", cause)
	if err, ok := cause.(interface {
		error
		RuntimeError()
	}); ok {
		text = err.Error()
	}
	h.Logger.Error("live connection panicked", "cause", text, "stack", string(debug.Stack()))
}
