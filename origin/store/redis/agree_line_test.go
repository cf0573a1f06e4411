package redis_test

import (
	"pgregory.net/rapid"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

// join hands in a batch, or an earlier one again.
func (p *pair) join() {
	if len(p.batches) > 0 && p.rarely("a replay", 5) {
		p.joinBatch(rapid.SampledFrom(p.batches).Draw(p.t, "replayed"))
		return
	}
	batch := store.JoinBatch{Edge: pick(p, "edge", "edge-0", "edge-1"), FloorOf: p.incarnation()}
	if p.rarely("of no edge", 25) {
		batch.Edge = ""
	}
	// Numbers may be left out, and come later.
	batch.Seq = p.seqs[batch.Edge] + pick[uint64](p, "number further", 1, 1, 1, 1, 2, 3, 300)
	if behind := pick[uint64](p, "number behind", 0, 0, 0, 0, 0, 0, 1, 2, 250, 290); behind < batch.Seq {
		batch.Seq -= behind
	}
	for _, other := range p.batches {
		if other.Edge == batch.Edge && other.Seq == batch.Seq { // one number, one batch
			p.joinBatch(other)
			return
		}
	}
	p.seqs[batch.Edge] = max(p.seqs[batch.Edge], batch.Seq)
	switch p.upTo("kind of batch", 9) {
	case 8:
		batch.Users = make([]store.Key, p.upTo("fans", 3000))
	case 9: // a floor, sometimes one that is not believed
		batch.Users = make([]store.Key, p.upTo("fans", 2))
		batch.Floor = p.issued + pick[uint64](p, "floor", 1, 5, 1100, 66_000, 131_000, store.MaxFloorRise+1)
	default:
		for range p.upTo("fans", 8) {
			batch.Users = append(batch.Users, p.user("user"))
		}
	}
	p.batches = append(p.batches, batch)
	p.joinBatch(batch)
}

func (p *pair) joinBatch(batch store.JoinBatch) {
	batch.Queue, batch.Now = p.id, p.moment()
	result, err := both(p, "Join", func(s store.Store) (store.JoinResult, error) { return s.Join(p.ctx, batch) })
	if err != nil {
		return
	}
	for i, joined := range result.Joins {
		if user := batch.Users[i]; user != (store.Key{}) {
			p.owners[joined.Position] = user
		}
		p.issued = max(p.issued, joined.Position)
		if !joined.ClaimBy.IsZero() {
			p.meet(joined.Position)
		}
	}
}

// see hands in sightings, of this turn or an earlier one.
func (p *pair) see() {
	look, err := p.look(p.now)
	if err != nil {
		look.Turn = 1
	}
	batch := store.SightingBatch{
		Queue: p.id, Incarnation: p.incarnation(), Edge: pick(p, "edge", "edge-0", "edge-1", "edge-2"),
		Turn: look.Turn - min(look.Turn, pick[uint64](p, "turns ago", 0, 0, 0, 0, 1, 1, 2, 5, 40)), Positions: p.someOf("seen"),
		AsOf:     max(p.entry, 3) - uint64(pick(p, "entries ago", 0, 0, 0, 1, 2, 3)),
		Complete: p.rarely("complete", 2), Leaving: p.rarely("leaving", 6), At: p.moment(), Now: p.moment(),
	}
	if p.rarely("a turn to come", 12) {
		batch.Turn += 2
	}
	p.acked("See", func(s store.Store) (store.Ack, error) { return s.See(p.ctx, batch) })
}

// claim claims offers, sessions and what is neither, by its user, somebody else, or one who has
// another place.
func (p *pair) claim() {
	claim := store.Claim{Queue: p.id, Incarnation: p.incarnation(), Position: p.position("position"), Now: p.moment()}
	claim.Subject = p.owners[claim.Position]
	if p.rarely("somebody else", 3) {
		claim.Subject = p.user("subject")
	}
	if claim.Subject == (store.Key{}) {
		claim.Subject = store.Key{255, byte(p.upTo("stranger", 1))}
	}
	claim.SessionID = p.name("session")
	if p.rarely("no session id", 25) {
		claim.SessionID = ""
	} else if len(p.sessions) > 0 && p.rarely("a session id again", 15) {
		// One that runs: those that ended are the caller's not to give again.
		if last := p.sessions[len(p.sessions)-1]; p.runs(last) {
			claim.SessionID = last
		}
	}
	session, err := change(p, "Claim", func(s store.Store) (queue.Session, store.Ack, error) { return s.Claim(p.ctx, claim) })
	if err == nil {
		p.meet(session.Position)
		p.sessions = append(p.sessions, session.ID)
	}
}

func (p *pair) leave() {
	position, inc, now := p.position("position"), p.incarnation(), p.moment()
	p.acked("Leave", func(s store.Store) (store.Ack, error) { return s.Leave(p.ctx, p.id, inc, position, now) })
}

func (p *pair) end() {
	session, now := p.session(), p.moment()
	fate, reason := queue.Ended, queue.ReasonReleased
	if p.rarely("left", 3) {
		fate, reason = queue.Left, queue.ReasonLeft
	} else if p.rarely("another fate", 8) {
		fate = pick(p, "fate", queue.Missed, queue.Waiting, queue.Claimed, queue.Expired)
	}
	p.acked("EndSession", func(s store.Store) (store.Ack, error) {
		return s.EndSession(p.ctx, p.id, session, fate, reason, now)
	})
}
