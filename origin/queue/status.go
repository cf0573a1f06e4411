package queue

import (
	"strconv"
	"time"
)

// Status is what a fan is told, in answers and in every live event.
type Status struct {
	State      TicketState `json:"state"`
	Reason     string      `json:"reason,omitzero"`
	QueueState State       `json:"queueState"`
	Position   uint64      `json:"position"`
	// Ahead is null once the ticket does not wait any more.
	Ahead *uint64 `json:"ahead"`
	// WaitSeconds is null while there is no measure to estimate from.
	WaitSeconds *Wait `json:"waitSeconds"`
	// LikelySoldOut says that what remains to be sold will likely not reach this fan.
	LikelySoldOut bool `json:"likelySoldOut"`
	// OpensAt is set until the queue opens.
	OpensAt          time.Time `json:"opensAt,omitzero"`
	ClaimBy          time.Time `json:"claimBy,omitzero"`
	HeldUntil        time.Time `json:"heldUntil,omitzero"`
	SessionExpiresAt time.Time `json:"sessionExpiresAt,omitzero"`
	PollAfterSeconds int       `json:"pollAfterSeconds"`
	Now              time.Time `json:"now"`
	// Seq is generation.entry; a client ignores a status with a lower entry of the same
	// generation.
	Seq string `json:"seq"`
	// Stale says that the edge has lost contact with the origin and tells its last knowledge.
	Stale bool `json:"stale"`
}

// Wait is an estimated range of seconds.
type Wait struct {
	P50 int `json:"p50"`
	P90 int `json:"p90"`
}

// Status computes what the holder of a position is told at a moment at which the position was
// seen.
func (v *View) Status(position uint64, now time.Time) Status {
	s := Status{
		QueueState: v.Settings.State,
		Position:   position,
		Now:        now,
		Seq:        v.seq,
	}
	switch fate := v.Fate(position); fate {
	case Claimed:
		s.State = TicketActive
		if session, running := v.Session(position); running {
			s.SessionExpiresAt = session.ExpiresAt
			if !now.Before(session.ExpiresAt) {
				// It is over, though the entry that ends it is yet to come.
				s.State, s.SessionExpiresAt = TicketEnded, time.Time{}
			}
		}
	case Ended:
		s.State = TicketEnded
	case Expired:
		s.State, s.Reason = TicketExpired, ReasonAbsent
	case Missed:
		s.State, s.Reason = TicketExpired, ReasonMissed
	case Left:
		s.State = TicketLeft
	default:
		v.statusInLine(position, now, &s)
	}
	var ahead uint64
	if s.Ahead != nil {
		ahead = *s.Ahead
	}
	poll := PollAfter(s.State, ahead, v.RatePerMinute(now), v.Settings.TurnLength())
	if s.State == TicketScheduled {
		poll = PollBeforeOpening(position, v.Issued, s.OpensAt.Sub(now), v.Settings.TurnLength())
	}
	s.PollAfterSeconds = int(poll / time.Second)
	return s
}

func (v *View) statusInLine(position uint64, now time.Time, s *Status) {
	if v.Settings.State == Closed {
		s.State = TicketClosed
		return
	}
	held := now
	if v.Settings.State == Scheduled {
		s.OpensAt = v.Settings.OpensAt
		if s.OpensAt.After(now) {
			held = s.OpensAt // nobody's hold runs before the opening
		}
	}
	s.HeldUntil = held.Add(v.Settings.Hold()).Truncate(time.Second)
	if claimBy, running := v.Offer(position); running {
		s.State, s.ClaimBy = TicketAdmitted, claimBy
		return
	}
	s.State = TicketWaiting
	if v.Settings.State == Scheduled {
		s.State = TicketScheduled
	}
	told := &struct {
		ahead uint64
		wait  Wait
	}{ahead: v.Ahead(position)}
	s.Ahead = &told.ahead
	var known bool
	if told.wait, known = v.curve().Wait(told.ahead, position <= v.Watermark); known {
		s.WaitSeconds = &told.wait
	}
	s.LikelySoldOut = s.State == TicketWaiting && v.likelySoldOut(position, told.ahead)
}

// Seq names the entry of a queue's log from which something was computed.
func Seq(generation string, entry uint64) string {
	return generation + "." + strconv.FormatUint(entry, 10)
}
