package queue

import (
	"maps"
	"slices"
	"time"
)

// Journal is how far the operator's journal of a queue has come: everything that must be known as
// of one entry of the log to go on from the next. It is a value that a store keeps; Fold computes
// the next one from it, so whoever goes on, and wherever, comes to the same.
//
// The zero value is the journal of a queue of which nothing has been read.
type Journal struct {
	Cursor
	At time.Time `json:"at"` // of the entry; never falls

	State       State  `json:"state"`
	Capacity    int    `json:"capacity"`
	Issued      uint64 `json:"issued"`
	Watermark   uint64 `json:"watermark"`
	Waiting     int    `json:"waiting"` // without an offer
	Owed        int    `json:"owed"`    // of Waiting
	Offers      int    `json:"offers"`
	Sessions    int    `json:"sessions"`
	Slots       Slots  `json:"slots,omitempty"` // those that stand empty
	Arrivals    Line   `json:"arrivals,omitempty"`
	Running     Minute `json:"running,omitzero"` // the last minute in which something happened
	Waits       Waits  `json:"waits,omitzero"`   // of those admitted in it
	LastMove    uint64 `json:"lastMove"`         // its number
	LostEntries uint64 `json:"lostEntries"`      // by number, hence at most so many
}

// Cursor names the entry of a log up to which something was read. Two logs that have the Chain in
// common are alike up to there; see Entry.
type Cursor struct {
	Entry uint64 `json:"entry"`
	Chain string `json:"chain"`
}

// Move is one admission: slots that stood empty were offered. To is below the positions that it
// passed over because their fans were absent; it equals From when all who were offered a slot were
// owed it.
type Move struct {
	// Number counts the moves of a queue from 1, without gaps.
	Number uint64    `json:"number"`
	At     time.Time `json:"at"`
	// From and To are the watermark before and after it.
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
	// Offered is how many were offered a slot, OfOwed how many of them stood at or below From.
	Offered int `json:"offered"`
	OfOwed  int `json:"ofOwed"`
	// Reasons says why the slots were free; the counts sum to Offered.
	Reasons map[SlotReason]int `json:"reasons"`
	// Lost is set in a move that nobody saw: so many entries of the log, at most, were lost to the
	// journal, and From and To are the watermark before and after them.
	Lost uint64 `json:"lost,omitzero"`
}

// Minute is what happened in one minute, and how the queue stood at its end. The counts of all
// minutes sum to the totals of the queue, but for entries that were lost to the journal.
type Minute struct {
	At time.Time `json:"at"` // its beginning

	Joined       int `json:"joined"`       // positions issued
	Admitted     int `json:"admitted"`     // offers made
	Absent       int `json:"absent"`       // positions that the watermark passed over without an offer
	MissedOffers int `json:"missedOffers"` // the last one of a position included
	Claimed      int `json:"claimed"`      // sessions started
	Ended        int `json:"ended"`        // positions by the fate to which they came
	Expired      int `json:"expired"`
	Missed       int `json:"missed"`
	Left         int `json:"left"`

	State     State  `json:"state"`
	Capacity  int    `json:"capacity"`
	Issued    uint64 `json:"issued"`
	Watermark uint64 `json:"watermark"`
	Waiting   int    `json:"waiting"` // without an offer
	Owed      int    `json:"owed"`    // of waiting
	Offers    int    `json:"offers"`
	Sessions  int    `json:"sessions"`

	// Wait is how long the line took: of those whom the watermark reached in this minute and who
	// were offered a slot at that moment. Nil when there was nobody. Who was owed an offer is left out,
	// because the wait was partly their own.
	Wait *MinuteWait `json:"wait"`
	// Lost is how many entries of the log, at most, were lost to the journal.
	Lost uint64 `json:"lost,omitzero"`
}

// MinuteWait is in seconds from the join to the offer. P50 and P90 are at most a sixteenth too high.
type MinuteWait struct {
	P50 int `json:"p50"`
	P90 int `json:"p90"`
	Max int `json:"max"`
}

// Page is what a part of the log comes to: what a store writes at once.
type Page struct {
	Journal Journal
	Minutes []Minute // those that ended
	Moves   []Move
}

// clone is a journal that shares nothing with j.
func (j Journal) clone() Journal {
	j.Slots, j.Arrivals = slices.Clone(j.Slots), slices.Clone(j.Arrivals)
	j.Waits.Counts = maps.Clone(j.Waits.Counts)
	return j
}

// RunningMinute is the minute that has not ended as far as the journal knows; ok is false when
// nothing has happened yet.
func (j Journal) RunningMinute() (m Minute, ok bool) {
	m = j.Running
	m.State, m.Capacity, m.Issued, m.Watermark = j.State, j.Capacity, j.Issued, j.Watermark
	m.Waiting, m.Owed, m.Offers, m.Sessions = j.Waiting, j.Owed, j.Offers, j.Sessions
	m.Wait = j.Waits.summary()
	return m, !m.At.IsZero()
}

// minute returns the minute of a moment, which ends the one before it.
func (p *Page) minute(at time.Time) *Minute {
	j := &p.Journal
	if begin := at.UTC().Truncate(time.Minute); begin.After(j.Running.At) {
		if ended, ok := j.RunningMinute(); ok {
			p.Minutes = append(p.Minutes, ended)
		}
		j.Running, j.Waits = Minute{At: begin}, Waits{}
	}
	return &j.Running
}

// Lose is the journal after entries that it cannot read any more: it goes on from a view, and the
// difference is counted as lost. now is the time at which that is noticed.
func (j Journal) Lose(v *View, now time.Time) Page {
	p := Page{Journal: j.clone()}
	next := &p.Journal
	if now.After(next.At) {
		next.At = now
	}
	lost := uint64(1) // another history may have the same numbers
	if v.Number > j.Entry {
		lost = v.Number - j.Entry
	}
	minute := p.minute(next.At)
	minute.Lost += lost
	next.LostEntries += lost
	next.LastMove++
	p.Moves = []Move{{
		Number: next.LastMove, At: next.At, From: j.Watermark, To: v.Watermark,
		Reasons: map[SlotReason]int{}, Lost: lost,
	}}
	if v.Issued < j.Issued || v.Watermark < j.Watermark {
		next.Arrivals = nil
	}
	next.Arrivals.join(j.Issued, v.Issued, j.At, next.At)
	next.Cursor = Cursor{v.Number, v.Chain}
	next.State, next.Capacity = v.Settings.State, v.Settings.Capacity
	next.Issued, next.Watermark = v.Issued, v.Watermark
	next.Waiting, next.Owed, next.Offers, next.Sessions = v.Waiting, v.Owed, v.Offers, v.Sessions
	next.Arrivals.pass(v.Watermark)
	free := FreeSlots(next.Capacity, next.Sessions, next.Offers)
	next.Slots.add(SlotUnknown, free-next.Slots.count())
	next.Slots.take(next.Slots.count() - free)
	return p
}
