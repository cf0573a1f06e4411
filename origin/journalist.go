package origin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

// journalEvery is how often the journal of a queue is written while the queue is coordinated.
const journalEvery = time.Second

// errAstray says that a view tells of entries that the log does not have: the feed is about to
// notice that they were lost.
var errAstray = errors.New("the log is another one than the view's")

// journalist writes the journals of the queues that this origin coordinates, and reads those of all.
// Nobody waits for it: it reads the log by itself, and whoever writes the same at the same time, or
// goes on after it, comes to the same.
type journalist struct {
	store   store.Store
	feed    *feed // where it learns how queues stand
	clock   *storeClock
	metrics *metrics
	logger  *slog.Logger
}

// written is what the journalist knows to be written of a queue's journal; the zero value says that
// it has to be read.
type written struct {
	incarnation string
	queue.Journal
}

// Follow writes a queue's journal every second until ctx ends, and then once more.
func (j *journalist) Follow(ctx context.Context, id queue.ID) {
	defer func() {
		if p := recover(); p != nil {
			j.metrics.panics.Inc()
			j.logger.Error("journalist panicked", "queue", id, "panic", p, "stack", string(debug.Stack()))
		}
	}()
	every := time.NewTicker(journalEvery)
	defer every.Stop()
	var at written
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseWithin)
			defer cancel()
			view, err := j.feed.Current(last, id)
			if err == nil {
				err = j.write(last, view, &at)
			}
			j.failed(id, err)
			return
		case <-every.C:
			if view := j.feed.View(id); view != nil {
				err := j.write(ctx, view, &at)
				if ctx.Err() == nil {
					j.failed(id, err)
				}
			}
		}
	}
}

// write brings the journal up to a view.
func (j *journalist) write(ctx context.Context, view *queue.View, at *written) error {
	ctx, cancel := context.WithTimeout(ctx, releaseWithin)
	defer cancel()
	if at.incarnation != view.Incarnation {
		journal, _, err := j.store.ReadJournal(ctx, view.ID, view.Incarnation, 0)
		if err != nil {
			return fmt.Errorf("read journal: %w", err)
		}
		*at = written{view.Incarnation, journal}
	}
	pages, err := j.rest(ctx, view, at.Journal)
	if err != nil {
		return err
	}
	for _, page := range pages {
		if err := j.store.WriteJournal(ctx, view.ID, view.Incarnation, at.Cursor, page); err != nil {
			*at = written{} // whether it was written is unknown
			return fmt.Errorf("write journal: %w", err)
		}
		if lost := page.Journal.LostEntries - at.LostEntries; lost > 0 {
			j.metrics.journalLost.Add(float64(lost))
			j.logger.Warn("the journal has lost entries of the log", "queue", view.ID, "entries", lost)
		}
		at.Journal = page.Journal
	}
	return nil
}

// rest computes what follows on a journal up to a view, or to a later one where entries in between
// cannot be read any more. It is nothing where the journal is ahead of the view.
func (j *journalist) rest(ctx context.Context, view *queue.View, journal queue.Journal) ([]queue.Page, error) {
	if journal.Entry > view.Number || journal.Cursor == (queue.Cursor{Entry: view.Number, Chain: view.Chain}) {
		return nil, nil
	}
	entries, err := j.between(ctx, journal.Cursor, view)
	if err == nil {
		if pages, ok := journal.Fold(entries, view); ok {
			return pages, nil
		}
	} else if !errors.Is(err, store.ErrTrimmed) && !errors.Is(err, store.ErrRewritten) {
		return nil, err
	}
	if view, err = j.feed.Current(ctx, view.ID); err != nil {
		return nil, err
	}
	return []queue.Page{journal.Lose(view, j.clock.Now())}, nil
}

// between reads the entries after a cursor, up to and with the one of a view.
func (j *journalist) between(ctx context.Context, from queue.Cursor, view *queue.View) ([]queue.Entry, error) {
	var all []queue.Entry
	for from.Entry < view.Number || all == nil {
		entries, err := j.store.Entries(ctx, view.ID, view.Incarnation, from.Entry, from.Chain, readEntries)
		if err != nil {
			return nil, fmt.Errorf("read entries: %w", err)
		}
		entries = entries[:min(uint64(len(entries)), view.Number-from.Entry)]
		if len(entries) == 0 {
			return nil, errAstray
		}
		all = append(all, entries...)
		last := entries[len(entries)-1]
		from = queue.Cursor{Entry: last.Number, Chain: last.Chain}
	}
	if from.Chain != view.Chain {
		return nil, errAstray
	}
	return all, nil
}

// failed notes an error. That another origin has written, or that the queue is gone, is none.
func (j *journalist) failed(id queue.ID, err error) {
	if err == nil || errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrNotFound) {
		return
	}
	j.metrics.storeErrors.WithLabelValues("journal").Inc()
	j.logger.Warn("cannot write the journal", "queue", id, "error", err)
}

// chronicle is a part of a journal.
type chronicle struct {
	series []queue.Minute
	moves  []queue.Move
	lost   uint64 // entries of the log, at most, that the journal does not know
}

// Read returns the last minutes of a queue's journal, the running one included, and some of its moves:
// the first after a number, or with last set the last ones. Both are up to date as of a view, whether
// they have been written or not.
func (j *journalist) Read(ctx context.Context, view *queue.View, minutes, moves int, after uint64, last bool) (chronicle, error) {
	journal, series, err := j.store.ReadJournal(ctx, view.ID, view.Incarnation, minutes)
	if err != nil {
		return chronicle{}, fmt.Errorf("read journal: %w", err)
	}
	pages, err := j.rest(ctx, view, journal)
	if err != nil {
		return chronicle{}, err
	}
	var unwritten []queue.Move
	for _, page := range pages {
		journal = page.Journal
		series = append(series, page.Minutes...)
		unwritten = append(unwritten, page.Moves...)
	}
	if running, ok := journal.RunningMinute(); ok {
		series = append(series, running)
	}
	if last {
		after = journal.LastMove - min(journal.LastMove, uint64(moves))
	}
	kept, err := j.store.ReadMoves(ctx, view.ID, view.Incarnation, after, moves)
	if err != nil {
		return chronicle{}, fmt.Errorf("read moves: %w", err)
	}
	c := chronicle{series: []queue.Minute{}, moves: []queue.Move{}, lost: journal.LostEntries}
	c.series = append(c.series, series[max(len(series)-minutes, 0):]...)
	// Another origin may have written some of the others meanwhile.
	for _, move := range slices.Concat(kept, unwritten) {
		if move.Number > after && len(c.moves) < moves {
			c.moves, after = append(c.moves, move), move.Number
		}
	}
	return c, nil
}
