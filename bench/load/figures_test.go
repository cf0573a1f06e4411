package main

import (
	"math"
	"testing"
	"time"
)

func TestMedianRoundIsTheOneInTheMiddle(t *testing.T) {
	for name, test := range map[string]struct {
		rounds []round
		want   round
	}{
		"one":                        {[]round{{50, 100}}, round{50, 100}},
		"odd, out of order":          {[]round{{90, 100}, {10, 100}, {60, 100}}, round{60, 100}},
		"even takes the lower":       {[]round{{80, 100}, {70, 100}}, round{70, 100}},
		"ratios count and not rates": {[]round{{1000, 4000}, {10, 20}, {300, 400}}, round{10, 20}},
	} {
		if got, err := medianRound(test.rounds); err != nil || got != test.want {
			t.Errorf("%s: got %v, %v, want %v", name, got, err, test.want)
		}
	}
	if _, err := medianRound(nil); err == nil {
		t.Error("no rounds: got no error, want one")
	}
}

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{3, 1, 2}, 2}, {[]float64{4, 1, 3, 2}, 2}} {
		if got := median(test.values); got != test.want {
			t.Errorf("median of %v: got %v, want %v", test.values, got, test.want)
		}
	}
}

func TestPercentileIsANearestRank(t *testing.T) {
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(100-i))
	}
	for _, test := range []struct {
		name    string
		times   []time.Duration
		percent float64
		want    time.Duration
	}{
		{"of none", nil, 99, 0},
		{"of one", []time.Duration{7}, 99, 7},
		{"p99 of 1 to 100", hundred, 99, 99},
		{"p50 of 1 to 100", hundred, 50, 50},
		{"p100 is the most", hundred, 100, 100},
		{"p0 is the least", hundred, 0, 1},
		{"p99 of few is the most", []time.Duration{3, 1, 2}, 99, 3},
	} {
		if got := percentile(test.times, test.percent); got != test.want {
			t.Errorf("%s: got %d, want %d", test.name, got, test.want)
		}
	}
}

func TestVerdictDependsOnTheSideOfTheBudget(t *testing.T) {
	for _, test := range []struct {
		bound bound
		value float64
		met   bool
	}{
		{atLeast, 0.75, true}, {atLeast, 0.7499, false}, {atLeast, 0.8, true}, {atLeast, math.NaN(), false},
		{atMost, 30, true}, {atMost, 30.01, false}, {atMost, 0, true}, {atMost, math.NaN(), false}, {atMost, math.Inf(1), false},
	} {
		budget := 0.75
		if test.bound == atMost {
			budget = 30
		}
		if got := (limit{"", "", test.bound, budget}).judge(test.value).Met; got != test.met {
			t.Errorf("%v with %s %v: got met %v, want %v", test.value, test.bound, budget, got, test.met)
		}
	}
}

// A value is rounded for display after the verdict, which therefore can differ from what the
// rounded value would get.
func TestVerdictIsOfTheUnroundedValue(t *testing.T) {
	got := limit{"", "", atLeast, 0.75}.judge(0.749999)
	if got.Met || got.Value != 0.75 {
		t.Errorf("0.749999 with at least 0.75: got %v, met %v, want it shown as 0.75 and missed", got.Value, got.Met)
	}
}

func TestScenarioIsMetOnlyByAllItsFigures(t *testing.T) {
	s := scenario{name: "join", limits: []limit{{"ratio", "×", atLeast, 0.4}, {"p99", "ms", atMost, 30}}}
	for _, test := range []struct {
		values []float64
		met    bool
	}{{[]float64{0.5, 20}, true}, {[]float64{0.5, 31}, false}, {[]float64{0.3, 20}, false}} {
		r, err := s.judge(measured{values: test.values})
		if err != nil || r.Met == nil || *r.Met != test.met {
			t.Errorf("figures %v: got %+v, %v, want met %v", test.values, r, err, test.met)
		}
	}
	if _, err := s.judge(measured{values: []float64{0.5}}); err == nil {
		t.Error("a figure that was not measured: got no error, want one")
	}
}
