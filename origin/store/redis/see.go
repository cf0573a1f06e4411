package redis

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"waitingroom/origin/store"
)

// fewSightings is up to how many sightings of one page are sent as offsets, at about a microsecond
// each; more of them are sent as the part of the bitmap that holds them, at about twenty.
const fewSightings = 32

// maxEntry bounds numbers of entries to what a script can count with.
const maxEntry = 1 << 53

// See implements store.Line. Bits of positions that are done are set like the others where their
// page is live, since nobody looks at them; what is done for good never waits again.
func (s *Store) See(ctx context.Context, batch store.SightingBatch) (store.Ack, error) {
	positions := ascending(batch.Positions)
	report := ""
	switch {
	case batch.Leaving:
		report = "leaving"
	case batch.Complete:
		report = "complete"
	}
	first := true
	r, err := s.runOf(ctx, seeScript, batch.Queue, batch.Incarnation, batch.Now, func(c *call) error {
		// What seems not to be issued yet may only be newer than the shape at hand; the second time
		// the shape is as new as the script's refusal.
		if !first {
			issued, _ := slices.BinarySearch(positions, c.shape.issued+1)
			positions = positions[:issued]
		}
		first = false
		c.see(batch, positions, report)
		return nil
	})
	if err != nil {
		return store.Ack{}, fmt.Errorf("record sightings: %w", err)
	}
	return r.ack, nil
}

func (c *call) see(batch store.SightingBatch, positions []uint64, report string) {
	credited := c.shape.credit(batch.Turn)
	running := 0
	if credited == c.shape.turn {
		running = 1
	}
	highest := uint64(0)
	if len(positions) > 0 {
		highest = positions[len(positions)-1]
	}
	c.key(c.edges(), c.scratch(1))
	c.arg(c.shape.kept, highest, running, batch.Edge, report, min(batch.AsOf, maxEntry), millis(batch.At))
	count := len(c.args)
	c.arg(0)
	pages := 0
	for _, page := range c.shape.live {
		from, _ := slices.BinarySearch(positions, page*pageSize+1)
		to, _ := slices.BinarySearch(positions, (page+1)*pageSize+1)
		if from == to {
			continue
		}
		pages++
		c.key(c.seen(credited, page), c.lapsed(page), c.missed(page))
		at, data := packSightings(positions[from:to], page*pageSize+1)
		c.arg(page, at, data)
	}
	c.args[count] = pages
}

// packSightings writes the sightings of one page, whose first position is base: where the bitmap
// begins, in bytes, and its bytes; or -1 and the offsets.
func packSightings(positions []uint64, base uint64) (at int64, data any) {
	if len(positions) <= fewSightings {
		offsets := make([]string, len(positions))
		for i, position := range positions {
			offsets[i] = strconv.FormatUint(position-base, 10)
		}
		return -1, strings.Join(offsets, ",")
	}
	first := (positions[0] - base) / 8
	bitmap := make([]byte, (positions[len(positions)-1]-base)/8-first+1)
	for _, position := range positions {
		offset := position - base
		bitmap[offset/8-first] |= 0x80 >> (offset % 8)
	}
	return int64(first), bitmap
}
