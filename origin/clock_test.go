package origin

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// settableClock is a store's clock that somebody sets by hand.
type settableClock struct{ ahead time.Duration }

func (c *settableClock) Now(context.Context) (time.Time, error) {
	return time.Now().Add(c.ahead), nil
}

// stoppingClock is a store's clock, asked by a process that is stopped for a while before the question
// goes out and for a while after the answer came.
type stoppingClock struct{ before, after time.Duration }

func (c *stoppingClock) Now(ctx context.Context) (time.Time, error) {
	if err := ctx.Err(); err != nil {
		return time.Time{}, err
	}
	<-time.After(c.before)
	now := time.Now()
	<-time.After(c.after)
	c.before, c.after = 0, 0
	return now, nil
}

// A process that was stopped for ten seconds while it asked for the time must not go by an
// answer that is wrong by five; neither when there is time to ask again nor when there is none.
func TestStoreClockIsNotMisledByAStopOfItsProcess(t *testing.T) {
	for _, test := range []struct {
		name          string
		before, after time.Duration
		within        time.Duration // of the question
		wantErr       bool
	}{
		{"stopped before the question", 10 * time.Second, 0, time.Minute, false},
		{"stopped after the answer", 0, 10 * time.Second, time.Minute, false},
		{"stopped before the question, no time left", 10 * time.Second, 0, time.Second, true},
		{"stopped after the answer, no time left", 0, 10 * time.Second, time.Second, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var clock storeClock
				must(t, clock.Measure(t.Context(), &settableClock{}))
				ctx, cancel := context.WithTimeout(t.Context(), test.within)
				defer cancel()
				err := clock.Measure(ctx, &stoppingClock{test.before, test.after})
				if (err != nil) != test.wantErr {
					t.Errorf("measure: got error %v, want one: %v", err, test.wantErr)
				}
				if off := time.Until(clock.Now()).Abs(); off > time.Millisecond {
					t.Errorf("the clock is off by %v, want 0", off)
				}
			})
		})
	}
}

func TestStoreClockFollowsTheStoreButNeverFarBack(t *testing.T) {
	for _, test := range []struct {
		name              string
		before, after     time.Duration
		wantAt, wantLater time.Duration // ahead of the machine's clock: at once, and after 10 more measurements
	}{
		{"steady", 0, 0, 0, 0},
		{"drifts back", 0, -20 * time.Millisecond, -20 * time.Millisecond, -20 * time.Millisecond},
		{"put on", 0, time.Hour, time.Hour, time.Hour},
		{"put back", 0, -time.Hour, -largestStepBack, -11 * largestStepBack},
		{"put back a little", 0, -4 * largestStepBack, -largestStepBack, -4 * largestStepBack},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				source := &settableClock{ahead: test.before}
				var clock storeClock
				measure := func() {
					t.Helper()
					if err := clock.Measure(t.Context(), source); err != nil {
						t.Fatal(err)
					}
				}
				want := func(when string, ahead time.Duration) {
					t.Helper()
					if got := time.Until(clock.Now()); got.Round(time.Millisecond) != ahead {
						t.Errorf("%s: got a clock %v ahead, want %v", when, got, ahead)
					}
				}
				measure()
				want("first", test.before)
				source.ahead = test.after
				<-time.After(measureEvery)
				measure()
				want("measured again", test.wantAt)
				for range 10 {
					<-time.After(measureEvery)
					measure()
				}
				want("later", test.wantLater)
			})
		})
	}
}
