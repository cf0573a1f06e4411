package storetest

import (
	"errors"
	"slices"
	"testing"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

var renewCases = []testCase{
	{"nothing was lost", renewNothing},
	{"what was lost is put back", renewLost},
	{"a session that was put back", renewSession},
	{"users whom the map has lost", renewUsers},
	{"several origins notice", renewTogether},
	{"settings", renewSettings},
	{"a generation that the store has lost", renewGeneration},
}

func (sc *scene) renew(remembered *queue.View, generation string) (store.Meta, store.Ack) {
	sc.t.Helper()
	meta, ack, err := sc.s.Renew(sc.t.Context(), remembered, generation, sc.now)
	if err != nil {
		sc.t.Fatalf("Renew: %v", err)
	}
	return meta, ack
}

// memory is what an origin remembers that has read some entries which the store never had, as after
// a failover: ten more joins, and what change makes of it.
func (sc *scene) memory(change func(*queue.Snapshot)) *queue.View {
	sc.t.Helper()
	snapshot := sc.snapshot()
	snapshot.Number += 4
	snapshot.Chain = "another history"
	snapshot.Issued += 10
	for uint64(len(snapshot.Fates))*2 < snapshot.Issued {
		snapshot.Fates = append(snapshot.Fates, 0)
	}
	if change != nil {
		change(&snapshot)
	}
	return queue.NewView(snapshot)
}

func setFate(s *queue.Snapshot, position uint64, fate queue.Fate) {
	shift := 4 * (position % 2) // the first position is in the high half
	s.Fates[(position-1)/2] |= byte(fate) << shift
}

// lossy makes a scene of which nobody checks the log: entries are lost in it.
func lossy(t *testing.T, s store.Store, change func(*queue.Settings)) *scene {
	sc := newScene(t, s, change)
	sc.gone = true
	return sc
}

func renewNothing(t *testing.T, s store.Store) {
	sc := newScene(t, s, nil)
	sc.joinAnonymous(5)
	behind := sc.view()
	sc.tick()
	for name, view := range map[string]*queue.View{"up to date": sc.view(), "behind": behind} {
		sc.unchanged(name, func() {
			if meta, _ := sc.renew(view, "g2"); !slices.Equal(meta.Generations, []string{"g1"}) {
				t.Errorf("%s: the generations are %v, want the first alone", name, meta.Generations)
			}
		})
	}
	stranger := sc.snapshot()
	stranger.Incarnation = "another"
	_, _, err := s.Renew(t.Context(), queue.NewView(stranger), "g2", sc.now)
	sc.wantErr("Renew of another incarnation", err, store.ErrNotFound)
	stranger.ID = queue.MakeID(sc.id.Tenant(), "none")
	_, _, err = s.Renew(t.Context(), queue.NewView(stranger), "g2", sc.now)
	sc.wantErr("Renew of no queue", err, store.ErrNotFound)
}

func renewLost(t *testing.T, s store.Store) {
	sc := lossy(t, s, func(s *queue.Settings) { s.Capacity = 4; s.MaxMissedOffers = 1 })
	sc.joinAnonymous(20)
	sc.tick() // offers to 1 … 4
	sc.claim(1)
	for range 20 { // nobody is seen, for most of the hold
		sc.closeTurn(sc.look().Turn)
	}
	planned := queue.Tick{Epoch: sc.epoch, Now: sc.now.Add(time.Second), Offer: queue.Positions{5}, TurnedAway: sc.look().TurnedAway}
	claimBy := sc.now.Add(time.Minute).UTC()
	session := queue.Session{Position: 2, ID: string(sc.id) + "~" + randomName(), StartsAt: sc.now.UTC(), ExpiresAt: sc.now.Add(time.Minute).UTC()}
	old := queue.Session{Position: 14, ID: string(sc.id) + "~" + randomName(), StartsAt: sc.now.UTC(), ExpiresAt: sc.now.UTC()}
	view := sc.memory(func(m *queue.Snapshot) {
		setFate(m, 2, queue.Claimed)
		setFate(m, 14, queue.Claimed)
		setFate(m, 3, queue.Missed)
		setFate(m, 12, queue.Left)
		setFate(m, 13, queue.Expired)
		setFate(m, 25, queue.Left) // joined after the store's last entry
		m.Sessions = append(m.Sessions, session, old)
		m.Offers = append(m.Offers, queue.Offer{Position: 8, ClaimBy: claimBy})
		m.Watermark = 9
	})
	number := sc.snapshot().Number
	meta, ack := sc.renew(view, "g2")
	if !slices.Equal(meta.Generations, []string{"g1", "g2"}) || !ack.Leaderless || ack.Entry <= view.Number {
		t.Errorf("renewed: generations %v, %+v, want g1 and g2, no leader, and an entry above %d", meta.Generations, ack, view.Number)
	}
	got := sc.view()
	if want := view.Issued + store.RenewalMargin; got.Issued != want || got.Watermark != 9 {
		t.Errorf("issued %d, watermark %d, want %d and 9", got.Issued, got.Watermark, want)
	}
	for position, want := range map[uint64]queue.Fate{
		1: queue.Claimed, 2: queue.Claimed, 3: queue.Missed, 4: queue.Waiting, 12: queue.Left, 13: queue.Expired,
		14: queue.Ended, 25: queue.Left, 30: queue.Waiting, 31: queue.Waiting,
	} {
		sc.wantFate(position, want)
	}
	if found, err := s.Session(t.Context(), sc.id, session.ID); err != nil || found != session {
		t.Errorf("the session that was put back is %+v, %v, want %+v", found, err, session)
	}
	sc.wantOffer(8, claimBy)
	counts, look := sc.counts(), sc.look()
	if counts.Offers != 2 || counts.Sessions != 2 || counts.Waiting != got.Waiting || look.JoinSlots != 0 || look.Present != 0 {
		t.Errorf("%+v, %d slots for joins, %d present, want 2 offers, 2 sessions, %d waiting, no slots and nobody present", counts, look.JoinSlots, look.Present, got.Waiting)
	}
	_, err := s.Commit(t.Context(), sc.id, sc.owner, leaseTTL, planned)
	sc.wantErr("a tick that was planned before", err, store.ErrLeaseLost)

	// Readers of either history are sent to a snapshot.
	for name, at := range map[string]uint64{"of the lost entries": view.Number, "of what was left": number} {
		chain := view.Chain
		if at == number {
			chain = sc.first.Chain
		}
		if entries, err := s.Entries(t.Context(), sc.id, sc.inc, at, chain, 10); err == nil {
			t.Errorf("a reader %s gets %d entries, want an error", name, len(entries))
		}
	}
	// Positions go on above everything, and carry the new generation.
	result := sc.joinBatch(sc.batch(store.Key{}))
	if result.Generation != "g2" || result.Joins[0].Position != got.Issued+1 || !result.Joins[0].ClaimBy.IsZero() {
		t.Errorf("a join after it: %+v, want position %d of g2, waiting", result, got.Issued+1)
	}
	// Nobody expires before a whole hold has passed.
	sc.acquire()
	for range meta.Settings.HoldTurns() {
		if expired := sc.closeTurn(sc.look().Turn); expired > 0 {
			t.Fatalf("%d expire within the hold", expired)
		}
	}
	sc.closeTurn(sc.look().Turn)
	if expired := sc.closeTurn(sc.look().Turn); expired == 0 {
		t.Error("nobody expires although the hold has passed")
	}
}

func renewSession(t *testing.T, s store.Store) {
	sc := lossy(t, s, func(s *queue.Settings) { s.Capacity = 0 })
	sc.join(key(1), key(2), key(3))
	session := queue.Session{Position: 2, ID: string(sc.id) + "~" + randomName(), StartsAt: sc.now.UTC(), ExpiresAt: sc.now.Add(time.Minute).UTC()}
	sc.renew(sc.memory(func(m *queue.Snapshot) {
		setFate(m, 2, queue.Claimed)
		m.Sessions = append(m.Sessions, session)
	}), "g2")
	claim := sc.claimRequest(2)
	claim.Subject = key(1) // has position 1
	_, _, err := s.Claim(t.Context(), claim)
	sc.wantErr("a user with another position", err, store.ErrTaken)
	claim.Subject = key(9)
	_, _, err = s.Claim(t.Context(), claim)
	sc.wantErr("nobody whom the map knows", err, store.ErrTaken)
	for range 2 {
		claim.Subject = key(2)
		if got, _, err := s.Claim(t.Context(), claim); err != nil || got != session {
			t.Errorf("the first to claim it: %+v, %v, want %+v", got, err, session)
		}
	}
	claim.Subject = key(9)
	_, _, err = s.Claim(t.Context(), claim)
	sc.wantErr("the second", err, store.ErrTaken)
	sc.endSession(session.ID)
	sc.wantFate(2, queue.Ended)
}

// renewUsers wants users whose joins were lost with the map's entries let in by their tickets, and the
// places of those whom the map still has kept for them.
func renewUsers(t *testing.T, s store.Store) {
	sc := lossy(t, s, func(s *queue.Settings) { s.Capacity = 20; s.Identity = queue.IdentityRequired })
	sc.join(key(1), key(2))
	view := sc.memory(nil) // of 3 to 12 as well
	sc.renew(view, "g2")
	again := sc.join(key(5))[0].Position // who comes again without the ticket begins anew
	sc.acquire()
	sc.advance(time.Second)
	sc.commit(queue.Tick{Offer: queue.Positions{1, 2, 3, 4, 5, again}})
	for position, want := range map[uint64]error{1: store.ErrTaken, 3: nil, 5: store.ErrTaken, again: store.ErrTaken} {
		claim := sc.claimRequest(position)
		claim.Subject = key(int(position) + 100)
		if position == 5 {
			claim.Subject = key(5)
		}
		_, _, err := s.Claim(t.Context(), claim)
		if !errors.Is(err, want) {
			t.Errorf("claim of %d: %v, want %v", position, err, want)
		}
	}
	for _, position := range []uint64{1, 2, again} {
		sc.claim(position)
	}
}

func renewTogether(t *testing.T, s store.Store) {
	sc := lossy(t, s, nil)
	sc.joinAnonymous(10)
	view := sc.memory(nil)
	sc.renew(view, "g2")
	before := sc.snapshot()
	sc.unchanged("the same again", func() { sc.renew(view, "g3") })
	// Another one remembers more.
	more := queue.NewView(func() queue.Snapshot {
		m := view.Snapshot()
		m.Number += 7
		m.Issued = before.Issued + 100
		m.Watermark = 3
		for uint64(len(m.Fates))*2 < m.Issued {
			m.Fates = append(m.Fates, 0)
		}
		setFate(&m, 7, queue.Left)
		return m
	}())
	meta, _ := sc.renew(more, "g4")
	after := sc.snapshot()
	if !slices.Equal(meta.Generations, []string{"g1", "g2"}) {
		t.Errorf("the generations are %v, want one new one", meta.Generations)
	}
	if after.Issued != before.Issued+100 || after.Watermark != 3 || after.Number != before.Number+1 {
		t.Errorf("issued %d, watermark %d, entry %d, want %d, 3, %d", after.Issued, after.Watermark, after.Number, before.Issued+100, before.Number+1)
	}
	sc.wantFate(7, queue.Left)
	entries, err := s.Entries(t.Context(), sc.id, sc.inc, before.Number, before.Chain, 10)
	if err != nil || len(entries) != 1 || entries[0].Kind != queue.EntryGeneration {
		t.Fatalf("the log tells %+v, %v, want one entry of a generation", entries, err)
	}
	if _, ok := queue.NewView(before).Apply(entries); ok {
		t.Error("a view takes the entry, want it to ask for a snapshot")
	}
	sc.unchanged("once more", func() { sc.renew(more, "g5") })
}

func renewSettings(t *testing.T, s store.Store) {
	sc := lossy(t, s, nil)
	sc.joinAnonymous(10)
	sc.tick()
	sc.advance(time.Second)
	sc.commit(queue.Tick{Estimate: &queue.Estimate{}})
	sc.renew(sc.memory(nil), "again")
	if sc.view().Estimate == nil {
		t.Error("the estimate is gone with a generation under the same settings")
	}
	sc.acquire()
	sc.renew(sc.memory(func(m *queue.Snapshot) {
		m.Version++
		m.Settings.Capacity = 77
		m.Settings.State = queue.SoldOut
		m.Offers = nil
	}), "g2")
	meta, view := sc.meta(), sc.view()
	if meta.Version != 2 || meta.Settings.Capacity != 77 || meta.Settings.State != queue.SoldOut || view.Offers != 0 || view.Estimate != nil {
		t.Errorf("version %d, capacity %d, %s, %d offers, estimate %v, want 2, 77, sold_out, none, none", meta.Version, meta.Settings.Capacity, meta.Settings.State, view.Offers, view.Estimate)
	}
	// What was set after the loss stays.
	sc.update(func(s *queue.Settings) { s.Capacity = 88 })
	sc.renew(sc.memory(func(m *queue.Snapshot) { m.Settings.Capacity = 99 }), "g3")
	if meta := sc.meta(); meta.Settings.Capacity != 88 || len(meta.Generations) != 4 {
		t.Errorf("capacity %d, generations %v, want 88 and four", meta.Settings.Capacity, meta.Generations)
	}
	if counts := sc.counts(); counts.Offers != 0 {
		t.Errorf("%d offers run, want none", counts.Offers)
	}
}

func renewGeneration(t *testing.T, s store.Store) {
	sc := lossy(t, s, nil)
	sc.joinAnonymous(10)
	meta, _ := sc.renew(sc.memory(func(m *queue.Snapshot) { m.Generations = []string{"g1", "g2", "g3"} }), "g4")
	if want := []string{"g1", "g2", "g3", "g4"}; !slices.Equal(meta.Generations, want) {
		t.Errorf("the generations are %v, want %v", meta.Generations, want)
	}
	if _, err := s.Entries(t.Context(), sc.id, sc.inc, 1, "no chain", 10); !errors.Is(err, store.ErrTrimmed) && !errors.Is(err, store.ErrRewritten) {
		t.Errorf("Entries from before it: %v, want a reason for a snapshot", err)
	}
}
