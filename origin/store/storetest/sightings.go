package storetest

import (
	"testing"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

var sightingCases = []testCase{
	{"present", sightingsPresent},
	{"joins are sightings", sightingsJoins},
	{"late ones keep the place", sightingsLate},
	{"of the done and the unissued", sightingsPassedOver},
	{"edges", sightingsEdges},
}

func sightingsPresent(t *testing.T, s store.Store) {
	sc := newScene(t, s, func(s *queue.Settings) { s.Capacity = 0 })
	sc.joinAnonymous(1)
	sc.tick()
	sc.joinAnonymous(199)
	want := func(what string, present int) {
		t.Helper()
		if look := sc.look(); look.Present != present || look.Waiting != 200 {
			t.Errorf("%s: %d present of %d waiting, want %d of 200", what, look.Present, look.Waiting, present)
		}
	}
	want("in the turn of joining", 200)
	sc.nextTurn()
	want("in the turn after", 199)
	sc.see(7, 8, 199)
	want("seen again", 199)
	sc.nextTurn()
	want("two turns after joining", 3)
	sc.see(8)
	sc.see(8)
	sc.see(100)
	want("one came back", 4)
	sc.nextTurn()
	want("the next turn", 2)
	sc.seeIn(sc.look().Turn-1, 55)
	want("late by one turn", 3)
	sc.seeIn(sc.look().Turn-2, 66)
	want("late by two turns", 3)
	sc.nextTurn()
	want("and that turn has passed", 0)
}

// nextTurn lets the running turn end and closes it.
func (sc *scene) nextTurn() {
	sc.t.Helper()
	turn := sc.look().Turn
	for sc.look().Turn == turn {
		sc.advance(time.Second)
		sc.tick()
	}
}

func sightingsJoins(t *testing.T, s store.Store) {
	sc := newScene(t, s, func(s *queue.Settings) { s.Capacity = 1 })
	sc.join(key(1), key(2))
	sc.tick()
	sc.claim(1)
	sc.run(10*time.Second, nil)
	if got := sc.look().Present; got != 0 {
		t.Fatalf("%d present after five silent turns, want 0", got)
	}
	sc.join(key(2))
	if got := sc.look().Present; got != 1 {
		t.Errorf("%d present after the user joined again, want 1", got)
	}
}

func sightingsLate(t *testing.T, s store.Store) {
	sc := newScene(t, s, func(s *queue.Settings) { s.Capacity = 0; s.HoldSeconds = 6 })
	sc.joinAnonymous(4) // turns of 2 s, hold of 3 turns
	joinTurn := sc.look().Turn
	sc.tick()
	for sc.look().Turn < joinTurn+4 {
		sc.nextTurn()
	}
	// 1 was seen two turns ago, which the edge reports only now; 2 in a turn that is not kept any
	// more; 3 in one that has not begun, as a confused edge thinks.
	now := sc.look().Turn
	sc.seeIn(now-2, 1)
	sc.seeIn(joinTurn, 2)
	sc.seeIn(now+100, 3)
	sc.nextTurn()
	for position, want := range map[uint64]queue.Fate{
		1: queue.Waiting, 2: queue.Waiting, 3: queue.Waiting, 4: queue.Expired,
	} {
		sc.wantFate(position, want)
	}
	sc.nextTurn() // the oldest turn that was kept, now + 1 - 3, was 2's
	sc.wantFate(2, queue.Expired)
	sc.wantFate(1, queue.Waiting)
	sc.nextTurn()
	sc.wantFate(1, queue.Expired)
	sc.wantFate(3, queue.Waiting)
	sc.nextTurn()
	sc.wantFate(3, queue.Waiting)
	sc.nextTurn()
	sc.wantFate(3, queue.Expired)
}

func sightingsPassedOver(t *testing.T, s store.Store) {
	sc := newScene(t, s, nil)
	sc.joinAnonymous(3)
	sc.leave(2)
	sc.unchanged("sightings", func() {
		sc.see(1, 2, 3, 4, 70_000, 1<<62)
		sc.see()
	})
	look := sc.look()
	if look.Waiting != 2 || look.Present != 2 {
		t.Errorf("%d present of %d waiting, want 2 of 2", look.Present, look.Waiting)
	}
	// The sightings of 4 and 70,000 are not remembered for whoever gets these numbers.
	sc.joinAnonymous(2)
	sc.wantFate(2, queue.Left)
	if got := sc.look().Present; got != 4 {
		t.Errorf("%d present, want 4", got)
	}
}

func sightingsEdges(t *testing.T, s store.Store) {
	sc := newScene(t, s, nil)
	sc.joinAnonymous(1)
	sc.tick()
	edges := func(what string, want map[string]time.Time) {
		t.Helper()
		got := sc.look().Edges
		if len(got) != len(want) {
			t.Errorf("%s: edges are %v, want %v", what, got, want)
			return
		}
		for edge, at := range want {
			if !got[edge].Equal(at) {
				t.Errorf("%s: edge %s reported at %v, want %v", what, edge, got[edge], at)
			}
		}
	}
	sc.see(1)
	edges("after a part of what it saw", nil)
	begin := sc.now
	sc.report("a", false)
	sc.report("b", false)
	edges("after both reported", map[string]time.Time{"a": begin, "b": begin})
	sc.advance(time.Second)
	sc.report("b", false)
	edges("after b reported again", map[string]time.Time{"a": begin, "b": sc.now})
	sc.report("a", true)
	edges("after a left", map[string]time.Time{"b": sc.now})
	sc.report("a", true)
	edges("after a left twice", map[string]time.Time{"b": sc.now})

	// Reports that lay somewhere.
	reported := sc.now
	sc.advance(10 * time.Second)
	late := sc.now.Add(-3 * time.Second)
	sc.reportAsOf("b", false, late)
	edges("after b's report came late", map[string]time.Time{"b": late})
	sc.reportAsOf("b", false, reported)
	edges("after an earlier one of b came later still", map[string]time.Time{"b": late})
	sc.reportAsOf("b", true, late.Add(-time.Millisecond))
	edges("after b's word that it leaves came after it was back", map[string]time.Time{"b": late})
	sc.reportAsOf("b", false, sc.now.Add(time.Hour))
	edges("after a report from the future", map[string]time.Time{"b": sc.now})
	sc.report("b", true)
	edges("after b left", nil)
}
