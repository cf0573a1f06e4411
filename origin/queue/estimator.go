package queue

import (
	"math"
	"time"
)

const (
	// observeEvery is how often a queue is observed, unless its settings change.
	observeEvery = 10 * time.Second
	// longestGap is the longest time between two observations that can be compared.
	longestGap = time.Minute
	// leastEnds is how many sessions must have ended before there is a measure.
	leastEnds = 8
	// Of what was observed so long ago, 1/e still counts: what becomes of offers and sessions, and who
	// is present where the watermark passes; how fast fans go away.
	shopMemory, goingMemory = 10 * time.Minute, 30 * time.Minute
	// goingPrior is the time, in seconds, for which it is taken that nobody has gone away: at the
	// beginning phones that sleep and will be back look like fans who go away.
	goingPrior = 150
	// mostPredictions bounds those that wait for their position to be reached.
	mostPredictions = 4096
	// leastPresent bounds the share of fans who are present.
	leastPresent = 0.05
	// mostFading bounds the share of them who go away within a step.
	mostFading = 0.05
)

// Estimator measures a queue and estimates waits. The zero value is ready; one goroutine owns it.
type Estimator struct {
	view *View // of the last observation
	last observation

	// By age in steps: sessions that ended, and seconds that sessions spent. endedEver counts all.
	ended, spent []float64
	endedEver    int
	// Offers that were claimed and that lapsed, and the seconds until the claims.
	claimed, lapsed, delay float64
	// Seconds with the owed fans who came back in them.
	seconds, returned float64
	// Positions that the watermark passed, and those of them that were offered a slot.
	passed, offered float64
	// Seconds that present fans spent, and how many of them went away.
	stayed, gone float64
	presences    []int // of the last turn and a half, oldest first

	learned     Learned
	predictions []prediction
}

// observation is what is compared with the next one.
type observation struct {
	at       time.Time
	settings estimatedBy
	present  int
	// cohorts are the running sessions by the step in which they started, that of newest first;
	// ages are the same by age in steps. The last element holds all older ones.
	newest  int64
	cohorts []int
	ages    []float64
	// backlog: the last offers were made to owed fans alone.
	backlog bool
}

// estimatedBy are the settings on which waits depend.
type estimatedBy struct {
	state                              State
	capacity, perMinute, window, claim int
}

func (s Settings) estimatedBy() estimatedBy {
	return estimatedBy{s.State, s.Capacity, s.MaxPerMinute, s.PurchaseWindowSeconds, s.ClaimSeconds}
}

// Due reports whether the queue is to be observed now.
func (e *Estimator) Due(v *View, now time.Time) bool {
	return now.Sub(e.last.at) >= observeEvery || v.Settings.estimatedBy() != e.last.settings
}

// estimateStep is the step of the forecast: ten seconds, or a 120th of a longer window.
func (s Settings) estimateStep() time.Duration {
	return max(10*time.Second, (s.PurchaseWindow() / 120).Truncate(time.Second))
}

// Observe takes in the queue, and how many of those who wait are present, and returns an estimate;
// nil while there is none to make.
func (e *Estimator) Observe(v *View, present int, now time.Time) *Estimate {
	before, last := e.view, e.last
	e.view, e.last = v, v.observe(present, now)
	gap := now.Sub(last.at)
	if last.settings.window != e.last.settings.window {
		e.ended, e.spent, e.endedEver = nil, nil, 0 // by other steps
	}
	switch {
	case before == nil || before.Incarnation != v.Incarnation || before.Generation() != v.Generation() || before.since != v.since || gap < 0 || gap > longestGap:
		e.learned, e.predictions, e.presences = learnedBefore(v.Estimate), nil, nil
		return nil
	case last.settings.window != e.last.settings.window: // the two cannot be compared
	case last.settings.state == Open && e.last.settings.state == Open:
		e.measure(before, last, gap)
	}
	if last.settings != e.last.settings {
		e.predictions = nil
	}
	e.learn(before, last)
	if v.Settings.State != Open || v.Waiting == 0 || e.endedEver < leastEnds {
		return nil
	}
	points := e.shop().forecast(2*float64(v.Issued-v.Watermark) + BlockSize)
	if len(points) == 0 {
		return nil
	}
	if len(e.predictions) < mostPredictions {
		e.predictions = append(e.predictions, predict(v, points, now)...)
	}
	return &Estimate{Curve: e.learned.curve(points), Learned: e.learned.published()}
}

func (v *View) observe(present int, now time.Time) observation {
	step := v.Settings.estimateStep()
	n := int64(v.Settings.PurchaseWindow()/step) + 3
	o := observation{
		at: now, settings: v.Settings.estimatedBy(), present: present,
		newest: now.UnixNano() / int64(step), cohorts: make([]int, n), ages: make([]float64, n),
	}
	for _, b := range v.blocks {
		for _, s := range b.sessions {
			started := s.StartsAt.UnixNano()
			o.cohorts[min(max(o.newest-started/int64(step), 0), n-1)]++
			o.ages[min(max((now.UnixNano()-started)/int64(step), 0), n-1)]++
		}
	}
	return o
}

// memory sums up observations and lets old ones fade.
func memory(gap, length time.Duration) func(sum *float64, more float64) {
	keep := math.Exp(-float64(gap) / float64(length))
	return func(sum *float64, more float64) { *sum = *sum*keep + more }
}

// measure compares the view and the observation before with the last ones.
func (e *Estimator) measure(before *View, last observation, gap time.Duration) {
	v := e.view
	seconds := gap.Seconds()
	offered := v.flow.offered - before.flow.offered
	toOwed := v.flow.toOwed - before.flow.toOwed
	e.last.backlog = v.Watermark == before.Watermark && (toOwed > 0 || offered == 0 && last.backlog)

	e.measureSessions(last, gap)
	shop := memory(gap, shopMemory)
	shop(&e.claimed, float64(v.flow.claimed-before.flow.claimed))
	shop(&e.lapsed, float64(v.flow.lapsed-before.flow.lapsed))
	shop(&e.delay, (v.flow.delay - before.flow.delay).Seconds())
	if 2*toOwed <= offered { // else a backlog is served, which says nothing about who comes back
		shop(&e.returned, float64(toOwed))
		shop(&e.seconds, seconds)
	}

	if e.last.backlog {
		// The watermark ran past fans who had not been seen yet, which says nothing either.
		e.passed, e.offered = 0, 0
	} else {
		shop(&e.passed, float64(before.notDone(before.Watermark, v.Watermark)))
		shop(&e.offered, float64(offered-toOwed))
	}

	going := memory(gap, goingMemory)
	going(&e.gone, float64(v.Issued-before.Issued)-float64(offered)-float64(e.last.present-last.present))
	e.presences = append(e.presences, e.last.present)
	exposed := 0
	if late := int(v.Settings.TurnLength()*3/2/observeEvery) + 1; len(e.presences) > late {
		e.presences = e.presences[len(e.presences)-late:]
		exposed = e.presences[0]
	}
	going(&e.stayed, seconds*float64(exposed))
}

// measureSessions counts which sessions have ended since the last observation, and how old they
// were.
func (e *Estimator) measureSessions(last observation, gap time.Duration) {
	step := int64(e.view.Settings.estimateStep())
	if len(e.ended) != len(e.last.cohorts) {
		e.ended, e.spent = make([]float64, len(e.last.cohorts)), make([]float64, len(e.last.cohorts))
	}
	shop := memory(gap, shopMemory)
	for a := range e.ended {
		shop(&e.ended[a], 0)
		shop(&e.spent[a], 0)
	}
	shift := int(e.last.newest - last.newest)
	middle := last.at.Add(gap / 2).UnixNano()
	// The newest cohort was still growing, and the last is a mixture.
	for i := 1; i < len(last.cohorts)-1-shift; i++ {
		were, are := last.cohorts[i], e.last.cohorts[i+shift]
		ended := max(were-are, 0)
		// Sessions that are a whole number of steps old and grow by one are a step older in
		// the mean than that number when they are half way.
		a := (middle - (last.newest-int64(i))*step - step) / step
		a = min(max(a, 0), int64(len(e.ended)-1))
		e.ended[a] += float64(ended)
		e.spent[a] += gap.Seconds() * (float64(were) - float64(ended)/2)
		e.endedEver += ended
	}
}

// learn compares predictions with what came.
func (e *Estimator) learn(before *View, last observation) {
	v := e.view
	open := e.predictions[:0]
	for _, p := range e.predictions {
		if p.position > v.Watermark {
			open = append(open, p)
			continue
		}
		// When between the two observations, nobody has noted.
		part := float64(p.position-min(before.Watermark, p.position)) / float64(max(v.Watermark-before.Watermark, 1))
		came := last.at.Add(time.Duration(part * float64(e.last.at.Sub(last.at)))).Sub(p.at)
		e.learned.take(p.horizon, math.Log(max(came, time.Second).Seconds()/p.wait.Seconds())/p.expectedError)
	}
	e.predictions = open
}

// shop is what was measured.
func (e *Estimator) shop() shop {
	v, o := e.view, e.last
	step := v.Settings.estimateStep()
	s := shop{
		step: step, capacity: float64(v.Settings.Capacity), perStep: math.Inf(1),
		ages:    o.ages,
		returns: ratio(e.returned, e.seconds) * step.Seconds(),
		beyond:  float64(v.Waiting - v.Owed), present: 1, atEnd: 1,
	}
	s.survival, s.unseen = survival(e.ended, e.spent, step)
	if perMinute := v.Settings.MaxPerMinute; perMinute > 0 {
		s.perStep = float64(perMinute) * step.Minutes()
	}
	e.splitOffers(&s)

	if o.backlog {
		s.backlog = float64(v.Owed) * min(float64(o.present)/float64(v.Waiting), 1)
	}
	share := func(n, of float64) float64 { return min(max(n/of, leastPresent), 1) }
	if s.beyond > 0 {
		mean := share(float64(o.present)-s.backlog, s.beyond)
		s.present, s.atEnd = mean, mean
		if e.passed >= 20 {
			s.present = share(e.offered, e.passed)
			s.atEnd = share(2*mean-s.present, 1)
		}
	}
	s.fading = min(1-math.Exp(-ratio(e.gone, e.stayed+goingPrior*float64(o.present))*step.Seconds()), mostFading)
	return s
}

// splitOffers tells the running offers that will be claimed from those that will lapse: whoever
// does not claim soon will hardly claim at all.
func (e *Estimator) splitOffers(s *shop) {
	v, now := e.view, e.last.at
	delay := ratio(e.delay, e.claimed)
	life := v.Settings.Claim() + ClaimGrace
	s.lapsing = make([]float64, int(life/s.step)+2)
	late := 0.0
	for _, b := range v.blocks {
		for _, offer := range b.offers {
			if made := offer.ClaimBy.Add(-v.Settings.Claim()); now.Sub(made).Seconds() > 30+5*delay {
				late++
			}
		}
	}
	// Before the first offers lapse, those that are late stand for them.
	s.claimed = 1 - ratio(max(e.lapsed, late), e.claimed+max(e.lapsed, late))
	s.delay = delay / s.step.Seconds()
	for _, b := range v.blocks {
		for _, offer := range b.offers {
			left := offer.ClaimBy.Add(ClaimGrace).Sub(now)
			// Bayes' rule, with claims after an exponentially distributed time.
			slow := s.claimed * math.Exp(-max((life-left).Seconds(), 0)/max(delay, 0.1))
			claimed := ratio(slow, slow+1-s.claimed)
			s.claiming += claimed
			s.lapsing[min(max(int(left/s.step)+1, 1), len(s.lapsing)-1)] += 1 - claimed
		}
	}
}

// notDone counts the positions after `after`, up to `to`, that are not done.
func (v *View) notDone(after, to uint64) uint64 {
	n := to - min(after, to)
	for i := after / BlockSize; i < uint64(len(v.blocks)) && i*BlockSize < to; i++ {
		first := max(after, i*BlockSize) - i*BlockSize
		end := min(to-i*BlockSize, BlockSize)
		n -= uint64(v.blocks[i].doneBefore(end) - v.blocks[i].doneBefore(first))
	}
	return n
}

// ratio is a/b, at least 0; 0 where there is nothing to divide by.
func ratio(a, b float64) float64 {
	if b <= 0 {
		return 0
	}
	return max(a/b, 0)
}
