package edge

import (
	"context"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/wire"
)

// counter is an origin that takes sightings.
type counter struct {
	scripted
	mu       sync.Mutex
	err      error
	again    []queue.ID
	requests []wire.SightingsRequest
}

func (c *counter) See(_ context.Context, r wire.SightingsRequest) (wire.SightingsResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests = append(c.requests, r)
	return wire.SightingsResponse{Again: c.again}, c.err
}

// take returns the reports since the last time.
func (c *counter) take() []wire.Sightings {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []wire.Sightings
	for _, r := range c.requests {
		list = append(list, r.Queues...)
	}
	c.requests = nil
	return list
}

func (c *counter) set(err error, again ...queue.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err, c.again = err, again
}

// newSightingsServer is a server without listeners, in a bubble's time, with the queues acme.sale and acme.other.
func newSightingsServer(t *testing.T, c *counter) (*Server, *line) {
	t.Helper()
	s := &Server{Origin: c, Logger: slog.New(slog.DiscardHandler), known: newKnowledge(1024, testHub()), edgeID: "edge"}
	s.Config.Limits.KeptSightings = 100
	s.metrics = newMetrics(s)
	for _, id := range []queue.ID{"acme.sale", "acme.other"} {
		v := testView(id, "inc1")
		snapshot := v.Snapshot()
		snapshot.Issued = 2000
		if err := s.known.apply(wire.Frame{Snapshot: &wire.Snapshot{Queue: snapshot}}); err != nil {
			t.Fatal(err)
		}
	}
	beat(s)
	return s, s.known.current.Load().lines["acme.sale"]
}

func beat(s *Server) { s.known.clock.heartbeat(time.Now(), true) }

func (s *Server) enterTurn(t *testing.T, l *line, turn uint64) {
	t.Helper()
	beat(s)
	entries := wire.Entries{Queue: l.id, Entries: []queue.Entry{{Number: l.view.Load().Number + 1, Kind: queue.EntryTurn, Turn: turn}}}
	if err := s.known.apply(wire.Frame{Entries: &entries}); err != nil {
		t.Fatal(err)
	}
}

// seen is a part of an account, noted as of the first snapshot.
func seen(turn uint64, complete, leaving bool, positions ...uint64) wire.Sightings {
	part := wire.Sightings{Queue: "acme.sale", Incarnation: "inc1", Turn: turn, Positions: positions, Complete: complete, Leaving: leaving}
	if len(positions) > 0 {
		part.AsOf = 1
	}
	return part
}

// asOf is the same, noted as of a later lapse.
func asOf(entry uint64, part wire.Sightings) wire.Sightings {
	part.AsOf = entry
	return part
}

// expect compares all but the times of the reports: those stand with complete ones, and only there.
func expect(t *testing.T, when string, got []wire.Sightings, want ...wire.Sightings) {
	t.Helper()
	for i := range got {
		if dated := !got[i].At.IsZero(); dated != got[i].Complete {
			t.Errorf("%s: part %d is complete as of %v, want a time if it is complete", when, i, got[i].At)
		}
		got[i].At = time.Time{}
	}
	if len(got) == 0 && len(want) == 0 {
		return
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %+v\nwant %+v", when, got, want)
	}
}

func TestSightingsAreForwardedOncePerTicketAndTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counter{}
		s, l := newSightingsServer(t, c)
		for range 3 {
			for _, position := range []uint64{9, 1500, 3} {
				if status := s.status(l, position); status.State != queue.TicketWaiting {
					t.Fatalf("status: got %s, want waiting", status.State)
				}
			}
		}
		s.handIn(t.Context(), false)
		expect(t, "three polls of three fans", c.take(), seen(1, true, false, 3, 9, 1500))
		s.status(l, 9)
		s.handIn(t.Context(), false)
		expect(t, "another poll in the same turn", c.take())

		// A lapse makes the next sighting count at once; so it is in a new turn.
		lapse := wire.Entries{Queue: l.id, Entries: []queue.Entry{
			{Number: 2, Kind: queue.EntryOffered, Positions: queue.Positions{3}, Watermark: 3},
			{Number: 3, Kind: queue.EntryLapsed, Positions: queue.Positions{3}},
		}}
		s.status(l, 4) // not handed in yet when the lapse is heard of
		stale := l.view.Load()
		if err := s.known.apply(wire.Frame{Entries: &lapse}); err != nil {
			t.Fatal(err)
		}
		s.status(l, 3)
		s.status(l, 9)
		s.see(l, 1, stale.Number, 5, time.Now()) // by a request that began before
		s.handIn(t.Context(), false)
		expect(t, "after a lapse", c.take(), asOf(0, seen(1, false, false, 5)), seen(1, false, false, 4), asOf(3, seen(1, true, false, 3)))
		s.enterTurn(t, l, 2)
		s.status(l, 9)
		s.handIn(t.Context(), false)
		expect(t, "in the next turn", c.take(), asOf(3, seen(2, true, false, 9)))

		// Who is out is no sighting.
		done := wire.Entries{Queue: l.id, Entries: []queue.Entry{{Number: 5, Kind: queue.EntryDone, Positions: queue.Positions{1500}, Fate: queue.Left}}}
		if err := s.known.apply(wire.Frame{Entries: &done}); err != nil {
			t.Fatal(err)
		}
		s.status(l, 1500)
		s.handIn(t.Context(), false)
		expect(t, "of a fan who left", c.take())
	})
}

func TestAnEdgeReportsThatItIsComplete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counter{}
		s, l := newSightingsServer(t, c)
		s.handIn(t.Context(), false)
		expect(t, "without fans", c.take())
		s.status(l, 1)
		s.handIn(t.Context(), false)
		expect(t, "first", c.take(), seen(1, true, false, 1))
		reports := 0
		for range 40 { // 10 s
			pause(t.Context(), handInEvery)
			beat(s)
			s.handIn(t.Context(), false)
			for _, report := range c.take() {
				if report.Complete && !report.Leaving && len(report.Positions) == 0 && report.Queue == "acme.sale" {
					reports++
				} else {
					t.Errorf("got %+v, want only that all was handed in", report)
				}
			}
		}
		if reports < 9 || reports > 11 {
			t.Errorf("reports in 10 s: got %d, want one each second", reports)
		}
		pause(t.Context(), 2*time.Minute)
		beat(s)
		s.handIn(t.Context(), false)
		expect(t, "after two turns without a sighting", c.take(), seen(1, true, true))
		pause(t.Context(), time.Minute)
		s.handIn(t.Context(), false)
		expect(t, "afterwards", c.take())
	})
}

// A report may lie in a stopped origin's socket; by its time the store knows what it leaves out.
func TestAReportSaysAsOfWhenItIsComplete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counter{}
		s, l := newSightingsServer(t, c)
		report := func(when string) {
			t.Helper()
			s.handIn(t.Context(), false)
			got := c.take()
			if len(got) != 1 || !got[0].At.Equal(s.known.clock.now()) {
				t.Errorf("%s: got %+v, want one report as of %v", when, got, s.known.clock.now())
			}
		}
		s.known.clock.heartbeat(time.Now().Add(time.Hour), true) // the store's clock is not this one
		s.status(l, 1)
		c.set(wire.ErrUnavailable)
		report("not taken")
		s.status(l, 2)
		time.Sleep(3 * time.Second)
		c.set(nil)
		report("written anew")
		time.Sleep(3 * time.Second)
		report("nobody new")
	})
}

// Fans who joined days before an opening are handed in once; nothing more is said of them until the
// queue wakes.
func TestASleepingQueueNeedsNoReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counter{}
		s, l := newSightingsServer(t, c)
		settings := l.view.Load().Settings
		settings.State, settings.OpensAt = queue.Scheduled, time.Now().Add(time.Hour)
		entries := wire.Entries{Queue: l.id, Entries: []queue.Entry{{Number: 2, Kind: queue.EntrySettings, Settings: &settings}}}
		if err := s.known.apply(wire.Frame{Entries: &entries}); err != nil {
			t.Fatal(err)
		}
		s.status(l, 7)
		s.handIn(t.Context(), false)
		expect(t, "the first poll", c.take(), seen(1, true, false, 7))
		for range 10 {
			time.Sleep(5 * time.Minute)
			beat(s)
			s.status(l, 7)
			s.handIn(t.Context(), false)
			expect(t, "asleep", c.take())
		}
		time.Sleep(7 * time.Minute)
		beat(s)
		s.status(l, 7)
		s.handIn(t.Context(), false)
		expect(t, "awake before the opening", c.take(), seen(1, true, false))
	})
}

func TestSightingsAreKeptWhileTheOriginIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counter{}
		s, l := newSightingsServer(t, c)
		s.status(l, 1)
		c.set(wire.ErrUnavailable)
		if s.handIn(t.Context(), false) {
			t.Error("hand-in: got success, want failure")
		}
		expect(t, "tried", c.take(), seen(1, true, false, 1))
		// Out of contact the turns are counted on, so that every turn has its sighting.
		s.status(l, 2)
		pause(t.Context(), time.Minute)
		s.status(l, 2)
		s.status(l, 1)
		pause(t.Context(), time.Minute)
		s.status(l, 2)
		c.set(nil)
		if !s.handIn(t.Context(), false) {
			t.Error("hand-in: got failure, want success")
		}
		expect(t, "handed in late", c.take(), seen(1, false, false, 1, 2), seen(2, false, false, 1, 2), seen(3, true, false, 2))
		s.handIn(t.Context(), false)
		expect(t, "afterwards", c.take())

		// The same where the origin could not take one queue's.
		beat(s)
		s.enterTurn(t, l, 9)
		s.status(l, 5)
		c.set(nil, "acme.sale")
		s.handIn(t.Context(), false)
		c.take()
		c.set(nil)
		s.handIn(t.Context(), false)
		expect(t, "handed in again", c.take(), seen(9, true, false, 5))
	})
}

func TestKeptSightingsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counter{err: wire.ErrUnavailable}
		s, l := newSightingsServer(t, c)
		for turn := uint64(1); turn <= 4; turn++ {
			for position := uint64(1); position <= 40; position++ {
				s.see(l, turn, 1, position, time.Now())
			}
		}
		s.handIn(t.Context(), false)
		s.boundSightings()
		if size := l.seen.size(); size != 80 {
			t.Errorf("kept: got %d, want the 80 of the two latest turns", size)
		}
		c.set(nil)
		c.take()
		s.handIn(t.Context(), false)
		var turns []uint64
		for _, report := range c.take() {
			turns = append(turns, report.Turn)
		}
		if !slices.Equal(turns, []uint64{3, 4}) {
			t.Errorf("turns handed in: got %v, want the latest", turns)
		}
	})
}

func TestLargeAccountsAreSplit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counter{}
		s, l := newSightingsServer(t, c)
		const fans = 2*handInSize + 10
		for position := uint64(1); position <= fans; position++ {
			s.see(l, 1, 1, position, time.Now())
		}
		s.see(s.known.current.Load().lines["acme.other"], 1, 1, 7, time.Now())
		s.handIn(t.Context(), false)
		c.mu.Lock()
		defer c.mu.Unlock()
		total, others := 0, 0
		for i, r := range c.requests {
			size := 0
			for _, part := range r.Queues {
				size += len(part.Positions)
				if part.Queue == "acme.other" {
					others++
					continue
				}
				total += len(part.Positions)
				if last := total == fans; part.Complete != last {
					t.Errorf("request %d: complete %v, want it with the last part only", i, part.Complete)
				}
			}
			if size > handInSize+10 {
				t.Errorf("request %d holds %d positions, want at most %d", i, size, handInSize)
			}
		}
		if total != fans || others != 1 {
			t.Errorf("handed in: got %d and %d, want %d and 1", total, others, fans)
		}
	})
}

func TestTheLastHandInTellsThatTheEdgeLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counter{}
		s, l := newSightingsServer(t, c)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { s.handInSightings(ctx); close(done) }()
		s.status(l, 4)
		pause(t.Context(), 2*handInEvery)
		expect(t, "running", c.take(), seen(1, true, false, 4))
		s.status(l, 6)
		cancel()
		<-done
		expect(t, "stopped", c.take(), seen(1, true, true, 6))
	})
}
