package queue

import "math"

// leastMeasured is how many sessions must have ended before anything is said of how many tickets
// one takes.
const leastMeasured = 10

// Measure is how many sessions what remains will serve, measured by how far it fell while others
// were served. It stands with the settings, so that every edge and origin tells the same, after a
// restart too.
type Measure struct {
	// Fallen is by how much Remaining fell since it was first reported; what came back to it does
	// not count.
	Fallen int `json:"fallen,omitzero"`
	// Before is how many sessions had ended by then.
	Before int `json:"before,omitzero"`
	// Reach is how many sessions there will have been when nothing remains; 0 without a measure.
	// It follows what is measured only when that is off by a tenth of the way that is left, so
	// that no fan is told yes and no in turn.
	Reach int `json:"reach,omitzero"`
}

// Measured takes what remains now into the measure. was are the settings before; v is the queue as
// the log tells it, nil when that is not known.
func (s Settings) Measured(was Settings, v *View) Settings {
	m := &s.Notes.Measure
	if s.Remaining == nil {
		*m = Measure{}
		return s
	}
	if was.Remaining == nil {
		*m = Measure{}
		if v != nil {
			m.Before = v.Ended
		}
		return s
	}
	m.Fallen += max(*was.Remaining-*s.Remaining, 0)
	if v == nil || *was.Remaining == *s.Remaining {
		return s
	}
	// Sessions that run count like those that ended, because it is not known whether they have
	// bought yet; the more have ended, the less that matters.
	sessions := v.Ended - m.Before + v.Sessions
	if v.Ended-m.Before < leastMeasured || m.Fallen == 0 {
		m.Reach = 0
		return s
	}
	left := float64(*s.Remaining) * float64(sessions) / float64(m.Fallen)
	reach := v.Ended + int(min(left, math.MaxInt32))
	if off := math.Abs(float64(reach - m.Reach)); m.Reach == 0 || off > max(left/10, 1) {
		m.Reach = reach
	}
	return s
}

// likelySoldOut reports whether what remains will likely not reach a waiting position: all who have
// a slot, are owed one or stand before it would take theirs first.
func (v *View) likelySoldOut(position, ahead uint64) bool {
	from, known := v.reachEnds()
	if position <= v.Watermark {
		from++ // it is one of the owed itself
	}
	return known && int64(ahead) >= from
}

// reachEnds is the number of those ahead from which on what remains will likely not reach.
func (v *View) reachEnds() (ahead int64, known bool) {
	reach := v.Settings.Notes.Measure.Reach
	return int64(reach) - int64(v.Ended+v.Sessions+v.Offers+v.Owed), reach != 0
}

// likelySoldOutFrom is the same for the public state. It is told once it concerns somebody, the next
// to join at the latest: so it gives away no more of what remains than the fans' own statuses do.
func (v *View) likelySoldOutFrom() *int64 {
	from, known := v.reachEnds()
	if !known || from > int64(v.Ahead(v.Issued+1)) {
		return nil
	}
	from = max(from, -1) // concerns everybody
	return &from
}
