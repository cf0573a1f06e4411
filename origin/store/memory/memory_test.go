package memory_test

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
	"waitingroom/origin/store/memory"
	"waitingroom/origin/store/storetest"
)

func open(t testing.TB, s *memory.Store) *memory.Store {
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, &memory.Store{}) })
}

const id = queue.ID("t.q")

func create(t testing.TB, s *memory.Store, change func(*queue.Settings)) {
	t.Helper()
	settings := queue.DefaultSettings()
	settings.Capacity = 10
	if change != nil {
		change(&settings)
	}
	now, err := s.Now(context.Background())
	if err != nil {
		t.Fatalf("Now: %v", err)
	}
	if _, _, err := s.Create(context.Background(), id, "inc", "g1", settings, now); err != nil {
		t.Fatalf("Create: %v", err)
	}
}

func join(t testing.TB, s *memory.Store, seq uint64, n int, now time.Time) store.JoinResult {
	t.Helper()
	result, err := s.Join(context.Background(), store.JoinBatch{Queue: id, Edge: "e", Seq: seq, Users: make([]store.Key, n), Now: now})
	if err != nil {
		t.Fatalf("Join: %v", err)
	}
	return result
}

func TestLogIsTrimmed(t *testing.T) {
	s := open(t, &memory.Store{LogEntries: 10})
	create(t, s, nil)
	now := time.Now()
	for seq := range uint64(100) {
		last := join(t, s, seq+1, 1, now).Entry
		if last < 20 {
			continue
		}
		for _, kept := range []uint64{10, 3, 1} {
			entries, err := s.Entries(t.Context(), id, "inc", last-kept, "", 1000)
			if err != nil || len(entries) != int(kept) || entries[0].Number != last-kept+1 {
				t.Fatalf("the last %d of %d entries: %d entries, error %v", kept, last, len(entries), err)
			}
		}
		for _, lost := range []uint64{0, last - 12, last - 11} {
			if entries, err := s.Entries(t.Context(), id, "inc", lost, "", 1000); !errors.Is(err, store.ErrTrimmed) {
				t.Fatalf("entries after %d of %d: %d entries, error %v, want %v", lost, last, len(entries), err, store.ErrTrimmed)
			}
		}
	}
}

func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &memory.Store{}
		begin, err := s.Now(t.Context())
		if err != nil || !begin.Equal(time.Now()) || begin.Location() != time.UTC {
			t.Errorf("Now: %v, error %v, want the bubble's time in UTC", begin, err)
		}
		s = &memory.Store{Clock: func() time.Time { return begin.Add(1234567 * time.Nanosecond).Local() }}
		now, err := s.Now(t.Context())
		if want := begin.Add(time.Millisecond); err != nil || now != want {
			t.Errorf("Now: %v, error %v, want %v", now, err, want)
		}
	})
}

// A canceled call changes nothing.
func TestCanceled(t *testing.T) {
	s := open(t, &memory.Store{})
	create(t, s, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	now := time.Now()
	if _, err := s.Join(ctx, store.JoinBatch{Queue: id, Edge: "e", Seq: 1, Users: make([]store.Key, 1), Now: now}); !errors.Is(err, context.Canceled) {
		t.Errorf("Join: error %v, want %v", err, context.Canceled)
	}
	if _, _, err := s.Create(ctx, "t.other", "inc", "g1", queue.DefaultSettings(), now); !errors.Is(err, context.Canceled) {
		t.Errorf("Create: error %v, want %v", err, context.Canceled)
	}
	if err := s.Revoke(ctx, "t", store.Revocation{ID: "x", ExpiresAt: now.Add(time.Hour)}, now); !errors.Is(err, context.Canceled) {
		t.Errorf("Revoke: error %v, want %v", err, context.Canceled)
	}
	list, err := s.List(t.Context(), "t")
	if err != nil || len(list) != 1 {
		t.Errorf("List: %v, error %v, want one queue", list, err)
	}
	if got := join(t, s, 1, 1, now).Joins[0].Position; got != 1 {
		t.Errorf("the next join got %d, want 1", got)
	}
}

func TestHintsEndWithTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &memory.Store{}
		create(t, s, nil)
		hints, ended := make(chan queue.ID, 10), make(chan error)
		go func() { ended <- s.Hints(t.Context(), func(id queue.ID) { hints <- id }) }()
		synctest.Wait()
		if len(hints) != 1 || <-hints != store.Listening {
			t.Errorf("%d hints before any change, want the one that says that they come", len(hints))
		}
		for seq := range uint64(3) {
			join(t, s, seq+1, 1, time.Now())
			synctest.Wait()
			if len(hints) != 1 || <-hints != id {
				t.Errorf("join %d gave %d hints, want one", seq+1, len(hints))
			}
		}
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if err := <-ended; err == nil {
			t.Error("Hints of a closed store ended without an error")
		}
		if err := s.Hints(t.Context(), func(queue.ID) {}); err == nil {
			t.Error("Hints of a closed store began without an error")
		}
	})
}

// million brings a queue with a million fans in line, half of them present.
func million(b *testing.B) (s *memory.Store, epoch uint64, now time.Time) {
	b.Helper()
	s = open(b, &memory.Store{})
	create(b, s, func(s *queue.Settings) { s.Capacity = 5000 })
	now = time.Now()
	for seq := range uint64(1000) {
		join(b, s, seq+1, 1000, now)
	}
	epoch, err := s.Acquire(b.Context(), id, "o", time.Hour, now)
	if err != nil {
		b.Fatalf("Acquire: %v", err)
	}
	for turn := range uint64(3) {
		for from := uint64(1); from < 1_000_000; from += 20_000 {
			var seen queue.Positions
			for p := from; p < from+20_000; p += 2 {
				seen = append(seen, p)
			}
			if _, err := s.See(b.Context(), store.SightingBatch{Queue: id, Incarnation: "inc", Edge: "e", Turn: turn + 2, Positions: seen, Now: now}); err != nil {
				b.Fatalf("See: %v", err)
			}
		}
		if turn < 2 {
			now = now.Add(time.Minute)
			if _, _, err := s.CloseTurn(b.Context(), id, epoch, turn+2, now); err != nil {
				b.Fatalf("CloseTurn: %v", err)
			}
		}
	}
	return s, epoch, now
}

func BenchmarkTick(b *testing.B) {
	s, epoch, now := million(b)
	for b.Loop() {
		now = now.Add(250 * time.Millisecond)
		look, err := s.Look(b.Context(), id, 10_000, now)
		if err != nil {
			b.Fatalf("Look: %v", err)
		}
		tick, _ := queue.Plan(look, queue.Pace{}, now)
		tick.Epoch = epoch
		if _, err := s.Commit(b.Context(), id, "o", time.Hour, tick); err != nil {
			b.Fatalf("Commit: %v", err)
		}
	}
}

func BenchmarkCloseTurn(b *testing.B) {
	s, epoch, now := million(b)
	for turn := uint64(4); b.Loop(); turn++ {
		now = now.Add(time.Second)
		if _, _, err := s.CloseTurn(b.Context(), id, epoch, turn, now); err != nil {
			b.Fatalf("CloseTurn: %v", err)
		}
	}
}

func BenchmarkJoin(b *testing.B) {
	s := open(b, &memory.Store{})
	create(b, s, nil)
	now := time.Now()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var seq uint64
	for b.Loop() {
		seq++
		join(b, s, seq, 100, now)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(seq)/100, "B/fan")
}
