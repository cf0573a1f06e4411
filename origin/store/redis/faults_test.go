package redis_test

import (
	"flag"
	"math/rand/v2"
	"testing"

	"waitingroom/origin/queue"
	"waitingroom/origin/store/redis"
	"waitingroom/origin/store/redis/redistest"
)

var (
	chaosFaults = flag.Int("chaos.faults", 3, "how many faults TestFaultsAtRandom has")
	chaosSeed   = flag.Uint64("chaos.seed", 1, "which faults TestFaultsAtRandom has; 0 chooses a seed and prints it")
)

const crowdQueue queue.ID = "shop.match"

// fault is something that happens to a cluster while a crowd is on one of its queues. In the end all
// six nodes run again.
type fault struct {
	name string
	do   func(r *ruin)
}

// ruin is a cluster to which faults happen.
type ruin struct {
	*redistest.Cluster
	crowd *crowd
	key   string // of the crowd's queue, for its slot
}

// startRuin starts a cluster and sets a crowd on it.
func startRuin(t *testing.T, mayLose bool) *ruin {
	t.Helper()
	cluster := redistest.StartCluster(t)
	return &ruin{
		Cluster: cluster, key: "{" + string(crowdQueue) + "}",
		crowd: startCrowd(t, redis.Config{Addresses: cluster.Addrs()[2:5], Replicas: 1}, crowdQueue, mayLose),
	}
}

func (r *ruin) suffer(f fault) {
	f.do(r)
	r.AwaitHealth()
	r.crowd.goesOn(f.name)
}

// changes are faults that a cluster survives without losing anything, whoever waits for replicas.
var changes = []fault{
	{"all nodes forgot their scripts", func(r *ruin) { r.FlushScripts() }},
	{"the queue's slot was moved", func(r *ruin) {
		from := r.MasterOf(r.key)
		r.MoveSlot(r.Slot(r.key), from, r.anotherMaster(from), func() { r.crowd.feels("the queue's keys are on two masters") })
	}},
	{"a planned failover", func(r *ruin) { r.Failover(r.ReplicaOf(r.MasterOf(r.key)), "") }},
}

// deaths are faults in which a master that takes changes until the end is replaced by a replica.
var deaths = []fault{
	{"the master was killed and came back as a replica", func(r *ruin) {
		master := r.MasterOf(r.key)
		replica := r.ReplicaOf(master)
		master.Kill()
		r.AwaitFailover(replica)
		master.Restart()
	}},
	{"the master stood still, was replaced, and went on", func(r *ruin) {
		master := r.MasterOf(r.key)
		replica := r.ReplicaOf(master)
		master.Pause()
		r.AwaitFailover(replica)
		master.Resume()
	}},
	{"the replica was cut off from the master, which was then killed", func(r *ruin) {
		master := r.MasterOf(r.key)
		replica := r.ReplicaOf(master)
		r.CutReplication(replica)
		r.crowd.feels("the replica is cut off")
		master.Kill()
		r.AwaitFailover(replica)
		r.MendReplication(replica)
		master.Restart()
	}},
	{"the replica took over without asking anybody", func(r *ruin) {
		r.Failover(r.ReplicaOf(r.MasterOf(r.key)), "takeover")
	}},
	{"the replica was killed and came back", func(r *ruin) {
		replica := r.ReplicaOf(r.MasterOf(r.key))
		replica.Kill()
		r.crowd.feels("there is no replica")
		replica.Restart()
	}},
}

func (r *ruin) anotherMaster(than *redistest.Server) *redistest.Server {
	for _, master := range r.Masters() {
		if master != than {
			return master
		}
	}
	return nil
}

// TestClusterChanges changes a cluster as its operator does.
func TestClusterChanges(t *testing.T) {
	t.Parallel()
	r := startRuin(t, false)
	r.SetNodeTimeout(patient) // nothing changes by itself
	for _, f := range changes {
		r.suffer(f)
	}
	r.suffer(changes[1]) // the slot moves back, or on to the third master
	r.crowd.end()
}

// TestMasterDies has masters die, and replicas.
func TestMasterDies(t *testing.T) {
	t.Parallel()
	r := startRuin(t, true)
	for _, f := range deaths {
		r.suffer(f)
	}
	r.crowd.end()
}

// TestFaultsAtRandom has whatever may come, at any time. make chaos does it at length.
func TestFaultsAtRandom(t *testing.T) {
	t.Parallel()
	seed := *chaosSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-chaos.seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 3))
	r := startRuin(t, true)
	all := append(append([]fault{}, changes...), deaths...)
	for range *chaosFaults {
		r.crowd.joinsOn(random.IntN(300))
		r.suffer(all[random.IntN(len(all))])
	}
	r.crowd.end()
}

// TestSentinelChangesTheMaster does the same where sentinels decide.
func TestSentinelChangesTheMaster(t *testing.T) {
	t.Parallel()
	s := redistest.StartSentinels(t, 1)
	c := startCrowd(t, redis.Config{Addresses: s.Addrs(), MasterName: s.MasterName, Replicas: 1}, crowdQueue, true)
	s.Failover()
	s.AwaitHealth()
	c.goesOn("a planned failover")
	master := s.Master()
	master.Kill()
	s.AwaitFailover(master)
	master.Restart()
	s.AwaitHealth()
	c.goesOn("the master was killed and came back as a replica")
	c.end()
}
