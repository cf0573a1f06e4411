package redistest

import (
	"net"
	"time"
)

// keysAtOnce is how many keys of a slot are moved with one command.
const keysAtOnce = 10

// failoverTakes is after what time Redis gives up a failover that was asked for. Asked earlier, it
// would begin anew.
const failoverTakes = 6 * time.Second

// MoveSlot moves a slot and its keys from one master to another while clients go on, as redis-cli's
// reshard does it. between, if it is not nil, is called while the keys are under way: some are on
// the one master and some on the other.
func (c *Cluster) MoveSlot(slot int, from, to *Server, between func()) {
	c.t.Helper()
	c.must(to, "cluster", "setslot", slot, "importing", c.ids[from])
	c.must(from, "cluster", "setslot", slot, "migrating", c.ids[to])
	host, port, _ := net.SplitHostPort(to.Addr)
	for {
		keys, _ := c.must(from, "cluster", "getkeysinslot", slot, keysAtOnce).([]any)
		if len(keys) == 0 {
			break
		}
		// Keys that expired meanwhile are answered NOKEY, which is no error.
		c.must(from, append([]any{"migrate", host, port, "", 0, readyWithin.Milliseconds(), "keys"}, keys...)...)
		if between != nil {
			between()
			between = nil
		}
	}
	// The new master first, so that the slot is never without one.
	c.must(to, "cluster", "setslot", slot, "node", c.ids[to])
	c.must(from, "cluster", "setslot", slot, "node", c.ids[to])
	for _, node := range c.Masters() {
		if node != to && node != from {
			c.must(node, "cluster", "setslot", slot, "node", c.ids[to])
		}
	}
}

// Failover makes a replica the master of its master's slots, and waits until it is. how is empty
// for the planned kind, in which nothing is lost; "force" when the master is dead, and "takeover"
// when also the other masters are not to be asked.
func (c *Cluster) Failover(replica *Server, how string) {
	c.t.Helper()
	command := []any{"cluster", "failover"}
	if how != "" {
		command = append(command, how)
	}
	var asked time.Time
	c.await("the replica has taken over", func() bool {
		self, ok := c.self(replica)
		if ok && self.is("master") {
			return true
		}
		if time.Since(asked) > failoverTakes {
			if _, err := c.do(replica, command...); err == nil {
				asked = time.Now()
			}
		}
		return false
	})
}

// AwaitFailover waits until the replica of a master that is gone has taken over by itself.
func (c *Cluster) AwaitFailover(replica *Server) {
	c.t.Helper()
	c.await("the replica has taken over by itself", func() bool {
		self, ok := c.self(replica)
		return ok && self.is("master")
	})
}

// CutReplication parts a replica from its master, so that it gets nothing any more while both run
// and stay in the cluster; MendReplication ends that.
func (c *Cluster) CutReplication(replica *Server) {
	c.t.Helper()
	// The master knows no password, and refuses one that is offered.
	c.must(replica, "config", "set", "masterauth", "refused")
	c.must(replica, "client", "kill", "type", "master")
	c.await("the replica is cut off", func() bool { return !c.linked(replica) })
}

// MendReplication lets a replica reach its master again, if it has not become a master itself.
func (c *Cluster) MendReplication(replica *Server) {
	c.t.Helper()
	c.must(replica, "config", "set", "masterauth", "")
	c.await("the replica is connected", func() bool {
		self, ok := c.self(replica)
		return ok && self.is("master") || c.linked(replica)
	})
}

// FlushScripts makes all running nodes forget their scripts.
func (c *Cluster) FlushScripts() {
	c.t.Helper()
	for _, node := range c.Nodes {
		if node.runs() {
			c.must(node, "script", "flush")
		}
	}
}

// SetNodeTimeout changes after how many milliseconds a silent node counts as failed.
func (c *Cluster) SetNodeTimeout(milliseconds int) {
	c.t.Helper()
	for _, node := range c.Nodes {
		c.must(node, "config", "set", "cluster-node-timeout", milliseconds)
	}
}
