package redis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

const (
	dialTimeout = time.Second
	// concurrentDials bounds the storm of new connections after a context error has discarded
	// many of them.
	concurrentDials = 4
	// topologyEvery is how often a cluster is asked for its nodes and slots; besides, it is asked
	// after every error that a change of them may have caused.
	topologyEvery = 5 * time.Second
	// The pause before a call is tried again begins at leastPause and doubles up to mostPause.
	leastPause = 10 * time.Millisecond
	mostPause  = 200 * time.Millisecond
)

// newClient makes the client that the config asks for. It does not retry by itself, but for the
// redirects of a cluster: what is tried again, and for how long, is decided in one place, try.
func newClient(config Config) goredis.UniversalClient {
	options := &goredis.UniversalOptions{
		// go-redis appends to it in place.
		Addrs:      slices.Clone(config.Addresses),
		MasterName: config.MasterName,
		Username:   config.Username, Password: config.Password,
		SentinelUsername: config.SentinelUsername, SentinelPassword: config.SentinelPassword,
		TLSConfig: config.TLS,

		ContextTimeoutEnabled: true,
		DialTimeout:           dialTimeout,
		ReadTimeout:           config.Timeout,
		WriteTimeout:          config.Timeout,
		MaxRetries:            -1,
		MinRetryBackoff:       leastPause,
		MaxRetryBackoff:       mostPause,
		DialerRetries:         1,
		PoolSize:              config.PoolSize,
		MaxActiveConns:        config.PoolSize,
		MaxConcurrentDials:    concurrentDials,
		PoolTimeout:           config.Timeout,
		// Pipelines share the pool, so that one bound holds for all connections.
		PipelinePoolSize: -1,

		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	if config.MasterName == "" && (config.Cluster || len(config.Addresses) > 1) {
		cluster := options.Cluster()
		cluster.ClusterStateReloadInterval = topologyEvery
		return goredis.NewClusterClient(cluster)
	}
	return goredis.NewUniversalClient(options)
}

// try calls f until it succeeds, fails for good, or s.timeout is over. Whatever the store asks of
// Redis can be asked again without changing anything twice, so a broken connection, a master that
// is being replaced and a slot that moves are no reason to give up at once. After each failure a
// cluster's nodes and slots are read anew in the background: go-redis by itself does that neither
// for a refused connection nor for a cluster that is down.
func (s *Store) try(ctx context.Context, f func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	for pause := leastPause; ; pause = min(2*pause, mostPause) {
		err := f(ctx)
		if err == nil || !mayPass(err) {
			return err
		}
		s.reload(ctx)
		wait := time.NewTimer(pause/2 + rand.N(pause/2))
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		}
	}
}

// reload reads a cluster's nodes and slots anew, in the background.
func (s *Store) reload(ctx context.Context) {
	if cluster, ok := s.client.(*goredis.ClusterClient); ok {
		cluster.ReloadState(ctx)
	}
}

// pipelined sends the commands that add names in one go, as a transaction or not. Each of them may
// find nothing.
func (s *Store) pipelined(ctx context.Context, send func(context.Context, func(goredis.Pipeliner) error) ([]goredis.Cmder, error), add func(context.Context, goredis.Pipeliner)) error {
	return s.try(ctx, func(ctx context.Context) error {
		commands, err := send(ctx, func(pipeline goredis.Pipeliner) error {
			add(ctx, pipeline)
			return nil
		})
		if !errors.Is(err, goredis.Nil) {
			return err
		}
		for _, command := range commands { // err is only that of the first
			if err := command.Err(); err != nil && !errors.Is(err, goredis.Nil) {
				return err
			}
		}
		return nil
	})
}

// mayPass reports whether an error may be gone a moment later: all but those with which Redis
// refuses a command for good.
func mayPass(err error) bool {
	var refusal goredis.Error
	switch {
	case errors.Is(err, errUnacknowledged):
		return false // it has waited long enough
	case !errors.As(err, &refusal):
		return true // the network, or a node that was taken away
	case errors.Is(err, goredis.Nil):
		return false
	}
	for _, prefix := range []string{
		"LOADING", "READONLY", "CLUSTERDOWN", "TRYAGAIN", "MASTERDOWN", "NOREPLICAS", "UNBLOCKED", "MOVED", "ASK",
		"max number of clients reached",
	} {
		if goredis.HasErrorPrefix(err, prefix) {
			return true
		}
	}
	return false
}

// errUnacknowledged says that a change was made on the master but that too few replicas have it.
var errUnacknowledged = errors.New("too few replicas have acknowledged the change")

// eval runs a script. One that has changed something, or has found that a repetition of it changed
// something before, answers "ok", and then s.replicas replicas must have what it answered, or the
// outcome counts as unknown.
//
// WAIT covers what its own connection has written, so script and WAIT go as one pipeline over one
// connection to the master, which then returns to the pool: not in MULTI, where WAIT never blocks,
// nor through a cluster client, which sends it to any node. A repetition that finds everything done
// writes something all the same, on purpose: replicas take a master's writes in their order, so
// whoever has this one has the first execution too. Without it the answer to a repeated call could
// be given although the first execution never left a master that is about to be lost.
//
// That is why a batch of joins whose acknowledgement failed is repeated under its own number.
// Either the master still has the batch, and then the repetition gets the same positions and they
// are acknowledged with it; or a failover has lost it, and then nobody was ever told of its
// positions and it is issued new ones. A master that was cut off from its replicas and superseded
// answers nobody, because nothing is acknowledged there any more.
//
// It holds as long as the replica that takes over is one that has acknowledged: where a master has
// more replicas than s.replicas, a failover may choose another.
func (s *Store) eval(ctx context.Context, script *script, keys []string, args []any) ([]any, error) {
	if s.replicas == 0 || !script.lasting {
		return script.Run(ctx, s.client, keys, args...).Slice()
	}
	master, err := s.master(ctx, keys[0])
	if err != nil {
		return nil, err
	}
	conn := master.Conn()
	defer conn.Close()
	answer, acknowledged := s.evalAndWait(ctx, conn, script.EvalSha, keys, args)
	if goredis.HasErrorPrefix(answer.Err(), "NOSCRIPT") {
		answer, acknowledged = s.evalAndWait(ctx, conn, script.Eval, keys, args)
	}
	raw, err := answer.Slice()
	if err != nil {
		return nil, err
	}
	if len(raw) == 0 || raw[0] != "ok" {
		return raw, nil // nothing was changed
	}
	if err := acknowledged.Err(); err != nil {
		return nil, err
	}
	if n := acknowledged.Val(); n < int64(s.replicas) {
		return nil, fmt.Errorf("%w: %d of %d", errUnacknowledged, n, s.replicas)
	}
	return raw, nil
}

// simple runs a script that is not one on a queue and has nothing to tell.
func (s *Store) simple(ctx context.Context, script *script, keys []string, args ...any) error {
	return s.try(ctx, func(ctx context.Context) error {
		_, err := s.eval(ctx, script, keys, args)
		return err
	})
}

type evalFunc func(ctx context.Context, c goredis.Scripter, keys []string, args ...any) *goredis.Cmd

func (s *Store) evalAndWait(ctx context.Context, conn *goredis.Conn, eval evalFunc, keys []string, args []any) (answer *goredis.Cmd, acknowledged *goredis.IntCmd) {
	pipeline := conn.Pipeline()
	answer = eval(ctx, pipeline, keys, args...)
	acknowledged = goredis.NewIntCmd(ctx, "wait", s.replicas, s.replicaTimeout.Milliseconds())
	_ = pipeline.Process(ctx, acknowledged)
	_, _ = pipeline.Exec(ctx) // the commands carry their errors
	return answer, acknowledged
}

// master is a client of the node that takes a key's writes.
func (s *Store) master(ctx context.Context, key string) (*goredis.Client, error) {
	switch client := s.client.(type) {
	case *goredis.ClusterClient:
		return client.MasterForKey(ctx, key)
	case *goredis.Client:
		return client, nil
	default:
		return nil, fmt.Errorf("find master: %T has none", client)
	}
}

// LogTo sends what go-redis has to say about its connections to a logger instead of the process's
// standard error. It holds for the whole process, so it is for a main to call.
func LogTo(logger *slog.Logger) { goredis.SetLogger(clientLogger{logger}) }

type clientLogger struct{ *slog.Logger }

// Printf implements the interface that go-redis wants.
func (l clientLogger) Printf(ctx context.Context, format string, args ...any) {
	l.WarnContext(ctx, "redis client: "+fmt.Sprintf(format, args...))
}
