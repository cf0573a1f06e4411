package redis

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

// metaFields are those that describe a queue, in the order in which readMeta takes them.
var metaFields = []string{"incarnation", "generations", "created", "version", "settings"}

func readMeta(id queue.ID, r *reply) (store.Meta, error) {
	meta := store.Meta{ID: id, Incarnation: r.text()}
	meta.Generations = strings.Split(r.text(), ",")
	meta.CreatedAt = r.time()
	meta.Version = r.uint()
	settings, err := decodeSettings(r.text())
	if err != nil {
		return store.Meta{}, err
	}
	meta.Settings = settings
	return meta, r.err
}

// decodeSettings takes what is missing, because an older program wrote it, as the default.
func decodeSettings(text string) (queue.Settings, error) {
	settings := queue.DefaultSettings()
	if err := json.Unmarshal([]byte(text), &settings); err != nil {
		return queue.Settings{}, fmt.Errorf("decode settings: %w", err)
	}
	return settings, nil
}

// settingsArgs are the settings, and what scripts go by.
func settingsArgs(s queue.Settings) ([]any, error) {
	text, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode settings: %w", err)
	}
	rules, err := json.Marshal(s.WithoutRemaining())
	if err != nil {
		return nil, fmt.Errorf("encode settings: %w", err)
	}
	holdRuns := 0
	if s.HoldRuns() {
		holdRuns = 1
	}
	digest := sha256.Sum256(rules)
	return []any{
		text, string(s.State), s.Capacity, s.Claim().Milliseconds(), s.PurchaseWindow().Milliseconds(),
		s.HoldSeconds, s.MaxMissedOffers, s.HoldTurns(), s.TurnLength().Milliseconds(), string(s.Identity),
		max(millis(s.WakesAt()), 0), holdRuns, base64.RawStdEncoding.EncodeToString(digest[:16]),
	}, nil
}

// Create implements store.Queues. The registry and the queue lie on different slots of a cluster:
// the entry is written first, so that no queue is ever unlisted, and again afterwards, because a
// deletion of an earlier queue of that id may have taken it away in between.
func (s *Store) Create(ctx context.Context, id queue.ID, incarnation, generation string, settings queue.Settings, now time.Time) (store.Meta, store.Ack, error) {
	meta, ack, err := s.create(ctx, id, incarnation, generation, settings, now)
	if err != nil {
		return store.Meta{}, store.Ack{}, fmt.Errorf("create queue: %w", err)
	}
	return meta, ack, nil
}

func (s *Store) create(ctx context.Context, id queue.ID, incarnation, generation string, settings queue.Settings, now time.Time) (store.Meta, store.Ack, error) {
	if err := store.CheckNames(incarnation, generation); err != nil {
		return store.Meta{}, store.Ack{}, err
	}
	args, err := settingsArgs(settings)
	if err != nil {
		return store.Meta{}, store.Ack{}, err
	}
	registry := registryKey(id.Tenant())
	if err := s.simple(ctx, listScript, []string{registry}, id.Slug()); err != nil {
		return store.Meta{}, store.Ack{}, err
	}
	r, err := s.run(ctx, createScript, id, "", now, func(c *call) error {
		c.arg(incarnation, generation)
		c.arg(args...)
		return nil
	})
	if err != nil {
		return store.Meta{}, store.Ack{}, err
	}
	if err := s.simple(ctx, listScript, []string{registry}, id.Slug()); err != nil {
		return store.Meta{}, store.Ack{}, err
	}
	meta, err := readMeta(id, r)
	return meta, r.ack, err
}

// Get implements store.Queues.
func (s *Store) Get(ctx context.Context, id queue.ID) (store.Meta, error) {
	var values []any
	err := s.try(ctx, func(ctx context.Context) (err error) {
		values, err = s.client.HMGet(ctx, keysOf(id).meta(), metaFields...).Result()
		return err
	})
	if err != nil {
		return store.Meta{}, fmt.Errorf("get queue: %w", err)
	}
	if values[0] == nil {
		return store.Meta{}, fmt.Errorf("get queue: %w", store.ErrNotFound)
	}
	meta, err := readMeta(id, &reply{rest: values})
	if err != nil {
		return store.Meta{}, fmt.Errorf("get queue: %w", err)
	}
	return meta, nil
}

// Names implements store.Queues.
func (s *Store) Names(ctx context.Context, tenant string) ([]queue.ID, error) {
	var slugs []string
	err := s.try(ctx, func(ctx context.Context) (err error) {
		slugs, err = s.client.SMembers(ctx, registryKey(tenant)).Result()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list names of queues: %w", err)
	}
	slices.Sort(slugs)
	ids := make([]queue.ID, len(slugs))
	for i, slug := range slugs {
		ids[i] = queue.MakeID(tenant, slug)
	}
	return ids, nil
}

// List implements store.Queues.
func (s *Store) List(ctx context.Context, tenant string) ([]store.Meta, error) {
	ids, err := s.Names(ctx, tenant)
	if err != nil {
		return nil, fmt.Errorf("list queues: %w", err)
	}
	read := make([]*goredis.SliceCmd, len(ids))
	if len(ids) > 0 {
		err = s.pipelined(ctx, s.client.Pipelined, func(ctx context.Context, pipeline goredis.Pipeliner) {
			for i, id := range ids {
				read[i] = pipeline.HMGet(ctx, keysOf(id).meta(), metaFields...)
			}
		})
		if err != nil {
			return nil, fmt.Errorf("list queues: %w", err)
		}
	}
	list := []store.Meta{}
	for i, id := range ids {
		values := read[i].Val()
		if values[0] == nil {
			continue // not made yet, or deleted
		}
		meta, err := readMeta(id, &reply{rest: values})
		if err != nil {
			return nil, fmt.Errorf("list queues: %w", err)
		}
		list = append(list, meta)
	}
	return list, nil
}

// Update implements store.Queues.
func (s *Store) Update(ctx context.Context, id queue.ID, version uint64, settings queue.Settings, now time.Time) (store.Meta, store.Ack, error) {
	args, err := settingsArgs(settings)
	if err != nil {
		return store.Meta{}, store.Ack{}, fmt.Errorf("update queue: %w", err)
	}
	keepsOffers := 0
	if settings.State.KeepsOffers() {
		keepsOffers = 1
	}
	r, err := s.run(ctx, updateScript, id, "", now, func(c *call) error {
		for _, page := range c.shape.live {
			c.key(c.waiting(page))
		}
		c.arg(version, c.shape.kept, keepsOffers)
		c.arg(args...)
		return nil
	})
	if err != nil {
		return store.Meta{}, store.Ack{}, fmt.Errorf("update queue: %w", err)
	}
	meta, err := readMeta(id, r)
	if err != nil {
		return store.Meta{}, store.Ack{}, fmt.Errorf("update queue: %w", err)
	}
	return meta, r.ack, nil
}

// Delete implements store.Queues.
func (s *Store) Delete(ctx context.Context, id queue.ID, incarnation string) error {
	meta, err := s.Get(ctx, id)
	switch {
	case err != nil:
		return fmt.Errorf("delete queue: %w", err)
	case meta.Incarnation != incarnation:
		return fmt.Errorf("delete queue: %w", store.ErrNotFound)
	case meta.Settings.State != queue.Closed:
		return fmt.Errorf("delete queue: %w", store.ErrNotClosed)
	}
	if err := s.simple(ctx, buryScript, []string{deletedKey(id.Tenant())}, id.Slug(), incarnation); err != nil {
		return fmt.Errorf("delete queue: %w", err)
	}
	existed := false
	_, err = s.run(ctx, deleteScript, id, incarnation, time.Time{}, func(c *call) error {
		found, err := s.nameAll(ctx, c)
		existed = existed || found == incarnation
		return err
	})
	// If the queue was there a moment ago and is not any more, then most likely the script was run
	// twice because its first answer got lost; in any case the queue is gone, as was wanted.
	if err != nil && !(existed && errors.Is(err, store.ErrNotFound)) {
		return fmt.Errorf("delete queue: %w", err)
	}
	s.shapes.Remove(id)
	if err := s.unlist(ctx, id); err != nil {
		return fmt.Errorf("delete queue: %w", err)
	}
	return nil
}

// Deleted implements store.Queues.
func (s *Store) Deleted(ctx context.Context, id queue.ID, incarnation string) (bool, error) {
	var last string
	err := s.try(ctx, func(ctx context.Context) (err error) {
		last, err = s.client.HGet(ctx, deletedKey(id.Tenant()), id.Slug()).Result()
		return err
	})
	if err != nil && !errors.Is(err, goredis.Nil) {
		return false, fmt.Errorf("look for deletion: %w", err)
	}
	return err == nil && last == incarnation, nil
}

// unlist takes a queue that is gone out of the schedule and the registry.
func (s *Store) unlist(ctx context.Context, id queue.ID) error {
	registry := registryKey(id.Tenant())
	var exists int64
	err := s.try(ctx, func(ctx context.Context) error {
		err := s.client.ZRem(ctx, scheduleKey, string(id)).Err()
		if err == nil {
			err = s.client.SRem(ctx, registry, id.Slug()).Err()
		}
		if err == nil {
			exists, err = s.client.Exists(ctx, keysOf(id).meta()).Result()
		}
		return err
	})
	if err != nil || exists == 0 {
		return err
	}
	// A queue made again meanwhile must not stay unlisted, nor forgotten: who looks after it at once finds
	// out when to do so next.
	if err := s.simple(ctx, listScript, []string{registry}, id.Slug()); err != nil {
		return err
	}
	return s.Remind(ctx, id, time.UnixMilli(0))
}

// nameAll names every key that a queue may have, and tells its incarnation.
func (s *Store) nameAll(ctx context.Context, c *call) (incarnation string, err error) {
	var edges *goredis.StringSliceCmd
	var fields *goredis.SliceCmd
	err = s.pipelined(ctx, s.client.Pipelined, func(ctx context.Context, pipeline goredis.Pipeliner) {
		edges = pipeline.ZRange(ctx, c.joiners(), 0, -1)
		fields = pipeline.HMGet(ctx, c.meta(), "incarnation", "hasUsers")
	})
	if err != nil {
		return "", err
	}
	incarnation, _ = fields.Val()[0].(string)
	c.arg(c.shape.text(), len(edges.Val()))
	c.key(c.joiners(), c.sessions(), c.sessionIDs(), c.edges(), c.scratch(1), c.scratch(2), c.journal(), c.minutes(), c.moves())
	for _, edge := range edges.Val() {
		c.key(c.batches(edge))
	}
	for page := uint64(0); page*pageSize < c.shape.issued; page++ {
		c.key(c.fates(page), c.named(page))
	}
	c.keyPages()
	if fields.Val()[1] != nil {
		for bucket := range uint64(userBuckets) {
			c.key(c.users(bucket))
		}
	}
	return incarnation, nil
}

// Counts implements store.Queues.
func (s *Store) Counts(ctx context.Context, id queue.ID) (store.Counts, error) {
	counts, err := s.counts(ctx, id)
	if err != nil {
		return store.Counts{}, fmt.Errorf("count queue: %w", err)
	}
	return counts, nil
}

func (s *Store) counts(ctx context.Context, id queue.ID) (store.Counts, error) {
	var c store.Counts
	keys := keysOf(id)
	var offers, sessions *goredis.IntCmd
	var fields *goredis.SliceCmd
	err := s.pipelined(ctx, s.client.TxPipelined, func(ctx context.Context, pipeline goredis.Pipeliner) {
		fields = pipeline.HMGet(ctx, keys.meta(), "incarnation", "issued", "watermark", "waiting", "present",
			"admitted", "missedOffers", "claimed", "ended", "expired", "missed", "left")
		offers = pipeline.ZCard(ctx, keys.offers())
		sessions = pipeline.ZCard(ctx, keys.expiries())
	})
	if err != nil {
		return c, err
	}
	values := fields.Val()
	if values[0] == nil {
		return c, store.ErrNotFound
	}
	numbers := make([]uint64, len(values)-1)
	for i, value := range values[1:] {
		text, set := value.(string)
		if !set {
			continue // never counted
		}
		if numbers[i], err = strconv.ParseUint(text, 10, 64); err != nil {
			return c, err
		}
	}
	c.Issued, c.Watermark = numbers[0], numbers[1]
	c.Offers, c.Sessions = int(offers.Val()), int(sessions.Val())
	for i, count := range []*int{
		&c.Waiting, &c.Present, &c.Admitted, &c.MissedOffers, &c.Claimed, &c.Ended, &c.Expired, &c.Missed, &c.Left,
	} {
		*count = int(numbers[i+2])
	}
	return c, nil
}
