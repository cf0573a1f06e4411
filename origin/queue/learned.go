package queue

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Learned is what was learned of the errors of forecasts, by horizon: how far ahead they look. An
// error is the logarithm of the true wait over the forecast one, in units of the expected error.
type Learned struct {
	P50 []float64 `json:"p50"` // the median of the errors
	P90 []float64 `json:"p90"` // their aimedDecile
}

const (
	// The horizons are 15 s · 2^n.
	firstHorizon = 15 * time.Second
	horizons     = 9
	// learningRate is how far one error of the first horizon moves what was learned, in units of the
	// expected error. Each horizon learns half as fast as the one before: the longer forecasts look
	// ahead, the more of the errors that come in one after the other are the same one, seen again.
	// What a horizon learns, a longer one, which must wait longer for its own errors, learns in part.
	learningRate, passedOn = 0.4, 0.5
	// mostLearned bounds what is learned.
	mostLearned = 5.0
	// forecastError is the part of the expected error that comes from what was measured; tailError
	// that of sessions longer than any that was seen, if all were; chanceError that of a single offer.
	forecastError, tailError, chanceError = 0.03, 0.25, 0.7
	// aimedDecile is the quantile that is tracked for P90. The errors of one sale have mostly one sign
	// for a while, which the tracking follows late; a little above the ninth decile makes up for it.
	aimedDecile = 0.95
	// ninthDecile is that of the normal distribution.
	ninthDecile = 1.2816
)

func newLearned() Learned {
	l := Learned{make([]float64, horizons), make([]float64, horizons)}
	for i := range l.P90 {
		l.P90[i] = ninthDecile
	}
	return l
}

// learnedBefore is what the coordinator before has learned, if it has.
func learnedBefore(estimate *Estimate) Learned {
	if estimate == nil || len(estimate.Learned.P50) != horizons || len(estimate.Learned.P90) != horizons {
		return newLearned()
	}
	return estimate.Learned.published()
}

// published is a copy with few digits.
func (l Learned) published() Learned {
	round := func(list []float64) []float64 {
		list = slices.Clone(list)
		for i := range list {
			list[i] = math.Round(list[i]*1000) / 1000
		}
		return list
	}
	return Learned{round(l.P50), round(l.P90)}
}

// expectedError is that of the logarithm of a forecast: the relative error of a sum of n waits falls
// with the root of n, the number of offers.
func (p point) expectedError() float64 {
	tail := tailError * p.unseen
	return math.Sqrt(forecastError*forecastError + tail*tail + chanceError*chanceError/(p.offers+1))
}

// wait makes a range of a forecast.
func (l Learned) wait(p point) Wait {
	horizon := min(max(math.Log2(float64(p.wait)/float64(firstHorizon)), 0), horizons-1)
	i := min(int(horizon), horizons-2)
	at := func(list []float64) float64 { return list[i] + (list[i+1]-list[i])*(horizon-float64(i)) }
	median, decile := at(l.P50), at(l.P90)
	seconds, e := p.wait.Seconds(), p.expectedError()
	return Wait{
		P50: int(seconds*math.Exp(median*e) + 0.5),
		P90: int(seconds*math.Exp(max(decile, median)*e) + 0.5),
	}
}

// take moves what was learned by one error at a horizon.
func (l Learned) take(horizon int, e float64) {
	for rate := math.Ldexp(learningRate, -horizon); horizon < horizons; horizon++ {
		nudge(&l.P50[horizon], e, 0.5, rate)
		nudge(&l.P90[horizon], e, aimedDecile, rate)
		rate *= passedOn
	}
}

// nudge tracks a quantile: it stays where it is in the mean when errors exceed it with the
// probability 1 - level.
func nudge(quantile *float64, e, level, rate float64) {
	if e > *quantile {
		*quantile += rate * level
	} else {
		*quantile -= rate * (1 - level)
	}
	*quantile = min(max(*quantile, -mostLearned), mostLearned)
}

// curve makes the curve of a forecast: waits never fall along the line.
func (l Learned) curve(points []point) Curve {
	var c Curve
	last := Wait{P50: 1, P90: 1}
	for _, p := range points {
		w := l.wait(p)
		last.P50 = max(last.P50, w.P50)
		last.P90 = max(last.P90, w.P90, last.P50)
		c.Ahead = append(c.Ahead, uint64(min(p.ahead, 1<<53)))
		c.P50 = append(c.P50, last.P50)
		c.P90 = append(c.P90, last.P90)
	}
	return c
}

// prediction is a forecast for a position that the watermark is yet to reach.
type prediction struct {
	position      uint64
	at            time.Time
	wait          time.Duration
	expectedError float64
	horizon       int
}

// predict makes a prediction for each horizon as far as the line reaches.
func predict(v *View, points []point, now time.Time) []prediction {
	var list []prediction
	for horizon := range horizons {
		i, _ := slices.BinarySearchFunc(points, firstHorizon<<horizon, func(p point, wait time.Duration) int {
			return cmp.Compare(p.wait, wait)
		})
		if i == len(points) {
			break
		}
		position := v.positionBehind(uint64(min(points[i].ahead, 1<<53)))
		if position == 0 || position > v.Issued {
			break
		}
		// What this fan would be told, that Ahead is an upper bound included.
		p := pointOf(points, float64(v.Ahead(position)))
		if p.wait > 0 {
			list = append(list, prediction{position, now, p.wait, p.expectedError(), horizon})
		}
	}
	return list
}

// pointOf is the point of a forecast with so many ahead.
func pointOf(points []point, ahead float64) point {
	i, _ := slices.BinarySearchFunc(points, ahead, func(p point, a float64) int { return cmp.Compare(p.ahead, a) })
	i = min(i, len(points)-1)
	p := points[i]
	if i > 0 && ahead < p.ahead {
		before := points[i-1]
		part := (ahead - before.ahead) / (p.ahead - before.ahead)
		p.wait = before.wait + time.Duration(part*float64(p.wait-before.wait))
		p.offers = before.offers + part*(p.offers-before.offers)
	}
	return p
}

// positionBehind is the position beyond the watermark that is not done and has so many ahead who
// are not; 0 when no block reaches that far.
func (v *View) positionBehind(ahead uint64) uint64 {
	i, _ := slices.BinarySearch(v.ahead, ahead+1)
	if i == 0 || i >= len(v.ahead) {
		return 0
	}
	index := uint64(i - 1)
	b, left := v.blocks[index], ahead-v.ahead[index]
	n := uint64(0)
	if index == v.Watermark/BlockSize {
		n = v.Watermark % BlockSize
	}
	for ; n < BlockSize; n++ {
		if b.fate(n).Done() {
			continue
		}
		if left == 0 {
			return index*BlockSize + n + 1
		}
		left--
	}
	return 0
}
