package redis

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

// newEpoch is random, so that an epoch never comes again, not even when the queue was deleted or
// its memory lost; 53 bits are what a script can hold as a number.
func newEpoch() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint64(b[:])>>11 | 1
}

// Acquire implements store.Coordination.
func (s *Store) Acquire(ctx context.Context, id queue.ID, owner string, ttl time.Duration, now time.Time) (uint64, error) {
	if err := store.CheckOwner(owner); err != nil {
		return 0, fmt.Errorf("acquire lease: %w", err)
	}
	proposed := newEpoch()
	r, err := s.run(ctx, acquireScript, id, "", now, func(c *call) error {
		c.arg(owner, ttl.Milliseconds(), proposed, c.shape.kept)
		from, before := c.shape.fallingOut()
		for turn := from; turn < before; turn++ {
			for _, page := range c.shape.live {
				c.key(c.seen(turn, page))
			}
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("acquire lease: %w", err)
	}
	epoch := r.uint()
	if r.err != nil {
		return 0, fmt.Errorf("acquire lease: %w", r.err)
	}
	return epoch, nil
}

// Release implements store.Coordination.
func (s *Store) Release(ctx context.Context, id queue.ID, owner string, epoch uint64) error {
	if err := store.CheckOwner(owner); err != nil {
		return fmt.Errorf("release lease: %w", err)
	}
	_, err := s.run(ctx, releaseScript, id, "", time.Time{}, func(c *call) error {
		c.arg(owner, epoch)
		return nil
	})
	if err != nil {
		return fmt.Errorf("release lease: %w", err)
	}
	return nil
}

// Look implements store.Coordination.
func (s *Store) Look(ctx context.Context, id queue.ID, limit int, now time.Time) (queue.Look, error) {
	r, err := s.run(ctx, lookScript, id, "", now, func(c *call) error {
		c.key(c.edges(), c.scratch(1), c.scratch(2))
		c.arg(max(limit, 0), c.shape.kept)
		for _, page := range c.shape.live {
			before := c.shape.turn - min(c.shape.turn, 1)
			c.key(c.waiting(page), c.lapsed(page), c.seen(c.shape.turn, page), c.seen(before, page))
		}
		return nil
	})
	if err != nil {
		return queue.Look{}, fmt.Errorf("look at queue: %w", err)
	}
	look, err := readLook(r)
	if err != nil {
		return queue.Look{}, fmt.Errorf("look at queue: %w", err)
	}
	return look, nil
}

func readLook(r *reply) (queue.Look, error) {
	look := queue.Look{Epoch: r.uint()}
	settings, err := decodeSettings(r.text())
	if err != nil {
		return queue.Look{}, err
	}
	look.Settings = settings
	look.Sessions, look.Offers = int(r.int()), int(r.int())
	look.Waiting, look.Present = int(r.int()), int(r.int())
	look.DueSessions, look.DueOffers = r.members(), r.members()
	need := int(r.int())
	pieces := r.texts()
	for i := 0; i+1 < len(pieces); i += 2 {
		first, err := strconv.ParseUint(pieces[i], 10, 64)
		if err != nil {
			return queue.Look{}, err
		}
		look.Candidates = appendBits(look.Candidates, first+1, pieces[i+1])
	}
	look.Candidates = look.Candidates[:min(len(look.Candidates), need)]
	look.JoinSlots, look.TurnedAway, look.Admitted = int(r.int()), r.uint(), r.uint()
	look.Now, look.LastTick = r.time(), r.time()
	look.Turn, look.TurnStarted = r.uint(), r.time()
	look.Edges = make(map[string]time.Time)
	reports := r.texts()
	for i := 0; i+1 < len(reports); i += 2 {
		reported, err := strconv.ParseInt(reports[i+1], 10, 64)
		if err != nil {
			return queue.Look{}, err
		}
		look.Edges[reports[i]] = fromMillis(reported)
	}
	if next := r.texts(); len(next) == 2 {
		expiry, err := strconv.ParseFloat(next[1], 64)
		if err != nil {
			return queue.Look{}, err
		}
		look.NextSessionEnd = fromMillis(int64(expiry))
	}
	look.Incarnation, look.Version = r.text(), r.uint()
	return look, r.err
}

// appendBits appends the positions whose bits are set; the first bit stands for first.
func appendBits(list queue.Positions, first uint64, bitmap string) queue.Positions {
	for i := range len(bitmap) {
		for b := bitmap[i]; b != 0; {
			n := bits.LeadingZeros8(b)
			list = append(list, first+uint64(i*8+n))
			b &^= 0x80 >> n
		}
	}
	return list
}

// Commit implements store.Coordination. When the queue has become idle, its pages are swept; if
// that fails, the next idle tick does it.
func (s *Store) Commit(ctx context.Context, id queue.ID, owner string, ttl time.Duration, tick queue.Tick) (store.TickResult, error) {
	if err := store.CheckOwner(owner); err != nil {
		return store.TickResult{}, fmt.Errorf("commit tick: %w", err)
	}
	lists := make([]queue.Positions, 3)
	var texts []any
	var pages []uint64
	for i, positions := range []queue.Positions{tick.EndSessions, tick.Lapse, tick.Offer} {
		lists[i] = ascending(positions)
		text, err := lists[i].MarshalText()
		if err != nil {
			return store.TickResult{}, fmt.Errorf("commit tick: %w", err)
		}
		texts = append(texts, text)
		for _, position := range lists[i] {
			if page := pageOf(position); len(pages) == 0 || pages[len(pages)-1] != page {
				pages = append(pages, page)
			}
		}
	}
	estimate, err := marshalEstimate(tick.Estimate)
	if err != nil {
		return store.TickResult{}, fmt.Errorf("commit tick: %w", err)
	}
	texts = append(texts, estimate)
	slices.Sort(pages)
	pages = slices.Compact(pages)
	r, err := s.run(ctx, commitScript, id, "", tick.Now, func(c *call) error {
		c.key(c.sessions(), c.sessionIDs())
		c.arg(owner, ttl.Milliseconds(), tick.Epoch, tick.Prolong.Milliseconds(), tick.JoinSlots, tick.TurnedAway, tick.Present)
		c.arg(texts...)
		c.arg(len(pages))
		for _, page := range pages {
			c.arg(page)
			c.key(c.fates(page), c.waiting(page), c.lapsed(page), c.missed(page))
		}
		return nil
	})
	if err != nil {
		return store.TickResult{}, fmt.Errorf("commit tick: %w", err)
	}
	result := store.TickResult{Entry: r.ack.Entry, Idle: r.int() == 1}
	r.positions(&result.Offered, &result.Lapsed, &result.Missed, &result.Ended)
	result.Sessions, result.Offers = int(r.int()), int(r.int())
	if r.err != nil {
		return store.TickResult{}, fmt.Errorf("commit tick: %w", r.err)
	}
	if result.Idle && len(r.shape.live) > 0 {
		s.sweep(ctx, id, tick.Now)
	}
	return result, nil
}

// ascending is the list in order and without numbers that are no positions, as scripts want it.
func ascending(positions queue.Positions) queue.Positions {
	list := slices.Clone(positions)
	slices.Sort(list)
	list = slices.Compact(list)
	from, _ := slices.BinarySearch(list, 1)
	to, _ := slices.BinarySearch(list, maxPosition)
	return list[from:to]
}

// sweep drops the bitmaps of an idle queue. It is not needed for anything but memory, so its
// failure is nobody's.
func (s *Store) sweep(ctx context.Context, id queue.ID, now time.Time) {
	_, _ = s.run(ctx, sweepScript, id, "", now, func(c *call) error {
		c.arg(c.shape.kept)
		c.keyPages()
		return nil
	})
}

// keyPages names all bitmaps of all live pages.
func (c *call) keyPages() {
	for _, page := range c.shape.live {
		c.key(c.waiting(page), c.lapsed(page), c.missed(page))
		for turn := c.shape.oldest; turn <= c.shape.turn; turn++ {
			c.key(c.seen(turn, page))
		}
	}
}

// CloseTurn implements store.Coordination.
func (s *Store) CloseTurn(ctx context.Context, id queue.ID, epoch, turn uint64, now time.Time) (int, store.Ack, error) {
	r, err := s.run(ctx, turnScript, id, "", now, func(c *call) error {
		c.key(c.edges(), c.scratch(1), c.scratch(2))
		c.arg(epoch, turn, c.shape.kept)
		for _, page := range c.shape.live {
			c.key(c.waiting(page), c.fates(page), c.lapsed(page), c.missed(page))
			for turn := c.shape.oldest; turn <= c.shape.turn; turn++ {
				c.key(c.seen(turn, page))
			}
		}
		return nil
	})
	if err != nil {
		return 0, store.Ack{}, fmt.Errorf("close turn: %w", err)
	}
	expired := int(r.int())
	if r.err != nil {
		return 0, store.Ack{}, fmt.Errorf("close turn: %w", r.err)
	}
	return expired, r.ack, nil
}
