package redis_test

import (
	"testing"
	"time"

	"waitingroom/origin/store"
	"waitingroom/origin/store/redis"
	"waitingroom/origin/store/redis/redistest"
	"waitingroom/origin/store/storetest"
)

// TestConformanceOfSentinel runs the suite on the master that sentinels name.
func TestConformanceOfSentinel(t *testing.T) {
	t.Parallel()
	s := redistest.StartSentinels(t, 1)
	s.SetDownAfter(patient)
	storetest.Run(t, func(t *testing.T) store.Store {
		return openWith(t, redis.Config{Addresses: s.Addrs(), MasterName: s.MasterName, Replicas: 1, Timeout: 30 * time.Second, ReplicaTimeout: 20 * time.Second})
	})
}
