package main

import (
	"errors"
	"math"
	"slices"
	"time"
)

// bound says on which side of its budget a figure has to be.
type bound string

const (
	atLeast bound = "at least"
	atMost  bound = "at most"
)

// limit is a budget of one figure.
type limit struct {
	name   string
	unit   string
	bound  bound
	budget float64
}

// figure is what was measured for a limit, and the verdict.
type figure struct {
	Name   string  `json:"name"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
	Bound  bound   `json:"bound"`
	Budget float64 `json:"budget"`
	Met    bool    `json:"met"`
}

// judge compares a value with its budget; one that is not a number has missed it.
func (l limit) judge(value float64) figure {
	met := value >= l.budget
	if l.bound == atMost {
		met = value <= l.budget
	}
	return figure{Name: l.name, Value: rounded(value), Unit: l.unit, Bound: l.bound, Budget: l.budget, Met: met}
}

// rounded keeps four digits, which is more than any of the figures is sure of.
func rounded(value float64) float64 {
	if value == 0 || math.IsNaN(value) || math.IsInf(value, 0) {
		return value
	}
	scale := math.Pow(10, 3-math.Floor(math.Log10(math.Abs(value))))
	return math.Round(value*scale) / scale
}

// round is one turn of the alternation: what the server did and what the yardstick did right
// before or after it.
type round struct{ server, yardstick float64 }

func (r round) ratio() float64 { return r.server / r.yardstick }

var errNoRounds = errors.New("no round was measured")

// medianRound is the round with the median ratio, the lower one of two. Other load on the machine
// weighs on both halves of a round alike, so rounds are compared and not rates over all of them.
func medianRound(rounds []round) (round, error) {
	if len(rounds) == 0 {
		return round{}, errNoRounds
	}
	sorted := slices.SortedFunc(slices.Values(rounds), func(a, b round) int {
		switch left, right := a.ratio(), b.ratio(); {
		case left < right:
			return -1
		case left > right:
			return 1
		}
		return 0
	})
	return sorted[(len(sorted)-1)/2], nil
}

// median of numbers, the lower one of two; 0 of none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(values))[(len(values)-1)/2]
}

// percentile is the least of the times that so many percent of them do not exceed (the nearest-rank
// method); 0 of none.
func percentile(times []time.Duration, percent float64) time.Duration {
	if len(times) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(times))
	rank := int(math.Ceil(percent / 100 * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
