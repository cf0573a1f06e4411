package deploy_test

import (
	"fmt"
	"testing"

	"waitingroom/origin/store/redis/redistest"
)

// noLimits lifts the limits of joins: all fans of a test come from one address, with one key.
const noLimits = "limits: {joinsPerAddress: {off: true}, joinsPerPublishableKey: {off: true}, joinsPerSecretKey: {off: true}}\n"

// TestFaultsOfACluster lets shoppers come to two edges and two origins on a cluster of Redis, and
// has everything fail under them that can: scripts forgotten, a slot moved, an origin and a master
// killed.
func TestFaultsOfACluster(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	cluster.SetNodeTimeout(60_000) // at first nothing changes by itself, however busy the machine is
	in := setup{origins: 2, redis: fmt.Sprintf("{addresses: [%q, %q], replicas: 1}", cluster.Addrs()[0], cluster.Addrs()[4]), edgeConfig: noLimits}.install(t)
	s := in.goShopping()
	key := "{" + s.queue + "}"

	cluster.FlushScripts()
	s.goesOn("all nodes forgot their scripts")

	from := cluster.MasterOf(key)
	to := cluster.Masters()[0]
	if to == from {
		to = cluster.Masters()[1]
	}
	cluster.MoveSlot(cluster.Slot(key), from, to, func() { s.feel("the queue's keys are on two masters") })
	s.goesOn("the queue's slot was moved")

	in.origins[0].kill()
	s.goesOn("an origin was killed")
	in.origins[0].start()
	in.awaitReady(in.url.origins[0])

	replica := cluster.ReplicaOf(to)
	s.masterDies()
	cluster.SetNodeTimeout(1500)
	to.Kill()
	cluster.AwaitFailover(replica)
	s.feel("the master has no replica")
	to.Restart()
	cluster.AwaitHealth()
	s.goesOn("the queue's master was killed, its replica took over and the old master became a replica")
	s.end()
}

// TestLostAnswersOfRedis has answers of Redis get lost, all the time and at random, after Redis has
// done what it was asked for. Nothing happens twice.
func TestLostAnswersOfRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server)
	in := setup{origins: 2, redis: fmt.Sprintf("{addresses: [%q]}", proxy.Addr), edgeConfig: noLimits}.install(t)
	s := in.goShopping()
	proxy.LoseReplies(4)
	for proxy.Lost.Load() < 200 {
		s.goesOn(fmt.Sprintf("%d answers got lost", proxy.Lost.Load()))
	}
	proxy.LoseReplies(0)
	s.goesOn("no answer gets lost any more")
	s.end()
	// Where the last answer was 503, and nobody asked again, it may have been done all the same.
	doubt := int(s.busy.Load())
	stats := in.request("GET", in.url.origins[0]+"/queues/"+s.queue+"/stats", "", bearer(in.operatorToken))
	for name, want := range map[string]int{"issued": len(s.given), "claimed": s.entered, "ended": s.ended} {
		if got := stats.number(name); got < want || got > want+doubt {
			t.Errorf("the store counts %d %s, the fans %d, with %d in doubt", got, name, want, doubt)
		}
	}
	if doubt > len(s.given)/10 {
		t.Errorf("%d times 503 among %d fans: a lost answer is to be asked for again, unseen", doubt, len(s.given))
	}
}
