package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
	"waitingroom/origin/store/redis"
)

// What a crowd's queue is called, and who holds its lease.
const (
	crowdQueue       = queue.ID(tenant + ".crowd")
	crowdIncarnation = "incarnation"
	crowdGeneration  = "generation"
	crowdEdge        = "edge"
	crowdOwner       = "owner"
	crowdLease       = 24 * time.Hour
	crowdBatch       = 1000
)

// crowd is a queue in a Redis of its own, reached through the store as an origin reaches it, under a
// time of its own: a hold passes as fast as it can be computed.
type crowd struct {
	ctx      context.Context
	process  *process
	address  string
	client   *goredis.Client // for what is asked about Redis
	store    *redis.Store
	now      time.Time
	turn     uint64
	epoch    uint64
	size     int
	batches  uint64
	everyone queue.Positions
}

// newCrowd starts a Redis and makes an open queue.
func newCrowd(ctx context.Context, l *lab, capacity int) (*crowd, error) {
	l.progress("starting redis")
	dir, err := os.MkdirTemp(l.dir, "crowd-")
	if err != nil {
		return nil, fmt.Errorf("make crowd: %w", err)
	}
	addresses, err := freeAddresses(1)
	if err != nil {
		return nil, err
	}
	c := &crowd{ctx: ctx, address: addresses[0], now: time.UnixMilli(1_800_000_000_000).UTC()}
	if c.process, c.client, err = startRedis(ctx, dir, c.address, l.programs.redis); err != nil {
		return nil, err
	}
	if err := c.open(capacity); err != nil {
		c.close()
		return nil, fmt.Errorf("make crowd: %w", err)
	}
	return c, nil
}

func (c *crowd) open(capacity int) (err error) {
	if c.store, err = redis.Open(redis.Config{Addresses: []string{c.address}}); err != nil {
		return err
	}
	settings := queue.DefaultSettings()
	settings.Capacity, settings.ClaimSeconds, settings.PurchaseWindowSeconds = capacity, 7*24*3600, 7*24*3600
	if _, _, err := c.store.Create(c.ctx, crowdQueue, crowdIncarnation, crowdGeneration, settings, c.now); err != nil {
		return err
	}
	if c.epoch, err = c.store.Acquire(c.ctx, crowdQueue, crowdOwner, crowdLease, c.now); err != nil {
		return err
	}
	look, err := c.store.Look(c.ctx, crowdQueue, 0, c.now)
	c.turn = look.Turn
	return err
}

func (c *crowd) close() {
	if c.store != nil {
		_ = c.store.Close()
	}
	_ = c.client.Close()
	c.process.stop()
}

// join lets that many fans join, with user ids or without.
func (c *crowd) join(n int, users bool) error {
	for joined := 0; joined < n; joined += crowdBatch {
		c.batches++
		keys := make([]store.Key, min(crowdBatch, n-joined))
		for i := range keys {
			if users {
				keys[i] = userKey(c.size + joined + i)
			}
		}
		if _, err := c.store.Join(c.ctx, store.JoinBatch{
			Queue: crowdQueue, Edge: crowdEdge, Seq: c.batches, Users: keys, Now: c.now,
		}); err != nil {
			return fmt.Errorf("join crowd: %w", err)
		}
	}
	for range n {
		c.size++
		c.everyone = append(c.everyone, uint64(c.size))
	}
	return nil
}

// userKey is spread like the keyed hash of a user id.
func userKey(n int) store.Key {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(n)))
	return store.Key(sum[:16])
}

// see hands in that everybody was seen in the running turn.
func (c *crowd) see() error {
	if _, err := c.store.See(c.ctx, store.SightingBatch{
		Queue: crowdQueue, Incarnation: crowdIncarnation, Edge: crowdEdge, Turn: c.turn,
		Positions: c.everyone, Complete: true, At: c.now, Now: c.now,
	}); err != nil {
		return fmt.Errorf("see crowd: %w", err)
	}
	return nil
}

// closeTurn closes the running turn when it is due to end, and returns how long that took.
func (c *crowd) closeTurn() (time.Duration, error) {
	c.now = c.now.Add(queue.DefaultSettings().TurnLength())
	begin := time.Now()
	expired, _, err := c.store.CloseTurn(c.ctx, crowdQueue, c.epoch, c.turn, c.now)
	took := time.Since(begin)
	if err != nil || expired > 0 {
		return took, fmt.Errorf("close turn: %d expired: %w", expired, err)
	}
	c.turn++
	return took, nil
}

// passHold lets so much time pass, with everybody seen in every turn, that all turns which are
// ever kept are there.
func (c *crowd) passHold(l *lab) error {
	turns := int(queue.DefaultSettings().HoldTurns()) + 3
	for i := range turns {
		l.progress(fmt.Sprintf("turn %d of %d", i+1, turns))
		if err := c.see(); err != nil {
			return err
		}
		if _, err := c.closeTurn(); err != nil {
			return err
		}
	}
	return c.see()
}

// startRedis starts a Redis that keeps nothing on disk, so that the disk of the machine is not
// measured along.
func startRedis(ctx context.Context, dir, address, path string) (*process, *goredis.Client, error) {
	host, port, _ := strings.Cut(address, ":")
	client := goredis.NewClient(&goredis.Options{Addr: address, ContextTimeoutEnabled: true})
	started, err := start(ctx, dir, "redis",
		func(ctx context.Context) bool { return client.Ping(ctx).Err() == nil },
		path, "--bind", host, "--port", port, "--dir", dir, "--save", "", "--appendonly", "no", "--loglevel", "warning")
	if err != nil {
		_ = client.Close()
		return nil, nil, err
	}
	return started, client, nil
}
