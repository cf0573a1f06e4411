package origin

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
	"waitingroom/origin/wire"
)

// mirror follows one queue.
type mirror struct {
	id   queue.ID
	kick chan struct{} // holds one: the log has grown

	reading sync.Mutex // held while the log is read, so that one reader at a time moves the view

	view   *queue.View // guarded by feed.mu; nil before the first reading
	behind bool        // guarded by feed.mu; the last reading failed
}

// follow reads a queue's log whenever it may have grown, until the queue is gone.
func (f *feed) follow(ctx context.Context, m *mirror) {
	poll := time.NewTimer(livePoll)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.kick:
		case <-poll.C:
		}
		exists, err := f.refresh(ctx, m)
		if err != nil && ctx.Err() == nil {
			f.failed("read", err)
		}
		if !exists && err == nil && f.drop(m) {
			return
		}
		wait := idlePoll*3/4 + rand.N(idlePoll/2) // not all of them at once
		if v := f.View(m.id); err != nil || v != nil && isLive(v, f.clock.Now()) {
			wait = livePoll
		}
		poll.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-time.After(gatherFor):
		}
	}
}

// isLive reports whether something happens in a queue, so that it is worth the while to look at it
// although nothing calls for it.
func isLive(v *queue.View, now time.Time) bool {
	if v.Settings.Asleep(now) || v.Settings.State == queue.Closed && v.Sessions == 0 {
		return false
	}
	return v.Waiting > 0 || v.Offers > 0 || v.Sessions > 0
}

// isDue reports whether time alone has something in store for a queue now.
func isDue(v *queue.View, now time.Time) bool {
	_, due := v.Settings.At(now)
	return due || v.Settings.Over(now)
}

// drop forgets a queue that is gone, unless somebody said meanwhile that it is back.
func (f *feed) drop(m *mirror) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(m.kick) > 0 {
		return false
	}
	delete(f.mirrors, m.id)
	if m.behind {
		f.metrics.behind.Dec()
	}
	f.gone(m.id)
	return true
}

// refresh reads a queue's log to its end, moves the view and tells the edges. exists is false
// when there is no such queue (any more).
func (f *feed) refresh(ctx context.Context, m *mirror) (exists bool, err error) {
	m.reading.Lock()
	defer m.reading.Unlock()
	select {
	case f.reading <- struct{}{}:
		defer func() { <-f.reading }()
	case <-ctx.Done():
		return true, ctx.Err()
	}
	view := f.viewOf(m)
	exists, err = true, nil
	for more := true; more && exists && err == nil; {
		if view == nil {
			view, exists, err = f.readSnapshot(ctx, m)
			more = false
		} else {
			view, more, err = f.readOn(ctx, m, view)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if behind := err != nil && ctx.Err() == nil; behind != m.behind {
		m.behind = behind
		if behind {
			f.metrics.behind.Inc()
		} else {
			f.metrics.behind.Dec()
			// A part of the store was away and is back: of what happened there meanwhile hints may be lost.
			f.kickAllLocked()
		}
	}
	if err == nil {
		f.heardLocked()
	}
	return exists, err
}

func (f *feed) viewOf(m *mirror) *queue.View {
	f.mu.Lock()
	defer f.mu.Unlock()
	return m.view
}

// readOn reads the next entries. A nil view asks for a snapshot.
func (f *feed) readOn(ctx context.Context, m *mirror, view *queue.View) (next *queue.View, more bool, err error) {
	entries, err := f.store.Entries(ctx, m.id, view.Incarnation, view.Number, view.Chain, readEntries)
	switch {
	case errors.Is(err, store.ErrRewritten):
		if err := f.renew(ctx, view); err != nil {
			return view, false, err
		}
		return nil, true, nil
	case errors.Is(err, store.ErrTrimmed), errors.Is(err, store.ErrNotFound):
		return nil, true, nil
	case err != nil:
		return view, false, fmt.Errorf("read entries: %w", err)
	case len(entries) == 0:
		return view, false, nil
	}
	next, ok := view.Apply(entries)
	if !ok {
		return nil, true, nil
	}
	frame, err := encodeFrame(wire.Frame{Entries: &wire.Entries{Queue: m.id, Entries: entries}})
	if err != nil {
		return view, false, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	m.view = next
	f.sendLocked("entries", item{line: frame})
	return next, len(entries) == readEntries, nil
}

var errLostQueue = errors.New("the store has lost the queue")

// isOlder reports whether a snapshot is of a state before the one that a view of the same queue
// has: something was lost, and no generation has begun since.
func isOlder(s queue.Snapshot, than *queue.View) bool {
	if s.Incarnation != than.Incarnation {
		return false
	}
	if running := s.Generations[len(s.Generations)-1]; running != than.Generation() {
		return !slices.Contains(s.Generations, than.Generation())
	}
	return s.Number < than.Number || s.Issued < than.Issued || s.Watermark < than.Watermark
}

// renew has the store begin a new generation of a queue whose entries it has lost, and hands back what
// this origin has read of them. Until that succeeds the view, and what edges are told, stay as they
// are: more is known in them than the store has.
func (f *feed) renew(ctx context.Context, view *queue.View) error {
	meta, ack, err := f.store.Renew(ctx, view, randomName(), f.clock.Now())
	if errors.Is(err, store.ErrNotFound) {
		return nil // the snapshot that follows tells it
	}
	if err != nil {
		return fmt.Errorf("renew queue: %w", err)
	}
	f.logger.Error("the store lost changes of a queue; a new generation has begun", "queue", view.ID,
		"entry", view.Number, "issued", view.Issued, "generation", meta.Generations[len(meta.Generations)-1])
	if ack.Leaderless {
		f.wake(view.ID)
	}
	return nil
}

func (f *feed) readSnapshot(ctx context.Context, m *mirror) (*queue.View, bool, error) {
	before := f.viewOf(m)
	snapshot, err := f.store.Snapshot(ctx, m.id)
	if err == nil && before != nil && isOlder(snapshot, before) {
		if err = f.renew(ctx, before); err == nil {
			snapshot, err = f.store.Snapshot(ctx, m.id)
		}
	}
	if errors.Is(err, store.ErrNotFound) {
		if before != nil {
			// Edges go on with what they know while the store does not say that the queue was
			// deleted; without this the loss of a whole store would take everybody's place.
			deleted, err := f.store.Deleted(ctx, m.id, before.Incarnation)
			if err != nil {
				return nil, true, err
			}
			if !deleted {
				return nil, true, fmt.Errorf("read snapshot of %s: %w", m.id, errLostQueue)
			}
		}
		frame, err := encodeFrame(wire.Frame{Removed: &wire.Removed{Queue: m.id}})
		f.mu.Lock()
		defer f.mu.Unlock()
		if m.view != nil && err == nil {
			f.sendLocked("removed", item{line: frame})
		}
		m.view = nil
		return nil, false, err
	}
	if err != nil {
		return nil, true, fmt.Errorf("read snapshot: %w", err)
	}
	if before != nil {
		f.metrics.resnapshots.Inc()
		if before.Incarnation == snapshot.Incarnation {
			snapshot.Admitted = before.Snapshot().Admitted // the store keeps no rates
		}
	}
	view := queue.NewView(snapshot)
	f.mu.Lock()
	defer f.mu.Unlock()
	m.view = view
	f.sendLocked("snapshot", item{view: view})
	return view, true, nil
}
