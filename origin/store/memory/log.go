package memory

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

// tail holds the last entries of a queue's log.
type tail struct {
	keep    int
	last    uint64
	chain   string        // of the entry last: random, because this log is never rewritten
	entries []queue.Entry // the last of them has the number last
}

func (j *tail) append(e queue.Entry) {
	j.last++
	e.Number = j.last
	j.chain = strconv.FormatUint(rand.Uint64(), 36)
	e.Chain = j.chain
	// Trimmed in one go once in a while, so that an entry is moved less than once on the average.
	if len(j.entries) >= 2*j.keep {
		j.entries = slices.Clone(j.entries[len(j.entries)-j.keep:])
	}
	j.entries = append(j.entries, e)
}

// lost reports whether the log does not have an entry any more that somebody has read.
func (j *tail) lost(number uint64, chain string) bool {
	if number > j.last {
		return true
	}
	missing := int(j.last - number)
	return missing < len(j.entries) && j.entries[len(j.entries)-1-missing].Chain != chain
}

// begin forgets all entries, and goes on above a number and their own.
func (j *tail) begin(above uint64) {
	j.entries, j.last = nil, max(j.last, above)
}

func (j *tail) after(number uint64, chain string, limit int) ([]queue.Entry, error) {
	switch {
	case chain != "" && (number > j.last || number == j.last && chain != j.chain):
		return nil, store.ErrRewritten
	case number >= j.last:
		return nil, nil
	}
	missing := j.last - number
	if missing > uint64(min(len(j.entries), j.keep)) {
		return nil, store.ErrTrimmed
	}
	from := len(j.entries) - int(missing)
	switch {
	case chain == "" || number == 0:
	case from == 0:
		return nil, store.ErrTrimmed
	case j.entries[from-1].Chain != chain:
		return nil, store.ErrRewritten
	}
	return slices.Clone(j.entries[from:min(from+max(limit, 0), len(j.entries))]), nil
}

// Snapshot implements store.Log.
func (s *Store) Snapshot(ctx context.Context, id queue.ID) (queue.Snapshot, error) {
	q, err := s.open(ctx, id)
	if err != nil {
		return queue.Snapshot{}, err
	}
	defer q.mu.Unlock()
	snapshot := queue.Snapshot{
		ID: id, Incarnation: q.meta.Incarnation, Generations: q.meta.Generations,
		Number: q.log.last, Chain: q.log.chain, Version: q.meta.Version, CreatedAt: q.meta.CreatedAt, Settings: q.meta.Settings,
		Issued: q.issued, Watermark: q.watermark, Turn: q.turn, Estimate: q.estimate,
		Fates:    make([]byte, (q.issued+1)/2),
		Offers:   make([]queue.Offer, 0, len(q.offers)),
		Sessions: make([]queue.Session, 0, len(q.sessions)),
	}
	for i, page := range q.fates {
		if from := i * pageSize / 2; from < len(snapshot.Fates) {
			copy(snapshot.Fates[from:], page)
		}
	}
	for position, claimBy := range q.offers {
		snapshot.Offers = append(snapshot.Offers, queue.Offer{Position: position, ClaimBy: claimBy})
	}
	for _, running := range q.sessions {
		snapshot.Sessions = append(snapshot.Sessions, running.Session)
	}
	slices.SortFunc(snapshot.Offers, func(a, b queue.Offer) int { return cmp.Compare(a.Position, b.Position) })
	slices.SortFunc(snapshot.Sessions, func(a, b queue.Session) int { return cmp.Compare(a.Position, b.Position) })
	return snapshot, nil
}

// Entries implements store.Log.
func (s *Store) Entries(ctx context.Context, id queue.ID, incarnation string, after uint64, chain string, limit int) ([]queue.Entry, error) {
	q, err := s.open(ctx, id)
	if err != nil {
		return nil, err
	}
	defer q.mu.Unlock()
	if q.meta.Incarnation != incarnation {
		return nil, store.ErrNotFound
	}
	return q.log.after(after, chain, limit)
}

// reader is one call of Hints. What it has not been told yet is a set, bounded by the number of
// queues and tenants.
type reader struct {
	mu      sync.Mutex
	pending map[queue.ID]struct{}
	wake    chan struct{} // holds one
}

func (r *reader) nudge() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// hint tells every reader that a queue's log has changed.
func (s *Store) hint(id queue.ID) {
	s.hintMu.Lock()
	defer s.hintMu.Unlock()
	for r := range s.readers {
		r.mu.Lock()
		r.pending[id] = struct{}{}
		r.mu.Unlock()
		r.nudge()
	}
}

// Hints implements store.Log.
func (s *Store) Hints(ctx context.Context, hint func(id queue.ID)) error {
	r := &reader{pending: make(map[queue.ID]struct{}), wake: make(chan struct{}, 1)}
	s.hintMu.Lock()
	if s.readers == nil {
		s.readers = make(map[*reader]struct{})
	}
	s.readers[r] = struct{}{}
	closed := s.closed
	s.hintMu.Unlock()
	if !closed {
		hint(store.Listening)
	}
	defer func() {
		s.hintMu.Lock()
		delete(s.readers, r)
		s.hintMu.Unlock()
	}()
	for !closed {
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		}
		r.mu.Lock()
		pending := r.pending
		r.pending = make(map[queue.ID]struct{})
		r.mu.Unlock()
		for id := range pending {
			hint(id)
		}
		s.hintMu.Lock()
		closed = s.closed
		s.hintMu.Unlock()
	}
	return errClosed
}

// Remind implements store.Schedule.
func (s *Store) Remind(ctx context.Context, id queue.ID, at time.Time) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reminded == nil {
		s.reminded = make(map[queue.ID]time.Time)
	}
	at = moment(at)
	if earlier, ok := s.reminded[id]; !ok || at.Before(earlier) {
		s.reminded[id] = at
	}
	return nil
}

// Due implements store.Schedule.
func (s *Store) Due(ctx context.Context, now time.Time, limit int) ([]queue.ID, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	var ids []queue.ID
	for id, at := range s.reminded {
		if !at.After(now) {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b queue.ID) int {
		if c := s.reminded[a].Compare(s.reminded[b]); c != 0 {
			return c
		}
		return cmp.Compare(a, b)
	})
	return ids[:min(len(ids), max(limit, 0))], nil
}

// Settle implements store.Schedule.
func (s *Store) Settle(ctx context.Context, id queue.ID, now time.Time) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, ok := s.reminded[id]; ok && !at.After(now) {
		delete(s.reminded, id)
	}
	return nil
}
