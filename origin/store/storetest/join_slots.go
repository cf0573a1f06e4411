package storetest

import (
	"reflect"
	"testing"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

func joinSlots(t *testing.T, s store.Store) {
	sc := newScene(t, s, func(s *queue.Settings) { s.Capacity = 5 })
	sc.tick()
	if got := sc.look().JoinSlots; got != 5 {
		t.Fatalf("an empty queue lets %d joins take slots, want 5", got)
	}
	result := sc.joinBatch(sc.batch(key(1), store.Key{}, key(1)))
	for i, want := range []store.Joined{
		{Position: 1, New: true, ClaimBy: sc.claimBy()},
		{Position: 2, New: true, ClaimBy: sc.claimBy()},
		{Position: 1, ClaimBy: sc.claimBy()},
	} {
		if result.Joins[i] != want {
			t.Errorf("join %d: %+v, want %+v", i, result.Joins[i], want)
		}
	}
	entries, err := s.Entries(t.Context(), sc.id, sc.inc, result.Entry-2, "", 10)
	if err != nil || len(entries) != 2 {
		t.Fatalf("Entries: %+v, error %v", entries, err)
	}
	joined, offered := entries[0], entries[1]
	if joined.Kind != queue.EntryJoined || joined.Issued != 2 {
		t.Errorf("first entry is %+v, want joined up to 2", joined)
	}
	if offered.Kind != queue.EntryOffered || !reflect.DeepEqual(offered.Positions, queue.Positions{1, 2}) ||
		offered.Watermark != 2 || offered.Issued != 2 || !offered.Until.Equal(sc.claimBy()) {
		t.Errorf("second entry is %+v, want 1 and 2 offered until %v, watermark 2, issued 2", offered, sc.claimBy())
	}
	look := sc.look()
	if look.JoinSlots != 3 || look.Offers != 2 || look.Waiting != 0 || look.Admitted != 2 {
		t.Errorf("%d join slots left, %d offers, %d waiting, %d admitted, want 3, 2, 0, 2",
			look.JoinSlots, look.Offers, look.Waiting, look.Admitted)
	}
	// The second half of a batch is turned away.
	for i, j := range sc.join(make([]store.Key, 5)...) {
		if offered := !j.ClaimBy.IsZero(); offered != (i < 3) {
			t.Errorf("join %d of five for three slots: offered is %v", i, offered)
		}
	}
	if got := sc.view(); got.Watermark != 5 || got.Offers != 5 || got.Waiting != 2 {
		t.Errorf("watermark %d, offers %d, waiting %d, want 5, 5, 2", got.Watermark, got.Offers, got.Waiting)
	}
	sc.claim(1)
}

func joinSlotsAtCapacity(t *testing.T, s store.Store) {
	sc := newScene(t, s, func(s *queue.Settings) { s.Capacity = 3 })
	sc.acquire()
	sc.commit(queue.Tick{JoinSlots: 100})
	if got := sc.look().JoinSlots; got != 3 {
		t.Errorf("100 join slots were cut to %d, want the 3 that are free", got)
	}
	sc.join(store.Key{})
	sc.acquire()
	sc.advance(time.Millisecond)
	sc.commit(queue.Tick{JoinSlots: 100})
	if got := sc.look().JoinSlots; got != 2 {
		t.Errorf("100 join slots were cut to %d, want the 2 that are free", got)
	}
	for i, j := range sc.join(make([]store.Key, 4)...) {
		if offered := !j.ClaimBy.IsZero(); offered != (i < 2) {
			t.Errorf("join %d of four for two slots: offered is %v", i, offered)
		}
	}
}

func joinSlotsTurnedAway(t *testing.T, s store.Store) {
	sc := newScene(t, s, func(s *queue.Settings) { s.Capacity = 1 })
	// Position 1 is admitted at once and claims; position 2 is absent when the slot becomes free.
	sc.tick()
	first := sc.join(store.Key{}, key(2))[0]
	session := sc.claim(first.Position)
	sc.run(5*time.Second, nil) // two turns pass
	sc.endSession(session.ID)
	sc.tick()
	if look := sc.look(); look.JoinSlots != 1 || look.Present != 0 || look.Waiting != 1 {
		t.Fatalf("join slots %d, present %d, waiting %d, want 1, 0, 1", look.JoinSlots, look.Present, look.Waiting)
	}
	// The absent one comes back before the next tick: nobody may overtake any more.
	joins := sc.join(key(2), store.Key{})
	if joins[0].Position != 2 || !joins[1].ClaimBy.IsZero() {
		t.Errorf("after the owed fan's return a newcomer got %+v, want no offer", joins[1])
	}
	if got := sc.look().JoinSlots; got != 0 {
		t.Errorf("%d join slots are left, want 0", got)
	}
	sc.advance(250 * time.Millisecond)
	result := sc.tick()
	sc.wantPositions("offered", result.Offered, 2)
}

// joinSlotsMissed lets somebody join, or come back, between a coordinator's look and its commit: who
// comes after them must not go first.
func joinSlotsMissed(t *testing.T, s store.Store) {
	for _, c := range []struct {
		name string
		come func(sc *scene)
		want int
	}{
		{"nobody", func(sc *scene) {}, 3},
		{"a newcomer", func(sc *scene) { sc.joinAnonymous(1) }, 0},
		{"an owed user", func(sc *scene) { sc.join(key(1)) }, 0},
		{"a user with an offer", func(sc *scene) { sc.join(key(2)) }, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			sc := newScene(t, s, func(s *queue.Settings) { s.Capacity = 4; s.State = queue.Paused })
			sc.join(key(1), key(2))
			sc.tick()
			sc.run(5*time.Second, func() { sc.see(2) })
			sc.setState(queue.Open)
			sc.tick()
			sc.wantOffer(2, sc.claimBy())
			sc.advance(250 * time.Millisecond)
			tick, _ := queue.Plan(sc.look(), queue.Pace{}, sc.now)
			if tick.JoinSlots != 3 {
				t.Fatalf("the plan leaves %d slots to joins, want 3", tick.JoinSlots)
			}
			sc.update(func(s *queue.Settings) { s.Locale = "hr" }) // what the last tick left is gone
			c.come(sc)
			if _, err := s.Commit(t.Context(), sc.id, sc.owner, leaseTTL, tick); err != nil {
				t.Fatalf("Commit: %v", err)
			}
			if got := sc.look().JoinSlots; got != c.want {
				t.Errorf("%d slots for joins, want %d", got, c.want)
			}
		})
	}
}

func joinSlotsSettings(t *testing.T, s store.Store) {
	for _, c := range []struct {
		name   string
		change func(*queue.Settings)
	}{
		{"capacity", func(s *queue.Settings) { s.Capacity = 50 }},
		{"branding", func(s *queue.Settings) { s.Branding.Name = "x" }},
		{"paused", func(s *queue.Settings) { s.State = queue.Paused }},
		{"sold out", func(s *queue.Settings) { s.State = queue.SoldOut }},
		{"nothing remains", func(s *queue.Settings) { s.Remaining = new(0); s.State = queue.SoldOut; s.Notes.SoldOut = true }},
	} {
		t.Run(c.name, func(t *testing.T) {
			sc := newScene(t, s, nil)
			sc.tick()
			sc.update(c.change)
			if got := sc.look().JoinSlots; got != 0 {
				t.Errorf("%d join slots are left after a change of settings, want 0", got)
			}
			if j := sc.join(store.Key{})[0]; !j.ClaimBy.IsZero() {
				t.Errorf("join after a change of settings: %+v, want no offer before the next tick", j)
			}
			// A state that makes no offers gives joins no slots either.
			sc.acquire()
			sc.advance(time.Millisecond)
			sc.commit(queue.Tick{JoinSlots: 1})
			if got, open := sc.look().JoinSlots, sc.meta().Settings.State == queue.Open; open != (got == 1) {
				t.Errorf("%d join slots after a tick in state %s", got, sc.meta().Settings.State)
			}
		})
	}
}

func joinSlotsIdle(t *testing.T, s store.Store) {
	sc := newScene(t, s, func(s *queue.Settings) { s.Capacity = 2 })
	if result := sc.tick(); !result.Idle {
		t.Fatal("an empty queue is not idle")
	}
	sc.advance(time.Hour)
	result := sc.joinBatch(sc.batch(store.Key{}))
	if j := result.Joins[0]; !j.ClaimBy.Equal(sc.claimBy()) {
		t.Errorf("join of an idle queue: %+v, want an offer until %v", j, sc.claimBy())
	}
	if !result.Leaderless {
		t.Error("join of an idle queue does not ask for a coordinator")
	}
	// The hour was no interruption: the offer is not prolonged by it.
	sc.tick()
	sc.wantOffer(1, sc.claimBy())
}
