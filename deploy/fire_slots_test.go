package deploy_test

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// How an observer counts slots by the answers that fans got, without a look into the store.
//
// A slot is held from the making of an offer until the offer lapses, or the session that was claimed
// from it ends. What the observer knows for sure of a holding:
//
//   - It was made before the first answer that showed it was received. By the store's time it was made
//     at claimBy less the claimSeconds in force, and scripts see a time that never falls, so these
//     moments order all makings exactly, but for those within the same millisecond.
//   - It runs at least until five seconds after claimBy, for a claim until then succeeds, or, once
//     claimed, until the session's expiresAt, by the store's time; unless somebody asked to end it, then at least until that request was sent. Ending the
//     session, leaving and missing an offer are the only ends in a queue that is neither closed nor
//     sold out.
//
// A smaller capacity ends nobody's session, so it is not the number held that has a limit, but the
// number at the making of each offer: with the new one it must not exceed the capacity in force. Which
// that was cannot be told by a clock when settings change every few milliseconds. But every offer
// carries it: settings under which little capacity is left give a claim time that is longer by far, and
// claimBy tells which kind an offer was made under. Where several settings of the kind may have been
// in force at the time, the largest capacity counts; where the observer is in doubt it looks away.
const (
	// viewLag is by how much what an edge tells may be older than its clock says.
	viewLag = 5 * time.Second
	// clockError is by how much an edge's clock, or an origin's, may be off the store's time.
	clockError = time.Second
)

// never is later than any moment of a run.
const never = time.Duration(math.MaxInt64)

// tuning is what offers of a time are made under.
type tuning struct {
	capacity int // 0 while the queue is paused
	claim    time.Duration
	// By the observer's clock: when the request for it was sent, and when that for the next one was
	// answered, or never.
	from, until time.Duration
}

// sight is the first answer that showed an offer.
type sight struct {
	claimBy time.Time
	now     time.Time // the answer's own
	// before is the now of an answer from before the offer: the last one without it.
	before         time.Time
	sent, received time.Duration // by the observer's clock
}

// holding is a slot in the hands of one fan.
type holding struct {
	position uint64
	sight    sight
	until    time.Time     // runs at least until then by the store's time …
	ended    time.Duration // … or until this request was sent, by the observer's clock

	// Found out by attribute: when it was made by the store's time, and the capacity at the time.
	earliest, latest time.Time
	capacity         int // unlimited where it is not known
}

const unlimited = math.MaxInt

// attribute finds out when an offer was made and under which of the tunings. After an interruption
// running offers are prolonged, and claimBy does not tell the making any more of those seen about then.
func (h *holding) attribute(tunings []tuning, prolonged []time.Duration) {
	s := h.sight
	least, most := s.before.Add(-viewLag), s.now.Add(clockError)
	h.earliest, h.latest, h.capacity = least, most, unlimited
	for _, at := range prolonged {
		if s.received > at-2*viewLag && s.received < at+2*viewLag {
			return
		}
	}
	known := false
	for _, t := range tunings {
		made := s.claimBy.Add(-t.claim)
		age := s.now.Sub(made) // when it was seen
		if made.Before(least) || made.After(most) ||
			s.received-age+clockError < t.from || s.sent-age-clockError > t.until {
			continue
		}
		if !known {
			known, h.earliest, h.latest, h.capacity = true, made, made, t.capacity
			continue
		}
		if made.Before(h.earliest) {
			h.earliest = made
		}
		if made.After(h.latest) {
			h.latest = made
		}
		h.capacity = max(h.capacity, t.capacity)
	}
}

// slotCount is what a count of holdings came to.
type slotCount struct {
	known int // holdings that were made under a known capacity
	full  int // of them, those that were the last one to fit
	over  []string
}

// countSlots counts, at the making of each offer, the slots that were surely held.
func countSlots(holdings []holding) (count slotCount) {
	byMaking := slices.Clone(holdings)
	slices.SortFunc(byMaking, func(a, b holding) int { return a.latest.Compare(b.latest) })
	for i := range byMaking {
		x := &byMaking[i]
		if x.capacity == unlimited {
			continue
		}
		count.known++
		// All that were made no later than x were made when the last of them was: x, or one of the
		// same millisecond. So its capacity counts, and they must have run until it was made.
		limit, made := x.capacity, x.sight.received
		var earlier []*holding
		for j := range byMaking {
			h := &byMaking[j]
			if h.latest.After(x.earliest) {
				break
			}
			if j == i {
				continue
			}
			earlier = append(earlier, h)
			if h.latest.Equal(x.earliest) {
				limit, made = max(limit, h.capacity), max(made, h.sight.received)
			}
		}
		held := 1
		for _, h := range earlier {
			if h.until.After(x.latest) && h.ended >= made {
				held++
			}
		}
		switch {
		case held > limit:
			count.over = append(count.over, fmt.Sprintf(
				"position %d was offered a slot at %s, when with it %d were held of %d",
				x.position, x.earliest.Format(time.StampMilli), held, limit))
		case held == limit:
			count.full++
		}
	}
	return count
}
