// Package memory is the embedded store: everything of one process's queues, in its memory. It
// suits the all-in-one program, tests and simulations; what it holds ends with the process.
//
// A queue costs one bit per position and kept turn, four bits of fate, and a record only for
// users with an id, running offers, running sessions and missed offers. Whoever asks for
// candidates or closes a turn pays for a scan over words of 64 positions; everything else is
// independent of how many wait.
package memory

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

// DefaultLogEntries is how many entries of a queue's log are kept.
const DefaultLogEntries = 100_000

// Store is a store.Store for one process. The zero value is ready for use; its fields are set
// before that and not changed after.
type Store struct {
	// Clock tells the time; nil means time.Now.
	Clock func() time.Time
	// LogEntries is how many entries of each queue's log are kept; 0 means DefaultLogEntries.
	LogEntries int

	mu       sync.RWMutex // guards what follows; never taken while a state's mutex is held
	queues   map[queue.ID]*state
	deleted  map[queue.ID]string // the last incarnation of those that were deleted
	lists    map[string]*revocations
	reminded map[queue.ID]time.Time
	boot     string // tells cursors of this process from those of an earlier one

	// epoch is the highest given out, over all queues, so that none repeats.
	epoch atomic.Uint64

	hintMu  sync.Mutex // guards what follows; taken last
	readers map[*reader]struct{}
	closed  bool
}

var _ store.Store = (*Store)(nil)

var errClosed = errors.New("memory store is closed")

// moment cuts a time to the precision of the store.
func moment(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return time.UnixMilli(t.UnixMilli()).UTC()
}

// Now implements store.Clock.
func (s *Store) Now(ctx context.Context) (time.Time, error) {
	if err := ctx.Err(); err != nil {
		return time.Time{}, err
	}
	if s.Clock != nil {
		return moment(s.Clock()), nil
	}
	return moment(time.Now()), nil
}

// Close ends the calls of Hints.
func (s *Store) Close() error {
	s.hintMu.Lock()
	defer s.hintMu.Unlock()
	s.closed = true
	for r := range s.readers {
		r.nudge()
	}
	return nil
}

// Create implements store.Queues.
func (s *Store) Create(ctx context.Context, id queue.ID, incarnation, generation string, settings queue.Settings, now time.Time) (store.Meta, store.Ack, error) {
	if err := ctx.Err(); err != nil {
		return store.Meta{}, store.Ack{}, err
	}
	if err := store.CheckNames(incarnation, generation); err != nil {
		return store.Meta{}, store.Ack{}, err
	}
	settings.ReturnOrigins = slices.Clone(settings.ReturnOrigins)
	s.create(id, incarnation, generation, settings, moment(now))
	var meta store.Meta
	ack, err := s.change(ctx, id, now, func(q *state) error {
		if q.meta.Incarnation != incarnation {
			return store.ErrExists
		}
		meta = q.meta
		return nil
	})
	return meta, ack, err
}

// create makes a queue if there is none of that id.
func (s *Store) create(id queue.ID, incarnation, generation string, settings queue.Settings, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.queues[id] != nil {
		return
	}
	keep := s.LogEntries
	if keep <= 0 {
		keep = DefaultLogEntries
	}
	if s.queues == nil {
		s.queues = make(map[queue.ID]*state)
	}
	s.queues[id] = newState(store.Meta{
		ID: id, Incarnation: incarnation, Generations: []string{generation},
		CreatedAt: now, Version: 1, Settings: settings,
	}, keep)
	s.hint(id)
}

// open returns a queue with its mutex held; the caller unlocks it.
func (s *Store) open(ctx context.Context, id queue.ID) (*state, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.RLock()
	q := s.queues[id]
	s.mu.RUnlock()
	if q == nil {
		return nil, store.ErrNotFound
	}
	q.mu.Lock()
	if q.deleted {
		q.mu.Unlock()
		return nil, store.ErrNotFound
	}
	return q, nil
}

// change runs one atomic change of a queue, which sees the time in q.now, and hints at it. A change
// that fails leaves the queue's time as it was.
func (s *Store) change(ctx context.Context, id queue.ID, now time.Time, f func(q *state) error) (store.Ack, error) {
	q, err := s.open(ctx, id)
	if err != nil {
		return store.Ack{}, err
	}
	defer q.mu.Unlock()
	before, latest := q.log.last, q.now
	q.advance(now)
	if err := f(q); err != nil {
		q.now = latest
		return store.Ack{}, err
	}
	if q.log.last != before {
		s.hint(id)
	}
	return q.ack(), nil
}

// changeOf is change for a method that names an incarnation.
func (s *Store) changeOf(ctx context.Context, id queue.ID, incarnation string, now time.Time, f func(q *state) error) (store.Ack, error) {
	return s.change(ctx, id, now, func(q *state) error {
		if q.meta.Incarnation != incarnation {
			return store.ErrNotFound
		}
		return f(q)
	})
}

// Get implements store.Queues.
func (s *Store) Get(ctx context.Context, id queue.ID) (store.Meta, error) {
	q, err := s.open(ctx, id)
	if err != nil {
		return store.Meta{}, err
	}
	defer q.mu.Unlock()
	return q.meta, nil
}

// Names implements store.Queues.
func (s *Store) Names(ctx context.Context, tenant string) ([]queue.ID, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.RLock()
	var ids []queue.ID
	for id := range s.queues {
		if id.Tenant() == tenant {
			ids = append(ids, id)
		}
	}
	s.mu.RUnlock()
	slices.Sort(ids)
	return ids, nil
}

// List implements store.Queues.
func (s *Store) List(ctx context.Context, tenant string) ([]store.Meta, error) {
	ids, err := s.Names(ctx, tenant)
	if err != nil {
		return nil, err
	}
	list := []store.Meta{}
	for _, id := range ids {
		meta, err := s.Get(ctx, id)
		if errors.Is(err, store.ErrNotFound) {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		list = append(list, meta)
	}
	return list, nil
}

// Update implements store.Queues.
func (s *Store) Update(ctx context.Context, id queue.ID, version uint64, settings queue.Settings, now time.Time) (store.Meta, store.Ack, error) {
	var meta store.Meta
	ack, err := s.change(ctx, id, now, func(q *state) error {
		if err := q.update(version, settings); err != nil {
			return err
		}
		meta = q.meta
		return nil
	})
	return meta, ack, err
}

// Delete implements store.Queues.
func (s *Store) Delete(ctx context.Context, id queue.ID, incarnation string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.queues[id]
	if q == nil {
		return store.ErrNotFound
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.meta.Incarnation != incarnation:
		return store.ErrNotFound
	case q.meta.Settings.State != queue.Closed:
		return store.ErrNotClosed
	case len(q.sessions) > 0:
		return store.ErrRunning
	}
	q.deleted = true
	if s.deleted == nil {
		s.deleted = make(map[queue.ID]string)
	}
	s.deleted[id] = incarnation
	delete(s.queues, id)
	delete(s.reminded, id)
	s.hint(id)
	return nil
}

// Deleted implements store.Queues.
func (s *Store) Deleted(ctx context.Context, id queue.ID, incarnation string) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	last, deleted := s.deleted[id]
	return deleted && last == incarnation, nil
}

// Counts implements store.Queues.
func (s *Store) Counts(ctx context.Context, id queue.ID) (store.Counts, error) {
	q, err := s.open(ctx, id)
	if err != nil {
		return store.Counts{}, err
	}
	defer q.mu.Unlock()
	counts := q.totals
	counts.Issued, counts.Watermark = q.issued, q.watermark
	counts.Waiting, counts.Offers, counts.Sessions = q.waiting, len(q.offers), len(q.sessions)
	return counts, nil
}

// bootName returns the name of this process's cursors; the caller holds s.mu.
func (s *Store) bootName() string {
	if s.boot == "" {
		s.boot = rand.Text()
	}
	return s.boot
}
