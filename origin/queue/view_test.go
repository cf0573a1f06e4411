package queue_test

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"waitingroom/origin/queue"
)

// aheadFrom computes ahead as the page does, from the public state alone.
func aheadFrom(s queue.Summary, position uint64) uint64 {
	if position <= s.Watermark+1 {
		return 0
	}
	index, offset := (position-s.FirstBlock)/queue.BlockSize, (position-s.FirstBlock)%queue.BlockSize
	var ahead uint64
	if index == 0 {
		for n := range offset {
			ahead += uint64(s.Bits[n/8] >> (n % 8) & 1)
		}
		return ahead
	}
	count := func(i uint64) uint64 {
		if i < uint64(len(s.Blocks)) {
			return uint64(s.Blocks[i])
		}
		if i == 0 {
			return queue.BlockSize - s.Watermark%queue.BlockSize
		}
		return queue.BlockSize
	}
	for i := range index {
		ahead += count(i)
	}
	return ahead + min(offset, max(count(index), 1)-1)
}

func TestAhead(t *testing.T) {
	for seed := range uint64(3) {
		h := newHistory(seed)
		v := h.view()
		before := map[uint64]uint64{}
		for range 120 {
			v, _ = v.Apply(h.step())
			h.check(t, v)
			summary := v.Summary(h.now)
			exact := h.aheads(h.issued + 3000)
			firstBlockEnds := (h.watermark/queue.BlockSize + 1) * queue.BlockSize
			for p := uint64(1); p < h.issued+3000; p += 1 + h.Uint64N(20) {
				if h.done[p].Done() {
					delete(before, p)
					continue
				}
				got := v.Ahead(p)
				switch {
				case got < exact[p]:
					t.Fatalf("ahead of %d is %d, but there are %d (watermark %d)", p, got, exact[p], h.watermark)
				case got != exact[p] && p <= firstBlockEnds:
					t.Fatalf("ahead of %d in the first block is %d, want exactly %d (watermark %d)", p, got, exact[p], h.watermark)
				case p > h.watermark && got > p-h.watermark-1:
					t.Fatalf("ahead of %d is %d, more than there are positions", p, got)
				}
				if was, known := before[p]; known && got > was {
					t.Fatalf("ahead of %d rose from %d to %d", p, was, got)
				}
				before[p] = got
				if fromPage := aheadFrom(summary, p); fromPage != got {
					t.Fatalf("ahead of %d is %d, but %d by the public state (watermark %d, issued %d)", p, got, fromPage, h.watermark, h.issued)
				}
			}
		}
		if h.issued < 3*queue.BlockSize || h.watermark < queue.BlockSize {
			t.Errorf("seed %d: issued %d, watermark %d: too few to say anything", seed, h.issued, h.watermark)
		}
	}
}

// At the borders of blocks one position too many or too few would not show in random histories.
func TestAheadAtBlockBorders(t *testing.T) {
	for _, issued := range []uint64{1, 1023, 1024, 1025, 2047, 2048, 2049, 5000} {
		for _, watermark := range []uint64{0, 1, 1022, 1023, 1024, 1025, 2047, 2048} {
			if watermark > issued {
				continue
			}
			h := newHistory(1)
			h.issued = issued
			entries := []queue.Entry{h.entry(queue.Entry{Kind: queue.EntryJoined, Issued: issued})}
			if watermark > 0 {
				entries = append(entries, h.offer(queue.Positions{watermark})...)
			}
			v, ok := h.view().Apply(entries)
			if !ok {
				t.Fatal("entries were refused")
			}
			h.check(t, v)
			exact, summary := h.aheads(issued+3000), v.Summary(h.now)
			for p := uint64(1); p <= issued+3000; p++ {
				if got := v.Ahead(p); got != exact[p] {
					t.Fatalf("issued %d, watermark %d: ahead of %d is %d, want %d", issued, watermark, p, got, exact[p])
				}
				if got := aheadFrom(summary, p); got != exact[p] {
					t.Fatalf("issued %d, watermark %d: ahead of %d is %d by the public state, want %d", issued, watermark, p, got, exact[p])
				}
			}
		}
	}
}

func TestSnapshotRoundTrip(t *testing.T) {
	h := newHistory(42)
	v := h.view()
	for i := range 200 {
		v, _ = v.Apply(h.step())
		if i%10 > 0 {
			continue
		}
		snapshot := v.Snapshot()
		again := queue.NewView(snapshot)
		h.check(t, again)
		if got := again.Snapshot(); !reflect.DeepEqual(got, snapshot) {
			t.Fatalf("a snapshot of the view of a snapshot differs from it")
		}
		if got, want := again.RatePerMinute(h.now), v.RatePerMinute(h.now); got != want {
			t.Errorf("rate is %d a minute, want %d", got, want)
		}
		for p := uint64(1); p < h.issued+2000; p += 13 {
			if !h.done[p].Done() && again.Ahead(p) != v.Ahead(p) {
				t.Fatalf("ahead of %d is %d, want %d", p, again.Ahead(p), v.Ahead(p))
			}
		}
	}
	if g := v.Generation(); g != "g1" || !v.Knows("g0") || v.Knows("g2") {
		t.Errorf("generation %s, knows g0 %v, g2 %v; want g1, true, false", g, v.Knows("g0"), v.Knows("g2"))
	}
	// A store may leave out the fates of those who wait at the end.
	short := v.Snapshot()
	last := len(short.Fates)
	for last > 0 && short.Fates[last-1] == 0 {
		last--
	}
	short.Fates = short.Fates[:last]
	h.check(t, queue.NewView(short))
}

func TestApplyGaps(t *testing.T) {
	h := newHistory(7)
	var entries []queue.Entry
	for len(entries) < 60 {
		entries = append(entries, h.step()...)
	}
	whole, ok := h.view().Apply(entries)
	if !ok {
		t.Fatal("entries without a gap were refused")
	}
	h.check(t, whole)
	begin, _ := h.view().Apply(entries[:20])
	if next, ok := begin.Apply(entries[21:]); ok || next != nil {
		t.Errorf("entries after a gap were applied")
	}
	if next, ok := begin.Apply(append(slices.Clone(entries[20:30]), entries[31:]...)); ok || next != nil {
		t.Errorf("entries with a gap inside were applied")
	}
	if begin.Number != 20 {
		t.Errorf("the view stands at entry %d after refused entries, want 20", begin.Number)
	}
	// What the view has already is passed over.
	next, ok := begin.Apply(entries[5:])
	if !ok || !reflect.DeepEqual(next.Snapshot(), whole.Snapshot()) {
		t.Errorf("overlapping entries: applied %v, to another state than at once", ok)
	}
	if same, ok := whole.Apply(entries[10:30]); !ok || same.Number != whole.Number {
		t.Errorf("old entries moved the view from %d to %d, ok %v", whole.Number, same.Number, ok)
	}
	if same, ok := whole.Apply(nil); !ok || !reflect.DeepEqual(same.Snapshot(), whole.Snapshot()) {
		t.Errorf("no entries changed the view")
	}
}

// Readers hold on to views while newer ones are made.
func TestApplyLeavesTheOlderViewAlone(t *testing.T) {
	h := newHistory(11)
	v := h.view()
	type kept struct {
		view     *queue.View
		snapshot queue.Snapshot
		summary  queue.Summary
	}
	var older []kept
	for range 100 {
		older = append(older, kept{v, v.Snapshot(), v.Summary(noon)})
		next, ok := v.Apply(h.step())
		if !ok {
			t.Fatal("entries were refused")
		}
		// Two views may be made of one.
		if _, ok := v.Apply([]queue.Entry{{Number: v.Number + 1, At: h.now, Kind: queue.EntryDone, Positions: queue.Positions{1, h.issued + 1}, Fate: queue.Left}}); !ok {
			t.Fatal("an entry was refused")
		}
		v = next
	}
	for i, k := range older {
		if !reflect.DeepEqual(k.view.Snapshot(), k.snapshot) || !reflect.DeepEqual(k.view.Summary(noon), k.summary) {
			t.Fatalf("view %d changed after newer ones were made of it", i)
		}
	}
	h.check(t, v)
}

func TestRatePerMinute(t *testing.T) {
	h := newHistory(1)
	h.issued = 1000
	v, _ := h.view().Apply([]queue.Entry{h.entry(queue.Entry{Kind: queue.EntryJoined, Issued: 1000})})
	for p := uint64(1); p <= 300; p++ {
		h.now = h.now.Add(500 * time.Millisecond)
		v, _ = v.Apply(h.offer(queue.Positions{p}))
	}
	if got := v.RatePerMinute(h.now); got < 100 || got > 120 {
		t.Errorf("rate is %d a minute at 120 offers a minute, want it within a slice of ten seconds", got)
	}
	if got := v.RatePerMinute(h.now.Add(2 * time.Minute)); got != 0 {
		t.Errorf("rate is %d a minute after two minutes without offers, want 0", got)
	}
}
