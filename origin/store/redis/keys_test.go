package redis_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
	"waitingroom/origin/store/redis/redistest"
	"waitingroom/origin/store/storetest"
)

// TestConformance runs the suite that all stores pass, and watches meanwhile that each script
// touches only keys that it was given, and those of one hash tag: what a cluster demands.
func TestConformance(t *testing.T) {
	server := redistest.Start(t)
	watch := watchKeys(t, server)
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, server) })
	watch.end()
}

// busy makes a queue that has something in each kind of key.
func busy(t *testing.T, s store.Store, id queue.ID, now time.Time) {
	t.Helper()
	settings := queue.DefaultSettings()
	settings.Capacity, settings.MaxMissedOffers = 3, 3
	check := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	_, _, err := s.Create(t.Context(), id, "inc", "g1", settings, now)
	check("Create", err)
	for seq, users := range [][]store.Key{{{1}, {2}, {}, {3}}, make([]store.Key, 70_000), {{4}, {1}}} {
		_, err = s.Join(t.Context(), store.JoinBatch{Queue: id, Edge: "edge", Seq: uint64(seq + 1), Users: users, Now: now})
		check("Join", err)
	}
	epoch, err := s.Acquire(t.Context(), id, "owner", time.Hour, now)
	check("Acquire", err)
	_, err = s.Commit(t.Context(), id, "owner", time.Hour, queue.Tick{Epoch: epoch, Now: now.Add(1), Offer: queue.Positions{1, 2, 70_001}})
	check("Commit", err)
	now = now.Add(settings.Claim() - time.Second)
	for position, user := range map[uint64]store.Key{1: {1}, 70_001: {}} {
		_, _, err = s.Claim(t.Context(), store.Claim{
			Queue: id, Incarnation: "inc", Position: position, Subject: user, SessionID: fmt.Sprint(id, "~", position), Now: now,
		})
		check("Claim", err)
	}
	now = now.Add(queue.ClaimGrace + time.Second)
	_, err = s.Commit(t.Context(), id, "owner", time.Hour, queue.Tick{Epoch: epoch, Now: now, Lapse: queue.Positions{2}})
	check("Commit", err)
	_, _, err = s.CloseTurn(t.Context(), id, epoch, 2, now)
	check("CloseTurn", err)
	_, err = s.See(t.Context(), store.SightingBatch{
		Queue: id, Incarnation: "inc", Edge: "edge", Turn: 3, Positions: queue.Positions{3, 4, 70_003}, Complete: true, At: now, Now: now,
	})
	check("See", err)
	check("WriteJournal", s.WriteJournal(t.Context(), id, "inc", queue.Cursor{}, queue.Page{
		Journal: queue.Journal{Cursor: queue.Cursor{Entry: 1}}, Minutes: []queue.Minute{{At: now}}, Moves: []queue.Move{{Number: 1}},
	}))
	check("Remind", s.Remind(t.Context(), id, now))
}

// TestDeleteLeavesNothing fills two queues, deletes one, and looks at every key of the server.
func TestDeleteLeavesNothing(t *testing.T) {
	server := redistest.Start(t)
	client := goredis.NewClient(&goredis.Options{Addr: server.Addr})
	defer client.Close()
	s := open(t, server)
	now, err := s.Now(t.Context())
	if err != nil {
		t.Fatalf("Now: %v", err)
	}
	busy(t, s, "shop.gone", now)
	busy(t, s, "shop.stays", now)

	kinds := make(map[string]bool)
	for _, key := range allKeys(t, client) {
		kinds[generic(key)] = true
		if key == "wr:schedule" || key == "wr:{shop}:queues" || key == "wr:{shop}:deleted" {
			continue
		}
		if !strings.HasPrefix(key, "wr:{shop.gone}:") && !strings.HasPrefix(key, "wr:{shop.stays}:") {
			t.Errorf("key %s does not carry its queue's hash tag", key)
		}
	}
	for _, kind := range []string{
		"meta", "log", "offers", "expiries", "sessions", "sessionids", "edges", "joiners", "batches:edge",
		"users:N", "fates:N", "named:N", "waiting:N", "lapsed:N", "missed:N", "seen:N:N",
		"journal", "minutes", "moves",
	} {
		// Nothing is offered any more.
		if kind != "offers" && !kinds["wr:{…}:"+kind] {
			t.Errorf("there is no key of the kind %s to be deleted", kind)
		}
	}

	settings := queue.DefaultSettings()
	settings.State = queue.Closed
	now = now.Add(time.Hour)
	if _, _, err := s.Update(t.Context(), "shop.gone", 1, settings, now); err != nil {
		t.Fatalf("Update: %v", err)
	}
	epoch, err := s.Acquire(t.Context(), "shop.gone", "owner", time.Hour, now.Add(time.Hour))
	if err != nil {
		t.Fatalf("Acquire: %v", err)
	}
	if _, err := s.Commit(t.Context(), "shop.gone", "owner", time.Hour, queue.Tick{
		Epoch: epoch, Now: now.Add(time.Hour), EndSessions: queue.Positions{1, 70_001},
	}); err != nil {
		t.Fatalf("Commit: %v", err)
	}
	// Another origin deletes it, and does not hear the answer.
	proxy := redistest.StartProxy(t, server)
	other := openAt(t, proxy.Addr)
	if _, err := other.Look(t.Context(), "shop.gone", 1, now); err != nil {
		t.Fatalf("Look: %v", err)
	}
	if err := other.Delete(t.Context(), "shop.stays", "inc"); !errors.Is(err, store.ErrNotClosed) {
		t.Errorf("Delete of an open queue: %v, want %v", err, store.ErrNotClosed)
	}
	proxy.LoseReply()
	if err := other.Delete(t.Context(), "shop.gone", "inc"); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	if err := s.Delete(t.Context(), "shop.gone", "inc"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Delete of a queue that is gone: %v, want %v", err, store.ErrNotFound)
	}
	for _, key := range allKeys(t, client) {
		if strings.Contains(key, "gone") {
			t.Errorf("after the deletion there is still %s", key)
		}
	}
	slugs, err := client.SMembers(t.Context(), "wr:{shop}:queues").Result()
	if err != nil || !slices.Equal(slugs, []string{"stays"}) {
		t.Errorf("the registry lists %v, %v, want stays", slugs, err)
	}
	due, err := s.Due(t.Context(), now.Add(time.Hour), 10)
	if err != nil || !slices.Equal(due, []queue.ID{"shop.stays"}) {
		t.Errorf("due are %v, %v, want shop.stays", due, err)
	}
}

// TestIdleCostsNothing lets a queue become idle and wants its bitmaps gone.
func TestIdleCostsNothing(t *testing.T) {
	server := redistest.Start(t)
	client := connect(t, server)
	s := open(t, server)
	now := time.UnixMilli(1_800_000_000_000)
	joinMany(t, s, "shop.match", 70_000, false, now)
	epoch, now := seeForAHold(t, s, "shop.match", 70_000, now)
	bitmaps := func() int {
		n := 0
		for _, key := range allKeys(t, client) {
			if strings.Contains(key, ":seen:") || strings.Contains(key, ":waiting:") {
				n++
			}
		}
		return n
	}
	if got, want := bitmaps(), 2*(1+30); got != want {
		t.Errorf("%d bitmaps for two pages and a hold of 30 turns, want %d", got, want)
	}
	// Nobody is seen any more. One fan of the second page, who has an offer, outlives the others.
	meta, err := s.Get(t.Context(), "shop.match")
	if err != nil {
		t.Fatalf("Get: %v", err)
	}
	meta.Settings.Capacity = 1
	if _, _, err := s.Update(t.Context(), "shop.match", meta.Version, meta.Settings, now); err != nil {
		t.Fatalf("Update: %v", err)
	}
	if _, err := s.Commit(t.Context(), "shop.match", "owner", time.Hour, queue.Tick{Epoch: epoch, Now: now, Offer: queue.Positions{70_000}}); err != nil {
		t.Fatalf("Commit: %v", err)
	}
	for turn := uint64(36); turn < 36+31; turn++ {
		if _, _, err := s.CloseTurn(t.Context(), "shop.match", epoch, turn, now); err != nil {
			t.Fatalf("CloseTurn: %v", err)
		}
	}
	if got := bitmaps(); got != 1 {
		t.Errorf("%d bitmaps when only one fan with an offer is left, want 1", got)
	}
	if _, _, err := s.Claim(t.Context(), store.Claim{
		Queue: "shop.match", Incarnation: "inc", Position: 70_000, SessionID: "shop.match~1", Now: now,
	}); err != nil {
		t.Fatalf("Claim: %v", err)
	}
	result, err := s.Commit(t.Context(), "shop.match", "owner", time.Hour, queue.Tick{Epoch: epoch, Now: now.Add(time.Second)})
	if err != nil || !result.Idle {
		t.Fatalf("Commit: %+v, %v, want the queue idle", result, err)
	}
	if got := bitmaps(); got != 0 {
		t.Errorf("an idle queue has %d bitmaps, want none", got)
	}
}

// TestRevocationsAreForgotten revokes more sessions than are dropped at a time, and lets them run
// out.
func TestRevocationsAreForgotten(t *testing.T) {
	server := redistest.Start(t)
	s := open(t, server)
	now := time.UnixMilli(1_800_000_000_000)
	const sessions = 250
	for n := range sessions {
		if err := s.Revoke(t.Context(), "shop", store.Revocation{ID: fmt.Sprint("shop.match~", n), ExpiresAt: now.Add(time.Minute)}, now); err != nil {
			t.Fatalf("Revoke: %v", err)
		}
	}
	list, cursor, reset, err := s.Revoked(t.Context(), "shop", "", now)
	if err != nil || len(list) != sessions || reset {
		t.Errorf("%d revoked, reset %v, %v, want %d", len(list), reset, err, sessions)
	}
	now = now.Add(time.Minute + store.RevocationLeeway)
	list, next, reset, err := s.Revoked(t.Context(), "shop", cursor, now)
	if err != nil || len(list) != 0 || reset || next != cursor {
		t.Errorf("%d revoked, cursor %q, reset %v, %v, want none and the same cursor", len(list), next, reset, err)
	}
	client := connect(t, server)
	for _, key := range allKeys(t, client) {
		if n := client.ZCard(t.Context(), key).Val() + client.XLen(t.Context(), key).Val(); n != 0 {
			t.Errorf("%s still has %d members", key, n)
		}
	}
}

// TestLookReadsLittle counts what Redis sends for one look at a long line.
func TestLookReadsLittle(t *testing.T) {
	server := redistest.Start(t)
	client := connect(t, server)
	s := open(t, server)
	now := time.UnixMilli(1_800_000_000_000)
	joinMany(t, s, "shop.match", 200_000, false, now)
	meta, err := s.Get(t.Context(), "shop.match")
	if err != nil {
		t.Fatalf("Get: %v", err)
	}
	meta.Settings.Capacity = 1_000_000
	if _, _, err := s.Update(t.Context(), "shop.match", meta.Version, meta.Settings, now); err != nil {
		t.Fatalf("Update: %v", err)
	}
	for _, test := range []struct {
		limit int
		most  int64 // bytes, statistics and settings included
	}{{1, 10_000}, {2000, 10_000}, {100_000, 40_000}} {
		before := sentBytes(t, client)
		look, err := s.Look(t.Context(), "shop.match", test.limit, now)
		if err != nil || len(look.Candidates) != test.limit || look.Present != 200_000 {
			t.Fatalf("Look: %d candidates, %d present, %v, want %d, 200000", len(look.Candidates), look.Present, err, test.limit)
		}
		if got := sentBytes(t, client) - before; got > test.most {
			t.Errorf("a look with %d candidates reads %d bytes, want at most %d", test.limit, got, test.most)
		}
	}
}

func allKeys(t testing.TB, client *goredis.Client) []string {
	t.Helper()
	keys, err := client.Keys(t.Context(), "*").Result()
	if err != nil {
		t.Fatalf("list keys: %v", err)
	}
	return keys
}
