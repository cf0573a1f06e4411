package origin

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
	"waitingroom/origin/store/memory"
	"waitingroom/origin/store/storetest"
)

// stoppedStore is a store for an origin that can be stopped, as by SIGSTOP: while it is, no call of
// it reaches the store and no answer reaches it. What was called before and is held up arrives once it
// goes on, however long that took.
type stoppedStore struct {
	*memory.Store
	at      atomic.Pointer[string] // stops at this point the next time
	reached chan string            // the point at which it stopped

	mu      sync.Mutex
	stopped chan struct{} // nil while it runs; closed when it goes on
}

func newStoppedStore(shared *memory.Store) *stoppedStore {
	return &stoppedStore{Store: shared, reached: make(chan string, 1)}
}

func (s *stoppedStore) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped == nil {
		s.stopped = make(chan struct{})
	}
}

func (s *stoppedStore) goOn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.stopped)
	s.stopped = nil
}

// point is a place in the program where it may be stopped.
func (s *stoppedStore) point(name string) {
	if at := s.at.Load(); at != nil && *at == name && s.at.CompareAndSwap(at, nil) {
		s.stop()
		s.reached <- name
	}
	s.mu.Lock()
	stopped := s.stopped
	s.mu.Unlock()
	if stopped != nil {
		<-stopped
	}
}

// during makes a call between two points. What has left the origin arrives, whatever became of its
// deadline.
func during[T any](s *stoppedStore, ctx context.Context, name string, call func(context.Context) (T, error)) (T, error) {
	s.point("before " + name)
	defer s.point("after " + name)
	return call(context.WithoutCancel(ctx))
}

func (s *stoppedStore) Now(ctx context.Context) (time.Time, error) {
	return during(s, ctx, "Now", s.Store.Now)
}

func (s *stoppedStore) Acquire(ctx context.Context, id queue.ID, owner string, ttl time.Duration, now time.Time) (uint64, error) {
	return during(s, ctx, "Acquire", func(ctx context.Context) (uint64, error) {
		return s.Store.Acquire(ctx, id, owner, ttl, now)
	})
}

func (s *stoppedStore) Look(ctx context.Context, id queue.ID, limit int, now time.Time) (queue.Look, error) {
	return during(s, ctx, "Look", func(ctx context.Context) (queue.Look, error) {
		return s.Store.Look(ctx, id, limit, now)
	})
}

func (s *stoppedStore) Commit(ctx context.Context, id queue.ID, owner string, ttl time.Duration, tick queue.Tick) (store.TickResult, error) {
	return during(s, ctx, "Commit", func(ctx context.Context) (store.TickResult, error) {
		return s.Store.Commit(ctx, id, owner, ttl, tick)
	})
}

func (s *stoppedStore) CloseTurn(ctx context.Context, id queue.ID, epoch, turn uint64, now time.Time) (expired int, ack store.Ack, err error) {
	ack, err = during(s, ctx, "CloseTurn", func(ctx context.Context) (store.Ack, error) {
		var ack store.Ack
		var err error
		expired, ack, err = s.Store.CloseTurn(ctx, id, epoch, turn, now)
		return ack, err
	})
	return expired, ack, err
}

func (s *stoppedStore) Remind(ctx context.Context, id queue.ID, at time.Time) error {
	_, err := during(s, ctx, "Remind", func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.Store.Remind(ctx, id, at)
	})
	return err
}

func (s *stoppedStore) Settle(ctx context.Context, id queue.ID, now time.Time) error {
	_, err := during(s, ctx, "Settle", func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.Store.Settle(ctx, id, now)
	})
	return err
}

func (s *stoppedStore) Due(ctx context.Context, now time.Time, limit int) ([]queue.ID, error) {
	return during(s, ctx, "Due", func(ctx context.Context) ([]queue.ID, error) {
		return s.Store.Due(ctx, now, limit)
	})
}

// List takes its time, as with many queues.
func (s *stoppedStore) List(ctx context.Context, tenant string) ([]store.Meta, error) {
	return during(s, ctx, "List", func(ctx context.Context) ([]store.Meta, error) {
		time.Sleep(20 * time.Millisecond)
		return s.Store.List(ctx, tenant)
	})
}

func (s *stoppedStore) Snapshot(ctx context.Context, id queue.ID) (queue.Snapshot, error) {
	return during(s, ctx, "Snapshot", func(ctx context.Context) (queue.Snapshot, error) {
		return s.Store.Snapshot(ctx, id)
	})
}

func (s *stoppedStore) Entries(ctx context.Context, id queue.ID, incarnation string, after uint64, chain string, limit int) ([]queue.Entry, error) {
	return during(s, ctx, "Entries", func(ctx context.Context) ([]queue.Entry, error) {
		return s.Store.Entries(ctx, id, incarnation, after, chain, limit)
	})
}

func (s *stoppedStore) WriteJournal(ctx context.Context, id queue.ID, incarnation string, from queue.Cursor, page queue.Page) error {
	_, err := during(s, ctx, "WriteJournal", func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.Store.WriteJournal(ctx, id, incarnation, from, page)
	})
	return err
}

func (s *stoppedStore) Revoked(ctx context.Context, tenant, cursor string, now time.Time) (list []store.Revocation, next string, reset bool, err error) {
	list, err = during(s, ctx, "Revoked", func(ctx context.Context) (list []store.Revocation, err error) {
		list, next, reset, err = s.Store.Revoked(ctx, tenant, cursor, now)
		return list, err
	})
	return list, next, reset, err
}

// Hints come late or not at all while nobody listens.
func (s *stoppedStore) Hints(ctx context.Context, hint func(queue.ID)) error {
	return s.Store.Hints(ctx, func(id queue.ID) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.stopped == nil {
			hint(id)
		}
	})
}

// crowd is fans of one edge who are here all the time, whichever origin the edge turns to.
type crowd struct {
	id     queue.ID
	joins  uint64 // batches so far
	missed map[uint64]bool
}

// bustle lets time pass while fans join through an origin, are seen, and claim what they are
// offered, but for every third of them, who misses the first offer.
func (c *crowd) bustle(r *rig, d time.Duration) {
	r.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(250 * time.Millisecond) {
		view := r.view(c.id)
		if view.Waiting < 20 {
			r.joins = c.joins
			r.joinOne(c.id)
			c.joins = r.joins
			view = r.view(c.id)
		}
		var line []uint64
		for p := uint64(1); p <= view.Issued; p++ {
			switch state := view.Status(p, r.clock.Now()).State; {
			case state == queue.TicketWaiting:
				c.missed[p] = c.missed[p] || p <= view.Watermark
				line = append(line, p)
			case state == queue.TicketAdmitted && (p%3 != 0 || c.missed[p]):
				r.claimAs(c.id, p, fmt.Sprint("fan ", p))
			}
		}
		r.see(c.id, line...)
	}
}

// TestCoordinatorThatWasStoppedHurtsNobody stops the origin that coordinates a queue for longer than
// its lease, at every point of a tick at which it asks the store for something or waits for the
// answer, and has it go on when the other one is in the midst of it: in turn, so that each of them
// comes back many times to a queue that went on without it. Both write the journal, which in the end
// has everything once.
func TestCoordinatorThatWasStoppedHurtsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		creds, shared := newCredentials(t), &memory.Store{}
		stores := [2]*stoppedStore{newStoppedStore(shared), newStoppedStore(shared)}
		rigs := [2]*rig{newRig(t, creds, stores[0]), newRig(t, creds, stores[1])}
		id := rigs[0].create("sale", `"capacity":3,"purchaseWindowSeconds":2,"holdSeconds":60,"claimSeconds":1,"maxMissedOffers":5`)
		fans := &crowd{id: id, missed: make(map[uint64]bool)}
		runs := 0
		for _, call := range []string{"Look", "CloseTurn", "Commit", "Remind", "Settle", "Due", "Now", "Entries", "WriteJournal"} {
			for _, point := range []string{"before " + call, "after " + call} {
				for range 2 {
					other := 1 - runs
					fans.bustle(rigs[runs], 2*time.Second)
					stores[runs].at.Store(&point)
					// Whatever calls for the point, and whoever does: the origin that coordinates, soon.
					for range 40 {
						if len(stores[runs].reached) == 0 {
							fans.bustle(rigs[other], 250*time.Millisecond)
						}
					}
					select {
					case <-stores[runs].reached:
					default:
						t.Fatalf("%s: not reached", point)
					}
					watermark := rigs[other].view(id).Watermark
					fans.bustle(rigs[other], 3*creds.config.LeaseTTL)
					if now := rigs[other].view(id).Watermark; now <= watermark {
						t.Errorf("%s: the watermark stands at %d while one origin is stopped, want the other to go on", point, now)
					}
					stores[runs].goOn()
					runs = other
				}
			}
		}
		fans.bustle(rigs[0], 20*time.Second)
		entries, err := shared.Entries(t.Context(), id, rigs[0].view(id).Incarnation, 0, "", 1_000_000)
		must(t, err)
		if err := storetest.CheckHistory(entries); err != nil {
			t.Error(err)
		}
		view := rigs[0].view(id)
		t.Logf("%d entries, watermark %d of %d", len(entries), view.Watermark, view.Issued)
		for _, r := range rigs {
			r.stop()
		}
		storetest.KeepJournal(t, shared, id, view.Incarnation)
		storetest.CheckJournal(t, shared, id, view.Incarnation)
	})
}

// TestOriginThatWasStoppedTellsNothingOld has an origin stopped while much happens of which no
// hint ever reaches it. It must not tell an edge that comes from the other origin what was true before.
func TestOriginThatWasStoppedTellsNothingOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		creds, shared := newCredentials(t), &memory.Store{}
		stopped := newStoppedStore(shared)
		one, two := newRig(t, creds, stopped), newRig(t, creds, shared)
		sale := two.create("sale", `"capacity":1,"purchaseWindowSeconds":3600`)
		position := two.joinOne(sale)
		time.Sleep(time.Second)
		if two.status(sale, position).State != queue.TicketAdmitted {
			t.Fatal("the first fan is not admitted")
		}
		two.claimOne(sale, position)
		old := two.create("old", `"capacity":1`)
		time.Sleep(2 * time.Second)
		if view := one.feed.View(old); view == nil {
			t.Fatal("the origin does not know a queue before its stop")
		}

		stopped.stop()
		made := two.create("made", `"capacity":1`)
		two.operate("PATCH", "/queues/"+string(old), `{"state":"closed"}`)
		if got := two.operate("DELETE", "/queues/"+string(old), ""); got.Code != 204 {
			t.Fatalf("delete a queue: got %d, want 204", got.Code)
		}
		if code := two.leaveOne(sale, position); code != 204 {
			t.Fatalf("leave: got %d, want 204", code)
		}
		time.Sleep(20 * time.Second)
		stopped.goOn()

		// An edge that tries at once, and again without a pause, until it is served.
		var o *outbox
		for tries := 0; o == nil; tries++ {
			if tries == 10_000 {
				t.Fatal("the origin serves no feed after its stop")
			}
			var err error
			if o, err = one.feed.subscribe(); err != nil {
				time.Sleep(time.Millisecond)
			}
		}
		items, _ := o.take()
		told := make(map[queue.ID]bool)
		revocations := 0
		for _, i := range items {
			if i.view != nil {
				told[i.view.ID] = true
				if i.view.ID == sale && i.view.Fate(position) != queue.Left {
					t.Errorf("the fan who left is told to be %v", i.view.Fate(position))
				}
			}
			if i.revoked != nil {
				revocations += len(i.revoked.List)
			}
		}
		if !told[made] || told[old] || revocations != 1 {
			t.Errorf("told: the queue made meanwhile %v, the one deleted meanwhile %v, %d revocations; want true, false, 1",
				told[made], told[old], revocations)
		}
		one.feed.unsubscribe(o)
		one.stop()
		two.stop()
	})
}
