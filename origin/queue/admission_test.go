package queue_test

import (
	"math"
	"reflect"
	"testing"
	"time"

	"waitingroom/origin/queue"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// lookAt is a queue that was ticked a quarter of a second before noon.
func lookAt(change func(*queue.Look)) queue.Look {
	settings := queue.DefaultSettings()
	settings.Capacity = 10
	l := queue.Look{Epoch: 7, Settings: settings, LastTick: noon.Add(-250 * time.Millisecond)}
	change(&l)
	return l
}

func TestPlan(t *testing.T) {
	for _, c := range []struct {
		name string
		look func(*queue.Look)
		want queue.Tick
	}{
		{"empty", func(l *queue.Look) {}, queue.Tick{JoinSlots: 10}},
		{"offers to all who wait, and the rest to joins", func(l *queue.Look) {
			l.Waiting, l.Present, l.Candidates = 3, 3, queue.Positions{4, 5, 9}
		}, queue.Tick{Offer: queue.Positions{4, 5, 9}, Present: 3, JoinSlots: 7}},
		{"offers only what is free", func(l *queue.Look) {
			l.Sessions, l.Offers = 5, 3
			l.Waiting, l.Present, l.Candidates = 3, 3, queue.Positions{4, 5, 9}
		}, queue.Tick{Offer: queue.Positions{4, 5}, Present: 3}},
		{"at capacity", func(l *queue.Look) {
			l.Sessions, l.Offers = 5, 5
			l.Waiting, l.Present, l.Candidates = 1, 1, queue.Positions{4}
		}, queue.Tick{Present: 1}},
		{"above the capacity after a retune", func(l *queue.Look) {
			l.Sessions, l.Offers = 15, 5
			l.Waiting, l.Present, l.Candidates = 1, 1, queue.Positions{4}
		}, queue.Tick{Present: 1}},
		{"what runs out frees its slot in the same tick", func(l *queue.Look) {
			l.Sessions, l.DueSessions = 5, queue.Positions{1}
			l.Offers, l.DueOffers = 5, queue.Positions{2}
			l.Waiting, l.Present, l.Candidates = 3, 3, queue.Positions{4, 5, 9}
		}, queue.Tick{EndSessions: queue.Positions{1}, Lapse: queue.Positions{2}, Offer: queue.Positions{4, 5}, Present: 3}},
		{"joins take no slot while a present fan waits", func(l *queue.Look) {
			// Present, but not a candidate: not seen since the offer lapsed.
			l.Waiting, l.Present, l.Candidates = 2, 2, queue.Positions{4}
		}, queue.Tick{Offer: queue.Positions{4}, Present: 2}},
		{"the absent keep no slot from joins", func(l *queue.Look) {
			l.Waiting, l.Present = 500, 0
		}, queue.Tick{JoinSlots: 10}},
		{"paused", func(l *queue.Look) {
			l.Settings.State = queue.Paused
			l.Sessions, l.DueSessions = 5, queue.Positions{1}
			l.Offers, l.DueOffers = 2, queue.Positions{2}
			l.Waiting, l.Present, l.Candidates = 1, 1, queue.Positions{4}
		}, queue.Tick{EndSessions: queue.Positions{1}, Lapse: queue.Positions{2}, Present: 1}},
		{"closed", func(l *queue.Look) {
			l.Settings.State = queue.Closed
			l.Sessions, l.DueSessions = 5, queue.Positions{1}
		}, queue.Tick{EndSessions: queue.Positions{1}}},
		{"just before an interruption", func(l *queue.Look) {
			l.LastTick = noon.Add(-queue.Interruption + time.Millisecond)
			l.Offers, l.DueOffers = 2, queue.Positions{2}
		}, queue.Tick{Lapse: queue.Positions{2}, JoinSlots: 9}},
		{"an interruption", func(l *queue.Look) {
			l.LastTick = noon.Add(-queue.Interruption)
			l.Offers, l.DueOffers = 2, queue.Positions{2}
		}, queue.Tick{Prolong: queue.Interruption, JoinSlots: 8}},
		{"after an interruption no offer lapses", func(l *queue.Look) {
			l.LastTick = noon.Add(-time.Hour)
			l.Sessions, l.DueSessions = 5, queue.Positions{1}
			l.Offers, l.DueOffers = 5, queue.Positions{2, 3}
			l.Waiting, l.Present, l.Candidates = 3, 3, queue.Positions{4, 5, 9}
		}, queue.Tick{Prolong: time.Hour, EndSessions: queue.Positions{1}, Offer: queue.Positions{4}, Present: 3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.want.Epoch, c.want.Now = 7, noon
			got, _ := queue.Plan(lookAt(c.look), queue.Pace{}, noon)
			if len(got.Offer) == 0 {
				got.Offer = nil
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestPlanKeepsThePace(t *testing.T) {
	var candidates queue.Positions
	for p := range uint64(2000) {
		candidates = append(candidates, p+1)
	}
	for _, perMinute := range []int{1, 6, 50, 60, 75, 110, 1000, 12345} {
		var pace queue.Pace
		var tick queue.Tick
		made, now := 0, noon
		const minutes = 20
		most := int(math.Ceil(float64(perMinute)/60)) + 1
		for range minutes * 60 * 4 {
			now = now.Add(250 * time.Millisecond)
			look := lookAt(func(l *queue.Look) {
				l.Settings.MaxPerMinute, l.Settings.Capacity = perMinute, 1_000_000
				l.LastTick = now.Add(-250 * time.Millisecond)
				l.Waiting, l.Present = 100_000, 100_000
				l.Candidates = candidates
			})
			tick, pace = queue.Plan(look, pace, now)
			if len(tick.Offer) > most {
				t.Fatalf("%d a minute: %d offers in one tick, want at most %d", perMinute, len(tick.Offer), most)
			}
			made += len(tick.Offer)
		}
		// The first tick starts with one offer, not with what a tick is worth.
		if want := perMinute * minutes; made < want-most || made > want+1 {
			t.Errorf("%d a minute: %d offers in %d minutes, want %d", perMinute, made, minutes, want)
		}
	}
}

func TestPace(t *testing.T) {
	var p queue.Pace
	if p = p.Refill(0, noon); p.Cut(1000) != 1000 {
		t.Errorf("without a limit 1000 are cut to %d", p.Cut(1000))
	}
	if p = p.Spend(1000); p.Cut(1000) != 1000 {
		t.Errorf("without a limit, after spending, 1000 are cut to %d", p.Cut(1000))
	}
	// A quiet hour saves up one second's worth, and never less than one offer.
	for perMinute, want := range map[int]int{1: 1, 59: 1, 60: 1, 120: 2, 600: 10} {
		p := queue.Pace{}.Refill(perMinute, noon)
		if got := p.Cut(1000); got != 1 {
			t.Errorf("%d a minute: a new bucket holds %d, want 1", perMinute, got)
		}
		p = p.Refill(perMinute, noon.Add(time.Hour))
		if got := p.Cut(1000); got != want {
			t.Errorf("%d a minute: a full bucket holds %d, want %d", perMinute, got, want)
		}
		// Joins may overdraw it; then nothing is offered until it is made up for.
		p = p.Spend(want + 1)
		if got := p.Cut(1000); got != 0 {
			t.Errorf("%d a minute: an overdrawn bucket gives %d, want 0", perMinute, got)
		}
		p = p.Refill(perMinute, noon.Add(time.Hour+2*time.Minute/time.Duration(perMinute)+time.Millisecond))
		if got := p.Cut(1000); got != 1 {
			t.Errorf("%d a minute: the bucket gives %d once it was made up for, want 1", perMinute, got)
		}
		// So it does when it ticks through the hour, but for what the last tick brought.
		q := p
		for i := range 3600 * 4 {
			q = q.Refill(perMinute, noon.Add(time.Hour+time.Duration(i)*250*time.Millisecond))
		}
		if got, most := q.Cut(1000), want+perMinute/240; got < want || got > most {
			t.Errorf("%d a minute: a bucket that was ticked for an hour holds %d, want %d to %d", perMinute, got, want, most)
		}
		// A clock that goes back adds nothing and takes nothing.
		if got := p.Refill(perMinute, noon).Cut(1000); got != 1 {
			t.Errorf("%d a minute: after the clock went back the bucket gives %d, want 1", perMinute, got)
		}
	}
}

func TestFreeSlots(t *testing.T) {
	for _, c := range []struct{ capacity, sessions, offers, want int }{
		{10, 0, 0, 10}, {10, 4, 3, 3}, {10, 5, 5, 0}, {10, 11, 0, 0}, {0, 0, 0, 0},
	} {
		if got := queue.FreeSlots(c.capacity, c.sessions, c.offers); got != c.want {
			t.Errorf("FreeSlots(%d, %d, %d) is %d, want %d", c.capacity, c.sessions, c.offers, got, c.want)
		}
	}
}
