package main

import (
	"context"
	"errors"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

// errAway is what a caller gets while the store cannot be reached, or when an answer is lost.
var errAway = errors.New("the store does not answer")

// link is an origin's way to the store. It writes into the books what was sent and answered, and
// has other things happen between a tick's look and its commit, as they do in a real origin.
type link struct {
	store.Store
	*world

	// what the last look found
	freeAtLook, limit int
}

// tell reads into the books what the store has logged, and sets their time.
func (l *link) tell(ctx context.Context, now time.Time) error {
	b := l.books
	b.offered = b.offered[:0]
	for {
		entries, err := l.Store.Entries(ctx, l.queue, l.incarnation, b.entry, b.chain, readEntries)
		if err != nil {
			return err
		}
		for _, e := range entries {
			b.read(e)
		}
		if len(entries) < readEntries {
			return nil
		}
	}
}

// readEntries bounds one reading of the log.
const readEntries = 1000

// reach is called first in every call.
func (l *link) reach(now time.Time) error {
	l.events++
	if l.away {
		return errAway
	}
	l.books.now = max(l.books.now, sinceBegan(now))
	return nil
}

func (l *link) Join(ctx context.Context, batch store.JoinBatch) (store.JoinResult, error) {
	if err := l.reach(batch.Now); err != nil {
		return store.JoinResult{}, err
	}
	b := l.books
	before := b.issued()
	result, err := l.Store.Join(ctx, batch)
	if err != nil {
		return result, err
	}
	b.joining = true
	err = l.tell(ctx, batch.Now)
	b.joining = false
	next := before + 1
	for _, j := range result.Joins {
		if j.New {
			if !b.ok(positionsOnce, j.Position == next) {
				b.breaks(positionsOnce, j.Position, "given to a new join after %d", next-1)
			}
			next++
		}
		if j.Position == 0 || j.Position > b.issued() {
			b.breaks(positionsOnce, j.Position, "a join is given a position that the log does not know")
			return result, err
		}
		p := &b.places[j.Position]
		if !j.New && (p.standing == isWaiting || p.standing == isOffered) {
			b.saw(j.Position, b.turn, b.now, b.entry)
		}
		if !b.ok(sameTold, j.ClaimBy.IsZero() == (p.standing != isOffered)) {
			b.breaks(sameTold, j.Position, "a join is answered claimBy %v at a position that is %s", j.ClaimBy, standingNames[p.standing])
		}
		if p.standing == isWaiting {
			b.turnedAway, b.turnedAwaySinceLook = true, true
		}
	}
	if !b.ok(positionsOnce, next == b.issued()+1) {
		b.breaks(positionsOnce, next, "%d positions were issued and not given to anybody", b.issued()+1-next)
	}
	return result, err
}

func (l *link) See(ctx context.Context, batch store.SightingBatch) (store.Ack, error) {
	if err := l.reach(batch.Now); err != nil {
		return store.Ack{}, err
	}
	ack, err := l.Store.See(ctx, batch)
	if err == nil {
		for _, position := range batch.Positions {
			l.books.saw(position, uint32(batch.Turn), l.notedAt[position], batch.AsOf)
		}
		err = l.tell(ctx, batch.Now)
	}
	return ack, err
}

func (l *link) Claim(ctx context.Context, claim store.Claim) (queue.Session, store.Ack, error) {
	if err := l.reach(claim.Now); err != nil {
		return queue.Session{}, store.Ack{}, err
	}
	b, p := l.books, &l.books.places[claim.Position]
	was, until := p.standing, p.until
	session, ack, err := l.Store.Claim(ctx, claim)
	if told := l.tell(ctx, claim.Now); told != nil {
		return session, ack, told
	}
	inTime := was == isOffered && b.now < until+milliseconds(queue.ClaimGrace) || was == isActive && b.now < until
	switch {
	case err == nil:
		if !b.ok(claimsKept, inTime && p.standing == isActive && sinceBegan(session.ExpiresAt) == p.until) {
			b.breaks(claimsKept, claim.Position, "a session until %v for a position that was %s", session.ExpiresAt, standingNames[was])
		}
	case errors.Is(err, store.ErrNotOffered), errors.Is(err, store.ErrOut):
		if !b.ok(claimsKept, !inTime) {
			b.breaks(claimsKept, claim.Position, "refused (%v) while %s, %d ms before its end", err, standingNames[was], until-b.now)
		}
	default:
		b.breaks(claimsKept, claim.Position, "refused: %v", err)
	}
	return session, ack, err
}

func (l *link) Leave(ctx context.Context, id queue.ID, incarnation string, position uint64, now time.Time) (store.Ack, error) {
	if err := l.reach(now); err != nil {
		return store.Ack{}, err
	}
	ack, err := l.Store.Leave(ctx, id, incarnation, position, now)
	if told := l.tell(ctx, now); told != nil {
		return ack, told
	}
	if standing := l.books.places[position].standing; !l.books.ok(sameTold, err != nil || standing >= isEnded) {
		l.books.breaks(sameTold, position, "has left and is %s", standingNames[standing])
	}
	return ack, err
}

func (l *link) EndSession(ctx context.Context, id queue.ID, session string, fate queue.Fate, reason string, now time.Time) (store.Ack, error) {
	if err := l.reach(now); err != nil {
		return store.Ack{}, err
	}
	ack, err := l.Store.EndSession(ctx, id, session, fate, reason, now)
	if err == nil {
		err = l.tell(ctx, now)
	}
	return ack, err
}

func (l *link) Update(ctx context.Context, id queue.ID, version uint64, settings queue.Settings, now time.Time) (store.Meta, store.Ack, error) {
	if err := l.reach(now); err != nil {
		return store.Meta{}, store.Ack{}, err
	}
	meta, ack, err := l.Store.Update(ctx, id, version, settings, now)
	if err == nil {
		err = l.tell(ctx, now)
	}
	return meta, ack, err
}

func (l *link) Acquire(ctx context.Context, id queue.ID, owner string, ttl time.Duration, now time.Time) (uint64, error) {
	if err := l.reach(now); err != nil {
		return 0, err
	}
	epoch, err := l.Store.Acquire(ctx, id, owner, ttl, now)
	if err == nil {
		err = l.tell(ctx, now)
	}
	return epoch, err
}

// Look is what a tick goes by, so the books note what they would expect of it.
func (l *link) Look(ctx context.Context, id queue.ID, limit int, now time.Time) (queue.Look, error) {
	if err := l.reach(now); err != nil {
		return queue.Look{}, err
	}
	look, err := l.Store.Look(ctx, id, limit, now)
	b := l.books
	b.looksNow()
	due := 0
	for second := b.swept; second*1000 <= b.now; second++ {
		for _, position := range b.ends[second] {
			if p := &b.places[position]; p.standing == isActive && p.until/1000 == second {
				due++
			}
		}
	}
	l.freeAtLook = b.free() + due
	l.limit = limit
	return look, err
}

func (l *link) Commit(ctx context.Context, id queue.ID, owner string, ttl time.Duration, tick queue.Tick) (store.TickResult, error) {
	l.meanwhile(len(tick.Offer))
	if err := l.reach(tick.Now); err != nil {
		return store.TickResult{}, err
	}
	b := l.books
	tallied := b.tally
	result, err := l.Store.Commit(ctx, id, owner, ttl, tick)
	if err != nil {
		return result, err
	}
	if err := l.tell(ctx, tick.Now); err != nil {
		return result, err
	}
	b.committed(l.freeAtLook, l.limit)
	b.turnedAway = b.turnedAwaySinceLook
	b.sameList("offers", result.Offered, b.offered)
	ended := len(result.Ended) - (b.tally[isEnded] - tallied[isEnded])
	missed := len(result.Missed) - (b.tally[isMissed] - tallied[isMissed])
	if !b.ok(sameTold, ended == 0 && missed == 0 && result.Sessions == b.tally[isActive] && result.Offers == b.tally[isOffered] && result.Entry == b.entry) {
		b.breaks(sameTold, 0, "a tick answers %d sessions and %d offers, there are %d and %d", result.Sessions, result.Offers, b.tally[isActive], b.tally[isOffered])
	}
	return result, nil
}

func (l *link) CloseTurn(ctx context.Context, id queue.ID, epoch, turn uint64, now time.Time) (int, store.Ack, error) {
	if err := l.reach(now); err != nil {
		return 0, store.Ack{}, err
	}
	b := l.books
	before := b.tally[isExpired]
	expired, ack, err := l.Store.CloseTurn(ctx, id, epoch, turn, now)
	if err != nil {
		return expired, ack, err
	}
	if err := l.tell(ctx, now); err != nil {
		return expired, ack, err
	}
	b.closed(uint32(turn))
	if n := b.tally[isExpired] - before; !b.ok(sameTold, n == expired) {
		b.breaks(sameTold, 0, "a turn's closing expired %d and answers %d", n, expired)
	}
	return expired, ack, nil
}

func (l *link) Settle(ctx context.Context, id queue.ID, now time.Time) error {
	if l.away {
		return errAway
	}
	return l.Store.Settle(ctx, id, now)
}

func (l *link) Remind(ctx context.Context, id queue.ID, at time.Time) error {
	if l.away {
		return errAway
	}
	return l.Store.Remind(ctx, id, at)
}

func (l *link) Due(ctx context.Context, now time.Time, limit int) ([]queue.ID, error) {
	if l.away {
		return nil, errAway
	}
	return l.Store.Due(ctx, now, limit)
}
