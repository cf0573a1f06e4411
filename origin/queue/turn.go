package queue

import "time"

const (
	// LeastTurn is the shortest turn.
	LeastTurn = 2 * time.Second
	// VanishedEdge is how long a known edge that reports nothing holds a turn open.
	VanishedEdge = 5 * time.Minute
	// Interruption is the gap between two ticks from which on the queue counts as interrupted:
	// running offers are prolonged by the gap and the running turn starts afresh, so that an
	// outage costs nobody an offer or a place.
	Interruption = 2 * time.Second
	// ClaimGrace is how long after claimBy a claim still succeeds and the offer does not lapse.
	ClaimGrace = 5 * time.Second
	// PromptClose is how late a turn may be closed so that the next one counts from its due end.
	// It is less than what any hold has left to the end of the turn in which it runs out.
	PromptClose = 500 * time.Millisecond
	// openingsPerSecond is how many fans hear of an opening in a second by their own poll, at most
	// longestOpening after it.
	openingsPerSecond = 5000
	longestOpening    = 24 * time.Second
	// longestPoll bounds pollAfterSeconds also where the turn would allow more.
	longestPoll = 30 * time.Second
	// longestUnasked bounds how long somebody who goes by the public state goes without asking for the
	// own status, where the turn would allow more: what another device does is only told there.
	longestUnasked = 5 * time.Minute
)

// TurnLength is the unit in which absence is counted: hold / 30, in whole milliseconds, at least
// LeastTurn.
func (s Settings) TurnLength() time.Duration {
	return max((s.Hold() / 30).Truncate(time.Millisecond), LeastTurn)
}

// SessionEnd is when a session that starts now ends: after the purchase window, rounded up to the
// whole second, because tokens count in seconds (RFC 7519, NumericDate) and all who judge a session
// must agree on the moment.
func (s Settings) SessionEnd(start time.Time) time.Time {
	end := start.Add(s.PurchaseWindow())
	if whole := end.Truncate(time.Second); whole.Before(end) {
		return whole.Add(time.Second)
	}
	return end
}

// HoldTurns is the number of whole turns in a hold; a hold shorter than a turn counts as one.
//
// A position last seen in turn S is expired at the close of the first turn T with
// T - S > HoldTurns. At that moment it has been unseen for all the turns S+1 … T, one more than
// there are in the hold, and for a part of S: hence for longer than the hold, and for at most
// two turns longer. Rounding up instead would break the second half of this.
func (s Settings) HoldTurns() uint64 {
	return uint64(max(s.Hold()/s.TurnLength(), 1))
}

// NextTurn is when the turn after one that is closed at now begins: when that one was due to end,
// unless it was closed later than PromptClose after that. So the lateness of ticks does not add
// up over the turns of a hold, and a turn that was held open does not shorten the next one.
func NextTurn(started time.Time, length time.Duration, now time.Time) time.Time {
	if end := started.Add(length); !end.After(now) && now.Sub(end) <= PromptClose {
		return end
	}
	return now
}

// PollAfter is how long a fan may wait until the next poll: short where something may happen
// soon, longer far back in the line, never more than 0.8 of a turn, so that every poll comes
// within the turn after the last. It is a whole number of seconds, at least one.
func PollAfter(state TicketState, ahead uint64, ratePerMinute int, turn time.Duration) time.Duration {
	most := min(turn*8/10, longestPoll)
	wait := most
	switch state {
	case TicketAdmitted:
		wait = 2 * time.Second
	case TicketActive:
		wait = 5 * time.Second
	case TicketWaiting:
		if ratePerMinute > 0 {
			// A tenth of the time until the turn comes at the measured rate.
			wait = time.Duration(float64(ahead) / float64(ratePerMinute) * float64(time.Minute) / 10)
		} else {
			wait = time.Duration(ahead) * 50 * time.Millisecond
		}
	}
	return max(min(wait, most).Truncate(time.Second), time.Second)
}

// SightAfter is how long after asking for the own status somebody who goes by the public state has to
// ask again: 0.8 of a turn, so that every time comes within the turn after the last. It is a whole
// number of seconds, at least one.
func SightAfter(turn time.Duration) time.Duration {
	return max(min(turn*8/10, longestUnasked).Truncate(time.Second), time.Second)
}

// PollBeforeOpening is PollAfter while the queue is yet to open: the last poll falls due after the
// opening, the first in line first, so that not everybody asks in the same second and all hear of it
// soon, those first whose offers run. issued is the highest position. An opening that is late is
// asked for soon at first, and then less and less often.
func PollBeforeOpening(position, issued uint64, untilOpening, turn time.Duration) time.Duration {
	spread := min(time.Duration(min(issued, 1<<32))*time.Second/openingsPerSecond, longestOpening)
	after := time.Duration(float64(spread) * float64(min(position, issued)) / float64(max(issued, 1)))
	wait := untilOpening + after
	if untilOpening <= 0 {
		wait = after/8 - untilOpening/4
	}
	most := min(turn*8/10, longestPoll).Truncate(time.Second)
	return max(min((wait+time.Second-1).Truncate(time.Second), most), time.Second)
}
