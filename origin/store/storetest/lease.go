package storetest

import (
	"reflect"
	"testing"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

var leaseCases = []testCase{
	{"one owner", leaseOneOwner},
	{"taken over", leaseTakenOver},
	{"two that believe to hold it", leaseBelieved},
	{"released", leaseReleased},
	{"idle", leaseIdle},
	{"released when idle", releaseOfAnIdleQueue},
	{"not idle", leaseNotIdle},
	{"out of idleness", leaseOutOfIdleness},
	{"leaderless", leaseLeaderless},
}

// other is a second coordinator of the same queue.
func (sc *scene) other() *scene {
	second := *sc
	second.owner, second.epoch = randomName(), 0
	return &second
}

func leaseOneOwner(t *testing.T, s store.Store) {
	sc := newScene(t, s, nil)
	second := sc.other()
	sc.acquire()
	epoch := sc.epoch
	if epoch == 0 || sc.look().Epoch != epoch {
		t.Errorf("epoch is %d, Look says %d", epoch, sc.look().Epoch)
	}
	_, err := s.Acquire(t.Context(), sc.id, second.owner, leaseTTL, sc.now)
	sc.wantErr("Acquire by a second owner", err, store.ErrLeaseHeld)
	// The owner extends it.
	sc.advance(leaseTTL - time.Millisecond)
	if sc.acquire(); sc.epoch != epoch {
		t.Errorf("Acquire by the owner gave epoch %d, want %d again", sc.epoch, epoch)
	}
	sc.advance(leaseTTL - time.Millisecond)
	_, err = s.Acquire(t.Context(), sc.id, second.owner, leaseTTL, sc.now)
	sc.wantErr("Acquire of an extended lease", err, store.ErrLeaseHeld)
	// So does a tick.
	sc.joinAnonymous(1)
	sc.commit(queue.Tick{})
	sc.advance(leaseTTL - time.Millisecond)
	_, err = s.Acquire(t.Context(), sc.id, second.owner, leaseTTL, sc.now)
	sc.wantErr("Acquire of a lease that a tick extended", err, store.ErrLeaseHeld)
}

func leaseTakenOver(t *testing.T, s store.Store) {
	sc := newScene(t, s, nil)
	sc.joinAnonymous(3)
	sc.tick()
	lastTick := sc.now
	sc.advance(leaseTTL)
	second := sc.other()
	second.now = sc.now
	second.acquire()
	if second.epoch == sc.epoch {
		t.Errorf("the second owner has the first one's epoch, %d", sc.epoch)
	}
	look := second.look()
	if look.Epoch != second.epoch || !look.LastTick.Equal(lastTick) {
		t.Errorf("Look: epoch %d, last tick %v, want %d, %v: the lease was lost, not given up", look.Epoch, look.LastTick, second.epoch, lastTick)
	}
	sc.advance(time.Second)
	sc.unchanged("what the first owner does", func() {
		_, err := s.Commit(t.Context(), sc.id, sc.owner, leaseTTL, queue.Tick{
			Epoch: sc.epoch, Now: sc.now, Offer: queue.Positions{3}, Prolong: time.Hour, JoinSlots: 2,
		})
		sc.wantErr("Commit under the old epoch", err, store.ErrLeaseLost)
		_, _, err = s.CloseTurn(t.Context(), sc.id, sc.epoch, look.Turn, sc.now)
		sc.wantErr("CloseTurn under the old epoch", err, store.ErrLeaseLost)
		_, err = s.Commit(t.Context(), sc.id, sc.owner, leaseTTL, queue.Tick{Epoch: second.epoch, Now: sc.now, Offer: queue.Positions{3}})
		sc.wantErr("Commit under another's epoch", err, store.ErrLeaseLost)
		_, err = s.Commit(t.Context(), sc.id, sc.owner, leaseTTL, queue.Tick{Now: sc.now})
		sc.wantErr("Commit without an epoch", err, store.ErrLeaseLost)
		if err := s.Release(t.Context(), sc.id, sc.owner, sc.epoch); err != nil {
			t.Errorf("Release of a lost lease: %v", err)
		}
	})
	_, err := s.Acquire(t.Context(), sc.id, sc.owner, leaseTTL, sc.now)
	sc.wantErr("Acquire by the first owner", err, store.ErrLeaseHeld)
	// Ticks of a second owner whose clock lags are ticks all the same.
	second.commit(queue.Tick{Now: lastTick.Add(-time.Second), JoinSlots: 2})
	sc.leave(3)
	second.commit(queue.Tick{Now: lastTick.Add(-time.Second / 2)})
	sc.wantOffer(1, lastTick.Add(20*time.Second))
}

// leaseBelieved has two coordinators stop and go on in turn. Each of them comes back with what it
// had prepared when it was stopped, a tick that would end, lapse, offer and prolong, and with
// what it had done before, and changes nothing.
func leaseBelieved(t *testing.T, s store.Store) {
	sc := newScene(t, s, func(s *queue.Settings) {
		s.Capacity, s.ClaimSeconds, s.PurchaseWindowSeconds = 4, 1, 10
	})
	runs, stopped := sc, sc.other()
	runs.joinAnonymous(100)
	for round := range 12 {
		// Somebody claims, somebody misses the offer, somebody comes back from having missed one.
		var claimed int
		runs.run(8*time.Second, func() {
			snapshot := runs.snapshot()
			for _, offer := range snapshot.Offers {
				if claimed++; claimed%3 > 0 && runs.now.Before(offer.ClaimBy) {
					runs.claim(offer.Position)
				}
			}
			runs.see(fromTo(1, snapshot.Issued)...)
		})
		before := runs.look()
		done := queue.Tick{Epoch: runs.epoch, Now: runs.ticked, Offer: before.Candidates}
		// The stop comes when the next tick is decided; everything is due at once.
		prepared, _ := queue.Plan(before, queue.Pace{}, runs.now.Add(time.Second))
		for _, session := range runs.snapshot().Sessions {
			prepared.EndSessions = append(prepared.EndSessions, session.Position)
		}
		for _, offer := range runs.snapshot().Offers {
			prepared.Lapse = append(prepared.Lapse, offer.Position)
		}
		prepared.Offer, prepared.JoinSlots, prepared.Prolong = fromTo(1, 100), 4, time.Hour

		runs, stopped = stopped, runs
		runs.now, runs.seq, runs.ticked = stopped.now.Add(leaseTTL), stopped.seq, stopped.ticked
		if round%3 == 2 {
			runs.acquire() // and has not ticked yet
		} else {
			runs.tick()
			runs.advance(time.Second)
			runs.tick()
		}
		look := runs.look()
		runs.unchanged("whoever comes back", func() {
			for name, tick := range map[string]queue.Tick{"prepared": prepared, "done before": done, "after the stop": {
				Epoch: prepared.Epoch, Now: runs.now.Add(time.Millisecond), Prolong: time.Hour, EndSessions: prepared.EndSessions,
				Lapse: prepared.Lapse, Offer: prepared.Offer, JoinSlots: 4, TurnedAway: look.TurnedAway,
			}} {
				for _, owner := range []string{stopped.owner, runs.owner} {
					_, err := s.Commit(t.Context(), sc.id, owner, leaseTTL, tick)
					sc.wantErr("Commit of a tick "+name, err, store.ErrLeaseLost)
				}
			}
			for _, turn := range []uint64{before.Turn, look.Turn, look.Turn + 1} {
				_, _, err := s.CloseTurn(t.Context(), sc.id, stopped.epoch, turn, runs.now)
				sc.wantErr("CloseTurn", err, store.ErrLeaseLost)
			}
			if err := s.Release(t.Context(), sc.id, stopped.owner, stopped.epoch); err != nil {
				t.Errorf("Release: %v", err)
			}
			_, err := s.Acquire(t.Context(), sc.id, stopped.owner, leaseTTL, runs.now)
			sc.wantErr("Acquire", err, store.ErrLeaseHeld)
		})
		after := runs.look()
		after.Now = look.Now // time may pass
		if !reflect.DeepEqual(after, look) {
			t.Errorf("round %d: who comes back changed what the next tick sees from %+v to %+v", round, look, after)
		}
	}
	entries, err := s.Entries(t.Context(), sc.id, sc.inc, 0, "", 1_000_000)
	if err == nil {
		err = CheckHistory(entries)
	}
	if err != nil {
		t.Error(err)
	}
	sc.now = runs.now // for the check of the log
}

func leaseReleased(t *testing.T, s store.Store) {
	sc := newScene(t, s, nil)
	sc.joinAnonymous(3)
	sc.tick()
	lastTick, turn := sc.look().LastTick, sc.look().Turn
	if err := s.Release(t.Context(), sc.id, sc.owner, sc.epoch+1); err != nil {
		t.Errorf("Release of another epoch: %v", err)
	}
	second := sc.other()
	_, err := s.Acquire(t.Context(), sc.id, second.owner, leaseTTL, sc.now)
	sc.wantErr("Acquire after the release of another epoch", err, store.ErrLeaseHeld)
	for range 2 {
		if err := s.Release(t.Context(), sc.id, sc.owner, sc.epoch); err != nil {
			t.Errorf("Release: %v", err)
		}
	}
	sc.advance(time.Second)
	_, err = s.Commit(t.Context(), sc.id, sc.owner, leaseTTL, queue.Tick{Epoch: sc.epoch, Now: sc.now})
	sc.wantErr("Commit after Release", err, store.ErrLeaseLost)
	second.now = sc.now
	second.acquire()
	if look := sc.look(); look.Turn != turn || !look.LastTick.Equal(lastTick) {
		t.Errorf("turn %d, last tick %v after a hand-over, want %d, %v as before", look.Turn, look.LastTick, turn, lastTick)
	}
	if second.epoch == sc.epoch {
		t.Errorf("the second owner has the first one's epoch, %d", sc.epoch)
	}
}

func leaseIdle(t *testing.T, s store.Store) {
	sc := newScene(t, s, nil)
	sc.acquire()
	tick := queue.Tick{Now: sc.now, JoinSlots: 1}
	for range 2 {
		if result := sc.commit(tick); !result.Idle {
			t.Errorf("tick of an empty queue: %+v, want idle", result)
		}
	}
	if got := sc.look().JoinSlots; got != 1 {
		t.Errorf("%d join slots in an idle queue, want the 1 that the tick wrote", got)
	}
	second := sc.other()
	second.acquire()
	_, err := s.Commit(t.Context(), sc.id, sc.owner, leaseTTL, tick)
	sc.wantErr("the same tick after another took the lease", err, store.ErrLeaseLost)

	for _, c := range []struct {
		name  string
		bring func(sc *scene)
	}{
		{"a session alone", func(sc *scene) { sc.claim(sc.joinOffered()) }},
		{"closed with waiting fans", func(sc *scene) { sc.joinAnonymous(5); sc.setState(queue.Closed) }},
		{"scheduled with waiting fans", func(sc *scene) { sc.joinAnonymous(5); sc.setState(queue.Scheduled) }},
		{"paused and empty", func(sc *scene) { sc.setState(queue.Paused) }},
		{"all left", func(sc *scene) { sc.leave(sc.joinAnonymous(1)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			sc := newScene(t, s, nil)
			c.bring(sc)
			sc.advance(time.Second)
			if result := sc.tick(); !result.Idle {
				t.Errorf("tick: %+v, want idle", result)
			}
		})
	}
}

// joinOffered lets a fan join and get an offer.
func (sc *scene) joinOffered() uint64 {
	sc.t.Helper()
	position := sc.joinAnonymous(1)
	sc.wantPositions("offered", sc.tick().Offered, position)
	sc.advance(time.Millisecond)
	return position
}

func leaseNotIdle(t *testing.T, s store.Store) {
	for _, c := range []struct {
		name  string
		bring func(sc *scene)
	}{
		{"an offer runs", func(sc *scene) { sc.joinOffered() }},
		{"an offer runs while paused", func(sc *scene) { sc.joinOffered(); sc.setState(queue.Paused) }},
		{"somebody waits while paused", func(sc *scene) { sc.setState(queue.Paused); sc.joinAnonymous(1) }},
		{"somebody waits while sold out", func(sc *scene) { sc.setState(queue.SoldOut); sc.joinAnonymous(1) }},
		{"an absent fan waits", func(sc *scene) {
			sc.setState(queue.Paused)
			sc.joinAnonymous(1)
			sc.run(10*time.Second, nil)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			sc := newScene(t, s, nil)
			c.bring(sc)
			sc.advance(time.Second)
			if result := sc.tick(); result.Idle {
				t.Errorf("tick: %+v, want not idle", result)
			}
		})
	}
}

func leaseOutOfIdleness(t *testing.T, s store.Store) {
	sc := newScene(t, s, nil)
	sc.tick()
	epoch, turn := sc.epoch, sc.look().Turn
	sc.advance(time.Hour)
	sc.joinAnonymous(3)
	sc.advance(20 * time.Second) // nobody takes the lease at once
	sc.acquire()
	look := sc.look()
	if !look.LastTick.Equal(sc.now) || look.Turn != turn+1 || !look.TurnStarted.Equal(sc.now) || sc.epoch == epoch {
		t.Errorf("last tick %v, turn %d from %v, epoch %d; want now (%v), turn %d from now, an epoch other than %d",
			look.LastTick, look.Turn, look.TurnStarted, sc.epoch, sc.now, turn+1, epoch)
	}
	if e := sc.lastEntry(); e.Kind != queue.EntryTurn || e.Turn != turn+1 {
		t.Errorf("last entry is %+v, want turn %d", e, turn+1)
	}
	if look.Present != 1 {
		t.Errorf("%d present, want the one who joined a turn ago and waits", look.Present)
	}
	sc.unchanged("Acquire again", func() { sc.acquire() })
}

func leaseLeaderless(t *testing.T, s store.Store) {
	sc := newScene(t, s, func(s *queue.Settings) { s.Capacity = 3 })
	ctx := t.Context()
	settings := sc.meta().Settings
	var session queue.Session
	acks := func(what string, want bool, seen *store.Ack, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		} else if seen.Leaderless != want {
			t.Errorf("%s: leaderless is %v, want %v", what, seen.Leaderless, want)
		}
		if number := sc.snapshot().Number; err == nil && seen.Entry != number {
			t.Errorf("%s acknowledged entry %d, want %d", what, seen.Entry, number)
		}
	}
	for _, live := range []bool{false, true} {
		if live {
			sc.tick()
		}
		_, ack, err := s.Create(ctx, sc.id, sc.inc, "g1", settings, sc.now)
		acks("Create", !live, &ack, err)
		joined, err := s.Join(ctx, sc.batch(store.Key{}, store.Key{}, store.Key{}))
		acks("Join", !live, &joined.Ack, err)
		ack, err = s.See(ctx, store.SightingBatch{Queue: sc.id, Incarnation: sc.inc, Edge: sc.edge, Turn: 1, Positions: queue.Positions{1}, Now: sc.now})
		acks("See", !live, &ack, err)
		ack, err = s.Leave(ctx, sc.id, sc.inc, joined.Joins[2].Position, sc.now)
		acks("Leave", !live, &ack, err)
		ack, err = s.EndSession(ctx, sc.id, "none", queue.Ended, "", sc.now)
		acks("EndSession", !live, &ack, err)
		meta := sc.meta()
		_, ack, err = s.Update(ctx, sc.id, meta.Version, meta.Settings, sc.now)
		acks("Update", !live, &ack, err)
		if live {
			session, ack, err = s.Claim(ctx, sc.claimRequest(1))
			acks("Claim", false, &ack, err)
			_, ack, err = s.CloseTurn(ctx, sc.id, sc.epoch, 0, sc.now)
			acks("CloseTurn", false, &ack, err)
			sc.advance(leaseTTL)
			_, ack, err = s.Claim(ctx, sc.claimRequest(1))
			acks("Claim after the lease ran out", true, &ack, err)
		}
	}
	// A closed queue asks for a coordinator while a session runs.
	sc.setState(queue.Closed)
	ack, err := s.Leave(ctx, sc.id, sc.inc, 2, sc.now)
	acks("Leave of a closed queue with a session", true, &ack, err)
	ack, err = s.EndSession(ctx, sc.id, session.ID, queue.Ended, "", sc.now)
	acks("EndSession of a closed queue", false, &ack, err)
}
