package store

import (
	"time"

	"waitingroom/origin/queue"
)

// RenewalMargin is how many numbers a new generation passes over beyond the highest that was
// remembered: about as many as joins that nobody has read of can have been given before a loss, a
// tenth of a second of a rush. Until the hold is over, those who join later count them as ahead.
const RenewalMargin = 5_000

// Lost is what a reader remembers of a queue and its store has no more.
type Lost struct {
	// Done are the positions that came to a fate other than a running session.
	Done map[queue.Fate]queue.Positions
	// Sessions are those that still run.
	Sessions []queue.Session
	Offers   []queue.Offer
}

// FindLost compares what is remembered with what is there. A position of which the store knows more
// than that it waits is left as the store has it: it was changed after the loss, or a session runs
// there whose end was lost, and then its slot stays taken until the end is asked for again or the
// window is over.
func FindLost(remembered, has *queue.View, now time.Time) Lost {
	lost := Lost{Done: make(map[queue.Fate]queue.Positions)}
	old := remembered.Snapshot()
	for position := uint64(1); position <= remembered.Issued; position++ {
		fate := remembered.Fate(position)
		if fate == queue.Waiting || has.Fate(position) != queue.Waiting {
			continue
		}
		session, runs := remembered.Session(position)
		switch {
		case runs && session.ExpiresAt.After(now):
			lost.Sessions = append(lost.Sessions, session)
		case fate == queue.Claimed:
			lost.Done[queue.Ended] = append(lost.Done[queue.Ended], position)
		default:
			lost.Done[fate] = append(lost.Done[fate], position)
		}
	}
	for _, offer := range old.Offers {
		if _, runs := has.Offer(offer.Position); !runs && has.Fate(offer.Position) == queue.Waiting {
			lost.Offers = append(lost.Offers, offer)
		}
	}
	return lost
}
