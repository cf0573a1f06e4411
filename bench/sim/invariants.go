package main

import (
	"fmt"
	"time"
)

// invariant is something that must hold whatever happens.
type invariant int

// The invariants.
const (
	capacityKept invariant = iota
	positionsOnce
	orderKept
	presentOnly
	holdKept
	absentExpire
	slotsOffered
	rateKept
	aheadFalls
	fatesAddUp
	userOnce
	claimsKept
	timesKept
	sameTold
	invariants
)

// names are the invariants as the report and the tests know them, with what each one says.
var names = [invariants]struct{ name, says string }{
	capacityKept:  {"capacity", "no offer is made while sessions and offers are at or above capacity, nor while the queue is not open"},
	positionsOnce: {"positions", "no position is given twice"},
	orderKept:     {"order", "no waiting fan who was present by the sightings that the tick read is passed over for a later position"},
	presentOnly:   {"present", "slots are offered to fans who are present by the sightings that the tick read, and after a missed offer were seen again"},
	holdKept:      {"hold", "nobody whose sighting was accepted within the hold, or in a turn of the hold, expires for absence"},
	absentExpire:  {"absence", "whom no turn of the hold has seen expires when the turn closes"},
	slotsOffered:  {"slots", "every freed slot is offered at the next tick while somebody present waits, unless rate, pause or sell-out forbid it"},
	rateKept:      {"rate", "no more offers than maxPerMinute allows"},
	aheadFalls:    {"ahead", "ahead never rises for a fan, and is never less than the truth"},
	fatesAddUp:    {"fates", "the sum over the fates is the number that joined"},
	userOnce:      {"users", "a user who waits, has an offer or a session has one place, on every device"},
	claimsKept:    {"claims", "an offer can be claimed until claimBy and the grace, by its holder, once; again is the same session"},
	timesKept:     {"times", "offers and sessions end when their time is over and not before; a sell-out withdraws offers without a miss"},
	sameTold:      {"log", "answers, log, snapshot and view tell the same"},
}

// breach is an invariant that was broken.
type breach struct {
	Invariant string `json:"invariant"`
	Says      string `json:"says"`
	// At is the virtual time since the simulation began.
	At       string `json:"at"`
	Position uint64 `json:"position,omitzero"`
	What     string `json:"what"`
}

func (b *breach) Error() string {
	return fmt.Sprintf("%s is broken at %s, position %d: %s (%s)", b.Invariant, b.At, b.Position, b.What, b.Says)
}

// referee counts the checks of each invariant and keeps the first breach.
type referee struct {
	checks [invariants]uint64
	broken *breach
}

// ok counts a check of an invariant and passes on whether it holds.
func (r *referee) ok(i invariant, holds bool) bool {
	r.checks[i]++
	return holds
}

// fail notes a breach; the first one ends the run.
func (r *referee) fail(i invariant, at int32, position uint64, what string, args ...any) {
	if r.broken == nil {
		r.broken = &breach{
			Invariant: names[i].name, Says: names[i].says, Position: position,
			At: (time.Duration(at) * time.Millisecond).String(), What: fmt.Sprintf(what, args...),
		}
	}
}
