package memory

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

const (
	batchesKept   = 256
	batchesKeptOn = time.Minute
)

// batches are the answers to one edge's last batches, by ascending sequence number.
type batches struct {
	answers []answer
	last    uint64 // the highest sequence number
	touched time.Time
}

type answer struct {
	seq    uint64
	at     time.Time
	result store.JoinResult
}

// old reports whether an answer is given no more. Its number is kept, so that its batch is not
// taken for a new one.
func (a *answer) old(now time.Time) bool { return now.Sub(a.at) >= batchesKeptOn }

// tooLow reports whether a sequence number is below those that are remembered.
func (b *batches) tooLow(seq uint64) bool { return b.last >= seq+batchesKept }

// remember adds an answer, and drops what is remembered no more.
func (b *batches) remember(a answer) {
	index, _ := b.find(a.seq)
	b.answers = slices.Insert(b.answers, index, a)
	b.last, b.touched = max(b.last, a.seq), a.at
	n := 0
	for n < len(b.answers) && b.tooLow(b.answers[n].seq) {
		n++
	}
	b.answers = slices.Delete(b.answers, 0, n)
	for i := range b.answers {
		if !b.answers[i].old(a.at) {
			break
		}
		b.answers[i].result = store.JoinResult{}
	}
}

func (b *batches) find(seq uint64) (index int, found bool) {
	return slices.BinarySearchFunc(b.answers, seq, func(a answer, seq uint64) int { return cmp.Compare(a.seq, seq) })
}

// Join implements store.Line.
func (s *Store) Join(ctx context.Context, batch store.JoinBatch) (store.JoinResult, error) {
	if err := batch.Check(); err != nil {
		return store.JoinResult{}, err
	}
	var result store.JoinResult
	ack, err := s.change(ctx, batch.Queue, batch.Now, func(q *state) (err error) {
		result, err = q.join(batch)
		return err
	})
	if err != nil {
		return store.JoinResult{}, err
	}
	result.Ack = ack
	return result, nil
}

func (q *state) join(batch store.JoinBatch) (store.JoinResult, error) {
	remembered := q.batches[batch.Edge]
	if remembered == nil {
		remembered = &batches{}
	}
	if remembered.tooLow(batch.Seq) {
		return store.JoinResult{}, store.ErrBatchExpired
	}
	if index, replay := remembered.find(batch.Seq); replay {
		given := remembered.answers[index]
		if given.old(q.now) {
			return store.JoinResult{}, store.ErrBatchExpired
		}
		given.result.Joins = slices.Clone(given.result.Joins)
		return given.result, nil
	}
	if q.meta.Settings.State == queue.Closed {
		return store.JoinResult{}, store.ErrClosed
	}
	if q.meta.Settings.Identity == queue.IdentityRequired && slices.Contains(batch.Users, store.Key{}) {
		return store.JoinResult{}, store.ErrAnonymous
	}
	result := store.JoinResult{
		Incarnation: q.meta.Incarnation,
		Generation:  q.meta.Generations[len(q.meta.Generations)-1],
		Joins:       make([]store.Joined, len(batch.Users)),
	}
	q.joinAll(batch, result.Joins)
	q.forgetEdges(batch.Edge)
	q.batches[batch.Edge] = remembered
	remembered.remember(answer{batch.Seq, q.now, result})
	result.Joins = slices.Clone(result.Joins)
	return result, nil
}

// forgetEdges drops what is remembered of edges that are gone, when a new one comes.
func (q *state) forgetEdges(edge string) {
	if q.batches[edge] != nil {
		return
	}
	for other, old := range q.batches {
		if q.now.Sub(old.touched) >= time.Hour {
			delete(q.batches, other)
		}
	}
}

func (q *state) joinAll(batch store.JoinBatch, joins []store.Joined) {
	first := q.issued + 1
	if batch.FloorOf == q.meta.Incarnation && batch.Floor > q.issued && batch.Floor-q.issued <= store.MaxFloorRise {
		first = batch.Floor + 1
	}
	// Who comes new is settled first, so that the log tells of the joins before the offers.
	next := first
	for i, user := range batch.Users {
		if position, known := q.place(user); known {
			joins[i].Position = position
			continue
		}
		joins[i] = store.Joined{Position: next, New: true}
		if user != (store.Key{}) {
			q.users[user] = next
			q.named.set(next - 1)
		}
		next++
	}
	if next > first {
		q.issue(next - 1)
		q.append(queue.Entry{Kind: queue.EntryJoined, Issued: q.issued})
	}
	claimBy := q.now.Add(q.meta.Settings.Claim())
	var offered queue.Positions
	turnedAway := false
	for i := range joins {
		j := &joins[i]
		if running := q.sessions[j.Position]; running != nil {
			j.Session = running.Session
			continue
		}
		if !j.New {
			q.see(j.Position, 0, q.log.last)
		} else if q.meta.Settings.State == queue.Open && q.joinSlots > 0 && q.free() > 0 {
			q.joinSlots--
			q.offer(j.Position, claimBy)
			offered = append(offered, j.Position)
		}
		if j.ClaimBy = q.offers[j.Position]; j.ClaimBy.IsZero() {
			q.joinSlots, turnedAway = 0, true
		}
	}
	if turnedAway {
		q.turnedAway++
	}
	if len(offered) > 0 {
		q.append(queue.Entry{
			Kind: queue.EntryOffered, Positions: offered, Until: claimBy,
			Watermark: q.watermark, Issued: q.issued,
		})
	}
}

// place returns the position that a user has already: it waits, or has an offer or a running
// session. A position that was given out earlier in the same batch is one of them.
func (q *state) place(user store.Key) (position uint64, known bool) {
	if user == (store.Key{}) {
		return 0, false
	}
	position, known = q.users[user]
	if !known {
		return 0, false
	}
	switch {
	case position > q.issued:
		return position, true
	case q.fate(position) == queue.Waiting:
		return position, true
	case q.running(position) != nil:
		return position, true
	}
	return 0, false
}

// taken reports whether the map of users keeps a subject from a position: it has the subject at another
// place, which it has not lost, or somebody else at this one.
func (q *state) taken(position uint64, subject store.Key) bool {
	own, known := q.place(subject)
	if known {
		return own != position
	}
	return q.named.has(position - 1)
}

// running returns the session of a position if its expiry has not come.
func (q *state) running(position uint64) *session {
	if s := q.sessions[position]; s != nil && s.ExpiresAt.After(q.now) {
		return s
	}
	return nil
}

// See implements store.Line.
func (s *Store) See(ctx context.Context, batch store.SightingBatch) (store.Ack, error) {
	return s.changeOf(ctx, batch.Queue, batch.Incarnation, batch.Now, func(q *state) error {
		back := 0
		if batch.Turn < q.turn {
			back = int(min(q.turn-batch.Turn, uint64(len(q.kept())-1)))
		}
		for _, position := range batch.Positions {
			if position > 0 && position <= q.issued {
				q.see(position, back, batch.AsOf)
			}
		}
		q.report(batch)
		return nil
	})
}

// report notes as of when an edge has handed in everything, or that it has left.
func (q *state) report(batch store.SightingBatch) {
	at := moment(batch.At)
	if at.After(q.now) {
		at = q.now
	}
	latest := q.edges[batch.Edge]
	switch {
	case at.Before(latest):
	case batch.Leaving:
		delete(q.edges, batch.Edge)
	case batch.Complete:
		q.edges[batch.Edge] = at
	}
}

// Claim implements store.Line.
func (s *Store) Claim(ctx context.Context, claim store.Claim) (queue.Session, store.Ack, error) {
	if err := claim.Check(); err != nil {
		return queue.Session{}, store.Ack{}, err
	}
	var result queue.Session
	ack, err := s.changeOf(ctx, claim.Queue, claim.Incarnation, claim.Now, func(q *state) (err error) {
		result, err = q.claim(claim)
		return err
	})
	return result, ack, err
}

func (q *state) claim(claim store.Claim) (queue.Session, error) {
	p := claim.Position
	if p == 0 || p > q.issued {
		return queue.Session{}, store.ErrNotIssued
	}
	if q.fate(p).Done() {
		switch running := q.running(p); {
		case running == nil:
			return queue.Session{}, store.ErrOut
		case running.unclaimed:
			if q.taken(p, claim.Subject) {
				return queue.Session{}, store.ErrTaken
			}
			running.subject, running.unclaimed = claim.Subject, false
			return running.Session, nil
		case running.subject != claim.Subject:
			return queue.Session{}, store.ErrTaken
		default:
			return running.Session, nil
		}
	}
	if q.meta.Settings.State == queue.Closed {
		return queue.Session{}, store.ErrOut
	}
	claimBy, offered := q.offers[p]
	if !offered || !q.now.Before(claimBy.Add(queue.ClaimGrace)) {
		return queue.Session{}, store.ErrNotOffered
	}
	if q.taken(p, claim.Subject) {
		return queue.Session{}, store.ErrTaken
	}
	if _, taken := q.sessionIDs[claim.SessionID]; taken {
		return queue.Session{}, fmt.Errorf("%w: the session id is in use", store.ErrInvalid)
	}
	q.takeOffer(p)
	q.setFate(p, queue.Claimed)
	started := &session{
		Session: queue.Session{
			Position: p, ID: claim.SessionID,
			StartsAt: q.now, ExpiresAt: q.meta.Settings.SessionEnd(q.now),
		},
		subject: claim.Subject,
	}
	q.sessions[p] = started
	q.sessionIDs[claim.SessionID] = p
	q.dueSessions.add(started.ExpiresAt, p)
	q.totals.Claimed++
	q.append(queue.Entry{
		Kind: queue.EntryClaimed, Positions: queue.Positions{p},
		Session: started.ID, Since: started.StartsAt, Until: started.ExpiresAt,
	})
	return started.Session, nil
}

// Leave implements store.Line.
func (s *Store) Leave(ctx context.Context, id queue.ID, incarnation string, position uint64, now time.Time) (store.Ack, error) {
	return s.changeOf(ctx, id, incarnation, now, func(q *state) error {
		switch {
		case position == 0 || position > q.issued:
			return store.ErrNotIssued
		case q.running(position) != nil:
			return store.ErrRunning
		case q.fate(position).Done():
			return nil
		}
		reason := ""
		if _, offered := q.offers[position]; offered {
			reason = queue.ReasonDeclined
		}
		q.finish(position, queue.Left)
		q.append(queue.Entry{Kind: queue.EntryDone, Positions: queue.Positions{position}, Fate: queue.Left, Reason: reason})
		return nil
	})
}

// Session implements store.Line.
func (s *Store) Session(ctx context.Context, id queue.ID, name string) (queue.Session, error) {
	q, err := s.open(ctx, id)
	if err != nil {
		return queue.Session{}, err
	}
	defer q.mu.Unlock()
	position, running := q.sessionIDs[name]
	if !running {
		return queue.Session{}, store.ErrNoSession
	}
	return q.sessions[position].Session, nil
}

// SessionAt implements store.Line.
func (s *Store) SessionAt(ctx context.Context, id queue.ID, incarnation string, position uint64) (queue.Session, error) {
	q, err := s.open(ctx, id)
	if err != nil {
		return queue.Session{}, err
	}
	defer q.mu.Unlock()
	if q.meta.Incarnation != incarnation {
		return queue.Session{}, store.ErrNotFound
	}
	if running := q.sessions[position]; running != nil {
		return running.Session, nil
	}
	return queue.Session{}, store.ErrNoSession
}

// EndSession implements store.Line.
func (s *Store) EndSession(ctx context.Context, id queue.ID, name string, fate queue.Fate, reason string, now time.Time) (store.Ack, error) {
	if err := store.CheckEnd(fate); err != nil {
		return store.Ack{}, err
	}
	return s.change(ctx, id, now, func(q *state) error {
		position, known := q.sessionIDs[name]
		if !known || q.running(position) == nil {
			return nil
		}
		q.finish(position, fate)
		q.append(queue.Entry{Kind: queue.EntryDone, Positions: queue.Positions{position}, Fate: fate, Reason: reason})
		return nil
	})
}
