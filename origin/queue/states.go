// Package queue is the domain of the waiting room: queues, states, settings, the arithmetic of
// admission, the log's entries and the view that is built from them. It does no I/O, and whoever
// needs the time passes it in. Times are UTC with millisecond precision; positions count from 1.
package queue

// State is the state of a queue.
type State string

// The states of a queue. Joins are accepted in every state but Closed; offers are made only
// while Open.
const (
	Scheduled State = "scheduled"
	Open      State = "open"
	Paused    State = "paused"
	SoldOut   State = "sold_out" // can reopen
	Closed    State = "closed"   // final
)

// Valid reports whether s is one of the states.
func (s State) Valid() bool {
	switch s {
	case Scheduled, Open, Paused, SoldOut, Closed:
		return true
	}
	return false
}

// KeepsOffers reports whether running offers stay claimable when a queue comes into state s;
// otherwise they are withdrawn, which does not count as missed.
func (s State) KeepsOffers() bool { return s == Open || s == Paused }

// Fate is what became of a position. Its values are stored (4 bits a position): never renumber.
type Fate uint8

// The fates. A position is done when its fate is anything but Waiting; a position with a running
// offer still has the fate Waiting.
const (
	Waiting Fate = 0
	Claimed Fate = 1 // the session runs
	Ended   Fate = 2 // the session ran out, or was released or revoked
	Expired Fate = 3 // absent for longer than the hold
	Missed  Fate = 4 // missed maxMissedOffers offers
	Left    Fate = 5 // left the line, or ended the own session
)

var fateNames = [...]string{"waiting", "claimed", "ended", "expired", "missed", "left"}

// String is the fate's name in the log and in the API.
func (f Fate) String() string {
	if int(f) < len(fateNames) {
		return fateNames[f]
	}
	return "unknown"
}

// Done reports whether the position no longer waits.
func (f Fate) Done() bool { return f != Waiting }

// TicketState is what a fan is told about the ticket.
type TicketState string

// The states of a ticket; the last five are out of the line for good.
const (
	TicketScheduled TicketState = "scheduled"
	TicketWaiting   TicketState = "waiting"
	TicketAdmitted  TicketState = "admitted" // an offer runs until claimBy
	TicketActive    TicketState = "active"   // a session runs
	TicketEnded     TicketState = "ended"
	TicketExpired   TicketState = "expired" // reason says why
	TicketLeft      TicketState = "left"
	TicketClosed    TicketState = "closed"
)

// Reasons of an expired ticket, and in the log of what freed a slot.
const (
	ReasonAbsent   = "absent"        // silent for longer than the hold
	ReasonMissed   = "missed_offers" // did not claim maxMissedOffers offers
	ReasonWindow   = "window"        // the purchase window ended
	ReasonReleased = "released"      // the shop ended the session
	ReasonRevoked  = "revoked"       // the operator ended the session
	ReasonLeft     = "left"          // the fan left while the session ran
	ReasonDeclined = "declined"      // the fan left while an offer ran
)
