package redistest_test

import (
	"fmt"
	"testing"

	"waitingroom/origin/store/redis/redistest"
)

// TestCluster does with a cluster all that tests of others do with it, and looks whether it is so.
func TestCluster(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t)
	if masters, replicas := len(c.Masters()), len(c.Replicas()); masters != 3 || replicas != 3 {
		t.Fatalf("%d masters and %d replicas, want 3 and 3", masters, replicas)
	}
	const key = "{a}:key"
	from := c.MasterOf(key)
	for n := range 25 {
		c.Do(from, "set", fmt.Sprint(key, n), n)
	}
	count := func(node *redistest.Server) any { return c.Do(node, "cluster", "countkeysinslot", c.Slot(key)) }

	var to *redistest.Server
	for _, to = range c.Masters() {
		if to != from {
			break
		}
	}
	between := int64(0)
	c.MoveSlot(c.Slot(key), from, to, func() { between = count(from).(int64) })
	if between == 0 || between == 25 {
		t.Errorf("%d of 25 keys were left in the midst of the move, want some", between)
	}
	if got := c.MasterOf(key); got != to || count(to) != int64(25) || count(from) != int64(0) {
		t.Errorf("after the move the slot has master %s with %v keys, the old one %v, want %s, 25 and 0", got.Addr, count(to), count(from), to.Addr)
	}

	replica := c.ReplicaOf(to)
	c.Failover(replica, "")
	c.AwaitHealth()
	if got := c.MasterOf(key); got != replica || count(got) != int64(25) {
		t.Errorf("after a planned failover %s is the master with %v keys, want %s with 25", got.Addr, count(got), replica.Addr)
	}

	// What is written while the replica is cut off is lost with the master.
	c.CutReplication(to)
	c.Do(replica, "set", key+"-lost", 1)
	replica.Kill()
	c.AwaitFailover(to)
	if got := c.MasterOf(key); got != to || count(got) != int64(25) {
		t.Errorf("after the master's death %s is the master with %v keys, want %s with 25", got.Addr, count(got), to.Addr)
	}
	c.MendReplication(to)
	replica.Restart()
	c.AwaitHealth()
	if got := c.ReplicaOf(to); got != replica {
		t.Errorf("the old master came back as something else than the new one's replica")
	}

	to.Pause()
	c.Failover(replica, "takeover")
	to.Resume()
	c.AwaitHealth()
	if got := len(c.Masters()); got != 3 {
		t.Errorf("%d masters in the end, want 3", got)
	}
}

// TestSentinels has the sentinels change the master, once when asked and once because it died.
func TestSentinels(t *testing.T) {
	t.Parallel()
	s := redistest.StartSentinels(t, 2)
	first := s.Master()
	if first != s.Nodes[0] {
		t.Errorf("the master is %s, want %s", first.Addr, s.Nodes[0].Addr)
	}
	second := s.Failover()
	s.AwaitHealth()
	if second == first {
		t.Error("the master is the same after a failover")
	}
	second.Kill()
	if third := s.Master(); third == second {
		t.Error("the master is the same after its death")
	}
}
