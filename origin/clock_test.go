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
