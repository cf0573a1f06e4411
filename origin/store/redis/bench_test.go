package redis_test

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
	"waitingroom/origin/store/redis"
	"waitingroom/origin/store/redis/redistest"
)

// userKey is spread like a keyed hash.
func userKey(n int) store.Key {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(n))
	sum := sha256.Sum256(b[:])
	return store.Key(sum[:16])
}

// BenchmarkJoin issues positions in batches of 500; an op is one batch.
func BenchmarkJoin(b *testing.B) {
	for name, users := range map[string]bool{"anonymous": false, "users": true} {
		b.Run(name, func(b *testing.B) {
			s := open(b, redistest.Start(b))
			now := time.UnixMilli(1_800_000_000_000)
			joinMany(b, s, "shop.match", 0, false, now)
			keys := make([]store.Key, 500)
			seq := uint64(0)
			for b.Loop() {
				seq++
				if users {
					for i := range keys {
						keys[i] = userKey(int(seq)*500 + i)
					}
				}
				if _, err := s.Join(b.Context(), store.JoinBatch{Queue: "shop.match", Edge: "edge", Seq: seq, Users: keys, Now: now}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/500, "ns/join")
		})
	}
}

const million = 1_000_000

// sentBytes is what the server has sent so far.
func sentBytes(b testing.TB, client *goredis.Client) int64 {
	b.Helper()
	info, err := client.InfoMap(b.Context(), "stats").Result()
	if err != nil {
		b.Fatal(err)
	}
	var n int64
	if _, err := fmt.Sscan(info["Stats"]["total_net_output_bytes"], &n); err != nil {
		b.Fatal(err)
	}
	return n
}

// BenchmarkTick looks and commits with a million fans waiting and a hundred slots that change hands
// in each tick.
func BenchmarkTick(b *testing.B) {
	server := redistest.Start(b)
	client := connect(b, server)
	s := open(b, server)
	now := time.UnixMilli(1_800_000_000_000)
	joinMany(b, s, "shop.match", million, false, now)
	epoch, now := seeForAHold(b, s, "shop.match", million, now)
	meta, err := s.Get(b.Context(), "shop.match")
	if err != nil {
		b.Fatal(err)
	}
	meta.Settings.Capacity = queue.MaxCapacity
	if _, _, err := s.Update(b.Context(), "shop.match", meta.Version, meta.Settings, now); err != nil {
		b.Fatal(err)
	}
	var took []time.Duration
	before := sentBytes(b, client)
	for b.Loop() {
		begin := time.Now()
		now = now.Add(10 * time.Millisecond)
		look, err := s.Look(b.Context(), "shop.match", 100, now)
		if err != nil {
			b.Fatal(err)
		}
		if look.Present < million/2 || len(look.Candidates) != 100 {
			b.Fatalf("%d present, %d candidates", look.Present, len(look.Candidates))
		}
		if _, err := s.Commit(b.Context(), "shop.match", "owner", time.Hour, queue.Tick{
			Epoch: epoch, Now: now, Offer: look.Candidates, Present: look.Present,
		}); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(begin))
	}
	b.ReportMetric(float64(sentBytes(b, client)-before)/float64(b.N), "B-read/op")
	slices.Sort(took)
	b.ReportMetric(took[len(took)*99/100].Seconds()*1000, "p99-ms")
}

// BenchmarkCloseTurn closes turns with a million fans waiting, of whom some expire each time.
func BenchmarkCloseTurn(b *testing.B) {
	server := redistest.Start(b)
	s := open(b, server)
	now := time.UnixMilli(1_800_000_000_000)
	joinMany(b, s, "shop.match", million, false, now)
	epoch, now := seeForAHold(b, s, "shop.match", million, now)
	expired, turn := 0, uint64(36)
	for b.Loop() {
		b.StopTimer()
		// Every thirtieth is silent from here on, beginning with a different one each time.
		var positions queue.Positions
		for position := uint64(1); position <= million; position++ {
			if position%1000 > turn-36 {
				positions = append(positions, position)
			}
		}
		if _, err := s.See(b.Context(), store.SightingBatch{
			Queue: "shop.match", Incarnation: "inc", Edge: "edge", Turn: turn, Positions: positions, Now: now,
		}); err != nil {
			b.Fatal(err)
		}
		now = now.Add(time.Minute)
		b.StartTimer()
		n, _, err := s.CloseTurn(b.Context(), "shop.match", epoch, turn, now)
		if err != nil {
			b.Fatal(err)
		}
		expired += n
		turn++
	}
	b.ReportMetric(float64(expired)/float64(b.N), "expired/op")
}

// BenchmarkSnapshot reads a queue with a million fans as an origin does that takes it over.
func BenchmarkSnapshot(b *testing.B) {
	server := redistest.Start(b)
	s := open(b, server)
	joinMany(b, s, "shop.match", million, false, time.UnixMilli(1_800_000_000_000))
	for b.Loop() {
		if _, err := s.Snapshot(b.Context(), "shop.match"); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSee records 2,000 sightings that are spread over a million fans.
func BenchmarkSee(b *testing.B) {
	server := redistest.Start(b)
	s := open(b, server)
	now := time.UnixMilli(1_800_000_000_000)
	joinMany(b, s, "shop.match", million, false, now)
	var positions queue.Positions
	for i := range uint64(2000) {
		positions = append(positions, i*500+1+i%7)
	}
	for b.Loop() {
		if _, err := s.See(b.Context(), store.SightingBatch{
			Queue: "shop.match", Incarnation: "inc", Edge: "edge", Turn: 1, Positions: positions, Now: now,
		}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAcknowledgedJoin issues positions in batches of 500 that a replica has to acknowledge, from
// many edges at once; without, for comparison. An op is one batch.
func BenchmarkAcknowledgedJoin(b *testing.B) {
	for _, replicas := range []int{0, 1} {
		b.Run(fmt.Sprint("replicas-", replicas), func(b *testing.B) {
			master := startMaster(b)
			startReplica(b, master.Addr)
			s := openWith(b, redis.Config{Addresses: []string{master.Addr}, Replicas: replicas})
			now := time.UnixMilli(1_800_000_000_000)
			joinMany(b, s, "shop.match", 0, false, now)
			var edges atomic.Int64
			b.SetParallelism(8)
			b.RunParallel(func(each *testing.PB) {
				edge, seq := fmt.Sprint("edge-", edges.Add(1)), uint64(0)
				for each.Next() {
					seq++
					if _, err := s.Join(b.Context(), store.JoinBatch{Queue: "shop.match", Edge: edge, Seq: seq, Users: make([]store.Key, 500), Now: now}); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)*500/b.Elapsed().Seconds(), "joins/s")
		})
	}
}
