package redis

import (
	"context"
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

// Snapshot implements store.Log. Everything is read in one transaction; the pages of fates are
// named by the number of positions as far as it is known, and read again when there are more.
func (s *Store) Snapshot(ctx context.Context, id queue.ID) (queue.Snapshot, error) {
	known, _ := s.shapes.Get(id)
	pages := known.issued/pageSize + 1
	for {
		snapshot, err := s.snapshot(ctx, id, pages)
		if err != nil {
			return queue.Snapshot{}, fmt.Errorf("take snapshot: %w", err)
		}
		if snapshot.Issued <= pages*pageSize {
			return snapshot, nil
		}
		pages = snapshot.Issued/pageSize + 1
	}
}

func (s *Store) snapshot(ctx context.Context, id queue.ID, pages uint64) (queue.Snapshot, error) {
	keys := keysOf(id)
	var fields *goredis.SliceCmd
	var offers *goredis.ZSliceCmd
	var sessions *goredis.MapStringStringCmd
	fates := make([]*goredis.StringCmd, pages)
	err := s.pipelined(ctx, s.client.TxPipelined, func(ctx context.Context, pipeline goredis.Pipeliner) {
		fields = pipeline.HMGet(ctx, keys.meta(), append(slices.Clone(metaFields), "number", "chain", "issued", "watermark", "turn", "estimate")...)
		offers = pipeline.ZRangeWithScores(ctx, keys.offers(), 0, -1)
		sessions = pipeline.HGetAll(ctx, keys.sessions())
		for page := range pages {
			fates[page] = pipeline.Get(ctx, keys.fates(page))
		}
	})
	if err != nil {
		return queue.Snapshot{}, err
	}
	values := fields.Val()
	if len(values) == 0 || values[0] == nil {
		return queue.Snapshot{}, store.ErrNotFound
	}
	if chain := len(metaFields) + 1; values[chain] == nil {
		values[chain] = "" // written by a program that had none
	}
	if last := len(values) - 1; values[last] == nil {
		values[last] = ""
	}
	for i, value := range values {
		if value == nil {
			values[i] = "0"
		}
	}
	r := &reply{rest: values}
	meta, err := readMeta(id, r)
	if err != nil {
		return queue.Snapshot{}, err
	}
	snapshot := queue.Snapshot{
		ID: id, Incarnation: meta.Incarnation, Generations: meta.Generations,
		CreatedAt: meta.CreatedAt, Settings: meta.Settings,
		Version: meta.Version, Number: r.uint(), Chain: r.text(), Issued: r.uint(), Watermark: r.uint(), Turn: r.uint(),
	}
	if snapshot.Estimate, err = parseEstimate(r.text()); err != nil {
		return queue.Snapshot{}, err
	}
	if r.err != nil {
		return queue.Snapshot{}, r.err
	}
	snapshot.Fates = make([]byte, (min(snapshot.Issued, pages*pageSize)+1)/2)
	for page, cmd := range fates {
		if from := page * fateBytes; from < len(snapshot.Fates) {
			copy(snapshot.Fates[from:], cmd.Val())
		}
	}
	for _, offer := range offers.Val() {
		position, err := strconv.ParseUint(fmt.Sprint(offer.Member), 10, 64)
		if err != nil {
			return queue.Snapshot{}, err
		}
		snapshot.Offers = append(snapshot.Offers, queue.Offer{Position: position, ClaimBy: fromMillis(int64(offer.Score))})
	}
	slices.SortFunc(snapshot.Offers, func(a, b queue.Offer) int { return int(int64(a.Position) - int64(b.Position)) })
	for position, packed := range sessions.Val() {
		session, err := parseSession(position, packed)
		if err != nil {
			return queue.Snapshot{}, err
		}
		snapshot.Sessions = append(snapshot.Sessions, session)
	}
	slices.SortFunc(snapshot.Sessions, func(a, b queue.Session) int { return int(int64(a.Position) - int64(b.Position)) })
	return snapshot, nil
}

// parseSession reads a session as scripts store it: the subject's 16 bytes, start, expiry and id.
func parseSession(position, packed string) (queue.Session, error) {
	bad := errors.New("parse session: it is damaged")
	n, err := strconv.ParseUint(position, 10, 64)
	if err != nil || len(packed) < 16 {
		return queue.Session{}, bad
	}
	starts, rest, _ := strings.Cut(packed[16:], " ")
	expires, id, found := strings.Cut(rest, " ")
	startsAt, err1 := strconv.ParseInt(starts, 10, 64)
	expiresAt, err2 := strconv.ParseInt(expires, 10, 64)
	if !found || err1 != nil || err2 != nil {
		return queue.Session{}, bad
	}
	return queue.Session{Position: n, ID: id, StartsAt: fromMillis(startsAt), ExpiresAt: fromMillis(expiresAt)}, nil
}

// Entries implements store.Log.
func (s *Store) Entries(ctx context.Context, id queue.ID, incarnation string, after uint64, chain string, limit int) ([]queue.Entry, error) {
	entries, err := s.entries(ctx, id, incarnation, after, chain, limit)
	if err != nil {
		return nil, fmt.Errorf("read log: %w", err)
	}
	return entries, nil
}

func (s *Store) entries(ctx context.Context, id queue.ID, incarnation string, after uint64, chain string, limit int) ([]queue.Entry, error) {
	keys := keysOf(id)
	var fields *goredis.SliceCmd
	var items *goredis.XMessageSliceCmd
	err := s.pipelined(ctx, s.client.TxPipelined, func(ctx context.Context, pipeline goredis.Pipeliner) {
		fields = pipeline.HMGet(ctx, keys.meta(), "incarnation", "number")
		// The one that the reader has comes with them, to be compared; and at least one more, to
		// see whether it is kept.
		items = pipeline.XRangeN(ctx, keys.log(), strconv.FormatUint(after, 10)+"-0", "+", int64(max(limit, 1))+1)
	})
	if err != nil {
		return nil, err
	}
	r := &reply{rest: fields.Val()}
	if r.text() != incarnation || incarnation == "" {
		return nil, store.ErrNotFound
	}
	last := r.uint()
	if r.err != nil {
		return nil, r.err
	}
	compares := chain != "" && after > 0
	if after > last {
		if compares {
			return nil, store.ErrRewritten
		}
		return nil, nil
	}
	var entries []queue.Entry
	for i, item := range items.Val() {
		entry, err := parseEntry(item)
		if err != nil {
			return nil, err
		}
		if i == 0 && compares && entry.Number != after {
			return nil, store.ErrTrimmed
		}
		if entry.Number == after {
			if compares && entry.Chain != chain {
				return nil, store.ErrRewritten
			}
			continue
		}
		if entry.Number != after+1+uint64(len(entries)) {
			return nil, store.ErrTrimmed
		}
		entries = append(entries, entry)
	}
	if len(entries) == 0 && after < last {
		return nil, store.ErrTrimmed
	}
	return entries[:min(len(entries), max(limit, 0))], nil
}

// pingEvery is after how long a silence on the channel of hints the connection is tried.
const pingEvery = 5 * time.Second

// Hints implements store.Log.
func (s *Store) Hints(ctx context.Context, hint func(id queue.ID)) error {
	subscription := s.client.Subscribe(ctx, hintChannel)
	defer subscription.Close()
	// Receiving does not end with the context, but with the connection.
	defer context.AfterFunc(ctx, func() { _ = subscription.Close() })()
	silent := false
	for {
		message, err := subscription.ReceiveTimeout(ctx, pingEvery)
		if ctx.Err() != nil {
			return nil
		}
		var timeout interface{ Timeout() bool }
		switch {
		case err == nil:
			silent = false
		case errors.As(err, &timeout) && timeout.Timeout() && !silent:
			silent = true
			if err := subscription.Ping(ctx); err != nil && ctx.Err() == nil {
				return fmt.Errorf("receive hints: %w", err)
			}
		default:
			s.reload(ctx)
			return fmt.Errorf("receive hints: %w", err)
		}
		switch m := message.(type) {
		case *goredis.Message:
			hint(queue.ID(m.Payload))
		case *goredis.Subscription:
			hint(store.Listening)
		}
	}
}
