package origin

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
	"waitingroom/origin/store/memory"
	"waitingroom/origin/wire"
)

// audience is an edge that says every second which fans it sees.
type audience struct {
	r    *rig
	id   queue.ID
	seen map[uint64]bool
}

// pass lets time pass while the audience is seen.
func (a *audience) pass(d time.Duration) {
	a.r.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		var positions []uint64
		for p := range a.seen {
			positions = append(positions, p)
		}
		a.r.see(a.id, positions...)
		time.Sleep(min(time.Second, time.Until(end)))
	}
}

func (a *audience) arrive() uint64 {
	a.r.t.Helper()
	position := a.r.joinOne(a.id)
	a.seen[position] = true
	return position
}

// inVirtualTime runs a test on an origin with one queue in a bubble of virtual time.
func inVirtualTime(t *testing.T, settings string, test func(t *testing.T, a *audience)) {
	synctest.Test(t, func(t *testing.T) {
		creds := newCredentials(t)
		time.Sleep(300 * time.Millisecond) // sweeps fall between whole seconds, where windows end
		r := newRig(t, creds, nil)
		id := r.create("sale", settings)
		time.Sleep(time.Second) // the first tick says how many may join at once
		test(t, &audience{r: r, id: id, seen: make(map[uint64]bool)})
		r.stop()
	})
}

func wantState(t *testing.T, a *audience, position uint64, when string, want queue.TicketState, reason string) {
	t.Helper()
	got := a.r.status(a.id, position)
	if got.State != want || got.Reason != reason {
		t.Errorf("position %d, %s: got state %q reason %q, want %q %q", position, when, got.State, got.Reason, want, reason)
	}
}

func TestFanSilentForLessThanTheHoldKeepsThePlaceAndIsOwed(t *testing.T) {
	inVirtualTime(t, `"capacity":1,"holdSeconds":60,"purchaseWindowSeconds":20,"claimSeconds":10`, func(t *testing.T, a *audience) {
		first := a.arrive()
		wantState(t, a, first, "joining a free shop", queue.TicketAdmitted, "")
		a.r.claimOne(a.id, first)
		absent, second, third := a.r.joinOne(a.id), a.arrive(), a.arrive()
		a.pass(15 * time.Second)
		wantState(t, a, absent, "waiting", queue.TicketWaiting, "")

		// The first window ends; the turn of the absent fan costs no slot.
		a.pass(7 * time.Second)
		wantState(t, a, second, "behind an absent fan", queue.TicketAdmitted, "")
		wantState(t, a, absent, "passed", queue.TicketWaiting, "")
		if view := a.r.view(a.id); view.Owed != 1 || view.Watermark != second {
			t.Errorf("after passing an absent fan: got owed %d watermark %d, want 1 and %d", view.Owed, view.Watermark, second)
		}
		a.r.claimOne(a.id, second)

		// Back after 40 s of silence, within the hold: the next slot is theirs.
		a.pass(15 * time.Second)
		a.seen[absent] = true
		a.pass(8 * time.Second)
		wantState(t, a, absent, "back within the hold", queue.TicketAdmitted, "")
		wantState(t, a, third, "behind an owed fan", queue.TicketWaiting, "")
	})
}

func TestFanSilentForLongerThanTheHoldExpires(t *testing.T) {
	inVirtualTime(t, `"capacity":0,"holdSeconds":60`, func(t *testing.T, a *audience) {
		stays, goes := a.arrive(), a.r.joinOne(a.id)
		a.pass(60 * time.Second)
		wantState(t, a, goes, "at the hold", queue.TicketWaiting, "")
		a.pass(6 * time.Second) // two turns, and the tick
		wantState(t, a, goes, "two turns after the hold", queue.TicketExpired, queue.ReasonAbsent)
		wantState(t, a, stays, "seen all the time", queue.TicketWaiting, "")
		if got := a.r.claimAs(a.id, goes, "fan"); got.Error != wire.CodeOut || got.Fate != queue.Expired {
			t.Errorf("claim of an expired fan: got %q %v, want %q %v", got.Error, got.Fate, wire.CodeOut, queue.Expired)
		}
	})
}

func TestTwoMissedOffersEndTheTicket(t *testing.T) {
	inVirtualTime(t, `"capacity":1,"holdSeconds":600,"claimSeconds":10,"purchaseWindowSeconds":600`, func(t *testing.T, a *audience) {
		idler := a.arrive()
		wantState(t, a, idler, "first in line", queue.TicketAdmitted, "")
		a.pass(14 * time.Second)
		wantState(t, a, idler, "within the grace", queue.TicketAdmitted, "")
		a.pass(3 * time.Second) // seen after the lapse, and offered the slot that nobody else wants
		if claimBy := a.r.status(a.id, idler).ClaimBy; time.Until(claimBy) < 7*time.Second {
			t.Errorf("after a missed offer and a sighting: got claimBy in %v, want a new offer", time.Until(claimBy))
		}
		next := a.arrive()
		a.pass(16 * time.Second)
		wantState(t, a, idler, "after two missed offers", queue.TicketExpired, queue.ReasonMissed)
		wantState(t, a, next, "after the idler is out", queue.TicketAdmitted, "")
	})
}

func TestMissedOfferGoesToTheOwedFirst(t *testing.T) {
	inVirtualTime(t, `"capacity":1,"holdSeconds":600,"claimSeconds":10,"purchaseWindowSeconds":60`, func(t *testing.T, a *audience) {
		first := a.arrive()
		a.r.claimOne(a.id, first)
		absent, idler, last := a.r.joinOne(a.id), a.arrive(), a.arrive()
		a.pass(63 * time.Second)
		wantState(t, a, idler, "behind an absent fan", queue.TicketAdmitted, "")
		a.seen[absent] = true
		a.pass(15 * time.Second)
		wantState(t, a, absent, "owed when an offer is missed", queue.TicketAdmitted, "")
		wantState(t, a, idler, "after a missed offer", queue.TicketWaiting, "")
		wantState(t, a, last, "behind the owed", queue.TicketWaiting, "")
	})
}

func TestMissedOfferOfSomebodyWhoIsGoneGoesToTheNext(t *testing.T) {
	inVirtualTime(t, `"capacity":1,"holdSeconds":600,"claimSeconds":30,"purchaseWindowSeconds":60`, func(t *testing.T, a *audience) {
		gone, next := a.arrive(), a.arrive()
		delete(a.seen, gone)
		a.pass(36 * time.Second)
		wantState(t, a, next, "after the offer before was missed", queue.TicketAdmitted, "")
		wantState(t, a, gone, "after one missed offer", queue.TicketWaiting, "")
		a.r.claimOne(a.id, next)
		a.pass(65 * time.Second)
		wantState(t, a, gone, "not seen since the lapse", queue.TicketWaiting, "")
		a.seen[gone] = true
		a.pass(2 * time.Second)
		wantState(t, a, gone, "seen again", queue.TicketAdmitted, "")
	})
}

func TestOutageLongerThanTheHoldExpiresNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		creds, st := newCredentials(t), &memory.Store{}
		before := newRig(t, creds, st)
		id := before.create("sale", `"capacity":1,"holdSeconds":60,"claimSeconds":30`)
		time.Sleep(time.Second)
		a := &audience{r: before, id: id, seen: make(map[uint64]bool)}
		offered, waiting, absent := a.arrive(), a.arrive(), a.r.joinOne(id)
		a.pass(20 * time.Second)
		before.stop()

		time.Sleep(10 * time.Minute) // ten holds

		after := newRig(t, creds, st)
		a.r = after
		after.joins = 100
		a.pass(2 * time.Second)
		wantState(t, a, waiting, "after the outage", queue.TicketWaiting, "")
		wantState(t, a, absent, "after the outage", queue.TicketWaiting, "")
		wantState(t, a, offered, "with an offer that ran when everything stopped", queue.TicketAdmitted, "")
		// Absence goes on where it stood: about 20 s of 60 were over.
		a.pass(30 * time.Second)
		wantState(t, a, absent, "50 s of absence besides the outage", queue.TicketWaiting, "")
		a.pass(30 * time.Second)
		wantState(t, a, absent, "80 s of absence besides the outage", queue.TicketExpired, queue.ReasonAbsent)
		wantState(t, a, waiting, "seen all the time", queue.TicketWaiting, "")
		after.stop()
	})
}

func TestOutageCountsForNoTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		creds, st := newCredentials(t), &memory.Store{}
		before := newRig(t, creds, st)
		id := before.create("sale", `"capacity":0,"holdSeconds":60`)
		time.Sleep(time.Second)
		a := &audience{r: before, id: id, seen: make(map[uint64]bool)}
		a.arrive()
		a.pass(time.Second) // the queue is taken up, and a turn begins by that
		absent := before.joinOne(id)
		last := before.view(id).Turn + before.view(id).Settings.HoldTurns() + 1
		for before.view(id).Turn < last {
			a.pass(250 * time.Millisecond)
		}
		wantState(t, a, absent, "in the last turn of the hold", queue.TicketWaiting, "")
		before.stop()

		time.Sleep(10 * time.Minute)

		a.r = newRig(t, creds, st)
		a.seen[absent] = true
		a.pass(10 * time.Second)
		wantState(t, a, absent, "seen right after the outage", queue.TicketWaiting, "")
		a.r.stop()
	})
}

func TestClaimAtTheVeryEndOfTheWindow(t *testing.T) {
	inVirtualTime(t, `"capacity":1,"purchaseWindowSeconds":10`, func(t *testing.T, a *audience) {
		only := a.r.joinOne(a.id)
		session := a.r.claimOne(a.id, only)
		time.Sleep(time.Until(session.ExpiresAt) + time.Millisecond)
		if got := a.r.claimAs(a.id, only, "fan"); got.Error != wire.CodeOut || got.Fate != queue.Ended {
			t.Errorf("claim a moment after the window: got %q %v, want %q %v", got.Error, got.Fate, wire.CodeOut, queue.Ended)
		}
	})
}

func TestSessionsEndOnAnIdleQueue(t *testing.T) {
	inVirtualTime(t, `"capacity":1,"purchaseWindowSeconds":60`, func(t *testing.T, a *audience) {
		only := a.r.joinOne(a.id)
		a.r.claimOne(a.id, only)
		time.Sleep(58 * time.Second)
		wantState(t, a, only, "before the window's end", queue.TicketActive, "")
		time.Sleep(4 * time.Second)
		wantState(t, a, only, "after the window's end", queue.TicketEnded, "")
		next := a.r.joinOne(a.id)
		time.Sleep(500 * time.Millisecond)
		wantState(t, a, next, "joining the empty shop", queue.TicketAdmitted, "")
	})
}

func TestFreedSlotIsOfferedAtOnce(t *testing.T) {
	inVirtualTime(t, `"capacity":1,"holdSeconds":600`, func(t *testing.T, a *audience) {
		holder := a.arrive()
		for offset := range 4 {
			next := a.arrive()
			a.r.claimOne(a.id, holder)
			a.pass(2*time.Second + time.Duration(offset)*70*time.Millisecond)
			freed := time.Now()
			if code := a.r.leaveOne(a.id, holder); code != 204 {
				t.Fatalf("leave: got %d, want 204", code)
			}
			a.r.until(time.Second, "the freed slot is offered", func() bool {
				return a.r.status(a.id, next).State == queue.TicketAdmitted
			})
			// An end that this origin hears of does not wait for the tick.
			if took := time.Since(freed); took > a.r.Config.TickEvery/3 {
				t.Errorf("from freed to offered: got %v, want at most a third of a tick", took)
			}
			wantState(t, a, holder, "after leaving with a session", queue.TicketLeft, "")
			delete(a.seen, holder)
			holder = next
		}
	})
}

// countingStore counts ticks.
type countingStore struct {
	*memory.Store
	looks, commits atomic.Int64
}

func (s *countingStore) Look(ctx context.Context, id queue.ID, limit int, now time.Time) (queue.Look, error) {
	s.looks.Add(1)
	return s.Store.Look(ctx, id, limit, now)
}

func (s *countingStore) Commit(ctx context.Context, id queue.ID, owner string, ttl time.Duration, tick queue.Tick) (store.TickResult, error) {
	s.commits.Add(1)
	return s.Store.Commit(ctx, id, owner, ttl, tick)
}

func TestIdleQueueIsNotTicked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &countingStore{Store: &memory.Store{}}
		r := newRig(t, newCredentials(t), st)
		id := r.create("sale", `"capacity":2,"purchaseWindowSeconds":7200`)
		time.Sleep(time.Second)
		r.claimOne(id, r.joinOne(id))
		time.Sleep(20 * time.Second)
		before := st.commits.Load()
		time.Sleep(30 * time.Minute)
		// Once a minute somebody makes sure.
		if ticks := st.commits.Load() - before; ticks > 40 {
			t.Errorf("ticks of an idle queue in 30 minutes: got %d, want at most 40", ticks)
		}
		r.stop()
	})
}

func TestSuccessorTakesOverAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		creds, st := newCredentials(t), &memory.Store{}
		one, two := newRig(t, creds, st), newRig(t, creds, st)
		id := one.create("sale", `"capacity":1,"holdSeconds":600,"purchaseWindowSeconds":10`)
		time.Sleep(time.Second)
		a := &audience{r: one, id: id, seen: make(map[uint64]bool)}
		first, second := a.arrive(), a.arrive()
		one.claimOne(id, first)
		a.pass(8 * time.Second)
		one.stop()
		a.r = two
		time.Sleep(4500 * time.Millisecond) // nobody calls; the window ends meanwhile
		if got := two.view(id).Status(second, two.clock.Now()).State; got != queue.TicketAdmitted {
			t.Errorf("soon after the window's end, the first origin stopped: got %q, want %q", got, queue.TicketAdmitted)
		}
		two.stop()
	})
}

// vanishingStore is a store for an origin that stops without a word.
type vanishingStore struct {
	*memory.Store
	gone atomic.Bool
}

func (s *vanishingStore) Release(ctx context.Context, id queue.ID, owner string, epoch uint64) error {
	return nil
}

func (s *vanishingStore) Remind(ctx context.Context, id queue.ID, at time.Time) error {
	if s.gone.Load() {
		return nil
	}
	return s.Store.Remind(ctx, id, at)
}

func TestAnotherOriginTakesOverWhenOneVanishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		creds, st := newCredentials(t), &memory.Store{}
		vanishing := &vanishingStore{Store: st}
		one, two := newRig(t, creds, vanishing), newRig(t, creds, st)
		id := one.create("sale", `"capacity":1,"holdSeconds":600,"purchaseWindowSeconds":10`)
		time.Sleep(time.Second)
		a := &audience{r: one, id: id, seen: make(map[uint64]bool)}
		first, second := a.arrive(), a.arrive()
		one.claimOne(id, first)
		a.pass(8 * time.Second)
		vanishing.gone.Store(true)
		one.stop()
		// Two leases, the sweep, and a tick, without anybody calling.
		time.Sleep(2*creds.config.LeaseTTL + 1500*time.Millisecond)
		if got := two.view(id).Status(second, two.clock.Now()).State; got != queue.TicketAdmitted {
			t.Errorf("after the lease of the one that vanished: got %q, want %q", got, queue.TicketAdmitted)
		}
		two.stop()
	})
}

func TestMaxPerMinuteBindsJoinsToo(t *testing.T) {
	inVirtualTime(t, `"capacity":1000,"maxPerMinute":60,"purchaseWindowSeconds":3600,"claimSeconds":600`, func(t *testing.T, a *audience) {
		for range 60 {
			for range 5 {
				a.arrive()
			}
			a.pass(time.Second)
		}
		offers := a.r.view(a.id).Offers
		if offers < 55 || offers > 62 {
			t.Errorf("offers in the first minute: got %d, want about 60", offers)
		}
	})
}

func TestMaxPerMinuteBindsJoinsThatNeverWait(t *testing.T) {
	inVirtualTime(t, `"capacity":1000,"maxPerMinute":60,"purchaseWindowSeconds":3600,"claimSeconds":600`, func(t *testing.T, a *audience) {
		for range 120 {
			a.arrive()
			a.pass(500 * time.Millisecond)
		}
		if offers := a.r.view(a.id).Offers; offers < 55 || offers > 62 {
			t.Errorf("offers in the first minute, two fans a second: got %d, want about 60", offers)
		}
	})
}

// panickingStore has a bug in one queue.
type panickingStore struct {
	*memory.Store
	bug  queue.ID
	hits atomic.Int64
}

func (s *panickingStore) Look(ctx context.Context, id queue.ID, limit int, now time.Time) (queue.Look, error) {
	if id == s.bug && s.hits.Add(1) <= 2 {
		panic("a bug")
	}
	return s.Store.Look(ctx, id, limit, now)
}

func (s *panickingStore) Counts(ctx context.Context, id queue.ID) (store.Counts, error) {
	if id == s.bug {
		panic("a bug")
	}
	return s.Store.Counts(ctx, id)
}

func TestBugInOneQueueLeavesTheOthersAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newCredentials(t), &panickingStore{Store: &memory.Store{}, bug: "shop.buggy"})
		good, buggy := r.create("good", `"capacity":1`), r.create("buggy", `"capacity":1`)
		time.Sleep(time.Second)
		wantProblem(t, r.operate("GET", "/queues/shop.buggy/stats", ""), 500, "internal")
		if answer := r.operate("GET", "/queues/shop.good/stats", ""); answer.Code != 200 {
			t.Errorf("stats of the other queue: got %d, want 200", answer.Code)
		}
		if got := r.joinOne(good); r.status(good, got).State != queue.TicketAdmitted {
			t.Errorf("join of the other queue: got %q, want %q", r.status(good, got).State, queue.TicketAdmitted)
		}
		// Once the bug no longer shows, the queue is taken up again without anybody's doing.
		late := r.joinOne(buggy)
		time.Sleep(3 * time.Minute)
		if got := r.view(buggy); got.Offers+got.Sessions+int(got.Watermark) == 0 {
			t.Errorf("the queue with the bug, three minutes later: got position %d %q, want it ticked", late, r.status(buggy, late).State)
		}
		r.stop()
	})
}

// hookedStore calls a hook when a commit finds a queue idle.
type hookedStore struct {
	*memory.Store
	idle     func(queue.ID)
	acquired atomic.Int64
}

func (s *hookedStore) Acquire(ctx context.Context, id queue.ID, owner string, ttl time.Duration, now time.Time) (uint64, error) {
	s.acquired.Add(1)
	return s.Store.Acquire(ctx, id, owner, ttl, now)
}

func (s *hookedStore) Commit(ctx context.Context, id queue.ID, owner string, ttl time.Duration, tick queue.Tick) (store.TickResult, error) {
	result, err := s.Store.Commit(ctx, id, owner, ttl, tick)
	if result.Idle {
		s.idle(id)
	}
	return result, err
}

func TestCallThatMeetsTheEndOfACoordinatorIsNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &hookedStore{Store: &memory.Store{}}
		r := startRig(t, newCredentials(t), st)
		called := false
		st.idle = func(id queue.ID) {
			if !called { // a join comes, finds no lease, and calls the coordinator that is just ending
				called = true
				r.coordinators.Wake(id)
			}
		}
		time.Sleep(time.Second)
		r.create("sale", `"capacity":1`)
		time.Sleep(500 * time.Millisecond)
		if got := st.acquired.Load(); got != 2 {
			t.Errorf("leases taken: got %d, want 2: one for the creation and one for the call", got)
		}
		r.stop()
	})
}
