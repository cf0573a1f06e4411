package deploy_test

import (
	"fmt"
	"slices"
	"time"
)

// anonymous stands for the user of a join that named none.
const anonymous = -1

// joined is the answer to one join.
type joined struct {
	user           int // or anonymous
	position       uint64
	fresh          bool          // answered 201: a new place
	sent, received time.Duration // by the observer's clock
}

// replaced is a place instead of which its user got another one.
type replaced struct {
	user     int
	old, new joined
}

// checkPlaces looks for positions that contradict each other, among the answers to so many requests.
// What it cannot decide by the answers to joins alone, whether a user's former place was gone when
// there was a new one, it returns.
func checkPlaces(joins []joined, requests int) (wrong []string, changes []replaced) {
	report := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	owner := make(map[uint64]int, len(joins))
	for _, j := range joins {
		if j.position < 1 || j.position > uint64(requests) {
			report("position %d after %d joins", j.position, requests)
		}
		if j.user == anonymous && !j.fresh {
			report("an anonymous fan got position %d as if it was known", j.position)
		}
		if j.fresh {
			if _, taken := owner[j.position]; taken {
				report("position %d was given twice", j.position)
			}
			owner[j.position] = j.user
		}
	}
	users := make(map[int][]joined)
	for _, j := range joins {
		if of, known := owner[j.position]; !known {
			owner[j.position] = j.user // the answer by which it was new was lost
		} else if of != j.user {
			report("position %d is user %d's, and user %d's too", j.position, of, j.user)
		}
		if j.user != anonymous {
			users[j.user] = append(users[j.user], j)
		}
	}
	for user, answers := range users {
		slices.SortFunc(answers, func(a, b joined) int { return int(a.received - b.received) })
		byPosition := make(map[uint64]joined)
		var highest uint64
		for i, a := range answers {
			for _, earlier := range answers[:i] {
				if earlier.received <= a.sent && earlier.position > a.position {
					report("user %d is told of position %d after position %d", user, a.position, earlier.position)
				}
			}
			if _, known := byPosition[a.position]; !known {
				byPosition[a.position] = a
			}
			highest = max(highest, a.position)
		}
		for position, a := range byPosition {
			if position < highest {
				changes = append(changes, replaced{user, a, byPosition[highest]})
			}
		}
	}
	return append(wrong, checkOrder(joins)...), changes
}

// checkOrder wants that a join which was answered before another one was sent has the lower
// position, unless the other one found the place that its user had.
func checkOrder(joins []joined) (wrong []string) {
	bySending, byAnswer := slices.Clone(joins), slices.Clone(joins)
	slices.SortFunc(bySending, func(a, b joined) int { return int(a.sent - b.sent) })
	slices.SortFunc(byAnswer, func(a, b joined) int { return int(a.received - b.received) })
	var highest uint64 // of the positions answered by then
	answered := 0
	for _, j := range bySending {
		for answered < len(byAnswer) && byAnswer[answered].received < j.sent {
			highest = max(highest, byAnswer[answered].position)
			answered++
		}
		if j.fresh && answered > 0 && j.position <= highest {
			wrong = append(wrong, fmt.Sprintf("a join sent after position %d was known got position %d", highest, j.position))
		}
	}
	return wrong
}
