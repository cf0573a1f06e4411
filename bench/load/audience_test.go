package main

import (
	"slices"
	"testing"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"

	"waitingroom/bench/fans"
)

// heard is a report with times from rendering to reading, in milliseconds.
func heard(t *testing.T, r fans.Report, times ...int64) *fans.Report {
	t.Helper()
	for _, to := range []*[]byte{&r.Told, &r.Offers, &r.Closing} {
		h := fans.NewHistogram()
		for _, ms := range times {
			if err := h.RecordValue(ms * 1000); err != nil {
				t.Fatal(err)
			}
		}
		encoded, err := h.Encode(hdr.V2CompressedEncodingCookieBase)
		if err != nil {
			t.Fatal(err)
		}
		*to = encoded
	}
	return &r
}

func TestReportsAddUp(t *testing.T) {
	total := newTold()
	for second := range 2 {
		now := newTold()
		for crowd := range 3 {
			r := heard(t, fans.Report{
				Fans: 10, WebSockets: 4 + second, Streams: 5, Statuses: 7, Offered: 1, Wrong: 1,
				Ended: map[string]int{"reset": 1}, Ticks: map[int64]int{int64(second): 2}, Back: []int64{int64(crowd)},
			}, int64(10*(crowd+1)))
			if err := now.add(r); err != nil {
				t.Fatal(err)
			}
		}
		total.follow(now)
	}
	if total.Fans != 30 || total.Connected() != 30 {
		t.Errorf("got %d fans, %d connected, want the 30 of the last report", total.Fans, total.Connected())
	}
	if total.Statuses != 42 || total.Offered != 6 || total.Wrong != 6 || total.dropped() != 6 || len(total.Back) != 6 {
		t.Errorf("got %d statuses, %d offers, %d wrong, %d dropped, %d back, want the sums",
			total.Statuses, total.Offered, total.Wrong, total.dropped(), len(total.Back))
	}
	if total.Ticks[0] != 6 || total.Ticks[1] != 6 || mostAtOneTick(total.Ticks) != 6 {
		t.Errorf("got ticks %v, want six offers at each of two", total.Ticks)
	}
	if n, p50 := total.events.TotalCount(), micros(total.events, 50); n != 6 || p50 < 20 || p50 > 20.1 {
		t.Errorf("got %d events, half of them within %v ms, want 6 and 20 ms", n, p50)
	}
	kept := total.clone()
	total.follow(kept)
	if kept.events.TotalCount() != 6 || kept.Ticks[0] != 6 || total.events.TotalCount() != 12 {
		t.Errorf("a clone: got %d events, want that it stays", kept.events.TotalCount())
	}
	if err := total.add(&fans.Report{}); err == nil {
		t.Error("a report without histograms: got no error, want one")
	}
}

func TestMostInASecond(t *testing.T) {
	at := func(ms ...int64) []int64 {
		for i := range ms {
			ms[i] *= 1000
		}
		return ms
	}
	for name, c := range map[string]struct {
		moments []int64
		want    int
	}{
		"none":              {nil, 0},
		"far apart":         {at(0, 1000, 2000), 1},
		"over a full hour":  {at(900, 950, 1100, 1899, 1900), 4},
		"all at one moment": {at(5, 5, 5), 3},
	} {
		if got := mostInASecond(c.moments); got != c.want {
			t.Errorf("%s: got %d, want %d", name, got, c.want)
		}
	}
	if got := backPercentile(at(1000, 2000, 3000), time.UnixMicro(0), 99); got != 3 {
		t.Errorf("got the last one back after %v s, want 3", got)
	}
}

func TestDroppedConnectionsAreRead(t *testing.T) {
	text := []byte(`# HELP waitingroom_edge_live_dropped_total Live connections that ended, by reason.
waitingroom_edge_live_dropped_total{reason="silent"} 3
waitingroom_edge_live_dropped_total{reason="slow_reader"} 1e+03
waitingroom_edge_live_dropped_total{reason="moved"} 0
waitingroom_edge_live_connections{kind="sse"} 7
`)
	sums := map[string]float64{"silent": 1}
	if err := addDropped(sums, text); err != nil {
		t.Fatal(err)
	}
	if len(sums) != 2 || sums["silent"] != 4 || sums["slow_reader"] != 1000 {
		t.Errorf("got %v, want 4 silent and 1000 slow readers", sums)
	}
	if err := addDropped(sums, []byte(droppedMetric+`{reason="silent"} many`)); err == nil {
		t.Error("no number: got no error, want one")
	}
}

func TestSeatsHoldEverybody(t *testing.T) {
	list := seats(100_000, 6)
	sum := 0
	for _, s := range list {
		sum += s.fans
		if s.fans < 16_666 || s.fans > 16_667 {
			t.Errorf("got %d fans at edge %d, want them spread evenly", s.fans, s.home)
		}
	}
	if sum != 100_000 {
		t.Errorf("got %d seats, want one for each", sum)
	}
}

func TestAxesEndAtRoundNumbers(t *testing.T) {
	var got []float64
	for _, v := range []float64{0, 0.25, 1, 7, 12, 121, 5001} {
		got = append(got, rounder(v))
	}
	if want := []float64{1, 0.25, 1, 8, 12, 150, 6000}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
