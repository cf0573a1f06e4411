package memory

import (
	"cmp"
	"context"
	"slices"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

// journal is what is kept of a queue's journal. The slices of its pages are never changed.
type journal struct {
	queue.Journal
	minutes []queue.Minute
	moves   []queue.Move
}

// ReadJournal implements store.Journal.
func (s *Store) ReadJournal(ctx context.Context, id queue.ID, incarnation string, minutes int) (queue.Journal, []queue.Minute, error) {
	var now queue.Journal
	var last []queue.Minute
	err := s.openJournal(ctx, id, incarnation, func(j *journal) error {
		now = j.Journal
		last = slices.Clone(j.minutes[len(j.minutes)-min(max(minutes, 0), len(j.minutes)):])
		return nil
	})
	return now, last, err
}

// ReadMoves implements store.Journal.
func (s *Store) ReadMoves(ctx context.Context, id queue.ID, incarnation string, after uint64, limit int) ([]queue.Move, error) {
	var list []queue.Move
	err := s.openJournal(ctx, id, incarnation, func(j *journal) error {
		from, _ := slices.BinarySearchFunc(j.moves, after+1, func(m queue.Move, number uint64) int { return cmp.Compare(m.Number, number) })
		list = slices.Clone(j.moves[from:min(from+max(limit, 0), len(j.moves))])
		return nil
	})
	return list, err
}

// WriteJournal implements store.Journal.
func (s *Store) WriteJournal(ctx context.Context, id queue.ID, incarnation string, from queue.Cursor, page queue.Page) error {
	return s.openJournal(ctx, id, incarnation, func(j *journal) error {
		switch j.Cursor {
		case page.Journal.Cursor:
			return nil // repeated
		case from:
			j.Journal = page.Journal
			j.minutes = appendKept(j.minutes, page.Minutes, store.MinutesKept)
			j.moves = appendKept(j.moves, page.Moves, store.MovesKept)
			return nil
		}
		return store.ErrConflict
	})
}

func (s *Store) openJournal(ctx context.Context, id queue.ID, incarnation string, f func(*journal) error) error {
	q, err := s.open(ctx, id)
	if err != nil {
		return err
	}
	defer q.mu.Unlock()
	if q.meta.Incarnation != incarnation {
		return store.ErrNotFound
	}
	return f(&q.journal)
}

// appendKept forgets the oldest in one go once in a while, as tail does.
func appendKept[E any](list, more []E, keep int) []E {
	if len(list) >= 2*keep {
		list = slices.Clone(list[len(list)-keep:])
	}
	return append(list, more...)
}
