package storetest

import (
	"slices"
	"testing"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

var saleCases = []testCase{
	{"what remains is kept with the settings", remainingKept},
	{"what remains leaves slots to joins alone", remainingKeepsSlots},
	{"a scheduled queue sleeps", scheduledSleeps},
	{"a scheduled queue wakes before its opening", scheduledWakes},
	{"at the opening the present go in order", openingInOrder},
	{"the hold of a queue that was paused before its opening", pausedBeforeOpening},
	{"places are kept for the hold while sold out", soldOutHold},
	{"a sold-out user keeps place and turn", soldOutUser},
}

func remainingKept(t *testing.T, s store.Store) {
	sc := newScene(t, s, func(s *queue.Settings) { s.Remaining = new(9) })
	opens := sc.now.Add(-time.Hour)
	meta := sc.update(func(s *queue.Settings) {
		s.Remaining, s.State, s.OpensAt = new(0), queue.SoldOut, opens
		s.Notes = queue.Notes{FirstOpensAt: opens, SoldOut: true, RestockedAt: sc.now, Measure: queue.Measure{Fallen: 9, Reach: 3}}
	})
	for what, got := range map[string]queue.Settings{
		"meta": sc.meta().Settings, "look": sc.look().Settings, "snapshot": sc.snapshot().Settings, "log": *sc.lastEntry().Settings,
	} {
		if got.Remaining == nil || *got.Remaining != 0 || got.Notes != meta.Settings.Notes || !got.OpensAt.Equal(opens) || !got.Notes.SoldOut {
			t.Errorf("%s: remaining %v, notes %+v, want 0, %+v", what, got.Remaining, got.Notes, meta.Settings.Notes)
		}
	}
	sc.update(func(s *queue.Settings) { s.Remaining = nil })
	if got, look := sc.meta().Settings, sc.look().Settings; got.Remaining != nil || look.Remaining != nil || !got.Notes.SoldOut {
		t.Errorf("no longer reported: remaining %v and %v, notes %+v, want nil, and the notes kept", got.Remaining, look.Remaining, got.Notes)
	}
	meta = sc.meta()
	if look := sc.look(); look.Version != meta.Version || look.Incarnation != sc.inc {
		t.Errorf("look tells version %d of incarnation %q, want %d of %q", look.Version, look.Incarnation, meta.Version, sc.inc)
	}
	names, err := s.Names(t.Context(), sc.id.Tenant())
	if err != nil || !slices.Contains(names, sc.id) {
		t.Errorf("Names: %v, error %v, want %s among them", names, err, sc.id)
	}
}

func remainingKeepsSlots(t *testing.T, s store.Store) {
	sc := newScene(t, s, nil)
	sc.tick()
	sc.unchangedPlaces(func() {
		for left := range 5 {
			sc.update(func(s *queue.Settings) { s.Remaining = new(100 - left); s.Notes.Measure.Fallen = left })
		}
	})
	if got := sc.look().JoinSlots; got != 2 {
		t.Errorf("%d join slots after reports of what remains, want 2 as before", got)
	}
	if j := sc.join(store.Key{})[0]; j.ClaimBy.IsZero() {
		t.Error("a fan who joins after such a report has to wait, want an offer at once")
	}
}

// unchangedPlaces checks that f leaves turns, waiting fans and offers as they are.
func (sc *scene) unchangedPlaces(f func()) {
	sc.t.Helper()
	before := sc.look()
	f()
	after := sc.look()
	if before.Turn != after.Turn || before.Waiting != after.Waiting || before.Offers != after.Offers || before.Present != after.Present {
		sc.t.Errorf("turn, waiting, offers, present: %d, %d, %d, %d, want %d, %d, %d, %d",
			after.Turn, after.Waiting, after.Offers, after.Present, before.Turn, before.Waiting, before.Offers, before.Present)
	}
}

// scheduled makes a queue that opens after a while.
func scheduled(t *testing.T, s store.Store, after time.Duration) *scene {
	sc := newScene(t, s, func(s *queue.Settings) { s.State = queue.Scheduled })
	sc.update(func(s *queue.Settings) { s.OpensAt = sc.now.Add(after) })
	return sc
}

func scheduledSleeps(t *testing.T, s store.Store) {
	sc := scheduled(t, s, time.Hour)
	if result := sc.tick(); !result.Idle {
		t.Errorf("tick: %+v, want idle", result)
	}
	turn := sc.look().Turn
	for range 3 {
		sc.advance(10 * time.Minute)
		if result := sc.joinBatch(sc.batch(store.Key{}, key(1))); result.Leaderless {
			t.Error("a join of a sleeping queue asks for a coordinator")
		}
		ack, err := s.See(t.Context(), store.SightingBatch{
			Queue: sc.id, Incarnation: sc.inc, Edge: sc.edge, Turn: turn, Positions: queue.Positions{1}, Complete: true, At: sc.now, Now: sc.now,
		})
		if err != nil || ack.Leaderless {
			t.Errorf("a sighting of a sleeping queue: leaderless %v, error %v, want neither", ack.Leaderless, err)
		}
	}
	if got := sc.look().Turn; got != turn {
		t.Errorf("turn %d runs after half an hour of sleep, want %d still", got, turn)
	}
	if result := sc.tick(); !result.Idle {
		t.Errorf("tick with fans in line: %+v, want idle", result)
	}
}

func scheduledWakes(t *testing.T, s store.Store) {
	sc := scheduled(t, s, time.Hour)
	sc.joinAnonymous(1)
	sc.now = sc.meta().Settings.WakesAt()
	if result := sc.joinBatch(sc.batch(store.Key{})); !result.Leaderless {
		t.Error("a join shortly before the opening does not ask for a coordinator")
	}
	if result := sc.tick(); result.Idle {
		t.Error("a queue with fans in line is idle shortly before its opening")
	}
	sc.leave(1)
	sc.leave(2)
	sc.advance(time.Second)
	if result := sc.tick(); !result.Idle {
		t.Error("an empty queue is not idle shortly before its opening")
	}
}

// Of those who joined before the opening, the ones who are there get the first offers, in the order
// of their arrival, whoever was seen last; those who went away lose nothing.
func openingInOrder(t *testing.T, s store.Store) {
	sc := scheduled(t, s, time.Hour)
	sc.joinAnonymous(6)
	sc.now = sc.meta().Settings.WakesAt()
	opens := sc.meta().Settings.OpensAt
	sc.run(opens.Sub(sc.now), func() { sc.see(5, 3, 2) })
	for position := uint64(1); position <= 6; position++ {
		sc.wantFate(position, queue.Waiting)
	}
	sc.setState(queue.Open)
	sc.advance(time.Millisecond)
	sc.wantPositions("offered at the opening", sc.tick().Offered, 2, 3)
	if view := sc.view(); view.Owed != 1 {
		t.Errorf("%d owed after the opening, want 1: the fan who was away", view.Owed)
	}
	// The hold begins at the opening, however long ago they were seen.
	sc.run(59*time.Second, nil)
	for _, position := range []uint64{1, 4, 6} {
		sc.wantFate(position, queue.Waiting)
	}
	sc.run(10*time.Second, nil)
	for _, position := range []uint64{1, 4, 6} {
		sc.wantFate(position, queue.Expired)
	}
}

// pausedBeforeOpening wants nobody's hold to run before the queue has been open, whatever it was meanwhile.
func pausedBeforeOpening(t *testing.T, s store.Store) {
	sc := newScene(t, s, func(s *queue.Settings) { s.State = queue.Scheduled; s.Capacity = 0 })
	sc.joinAnonymous(2)
	for _, state := range []queue.State{queue.Paused, queue.SoldOut} {
		sc.update(func(s *queue.Settings) { s.State, s.Notes.Unopened = state, true })
		sc.run(3*time.Minute, nil)
	}
	sc.setState(queue.Scheduled)
	sc.update(func(s *queue.Settings) { s.State, s.Notes.Unopened = queue.Paused, true })
	sc.run(3*time.Minute, nil)
	sc.wantFate(1, queue.Waiting)
	sc.update(func(s *queue.Settings) { s.State, s.Notes.Unopened = queue.Open, false })
	sc.run(59*time.Second, func() { sc.see(2) })
	sc.wantFate(1, queue.Waiting)
	sc.run(10*time.Second, func() { sc.see(2) })
	sc.wantFate(1, queue.Expired)
	sc.wantFate(2, queue.Waiting)
}

func soldOutHold(t *testing.T, s store.Store) {
	sc := newScene(t, s, func(s *queue.Settings) { s.Remaining = new(1); s.MaxMissedOffers = 1 })
	sc.joinAnonymous(6)
	sc.tick()
	session := sc.claim(1)
	sc.update(func(s *queue.Settings) { s.Remaining, s.State, s.Notes.SoldOut = new(0), queue.SoldOut, true })
	sc.wantOffer(2, time.Time{})
	// Who comes back within the hold has a place, who does not has lost it; sessions keep their window.
	sc.run(50*time.Second, func() { sc.see(3) })
	if got, err := s.Session(t.Context(), sc.id, session.ID); err != nil || got != session {
		t.Errorf("the session while sold out: %+v, error %v, want %+v", got, err, session)
	}
	sc.see(2, 4)
	sc.run(16*time.Second, func() { sc.see(2, 3, 4) })
	for position, want := range map[uint64]queue.Fate{2: queue.Waiting, 3: queue.Waiting, 4: queue.Waiting, 5: queue.Expired, 6: queue.Expired} {
		sc.wantFate(position, want)
	}
	sc.update(func(s *queue.Settings) { s.Remaining, s.State, s.Notes.SoldOut = new(5), queue.Open, false })
	sc.advance(time.Millisecond)
	sc.wantPositions("offered after it opened again", sc.tick().Offered, 2)
	if got := sc.counts(); got.MissedOffers != 0 {
		t.Errorf("%d missed offers, want 0: a withdrawn offer is none", got.MissedOffers)
	}
}

func soldOutUser(t *testing.T, s store.Store) {
	sc := newScene(t, s, func(s *queue.Settings) { s.Capacity = 1; s.Remaining = new(1) })
	sc.join(key(1), key(2))
	sc.tick()
	sc.wantOffer(1, sc.claimBy())
	sc.update(func(s *queue.Settings) { s.Remaining, s.State, s.Notes.SoldOut = new(0), queue.SoldOut, true })
	if j := sc.join(key(1))[0]; j.Position != 1 || j.New || !j.ClaimBy.IsZero() {
		t.Errorf("a user whose offer was withdrawn joins again: %+v, want position 1 without an offer", j)
	}
	_, _, err := s.Claim(t.Context(), sc.claimRequest(1))
	sc.wantErr("Claim of a withdrawn offer", err, store.ErrNotOffered)
	if j := sc.join(key(3))[0]; j.Position != 3 {
		t.Errorf("a join while sold out: %+v, want position 3", j)
	}
	sc.update(func(s *queue.Settings) { s.Remaining, s.State, s.Notes.SoldOut = new(1), queue.Open, false })
	sc.advance(time.Millisecond)
	sc.wantPositions("offered after it opened again", sc.tick().Offered, 1)
}
