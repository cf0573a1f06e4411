package redis_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
	"waitingroom/origin/store/redis"
	"waitingroom/origin/store/redis/redistest"
	"waitingroom/origin/store/storetest"
)

// patient is after how many milliseconds a silent node counts as failed where no test wants it to
// fail, however busy the machine is.
const patient = 60_000

// TestConformanceOfACluster runs the suite on a cluster, which refuses what would touch several
// slots at once, and answers MOVED on a wrong node.
func TestConformanceOfACluster(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t)
	c.SetNodeTimeout(patient)
	storetest.Run(t, func(t *testing.T) store.Store {
		// Any node will do to find the others, also a replica.
		return openWith(t, redis.Config{Addresses: []string{c.Nodes[5].Addr}, Cluster: true, Replicas: 1, Timeout: 30 * time.Second, ReplicaTimeout: 20 * time.Second})
	})
}

// TestQueuesSpreadOverACluster makes many queues and uses each. Every master has to do with some of
// them.
func TestQueuesSpreadOverACluster(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t)
	c.SetNodeTimeout(patient)
	s := openWith(t, redis.Config{Addresses: c.Addrs()})
	const queues, perQueue = 60, 40
	var work sync.WaitGroup
	for n := range queues {
		id := queue.MakeID("shop", fmt.Sprint("match-", n))
		work.Go(func() { useQueue(t, s, id, perQueue) })
	}
	work.Wait()
	list, err := s.List(t.Context(), "shop")
	if err != nil || len(list) != queues {
		t.Errorf("List: %d queues, %v, want %d", len(list), err, queues)
	}

	spread := make(map[string]int)
	for n := range queues {
		spread[c.MasterOf(fmt.Sprintf("{shop.match-%d}", n)).Addr]++
	}
	for _, master := range c.Masters() {
		// Of 60 queues a master has fewer than 6 once in 40 million times.
		if got := spread[master.Addr]; got < queues/10 {
			t.Errorf("a master has %d of %d queues", got, queues)
		}
		if keys := c.Do(master, "dbsize").(int64); keys < int64(5*spread[master.Addr]) {
			t.Errorf("a master of %d queues has %d keys", spread[master.Addr], keys)
		}
	}
}

// useQueue makes a queue, joins n fans, lets one in, and ends the session.
func useQueue(t *testing.T, s store.Store, id queue.ID, n int) {
	now := time.UnixMilli(1_800_000_000_000)
	settings := queue.DefaultSettings()
	settings.Capacity = 1
	failed := func(what string, err error) bool {
		if err != nil {
			t.Errorf("%s %s: %v", what, id, err)
		}
		return err != nil
	}
	if _, _, err := s.Create(t.Context(), id, "inc", "g1", settings, now); failed("Create", err) {
		return
	}
	joined, err := s.Join(t.Context(), store.JoinBatch{Queue: id, Edge: "edge", Seq: 1, Users: make([]store.Key, n), Now: now})
	if failed("Join", err) {
		return
	}
	for i, j := range joined.Joins {
		if j.Position != uint64(i+1) {
			t.Errorf("join %d of %s: position %d, want %d", i+1, id, j.Position, i+1)
		}
	}
	epoch, err := s.Acquire(t.Context(), id, "owner", time.Minute, now)
	if failed("Acquire", err) {
		return
	}
	result, err := s.Commit(t.Context(), id, "owner", time.Minute, queue.Tick{Epoch: epoch, Now: now.Add(time.Second), Offer: queue.Positions{1}})
	if failed("Commit", err) {
		return
	}
	if len(result.Offered) != 1 {
		t.Errorf("the tick of %s offered %v, want position 1", id, result.Offered)
	}
	session := string(id) + "~1"
	_, _, err = s.Claim(t.Context(), store.Claim{Queue: id, Incarnation: "inc", Position: 1, SessionID: session, Now: now.Add(2 * time.Second)})
	if failed("Claim", err) {
		return
	}
	if _, err := s.EndSession(t.Context(), id, session, queue.Ended, queue.ReasonReleased, now.Add(3*time.Second)); failed("EndSession", err) {
		return
	}
	counts, err := s.Counts(t.Context(), id)
	if want := (store.Counts{
		Issued: uint64(n), Watermark: 1, Waiting: n - 1, Present: counts.Present, Admitted: 1, Claimed: 1, Ended: 1,
	}); err != nil || counts != want {
		t.Errorf("Counts of %s: %+v, %v, want %+v", id, counts, err, want)
	}
}
