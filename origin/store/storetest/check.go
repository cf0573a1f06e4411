package storetest

import (
	"context"
	"fmt"
	"reflect"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

// checkLog reads the queue's log from the first snapshot on and checks that it is without gaps,
// that every position goes through lawful changes only, that no offer was made at capacity, and
// that it ends in the same state as the store, by snapshot and by numbers.
func (sc *scene) checkLog() {
	sc.t.Helper()
	if sc.gone {
		return
	}
	ctx := context.WithoutCancel(sc.t.Context())
	last := sc.snapshot()
	if last.Incarnation != sc.inc {
		sc.t.Errorf("the queue has incarnation %q, want %q", last.Incarnation, sc.inc)
		return
	}
	view := queue.NewView(sc.first)
	teller := newTeller(sc.first)
	for view.Number < last.Number {
		entries, err := sc.s.Entries(ctx, sc.id, sc.inc, view.Number, view.Chain, 100)
		if err != nil || len(entries) == 0 {
			sc.t.Errorf("Entries after %d of %d: %d entries, error %v", view.Number, last.Number, len(entries), err)
			return
		}
		for _, entry := range entries {
			if err := teller.tell(entry); err != nil {
				sc.t.Errorf("entry %d (%s): %v", entry.Number, entry.Kind, err)
				return
			}
			next, ok := view.Apply([]queue.Entry{entry})
			if !ok {
				sc.t.Errorf("entry %d does not follow on %d", entry.Number, view.Number)
				return
			}
			view = next
			if total := view.Sessions + view.Offers; entry.Kind == queue.EntryOffered && total > view.Settings.Capacity {
				sc.t.Errorf("entry %d offers at capacity: %d sessions and offers, capacity %d",
					entry.Number, total, view.Settings.Capacity)
			}
		}
	}
	got, want := view.Snapshot(), queue.NewView(last).Snapshot()
	got.Admitted, want.Admitted = nil, nil
	if diff := firstDifference(got, want); diff != "" {
		sc.t.Errorf("the log tells another state than the snapshot: %s", diff)
	}
	counts, err := sc.s.Counts(ctx, sc.id)
	if err != nil {
		sc.t.Errorf("Counts: %v", err)
		return
	}
	teller.totals.Present = counts.Present
	teller.totals.Issued, teller.totals.Watermark = view.Issued, view.Watermark
	teller.totals.Waiting, teller.totals.Offers, teller.totals.Sessions = view.Waiting, view.Offers, view.Sessions
	if counts != teller.totals {
		sc.t.Errorf("Counts are %+v, but the log tells %+v", counts, teller.totals)
	}
}

// firstDifference names a field in which two snapshots differ.
func firstDifference(got, want queue.Snapshot) string {
	a, b := reflect.ValueOf(got), reflect.ValueOf(want)
	for i := range a.NumField() {
		if !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
			return fmt.Sprintf("%s is %+v by the log and %+v by the snapshot",
				a.Type().Field(i).Name, a.Field(i).Interface(), b.Field(i).Interface())
		}
	}
	return ""
}

// teller follows each position through the entries of a log: in line, offered, in the shop, done.
type teller struct {
	issued  uint64
	at      int64
	offered map[uint64]bool
	active  map[uint64]string // session id
	done    map[uint64]queue.Fate
	used    map[string]bool // session ids
	totals  store.Counts
}

func newTeller(s queue.Snapshot) *teller {
	return &teller{
		issued: s.Issued, at: s.CreatedAt.UnixMilli(),
		offered: make(map[uint64]bool), active: make(map[uint64]string),
		done: make(map[uint64]queue.Fate), used: make(map[string]bool),
	}
}

func (l *teller) tell(e queue.Entry) error {
	if at := e.At.UnixMilli(); at < l.at {
		return fmt.Errorf("its time %d is before the last one's, %d", at, l.at)
	}
	l.at = e.At.UnixMilli()
	if e.At.Nanosecond()%1e6 != 0 || e.Until.Nanosecond()%1e6 != 0 || e.Since.Nanosecond()%1e6 != 0 {
		return fmt.Errorf("a time is finer than a millisecond")
	}
	for i, position := range e.Positions {
		if i > 0 && position <= e.Positions[i-1] {
			return fmt.Errorf("positions are not ascending: %v", e.Positions)
		}
	}
	switch e.Kind {
	case queue.EntryJoined:
		if e.Issued <= l.issued {
			return fmt.Errorf("issues %d, which was issued before", e.Issued)
		}
		l.issued = e.Issued
		return nil
	case queue.EntrySettings:
		if e.Settings == nil {
			return fmt.Errorf("has no settings")
		}
		return nil
	case queue.EntryTurn, queue.EntryProlonged, queue.EntryEstimate:
		return nil
	}
	if len(e.Positions) == 0 {
		return fmt.Errorf("names no position")
	}
	for _, position := range e.Positions {
		if err := l.tellOf(position, e); err != nil {
			return fmt.Errorf("position %d: %w", position, err)
		}
	}
	return nil
}

func (l *teller) tellOf(position uint64, e queue.Entry) error {
	if position == 0 || position > l.issued {
		return fmt.Errorf("was not issued")
	}
	if fate, done := l.done[position]; done {
		return fmt.Errorf("was %v before", fate)
	}
	_, active := l.active[position]
	switch e.Kind {
	case queue.EntryOffered:
		if active || l.offered[position] {
			return fmt.Errorf("has an offer or a session already")
		}
		if e.Watermark < position || e.Issued != l.issued {
			return fmt.Errorf("watermark %d, issued %d, want at least %d and %d", e.Watermark, e.Issued, position, l.issued)
		}
		l.offered[position] = true
		l.totals.Admitted++
	case queue.EntryLapsed, queue.EntryWithdrawn:
		if !l.offered[position] {
			return fmt.Errorf("has no offer")
		}
		delete(l.offered, position)
		if e.Kind == queue.EntryLapsed {
			l.totals.MissedOffers++
		}
	case queue.EntryClaimed:
		if !l.offered[position] {
			return fmt.Errorf("has no offer")
		}
		if e.Session == "" || l.used[e.Session] {
			return fmt.Errorf("session id %q is missing or used", e.Session)
		}
		delete(l.offered, position)
		l.active[position] = e.Session
		l.used[e.Session] = true
		l.totals.Claimed++
	case queue.EntryDone:
		if declined := e.Fate == queue.Left && l.offered[position]; declined != (e.Reason == queue.ReasonDeclined) {
			return fmt.Errorf("is %v for the reason %q, with an offer: %v", e.Fate, e.Reason, l.offered[position])
		}
		return l.tellDone(position, active, e.Fate)
	default:
		return fmt.Errorf("unknown kind")
	}
	return nil
}

func (l *teller) tellDone(position uint64, active bool, fate queue.Fate) error {
	switch fate {
	case queue.Ended:
		if !active {
			return fmt.Errorf("ends without a session")
		}
		l.totals.Ended++
	case queue.Expired:
		if active || l.offered[position] {
			return fmt.Errorf("expires with an offer or a session")
		}
		l.totals.Expired++
	case queue.Missed:
		if !l.offered[position] {
			return fmt.Errorf("misses without an offer")
		}
		l.totals.MissedOffers++
		l.totals.Missed++
	case queue.Left:
		l.totals.Left++
	default:
		return fmt.Errorf("cannot be done as %v", fate)
	}
	delete(l.offered, position)
	delete(l.active, position)
	l.done[position] = fate
	return nil
}
