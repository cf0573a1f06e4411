package queue_test

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"waitingroom/origin/queue"
)

// ledger writes a queue's log by hand.
type ledger struct {
	t        *testing.T
	now      time.Time
	settings queue.Settings
	entries  []queue.Entry
	view     *queue.View // after them
}

// newLedger begins with the settings of a queue that has a capacity.
func newLedger(t *testing.T, capacity int, state queue.State) *ledger {
	l := &ledger{t: t, now: noon, settings: queue.DefaultSettings()}
	l.view = queue.NewView(queue.Snapshot{ID: "t.q", Incarnation: "inc", Generations: []string{"g"}, CreatedAt: noon, Settings: l.settings, Turn: 1})
	l.retune(func(s *queue.Settings) { s.Capacity, s.State = capacity, state })
	return l
}

func (l *ledger) write(e queue.Entry) {
	l.t.Helper()
	e.Number, e.At = uint64(len(l.entries))+1, l.now
	view, ok := l.view.Apply([]queue.Entry{e})
	if !ok {
		l.t.Fatalf("entry %d does not follow", e.Number)
	}
	l.entries, l.view = append(l.entries, e), view
}

func (l *ledger) retune(change func(*queue.Settings)) {
	change(&l.settings)
	settings := l.settings
	l.write(queue.Entry{Kind: queue.EntrySettings, Settings: &settings})
}

func (l *ledger) state(state queue.State) { l.retune(func(s *queue.Settings) { s.State = state }) }
func (l *ledger) capacity(n int)          { l.retune(func(s *queue.Settings) { s.Capacity = n }) }

func (l *ledger) join(n uint64) {
	l.write(queue.Entry{Kind: queue.EntryJoined, Issued: l.view.Issued + n})
}

func (l *ledger) offer(positions ...uint64) {
	l.write(queue.Entry{
		Kind: queue.EntryOffered, Positions: positions, Until: l.now.Add(time.Minute),
		Watermark: max(l.view.Watermark, slices.Max(positions)), Issued: l.view.Issued,
	})
}

func (l *ledger) claim(positions ...uint64) {
	for _, p := range positions {
		l.write(queue.Entry{Kind: queue.EntryClaimed, Positions: queue.Positions{p}, Session: "t.q~s", Since: l.now, Until: l.now.Add(time.Hour)})
	}
}

func (l *ledger) done(fate queue.Fate, reason string, positions ...uint64) {
	l.write(queue.Entry{Kind: queue.EntryDone, Positions: positions, Fate: fate, Reason: reason})
}

func (l *ledger) lapse(positions ...uint64) {
	l.write(queue.Entry{Kind: queue.EntryLapsed, Positions: positions})
}

func (l *ledger) withdraw(positions ...uint64) {
	l.write(queue.Entry{Kind: queue.EntryWithdrawn, Positions: positions})
}

// journal is what the whole log comes to; the last minute is the running one.
func (l *ledger) journal() (queue.Journal, []queue.Minute, []queue.Move) {
	l.t.Helper()
	pages, ok := queue.Journal{}.Fold(l.entries, l.view)
	if !ok {
		l.t.Fatal("the log does not follow on an empty journal")
	}
	return unfold(l.t, pages)
}

func unfold(t *testing.T, pages []queue.Page) (j queue.Journal, minutes []queue.Minute, moves []queue.Move) {
	t.Helper()
	for _, page := range pages {
		j = page.Journal
		minutes, moves = append(minutes, page.Minutes...), append(moves, page.Moves...)
	}
	if running, ok := j.RunningMinute(); ok {
		minutes = append(minutes, running)
	}
	return j, minutes, moves
}

// TestWhySlotsWereFree lets slots become free for each reason and offers them.
func TestWhySlotsWereFree(t *testing.T) {
	type reasons = map[queue.SlotReason]int
	// served has both slots taken by the sessions of 1 and 2, and eight who wait.
	served := func(t *testing.T) *ledger {
		l := newLedger(t, 2, queue.Open)
		l.join(10)
		l.offer(1, 2)
		l.claim(1, 2)
		return l
	}
	for name, c := range map[string]struct {
		play func(t *testing.T) *ledger
		want reasons // of the last move
	}{
		"since the creation": {func(t *testing.T) *ledger { return served(t) }, reasons{queue.SlotOpening: 2}},
		"since the opening": {func(t *testing.T) *ledger {
			l := newLedger(t, 1, queue.Scheduled)
			l.join(3)
			l.capacity(3)
			l.state(queue.Open)
			l.offer(1, 2, 3)
			return l
		}, reasons{queue.SlotOpening: 3}},
		"a purchase": {func(t *testing.T) *ledger {
			l := served(t)
			l.done(queue.Ended, queue.ReasonReleased, 2)
			l.offer(3)
			return l
		}, reasons{queue.SlotPurchase: 1}},
		"the window's end": {func(t *testing.T) *ledger {
			l := served(t)
			l.done(queue.Ended, queue.ReasonWindow, 1, 2)
			l.offer(3, 4)
			return l
		}, reasons{queue.SlotExpiry: 2}},
		"revoked": {func(t *testing.T) *ledger {
			l := served(t)
			l.done(queue.Ended, queue.ReasonRevoked, 1)
			l.offer(3)
			return l
		}, reasons{queue.SlotRevoked: 1}},
		"left with a session, and with an offer": {func(t *testing.T) *ledger {
			l := served(t)
			l.done(queue.Left, queue.ReasonLeft, 1)
			l.offer(3)
			l.done(queue.Left, queue.ReasonDeclined, 3)
			l.done(queue.Left, queue.ReasonLeft, 2)
			l.offer(4, 5)
			return l
		}, reasons{queue.SlotLeft: 2}},
		"left without either": {func(t *testing.T) *ledger {
			l := served(t)
			l.done(queue.Left, "", 3)
			l.done(queue.Ended, queue.ReasonReleased, 1)
			l.offer(4)
			return l
		}, reasons{queue.SlotPurchase: 1}},
		"expired in line": {func(t *testing.T) *ledger {
			l := served(t)
			l.done(queue.Expired, queue.ReasonAbsent, 3, 4)
			l.done(queue.Ended, queue.ReasonReleased, 1)
			l.offer(5)
			return l
		}, reasons{queue.SlotPurchase: 1}},
		"missed offers, the last one too": {func(t *testing.T) *ledger {
			l := newLedger(t, 2, queue.Open)
			l.join(10)
			l.offer(1, 2)
			l.lapse(1)
			l.done(queue.Missed, queue.ReasonMissed, 2)
			l.offer(1, 3)
			return l
		}, reasons{queue.SlotMissedOffer: 2}},
		"retuned": {func(t *testing.T) *ledger {
			l := served(t)
			l.capacity(5)
			l.offer(3, 4, 5)
			return l
		}, reasons{queue.SlotRetune: 3}},
		"several": {func(t *testing.T) *ledger {
			l := served(t)
			l.done(queue.Ended, queue.ReasonReleased, 1)
			l.capacity(4)
			l.done(queue.Ended, queue.ReasonWindow, 2)
			l.offer(3, 4, 5, 6)
			return l
		}, reasons{queue.SlotPurchase: 1, queue.SlotRetune: 2, queue.SlotExpiry: 1}},
		"the first of several goes first": {func(t *testing.T) *ledger {
			l := served(t)
			l.done(queue.Ended, queue.ReasonWindow, 2)
			l.done(queue.Ended, queue.ReasonReleased, 1)
			l.offer(3)
			return l
		}, reasons{queue.SlotExpiry: 1}},
		"then the second": {func(t *testing.T) *ledger {
			l := served(t)
			l.done(queue.Ended, queue.ReasonWindow, 2)
			l.done(queue.Ended, queue.ReasonReleased, 1)
			l.offer(3)
			l.offer(4)
			return l
		}, reasons{queue.SlotPurchase: 1}},
		"a lower capacity takes what was freed last": {func(t *testing.T) *ledger {
			l := served(t)
			l.done(queue.Ended, queue.ReasonReleased, 1)
			l.done(queue.Ended, queue.ReasonWindow, 2)
			l.capacity(1)
			l.capacity(2)
			l.offer(3, 4)
			return l
		}, reasons{queue.SlotPurchase: 1, queue.SlotRetune: 1}},
		"nothing is freed above the capacity": {func(t *testing.T) *ledger {
			l := served(t)
			l.capacity(1)
			l.done(queue.Ended, queue.ReasonReleased, 1)
			l.capacity(2)
			l.offer(3)
			return l
		}, reasons{queue.SlotRetune: 1}},
		"opened again after a pause": {func(t *testing.T) *ledger {
			l := served(t)
			l.done(queue.Ended, queue.ReasonReleased, 1)
			l.state(queue.Paused)
			l.done(queue.Ended, queue.ReasonWindow, 2)
			l.retune(func(s *queue.Settings) { s.State, s.Capacity = queue.Open, 3 })
			l.offer(3, 4, 5)
			return l
		}, reasons{queue.SlotReopening: 3}},
		"opened again after it was sold out": {func(t *testing.T) *ledger {
			l := newLedger(t, 3, queue.Open)
			l.join(10)
			l.offer(1, 2)
			l.claim(1)
			l.state(queue.SoldOut)
			l.withdraw(2)
			l.state(queue.Open)
			l.done(queue.Ended, queue.ReasonReleased, 1)
			l.offer(2, 3, 4)
			return l
		}, reasons{queue.SlotReopening: 2, queue.SlotPurchase: 1}},
		"a retune while it is open relabels nothing": {func(t *testing.T) *ledger {
			l := served(t)
			l.done(queue.Ended, queue.ReasonReleased, 1)
			l.retune(func(s *queue.Settings) { s.ClaimSeconds = 7 })
			l.offer(3)
			return l
		}, reasons{queue.SlotPurchase: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			l := c.play(t)
			journal, minutes, moves := l.journal()
			if last := moves[len(moves)-1]; !reflect.DeepEqual(last.Reasons, c.want) {
				t.Errorf("reasons of the last move: got %v, want %v", last.Reasons, c.want)
			}
			checkMoves(t, moves, queue.Move{})
			checkStanding(t, journal, minutes, l.view)
		})
	}
}

// checkMoves checks that moves follow on one another without gaps, and that each has its reasons.
func checkMoves(t *testing.T, moves []queue.Move, before queue.Move) {
	t.Helper()
	for _, m := range moves {
		sum := 0
		for _, n := range m.Reasons {
			sum += n
		}
		if m.Number != before.Number+1 || m.From != before.To || m.To < m.From || m.At.Before(before.At) || sum != m.Offered {
			t.Errorf("move %+v does not follow on %+v", m, before)
		}
		before = m
	}
}

// checkStanding checks that a journal, and its last minute, stands where the view does.
func checkStanding(t *testing.T, j queue.Journal, minutes []queue.Minute, v *queue.View) {
	t.Helper()
	m := minutes[len(minutes)-1]
	got := []int{int(j.Issued), int(j.Watermark), j.Waiting, j.Owed, j.Offers, j.Sessions, j.Capacity}
	last := []int{int(m.Issued), int(m.Watermark), m.Waiting, m.Owed, m.Offers, m.Sessions, m.Capacity}
	want := []int{int(v.Issued), int(v.Watermark), v.Waiting, v.Owed, v.Offers, v.Sessions, v.Settings.Capacity}
	if j.Entry != v.Number || !slices.Equal(got, want) || !slices.Equal(last, want) {
		t.Errorf("journal of entry %d: issued, watermark, waiting, owed, offers, sessions, capacity %v, in its minute %v, want %d: %v",
			j.Entry, got, last, v.Number, want)
	}
}

// TestMinutes plays a sale of several minutes and looks at each.
func TestMinutes(t *testing.T) {
	l := newLedger(t, 3, queue.Open)
	l.join(10)
	l.now = noon.Add(20 * time.Second)
	l.write(queue.Entry{Kind: queue.EntryTurn, Turn: 2})
	l.done(queue.Left, "", 3)
	l.now = noon.Add(30 * time.Second)
	l.offer(1, 4, 6) // passes 2 and 5, who are absent; 3 has left
	l.claim(1)

	l.now = noon.Add(80 * time.Second)
	l.done(queue.Expired, queue.ReasonAbsent, 2, 9)
	l.lapse(6)
	l.offer(6) // owed

	l.now = noon.Add(150 * time.Second) // nothing but a turn
	l.write(queue.Entry{Kind: queue.EntryTurn, Turn: 3})

	l.now = noon.Add(200 * time.Second)
	l.done(queue.Ended, queue.ReasonReleased, 1)
	l.done(queue.Missed, queue.ReasonMissed, 6)
	l.offer(5, 7) // one owed

	journal, got, moves := l.journal()
	want := []queue.Minute{
		{
			At: noon, Joined: 10, Admitted: 3, Absent: 2, Claimed: 1, Left: 1,
			State: queue.Open, Capacity: 3, Issued: 10, Watermark: 6, Waiting: 6, Owed: 2, Offers: 2, Sessions: 1,
			Wait: &queue.MinuteWait{P50: 30, P90: 30, Max: 30},
		},
		{
			At: noon.Add(time.Minute), Admitted: 1, MissedOffers: 1, Expired: 2,
			State: queue.Open, Capacity: 3, Issued: 10, Watermark: 6, Waiting: 4, Owed: 1, Offers: 2, Sessions: 1,
		},
		{
			At: noon.Add(3 * time.Minute), Admitted: 2, MissedOffers: 1, Ended: 1, Missed: 1,
			State: queue.Open, Capacity: 3, Issued: 10, Watermark: 7, Waiting: 2, Owed: 0, Offers: 3, Sessions: 0,
			Wait: &queue.MinuteWait{P50: 200, P90: 200, Max: 200},
		},
	}
	if len(got) != len(want) {
		t.Fatalf("got %d minutes %+v, want %d", len(got), got, len(want))
	}
	for i := range want {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("minute %d: got %+v wait %+v, want %+v wait %+v", i, got[i], got[i].Wait, want[i], want[i].Wait)
		}
	}
	checkStanding(t, journal, got, l.view)
	wantMoves := []queue.Move{
		{Number: 1, At: noon.Add(30 * time.Second), From: 0, To: 6, Offered: 3, Reasons: map[queue.SlotReason]int{queue.SlotOpening: 3}},
		{Number: 2, At: noon.Add(80 * time.Second), From: 6, To: 6, Offered: 1, OfOwed: 1, Reasons: map[queue.SlotReason]int{queue.SlotMissedOffer: 1}},
		{
			Number: 3, At: noon.Add(200 * time.Second), From: 6, To: 7, Offered: 2, OfOwed: 1,
			Reasons: map[queue.SlotReason]int{queue.SlotPurchase: 1, queue.SlotMissedOffer: 1},
		},
	}
	if !reflect.DeepEqual(moves, wantMoves) {
		t.Errorf("moves: got %+v, want %+v", moves, wantMoves)
	}
}

// TestJournalInParts plays random histories. Whoever goes on with a journal that another has kept,
// wherever that stood, writes what one who had kept it all the time would have written.
func TestJournalInParts(t *testing.T) {
	for seed := range uint64(20) {
		h := newHistory(seed)
		r := rand.New(rand.NewPCG(seed, 5))
		view := h.view()
		var entries []queue.Entry
		views := map[int]*queue.View{0: view} // by the number of entries before them
		for range 120 {
			for _, e := range h.step() {
				entries = append(entries, e)
				view, _ = view.Apply([]queue.Entry{e})
				views[len(entries)] = view
			}
		}
		pages, ok := queue.Journal{}.Fold(entries, view)
		if !ok {
			t.Fatal("the history does not follow on an empty journal")
		}
		journal, minutes, moves := unfold(t, pages)
		checkMoves(t, moves, queue.Move{})
		checkStanding(t, journal, minutes, view)

		var inParts []queue.Page
		last := queue.Journal{}
		for from := 0; from < len(entries); {
			to := min(from+1+r.IntN(60), len(entries))
			more, ok := last.Fold(entries[from:to], views[to])
			if !ok {
				t.Fatalf("entries %d to %d do not follow", from+1, to)
			}
			inParts = append(inParts, more...)
			text, err := json.Marshal(more[len(more)-1].Journal)
			if err != nil {
				t.Fatal(err)
			}
			last = queue.Journal{}
			if err := json.Unmarshal(text, &last); err != nil {
				t.Fatal(err)
			}
			from = to
		}
		partJournal, partMinutes, partMoves := unfold(t, inParts)
		if !reflect.DeepEqual(partMinutes, minutes) || !reflect.DeepEqual(partMoves, moves) {
			t.Errorf("seed %d: in parts the journal has %d minutes and %d moves that differ from %d and %d at once",
				seed, len(partMinutes), len(partMoves), len(minutes), len(moves))
		}
		got, err1 := json.Marshal(partJournal)
		want, err2 := json.Marshal(journal)
		if err1 != nil || err2 != nil || string(got) != string(want) {
			t.Errorf("seed %d: in parts the journal comes to %s, at once to %s", seed, got, want)
		}
	}
}

// TestJournalWantsWhatFollows offers a journal entries that do not follow on it.
func TestJournalWantsWhatFollows(t *testing.T) {
	l := newLedger(t, 2, queue.Open)
	l.join(5)
	l.offer(1)
	early, other := l.view, l.entries[1:]
	l.offer(2)
	for name, c := range map[string]struct {
		entries []queue.Entry
		view    *queue.View
	}{
		"a gap":               {other, early},
		"no view of the last": {l.entries, early},
		"too few":             {l.entries[:2], l.view},
		"a new generation":    {append(slices.Clone(l.entries[:3]), queue.Entry{Number: 4, Kind: queue.EntryGeneration}), l.view},
	} {
		if pages, ok := (queue.Journal{}).Fold(c.entries, c.view); ok || pages != nil {
			t.Errorf("%s: got %d pages, want none", name, len(pages))
		}
	}
}

// TestJournalThatLost goes on from a view after entries that nobody can read any more.
func TestJournalThatLost(t *testing.T) {
	l := newLedger(t, 5, queue.Open)
	l.join(10)
	l.offer(1, 2)
	l.claim(1, 2)
	journal, _, before := l.journal()
	at := len(l.entries)

	l.now = noon.Add(5 * time.Minute)
	l.join(10)
	l.offer(3, 5)
	l.claim(3)
	l.done(queue.Ended, queue.ReasonReleased, 1)
	lost := len(l.entries) - at
	seen, noticed := l.view, len(l.entries)
	l.now = noon.Add(10 * time.Minute)
	page := journal.Lose(seen, l.now)
	if n := len(page.Moves); n != 1 || page.Moves[0].Lost != uint64(lost) || page.Moves[0].Offered != 0 || page.Moves[0].To != seen.Watermark {
		t.Errorf("moves: got %+v, want one that says that %d entries were lost", page.Moves, lost)
	}
	l.now = noon.Add(10*time.Minute + 10*time.Second)
	l.offer(6, 15)
	rest, ok := page.Journal.Fold(l.entries[noticed:], l.view)
	if !ok {
		t.Fatal("the entries after the loss do not follow")
	}
	after, minutes, moves := unfold(t, append([]queue.Page{page}, rest...))
	checkMoves(t, moves, before[len(before)-1])
	checkStanding(t, after, minutes, l.view)
	if after.LostEntries != uint64(lost) || minutes[1].Lost != uint64(lost) || minutes[1].Joined != 0 || minutes[1].Admitted != 2 {
		t.Errorf("lost %d, minute of the loss %+v, want %d lost and only what was read counted", after.LostEntries, minutes[1], lost)
	}
	if got := moves[1].Reasons; got[queue.SlotOpening] != 2 {
		t.Errorf("reasons after the loss: got %v, want the slots that were free before it", got)
	}
	// 15 is in the midst of those who joined at a time that nobody knows.
	if wait := minutes[1].Wait; wait == nil || wait.P50 < 290 || wait.P50 > 330 || wait.Max != 610 {
		t.Errorf("waits of one who joined before what was lost and one in it: got %+v, want some 310 s and 610 s", wait)
	}
	// A log that was rewritten may have come to the same number, or a lower one.
	if again := after.Lose(seen, l.now); again.Journal.LostEntries != after.LostEntries+1 || again.Journal.Entry != seen.Number {
		t.Errorf("a loss that took numbers back: got entry %d and %d lost, want %d and %d", again.Journal.Entry,
			again.Journal.LostEntries, seen.Number, after.LostEntries+1)
	}
}

// TestJournalStaysSmall keeps a journal through a long sale in which much changes.
func TestJournalStaysSmall(t *testing.T) {
	l := newLedger(t, 20_000, queue.Open)
	reasons := []string{queue.ReasonReleased, queue.ReasonWindow, queue.ReasonRevoked}
	r := rand.New(rand.NewPCG(1, 2))
	next := uint64(1)
	var j queue.Journal
	for n := range 4000 {
		l.now = l.now.Add(2 * time.Second)
		l.join(10)
		if n%2 == 0 {
			l.offer(next)
			l.claim(next)
			l.done(queue.Ended, reasons[r.IntN(3)], next)
			next++
		}
		if n%100 == 99 {
			pages, ok := j.Fold(l.entries[j.Entry:], l.view)
			if !ok {
				t.Fatal("the entries do not follow")
			}
			j = pages[len(pages)-1].Journal
		}
	}
	text, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	if len(j.Slots) > 64 || len(j.Arrivals) > 128 || len(text) > 8<<10 {
		t.Errorf("got %d runs of slots, %d arrivals, %d bytes, want at most 64, 128, 8192", len(j.Slots), len(j.Arrivals), len(text))
	}
	free := 0
	for _, run := range j.Slots {
		free += run.Count
	}
	if free != 20_000 {
		t.Errorf("%d slots are free, want 20000", free)
	}
}
