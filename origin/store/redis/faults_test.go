package redis_test

import (
	"testing"

	"waitingroom/origin/queue"
	"waitingroom/origin/store/redis"
	"waitingroom/origin/store/redis/redistest"
)

// TestClusterChanges sets a crowd on a queue and changes the cluster under it, in all ways in which
// a healthy cluster loses nothing.
func TestClusterChanges(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	const id queue.ID = "shop.match"
	key := "{" + string(id) + "}"
	c := startCrowd(t, redis.Config{Addresses: cluster.Addrs()}, id)

	cluster.FlushScripts()
	c.goesOn("all nodes forgot their scripts")

	slot := cluster.Slot(key)
	for range 2 {
		from := cluster.MasterOf(key)
		to := otherMaster(cluster, from)
		cluster.MoveSlot(slot, from, to, nil)
		c.goesOn("the queue's slot was moved")
	}

	cluster.Failover(cluster.ReplicaOf(cluster.MasterOf(key)), "")
	c.goesOn("a planned failover")
	cluster.AwaitHealth()
	c.end()
}

func otherMaster(cluster *redistest.Cluster, than *redistest.Server) *redistest.Server {
	for _, master := range cluster.Masters() {
		if master != than {
			return master
		}
	}
	return nil
}

// TestMasterDies sets a crowd on a queue and kills its master twice.
func TestMasterDies(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	const id queue.ID = "shop.match"
	key := "{" + string(id) + "}"
	c := startCrowd(t, redis.Config{Addresses: cluster.Addrs()}, id)
	for range 2 {
		master := cluster.MasterOf(key)
		replica := cluster.ReplicaOf(master)
		master.Kill()
		cluster.AwaitFailover(replica)
		c.goesOn("the master was killed and its replica took over")
		master.Restart()
		cluster.AwaitHealth()
		c.goesOn("the old master came back as a replica")
	}
	c.end()
}

// TestSentinelChangesTheMaster does the same where sentinels decide.
func TestSentinelChangesTheMaster(t *testing.T) {
	t.Parallel()
	sentinels := redistest.StartSentinels(t, 2)
	c := startCrowd(t, redis.Config{Addresses: sentinels.Addrs(), MasterName: sentinels.MasterName}, "shop.match")
	sentinels.Failover()
	c.goesOn("a planned failover")
	sentinels.AwaitHealth()
	sentinels.Master().Kill()
	sentinels.Master()
	c.goesOn("the master was killed and another took over")
	c.end()
}
