package redis

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"

	goredis "github.com/redis/go-redis/v9"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

// ReadJournal implements store.Journal.
func (s *Store) ReadJournal(ctx context.Context, id queue.ID, incarnation string, minutes int) (queue.Journal, []queue.Minute, error) {
	journal, list, err := s.readJournal(ctx, id, incarnation, minutes)
	if err != nil {
		return queue.Journal{}, nil, fmt.Errorf("read journal: %w", err)
	}
	return journal, list, nil
}

func (s *Store) readJournal(ctx context.Context, id queue.ID, incarnation string, minutes int) (journal queue.Journal, list []queue.Minute, err error) {
	keys := keysOf(id)
	var found, state *goredis.StringCmd
	var last *goredis.XMessageSliceCmd
	err = s.pipelined(ctx, s.client.TxPipelined, func(ctx context.Context, pipeline goredis.Pipeliner) {
		found = pipeline.HGet(ctx, keys.meta(), "incarnation")
		state = pipeline.HGet(ctx, keys.journal(), "state")
		last = pipeline.XRevRangeN(ctx, keys.minutes(), "+", "-", int64(max(minutes, 1)))
	})
	switch {
	case err != nil:
		return journal, nil, err
	case incarnation == "" || found.Val() != incarnation:
		return journal, nil, store.ErrNotFound
	}
	if text := state.Val(); text != "" {
		if err := json.Unmarshal([]byte(text), &journal); err != nil {
			return journal, nil, err
		}
	}
	if list, err = parsePage[queue.Minute](last.Val()); err != nil {
		return journal, nil, err
	}
	slices.Reverse(list)
	return journal, list[len(list)-min(max(minutes, 0), len(list)):], nil
}

// ReadMoves implements store.Journal.
func (s *Store) ReadMoves(ctx context.Context, id queue.ID, incarnation string, after uint64, limit int) ([]queue.Move, error) {
	list, err := s.readMoves(ctx, id, incarnation, after, limit)
	if err != nil {
		return nil, fmt.Errorf("read moves: %w", err)
	}
	return list, nil
}

func (s *Store) readMoves(ctx context.Context, id queue.ID, incarnation string, after uint64, limit int) ([]queue.Move, error) {
	keys := keysOf(id)
	var found *goredis.StringCmd
	var next *goredis.XMessageSliceCmd
	err := s.pipelined(ctx, s.client.TxPipelined, func(ctx context.Context, pipeline goredis.Pipeliner) {
		found = pipeline.HGet(ctx, keys.meta(), "incarnation")
		next = pipeline.XRangeN(ctx, keys.moves(), "("+strconv.FormatUint(after, 10)+"-0", "+", int64(max(limit, 1)))
	})
	switch {
	case err != nil:
		return nil, err
	case incarnation == "" || found.Val() != incarnation:
		return nil, store.ErrNotFound
	}
	list, err := parsePage[queue.Move](next.Val())
	if err != nil {
		return nil, err
	}
	return list[:min(max(limit, 0), len(list))], nil
}

// parsePage reads what a page of a journal has put into a stream.
func parsePage[E any](items []goredis.XMessage) ([]E, error) {
	list := make([]E, len(items))
	for i, item := range items {
		text, ok := item.Values["j"].(string)
		if !ok {
			return nil, errors.New("parse item of a journal: it has no text")
		}
		if err := json.Unmarshal([]byte(text), &list[i]); err != nil {
			return nil, fmt.Errorf("parse item of a journal: %w", err)
		}
	}
	return list, nil
}

// WriteJournal implements store.Journal. It is a script of its own kind: it needs nothing of the
// queue but its incarnation, and changes nothing that a tick looks at.
func (s *Store) WriteJournal(ctx context.Context, id queue.ID, incarnation string, from queue.Cursor, page queue.Page) error {
	if err := s.writeJournal(ctx, id, incarnation, from, page); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	return nil
}

func (s *Store) writeJournal(ctx context.Context, id queue.ID, incarnation string, from queue.Cursor, page queue.Page) error {
	state, err := json.Marshal(page.Journal)
	if err != nil {
		return err
	}
	c := call{queueKeys: keysOf(id)}
	c.key(c.meta(), c.journal(), c.minutes(), c.moves())
	c.arg(incarnation, from.Entry, from.Chain, page.Journal.Entry, page.Journal.Chain, state)
	c.arg(len(page.Minutes))
	for _, minute := range page.Minutes {
		text, err := json.Marshal(minute)
		if err != nil {
			return err
		}
		c.arg(minute.At.Unix()/60, text)
	}
	c.arg(len(page.Moves))
	for _, move := range page.Moves {
		text, err := json.Marshal(move)
		if err != nil {
			return err
		}
		c.arg(move.Number, text)
	}
	var raw []any
	err = s.try(ctx, func(ctx context.Context) (err error) {
		raw, err = s.eval(ctx, journalScript, c.keys, c.args)
		return err
	})
	if err != nil {
		return err
	}
	r := reply{rest: raw}
	code := r.text()
	if refusal := refusals[code]; refusal != nil {
		return refusal
	}
	return r.err
}
