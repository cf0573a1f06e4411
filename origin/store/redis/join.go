package redis

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

// Join implements store.Line. The batch is one call of a script: the pages of new positions are
// guessed from the queue's shape; only users who have a position in another page, and a shape that
// has become outdated, cost a second call.
func (s *Store) Join(ctx context.Context, batch store.JoinBatch) (store.JoinResult, error) {
	result, err := s.join(ctx, batch)
	if err != nil {
		return store.JoinResult{}, fmt.Errorf("join queue: %w", err)
	}
	return result, nil
}

func (s *Store) join(ctx context.Context, batch store.JoinBatch) (store.JoinResult, error) {
	if err := batch.Check(); err != nil {
		return store.JoinResult{}, err
	}
	users, buckets := packUsers(batch.Users)
	r, err := s.run(ctx, joinScript, batch.Queue, "", batch.Now, func(c *call) error {
		c.key(c.sessions(), c.joiners(), c.batches(batch.Edge))
		c.arg(batch.Edge, batch.Seq, min(batch.Floor, maxPosition), batch.FloorOf, len(batch.Users), users, c.shape.turn)
		pages := c.joinPages(batch)
		c.arg(len(pages))
		for _, page := range pages {
			c.arg(page)
			c.key(c.waiting(page), c.seen(c.shape.turn, page), c.fates(page), c.lapsed(page), c.named(page))
		}
		c.arg(len(buckets))
		for _, bucket := range buckets {
			c.arg(bucket)
			c.key(c.users(bucket))
		}
		return nil
	})
	if err != nil {
		return store.JoinResult{}, err
	}
	return r.joins(len(batch.Users))
}

// packUsers puts the keys one after the other, nothing when all are anonymous, and lists the
// buckets in which they lie.
func packUsers(users []store.Key) (packed []byte, buckets []uint64) {
	if !slices.ContainsFunc(users, func(user store.Key) bool { return user != (store.Key{}) }) {
		return nil, nil
	}
	packed = make([]byte, 0, len(users)*len(store.Key{}))
	for _, user := range users {
		packed = append(packed, user[:]...)
		if user != (store.Key{}) {
			buckets = append(buckets, bucketOf(user))
		}
	}
	slices.Sort(buckets)
	return packed, slices.Compact(buckets)
}

// joinPages are the pages in which a batch may find or issue positions. The one after is named
// besides, because other batches may be issued before this one.
func (c *call) joinPages(batch store.JoinBatch) []uint64 {
	highest := c.shape.issued
	if batch.Floor > highest && batch.Floor-highest <= store.MaxFloorRise {
		highest = batch.Floor
	}
	highest += uint64(len(batch.Users))
	pages := slices.Clone(c.need)
	for page := pageOf(c.shape.issued + 1); page <= pageOf(max(highest, 1))+1; page++ {
		pages = append(pages, page)
	}
	slices.Sort(pages)
	return slices.Compact(pages)
}

// joins reads the script's answer: generation, the first new position, how many are new and how
// many of these have an offer, until when, and whoever had a position already.
func (r *reply) joins(count int) (store.JoinResult, error) {
	result := store.JoinResult{Ack: r.ack, Joins: make([]store.Joined, count)}
	fields := strings.SplitN(r.text(), " ", 6)
	result.Incarnation = r.text()
	if r.err != nil || len(fields) != 6 {
		return result, errors.New("read answer to joins: it is damaged")
	}
	result.Generation = fields[0]
	var first, fresh, offered, claimBy int64
	for i, n := range []*int64{&first, &fresh, &offered, &claimBy} {
		var err error
		if *n, err = strconv.ParseInt(fields[i+1], 10, 64); err != nil {
			return result, fmt.Errorf("read answer to joins: %w", err)
		}
	}
	var known [][]any
	if err := json.Unmarshal([]byte(fields[5]), &known); err != nil {
		return result, fmt.Errorf("read answer to joins: %w", err)
	}
	if int(fresh)+len(known) != count {
		return result, errors.New("read answer to joins: it is of another batch")
	}
	for _, fields := range known {
		index, joined, err := knownJoin(fields)
		if err != nil || index < 0 || index >= count {
			return result, errors.New("read answer to joins: it is damaged")
		}
		result.Joins[index] = joined
	}
	next := first
	for i := range result.Joins {
		if j := &result.Joins[i]; j.Position == 0 {
			*j = store.Joined{Position: uint64(next), New: true}
			if next < first+offered {
				j.ClaimBy = fromMillis(claimBy)
			}
			next++
		}
	}
	return result, nil
}

// knownJoin reads the answer to a user who had a position: index, position, claimBy, and with a
// running session its id, start and expiry.
func knownJoin(fields []any) (index int, joined store.Joined, err error) {
	number := func(i int) int64 {
		n, ok := fields[i].(float64)
		if !ok {
			err = errors.New("no number")
		}
		return int64(n)
	}
	if len(fields) != 3 && len(fields) != 6 {
		return 0, joined, errors.New("wrong number of fields")
	}
	index = int(number(0)) - 1
	joined = store.Joined{Position: uint64(number(1)), ClaimBy: fromMillis(number(2))}
	if len(fields) == 6 {
		id, ok := fields[3].(string)
		if !ok {
			return 0, joined, errors.New("no session id")
		}
		joined.Session = queue.Session{
			Position: joined.Position, ID: id, StartsAt: fromMillis(number(4)), ExpiresAt: fromMillis(number(5)),
		}
	}
	return index, joined, err
}
