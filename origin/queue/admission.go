package queue

import "time"

// Look is what the store reads for one tick, as of one moment.
type Look struct {
	// Epoch of the lease under which the queue stands; a coordinator with another epoch has
	// lost it.
	Epoch       uint64
	Incarnation string
	// Version of the settings, for whoever replaces them.
	Version  uint64
	Settings Settings

	Sessions int // running sessions, those due to end included
	Offers   int // running offers, those due to lapse included
	Waiting  int // positions that wait and hold no offer, absent ones included
	Present  int // the part of Waiting that was seen in this turn or the one before

	// DueSessions are positions whose session's expiry has come; DueOffers those whose claimBy
	// plus ClaimGrace has passed.
	DueSessions Positions
	DueOffers   Positions
	// Candidates are the lowest positions that wait without an offer, are present, and have been
	// seen since their last lapse. Ascending order is the line's order: the owed stand at or
	// below the watermark, hence before everybody beyond it. As many as the slots that are free
	// once what is due has ended, at most the limit that the reader named.
	Candidates Positions

	// JoinSlots is what is left of the slots that joins may take by themselves. TurnedAway counts
	// the batches of joins that left somebody waiting.
	JoinSlots  int
	TurnedAway uint64
	// Admitted is the total of the offers made, those by joins included.
	Admitted uint64
	// Now is the time as of which all this was read: the reader's, or the latest that the store has seen
	// of the queue if that is later. What is decided from the look is decided as of it.
	Now time.Time
	// LastTick is when the queue was last ticked, or last taken up from idleness.
	LastTick time.Time

	Turn        uint64
	TurnStarted time.Time
	// Edges are the edges known to hold sightings of this queue, by their id, with the time
	// of their last report: all that they had seen until then has been handed in.
	Edges map[string]time.Time

	// NextSessionEnd is the earliest expiry of the running sessions, zero when none runs.
	NextSessionEnd time.Time
}

// Tick is what one tick changes; the store checks and counts again when it applies it.
type Tick struct {
	Epoch uint64
	Now   time.Time
	// Prolong moves claimBy of every running offer, and restarts the running turn; zero when
	// there was no interruption.
	Prolong     time.Duration
	EndSessions Positions
	Lapse       Positions
	Offer       Positions
	// JoinSlots is how many slots joins may take until the next tick, unless somebody was turned
	// away since the look, whose TurnedAway is repeated here: nobody who comes later goes first.
	JoinSlots  int
	TurnedAway uint64
	// Present is published for stats.
	Present int
	// Estimate is logged, nil when there is no new one.
	Estimate *Estimate
}

// Plan decides a tick from what the store read: what has run out ends, free slots are offered in
// the line's order as far as the pace allows, and what then stays free while nobody present
// waits may be taken by joins at once.
func Plan(l Look, pace Pace, now time.Time) (Tick, Pace) {
	t := Tick{Epoch: l.Epoch, Now: now, EndSessions: l.DueSessions, TurnedAway: l.TurnedAway, Present: l.Present}
	if gap := now.Sub(l.LastTick); gap >= Interruption {
		t.Prolong = gap
	} else {
		t.Lapse = l.DueOffers
	}
	pace = pace.Refill(l.Settings.MaxPerMinute, now)
	if l.Settings.State != Open {
		return t, pace
	}
	free := FreeSlots(l.Settings.Capacity, l.Sessions-len(t.EndSessions), l.Offers-len(t.Lapse))
	free = pace.Cut(free)
	t.Offer = l.Candidates[:min(len(l.Candidates), free)]
	if l.Present <= len(t.Offer) {
		t.JoinSlots = free - len(t.Offer)
	}
	return t, pace.Spend(len(t.Offer))
}

// FreeSlots is how many slots stand empty; none while a retune left more sessions and offers
// than the capacity.
func FreeSlots(capacity, sessions, offers int) int { return max(capacity-sessions-offers, 0) }

// TurnDue reports whether the running turn can be closed: its length has passed, and every known
// edge has handed in what it saw during it, or has been silent for VanishedEdge.
func TurnDue(l Look, now time.Time) bool {
	end := l.TurnStarted.Add(l.Settings.TurnLength())
	if now.Before(end) {
		return false
	}
	for _, reported := range l.Edges {
		if reported.Before(end) && now.Sub(reported) < VanishedEdge {
			return false
		}
	}
	return true
}

// Pace spreads the offers of a queue with maxPerMinute evenly: a token bucket that fills with
// maxPerMinute / 60 a second and holds one second's worth, at least one. The zero value is a
// bucket that holds one.
type Pace struct {
	perMinute int
	credit    float64
	at        time.Time
}

// Refill adds what the time since the last refill is worth. perMinute 0 sets no limit.
func (p Pace) Refill(perMinute int, now time.Time) Pace {
	most := max(float64(perMinute)/60, 1)
	switch {
	case p.at.IsZero():
		p.credit = 1
	case now.Sub(p.at) > time.Second:
		p.credit = min(p.credit+now.Sub(p.at).Minutes()*float64(perMinute), most)
	case now.After(p.at):
		// From tick to tick only what is carried over is cut: cutting the sum would lose the
		// fractions of an offer by which a tick comes later than the offer it pays for.
		p.credit = min(p.credit, most) + now.Sub(p.at).Minutes()*float64(perMinute)
	}
	p.perMinute = perMinute
	if now.After(p.at) {
		p.at = now
	}
	return p
}

// Cut lowers a number of free slots to what the pace allows now.
func (p Pace) Cut(free int) int {
	if p.perMinute == 0 {
		return free
	}
	return max(min(free, int(p.credit)), 0)
}

// Spend takes n offers out of the bucket. Joins that were admitted by themselves are spent after
// the fact, so the credit may fall below zero for a moment. Where no limit is set nothing is spent.
func (p Pace) Spend(n int) Pace {
	if p.perMinute == 0 {
		return p
	}
	p.credit -= float64(n)
	return p
}
