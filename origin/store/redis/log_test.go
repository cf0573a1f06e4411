package redis_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
	"waitingroom/origin/store/redis"
	"waitingroom/origin/store/redis/redistest"
)

// TestDamagedEntries puts entries into a log that no script writes. A reader must hear of it,
// instead of going on with a wrong view.
func TestDamagedEntries(t *testing.T) {
	server := redistest.Start(t)
	client := connect(t, server)
	s := open(t, server)
	now := time.UnixMilli(1_800_000_000_000)
	fine := []any{"k", "done", "t", now.UnixMilli(), "p", "1", "f", "2"}
	for name, test := range map[string]struct {
		values []any
		id     string
		ok     bool
	}{
		"as it should be":        {values: fine, ok: true},
		"unknown kind":           {values: []any{"k", "moved", "t", "1"}},
		"no kind":                {values: []any{"t", "1"}},
		"unknown field":          {values: append(fine[:len(fine):len(fine)], "x", "1")},
		"no number":              {values: []any{"k", "turn", "t", "1", "n", "next"}},
		"negative number":        {values: []any{"k", "turn", "t", "1", "n", "-1"}},
		"unknown fate":           {values: []any{"k", "done", "t", "1", "p", "1", "f", "9"}},
		"positions out of order": {values: []any{"k", "done", "t", "1", "p", "2,1", "f", "2"}},
		"bitmap too short":       {values: []any{"k", "done", "t", "1", "b", "1:3:ab", "f", "3"}},
		"bitmap without length":  {values: []any{"k", "done", "t", "1", "b", "1:ab", "f", "3"}},
		"bitmap from nowhere":    {values: []any{"k", "done", "t", "1", "b", "0:1:a", "f", "3"}},
		"bitmaps out of order":   {values: []any{"k", "done", "t", "1", "b", "9:1:a1:1:a", "f", "3"}},
		"settings are no JSON":   {values: []any{"k", "settings", "t", "1", "j", "{"}},
		"estimate is no JSON":    {values: []any{"k", "estimate", "t", "1", "e", "{"}},
		"two items of a number":  {values: fine, id: "2-1"},
	} {
		t.Run(name, func(t *testing.T) {
			id := queue.MakeID("shop", strings.ReplaceAll(name, " ", "-"))
			if _, _, err := s.Create(t.Context(), id, "inc", "g1", queue.DefaultSettings(), now); err != nil {
				t.Fatalf("Create: %v", err)
			}
			item := "2-0"
			if test.id != "" {
				item = test.id
			}
			key := "wr:{" + string(id) + "}:"
			if err := client.XAdd(t.Context(), &goredis.XAddArgs{Stream: key + "log", ID: item, Values: test.values}).Err(); err != nil {
				t.Fatalf("damage the log: %v", err)
			}
			if err := client.HSet(t.Context(), key+"meta", "number", 2).Err(); err != nil {
				t.Fatalf("damage the log: %v", err)
			}
			entries, err := s.Entries(t.Context(), id, "inc", 0, "", 10)
			if test.ok && (err != nil || len(entries) != 2) {
				t.Errorf("Entries: %v, %v, want two", entries, err)
			}
			if !test.ok && err == nil {
				t.Errorf("Entries: %+v, want an error", entries)
			}
		})
	}
}

// TestLogIsTrimmed lets a log grow far beyond its bound.
func TestLogIsTrimmed(t *testing.T) {
	server := redistest.Start(t)
	s, err := redis.Open(redis.Config{Addresses: []string{server.Addr}, LogEntries: 300, Timeout: 20 * time.Second})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	defer s.Close()
	joinMany(t, s, "shop.match", 1000*500, false, time.UnixMilli(1_800_000_000_000))
	snapshot, err := s.Snapshot(t.Context(), "shop.match")
	if err != nil || snapshot.Number != 1001 {
		t.Fatalf("Snapshot: entry %d, %v, want 1001", snapshot.Number, err)
	}
	entries, err := s.Entries(t.Context(), "shop.match", "inc", 701, "", 1000)
	if err != nil || len(entries) != 300 {
		t.Errorf("the last 300 entries: %d, %v", len(entries), err)
	}
	if kept := connect(t, server).XLen(t.Context(), "wr:{shop.match}:log").Val(); kept > 500 {
		t.Errorf("%d entries are kept, want about 300", kept)
	}
}

// TestOriginsShareAQueue lets several stores, as of several processes, issue positions at once,
// over the borders of pages.
func TestOriginsShareAQueue(t *testing.T) {
	server := redistest.Start(t)
	now := time.UnixMilli(1_800_000_000_000)
	joinMany(t, open(t, server), "shop.match", 0, false, now)
	const origins, edges, batches, joins = 3, 3, 12, 2000
	given := make([][]uint64, origins*edges)
	var all sync.WaitGroup
	for origin := range origins {
		s := open(t, server)
		for edge := range edges {
			n := origin*edges + edge
			all.Go(func() {
				for seq := range uint64(batches) {
					result, err := s.Join(t.Context(), store.JoinBatch{
						Queue: "shop.match", Edge: fmt.Sprint("edge-", n), Seq: seq + 1, Users: make([]store.Key, joins), Now: now,
					})
					if err != nil {
						t.Errorf("Join: %v", err)
						return
					}
					for _, j := range result.Joins {
						given[n] = append(given[n], j.Position)
					}
				}
			})
		}
	}
	all.Wait()
	seen := make([]bool, origins*edges*batches*joins+1)
	for _, list := range given {
		for _, position := range list {
			if position >= uint64(len(seen)) || seen[position] {
				t.Fatalf("position %d was given twice, or out of turn", position)
			}
			seen[position] = true
		}
	}
	counts, err := open(t, server).Counts(t.Context(), "shop.match")
	if want := len(seen) - 1; err != nil || int(counts.Issued) != want || counts.Waiting != want {
		t.Errorf("issued %d, waiting %d, %v, want %d", counts.Issued, counts.Waiting, err, want)
	}
}
