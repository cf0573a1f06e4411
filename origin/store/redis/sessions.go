package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

// maxPosition bounds positions to what a script can count with; anything above was not issued.
const maxPosition = 1 << 53

// checked is the page to name for a position. One out of range becomes 0, which the script refuses
// after it has looked for the queue.
func checked(position uint64) (inRange, page uint64) {
	if position == 0 || position >= maxPosition {
		return 0, 0
	}
	return position, pageOf(position)
}

// Claim implements store.Line. It is one call of a script; only a subject whose place in the map of users
// lies in another page costs a second one.
func (s *Store) Claim(ctx context.Context, claim store.Claim) (queue.Session, store.Ack, error) {
	if err := claim.Check(); err != nil {
		return queue.Session{}, store.Ack{}, fmt.Errorf("claim position: %w", err)
	}
	position, page := checked(claim.Position)
	r, err := s.runOf(ctx, claimScript, claim.Queue, claim.Incarnation, claim.Now, func(c *call) error {
		c.key(c.sessions(), c.sessionIDs(), c.fates(page), c.missed(page), c.users(bucketOf(claim.Subject)), c.named(page))
		c.arg(position, claim.Subject[:], claim.SessionID, len(c.need))
		for _, other := range c.need {
			c.arg(other)
			c.key(c.fates(other))
		}
		return nil
	})
	if err != nil {
		return queue.Session{}, store.Ack{}, fmt.Errorf("claim position: %w", err)
	}
	session := queue.Session{Position: position, ID: r.text(), StartsAt: r.time(), ExpiresAt: r.time()}
	if r.err != nil {
		return queue.Session{}, store.Ack{}, fmt.Errorf("claim position: %w", r.err)
	}
	return session, r.ack, nil
}

// Leave implements store.Line.
func (s *Store) Leave(ctx context.Context, id queue.ID, incarnation string, position uint64, now time.Time) (store.Ack, error) {
	position, page := checked(position)
	r, err := s.runOf(ctx, leaveScript, id, incarnation, now, func(c *call) error {
		c.key(c.sessions(), c.fates(page), c.missed(page), c.waiting(page), c.lapsed(page))
		c.arg(position)
		return nil
	})
	if err != nil {
		return store.Ack{}, fmt.Errorf("leave queue: %w", err)
	}
	return r.ack, nil
}

// Session implements store.Line.
func (s *Store) Session(ctx context.Context, id queue.ID, session string) (queue.Session, error) {
	if session == "" {
		return queue.Session{}, fmt.Errorf("find session: %w", store.ErrNoSession)
	}
	return s.findSession(ctx, id, "", session, 0)
}

// SessionAt implements store.Line.
func (s *Store) SessionAt(ctx context.Context, id queue.ID, incarnation string, position uint64) (queue.Session, error) {
	if incarnation == "" {
		return queue.Session{}, fmt.Errorf("find session: %w", store.ErrNotFound)
	}
	position, _ = checked(position)
	return s.findSession(ctx, id, incarnation, "", position)
}

func (s *Store) findSession(ctx context.Context, id queue.ID, incarnation, name string, position uint64) (queue.Session, error) {
	r, err := s.run(ctx, sessionScript, id, incarnation, time.Time{}, func(c *call) error {
		c.key(c.sessions(), c.sessionIDs())
		c.arg(name, position)
		return nil
	})
	if err != nil {
		return queue.Session{}, fmt.Errorf("find session: %w", err)
	}
	session := queue.Session{Position: r.uint(), ID: r.text(), StartsAt: r.time(), ExpiresAt: r.time()}
	if r.err != nil {
		return queue.Session{}, fmt.Errorf("find session: %w", r.err)
	}
	return session, nil
}

// EndSession implements store.Line. The position is read first, because the script's keys depend
// on its page; a session never has another one.
func (s *Store) EndSession(ctx context.Context, id queue.ID, session string, fate queue.Fate, reason string, now time.Time) (store.Ack, error) {
	ack, err := s.endSession(ctx, id, session, fate, reason, now)
	if err != nil {
		return store.Ack{}, fmt.Errorf("end session: %w", err)
	}
	return ack, nil
}

func (s *Store) endSession(ctx context.Context, id queue.ID, session string, fate queue.Fate, reason string, now time.Time) (store.Ack, error) {
	if err := store.CheckEnd(fate); err != nil {
		return store.Ack{}, err
	}
	var position uint64
	var text string
	err := s.try(ctx, func(ctx context.Context) (err error) {
		text, err = s.client.HGet(ctx, keysOf(id).sessionIDs(), session).Result()
		return err
	})
	switch {
	case errors.Is(err, goredis.Nil):
	case err != nil:
		return store.Ack{}, err
	default:
		if position, err = strconv.ParseUint(text, 10, 64); err != nil {
			return store.Ack{}, err
		}
	}
	position, page := checked(position)
	r, err := s.run(ctx, endScript, id, "", now, func(c *call) error {
		c.key(c.sessions(), c.sessionIDs(), c.fates(page))
		c.arg(position, session, int(fate), reason)
		return nil
	})
	if err != nil {
		return store.Ack{}, err
	}
	return r.ack, nil
}
