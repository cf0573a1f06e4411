package storetest

import (
	"context"
	"errors"
	"math/rand/v2"
	"reflect"
	"strconv"
	"sync"
	"testing"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

var journalCases = []testCase{
	{"pages", journalPages},
	{"pages at once", journalRace},
	{"random histories", journalRandom},
}

// journalPage is a page with one minute and n moves that goes on from a journal.
func journalPage(from queue.Journal, at time.Time, n int) queue.Page {
	next := from
	next.Cursor = queue.Cursor{Entry: from.Entry + 7, Chain: "c" + strconv.FormatUint(from.Entry+7, 10)}
	next.At, next.State, next.Capacity = at, queue.Open, 5
	next.Slots = queue.Slots{{Reason: queue.SlotPurchase, Count: 3}, {Reason: queue.SlotExpiry, Count: 2}}
	next.Arrivals = queue.Line{{After: 3, Last: 1 << 40, Begin: at.UnixMilli(), End: at.UnixMilli() + 5}}
	next.Running = queue.Minute{At: at.Truncate(time.Minute), Joined: 4}
	next.Waits = queue.Waits{Counts: map[int]int{3: 1, 400: 2}, Max: 99}
	page := queue.Page{Minutes: []queue.Minute{{
		At: at.Truncate(time.Minute).Add(-time.Minute), Admitted: n, State: queue.Paused, Wait: &queue.MinuteWait{P50: 1, P90: 2, Max: 3},
	}}}
	for range n {
		next.LastMove++
		page.Moves = append(page.Moves, queue.Move{
			Number: next.LastMove, At: at, From: next.LastMove - 1, To: next.LastMove, Offered: 2, OfOwed: 1,
			Reasons: map[queue.SlotReason]int{queue.SlotRetune: 1, queue.SlotLeft: 1},
		})
	}
	page.Journal = next
	return page
}

func journalPages(t *testing.T, s store.Store) {
	sc := newScene(t, s, nil)
	ctx := t.Context()
	read := func(limit int) (queue.Journal, []queue.Minute) {
		t.Helper()
		journal, minutes, err := s.ReadJournal(ctx, sc.id, sc.inc, limit)
		if err != nil {
			t.Fatalf("ReadJournal: %v", err)
		}
		return journal, minutes
	}
	moves := func(after uint64, limit int, want ...uint64) []queue.Move {
		t.Helper()
		list, err := s.ReadMoves(ctx, sc.id, sc.inc, after, limit)
		if err != nil {
			t.Fatalf("ReadMoves: %v", err)
		}
		var got []uint64
		for _, m := range list {
			got = append(got, m.Number)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("moves after %d, at most %d: got %v, want %v", after, limit, got, want)
		}
		return list
	}
	journal, minutes := read(10)
	if !reflect.DeepEqual(journal, queue.Journal{}) || len(minutes) != 0 {
		t.Errorf("a journal of which nothing is written: got %+v and %d minutes, want the zero value", journal, len(minutes))
	}
	moves(0, 10)

	var pages []queue.Page
	for n := range 3 {
		page := journalPage(journal, sc.now.Add(time.Duration(n)*time.Minute), 2)
		for range 2 { // a repetition changes nothing
			if err := s.WriteJournal(ctx, sc.id, sc.inc, journal.Cursor, page); err != nil {
				t.Fatalf("WriteJournal: %v", err)
			}
		}
		journal, pages = page.Journal, append(pages, page)
	}
	want := pages[2].Journal
	if got, minutes := read(2); !reflect.DeepEqual(got, want) || len(minutes) != 2 ||
		!reflect.DeepEqual(minutes[0], pages[1].Minutes[0]) || !reflect.DeepEqual(minutes[1], pages[2].Minutes[0]) {
		t.Errorf("got %+v with the last minutes %+v, want %+v with those of the last two pages", got, minutes, want)
	}
	if _, minutes := read(0); len(minutes) != 0 {
		t.Errorf("at most no minutes: got %d", len(minutes))
	}
	if got := moves(0, 3, 1, 2, 3); !reflect.DeepEqual(got[2], pages[1].Moves[0]) {
		t.Errorf("third move: got %+v, want %+v", got[2], pages[1].Moves[0])
	}
	moves(4, 10, 5, 6)
	moves(6, 10)
	moves(1<<63, 10)
	moves(0, 0)

	other := journalPage(queue.Journal{Cursor: queue.Cursor{Entry: 50}}, sc.now.Add(time.Hour), 1)
	for name, from := range map[string]queue.Cursor{
		"the beginning": {}, "an earlier page": pages[0].Journal.Cursor, "beyond it": {Entry: 99, Chain: "c99"},
		"another history": {Entry: want.Entry, Chain: "another"},
	} {
		sc.wantErr("a page that goes on from "+name, s.WriteJournal(ctx, sc.id, sc.inc, from, other), store.ErrConflict)
	}
	sc.wantErr("a page of another incarnation", s.WriteJournal(ctx, sc.id, "another", want.Cursor, other), store.ErrNotFound)
	sc.wantErr("a page of no queue", s.WriteJournal(ctx, queue.MakeID(sc.id.Tenant(), "none"), sc.inc, queue.Cursor{}, other), store.ErrNotFound)
	_, _, err := s.ReadJournal(ctx, sc.id, "another", 1)
	sc.wantErr("ReadJournal of another incarnation", err, store.ErrNotFound)
	_, err = s.ReadMoves(ctx, sc.id, "another", 0, 1)
	sc.wantErr("ReadMoves of another incarnation", err, store.ErrNotFound)
	if got, _ := read(0); !reflect.DeepEqual(got, want) {
		t.Errorf("the journal after pages that were refused: got %+v, want it unchanged", got)
	}
	moves(0, 10, 1, 2, 3, 4, 5, 6)

	sc.setState(queue.Closed)
	if err := s.Delete(ctx, sc.id, sc.inc); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	sc.inc = randomName()
	sc.create(queue.DefaultSettings())
	if got, minutes := read(10); got.Entry != 0 || len(minutes) != 0 {
		t.Errorf("the journal of a queue that was made again: got %+v and %d minutes, want none", got, len(minutes))
	}
	moves(0, 10)
}

// journalRace lets several write different pages at once, time and again: one of them succeeds.
func journalRace(t *testing.T, s store.Store) {
	sc := newScene(t, s, nil)
	var journal queue.Journal
	for round := range 10 {
		var group sync.WaitGroup
		var mu sync.Mutex
		var won []queue.Page
		for n := range 4 {
			page := journalPage(journal, sc.now.Add(time.Duration(round)*time.Minute), 1)
			page.Journal.Chain = strconv.Itoa(n)
			group.Go(func() {
				switch err := s.WriteJournal(t.Context(), sc.id, sc.inc, journal.Cursor, page); {
				case err == nil:
					mu.Lock()
					won = append(won, page)
					mu.Unlock()
				case !errors.Is(err, store.ErrConflict):
					t.Errorf("WriteJournal: %v", err)
				}
			})
		}
		group.Wait()
		if len(won) != 1 {
			t.Fatalf("%d of four that wrote at once succeeded, want 1", len(won))
		}
		journal = won[0].Journal
	}
	moves, err := s.ReadMoves(t.Context(), sc.id, sc.inc, 0, 100)
	if err != nil || len(moves) != 10 {
		t.Errorf("%d moves, %v, want one of each round", len(moves), err)
	}
}

// journalRandom plays random histories, keeps their journal page by page, and compares it with the
// totals.
func journalRandom(t *testing.T, s store.Store) {
	for seed := range uint64(3) {
		r := rand.New(rand.NewPCG(seed, 7))
		sc := newScene(t, s, func(s *queue.Settings) {
			s.Capacity = 1 + r.IntN(10)
			s.HoldSeconds = 1 + r.IntN(20)
			s.ClaimSeconds = 1 + r.IntN(10)
			s.PurchaseWindowSeconds = 1 + r.IntN(20)
			s.MaxMissedOffers = 1 + r.IntN(3)
		})
		for range 6 {
			for range 25 {
				sc.randomStep(r)
			}
			KeepJournal(t, s, sc.id, sc.inc)
		}
		CheckJournal(t, s, sc.id, sc.inc)
	}
}

// KeepJournal writes the journal of a queue, whose log is all there, up to the end of the log.
func KeepJournal(t testing.TB, s store.Store, id queue.ID, incarnation string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	journal, _, err := s.ReadJournal(ctx, id, incarnation, 0)
	if err != nil {
		t.Fatalf("ReadJournal: %v", err)
	}
	snapshot, err := s.Snapshot(ctx, id)
	if err != nil {
		t.Fatalf("Snapshot: %v", err)
	}
	entries, err := s.Entries(ctx, id, incarnation, journal.Entry, journal.Chain, 100_000)
	if err != nil {
		t.Fatalf("Entries: %v", err)
	}
	pages, ok := journal.Fold(entries, queue.NewView(snapshot))
	if !ok {
		t.Fatalf("%d entries do not follow on the journal of entry %d", len(entries), journal.Entry)
	}
	for _, page := range pages {
		if err := s.WriteJournal(ctx, id, incarnation, journal.Cursor, page); err != nil {
			t.Fatalf("WriteJournal: %v", err)
		}
		journal = page.Journal
	}
}

// CheckJournal checks that the journal of a queue, which is up to date and has lost nothing, tells
// what the store counts: the series sum to the totals, every slot that was offered has its reasons,
// and each move begins where the one before it ended.
func CheckJournal(t testing.TB, s store.Store, id queue.ID, incarnation string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	journal, minutes, err := s.ReadJournal(ctx, id, incarnation, store.MinutesKept)
	if err != nil {
		t.Fatalf("ReadJournal: %v", err)
	}
	moves, err := s.ReadMoves(ctx, id, incarnation, 0, store.MovesKept)
	if err != nil {
		t.Fatalf("ReadMoves: %v", err)
	}
	want, err := s.Counts(ctx, id)
	if err != nil {
		t.Fatalf("Counts: %v", err)
	}
	if running, ok := journal.RunningMinute(); ok {
		minutes = append(minutes, running)
	}
	got := store.Counts{
		Present: want.Present, Issued: journal.Issued, Watermark: journal.Watermark,
		Waiting: journal.Waiting, Offers: journal.Offers, Sessions: journal.Sessions,
	}
	joined, absent := 0, 0
	for i, m := range minutes {
		if i > 0 && !m.At.After(minutes[i-1].At) {
			t.Errorf("the minute %v comes after %v", m.At, minutes[i-1].At)
		}
		joined += m.Joined
		absent += m.Absent
		got.Admitted += m.Admitted
		got.MissedOffers += m.MissedOffers
		got.Claimed += m.Claimed
		got.Ended += m.Ended
		got.Expired += m.Expired
		got.Missed += m.Missed
		got.Left += m.Left
	}
	if got != want || uint64(joined) != want.Issued {
		t.Errorf("the journal counts %+v and %d joined, the store %+v", got, joined, want)
	}
	var number, watermark uint64
	offered, beyond := 0, 0
	for _, m := range moves {
		reasons := 0
		for _, n := range m.Reasons {
			reasons += n
		}
		if m.Number != number+1 || m.From != watermark || m.To < m.From || reasons != m.Offered || m.Reasons[queue.SlotUnknown] > 0 {
			t.Errorf("move %+v does not follow on number %d and watermark %d with %d reasons", m, number, watermark, m.Offered)
		}
		number, watermark = m.Number, m.To
		offered += m.Offered
		beyond += m.Offered - m.OfOwed
	}
	if watermark != want.Watermark || offered != want.Admitted {
		t.Errorf("moves lead to the watermark %d with %d offers, want %d with %d", watermark, offered, want.Watermark, want.Admitted)
	}
	// Each position that the watermark has passed was offered a slot then, or absent, or out.
	if passed := beyond + absent; uint64(passed) > want.Watermark || int(want.Watermark)-passed > want.Expired+want.Left {
		t.Errorf("%d offered and %d absent of %d positions that were passed, with %d expired and %d left",
			beyond, absent, want.Watermark, want.Expired, want.Left)
	}
}
