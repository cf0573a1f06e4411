package redis

import (
	"fmt"
	"strconv"
	"strings"
)

// shape is what has to be known of a queue in order to name the keys of a script.
type shape struct {
	issued uint64
	// turn runs; oldest is the first one with bitmaps; holdTurns before the running one count.
	turn, oldest, holdTurns uint64
	// live are the pages with bitmaps, in ascending order.
	live []uint64
	// kept is all but issued as the script writes it, for comparison.
	kept string
}

func parseShape(text string) (shape, error) {
	issued, kept, _ := strings.Cut(text, " ")
	fields := strings.Split(kept, " ")
	if len(fields) != 4 {
		return shape{}, fmt.Errorf("parse shape: %d fields", len(fields))
	}
	s := shape{kept: kept}
	numbers := []*uint64{&s.issued, &s.turn, &s.oldest, &s.holdTurns}
	for i, field := range append([]string{issued}, fields[:3]...) {
		n, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			return shape{}, fmt.Errorf("parse shape: %w", err)
		}
		*numbers[i] = n
	}
	if fields[3] == "" {
		return s, nil
	}
	for field := range strings.SplitSeq(fields[3], ",") {
		page, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			return shape{}, fmt.Errorf("parse shape: %w", err)
		}
		s.live = append(s.live, page)
	}
	return s, nil
}

// text is the shape as scripts write it.
func (s shape) text() string { return strconv.FormatUint(s.issued, 10) + " " + s.kept }

// credit is the kept turn that sightings of a turn count for.
func (s shape) credit(turn uint64) uint64 {
	least := s.oldest
	if s.turn > s.holdTurns {
		least = max(least, s.turn-s.holdTurns)
	}
	return min(max(turn, least), s.turn)
}

// fallingOut are the turns that no hold asks for any more once the next one begins.
func (s shape) fallingOut() (from, before uint64) {
	if s.turn+1 <= s.holdTurns {
		return s.oldest, s.oldest
	}
	return s.oldest, max(s.turn+1-s.holdTurns, s.oldest)
}
