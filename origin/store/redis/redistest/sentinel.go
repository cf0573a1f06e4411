package redistest

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

const sentinels = 3

// Sentinels is a Redis master with replicas, watched by three sentinels, of a test's own.
type Sentinels struct {
	// MasterName is the name under which the sentinels know the master.
	MasterName string
	// Nodes are the servers with data; the first one began as the master.
	Nodes []*Server
	// Watchers are the sentinels.
	Watchers []*Server

	t       testing.TB
	clients map[*Server]*goredis.Client
}

// StartSentinels starts a master with some replicas and three sentinels, and waits until they know
// of each other. options are further options of each redis-server with data. All is ended when the
// test ends.
func StartSentinels(t testing.TB, replicas int, options ...string) *Sentinels {
	t.Helper()
	s := &Sentinels{t: t, MasterName: "waitingroom", clients: map[*Server]*goredis.Client{}}
	for i := range 1 + replicas {
		node := start(t, func(*Server, string) []string {
			all := append([]string{
				"--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1", "--shutdown-timeout", "0",
			}, options...)
			if i > 0 {
				host, port, _ := net.SplitHostPort(s.Nodes[0].Addr)
				all = append(all, "--replicaof", host+" "+port)
			}
			return all
		})
		s.Nodes = append(s.Nodes, node)
		s.clients[node] = client(t, node)
	}
	for range sentinels {
		watcher := s.watcher()
		s.Watchers = append(s.Watchers, watcher)
		s.clients[watcher] = client(t, watcher)
	}
	s.AwaitHealth()
	return s
}

// watcher starts one sentinel.
func (s *Sentinels) watcher() *Server {
	s.t.Helper()
	host, port, _ := net.SplitHostPort(s.Nodes[0].Addr)
	return start(s.t, func(server *Server, dir string) []string {
		// A sentinel keeps what it learns in its file.
		server.config = filepath.Join(dir, "sentinel.conf")
		text := fmt.Sprintf("sentinel monitor %[1]s %[2]s %[3]s 2\nsentinel down-after-milliseconds %[1]s 1000\n"+
			"sentinel failover-timeout %[1]s 5000\n", s.MasterName, host, port)
		if err := os.WriteFile(server.config, []byte(text), 0o600); err != nil {
			s.t.Fatalf("write %s: %v", server.config, err)
		}
		return []string{"--sentinel"}
	})
}

// Addrs are the addresses of the sentinels.
func (s *Sentinels) Addrs() []string {
	var addrs []string
	for _, watcher := range s.Watchers {
		addrs = append(addrs, watcher.Addr)
	}
	return addrs
}

func (s *Sentinels) do(server *Server, args ...any) (any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), readyWithin)
	defer cancel()
	return s.clients[server].Do(ctx, args...).Result()
}

// Master is the server that the sentinels say is the master, as soon as they agree and it runs.
func (s *Sentinels) Master() *Server {
	s.t.Helper()
	var master *Server
	await(s.t, "the sentinels agree on a master that runs", func() bool {
		master = nil
		for _, watcher := range s.Watchers {
			if !watcher.runs() {
				continue
			}
			got, err := s.do(watcher, "sentinel", "get-master-addr-by-name", s.MasterName)
			addr, _ := got.([]any)
			if err != nil || len(addr) != 2 {
				return false
			}
			for _, node := range s.Nodes {
				if node.Addr == fmt.Sprintf("%v:%v", addr...) && node != master {
					if master != nil {
						return false
					}
					master = node
				}
			}
		}
		if master == nil || !master.runs() {
			return false
		}
		info, err := s.do(master, "info", "replication")
		return err == nil && field(info, "role") == "master"
	})
	return master
}

// AwaitHealth waits until the running sentinels know of all servers and of each other, and every
// running replica is connected to the master.
func (s *Sentinels) AwaitHealth() {
	s.t.Helper()
	await(s.t, "the sentinels are in order", func() bool {
		for _, watcher := range s.Watchers {
			if !watcher.runs() {
				continue
			}
			info, err := s.do(watcher, "info", "sentinel")
			if want := fmt.Sprintf("slaves=%d,sentinels=%d", len(s.Nodes)-1, len(s.Watchers)); err != nil ||
				!strings.Contains(field(info, "master0"), "status=ok") || !strings.Contains(field(info, "master0"), want) {
				return false
			}
		}
		master := s.Master()
		for _, node := range s.Nodes {
			if node == master || !node.runs() {
				continue
			}
			info, err := s.do(node, "info", "replication")
			if err != nil || field(info, "master_link_status") != "up" {
				return false
			}
		}
		return true
	})
}

// SetDownAfter changes after how many milliseconds a silent server counts as failed.
func (s *Sentinels) SetDownAfter(milliseconds int) {
	s.t.Helper()
	for _, watcher := range s.Watchers {
		if _, err := s.do(watcher, "sentinel", "set", s.MasterName, "down-after-milliseconds", milliseconds); err != nil {
			s.t.Fatalf("set down-after-milliseconds: %v", err)
		}
	}
}

// AwaitFailover waits until another server than that one is the master.
func (s *Sentinels) AwaitFailover(than *Server) {
	s.t.Helper()
	await(s.t, "another server is the master", func() bool { return s.Master() != than })
}

// Failover has the sentinels make another server the master, and returns it.
func (s *Sentinels) Failover() *Server {
	s.t.Helper()
	before := s.Master()
	var asked time.Time
	await(s.t, "another server is the master", func() bool {
		if time.Since(asked) > failoverTakes {
			// Refused while one runs, or just ran.
			_, _ = s.do(s.Watchers[0], "sentinel", "failover", s.MasterName)
			asked = time.Now()
		}
		return s.Master() != before
	})
	return s.Master()
}
