package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// element is a part of what happens, which -without leaves out.
type element string

// The elements of the scenario. Those of the first group are the fans', those of the second the
// network's and the origins', those of the third the operator's: no estimate can foresee them.
const (
	early     element = "early"     // fans join before the opening, which is put off once
	news      element = "news"      // waves of fans
	abandon   element = "abandon"   // up to 40 % lose patience
	multijoin element = "multijoin" // some join several times
	phones    element = "phones"    // phones sleep, for minutes or for longer than the hold

	lost     element = "lost"     // answers are lost and batches sent again
	cutoff   element = "cutoff"   // an edge is off from the origins for minutes
	takeover element = "takeover" // an origin stalls within a tick, another takes over
	outage   element = "outage"   // the store is away: no ticks, no sightings

	pause   element = "pause"   // the queue is paused and resumed
	retunes element = "retunes" // capacity, maxPerMinute, window, hold, claim time
	soldout element = "soldout" // the shop sells out, and reopens
)

var elements = []element{early, news, abandon, multijoin, phones, lost, cutoff, takeover, outage, pause, retunes, soldout}

// unforeseen are the elements without which a run is calm.
var unforeseen = []element{outage, pause, retunes, soldout}

// parseElements reads a list of elements with commas.
func parseElements(list string) ([]element, error) {
	var chosen []element
	for name := range strings.SplitSeq(list, ",") {
		if name == "" {
			continue
		}
		if !slices.Contains(elements, element(name)) {
			return nil, fmt.Errorf("there is no element %q; there are %v", name, elements)
		}
		chosen = append(chosen, element(name))
	}
	return chosen, nil
}

// plan is what is fixed before the simulation begins.
type plan struct {
	fans, slots int
	seed        uint64
	without     []element
}

const (
	// opening is when the queue opens, on the simulation's clock.
	opening = 5 * minute
	// salesLast is how long fans keep arriving after the opening.
	salesLast = 60 * minute
)

func (p plan) has(e element) bool { return !slices.Contains(p.without, e) }

// calm reports whether nothing happens that no estimate can foresee.
func (p plan) calm() bool {
	return !slices.ContainsFunc(unforeseen, p.has)
}

// mishap is something that breaks, or is mended, at a time.
type mishap struct {
	at int32
	do func(w *world)
}

// change is a merge patch by the operator.
type change struct {
	at    int32
	patch string
}

// arrivals draws when the fans come: a spike at the opening that decays, some before it, waves
// from news, and a trickle throughout.
func (w *world) arrivals() []int32 {
	times := make([]int32, w.about.fans)
	for i := range times {
		u := w.Float64()
		var at int32
		switch {
		case u < 0.15 && w.has(early):
			at = int32(opening * max(w.Float64(), w.Float64(), w.Float64()))
		case u < 0.60:
			at = opening + int32(150*second*w.ExpFloat64())
		case u < 0.84 && w.has(news):
			wave := []int32{12, 25, 40}[w.upTo(3)]
			at = opening + wave*minute + int32(180*second*w.ExpFloat64())
		default:
			at = opening + w.upTo(salesLast)
		}
		times[i] = min(at, opening+salesLast)
	}
	slices.Sort(times)
	return times
}

// script draws what the operator does and what breaks.
func (w *world) script() {
	// A minute of the sale, give or take one.
	at := func(m float64) int32 {
		return opening + int32(m*minute) - minute + w.upTo(2*minute)
	}
	do := func(at int32, do func(*world)) { w.mishaps = append(w.mishaps, mishap{at, do}) }
	patch := func(at int32, body string, args ...any) {
		w.patches = append(w.patches, change{at, fmt.Sprintf(body, args...)})
	}
	slots := w.about.slots
	perMinute := int(float64(slots) / w.purchase.Minutes())

	if w.has(early) {
		patch(opening-2*minute, `{"opensAt": %q}`, timeAt(opening).Format(time.RFC3339))
	}
	if w.has(retunes) {
		patch(at(6), `{"capacity": %d}`, slots*8/10)
		patch(at(14), `{"capacity": %d}`, slots*11/10)
		patch(at(20), `{"maxPerMinute": %d}`, perMinute*(40+int(w.upTo(40)))/100)
		patch(at(28), `{"maxPerMinute": null, "capacity": %d}`, slots)
		patch(at(31), `{"purchaseWindowSeconds": 900, "claimSeconds": 180}`)
		patch(at(33), `{"holdSeconds": 1200}`)
		patch(at(43), `{"holdSeconds": null}`)
		patch(at(45), `{"purchaseWindowSeconds": null, "claimSeconds": null}`)
	}
	if w.has(takeover) {
		do(at(10), func(w *world) { w.stalls = true })
	}
	if w.has(pause) {
		from := at(17)
		patch(from, `{"state": "paused"}`)
		patch(from+minute+w.upTo(minute), `{"state": "open"}`)
	}
	if w.has(outage) {
		from := at(23.5)
		do(from, func(w *world) { w.away = true })
		do(from+2*minute+w.upTo(2*minute), func(w *world) { w.away = false })
	}
	if w.has(cutoff) {
		from := at(36)
		do(from, func(w *world) { w.edges[1].cut = true })
		do(from+3*minute+w.upTo(3*minute), func(w *world) { w.edges[1].reconnect() })
	}
	slices.SortStableFunc(w.mishaps, func(a, b mishap) int { return cmp.Compare(a.at, b.at) })
	slices.SortStableFunc(w.patches, func(a, b change) int { return cmp.Compare(a.at, b.at) })
}

const (
	// lostAnswers is how often the answer to a batch of joins is lost.
	lostAnswers = 0.002
	// purchases last four minutes in the mean.
	purchases = 4 * time.Minute
	// losePatience is the part of the fans who would leave within the hour.
	losePatience = 0.4
	// stallFor is how long an origin stalls within a tick: longer than its lease.
	stallFor = 20 * second
	// longest is where a run that does not end is ended.
	longest = 6 * 60 * minute
)
