package queue

import "slices"

// How a wait is estimated
//
// The coordinator makes an estimate every ten seconds, and at once when the settings change, and
// logs it: so it is the same on every edge, a new edge has it from its snapshot, and a poll only
// reads a table. The table says how long a fan waits who has so many ahead (Curve). It is made in
// three steps, each in a file of its own.
//
// Measuring (estimator.go). A slot comes free when a session ends, so the admission rate to come
// depends on how old the sessions are that run now: after an opening nearly all are equally old, and
// they end in waves. Hence the estimator measures, for each age, which share of the sessions of that
// age ends in the next step. This is the life table of actuaries (Kaplan and Meier, Nonparametric
// Estimation from Incomplete Observations, JASA 53, 1958), which learns also from sessions that
// have not ended yet: two minutes after an opening that is nearly all of them. Beyond the oldest age
// that was seen the hazard goes on as a log-logistic distribution fitted to what was seen. Measured
// besides: the share of offers that is claimed, and how fast; the share of those present among
// those whom the watermark passes, and in the whole line; how fast the present go away (who is seen
// no more is missed a turn and a half later); and how many owed fans come back in a minute.
//
// Forecasting (forecast.go). From the sessions and offers that run now, the slots are played
// forward in steps of ten seconds: sessions end, no-shows lapse, free slots are offered as far as
// capacity and maxPerMinute allow, first to owed fans, then to those present beyond the
// watermark, who become fewer the longer it takes. So a retune, a pause that is over, or a reopening
// changes the forecast at once, although nothing could be measured under the new settings yet.
// Expected numbers take the place of chance; what chance adds is the next step's business.
//
// Learning from errors (learned.go). For some places in line the forecast is kept until the
// watermark gets there. The median and the ninth decile of the errors are tracked for each
// horizon by moving a little up after each error above, and a little down after each one below (the
// quantile tracking of Gibbs and Candès, Adaptive Conformal Inference Under Distribution Shift,
// NeurIPS 2021), which comes to hold whatever the errors look like. P50 and P90 are the forecast
// corrected by them. Until there are errors to learn from, an expected error stands in, wider where
// few offers are to be made, as chance then weighs more, and as long as no session is old.
//
// There is no estimate before some sessions have ended, while the queue is not open, and beyond the
// table's end. What is estimated is the wait of those who stay.

// Estimate is what the coordinator logs: the curve, and what it has learned of its errors, so that
// the next coordinator need not begin anew.
type Estimate struct {
	Curve
	Learned Learned `json:"learned"`
}

// Curve turns Ahead into a wait: a line through points (Ahead, seconds) in ascending order. It is
// part of the public state, and the page reads it by the same rules.
type Curve struct {
	Ahead []uint64 `json:"ahead"`
	P50   []int    `json:"p50"` // seconds, one for each of Ahead
	P90   []int    `json:"p90"`
}

// Wait estimates how long a fan who stays waits: with as many ahead as a point of the curve, as
// long as the point says; between two points in proportion, in whole seconds; before the first
// point as long as there; known is false beyond the last one, and on a nil curve.
//
// The owed (the fan's position is not beyond the watermark) come before everybody with nobody
// ahead, lowest position first. How many of them stand before this one is not published: in the
// mean it is half.
func (c *Curve) Wait(ahead uint64, owed bool) (w Wait, known bool) {
	if c == nil {
		return Wait{}, false
	}
	i, _ := slices.BinarySearch(c.Ahead, ahead)
	if i >= len(c.Ahead) || i >= len(c.P50) || i >= len(c.P90) {
		return Wait{}, false
	}
	w = Wait{c.P50[i], c.P90[i]}
	if i > 0 && ahead < c.Ahead[i] {
		part := float64(ahead-c.Ahead[i-1]) / float64(c.Ahead[i]-c.Ahead[i-1])
		w.P50 = between(c.P50[i-1], w.P50, part)
		w.P90 = between(c.P90[i-1], w.P90, part)
	}
	if owed {
		w.P50 = (w.P50 + 1) / 2
	}
	return w, true
}

func between(from, to int, part float64) int {
	// Converted once more, lest a processor with fused arithmetic rounds otherwise than the page.
	return from + int(float64(float64(to-from)*part)+0.5)
}

// curve is the public part of the estimate while the queue admits.
func (v *View) curve() *Curve {
	if v.Estimate == nil || v.Settings.State != Open {
		return nil
	}
	return &v.Estimate.Curve
}
