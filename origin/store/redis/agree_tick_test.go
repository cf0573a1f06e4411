package redis_test

import (
	"slices"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

// leaseTTL is how long leases live, which is less than some silences.
const leaseTTL = 4 * time.Second

const owner = "origin-0"

// acquire takes the lease, and tells which of p.leases it is.
func (p *pair) acquire(owner string, now time.Time) (lease int, err error) {
	var epoch each[uint64]
	_, err = both(p, "Acquire", func(s store.Store) (_ struct{}, err error) {
		epoch[p.index(s)], err = s.Acquire(p.ctx, p.id, owner, leaseTTL, now)
		return struct{}{}, err
	})
	if err != nil {
		return 0, err
	}
	// An epoch is new in both stores, or the same as an earlier one in both.
	for lease, known := range p.leases {
		if known == epoch {
			return lease, nil
		}
		if known[0] == epoch[0] || known[1] == epoch[1] {
			p.t.Fatalf("Acquire: one store gave an earlier epoch, the other a new one")
		}
	}
	p.leases = append(p.leases, epoch)
	return len(p.leases) - 1, nil
}

// acquireLease is an attempt of another origin, as a rule.
func (p *pair) acquireLease() {
	_, _ = p.acquire(pick(p, "owner", "origin-1", owner, "origin-1", ""), p.moment())
}

func (p *pair) look(now time.Time) (queue.Look, error) {
	limit := pick(p, "candidates", 1000, 1000, 1000, 1, 70, 0)
	return both(p, "Look", func(s store.Store) (queue.Look, error) {
		look, err := s.Look(p.ctx, p.id, limit, now)
		look.Epoch = uint64(p.leaseOf(s, look.Epoch))
		return look, err
	})
}

// leaseOf finds the lease by its epoch in one store.
func (p *pair) leaseOf(s store.Store, epoch uint64) int {
	return slices.IndexFunc(p.leases, func(known each[uint64]) bool { return known[p.index(s)] == epoch })
}

// earlierLease draws an earlier lease, or one that never was.
func (p *pair) earlierLease() each[uint64] {
	if len(p.leases) == 0 || p.rarely("no lease", 6) {
		return each[uint64]{}
	}
	return p.leases[len(p.leases)-1-p.upTo("leases ago", min(len(p.leases)-1, 2))]
}

// tickOnce is what a coordinator does: it takes the lease, plans, commits, and closes a turn that is
// due.
func (p *pair) tickOnce() {
	now := p.moment()
	lease, err := p.acquire(owner, now)
	if err != nil {
		return
	}
	look, err := p.look(now)
	if err != nil {
		return
	}
	var tick queue.Tick
	tick, p.pace = queue.Plan(look, p.pace, now)
	if p.rarely("joins in between", 6) {
		p.join()
	}
	p.commitTick(p.leases[lease], owner, tick)
	if queue.TurnDue(look, now) {
		p.endTurn(p.leases[lease], look.Turn, now)
	}
}

// commitAnything commits a tick that no plan makes, or an earlier one again.
func (p *pair) commitAnything() {
	if p.rarely("the last one again", 5) {
		again := p.tick
		if p.rarely("later", 3) {
			again.Now = p.moment()
		}
		p.commitTick(p.tickLease, owner, again)
		return
	}
	// No plan lets an offer lapse after a long silence; this one does.
	p.now = p.now.Add(pick(p, "silence before", 0, 0, 7*time.Second, 9*time.Second, 14*time.Second, 22*time.Second))
	now, lease := p.moment(), p.earlierLease()
	if p.rarely("with the lease", 2) {
		if taken, err := p.acquire(owner, now); err == nil {
			lease = p.leases[taken]
		}
	}
	look, _ := p.look(now)
	tick := queue.Tick{
		Now: now, Prolong: pick(p, "prolong", 0, 0, 0, 2500*time.Millisecond), EndSessions: look.DueSessions, Lapse: look.DueOffers,
		JoinSlots: pick(p, "join slots", 0, 1, 3, 50, -1), TurnedAway: look.TurnedAway - uint64(pick(p, "turned away", 0, 0, 0, 1)),
		Present: p.upTo("present", 5),
	}
	if p.rarely("other endings", 3) {
		tick.EndSessions, tick.Lapse = p.someOf("ended"), p.someOf("lapsed")
	}
	if p.rarely("offers", 2) {
		tick.Offer = p.someOf("offered")
	}
	p.commitTick(lease, pick(p, "owner", owner, owner, owner, owner, owner, "origin-1", "origin-1", ""), tick)
}

func (p *pair) commitTick(lease each[uint64], owner string, tick queue.Tick) {
	// A repetition may or may not repeat the lists.
	repeated := lease == p.tickLease && !tick.Now.After(p.tick.Now)
	result, err := both(p, "Commit", func(s store.Store) (store.TickResult, error) {
		tick.Epoch = lease[p.index(s)]
		result, err := s.Commit(p.ctx, p.id, owner, leaseTTL, tick)
		if repeated {
			result.Offered, result.Lapsed, result.Missed, result.Ended = nil, nil, nil, nil
		}
		return result, err
	})
	if err != nil {
		return
	}
	p.entry = max(p.entry, result.Entry)
	p.meet(result.Offered[:min(len(result.Offered), 10)]...)
	if len(result.Lapsed) > 0 {
		p.meet(result.Lapsed[:min(len(result.Lapsed), 10)]...)
		p.lapse = result.Entry
	}
	if !repeated {
		p.tick, p.tickLease = tick, lease
	}
}

func (p *pair) endTurn(lease each[uint64], turn uint64, now time.Time) {
	_, _ = change(p, "CloseTurn", func(s store.Store) (int, store.Ack, error) {
		expired, ack, err := s.CloseTurn(p.ctx, p.id, lease[p.index(s)], turn, now)
		if p.lose != nil {
			expired = 0 // a repetition does not know it any more
		}
		return expired, ack, err
	})
}

// closeTurns closes the turn that runs, or so many that the absent expire, or one that was.
func (p *pair) closeTurns() {
	if p.rarely("out of turn", 4) {
		look, _ := p.look(p.now)
		p.endTurn(p.earlierLease(), look.Turn-min(look.Turn, uint64(p.upTo("turns ago", 2))), p.moment())
		return
	}
	for range 1 + p.upTo("turns", 13) {
		p.now = p.now.Add(2 * time.Second)
		lease, err := p.acquire(owner, p.now)
		if err != nil {
			return
		}
		look, err := p.look(p.now)
		if err != nil {
			return
		}
		p.endTurn(p.leases[lease], look.Turn, p.now)
	}
}

func (p *pair) release() {
	lease, name := p.earlierLease(), pick(p, "owner", owner, owner, "origin-1", "")
	_, _ = both(p, "Release", func(s store.Store) (struct{}, error) {
		return struct{}{}, s.Release(p.ctx, p.id, name, lease[p.index(s)])
	})
}
