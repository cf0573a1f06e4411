package main

import (
	"fmt"

	"waitingroom/origin/queue"
)

// readLogEvery is how often the log is read and the view moved on.
const readLogEvery = 100

// feed is the log as origins read it: the newest view, and the steps to it that edges which lag
// have yet to be shown.
type feed struct {
	view  *queue.View
	steps []step
	first int // the number of the first step that is kept
}

// step is one reading of the log.
type step struct {
	at     int32
	view   *queue.View
	lapses []queue.Entry // after which sightings count again
}

func (f *feed) end() int       { return f.first + len(f.steps) }
func (f *feed) at(n int) *step { return &f.steps[n-f.first] }

// readLog applies what the log has grown by.
func (w *world) readLog() error {
	f := &w.feed
	s := step{at: w.now, view: f.view}
	for {
		entries, err := w.memory.Entries(w.ctx, w.queue, w.incarnation, s.view.Number, s.view.Chain, readEntries)
		if err != nil {
			return fmt.Errorf("read log: %w", err)
		}
		if len(entries) == 0 {
			break
		}
		next, ok := s.view.Apply(entries)
		if !ok {
			return fmt.Errorf("apply log: a gap after entry %d", s.view.Number)
		}
		s.view = next
		for _, e := range entries {
			if e.Kind == queue.EntryLapsed || e.Kind == queue.EntryWithdrawn {
				s.lapses = append(s.lapses, e)
			}
		}
	}
	if s.view == f.view {
		return nil
	}
	f.view = s.view
	f.steps = append(f.steps, s)
	return nil
}

// forget drops the steps that every edge in contact was shown.
func (f *feed) forget(edges []*edge) {
	shown := f.end()
	for _, e := range edges {
		if !e.cut {
			shown = min(shown, e.step)
		}
	}
	if n := shown - f.first; n > 100 {
		f.steps = append(f.steps[:0], f.steps[n:]...)
		clear(f.steps[len(f.steps):cap(f.steps)])
		f.first = shown
	}
}
