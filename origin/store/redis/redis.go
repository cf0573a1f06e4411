// Package redis keeps the origin's queues in Redis or Valkey: one node, Sentinel or Cluster, from
// version 7.0 on.
//
// Each change is one Lua script, which the server runs as a whole; the scripts stand beside this
// file, and keys.go names every key. What a script needs to know before it runs, because its keys
// have to be named, is the queue's shape: how many positions were issued, which pages of them are
// live, which turns are kept. The Store remembers the shape of the queues that it works on; a
// script that finds it outdated answers with the one in force, and is called again.
//
// Every change can be repeated, so it is tried again when a reply is lost or a master replaced;
// see try. Where replicas are asked for, a change is answered once they have it; see eval.
package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	goredis "github.com/redis/go-redis/v9"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

// Config says where Redis is and how to speak to it.
type Config struct {
	// Addresses are host:port of the node; of the sentinels, with MasterName; or of some nodes of
	// a cluster, when there are several or Cluster is set. Required.
	Addresses []string
	// MasterName is the master's name at the sentinels; excludes Cluster.
	MasterName string
	// Cluster says that a single address is that of a cluster.
	Cluster bool
	// Username and Password are those of the nodes; empty for none.
	Username, Password string
	// SentinelUsername and SentinelPassword are those of the sentinels.
	SentinelUsername, SentinelPassword string
	// TLS is set to speak TLS.
	TLS *tls.Config
	// Timeout bounds every call, with all that is tried again within it, besides the caller's
	// context; default 2 s.
	Timeout time.Duration
	// Replicas is how many replicas must have acknowledged a change before it is answered; default
	// 0, which waits for none. The promises over a failover need all the replicas that could take
	// over.
	Replicas int
	// ReplicaTimeout is how long a change waits for them; it has failed afterwards, and the caller
	// repeats it. Whole milliseconds below Timeout; default 500 ms, or half of Timeout if that is
	// less.
	ReplicaTimeout time.Duration
	// PoolSize is the number of connections to a node; default 32.
	PoolSize int
	// LogEntries is how many entries of each queue's log are kept at the least; default
	// DefaultLogEntries.
	LogEntries int
}

const (
	defaultTimeout        = 2 * time.Second
	defaultReplicaTimeout = 500 * time.Millisecond
	poolSize              = 32
	// shapesKept is how many queues' shapes are remembered; a forgotten one costs a round trip.
	shapesKept = 4096
)

// Store is a store.Store on Redis. It is safe for concurrent use.
type Store struct {
	client         goredis.UniversalClient
	shapes         *lru.Cache[queue.ID, shape]
	keep           int // entries of each log, one more than are promised: readers compare the last that they have
	timeout        time.Duration
	replicas       int
	replicaTimeout time.Duration
}

var _ store.Store = (*Store)(nil)

// Open makes a Store. It connects when it is first used.
func Open(config Config) (*Store, error) {
	if len(config.Addresses) == 0 {
		return nil, errors.New("open redis: no address is configured")
	}
	if config.MasterName != "" && config.Cluster {
		return nil, errors.New("open redis: a master's name excludes a cluster")
	}
	if config.PoolSize <= 0 {
		config.PoolSize = poolSize
	}
	if config.Timeout <= 0 {
		config.Timeout = defaultTimeout
	}
	if config.ReplicaTimeout <= 0 {
		config.ReplicaTimeout = min(defaultReplicaTimeout, config.Timeout/2)
	}
	if config.Replicas < 0 || config.ReplicaTimeout >= config.Timeout || config.ReplicaTimeout < time.Millisecond {
		return nil, errors.New("open redis: replicas is at least 0, and their timeout is from 1 ms to below the timeout")
	}
	if config.LogEntries <= 0 {
		config.LogEntries = DefaultLogEntries
	}
	shapes, err := lru.New[queue.ID, shape](shapesKept)
	if err != nil {
		return nil, fmt.Errorf("open redis: %w", err)
	}
	return &Store{
		client: newClient(config), shapes: shapes, keep: config.LogEntries + 1,
		timeout: config.Timeout, replicas: config.Replicas, replicaTimeout: config.ReplicaTimeout,
	}, nil
}

// Close closes the connections.
func (s *Store) Close() error { return s.client.Close() }

// Now implements store.Clock.
func (s *Store) Now(ctx context.Context) (time.Time, error) {
	var now time.Time
	err := s.try(ctx, func(ctx context.Context) (err error) {
		now, err = s.client.Time(ctx).Result()
		return err
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("read redis time: %w", err)
	}
	return fromMillis(now.UnixMilli()), nil
}

// millis is a time as scripts and keys hold it.
func millis(t time.Time) int64 { return t.UnixMilli() }

// fromMillis is its inverse; 0 stands for no time.
func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
