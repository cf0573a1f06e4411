package hub

import (
	"log/slog"
	"testing"
	"time"
)

// BenchmarkTick is what one step of the line costs the feed's goroutine with 100,000 connections, of
// which few must hear: sixteen who are named, and those in front.
func BenchmarkTick(b *testing.B) {
	const connections = 100_000
	h := New(connections, time.Second, slog.New(slog.DiscardHandler)) // not run: nothing is written
	line := h.NewLine(nil)
	v := &evenLine{}
	for i := range uint64(connections) {
		c := &Conn{Fan: Fan{Position: i + 1}, line: line}
		c.ahead.Store(v.Ahead(c.Position))
		line.add(c)
	}
	named := make([]uint64, 16)
	line.Advance(v, false)
	heard := 0
	b.ResetTimer()
	for range b.N {
		if v.mark += 1; v.mark > connections/2 {
			b.StopTimer()
			v.mark = 1
			line.Each(func(c *Conn) { c.ahead.Store(v.Ahead(c.Position)) })
			b.StartTimer()
		}
		for i := range named {
			named[i] = v.mark + uint64(i)*5000
		}
		line.Tell(named, nil)
		line.Advance(v, false)
		b.StopTimer()
		for h.queue.urgent.n+h.queue.routine.n > 0 {
			c, _ := h.queue.take()
			c.wants.And(^wantAny)
			c.ahead.Store(v.Ahead(c.Position))
			heard++
		}
		h.start = h.start.Add(-250 * time.Millisecond)
		b.StartTimer()
	}
	b.ReportMetric(float64(heard)/float64(b.N), "heard/op")
}
