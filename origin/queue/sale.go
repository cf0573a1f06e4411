package queue

import (
	"fmt"
	"time"
)

const (
	// MaxPostponement is how far OpensAt may move past its first value. It is less than the life
	// of a ticket, which counts from the opening as it stood when the fan joined.
	MaxPostponement = 29 * 24 * time.Hour
	// ReopenAfter is for how long Remaining has to be anything but zero before a queue that was sold
	// out for want of it opens again, so that tickets which go back and forth do not call anybody. Nil
	// counts alike: where nothing is reported any more, nothing says that the sale is over.
	ReopenAfter = 10 * time.Second
	// wakeTurns is how many turns before its opening a scheduled queue is taken up, so that at the
	// opening it is known who is there: a fan who joined days ago and went away is not present.
	wakeTurns = 3
)

// notesMember is the JSON member of Settings.Notes, which no operator may name.
const notesMember = "notes"

// Notes are what a queue writes down of its own sale, with its settings because it changes with
// them and has to outlive every process.
type Notes struct {
	// FirstOpensAt is the first value of OpensAt.
	FirstOpensAt time.Time `json:"firstOpensAt,omitzero"`
	// SoldOut says that the queue is sold out because Remaining fell to zero. It then opens again
	// when Remaining has not been zero for ReopenAfter, whereas a state that was set stays.
	SoldOut bool `json:"soldOut,omitzero"`
	// RestockedAt is since when Remaining is not zero any more; zero while it is.
	RestockedAt time.Time `json:"restockedAt,omitzero"`
	// Unopened says that a state other than open was set on the queue while it was scheduled, and that
	// it has not been open since: so it can be scheduled again.
	Unopened bool `json:"unopened,omitzero"`
	// ClosedAt is when the queue was closed.
	ClosedAt time.Time `json:"closedAt,omitzero"`
	// Measure is how far what remains will reach.
	Measure Measure `json:"measure,omitzero"`
}

// created completes the settings of a new queue. stateNamed says that its creator chose the state.
func (s Settings) created(stateNamed bool, now time.Time) (Settings, []string) {
	s.Notes = Notes{FirstOpensAt: s.OpensAt}
	future := s.OpensAt.After(now)
	switch {
	case future && !stateNamed:
		s.State = Scheduled
	case future && s.State != Scheduled:
		return s, []string{"state: leave it out where opensAt lies in the future"}
	case !future && s.State == Scheduled:
		return s, []string{noOpening}
	}
	s, _ = s.At(now)
	return s, nil
}

// noOpening is the problem of a scheduled queue that nothing would open.
const noOpening = "state: scheduled needs an opensAt in the future"

// replacing completes settings that replace others. stateNamed says that somebody set the state.
func (s Settings) replacing(was Settings, stateNamed bool, now time.Time) (Settings, []string) {
	var problems []string
	if was.State == Closed && s.State != Closed {
		problems = append(problems, "state: closed is final")
	}
	unopened := was.State == Scheduled || was.Notes.Unopened
	if s.State == Scheduled && stateNamed {
		switch {
		case !unopened:
			problems = append(problems, "state: scheduled is for a queue that was scheduled and has not been open since")
		case !s.OpensAt.After(now):
			problems = append(problems, noOpening)
		}
	}
	if !s.OpensAt.Equal(was.OpensAt) {
		switch latest := s.Notes.FirstOpensAt.Add(MaxPostponement); {
		case was.State != Scheduled && !(unopened && s.State == Scheduled):
			problems = append(problems, "opensAt: it moves only while the queue is scheduled, or as it is scheduled again")
		case s.OpensAt.IsZero():
			problems = append(problems, "opensAt: it can be moved, not removed; state opens the queue at once")
		case s.OpensAt.After(latest):
			problems = append(problems, fmt.Sprintf("opensAt: at the latest %s, 29 days past its first value", latest.Format(time.RFC3339)))
		}
	}
	if stateNamed {
		s.Notes.SoldOut, s.Notes.RestockedAt = false, time.Time{}
	}
	s, _ = s.At(now)
	s.Notes.Unopened = unopened && (s.State == Paused || s.State == SoldOut && !s.Notes.SoldOut)
	return s, problems
}

// At is what the settings have become by a moment through time alone: a scheduled queue opens, an
// open one of which nothing remains is sold out, and one that was sold out for that reason opens
// again. changed is false when nothing was due.
func (s Settings) At(now time.Time) (next Settings, changed bool) {
	now = now.UTC().Truncate(time.Millisecond)
	next = s
	notes := &next.Notes
	if next.State == Scheduled && !now.Before(next.OpensAt) {
		next.State, changed = Open, true
	}
	nothing := next.Remaining != nil && *next.Remaining == 0
	if next.State == Open && nothing {
		next.State, notes.SoldOut, changed = SoldOut, true, true
	}
	if next.State == SoldOut && notes.SoldOut {
		switch {
		case nothing && !notes.RestockedAt.IsZero():
			notes.RestockedAt, changed = time.Time{}, true
		case !nothing && notes.RestockedAt.IsZero():
			notes.RestockedAt, changed = now, true
		case !nothing && !now.Before(notes.RestockedAt.Add(ReopenAfter)):
			next.State, notes.SoldOut, notes.RestockedAt, changed = Open, false, time.Time{}, true
		}
	}
	if next.State == Closed && notes.ClosedAt.IsZero() {
		notes.ClosedAt, changed = now, true
	}
	return next, changed
}

// NextDue is when somebody has to look after a queue although nobody may call: at its opening, and
// before it to see who is there, at its reopening, and when its data is to go. Zero when nothing
// is going to be due.
func (s Settings) NextDue(now time.Time) time.Time {
	switch {
	case s.Asleep(now):
		return s.WakesAt()
	case s.State == Scheduled:
		return s.OpensAt
	case s.State == SoldOut && s.Notes.SoldOut && !s.Notes.RestockedAt.IsZero():
		return s.Notes.RestockedAt.Add(ReopenAfter)
	case s.State == Closed && !s.Notes.ClosedAt.IsZero():
		return s.Notes.ClosedAt.Add(s.Retention())
	}
	return time.Time{}
}

// NextDue is when an idle queue has to be looked after again: at the end of its next session, or when
// its settings say. A closed queue keeps its data for as long as a session runs.
func (l Look) NextDue(now time.Time) time.Time {
	at := l.Settings.NextDue(now)
	if end := l.NextSessionEnd; !end.IsZero() && (at.IsZero() || l.Settings.State == Closed || end.Before(at)) {
		return end
	}
	return at
}

// WakesAt is until when a scheduled queue is idle however many wait: a few turns before it opens,
// lest fans who went away long ago count as present at the opening. Zero for every other queue.
func (s Settings) WakesAt() time.Time {
	if s.State != Scheduled {
		return time.Time{}
	}
	return s.OpensAt.Add(-wakeTurns * s.TurnLength())
}

// Asleep reports whether the queue is scheduled and its opening far enough away for nobody to look
// after it.
func (s Settings) Asleep(now time.Time) bool { return now.Before(s.WakesAt()) }

// HoldRuns reports whether the absent lose their place: not before the opening, also of a queue that was
// paused before it, and when the queue is closed there is none to lose.
func (s Settings) HoldRuns() bool {
	return s.State != Scheduled && s.State != Closed && !s.Notes.Unopened
}

// Over reports whether the data of a closed queue has been kept for as long as it is to be.
func (s Settings) Over(now time.Time) bool {
	return s.State == Closed && !s.Notes.ClosedAt.IsZero() && !now.Before(s.Notes.ClosedAt.Add(s.Retention()))
}

// WithoutRemaining is what two settings have in common that differ only in what remains.
func (s Settings) WithoutRemaining() Settings {
	s.Remaining, s.Notes = nil, Notes{}
	return s
}
