package redis_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
	"waitingroom/origin/store/redis"
	"waitingroom/origin/store/redis/redistest"
)

// startMaster starts a server that does not wait for company before it copies itself.
func startMaster(t testing.TB) *redistest.Server {
	t.Helper()
	return redistest.Start(t, "--repl-diskless-sync-delay", "0")
}

// startReplica starts a server that copies the one at an address, and waits until it does.
func startReplica(t testing.TB, of string, options ...string) *redistest.Server {
	t.Helper()
	host, port, err := net.SplitHostPort(of)
	if err != nil {
		t.Fatalf("start replica: %v", err)
	}
	server := redistest.Start(t, append([]string{"--replicaof", host + " " + port}, options...)...)
	client := connect(t, server)
	eventually(t, "the replica follows", func() bool {
		return strings.Contains(client.Info(t.Context(), "replication").Val(), "master_link_status:up")
	})
	master := goredis.NewClient(&goredis.Options{Addr: of})
	defer master.Close()
	eventually(t, "it acknowledges", func() bool {
		acknowledged, err := master.Do(t.Context(), "wait", 1, 100).Int()
		return acknowledged == 1 || err != nil && strings.Contains(err.Error(), "replica instances") // a replica's own replica
	})
	return server
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	limit := time.NewTimer(30 * time.Second)
	defer limit.Stop()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for !is() {
		select {
		case <-limit.C:
			t.Fatalf("it does not come to pass that %s", what)
		case <-poll.C:
		}
	}
}

// openDurable returns a store whose changes one replica has to acknowledge.
func openDurable(t testing.TB, addr string, patience time.Duration) *redis.Store {
	t.Helper()
	s, err := redis.Open(redis.Config{Addresses: []string{addr}, Timeout: 20 * time.Second, Replicas: 1, ReplicaTimeout: patience})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// TestRepetitionsAreAcknowledged makes each change while the replica hears nothing: neither the
// call nor its repetition through another origin may be answered before the replica has it, although
// the repetition finds that there is nothing left to do.
func TestRepetitionsAreAcknowledged(t *testing.T) {
	server := startMaster(t)
	replica := startReplica(t, server.Addr)
	copied := open(t, replica)
	now := time.UnixMilli(1_800_000_000_000)
	ctx := context.Background()
	const id = queue.ID("shop.match")
	settings := queue.DefaultSettings()
	settings.Capacity = 10

	first := openDurable(t, server.Addr, 15*time.Second)
	if _, _, err := first.Create(ctx, id, "inc", "g1", settings, now); err != nil {
		t.Fatalf("Create: %v", err)
	}
	joins := store.JoinBatch{Queue: id, Edge: "edge", Seq: 1, Users: make([]store.Key, 10), Now: now}
	if _, err := first.Join(ctx, joins); err != nil {
		t.Fatalf("Join: %v", err)
	}
	epoch, err := first.Acquire(ctx, id, "owner", time.Hour, now)
	if err != nil {
		t.Fatalf("Acquire: %v", err)
	}
	if _, err := first.Commit(ctx, id, "owner", time.Hour, queue.Tick{Epoch: epoch, Now: now, Offer: queue.Positions{1, 2}}); err != nil {
		t.Fatalf("Commit: %v", err)
	}
	claim := store.Claim{Queue: id, Incarnation: "inc", Position: 1, Subject: store.Key{1}, SessionID: "shop.match~1", Now: now}
	session, _, err := first.Claim(ctx, claim)
	if err != nil {
		t.Fatalf("Claim: %v", err)
	}
	claim.Position, claim.SessionID = 2, "shop.match~2"
	joins.Seq = 2
	retuned := settings
	retuned.PurchaseWindowSeconds = 77
	fate := func(position uint64) queue.Fate {
		snapshot, err := copied.Snapshot(ctx, id)
		if err != nil {
			t.Fatalf("Snapshot of the replica: %v", err)
		}
		return queue.NewView(snapshot).Fate(position)
	}
	copiedMeta := func() store.Meta {
		meta, err := copied.Get(ctx, id)
		if err != nil {
			t.Fatalf("Get of the replica: %v", err)
		}
		return meta
	}
	for _, test := range []struct {
		name string
		call func(s store.Store) error
		has  func() bool // the replica has it
	}{
		{"join", func(s store.Store) error {
			_, err := s.Join(ctx, joins)
			return err
		}, func() bool {
			counts, err := copied.Counts(ctx, id)
			return err == nil && counts.Issued == 20
		}},
		{"claim", func(s store.Store) error {
			_, _, err := s.Claim(ctx, claim)
			return err
		}, func() bool { return fate(2) == queue.Claimed }},
		{"end", func(s store.Store) error {
			_, err := s.EndSession(ctx, id, session.ID, queue.Ended, queue.ReasonReleased, now)
			return err
		}, func() bool { return fate(1) == queue.Ended }},
		{"leave", func(s store.Store) error {
			_, err := s.Leave(ctx, id, "inc", 9, now)
			return err
		}, func() bool { return fate(9) == queue.Left }},
		{"tick", func(s store.Store) error {
			_, err := s.Commit(ctx, id, "owner", time.Hour, queue.Tick{Epoch: epoch, Now: now.Add(time.Second), Offer: queue.Positions{3}})
			return err
		}, func() bool {
			counts, err := copied.Counts(ctx, id)
			return err == nil && counts.Watermark == 3
		}},
		{"close turn", func(s store.Store) error {
			_, _, err := s.CloseTurn(ctx, id, epoch, 2, now)
			return err
		}, func() bool {
			snapshot, err := copied.Snapshot(ctx, id)
			return err == nil && snapshot.Turn == 3
		}},
		{"update", func(s store.Store) error {
			_, _, err := s.Update(ctx, id, 1, retuned, now)
			return err
		}, func() bool { return copiedMeta().Settings.PurchaseWindowSeconds == 77 }},
		{"create", func(s store.Store) error {
			_, _, err := s.Create(ctx, "shop.second", "inc", "g1", settings, now)
			return err
		}, func() bool {
			list, err := copied.List(ctx, "shop")
			return err == nil && len(list) == 2
		}},
		{"revoke", func(s store.Store) error {
			return s.Revoke(ctx, "shop", store.Revocation{ID: "shop.match~1", ExpiresAt: now.Add(time.Hour)}, now)
		}, func() bool {
			list, _, _, err := redisRevoked(replica, t)
			return err == nil && list == 1
		}},
		{"remind", func(s store.Store) error {
			return s.Remind(ctx, id, now)
		}, func() bool {
			due, err := copied.Due(ctx, now, 10)
			return err == nil && len(due) == 1
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			replica.Pause()
			for _, who := range []string{"call", "repetition"} {
				if err := test.call(openDurable(t, server.Addr, 20*time.Millisecond)); err == nil {
					t.Errorf("the %s is answered although the replica has not acknowledged it", who)
				}
			}
			replica.Resume()
			if err := test.call(openDurable(t, server.Addr, 15*time.Second)); err != nil {
				t.Fatalf("with the replica back: %v", err)
			}
			if !test.has() {
				t.Error("it is answered, but the replica does not have it")
			}
		})
	}
}

// redisRevoked counts the revocations that a replica has; reading the list as origins do would
// write.
func redisRevoked(replica *redistest.Server, t *testing.T) (n int64, cursor string, reset bool, err error) {
	n, err = connect(t, replica).ZCard(t.Context(), "wr:{shop}:revoked").Result()
	return n, "", false, err
}

// site is a Redis whose master of one queue can be lost.
type site struct {
	config redis.Config
	master *redistest.Server
	// cut parts the master from its replica while both run; failOver puts the replica in its place,
	// once it is lost.
	cut, failOver func()
	// comesBack says that the successor needs the lost one to acknowledge its changes.
	comesBack bool
}

// chain is a master, behind a link its replica, and a replica of that one, which acknowledges what
// comes after the failover. Clients come over a link that leads to whoever is the master.
func chain(t *testing.T) site {
	master := startMaster(t)
	replication := startLink(t, master.Addr)
	successor := startReplica(t, replication.addr, "--repl-diskless-sync-delay", "0")
	startReplica(t, successor.Addr)
	front := startLink(t, master.Addr)
	return site{
		config: redis.Config{Addresses: []string{front.addr}},
		master: master,
		cut:    replication.stall,
		failOver: func() {
			replication.lead("")
			replication.flow()
			if err := connect(t, successor).Do(t.Context(), "replicaof", "no", "one").Err(); err != nil {
				t.Fatalf("promote the replica: %v", err)
			}
			front.lead(successor.Addr)
		},
	}
}

// threeAndThree is a cluster, in which a master that comes back is a replica of its successor.
func threeAndThree(t *testing.T) site {
	cluster := redistest.StartCluster(t)
	master := cluster.MasterOf("{shop.match}")
	replica := cluster.ReplicaOf(master)
	return site{
		config:    redis.Config{Addresses: cluster.Addrs()},
		master:    master,
		comesBack: true,
		cut:       func() { cluster.CutReplication(replica) },
		failOver: func() {
			cluster.Failover(replica, "takeover")
			cluster.MendReplication(replica)
		},
	}
}

// TestNothingAnsweredIsLost joins from several edges while the replication of the master is cut,
// then loses the master and goes on with its replica. No position is given twice in all answers,
// each session that was answered is still there, and a reader of what was lost notices it.
func TestNothingAnsweredIsLost(t *testing.T) {
	for name, start := range map[string]func(*testing.T) site{"one master": chain, "cluster": threeAndThree} {
		for way, does := range map[string]struct{ lose, back func(*redistest.Server) }{
			"killed":  {(*redistest.Server).Kill, (*redistest.Server).Restart},
			"stopped": {(*redistest.Server).Pause, (*redistest.Server).Resume}, // it still thinks that it is the master
		} {
			t.Run(name+" "+way, func(t *testing.T) {
				t.Parallel()
				loseMaster(t, start(t), does.lose, does.back)
			})
		}
	}
}

func loseMaster(t *testing.T, at site, lose, back func(*redistest.Server)) {
	origin := func() store.Store {
		config := at.config
		config.Timeout, config.Replicas, config.ReplicaTimeout = 2*time.Second, 1, 100*time.Millisecond
		return openWith(t, config)
	}
	now := time.UnixMilli(1_800_000_000_000)
	const id = queue.ID("shop.match")
	s := origin()
	settings := queue.DefaultSettings()
	settings.Capacity = 1000
	retry(t, func() error {
		_, _, err := s.Create(t.Context(), id, "inc", "g1", settings, now)
		return err
	})
	crowd := joinFromEdges(t, 3, origin, id, now)
	sessions := make(map[uint64]string)
	claims := func() {
		t.Helper()
		var epoch uint64
		retry(t, func() (err error) {
			epoch, err = s.Acquire(t.Context(), id, "owner", time.Hour, now)
			return err
		})
		for position := uint64(1); position <= 20; position++ {
			now = now.Add(time.Millisecond)
			var session queue.Session
			admit := func() error {
				_, err := s.Commit(t.Context(), id, "owner", time.Hour, queue.Tick{Epoch: epoch, Now: now, Offer: queue.Positions{position}})
				if err != nil {
					return err
				}
				session, _, err = s.Claim(t.Context(), store.Claim{
					Queue: id, Incarnation: "inc", Position: position, Subject: store.Key{byte(position)},
					SessionID: fmt.Sprintf("%s~%d", id, position), Now: now,
				})
				return err
			}
			if position <= 10 {
				retry(t, admit) // a busy replica may acknowledge late
			} else if admit() != nil {
				return
			}
			sessions[position] = session.ID
			if position == 10 {
				at.cut()
			}
		}
	}
	crowd.until(t, 2000)
	claims()
	answered := crowd.answers.Load()
	// Whoever is asked now gets no answer; a moment passes in which the master runs ahead.
	ahead := open(t, at.master)
	before, err := ahead.Counts(t.Context(), id)
	if err != nil {
		t.Fatalf("Counts: %v", err)
	}
	eventually(t, "the master issues what it cannot have acknowledged", func() bool {
		counts, err := ahead.Counts(t.Context(), id)
		return err == nil && counts.Issued > before.Issued+100
	})
	// A reader has seen entries that will be lost.
	snapshot, err := ahead.Snapshot(t.Context(), id)
	if err != nil {
		t.Fatalf("Snapshot: %v", err)
	}
	lose(at.master)
	at.failOver()
	if at.comesBack {
		back(at.master)
	}

	crowd.until(t, answered+2000)
	reader := queue.NewView(snapshot)
	retry(t, func() error {
		_, err := s.Entries(t.Context(), id, "inc", reader.Number, reader.Chain, 1000)
		if err == nil {
			t.Fatalf("a reader goes on after entry %d, which was lost", reader.Number)
		}
		if !errors.Is(err, store.ErrRewritten) {
			return err
		}
		return nil
	})
	// Two origins notice at once.
	metas := make([]store.Meta, 2)
	var renewals sync.WaitGroup
	for i := range metas {
		renewals.Go(func() {
			for err := errors.New("not tried"); err != nil && t.Context().Err() == nil; {
				metas[i], _, err = s.Renew(t.Context(), reader, fmt.Sprint("g2-", i), now)
			}
		})
	}
	renewals.Wait()
	if len(metas[0].Generations) != 2 || !reflect.DeepEqual(metas[0].Generations, metas[1].Generations) {
		t.Errorf("the generations are %v and %v, want the same new one", metas[0].Generations, metas[1].Generations)
	}
	crowd.stop(t)
	var last store.JoinResult
	retry(t, func() (err error) {
		last, err = s.Join(t.Context(), store.JoinBatch{Queue: id, Edge: "late", Seq: 1, Users: make([]store.Key, 1), Now: now})
		return err
	})
	if last.Generation != metas[0].Generations[1] || last.Joins[0].Position <= reader.Issued {
		t.Errorf("a late join gets %d in %s, want it above %d in %v", last.Joins[0].Position, last.Generation, reader.Issued, metas[0].Generations)
	}
	if len(sessions) < 10 {
		t.Fatalf("%d claims were answered, want at least those before the cut", len(sessions))
	}
	for position, name := range sessions {
		if got, err := s.SessionAt(t.Context(), id, "inc", position); err != nil || got.ID != name {
			t.Errorf("the session of %d is %q, %v after the failover, want %q as answered", position, got.ID, err, name)
		}
	}
}

func retry(t *testing.T, f func() error) {
	t.Helper()
	eventually(t, "a call succeeds", func() bool { return f() == nil })
}

// joiners are edges that join, each through an origin of its own. They repeat a batch that is not
// answered under its number, and give it up after a few times, as edges do whose fans have gone.
type joiners struct {
	answers atomic.Int64 // joins answered
	cancel  context.CancelFunc
	all     sync.WaitGroup
	given   [][]store.JoinResult
}

func joinFromEdges(t *testing.T, edges int, origin func() store.Store, id queue.ID, now time.Time) *joiners {
	ctx, cancel := context.WithCancel(context.Background())
	j := &joiners{cancel: cancel, given: make([][]store.JoinResult, edges)}
	for edge := range edges {
		s := origin()
		j.all.Go(func() { j.given[edge] = j.join(ctx, t, s, fmt.Sprint("edge-", edge), id, now) })
	}
	t.Cleanup(func() { j.cancel(); j.all.Wait() })
	return j
}

func (j *joiners) join(ctx context.Context, t *testing.T, s store.Store, edge string, id queue.ID, now time.Time) []store.JoinResult {
	var given []store.JoinResult
	for seq := uint64(1); ; seq++ {
		batch := store.JoinBatch{Queue: id, Edge: edge, Seq: seq, Users: make([]store.Key, 20), Now: now}
		for range 3 {
			result, err := s.Join(ctx, batch)
			if err == nil {
				given = append(given, result)
				j.answers.Add(int64(len(result.Joins)))
				break
			}
			if ctx.Err() != nil {
				return given
			}
			if errors.Is(err, store.ErrBatchExpired) || errors.Is(err, store.ErrNotFound) {
				t.Errorf("Join: %v", err)
				return given
			}
		}
	}
}

// until waits for so many answers in all.
func (j *joiners) until(t *testing.T, n int64) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d joins are answered", n), func() bool { return j.answers.Load() >= n })
}

// stop ends the joins and looks for positions that were given twice.
func (j *joiners) stop(t *testing.T) {
	t.Helper()
	j.cancel()
	j.all.Wait()
	type place struct {
		generation string
		position   uint64
	}
	seen := make(map[place]bool)
	twice := 0
	for _, results := range j.given {
		for _, result := range results {
			for _, joined := range result.Joins {
				at := place{result.Generation, joined.Position}
				if seen[at] {
					twice++
				}
				seen[at] = true
			}
		}
	}
	if twice > 0 {
		t.Errorf("%d of %d positions were given twice", twice, len(seen)+twice)
	}
}
