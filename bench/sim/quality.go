package main

import (
	"waitingroom/origin/queue"
)

const (
	tenths = 10
	// followed is about how many fans' estimates are noted.
	followed = 50_000
	// noteEvery is how often a fan's estimate is noted.
	noteEvery = 60 * second
	// soon is how long after the first admissions there is to be an estimate.
	soon = 2 * minute
	// A ratio of P90 to P50, or of what came to P50, is counted in steps.
	ratioStep, mostRatio = 0.05, 20.0
)

// coverage says whether a fan had an estimate soon after the first admissions.
type coverage uint8

const (
	notAsked coverage = iota
	hadNone
	hadOne
)

// quality judges the estimates that fans are told by what came. A fan's estimate counts if the
// fan stayed, that is, was never absent between being told and being offered a slot.
type quality struct {
	every   uint32 // one in so many tickets is followed
	samples []sample
	first   int32 // when the first slot was offered, 0 before
	result  estimates
	waits   waitTimes
}

// sample is an estimate that was told.
type sample struct {
	before   int32 // the ticket's one before, one more than its index
	at       int32
	p50, p90 int32
	tenth    uint8
}

// estimates are counts of told estimates, by the tenth of the line in which the fan stood then.
type estimates struct {
	Tenths [tenths]tenth
	// Stayed are the followed fans who waited soon after the first admissions and stayed, Had
	// those of them who had an estimate.
	Stayed, Had int
}

type tenth struct {
	told, held50, held90 int
	spread, came         [int(mostRatio/ratioStep) + 1]int // P90 to P50, and what came to P50
}

func newQuality(p plan) *quality {
	return &quality{every: uint32(max(p.fans/followed, 1))}
}

// told notes what a waiting fan is told.
func (q *quality) told(w *world, t *ticket, s *queue.Status, waiting int) {
	if t.position%q.every != 0 {
		return
	}
	if t.covered == notAsked && q.first > 0 && w.now >= q.first+soon && w.now < q.first+2*soon {
		if t.covered = hadNone; s.WaitSeconds != nil {
			t.covered = hadOne
		}
	}
	if s.WaitSeconds == nil || t.samples > 0 && w.now-t.sampled < noteEvery {
		return
	}
	place := int(*s.Ahead) * tenths / max(waiting, 1)
	q.samples = append(q.samples, sample{
		before: t.samples, at: w.now, tenth: uint8(min(place, tenths-1)),
		p50: int32(s.WaitSeconds.P50), p90: int32(s.WaitSeconds.P90),
	})
	t.samples, t.sampled = int32(len(q.samples)), w.now
}

// offered compares what a fan was told with what came.
func (q *quality) offered(w *world, position uint64) {
	p := &w.books.places[position]
	now := w.books.now
	q.waits.add(now - p.joined)
	if q.first == 0 {
		q.first = now
	}
	if position >= uint64(len(w.holder)) || position%uint64(q.every) != 0 {
		return
	}
	t := &w.tickets[w.holder[position]]
	if uint64(t.position) != position || t.doing != waits {
		return
	}
	if t.covered != notAsked && t.backAt < q.first+soon {
		q.result.Stayed++
		if t.covered == hadOne {
			q.result.Had++
		}
	}
	for i := t.samples; i > 0; i = q.samples[i-1].before {
		if s := &q.samples[i-1]; s.at >= t.backAt {
			q.result.Tenths[s.tenth].judge(s, float64(now-s.at)/second)
		}
	}
}

func (t *tenth) judge(s *sample, came float64) {
	t.told++
	if came <= float64(s.p50) {
		t.held50++
	}
	if came <= float64(s.p90) {
		t.held90++
	}
	t.spread[step4(float64(s.p90)/float64(max(s.p50, 1)))]++
	t.came[step4(came/float64(max(s.p50, 1)))]++
}

func step4(ratio float64) int { return int(min(max(ratio, 0), mostRatio) / ratioStep) }

// median of ratios that are counted in steps.
func median(counts []int) float64 {
	total := 0
	for _, n := range counts {
		total += n
	}
	sum := 0
	for i, n := range counts {
		if sum += n; 2*sum >= total && total > 0 {
			return (float64(i) + 0.5) * ratioStep
		}
	}
	return 0
}

func (t *tenth) add(o *tenth) {
	t.told += o.told
	t.held50 += o.held50
	t.held90 += o.held90
	for i := range t.spread {
		t.spread[i] += o.spread[i]
		t.came[i] += o.came[i]
	}
}

func (e *estimates) add(o *estimates) {
	for i := range e.Tenths {
		e.Tenths[i].add(&o.Tenths[i])
	}
	e.Stayed += o.Stayed
	e.Had += o.Had
}

func (e *estimates) all() tenth {
	var sum tenth
	for i := range e.Tenths {
		sum.add(&e.Tenths[i])
	}
	return sum
}

// waitTimes counts waits by the second.
type waitTimes struct {
	bySecond []int
	total    int
}

func (h *waitTimes) add(ms int32) {
	s := int(ms / second)
	for len(h.bySecond) <= s {
		h.bySecond = append(h.bySecond, 0)
	}
	h.bySecond[s]++
	h.total++
}

// percentile is a number of seconds that the given part of the waits did not exceed.
func (h *waitTimes) percentile(p float64) int {
	sum := 0
	for s, n := range h.bySecond {
		if sum += n; float64(sum) >= p/100*float64(h.total) {
			return s
		}
	}
	return 0
}
