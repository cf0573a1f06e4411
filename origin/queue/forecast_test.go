package queue

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// steady is a shop that offers a hundred slots in a step, for ever: a thousand slots, and a tenth of
// the sessions of every age end in a step.
func steady() shop {
	s := shop{step: 10 * time.Second, capacity: 1000, perStep: math.Inf(1), claimed: 1, lapsing: make([]float64, 32), present: 1, atEnd: 1, beyond: 100_000}
	s.ages, s.survival = make([]float64, 200), make([]float64, 200)
	for a := range s.ages {
		s.ages[a], s.survival[a] = 100*math.Pow(0.9, float64(a)), 0.9
	}
	return s
}

// Where the answer can be worked out, the forecast comes to it.
func TestForecast(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*shop)
		ahead  float64
		want   time.Duration
	}{
		{"steady", func(*shop) {}, 18_000, 1800 * time.Second},
		{"half are present", func(s *shop) { s.present, s.atEnd = 0.5, 0.5 }, 36_000, 1800 * time.Second},
		// To place x of 100,000 there are 0.5 x + x²/400,000 who are present.
		{"half are present in front, all at the end", func(s *shop) { s.present = 0.5 }, 40_000, 2400 * time.Second},
		// After t steps 100 · (t + 0.006/2 · t²) of those who are present now are out of the way: fewer and
		// fewer go, or it would be 1220 s.
		{"six in a thousand go in the next step", func(s *shop) { s.fading = 0.006 }, 18_000, 1296 * time.Second},
		{"within the first step", func(*shop) {}, 49, 5 * time.Second},
		{"in front", func(*shop) {}, 0, 100 * time.Millisecond},
		{"owed fans come back", func(s *shop) { s.returns = 20 }, 18_000, 2250 * time.Second},
		{"owed fans wait for a slot", func(s *shop) { s.backlog = 6000 }, 18_000, 2400 * time.Second},
		{"maxPerMinute", func(s *shop) { s.perStep = 50 }, 18_000, 3600 * time.Second},
		{"twice the slots", func(s *shop) { s.capacity = 2000 }, 19_000, 900 * time.Second},
		// A no-show keeps a slot for 30 steps, a session for ten: 1000 / (0.9 · 10 + 0.1 · 30) in a step.
		{"one in ten does not claim", func(s *shop) {
			s.claimed = 0.9
			for a := range s.ages {
				s.ages[a] *= 0.75
			}
			for k := 1; k <= 30; k++ {
				s.lapsing[k] = 250.0 / 30
			}
			s.lapsing = s.lapsing[:31]
		}, 15_000, 1800 * time.Second},
	} {
		s := steady()
		c.change(&s)
		points := s.forecast(2 * c.ahead)
		got := pointOf(points, c.ahead).wait
		if ratio := got.Seconds() / c.want.Seconds(); ratio < 0.97 || ratio > 1.03 {
			t.Errorf("%s: the wait behind %.0f is %v, want about %v", c.name, c.ahead, got, c.want)
		}
	}
	s := steady()
	s.capacity, s.ages, s.backlog = 1000, make([]float64, 200), 5000
	s.ages[0] = 1000
	if got := pointOf(s.forecast(1000), 0).wait; got < 480*time.Second || got > 510*time.Second {
		t.Errorf("in front of the line, behind 5000 owed, the wait is %v, want about 500 s", got)
	}
	s.backlog = 0
	s.capacity = 0
	if points := s.forecast(1000); len(points) != 0 {
		t.Errorf("a shop without slots admits %v", points)
	}
}

// The life table finds the distribution that the sessions have, also from those that run still.
func TestSurvival(t *testing.T) {
	const step = 10 * time.Second
	normal := func(z float64) float64 { return math.Erfc(-z/math.Sqrt2) / 2 }
	lognormal := func(age float64) float64 { // with a mean of 240: a median of 211.8, a deviation of 0.5
		z := math.Log(age/211.8) / 0.5
		return math.Exp(-z*z/2) / math.Sqrt(2*math.Pi) / (0.5 * age) / normal(-z)
	}
	for _, c := range []struct {
		name   string
		hazard func(age float64) float64 // in a second
		seen   int
		mean   float64 // seconds
		within float64
	}{
		{"exponential, seen for half a mean", func(float64) float64 { return 1.0 / 240 }, 12, 240, 0.05},
		{"exponential, seen for long", func(float64) float64 { return 1.0 / 240 }, 100, 240, 0.02},
		// Weibull with a mean of 240: scale 270.8, power 2.
		{"Weibull, seen for half a mean", func(age float64) float64 { return 2 * age / (270.8 * 270.8) }, 12, 240, 0.33},
		{"Weibull, seen for long", func(age float64) float64 { return 2 * age / (270.8 * 270.8) }, 60, 240, 0.03},
		{"log-normal, seen for half a mean", lognormal, 12, 240, 0.15},
		{"log-normal, seen for a mean", lognormal, 24, 240, 0.05},
		{"log-normal, seen for long", lognormal, 60, 240, 0.03},
	} {
		ended, spent := make([]float64, 200), make([]float64, 200)
		for a := range c.seen {
			spent[a] = 1e6
			ended[a] = 1e6 * c.hazard((float64(a)+0.5)*10)
		}
		mean, alive := 0.0, 1.0
		shares, unseen := survival(ended, spent, step)
		for a, share := range shares {
			mean += alive * (1 + share) / 2 * step.Seconds()
			alive *= share
			if a == c.seen-1 && math.Abs(unseen-alive) > 1e-9 {
				t.Errorf("%s: %.3f outlive what was seen, want %.3f", c.name, unseen, alive)
			}
		}
		if math.Abs(mean/c.mean-1) > c.within {
			t.Errorf("%s: sessions last %.0f s in the mean, want about %.0f", c.name, mean, c.mean)
		}
	}
}

// Whatever the errors are, half of them come to lie above the median, and as many above the decile as it aims at.
func TestLearnedFollowsTheErrors(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	l := newLearned()
	var above50, above90 int
	const n = 4000
	for i := range n {
		e := 1.5 - r.ExpFloat64()
		if i > n/2 {
			e = -1 + 2*r.NormFloat64() // something has changed
		}
		if e > l.P50[3] {
			above50++
		}
		if e > l.P90[3] {
			above90++
		}
		l.take(3, e)
	}
	aimed := n * (1 - aimedDecile)
	if above50 < n*48/100 || above50 > n*52/100 || float64(above90) < 0.9*aimed || float64(above90) > 1.1*aimed {
		t.Errorf("of %d errors %d were above the median and %d above the decile, want about %d and %.0f", n, above50, above90, n/2, aimed)
	}
	if l.P50[2] != 0 || l.P50[4] == 0 {
		t.Errorf("learned %v, want nothing for shorter horizons, and something for longer ones", l.P50)
	}
	// Of forecasts twice as long twice as many are wrong for the same reason.
	for horizon := range horizons - 1 {
		short, long := newLearned(), newLearned()
		short.take(horizon, 1)
		long.take(horizon+1, 1)
		if got, want := long.P50[horizon+1], short.P50[horizon]/2; math.Abs(got-want) > 1e-9 {
			t.Errorf("an error moves horizon %d by %.4f, want %.4f, half of what it moves the one before", horizon+1, got, want)
		}
	}
	for range 1000 {
		l.take(0, math.Inf(1))
	}
	if w := l.wait(point{ahead: 5, wait: time.Hour, offers: 0}); w.P50 < 1 || w.P90 < w.P50 || w.P90 > 1_000_000 {
		t.Errorf("after errors beyond all measure: %+v, want something sensible", w)
	}
}

// What nobody has seen yet makes the range wider: a forecast from young sessions, one of few offers.
func TestExpectedError(t *testing.T) {
	settled := point{wait: time.Hour, offers: 10_000}
	young, few := settled, settled
	young.unseen, few.offers = 0.5, 10
	l := newLearned()
	for name, p := range map[string]point{"half of the sessions outlive what was seen": young, "ten offers": few} {
		if got, than := l.wait(p), l.wait(settled); got.P50 != than.P50 || got.P90 < than.P90*11/10 {
			t.Errorf("%s: %+v, want P50 as in %+v, and P90 a tenth higher at least", name, got, than)
		}
	}
}

// A queue that was not observed for longer than is measured across comes back with another window, and
// paused besides: what was measured by the steps of the old window must not meet the sessions of the new.
func TestEstimatorOutlivesAGapWithAnotherWindow(t *testing.T) {
	for _, window := range []int{100, 600, 1200} {
		start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		s := DefaultSettings()
		s.Capacity, s.PurchaseWindowSeconds = 100, 60
		v := NewView(Snapshot{ID: "shop.match", Incarnation: "i", Generations: []string{"g"}, Issued: 500, Settings: s})
		var e Estimator
		e.Observe(v, 400, start)
		e.Observe(v, 400, start.Add(10*time.Second))
		e.endedEver = 20 // as after twenty ends
		paused := *v
		paused.Settings.State, paused.Settings.PurchaseWindowSeconds = Paused, window
		e.Observe(&paused, 400, start.Add(80*time.Second))
		open := paused
		open.Settings.State = Open
		if got := e.Observe(&open, 400, start.Add(90*time.Second)); got != nil {
			t.Errorf("window of %d s: got an estimate, want none before sessions have ended in it", window)
		}
	}
}
