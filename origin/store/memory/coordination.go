package memory

import (
	"context"
	"maps"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

// lease says who may tick a queue. Owner is empty when it was given up, and idle says that
// this was because nothing was left to do.
type lease struct {
	owner string
	epoch uint64
	until time.Time
	idle  bool
	// ticked is the Now of the last Commit under this epoch.
	ticked time.Time
}

func (l *lease) live(now time.Time) bool { return l.owner != "" && now.Before(l.until) }

func (l *lease) giveUp(idle bool) { l.owner, l.idle = "", idle }

// Acquire implements store.Coordination.
func (s *Store) Acquire(ctx context.Context, id queue.ID, owner string, ttl time.Duration, now time.Time) (uint64, error) {
	if err := store.CheckOwner(owner); err != nil {
		return 0, err
	}
	var epoch uint64
	_, err := s.change(ctx, id, now, func(q *state) error {
		l := &q.lease
		if l.live(q.now) {
			if l.owner != owner {
				return store.ErrLeaseHeld
			}
			l.until = q.now.Add(ttl)
			epoch = l.epoch
			return nil
		}
		if l.idle {
			q.lastTick = q.now
			q.beginTurn(q.now)
		}
		epoch = s.epoch.Add(1)
		q.lease = lease{owner: owner, epoch: epoch, until: q.now.Add(ttl)}
		return nil
	})
	return epoch, err
}

// Release implements store.Coordination.
func (s *Store) Release(ctx context.Context, id queue.ID, owner string, epoch uint64) error {
	if err := store.CheckOwner(owner); err != nil {
		return err
	}
	q, err := s.open(ctx, id)
	if err != nil {
		return err
	}
	defer q.mu.Unlock()
	if q.lease.owner == owner && q.lease.epoch == epoch {
		q.lease.giveUp(false)
	}
	return nil
}

// Look implements store.Coordination.
func (s *Store) Look(ctx context.Context, id queue.ID, limit int, now time.Time) (queue.Look, error) {
	q, err := s.open(ctx, id)
	if err != nil {
		return queue.Look{}, err
	}
	defer q.mu.Unlock()
	q.advance(now)
	look := queue.Look{
		Epoch: q.lease.epoch, Incarnation: q.meta.Incarnation, Version: q.meta.Version, Settings: q.meta.Settings,
		Sessions: len(q.sessions), Offers: len(q.offers), Waiting: q.waiting, Present: q.present,
		DueSessions: q.dueSessions.by(q.now), DueOffers: q.dueOffers.by(q.now.Add(-queue.ClaimGrace)),
		JoinSlots: q.joinSlots, TurnedAway: q.turnedAway, Admitted: uint64(q.totals.Admitted), LastTick: q.lastTick,
		Now: q.now, Turn: q.turn, TurnStarted: q.turnStarted, Edges: maps.Clone(q.edges),
		NextSessionEnd: q.dueSessions.first(),
	}
	if q.meta.Settings.State == queue.Open {
		free := queue.FreeSlots(q.meta.Settings.Capacity,
			look.Sessions-len(look.DueSessions), look.Offers-len(look.DueOffers))
		look.Candidates = q.candidates(min(free, limit))
	}
	return look, nil
}

// Commit implements store.Coordination.
func (s *Store) Commit(ctx context.Context, id queue.ID, owner string, ttl time.Duration, tick queue.Tick) (store.TickResult, error) {
	if err := store.CheckOwner(owner); err != nil {
		return store.TickResult{}, err
	}
	var result store.TickResult
	tick.Now = moment(tick.Now)
	_, err := s.change(ctx, id, tick.Now, func(q *state) error {
		l := &q.lease
		repeated := l.epoch == tick.Epoch && !tick.Now.After(l.ticked)
		switch {
		case l.epoch != tick.Epoch || tick.Epoch == 0:
			return store.ErrLeaseLost
		case l.owner == "" && l.idle && repeated:
			result.Idle = true
		case l.owner != owner:
			return store.ErrLeaseLost
		default:
			l.until = q.now.Add(ttl)
			if repeated {
				break
			}
			l.ticked = tick.Now
			q.tick(tick, &result)
			if q.isIdle() {
				l.giveUp(true)
				result.Idle = true
			}
		}
		result.Entry, result.Sessions, result.Offers = q.log.last, len(q.sessions), len(q.offers)
		return nil
	})
	if err != nil {
		return store.TickResult{}, err
	}
	return result, nil
}

func (q *state) isIdle() bool {
	if q.meta.Settings.State == queue.Closed || q.meta.Settings.Asleep(q.now) {
		return true
	}
	return len(q.offers) == 0 && q.waiting == 0
}

func (q *state) tick(tick queue.Tick, result *store.TickResult) {
	q.lastTick = q.now
	q.totals.Present = tick.Present
	q.prolong(tick.Prolong.Truncate(time.Millisecond))
	for _, position := range tick.EndSessions {
		if running := q.sessions[position]; running != nil && q.running(position) == nil {
			q.finish(position, queue.Ended)
			result.Ended = append(result.Ended, position)
		}
	}
	q.done(result.Ended, queue.Ended, queue.ReasonWindow)
	for _, position := range tick.Lapse {
		claimBy, running := q.offers[position]
		if !running || q.now.Before(claimBy.Add(queue.ClaimGrace)) {
			continue
		}
		q.totals.MissedOffers++
		if q.misses[position]+1 >= q.meta.Settings.MaxMissedOffers {
			q.finish(position, queue.Missed)
			result.Missed = append(result.Missed, position)
			continue
		}
		q.misses[position]++
		q.takeOffer(position)
		q.wait(position)
		q.lapsed.set(position - 1)
		result.Lapsed = append(result.Lapsed, position)
	}
	if len(result.Lapsed) > 0 {
		q.append(queue.Entry{Kind: queue.EntryLapsed, Positions: result.Lapsed})
		for _, position := range result.Lapsed {
			q.lapses[position] = q.log.last
		}
	}
	q.done(result.Missed, queue.Missed, queue.ReasonMissed)

	open := q.meta.Settings.State == queue.Open
	claimBy := q.now.Add(q.meta.Settings.Claim())
	for _, position := range tick.Offer {
		if open && q.free() > 0 && position > 0 && q.inLine.has(position-1) {
			q.offer(position, claimBy)
			result.Offered = append(result.Offered, position)
		}
	}
	if len(result.Offered) > 0 {
		q.append(queue.Entry{
			Kind: queue.EntryOffered, Positions: result.Offered, Until: claimBy,
			Watermark: q.watermark, Issued: q.issued,
		})
	}
	if tick.Estimate != nil {
		q.estimate = tick.Estimate
		q.append(queue.Entry{Kind: queue.EntryEstimate, Estimate: tick.Estimate})
	}
	q.joinSlots = 0
	if open && tick.TurnedAway == q.turnedAway {
		q.joinSlots = max(min(tick.JoinSlots, q.free()), 0)
	}
}

// prolong gives every running offer the time of an interruption again, and the running turn a
// fresh start.
func (q *state) prolong(by time.Duration) {
	if by <= 0 {
		return
	}
	q.turnStarted = q.now
	if len(q.offers) == 0 {
		return
	}
	for position, claimBy := range q.offers {
		q.offers[position] = claimBy.Add(by)
	}
	q.dueOffers.move(by)
	q.append(queue.Entry{Kind: queue.EntryProlonged, Since: q.now.Add(-by), Until: q.now})
}

// done logs positions that came to their last fate.
func (q *state) done(positions queue.Positions, fate queue.Fate, reason string) {
	if len(positions) > 0 {
		q.append(queue.Entry{Kind: queue.EntryDone, Positions: positions, Fate: fate, Reason: reason})
	}
}

// CloseTurn implements store.Coordination.
func (s *Store) CloseTurn(ctx context.Context, id queue.ID, epoch, turn uint64, now time.Time) (int, store.Ack, error) {
	expired := 0
	ack, err := s.change(ctx, id, now, func(q *state) error {
		if q.lease.epoch != epoch || q.lease.owner == "" {
			return store.ErrLeaseLost
		}
		if q.turn != turn {
			return nil
		}
		if q.turn-q.afresh > q.meta.Settings.HoldTurns() && q.meta.Settings.HoldRuns() {
			absent := q.absent()
			for _, position := range absent {
				q.finish(position, queue.Expired)
			}
			q.done(absent, queue.Expired, queue.ReasonAbsent)
			expired = len(absent)
		}
		for edge, reported := range q.edges {
			if q.now.Sub(reported) >= queue.VanishedEdge {
				delete(q.edges, edge)
			}
		}
		q.beginTurn(queue.NextTurn(q.turnStarted, q.meta.Settings.TurnLength(), q.now))
		return nil
	})
	return expired, ack, err
}
