package queue

import (
	"math"
	"slices"
	"time"
)

// shop is what is known of the slots, and of those who wait for them, for a look into the future.
// Numbers are expected ones, hence not whole.
type shop struct {
	step     time.Duration
	capacity float64
	perStep  float64 // the most offers in a step

	ages     []float64 // running sessions by age, in whole steps; the last element holds all older
	survival []float64 // the share of sessions of each age that outlives a step
	unseen   float64   // the share of sessions that outlives every age that was seen
	claiming float64   // running offers that will be claimed
	lapsing  []float64 // those that will not be, by the number of steps until they lapse
	claimed  float64   // the share of offers that is claimed
	delay    float64   // how many steps that takes in the mean

	backlog float64 // owed fans who are present, and wait for a slot
	returns float64 // owed fans who come back within a step

	beyond  float64 // who waits beyond the watermark
	present float64 // the share of them who are there, at the front of the line
	atEnd   float64 // and at its end
	fading  float64 // the share of the present who go away within the next step
}

// longestForecast bounds the waits that are estimated.
const longestForecast = 24 * time.Hour

// point says that a fan with so many ahead waits so long, and how many offers are made until then.
type point struct {
	ahead  float64
	wait   time.Duration
	offers float64
	unseen float64 // as in shop
}

// forecast plays the slots forward, and says until when offers reach how far back in line, until a
// fan with `far` ahead has one. From point to point the time grows by a third.
func (s shop) forecast(far float64) []point {
	ages, lapsing := slices.Clone(s.ages), slices.Clone(s.lapsing)
	claiming, backlog := s.claiming, s.backlog
	taken := claiming + sum(ages) + sum(lapsing)
	claims, claimsSoon := 1.0, 1.0 // the share of those claiming who do so in a step, in half of one
	if s.delay > 0 {
		claims, claimsSoon = 1-math.Exp(-1/s.delay), 1-math.Exp(-0.5/s.delay)
	}
	var points []point
	var offers, reached float64 // reached counts those in line who are present now
	// The share of them who are present still. Patience differs: the impatient go first, and those who
	// are left go more slowly. With exponentially distributed rates of going away it is this share.
	lasting := 1.0
	next, last := 0, int(longestForecast/s.step)
	for step := 0; step <= last; step++ {
		allowed := s.perStep
		if step == 0 {
			allowed = s.perStep / s.step.Seconds() // at once: one second's worth
		} else {
			taken -= age(ages, s.survival) + lapsing[step%len(lapsing)]
			lapsing[step%len(lapsing)] = 0
			ages[0] = claiming * claims
			claiming -= ages[0]
		}
		made := max(min(s.capacity-taken, allowed), 0)
		taken += made
		offers += made
		// In the mean an offer is made in the middle of a step.
		soon := made * s.claimed * claimsSoon
		ages[0] += soon
		claiming += made*s.claimed - soon
		lapsing[step%len(lapsing)] += made * (1 - s.claimed)

		backlog += s.returns
		owed := min(made, backlog)
		backlog -= owed
		fresh := (made - owed) / lasting
		reached += fresh
		lasting = 1 / (1 + s.fading*float64(step+1))
		if reached >= 1 && reached-fresh < 1 {
			// Whoever stands first is offered one of the first slots of the step.
			part := (1 - reached + fresh) / fresh
			wait := time.Duration(max(float64(step-1)+part, 0) * float64(s.step))
			points = append(points, point{0, wait, offers - made*(1-part), s.unseen})
		}
		if step < next {
			continue
		}
		next = max(step+1, step*4/3)
		// A fan's own offer is the last of them.
		if reached > 1 {
			ahead := s.ahead(reached - 1)
			points = append(points, point{ahead, time.Duration(step) * s.step, offers, s.unseen})
			if ahead > far {
				break
			}
		}
	}
	return points
}

// age moves sessions on by a step and says how many have ended. Nothing is left at age 0.
func age(ages, survival []float64) (ended float64) {
	last := len(ages) - 1
	for a := last; a >= 0; a-- {
		stay := ages[a] * survival[a]
		ended += ages[a] - stay
		if a < last {
			ages[a+1] = stay
		}
	}
	ages[0] = 0
	return ended
}

// ahead is how many stand before a fan before whom so many stand who are present. Their share is
// taken to change evenly along the line: those who came late have had less time to go away.
func (s shop) ahead(present float64) float64 {
	whole := s.beyond * (s.present + s.atEnd) / 2
	if s.beyond == 0 || present >= whole {
		return s.beyond + (present-whole)/s.atEnd
	}
	slope := (s.atEnd - s.present) / s.beyond
	// Where slope/2 · ahead² + s.present · ahead = present; written so that slope may be zero.
	return 2 * present / (s.present + math.Sqrt(max(s.present*s.present+2*slope*present, 0)))
}

func sum(list []float64) float64 {
	total := 0.0
	for _, n := range list {
		total += n
	}
	return total
}

// survival is the share of sessions that outlives a step, by age, from the sessions that ended at
// each age, and the seconds that sessions spent at it; and the share that outlives the ages seen.
func survival(ended, spent []float64, step time.Duration) (shares []float64, unseen float64) {
	// An age counts as not seen that is so rare, compared with the most frequent one.
	const rare = 1.0 / 200
	seen := 0 // the ages below it were
	for a, most := 0, slices.Max(spent); a < len(spent); a++ {
		if spent[a] > most*rare {
			seen = a + 1
		}
	}
	shares = make([]float64, len(spent))
	var total, early float64 // the cumulated hazard; that of the first half of the ages seen
	for a := range seen {
		hazard := ratio(ended[a], spent[a]) * step.Seconds()
		shares[a] = math.Exp(-hazard)
		if total += hazard; a < seen/2 {
			early += hazard
		}
	}
	// In a log-logistic distribution the odds of having ended grow with a power of the age. Its hazard
	// grows less and less, as that of the times does which people take. Where it would fall it stays.
	const nobody = 30.0 // who is left after so much hazard
	at, power, hazard := math.Expm1(min(total, nobody)), 1.0, 0.0
	if early > 0 {
		power = min(max(math.Log2(at/math.Expm1(min(early, nobody))), 1), 3)
	}
	odds := func(a int) float64 { return at * math.Pow(float64(a)/float64(max(seen, 1)), power) }
	for a := seen; a < len(shares); a++ {
		hazard = max(hazard, math.Log((1+odds(a+1))/(1+odds(a))))
		shares[a] = math.Exp(-hazard)
	}
	shares[len(shares)-1] = 0 // the purchase window is over
	return shares, math.Exp(-total)
}
