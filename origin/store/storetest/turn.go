package storetest

import (
	"testing"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

var turnCases = []testCase{
	{"the hold keeps a place", turnHold},
	{"close once", turnCloseOnce},
	{"offered ones stay", turnOffered},
	{"a changed hold starts afresh", turnHoldChanged},
	{"held open for edges", turnHeldOpen},
	{"not closed by old reports", turnOldReports},
	{"an outage expires nobody", turnOutage},
	{"scheduled and closed", turnStates},
}

// turnHold lets fans fall silent at different moments and checks when each place ends.
func turnHold(t *testing.T, s store.Store) {
	for _, hold := range []int{1, 5, 20, 70} {
		t.Run((time.Duration(hold) * time.Second).String(), func(t *testing.T) {
			sc := newScene(t, s, func(s *queue.Settings) { s.Capacity = 0; s.HoldSeconds = hold })
			settings := sc.meta().Settings
			// A hold shorter than a turn counts as one.
			most := max(settings.Hold(), settings.TurnLength()) + 2*settings.TurnLength()
			most += 300 * time.Millisecond // the last tick's lateness, but not that of all
			const fans = 9
			sc.joinAnonymous(fans + 1) // the last one stays
			last := make(map[uint64]time.Time)
			for p := uint64(1); p <= fans; p++ {
				last[p] = sc.now
			}
			sc.tick()
			begin := sc.now
			expired := 0
			step := 300 * time.Millisecond // no divisor of a turn: closings come late
			for expired < fans {
				sc.advance(step)
				if sc.now.Sub(begin) > 3*settings.Hold()+20*settings.TurnLength() {
					t.Fatal("the silent never expire")
				}
				// Fan p is seen for p * 0.7 turns, and then no more.
				var seen queue.Positions
				for p := uint64(1); p <= fans; p++ {
					if silence := begin.Add(time.Duration(p) * settings.TurnLength() * 7 / 10); sc.now.Before(silence) {
						seen = append(seen, p)
						last[p] = sc.now
					}
				}
				sc.see(append(seen, fans+1)...)
				sc.tick()
				view := sc.view()
				for p, seen := range last {
					if view.Fate(p) == queue.Waiting {
						continue
					}
					absent := sc.now.Sub(seen)
					if absent < settings.Hold() || absent > most {
						t.Errorf("fan %d lost the place after %v, want %v to %v", p, absent, settings.Hold(), most)
					}
					if got := view.Fate(p); got != queue.Expired {
						t.Errorf("fate of %d is %v, want expired", p, got)
					}
					delete(last, p)
					expired++
				}
			}
			sc.wantFate(fans+1, queue.Waiting)
			if got := sc.counts(); got.Expired != fans || got.Waiting != 1 {
				t.Errorf("%d expired, %d waiting, want %d, 1", got.Expired, got.Waiting, fans)
			}
		})
	}
}

func turnCloseOnce(t *testing.T, s store.Store) {
	sc := newScene(t, s, func(s *queue.Settings) { s.Capacity = 0; s.HoldSeconds = 1 })
	sc.joinAnonymous(3)
	sc.acquire()
	turn := sc.look().Turn
	close := func(turn uint64, want int) {
		t.Helper()
		if got := sc.closeTurn(turn); got != want {
			t.Errorf("closing turn %d expired %d, want %d", turn, got, want)
		}
	}
	sc.advance(2 * time.Second)
	sc.see(3)
	close(turn, 0)
	if e := sc.lastEntry(); e.Kind != queue.EntryTurn || e.Turn != turn+1 {
		t.Errorf("last entry is %+v, want turn %d", e, turn+1)
	}
	if look := sc.look(); look.Turn != turn+1 || !look.TurnStarted.Equal(sc.now) {
		t.Errorf("turn %d from %v, want %d from %v", look.Turn, look.TurnStarted, turn+1, sc.now)
	}
	sc.advance(2 * time.Second)
	sc.unchanged("closing a turn that does not run", func() {
		close(turn, 0)
		close(turn+2, 0)
	})
	close(turn+1, 2)
	entries, err := s.Entries(t.Context(), sc.id, sc.inc, sc.snapshot().Number-2, "", 10)
	if err != nil || len(entries) != 2 || entries[0].Kind != queue.EntryDone ||
		entries[0].Reason != queue.ReasonAbsent || entries[1].Kind != queue.EntryTurn {
		t.Errorf("closing logged %+v, error %v, want 1 and 2 done as absent, then the turn", entries, err)
	}
	sc.unchanged("closing twice", func() { close(turn+1, 0) })
	sc.wantFate(3, queue.Waiting)
}

func turnOffered(t *testing.T, s store.Store) {
	sc := newScene(t, s, func(s *queue.Settings) { s.Capacity = 1; s.HoldSeconds = 4; s.ClaimSeconds = 30 })
	sc.joinAnonymous(2)
	sc.tick()
	sc.run(29*time.Second, nil)
	sc.wantFate(1, queue.Waiting)
	sc.wantFate(2, queue.Expired)
	sc.claim(1)
}

func turnHoldChanged(t *testing.T, s store.Store) {
	for _, c := range []struct {
		name   string
		before int
		silent time.Duration
		change func(*queue.Settings)
	}{
		{"shorter", 60, 50 * time.Second, func(s *queue.Settings) { s.HoldSeconds = 10 }},
		{"longer", 10, 9 * time.Second, func(s *queue.Settings) { s.HoldSeconds = 60 }},
		{"opened", 10, time.Minute, func(s *queue.Settings) { s.State = queue.Open }},
	} {
		t.Run(c.name, func(t *testing.T) {
			sc := newScene(t, s, func(s *queue.Settings) { s.Capacity = 0; s.HoldSeconds = c.before })
			sc.joinAnonymous(2)
			if c.name == "opened" {
				sc.setState(queue.Scheduled)
			}
			sc.tick()
			sc.run(c.silent, nil)
			if c.name != "opened" {
				sc.see(2)
			}
			changed := sc.now
			sc.update(c.change)
			settings := sc.meta().Settings
			for sc.view().Fate(1) == queue.Waiting {
				sc.run(time.Second, nil)
				if sc.now.Sub(changed) > 3*settings.Hold() {
					t.Fatal("the silent one never expires")
				}
			}
			if absent, most := sc.now.Sub(changed), settings.Hold()+2*settings.TurnLength(); absent < settings.Hold() || absent > most {
				t.Errorf("the place was lost %v after the change, want %v to %v", absent, settings.Hold(), most)
			}
		})
	}
}

func turnHeldOpen(t *testing.T, s store.Store) {
	sc := newScene(t, s, func(s *queue.Settings) { s.Capacity = 0; s.HoldSeconds = 4 })
	sc.joinAnonymous(3)
	sc.tick()
	sc.report("a", false)
	sc.report("b", false)
	turn := sc.look().Turn
	// a is cut off with its sightings of 1 and 2; b goes on.
	sc.run(200*time.Second, func() { sc.report("b", false) })
	if got := sc.look().Turn; got != turn {
		t.Fatalf("turn %d runs, want %d held open for the edge that is cut off", got, turn)
	}
	sc.see(1, 2)
	sc.report("a", false)
	sc.run(20*time.Second, func() {
		sc.see(1)
		sc.report("a", false)
		sc.report("b", false)
	})
	sc.wantFate(1, queue.Waiting)
	sc.wantFate(2, queue.Expired)
	sc.wantFate(3, queue.Expired)
	// An edge that leaves holds nothing open; one that vanishes does for five minutes.
	sc.report("b", true)
	sc.run(queue.VanishedEdge-10*time.Second, func() { sc.see(1) })
	turn = sc.look().Turn
	sc.run(30*time.Second, func() { sc.see(1) })
	if got := sc.look().Turn; got < turn+5 {
		t.Errorf("turn %d runs half a minute after turn %d: a vanished edge holds it open", got, turn)
	}
	sc.wantFate(1, queue.Waiting)
}

// turnOldReports has an edge's reports come through a stopped origin, late: the turn must not be closed
// on the word of an edge that had handed in nothing from its end.
func turnOldReports(t *testing.T, s store.Store) {
	sc := newScene(t, s, func(s *queue.Settings) { s.Capacity = 0; s.HoldSeconds = 4 })
	sc.joinAnonymous(1)
	sc.tick()
	sc.report("a", false)
	written, turn := sc.now, sc.look().Turn
	sc.run(time.Minute, func() { sc.reportAsOf("a", false, written.Add(time.Second)) })
	if got := sc.look().Turn; got != turn {
		t.Errorf("turn %d runs, want %d held open: the edge had not seen its end when it reported", got, turn)
	}
	sc.see(1)
	sc.report("a", false)
	sc.tick()
	if got := sc.look().Turn; got != turn+1 {
		t.Errorf("turn %d runs, want %d after the edge has handed in everything", got, turn+1)
	}
	sc.wantFate(1, queue.Waiting)
}

func turnOutage(t *testing.T, s store.Store) {
	sc := newScene(t, s, func(s *queue.Settings) { s.Capacity = 1; s.HoldSeconds = 10 })
	sc.joinAnonymous(4)
	sc.tick()
	claimBy := sc.claimBy()
	sc.run(6*time.Second, func() { sc.see(2, 3, 4) })
	// Everything is down for an hour. Then the fans come back, within a turn.
	sc.advance(time.Hour)
	sc.tick()
	sc.wantOffer(1, claimBy.Add(time.Hour))
	sc.run(time.Second, nil)
	sc.see(2, 3)
	sc.run(9*time.Second, func() { sc.see(2, 3) })
	for position := uint64(1); position <= 3; position++ {
		sc.wantFate(position, queue.Waiting)
	}
	sc.claim(1)
}

func turnStates(t *testing.T, s store.Store) {
	for _, c := range []struct {
		state queue.State
		want  queue.Fate
	}{
		{queue.Scheduled, queue.Waiting}, {queue.Closed, queue.Waiting},
		{queue.Paused, queue.Expired}, {queue.SoldOut, queue.Expired},
	} {
		t.Run(string(c.state), func(t *testing.T) {
			sc := newScene(t, s, func(s *queue.Settings) { s.Capacity = 0; s.HoldSeconds = 1 })
			sc.joinAnonymous(1)
			sc.setState(c.state)
			for range 5 {
				sc.acquire()
				sc.advance(2 * time.Second)
				sc.closeTurn(sc.look().Turn)
			}
			sc.wantFate(1, c.want)
		})
	}
}
