package queue_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"waitingroom/origin/queue"
)

// history plays a queue at random: it keeps the truth position by position and writes the log.
type history struct {
	*rand.Rand
	now       time.Time
	number    uint64
	issued    uint64
	watermark uint64
	turn      uint64
	settings  queue.Settings
	done      map[uint64]queue.Fate // Claimed included
	offers    map[uint64]time.Time
	sessions  map[uint64]queue.Session
	made      map[time.Time]int
}

func newHistory(seed uint64) *history {
	settings := queue.DefaultSettings()
	settings.Capacity = 100
	return &history{
		Rand: rand.New(rand.NewPCG(seed, 99)), now: noon, turn: 1, settings: settings,
		done: map[uint64]queue.Fate{}, offers: map[uint64]time.Time{},
		sessions: map[uint64]queue.Session{}, made: map[time.Time]int{},
	}
}

func (h *history) view() *queue.View {
	return queue.NewView(queue.Snapshot{
		ID: "t.q", Incarnation: "inc", Generations: []string{"g0", "g1"}, CreatedAt: noon, Settings: h.settings, Turn: 1,
	})
}

func (h *history) entry(e queue.Entry) queue.Entry {
	h.number++
	e.Number, e.At = h.number, h.now
	return e
}

// waiting picks up to n positions that wait without an offer, from a random one on.
func (h *history) waiting(from uint64, n int) queue.Positions {
	var list queue.Positions
	for p := from; p <= h.issued && len(list) < n; p += 1 + h.Uint64N(2) {
		if _, offered := h.offers[p]; !offered && h.done[p] == queue.Waiting {
			list = append(list, p)
		}
	}
	return list
}

func some[V any](h *history, m map[uint64]V, n int) queue.Positions {
	var list queue.Positions
	for p := range m {
		list = append(list, p)
	}
	slices.Sort(list)
	h.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	list = list[:min(n, len(list))]
	slices.Sort(list)
	return list
}

func (h *history) any() uint64 { return 1 + h.Uint64N(max(h.issued, 1)) }

// step returns the entries of one random change.
func (h *history) step() []queue.Entry {
	h.now = h.now.Add(time.Duration(h.IntN(3000)) * time.Millisecond)
	switch h.IntN(10) {
	case 0, 1:
		h.issued += 1 + h.Uint64N(700)
		return []queue.Entry{h.entry(queue.Entry{Kind: queue.EntryJoined, Issued: h.issued})}
	case 2, 3, 4:
		from := h.any()
		if h.IntN(3) > 0 {
			from = min(h.watermark+1, h.issued+1)
		}
		return h.offer(h.waiting(from, 1+h.IntN(60)))
	case 5:
		var entries []queue.Entry
		for _, p := range some(h, h.offers, 30) {
			s := queue.Session{Position: p, ID: fmt.Sprint("t.q~", p), StartsAt: h.now, ExpiresAt: h.now.Add(time.Minute)}
			delete(h.offers, p)
			h.sessions[p], h.done[p] = s, queue.Claimed
			entries = append(entries, h.entry(queue.Entry{
				Kind: queue.EntryClaimed, Positions: queue.Positions{p}, Session: s.ID, Since: s.StartsAt, Until: s.ExpiresAt,
			}))
		}
		return entries
	case 6:
		kind := queue.EntryLapsed
		if h.IntN(2) == 0 {
			kind = queue.EntryWithdrawn
		}
		list := some(h, h.offers, 20)
		for _, p := range list {
			delete(h.offers, p)
		}
		return []queue.Entry{h.entry(queue.Entry{Kind: kind, Positions: list})}
	case 7:
		by := time.Duration(h.IntN(10_000)) * time.Millisecond
		for p := range h.offers {
			h.offers[p] = h.offers[p].Add(by)
		}
		return []queue.Entry{h.entry(queue.Entry{Kind: queue.EntryProlonged, Since: h.now.Add(-by), Until: h.now})}
	case 8:
		h.turn++
		h.settings.Capacity++
		settings := h.settings
		return []queue.Entry{
			h.entry(queue.Entry{Kind: queue.EntryTurn, Turn: h.turn}),
			h.entry(queue.Entry{Kind: queue.EntrySettings, Settings: &settings}),
		}
	default:
		return []queue.Entry{
			h.finish(some(h, h.sessions, 25), queue.Ended),
			h.finish(some(h, h.offers, 5), queue.Missed),
			h.finish(h.waiting(h.any(), h.IntN(400)), queue.Expired),
			h.finish(h.waiting(h.any(), h.IntN(20)), queue.Left),
		}
	}
}

func (h *history) offer(list queue.Positions) []queue.Entry {
	if len(list) == 0 {
		return nil
	}
	for _, p := range list {
		h.offers[p] = h.now.Add(time.Minute)
	}
	h.watermark = max(h.watermark, list[len(list)-1])
	h.made[h.now.Truncate(10*time.Second)] += len(list)
	return []queue.Entry{h.entry(queue.Entry{
		Kind: queue.EntryOffered, Positions: list, Until: h.now.Add(time.Minute), Watermark: h.watermark, Issued: h.issued,
	})}
}

func (h *history) finish(list queue.Positions, fate queue.Fate) queue.Entry {
	for _, p := range list {
		delete(h.offers, p)
		delete(h.sessions, p)
		h.done[p] = fate
	}
	return h.entry(queue.Entry{Kind: queue.EntryDone, Positions: list, Fate: fate})
}

// aheads counts, for every position from 1 to n, who is not done strictly between the watermark
// and it.
func (h *history) aheads(n uint64) []uint64 {
	list := make([]uint64, n+1)
	for p := h.watermark + 2; p <= n; p++ {
		list[p] = list[p-1]
		if !h.done[p-1].Done() {
			list[p]++
		}
	}
	return list
}

// check compares a view with the truth.
func (h *history) check(t *testing.T, v *queue.View) {
	t.Helper()
	if v.Number != h.number || v.Issued != h.issued || v.Watermark != h.watermark || v.Turn != h.turn || v.Settings.Capacity != h.settings.Capacity {
		t.Fatalf("view of entry %d: issued %d, watermark %d, turn %d, capacity %d; want %d: %d, %d, %d, %d",
			v.Number, v.Issued, v.Watermark, v.Turn, v.Settings.Capacity, h.number, h.issued, h.watermark, h.turn, h.settings.Capacity)
	}
	waiting, owed := 0, 0
	for p := uint64(1); p <= h.issued; p++ {
		fate := h.done[p]
		if got := v.Fate(p); got != fate {
			t.Fatalf("fate of %d is %v, want %v", p, got, fate)
		}
		claimBy, offered := h.offers[p]
		if got, running := v.Offer(p); running != offered || !got.Equal(claimBy) {
			t.Fatalf("offer of %d: %v until %v, want %v until %v", p, running, got, offered, claimBy)
		}
		session, active := h.sessions[p]
		if got, running := v.Session(p); running != active || got != session {
			t.Fatalf("session of %d: %+v, want %+v", p, got, session)
		}
		if fate == queue.Waiting && !offered {
			waiting++
			if p <= h.watermark {
				owed++
			}
		}
	}
	if v.Waiting != waiting || v.Owed != owed || v.Offers != len(h.offers) || v.Sessions != len(h.sessions) {
		t.Fatalf("waiting %d, owed %d, offers %d, sessions %d; want %d, %d, %d, %d",
			v.Waiting, v.Owed, v.Offers, v.Sessions, waiting, owed, len(h.offers), len(h.sessions))
	}
}
