package deploy_test

import (
	"slices"
	"testing"
	"time"
)

// storeNoon is the store's time when the observer's clock is at zero.
var storeNoon = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

// seenOffer is an offer made at a moment of the observer's clock under a claim time, seen a
// little later by a fan who asks often.
func seenOffer(position uint64, made, claim time.Duration) holding {
	seen := made + 100*time.Millisecond
	now := storeNoon.Add(seen)
	claimBy := storeNoon.Add(made + claim)
	return holding{
		position: position, until: claimBy, ended: never,
		sight: sight{claimBy, now, now.Add(-200 * time.Millisecond), seen - 5*time.Millisecond, seen},
	}
}

// TestObserverCountsSlots has the observer count holdings in which it must find what is wrong, and
// must not find what can be right.
func TestObserverCountsSlots(t *testing.T) {
	t.Parallel()
	const s = time.Second
	tunings := []tuning{
		{3, leastClaim, 0, 10*s + 10*time.Millisecond},
		{1, longClaim, 10 * s, 20 * s},
		{3, leastClaim, 20 * s, 22 * s},
		{1, longClaim, 22 * s, 30 * s},
		{0, pausedClaim, 30 * s, never},
	}
	claimed := func(h holding, until, ended time.Duration) holding {
		h.until, h.ended = storeNoon.Add(until), ended
		return h
	}
	late := func(h holding, by time.Duration) holding {
		h.sight.now = h.sight.now.Add(by)
		h.sight.sent, h.sight.received = h.sight.sent+by, h.sight.received+by
		return h
	}
	three := []holding{seenOffer(1, s, leastClaim), seenOffer(2, s, leastClaim), seenOffer(3, s, leastClaim)}
	for _, c := range []struct {
		name      string
		holdings  []holding
		prolonged []time.Duration
		over      int
		known     int
	}{
		{"as many as fit", three, nil, 0, 3},
		{"one too many at once", append(three[:3:3], seenOffer(4, s, leastClaim)), nil, 4, 4},
		{"one too many a moment later", append(three[:3:3], seenOffer(4, 2*s, leastClaim)), nil, 1, 4},
		{"one more, when the others may have lapsed", append(three[:3:3], seenOffer(4, 3*s+time.Millisecond, leastClaim)), nil, 0, 4},
		{"one more, beside a session", append(three[:2:2], claimed(three[2], 9*s, never), seenOffer(4, 4*s, leastClaim)), nil, 0, 4},
		{"too many beside sessions", []holding{
			claimed(three[0], 9*s, never), claimed(three[1], 9*s, never), claimed(three[2], 9*s, never), seenOffer(4, 8*s, leastClaim),
		}, nil, 1, 4},
		{"as many as fit after a session's end", []holding{
			claimed(three[0], 8*s, never), claimed(three[1], 9*s, never), claimed(three[2], 9*s, never), seenOffer(4, 8*s, leastClaim),
		}, nil, 0, 4},
		{"as many as fit after a release", []holding{
			claimed(three[0], 9*s, 7*s), claimed(three[1], 9*s, never), claimed(three[2], 9*s, never), seenOffer(4, 8*s, leastClaim),
		}, nil, 0, 4},
		{"a release asked for between making and sight", []holding{
			claimed(three[0], 9*s, 8*s+50*time.Millisecond), claimed(three[1], 9*s, never), claimed(three[2], 9*s, never), seenOffer(4, 8*s, leastClaim),
		}, nil, 0, 4},
		{"a release asked for after the sight", []holding{
			claimed(three[0], 9*s, 8*s+101*time.Millisecond), claimed(three[1], 9*s, never), claimed(three[2], 9*s, never), seenOffer(4, 8*s, leastClaim),
		}, nil, 1, 4},
		{"made just before the capacity fell", append(slices.Clone(three), claimed(seenOffer(4, 9*s+990*time.Millisecond, leastClaim), 14*s, never)), nil, 0, 4},
		{"a session runs on when the capacity falls", []holding{
			claimed(three[0], 15*s, never), claimed(three[1], 15*s, never),
		}, nil, 0, 2},
		{"made just after the capacity fell", []holding{
			claimed(three[0], 15*s, never), seenOffer(2, 10*s+5*time.Millisecond, longClaim),
		}, nil, 1, 2},
		{"made under the smaller capacity", []holding{
			claimed(three[0], 10*s+5*time.Millisecond, never), seenOffer(2, 10*s+5*time.Millisecond, longClaim),
		}, nil, 0, 2},
		{"made while paused", []holding{seenOffer(1, 35*s, pausedClaim)}, nil, 1, 1},
		{"seen so late that it may be of either claim time", []holding{
			claimed(three[0], 25*s, never), late(claimed(seenOffer(2, 11*s, longClaim), 23*s, never), 10*s),
		}, nil, 0, 2},
		{"seen late, but of one claim time", []holding{
			claimed(three[0], 25*s, never), late(claimed(seenOffer(2, 11*s, longClaim), 23*s, never), 4*s),
		}, nil, 1, 2},
		{"after an interruption", []holding{
			claimed(three[0], 25*s, never), seenOffer(2, 12*s, longClaim),
		}, []time.Duration{14 * s}, 0, 1},
		{"by no claim time that was ever in force", []holding{seenOffer(1, s, 7*s)}, nil, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			for i := range c.holdings {
				c.holdings[i].attribute(tunings, c.prolonged)
			}
			got := countSlots(c.holdings)
			if len(got.over) != c.over || got.known != c.known {
				t.Errorf("got %d offers above capacity, %d of known capacity (%q), want %d and %d", len(got.over), got.known, got.over, c.over, c.known)
			}
		})
	}
}

// TestObserverChecksPlaces does the same with positions.
func TestObserverChecksPlaces(t *testing.T) {
	t.Parallel()
	at := func(user int, position uint64, fresh bool, sent, received time.Duration) joined {
		return joined{user, position, fresh, sent, received}
	}
	const nobody = anonymous
	for _, c := range []struct {
		name    string
		joins   []joined
		wrong   int
		changed int
	}{
		{"in order", []joined{at(nobody, 1, true, 0, 1), at(nobody, 2, true, 2, 3)}, 0, 0},
		{"at the same time, in any order", []joined{at(nobody, 2, true, 0, 3), at(nobody, 1, true, 2, 5)}, 0, 0},
		{"with a gap", []joined{at(nobody, 1, true, 0, 1), at(7, 3, true, 2, 3), at(7, 3, false, 4, 5)}, 0, 0},
		{"overtaken", []joined{at(nobody, 2, true, 0, 1), at(nobody, 1, true, 2, 3)}, 1, 0},
		{"overtaken, told late", []joined{at(nobody, 1, true, 4, 5), at(nobody, 2, true, 0, 1), at(nobody, 3, true, 2, 3)}, 1, 0},
		{"twice", []joined{at(nobody, 1, true, 0, 2), at(nobody, 1, true, 1, 3)}, 1, 0},
		{"from zero", []joined{at(nobody, 0, true, 0, 1)}, 1, 0},
		{"beyond all joins", []joined{at(nobody, 2, true, 0, 1)}, 1, 0},
		{"known, without a name", []joined{at(nobody, 1, true, 0, 1), at(nobody, 1, false, 2, 3)}, 1, 0},
		{"a user again", []joined{at(7, 1, true, 0, 1), at(7, 1, false, 2, 3)}, 0, 0},
		{"a user again before being told the first time", []joined{at(7, 1, true, 0, 5), at(7, 1, false, 2, 3)}, 0, 0},
		{"two users", []joined{at(7, 1, true, 0, 1), at(8, 1, false, 2, 3)}, 1, 0},
		{"a user and somebody anonymous", []joined{at(nobody, 1, true, 0, 1), at(8, 1, false, 2, 3)}, 1, 0},
		{"a user's new place", []joined{at(7, 1, true, 0, 1), at(7, 2, true, 2, 3), at(7, 2, false, 4, 5)}, 0, 1},
		{"a user's old place after the new one", []joined{at(7, 1, true, 0, 1), at(7, 2, true, 2, 3), at(7, 1, false, 4, 5)}, 1, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			wrong, changes := checkPlaces(c.joins, len(c.joins))
			if len(wrong) != c.wrong || len(changes) != c.changed {
				t.Errorf("got %d wrong %q and %d changes, want %d and %d", len(wrong), wrong, len(changes), c.wrong, c.changed)
			}
		})
	}
}
