package storetest

import (
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

var joinCases = []testCase{
	{"order of arrival", joinOrder},
	{"replay", joinReplay},
	{"many edges at once", joinManyEdges},
	{"floor", joinFloor},
	{"users keep their place", joinUsers},
	{"users after their place is done", joinUsersAfterDone},
	{"every state but closed", joinStates},
	{"users only", joinIdentity},
	{"slots of the tick", joinSlots},
	{"slots stay below the capacity", joinSlotsAtCapacity},
	{"slots fall to zero at the first who waits", joinSlotsTurnedAway},
	{"slots are none when the look missed somebody", joinSlotsMissed},
	{"slots are lost by a change of settings", joinSlotsSettings},
	{"slots outlive idleness", joinSlotsIdle},
}

func joinOrder(t *testing.T, s store.Store) {
	sc := newScene(t, s, nil)
	var next uint64 = 1
	for _, n := range []int{1, 3, 200, 1} {
		result := sc.joinBatch(sc.batch(make([]store.Key, n)...))
		if result.Incarnation != sc.inc || result.Generation != "g1" {
			t.Errorf("Join answered incarnation %q, generation %q", result.Incarnation, result.Generation)
		}
		for _, j := range result.Joins {
			if want := (store.Joined{Position: next, New: true}); j != want {
				t.Fatalf("Join: %+v, want %+v", j, want)
			}
			next++
		}
		if want := sc.snapshot().Number; result.Entry != want {
			t.Errorf("Join acknowledged entry %d, want %d", result.Entry, want)
		}
	}
	if got := sc.view(); got.Issued != next-1 || got.Waiting != int(next-1) {
		t.Errorf("issued %d, waiting %d, want %d of each", got.Issued, got.Waiting, next-1)
	}
}

func joinReplay(t *testing.T, s store.Store) {
	sc := newScene(t, s, nil)
	batches, answers := []store.JoinBatch{}, []store.JoinResult{}
	add := func(users ...store.Key) {
		batches = append(batches, sc.batch(users...))
		answers = append(answers, sc.joinBatch(batches[len(batches)-1]))
	}
	add(store.Key{}, key(1))
	add(key(1), key(2))
	sc.unchanged("replays", func() {
		for i, batch := range batches {
			batch.Now = sc.now.Add(time.Second)
			batch.Floor = 1000
			again := sc.joinBatch(batch)
			again.Ack = answers[i].Ack
			if !reflect.DeepEqual(again, answers[i]) {
				t.Errorf("replay of batch %d: %+v, want %+v", i+1, again, answers[i])
			}
		}
	})
	// The same number from another edge is another batch.
	other := batches[0]
	other.Edge = randomName()
	if got := sc.joinBatch(other).Joins[0]; !got.New || got.Position != 4 {
		t.Errorf("another edge's first batch got %+v, want position 4, new", got)
	}
	for range 254 {
		add(store.Key{})
	}
	sc.unchanged("replay of the oldest of 256", func() {
		if got := sc.joinBatch(batches[0]).Joins; !reflect.DeepEqual(got, answers[0].Joins) {
			t.Errorf("replay of the oldest of 256 batches: %+v, want %+v", got, answers[0].Joins)
		}
	})
	add(store.Key{})
	sc.unchanged("a batch too old", func() {
		_, err := s.Join(t.Context(), batches[0])
		sc.wantErr("replay of the oldest of 257", err, store.ErrBatchExpired)
		if got := sc.joinBatch(batches[1]).Joins; !reflect.DeepEqual(got, answers[1].Joins) {
			t.Errorf("replay of the second of 257 batches: %+v, want %+v", got, answers[1].Joins)
		}
	})
	// Batches may overtake each other.
	late := sc.batch(store.Key{})
	add(store.Key{})
	if got := sc.joinBatch(late).Joins[0]; !got.New || got.Position != sc.view().Issued {
		t.Errorf("an overtaken batch got %+v, want a new position", got)
	}
	// What an edge was answered before the closing it is answered again after it.
	sc.setState(queue.Closed)
	if got := sc.joinBatch(batches[len(batches)-1]); len(got.Joins) != 1 {
		t.Errorf("replay after the closing: %+v", got)
	}
}

func joinManyEdges(t *testing.T, s store.Store) {
	sc := newScene(t, s, nil)
	const edges, batches, size = 4, 25, 7
	results := make([][]store.JoinResult, edges)
	var wait sync.WaitGroup
	for e := range edges {
		wait.Go(func() {
			for seq := range uint64(batches) {
				batch := store.JoinBatch{
					Queue: sc.id, Edge: fmt.Sprint(sc.edge, e), Seq: seq + 1,
					Users: make([]store.Key, size), Now: sc.now,
				}
				batch.Users[3] = key(int(seq) + 1) // the same user on every edge
				for range 2 {
					result, err := s.Join(t.Context(), batch)
					if err != nil {
						t.Errorf("Join: %v", err)
						return
					}
					results[e] = append(results[e], result)
				}
			}
		})
	}
	wait.Wait()
	owner := make(map[uint64]string)
	users := make(map[int]uint64)
	for e, list := range results {
		for i, result := range list {
			for n, j := range result.Joins {
				if n == 3 {
					if was, known := users[i/2]; known && was != j.Position {
						t.Errorf("user %d got %d and %d", i/2, was, j.Position)
					}
					users[i/2] = j.Position
					continue
				}
				me := fmt.Sprint(e, i/2, n)
				if other, taken := owner[j.Position]; taken && other != me {
					t.Errorf("position %d was issued twice", j.Position)
				}
				owner[j.Position] = me
			}
		}
	}
	if want := edges*batches*(size-1) + batches; int(sc.view().Issued) != want {
		t.Errorf("issued %d, want %d", sc.view().Issued, want)
	}
}

func joinFloor(t *testing.T, s store.Store) {
	sc := newScene(t, s, nil)
	join := func(floor uint64, users ...store.Key) store.Joined {
		t.Helper()
		batch := sc.batch(users...)
		batch.Floor = floor
		return sc.joinBatch(batch).Joins[0]
	}
	if got := join(0, key(1)); got.Position != 1 {
		t.Errorf("first position is %d, want 1", got.Position)
	}
	if got := join(3000, store.Key{}, store.Key{}); got.Position != 3001 {
		t.Errorf("position above the floor is %d, want 3001", got.Position)
	}
	if got := join(50, store.Key{}); got.Position != 3003 {
		t.Errorf("position with a floor below the counter is %d, want 3003", got.Position)
	}
	sc.unchanged("a floor with nothing to issue", func() {
		if got := join(9000, key(1)); got.Position != 1 || got.New {
			t.Errorf("a known user got %+v, want position 1", got)
		}
	})
	stray := sc.batch(store.Key{})
	stray.Floor, stray.FloorOf = 9000, randomName()
	if got := sc.joinBatch(stray).Joins[0]; got.Position != 3004 {
		t.Errorf("position with another incarnation's floor is %d, want 3004", got.Position)
	}
	if got := join(3004+store.MaxFloorRise+1, store.Key{}); got.Position != 3005 {
		t.Errorf("position with an incredible floor is %d, want 3005", got.Position)
	}
	// The numbers passed over may be held by fans: they wait like the others.
	view := sc.view()
	if view.Issued != 3005 || view.Waiting != 3005 {
		t.Errorf("issued %d, waiting %d, want 3005 of each", view.Issued, view.Waiting)
	}
	sc.tick()
	sc.wantOffer(1, sc.claimBy())
	sc.wantOffer(2, sc.claimBy())
	sc.leave(1500)
	sc.wantFate(1500, queue.Left)
}

func joinUsers(t *testing.T, s store.Store) {
	sc := newScene(t, s, func(s *queue.Settings) { s.Capacity = 1 })
	joins := sc.join(key(1), key(2), store.Key{}, key(1), key(3), key(2))
	for i, want := range []store.Joined{
		{Position: 1, New: true}, {Position: 2, New: true}, {Position: 3, New: true},
		{Position: 1}, {Position: 4, New: true}, {Position: 2},
	} {
		if joins[i] != want {
			t.Errorf("join %d in one batch: %+v, want %+v", i, joins[i], want)
		}
	}
	sc.tick() // offers 1
	claimBy := sc.claimBy()
	again := sc.join(key(1), key(2), key(9))
	if want := (store.Joined{Position: 1, ClaimBy: claimBy}); again[0] != want {
		t.Errorf("a user with an offer got %+v, want %+v", again[0], want)
	}
	if want := (store.Joined{Position: 2}); again[1] != want {
		t.Errorf("a user who waits got %+v, want %+v", again[1], want)
	}
	if want := (store.Joined{Position: 5, New: true}); again[2] != want {
		t.Errorf("a new user got %+v, want %+v", again[2], want)
	}
	session := sc.claim(1)
	sc.unchanged("join of a user with a session", func() {
		if got, want := sc.join(key(1))[0], (store.Joined{Position: 1, Session: session}); got != want {
			t.Errorf("a user with a session got %+v, want %+v", got, want)
		}
	})
}

func joinUsersAfterDone(t *testing.T, s store.Store) {
	sc := newScene(t, s, func(s *queue.Settings) { s.Capacity = 2; s.MaxMissedOffers = 1 })
	sc.join(key(1), key(2), key(3), key(4))
	sc.tick()
	released, windowed := sc.claim(1), sc.claim(2)
	sc.leave(3)
	sc.endSession(released.ID)
	sc.tick()
	sc.wantOffer(4, sc.claimBy())
	// Everybody but 4 and the session at 2 is out; that one's window ends before any tick.
	sc.now = windowed.ExpiresAt
	joins := sc.join(key(1), key(2), key(3))
	for i, want := range []uint64{5, 6, 7} {
		if j := joins[i]; j.Position != want || !j.New || j.Session.ID != "" {
			t.Errorf("user %d after the first place is done got %+v, want position %d, new", i+1, j, want)
		}
	}
	if again := sc.join(key(1))[0]; again.Position != 5 || again.New {
		t.Errorf("the user's new place is %+v, want 5", again)
	}
	sc.acquire()
	sc.commit(queue.Tick{EndSessions: sc.look().DueSessions, Lapse: sc.look().DueOffers})
	sc.wantFate(2, queue.Ended)
	sc.wantFate(4, queue.Missed)
	if j := sc.join(key(4))[0]; j.Position != 8 || !j.New {
		t.Errorf("a user who missed the offers got %+v, want position 8, new", j)
	}
}

// joinIdentity: a retune binds the batches after it, and a batch is taken as a whole or not at all.
func joinIdentity(t *testing.T, s store.Store) {
	sc := newScene(t, s, nil)
	before := sc.batch(key(1), store.Key{})
	answered := sc.joinBatch(before)
	sc.update(func(s *queue.Settings) { s.Identity = queue.IdentityRequired })
	sc.unchanged("batches with somebody anonymous", func() {
		for _, users := range [][]store.Key{{{}}, {{}, {}}, {key(2), {}}, {{}, key(1)}} {
			_, err := s.Join(t.Context(), sc.batch(users...))
			sc.wantErr(fmt.Sprint("Join of ", users), err, store.ErrAnonymous)
		}
		if got := sc.joinBatch(before); !reflect.DeepEqual(got.Joins, answered.Joins) {
			t.Errorf("replay of a batch from before: %+v, want %+v", got.Joins, answered.Joins)
		}
	})
	got := sc.joinBatch(sc.batch(key(2), key(1))).Joins
	if want := []store.Joined{{Position: 3, New: true}, {Position: 1}}; !reflect.DeepEqual(got, want) {
		t.Errorf("Join of users: %+v, want %+v", got, want)
	}
	sc.update(func(s *queue.Settings) { s.Identity = queue.IdentityOptional })
	if got := sc.joinAnonymous(1); got != 4 {
		t.Errorf("Join of somebody anonymous afterwards got %d, want 4", got)
	}
}

func joinStates(t *testing.T, s store.Store) {
	sc := newScene(t, s, nil)
	for i, state := range []queue.State{queue.Scheduled, queue.Paused, queue.SoldOut, queue.Open} {
		sc.setState(state)
		if got := sc.joinAnonymous(1); got != uint64(i+1) {
			t.Errorf("join while %s got %d, want %d", state, got, i+1)
		}
	}
	sc.setState(queue.Closed)
	sc.unchanged("join of a closed queue", func() {
		_, err := s.Join(t.Context(), sc.batch(store.Key{}))
		sc.wantErr("Join", err, store.ErrClosed)
		_, err = s.Join(t.Context(), sc.batch(key(1)))
		sc.wantErr("Join of a user", err, store.ErrClosed)
	})
}
