package redistest

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

const (
	masters = 3
	slots   = 16_384

	// changesWithin bounds how long a cluster may take to come to what it was asked for.
	changesWithin = time.Minute
	// nodeTimeout is after how many milliseconds a silent node counts as failed.
	nodeTimeout = "1500"
)

// Cluster is a Redis Cluster of a test's own: three masters, each with one replica, on loopback
// ports. Its methods may change who is a master of what, and wait until that is done; they end the
// test when it does not come about, so they are called from the test's own goroutine.
type Cluster struct {
	// Nodes are all six; the first three began as masters, the others as their replicas, in the
	// same order.
	Nodes []*Server

	t       testing.TB
	ids     map[*Server]string
	clients map[*Server]*goredis.Client
}

// StartCluster starts a cluster and waits until all its nodes find it in order. options are further
// options of each redis-server. It is ended when the test ends.
func StartCluster(t testing.TB, options ...string) *Cluster {
	t.Helper()
	c := &Cluster{t: t, ids: map[*Server]string{}, clients: map[*Server]*goredis.Client{}}
	for range 2 * masters {
		node := start(t, func(*Server, string) []string {
			_, bus, _ := net.SplitHostPort(freeAddr(t))
			return append([]string{
				"--cluster-enabled", "yes", "--cluster-port", bus, "--cluster-node-timeout", nodeTimeout,
				// Whose replica a node is does not depend on how many slots its master has.
				"--cluster-allow-replica-migration", "no",
				"--cluster-replica-validity-factor", "0",
				"--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1",
				"--shutdown-timeout", "0",
			}, options...)
		})
		c.Nodes = append(c.Nodes, node)
		c.clients[node] = client(t, node)
		c.ids[node] = fmt.Sprint(c.must(node, "cluster", "myid"))
	}
	c.form()
	return c
}

// client is a client for what an operator does on one server.
func client(t testing.TB, s *Server) *goredis.Client {
	client := goredis.NewClient(&goredis.Options{
		Addr: s.Addr, ContextTimeoutEnabled: true, PoolSize: 2, ReadTimeout: 20 * time.Second,
	})
	t.Cleanup(func() { client.Close() })
	return client
}

// form makes one cluster of the nodes.
func (c *Cluster) form() {
	c.t.Helper()
	for i, node := range c.Nodes {
		c.must(node, "cluster", "set-config-epoch", i+1)
		if i < masters {
			c.must(node, "cluster", "addslotsrange", i*slots/masters, (i+1)*slots/masters-1)
		}
		for _, other := range c.Nodes[:i] {
			host, port, _ := net.SplitHostPort(other.Addr)
			c.must(node, "cluster", "meet", host, port, other.option("--cluster-port"))
		}
	}
	c.await("all nodes know each other", func() bool {
		for _, node := range c.Nodes {
			if known, err := c.nodes(node); err != nil || len(known) != len(c.Nodes) {
				return false
			}
		}
		return true
	})
	for i, replica := range c.Nodes[masters:] {
		c.must(replica, "cluster", "replicate", c.ids[c.Nodes[i]])
	}
	c.AwaitHealth()
}

// option finds the value with which a server was started.
func (s *Server) option(name string) string {
	for i, arg := range s.args {
		if arg == name {
			return s.args[i+1]
		}
	}
	return ""
}

// Addrs are the addresses of all nodes.
func (c *Cluster) Addrs() []string {
	var addrs []string
	for _, node := range c.Nodes {
		addrs = append(addrs, node.Addr)
	}
	return addrs
}

// Do runs one command on one node, and ends the test when it is refused.
func (c *Cluster) Do(node *Server, args ...any) any {
	c.t.Helper()
	return c.must(node, args...)
}

func (c *Cluster) must(node *Server, args ...any) any {
	c.t.Helper()
	got, err := c.do(node, args...)
	if err != nil {
		c.t.Fatalf("%v on a node: %v", args, err)
	}
	return got
}

func (c *Cluster) do(node *Server, args ...any) (any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), readyWithin)
	defer cancel()
	return c.clients[node].Do(ctx, args...).Result()
}

// await waits until a condition holds.
func (c *Cluster) await(what string, holds func() bool) {
	c.t.Helper()
	await(c.t, what, holds)
}

func await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.NewTimer(changesWithin)
	defer deadline.Stop()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for !holds() {
		select {
		case <-again.C:
		case <-deadline.C:
			t.Fatalf("not within %v: %s", changesWithin, what)
		}
	}
}

// member is one line of CLUSTER NODES: a node as one of them sees it.
type member struct {
	id, master string
	flags      []string
	epoch      int
	slots      [][2]int
}

func (m member) is(flag string) bool {
	for _, f := range m.flags {
		if f == flag {
			return true
		}
	}
	return false
}

func (m member) has(slot int) bool {
	for _, s := range m.slots {
		if s[0] <= slot && slot <= s[1] {
			return true
		}
	}
	return false
}

// nodes asks one node whom it knows; those in the middle of a handshake are left out.
func (c *Cluster) nodes(node *Server) ([]member, error) {
	answer, err := c.do(node, "cluster", "nodes")
	if err != nil {
		return nil, err
	}
	var known []member
	for line := range strings.Lines(fmt.Sprint(answer)) {
		fields := strings.Fields(line)
		if len(fields) < 8 {
			return nil, fmt.Errorf("read cluster nodes: %q", line)
		}
		m := member{id: fields[0], flags: strings.Split(fields[2], ","), master: fields[3]}
		if m.is("handshake") || m.is("noaddr") {
			continue
		}
		m.epoch, _ = strconv.Atoi(fields[6])
		for _, text := range fields[8:] {
			if text[0] == '[' { // being moved
				continue
			}
			low, high, several := strings.Cut(text, "-")
			if !several {
				high = low
			}
			from, _ := strconv.Atoi(low)
			to, _ := strconv.Atoi(high)
			m.slots = append(m.slots, [2]int{from, to})
		}
		known = append(known, m)
	}
	return known, nil
}

// self is what a node thinks that it is.
func (c *Cluster) self(node *Server) (member, bool) {
	if !node.runs() {
		return member{}, false
	}
	known, err := c.nodes(node)
	if err != nil {
		return member{}, false
	}
	for _, m := range known {
		if m.is("myself") {
			return m, true
		}
	}
	return member{}, false
}

// Masters are the running nodes that are masters now, Replicas those that are not.
func (c *Cluster) Masters() []*Server  { return c.with("master") }
func (c *Cluster) Replicas() []*Server { return c.with("slave") }

func (c *Cluster) with(flag string) []*Server {
	var found []*Server
	for _, node := range c.Nodes {
		if self, ok := c.self(node); ok && self.is(flag) {
			found = append(found, node)
		}
	}
	return found
}

// Slot is the slot of a key.
func (c *Cluster) Slot(key string) int {
	c.t.Helper()
	for _, node := range c.Nodes {
		if node.runs() {
			slot, _ := strconv.Atoi(fmt.Sprint(c.must(node, "cluster", "keyslot", key)))
			return slot
		}
	}
	c.t.Fatal("no node of the cluster runs")
	return 0
}

// MasterOf is the running master of a key's slot, as soon as there is one.
func (c *Cluster) MasterOf(key string) *Server {
	c.t.Helper()
	slot := c.Slot(key)
	var owner *Server
	c.await("a running master has slot "+strconv.Itoa(slot), func() bool {
		latest := -1
		for _, node := range c.Nodes {
			if self, ok := c.self(node); ok && self.is("master") && self.has(slot) && self.epoch > latest {
				owner, latest = node, self.epoch
			}
		}
		return owner != nil
	})
	return owner
}

// ReplicaOf is a running replica of a master, which itself need not run.
func (c *Cluster) ReplicaOf(master *Server) *Server {
	c.t.Helper()
	var replica *Server
	c.await("a replica of the master runs", func() bool {
		for _, node := range c.Nodes {
			if self, ok := c.self(node); ok && self.master == c.ids[master] {
				replica = node
				return true
			}
		}
		return false
	})
	return replica
}

// AwaitHealth waits until every running node finds the cluster in order, all slots are taken, and
// every running replica is connected to its master.
func (c *Cluster) AwaitHealth() {
	c.t.Helper()
	c.await("the cluster is in order", func() bool {
		for _, node := range c.Nodes {
			if !node.runs() {
				continue
			}
			info, err := c.do(node, "cluster", "info")
			if err != nil || field(info, "cluster_state") != "ok" {
				return false
			}
			self, ok := c.self(node)
			if !ok || self.is("slave") && !c.linked(node) {
				return false
			}
		}
		return true
	})
}

// linked reports whether a replica's connection to its master is up.
func (c *Cluster) linked(replica *Server) bool {
	info, err := c.do(replica, "info", "replication")
	return err == nil && field(info, "master_link_status") == "up"
}

// field finds a field of what INFO and its like answer.
func field(info any, name string) string {
	for line := range strings.Lines(fmt.Sprint(info)) {
		if value, found := strings.CutPrefix(strings.TrimSpace(line), name+":"); found {
			return value
		}
	}
	return ""
}
