package queue_test

import (
	"testing"
	"time"

	"waitingroom/origin/queue"
)

// shop is a sale in which every session buys some tickets, told as the log tells it.
type shop struct {
	t        *testing.T
	view     *queue.View
	settings queue.Settings
	number   uint64
	next     uint64 // the position that is let in next
}

// newShop has a line of fans and a number of tickets; remaining < 0 reports nothing.
func newShop(t *testing.T, fans uint64, remaining int) *shop {
	s := &shop{t: t, settings: queue.DefaultSettings(), next: 1}
	s.settings.Capacity = 5
	if remaining >= 0 {
		s.settings.Remaining = &remaining
	}
	s.view = queue.NewView(queue.Snapshot{
		ID: "t.q", Incarnation: "i", Generations: []string{"g"}, CreatedAt: noon, Settings: s.settings, Issued: fans,
	})
	return s
}

func (s *shop) tell(entries ...queue.Entry) {
	s.t.Helper()
	for i := range entries {
		s.number++
		entries[i].Number, entries[i].At = s.number, noon
	}
	view, ok := s.view.Apply(entries)
	if !ok {
		s.t.Fatal("the entries have a gap")
	}
	s.view = view
}

// report says what remains.
func (s *shop) report(remaining *int) {
	s.t.Helper()
	next := s.settings
	next.Remaining = remaining
	s.settings = next.Measured(s.settings, s.view)
	settings := s.settings
	s.tell(queue.Entry{Kind: queue.EntrySettings, Settings: &settings})
}

// serve lets fans in, each of whom buys and leaves.
func (s *shop) serve(fans, tickets int) {
	s.t.Helper()
	for range fans {
		p := queue.Positions{s.next}
		s.tell(
			queue.Entry{Kind: queue.EntryOffered, Positions: p, Until: noon.Add(time.Minute), Watermark: s.next},
			queue.Entry{Kind: queue.EntryClaimed, Positions: p, Session: "s", Until: noon.Add(time.Hour)},
		)
		s.report(new(max(*s.settings.Remaining-tickets, 0)))
		s.tell(queue.Entry{Kind: queue.EntryDone, Positions: p, Fate: queue.Ended})
		s.next++
	}
}

func (s *shop) likely(position uint64) bool { return s.view.Status(position, noon).LikelySoldOut }

// first is the first position that is told that what remains will likely not reach it.
func (s *shop) first() uint64 {
	for position := s.next; position <= s.view.Issued; position++ {
		if s.likely(position) {
			return position
		}
	}
	return 0
}

func TestLikelySoldOut(t *testing.T) {
	s := newShop(t, 1000, 600)
	if got := s.first(); got != 0 {
		t.Errorf("before anything is sold: position %d is told that it is likely sold out", got)
	}
	s.serve(10, 2)
	if got := s.first(); got != 0 {
		t.Errorf("after ten sessions: position %d is told so, want silence until there is a measure", got)
	}
	// Two tickets a session: 600 of them serve 300.
	s.serve(40, 2)
	if got := s.first(); got < 290 || got > 310 {
		t.Errorf("the first who is told so is %d, want about 301", got)
	}
	s.serve(200, 2)
	if got := s.first(); got < 295 || got > 306 {
		t.Errorf("near the end the first who is told so is %d, want about 301", got)
	}
	for p := s.first(); p <= 1000; p++ {
		if !s.likely(p) {
			t.Fatalf("position %d is told so and %d behind it is not", s.first(), p)
		}
	}
	// Tickets come back.
	s.report(new(*s.settings.Remaining + 400))
	if got := s.first(); got < 470 || got > 530 {
		t.Errorf("after 400 tickets came: the first is %d, want about 501", got)
	}
	// Nothing is reported any more.
	s.report(nil)
	if got := s.first(); got != 0 {
		t.Errorf("when nothing is reported: position %d is told so", got)
	}
	s.report(new(10))
	if got := s.first(); got != 0 {
		t.Errorf("reported anew: position %d is told so before a new measure", got)
	}
}

// What fans buy varies from one to the next; nobody is told yes and no in turn for that.
func TestLikelySoldOutDoesNotFlicker(t *testing.T) {
	s := newShop(t, 1000, 900)
	flips := make(map[uint64]int)
	was := make(map[uint64]bool)
	for i := range 300 {
		s.serve(1, []int{0, 4, 1, 6, 2, 0, 3, 1, 5, 2}[i%10]) // 2.4 on average
		for position := uint64(301); position <= 1000; position++ {
			if now := s.likely(position); now != was[position] {
				was[position] = now
				flips[position]++
			}
		}
	}
	for position, n := range flips {
		if n > 3 {
			t.Errorf("position %d was told %d times that it had changed, want a few at most", position, n)
		}
	}
	if got := s.first(); got < 365 || got > 385 {
		t.Errorf("the first who is told so is %d, want about 376", got)
	}
}

// Sessions that were over before anything was reported do not count.
func TestMeasureBeginsWithTheFirstReport(t *testing.T) {
	s := newShop(t, 1000, 0)
	s.settings.Remaining = new(100_000)
	s.serve(100, 0)
	s.report(nil)
	s.report(new(400))
	s.serve(50, 4)
	if got := s.first(); got < 195 || got > 206 {
		t.Errorf("400 tickets from position 101 on, 4 each: the first who is told so is %d, want about 201", got)
	}
}
