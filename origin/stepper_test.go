package origin

import (
	"context"
	"testing"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
	"waitingroom/origin/store/memory"
)

// hurried is a store in which fans join between a tick's look and its commit.
type hurried struct {
	store.Store
	join func(now time.Time)
}

func (h *hurried) Commit(ctx context.Context, id queue.ID, owner string, ttl time.Duration, tick queue.Tick) (store.TickResult, error) {
	h.join(tick.Now)
	return h.Store.Commit(ctx, id, owner, ttl, tick)
}

// TestPaceKnowsEveryJoin has fans take slots by themselves between the looks and the commits of
// ticks, and holds them to maxPerMinute.
func TestPaceKnowsEveryJoin(t *testing.T) {
	now := time.Date(2026, time.May, 1, 12, 0, 0, 0, time.UTC)
	settings := queue.DefaultSettings()
	settings.Capacity, settings.MaxPerMinute = 1000, 120
	s := &memory.Store{}
	if _, _, err := s.Create(t.Context(), "demo.pace", "inc", "gen", settings, now); err != nil {
		t.Fatal(err)
	}
	admitted := 0
	batch := store.JoinBatch{Queue: "demo.pace", Edge: "e", Users: make([]store.Key, 1)}
	join := func(now time.Time) {
		if look, err := s.Look(t.Context(), batch.Queue, 0, now); err != nil || look.JoinSlots == 0 {
			return
		}
		batch.Seq++
		batch.Now = now
		result, err := s.Join(t.Context(), batch)
		if err != nil || result.Joins[0].ClaimBy.IsZero() {
			t.Fatalf("a join while slots are left to joins: %+v, error %v", result, err)
		}
		admitted++
	}
	stepper := &Stepper{Store: &hurried{s, join}, Queue: batch.Queue, Owner: "o", LeaseTTL: 3 * time.Second}
	if err := stepper.TakeUp(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	const seconds = 60
	for range 4 * seconds {
		now = now.Add(250 * time.Millisecond)
		step, err := stepper.Tick(t.Context(), now)
		if err != nil {
			t.Fatal(err)
		}
		if step.Idle {
			if err := stepper.TakeUp(t.Context(), now); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Two a second, and what the bucket held at first.
	if least, most := seconds, 2*seconds+3; admitted < least || admitted > most {
		t.Errorf("%d fans were admitted in %d seconds at 120 a minute, want %d to %d", admitted, seconds, least, most)
	}
}

// TestOfferSurvivesALeapOfTheStoresClock has the store's clock put forward, which another origin
// knows before the one that coordinates.
func TestOfferSurvivesALeapOfTheStoresClock(t *testing.T) {
	now := time.Date(2026, time.May, 1, 12, 0, 0, 0, time.UTC)
	settings := queue.DefaultSettings()
	settings.Capacity = 1
	s := &memory.Store{}
	if _, _, err := s.Create(t.Context(), "demo.leap", "inc", "gen", settings, now); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Join(t.Context(), store.JoinBatch{Queue: "demo.leap", Edge: "e", Seq: 1, Users: make([]store.Key, 2), Now: now}); err != nil {
		t.Fatal(err)
	}
	stepper := &Stepper{Store: s, Queue: "demo.leap", Owner: "o", LeaseTTL: 3 * time.Second}
	if err := stepper.TakeUp(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	offered, err := stepper.Tick(t.Context(), now)
	if err != nil || len(offered.Offered) != 1 {
		t.Fatalf("the first tick: %+v, error %v, want an offer", offered, err)
	}
	const leap = time.Hour
	if _, err := s.See(t.Context(), store.SightingBatch{Queue: "demo.leap", Incarnation: "inc", Edge: "e", Turn: 1, Positions: queue.Positions{2}, Now: now.Add(leap)}); err != nil {
		t.Fatal(err)
	}
	for range 8 { // until it measures, too
		now = now.Add(250 * time.Millisecond)
		step, err := stepper.Tick(t.Context(), now)
		if err != nil || len(step.Lapsed)+len(step.Missed)+step.Expired > 0 {
			t.Fatalf("a tick after the leap: %+v, error %v, want nobody to miss or lose anything", step, err)
		}
	}
	if _, _, err := s.Claim(t.Context(), store.Claim{Queue: "demo.leap", Incarnation: "inc", Position: 1, SessionID: "s", Now: now.Add(leap)}); err != nil {
		t.Errorf("claim after the leap: %v", err)
	}
}
