package main

import (
	"fmt"
	"math"

	hdr "github.com/HdrHistogram/hdrhistogram-go"

	"waitingroom/bench/plot"
)

const (
	blue, red, grey = "#1f5fa8", "#b3401f", "#444444"
	budgetOfOffers  = 250 // ms
	budgetOfClosing = 5   // s
)

// rounder is a round number at or above a value, for an axis to end at.
func rounder(value float64) float64 {
	if value <= 0 {
		return 1
	}
	scale := math.Pow(10, math.Floor(math.Log10(value)))
	for _, m := range []float64{1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8} {
		if m*scale >= value {
			return m * scale
		}
	}
	return 10 * scale
}

// axis is one from 0 to a round number with five marks.
func axis(most float64) plot.Axis {
	most = rounder(most)
	a := plot.Axis{Most: most, Format: "%g"}
	for i := range 6 {
		a.Marks = append(a.Marks, most*float64(i)/5)
	}
	return a
}

// plotConnections draws, second by second while the line moves, how many events there were and how
// long they took.
func plotConnections(series []second) string {
	d := plot.New(2, 1)
	var events, p50, p99, most []plot.Point
	longest, busiest, last := 0.0, 0.0, 1.0
	for i, s := range series {
		at := s.at.Seconds()
		between := at
		if i > 0 {
			between -= series[i-1].at.Seconds()
		}
		perSecond := float64(s.events) / max(between, 0.001)
		events = append(events, plot.Point{X: at, Y: perSecond})
		p50, p99 = append(p50, plot.Point{X: at, Y: s.p50}), append(p99, plot.Point{X: at, Y: s.p99})
		most = append(most, plot.Point{X: at, Y: s.max})
		longest, busiest, last = max(longest, s.max), max(busiest, perSecond), at
	}
	const caption = "seconds since the line began to move"
	p := d.Panel(0, 0, "events told in a second", caption, axis(last), axis(busiest))
	p.Line("", blue, events)
	p = d.Panel(1, 0, "milliseconds from an event's rendering to its being read", caption, axis(last), axis(longest))
	p.Line("max", grey, most)
	p.Line("p99", red, p99)
	p.Line("p50", blue, p50)
	return d.SVG()
}

// plotLive draws by percentile how long it took until those were told who were let in at one tick, in
// each round, and until everybody was told of the closing.
func plotLive(rounds []told, all *told) string {
	d := plot.New(2, 1)
	longest := float64(budgetOfOffers)
	for _, r := range rounds {
		longest = max(longest, micros(r.offers, 100))
	}
	p := d.Panel(0, 0, "milliseconds from the tick until told of the offer, each round", "percentile", percentiles(), axis(longest))
	p.Band(0, budgetOfOffers)
	for i, r := range rounds {
		p.Line(fmt.Sprint(i+1), []string{blue, red, grey}[i%3], distribution(r.offers, 1))
	}
	p = d.Panel(1, 0, "seconds from the order to close until told of it", "percentile", percentiles(),
		axis(max(micros(all.closing, 100)/1000, budgetOfClosing)))
	p.Band(0, budgetOfClosing)
	p.Line("", blue, distribution(all.closing, 1000))
	return d.SVG()
}

// percentiles is an axis from 0 to 100 %.
func percentiles() plot.Axis {
	return plot.Axis{Most: 100, Marks: []float64{0, 25, 50, 75, 100}, Format: "%.0f"}
}

// distribution is a histogram by percentile, in milliseconds divided by something.
func distribution(h *hdr.Histogram, by float64) []plot.Point {
	var points []plot.Point
	for percent := 0.5; percent <= 100; percent += 0.5 {
		points = append(points, plot.Point{X: percent, Y: micros(h, percent) / by})
	}
	return points
}
