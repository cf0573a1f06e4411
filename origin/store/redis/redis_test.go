package redis_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
	"waitingroom/origin/store/redis"
	"waitingroom/origin/store/redis/redistest"
)

// open returns a store on a server, closed when the test ends.
func open(t testing.TB, server *redistest.Server) *redis.Store {
	t.Helper()
	return openAt(t, server.Addr)
}

func openAt(t testing.TB, addr string) *redis.Store {
	t.Helper()
	return openWith(t, redis.Config{Addresses: []string{addr}})
}

func openWith(t testing.TB, config redis.Config) *redis.Store {
	t.Helper()
	if config.Timeout == 0 {
		config.Timeout = 20 * time.Second // a busy machine must not fail a test
	}
	s, err := redis.Open(config)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

// connect returns a plain client.
func connect(t testing.TB, server *redistest.Server) *goredis.Client {
	t.Helper()
	client := goredis.NewClient(&goredis.Options{Addr: server.Addr})
	t.Cleanup(func() { client.Close() })
	return client
}

func TestOpenRefuses(t *testing.T) {
	for name, config := range map[string]redis.Config{
		"no address":                  {},
		"a master and a cluster both": {Addresses: []string{"a:1"}, MasterName: "m", Cluster: true},
	} {
		if s, err := redis.Open(config); err == nil {
			s.Close()
			t.Errorf("%s: Open succeeds, want an error", name)
		}
	}
}

// state is all that can be read of a queue.
func state(t *testing.T, s store.Store, id queue.ID) []any {
	t.Helper()
	ctx := t.Context()
	meta, err1 := s.Get(ctx, id)
	snapshot, err2 := s.Snapshot(ctx, id)
	counts, err3 := s.Counts(ctx, id)
	look, err4 := s.Look(ctx, id, 1000, time.Time{})
	entries, err5 := s.Entries(ctx, id, "inc", 0, "", 1000)
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		t.Fatalf("read queue: %v", err)
	}
	return []any{meta, snapshot, counts, look, entries}
}

// TestKeepsAllOverACrash kills a server that writes everything to disk, and starts it again.
func TestKeepsAllOverACrash(t *testing.T) {
	server := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	s := open(t, server)
	now, err := s.Now(t.Context())
	if err != nil {
		t.Fatalf("Now: %v", err)
	}
	busy(t, s, "shop.match", now)
	revoked := store.Revocation{ID: "shop.match~1", ExpiresAt: now.Add(time.Hour)}
	if err := s.Revoke(t.Context(), "shop", revoked, now); err != nil {
		t.Fatalf("Revoke: %v", err)
	}
	before := state(t, s, "shop.match")
	_, cursor, _, err := s.Revoked(t.Context(), "shop", "", now)
	if err != nil {
		t.Fatalf("Revoked: %v", err)
	}

	server.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	begin := time.Now()
	_, err = s.Join(ctx, store.JoinBatch{Queue: "shop.match", Edge: "edge", Seq: 9, Users: make([]store.Key, 1), Now: now})
	if err == nil || errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrClosed) {
		t.Errorf("Join while Redis is gone: %v, want an error of unknown outcome", err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("Join while Redis is gone took %v, the caller's limit was 200ms", took)
	}
	server.Restart()

	if after := state(t, s, "shop.match"); !reflect.DeepEqual(after, before) {
		t.Errorf("after the crash:\n%+.2000v\nbefore:\n%+.2000v", after, before)
	}
	list, next, reset, err := s.Revoked(t.Context(), "shop", "", now)
	if err != nil || reset || next != cursor || len(list) != 1 || list[0].ID != revoked.ID {
		t.Errorf("revoked after the crash: %v, %q, %v, %v, want %s and the cursor %q", list, next, reset, err, revoked.ID, cursor)
	}
	// The edge repeats the batch of which it does not know what became of it.
	result, err := s.Join(t.Context(), store.JoinBatch{Queue: "shop.match", Edge: "edge", Seq: 9, Users: make([]store.Key, 1), Now: now})
	if err != nil || !result.Joins[0].New || result.Joins[0].Position != 70_006 {
		t.Errorf("Join after the crash: %+v, %v, want position 70006", result.Joins, err)
	}
}

// TestScriptsAreLoadedAgain empties the server's memory of scripts, as a failover does.
func TestScriptsAreLoadedAgain(t *testing.T) {
	server := redistest.Start(t)
	s := open(t, server)
	now := time.UnixMilli(1_800_000_000_000)
	busy(t, s, "shop.first", now)
	if err := connect(t, server).ScriptFlush(t.Context()).Err(); err != nil {
		t.Fatalf("flush scripts: %v", err)
	}
	busy(t, s, "shop.second", now)
}

// TestContextBoundsCalls freezes the server; no call outlasts its context by much.
func TestContextBoundsCalls(t *testing.T) {
	server := redistest.Start(t)
	s := open(t, server)
	now := time.UnixMilli(1_800_000_000_000)
	busy(t, s, "shop.match", now)
	server.Pause()
	defer server.Resume()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if _, err := s.Look(ctx, "shop.match", 1, now); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Look on a frozen server: %v, want the context's error", err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("Look on a frozen server took %v, the limit was 100ms", took)
	}
}

// TestHintsEndWithTheConnection is what makes a reader of hints start anew, and read everything
// that it may have missed.
func TestHintsEndWithTheConnection(t *testing.T) {
	server := redistest.Start(t)
	s := open(t, server)
	hints := make(chan queue.ID, 1000)
	ended := make(chan error, 1)
	go func() { ended <- s.Hints(t.Context(), func(id queue.ID) { hints <- id }) }()
	limit := time.NewTimer(20 * time.Second)
	defer limit.Stop()
	select {
	case id := <-hints:
		if id != store.Listening {
			t.Errorf("the first hint is %q, want the one that says that they come", id)
		}
	case <-limit.C:
		t.Fatal("no hint came")
	}
	server.Kill()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("Hints ended without an error when the connection broke")
		}
	case <-limit.C:
		t.Error("Hints goes on after the connection broke")
	}
}

// usedMemory is what the server says that it holds.
func usedMemory(t testing.TB, client *goredis.Client) int64 {
	t.Helper()
	info, err := client.InfoMap(t.Context(), "memory").Result()
	if err != nil {
		t.Fatalf("read memory: %v", err)
	}
	var n int64
	if _, err := fmt.Sscan(info["Memory"]["used_memory"], &n); err != nil {
		t.Fatalf("read memory: %v", err)
	}
	return n
}

// TestMemoryPerFan measures what a waiting fan costs, with sightings in all turns that a hold keeps.
func TestMemoryPerFan(t *testing.T) {
	// Two full pages: the cost is by the page.
	const fans = 2 * 65_472
	for name, test := range map[string]struct {
		users bool
		most  float64 // bytes
	}{
		"anonymous":      {false, 6},
		"with a user id": {true, 40},
	} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t)
			client := connect(t, server)
			s := open(t, server)
			now := time.UnixMilli(1_800_000_000_000)
			busy(t, s, "shop.warm-up", now)
			before := usedMemory(t, client)
			joinMany(t, s, "shop.match", fans, test.users, now)
			atOnce := usedMemory(t, client) - before
			seeForAHold(t, s, "shop.match", fans, now)
			held := usedMemory(t, client) - before
			t.Logf("%.2f bytes a fan after joining, %.2f after a whole hold", float64(atOnce)/fans, float64(held)/fans)
			if got := float64(held) / fans; got > test.most {
				t.Errorf("a fan costs %.2f bytes, want at most %v", got, test.most)
			}
		})
	}
}

// joinMany makes a queue without a free slot in which n fans wait.
func joinMany(t testing.TB, s store.Store, id queue.ID, n int, users bool, now time.Time) {
	t.Helper()
	settings := queue.DefaultSettings()
	settings.Capacity = 0
	if _, _, err := s.Create(t.Context(), id, "inc", "g1", settings, now); err != nil {
		t.Fatalf("Create: %v", err)
	}
	const batch = 500
	for seq := 0; seq*batch < n; seq++ {
		keys := make([]store.Key, min(batch, n-seq*batch))
		for i := range keys {
			if users {
				keys[i] = userKey(seq*batch + i)
			}
		}
		if _, err := s.Join(t.Context(), store.JoinBatch{Queue: id, Edge: "edge", Seq: uint64(seq + 1), Users: keys, Now: now}); err != nil {
			t.Fatalf("Join: %v", err)
		}
	}
}

// seeForAHold lets all turns of a hold pass, with everybody seen in each, and returns the epoch
// and the time.
func seeForAHold(t testing.TB, s store.Store, id queue.ID, n int, now time.Time) (uint64, time.Time) {
	t.Helper()
	epoch, err := s.Acquire(t.Context(), id, "owner", 24*time.Hour, now)
	if err != nil {
		t.Fatalf("Acquire: %v", err)
	}
	everybody := make(queue.Positions, n)
	for i := range everybody {
		everybody[i] = uint64(i + 1)
	}
	for turn := uint64(2); turn < 36; turn++ {
		if _, err := s.See(t.Context(), store.SightingBatch{
			Queue: id, Incarnation: "inc", Edge: "edge", Turn: turn, Positions: everybody, Complete: true, At: now, Now: now,
		}); err != nil {
			t.Fatalf("See: %v", err)
		}
		now = now.Add(time.Minute)
		expired, _, err := s.CloseTurn(t.Context(), id, epoch, turn, now)
		if err != nil || expired > 0 {
			t.Fatalf("CloseTurn: %d expired, %v", expired, err)
		}
	}
	return epoch, now
}
