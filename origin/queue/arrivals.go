package queue

import (
	"encoding/json"
	"errors"
	"maps"
	"math/bits"
	"slices"
	"time"
)

// Line says when the positions beyond the watermark joined, as far as that is worth keeping: in
// pieces, in ascending order and without gaps, within each of which arrivals were spread evenly. A
// piece is as long as a second, or in a long line a fraction of the time that the line goes back.
type Line []Arrivals

// Arrivals are the positions beyond After, up to Last, which joined between two moments.
type Arrivals struct {
	After, Last uint64
	Begin, End  int64 // milliseconds since 1970
}

const (
	// mostArrivals bounds the pieces of a line.
	mostArrivals = 128
	// lineParts is into how many pieces the time that a line goes back is divided.
	lineParts = mostArrivals / 2
)

// MarshalJSON writes [After, Last - After, Begin, End - Begin].
func (a Arrivals) MarshalJSON() ([]byte, error) {
	return json.Marshal([4]int64{int64(a.After), int64(a.Last - a.After), a.Begin, a.End - a.Begin})
}

// UnmarshalJSON is its inverse.
func (a *Arrivals) UnmarshalJSON(text []byte) error {
	var n []int64
	if err := json.Unmarshal(text, &n); err != nil {
		return err
	}
	if len(n) != 4 || n[0] < 0 || n[1] < 0 || n[3] < 0 {
		return errors.New("parse arrivals: four numbers are wanted")
	}
	*a = Arrivals{uint64(n[0]), uint64(n[0] + n[1]), n[2], n[2] + n[3]}
	return nil
}

// join adds the positions beyond after, up to last, which joined between two moments.
func (l *Line) join(after, last uint64, begin, end time.Time) {
	if last <= after {
		return
	}
	list := *l
	piece := Arrivals{after, last, begin.UnixMilli(), end.UnixMilli()}
	if n := len(list); n > 0 {
		part := max((piece.End-list[0].Begin)/lineParts, time.Second.Milliseconds())
		if piece.End-list[n-1].Begin < part {
			list[n-1].Last, list[n-1].End = piece.Last, piece.End
			return
		}
	}
	if list = append(list, piece); len(list) > mostArrivals {
		half := make(Line, 0, mostArrivals)
		for pair := range slices.Chunk(list, 2) {
			first, second := pair[0], pair[len(pair)-1]
			half = append(half, Arrivals{first.After, second.Last, first.Begin, second.End})
		}
		list = half
	}
	*l = list
}

// pass forgets the pieces of which the watermark has passed all.
func (l *Line) pass(watermark uint64) {
	n := 0
	for n < len(*l) && (*l)[n].Last <= watermark {
		n++
	}
	*l = (*l)[n:]
}

// since returns for how many seconds each of some ascending positions has been in line, rounded up.
// One that the line does not know is left out.
func (l Line) since(positions Positions, now time.Time) []int {
	var list []int
	for _, position := range positions {
		for len(l) > 0 && l[0].Last < position {
			l = l[1:]
		}
		if len(l) == 0 || position <= l[0].After {
			continue
		}
		piece := l[0]
		share := float64(position-piece.After) / float64(piece.Last-piece.After)
		joined := piece.Begin + int64(share*float64(piece.End-piece.Begin))
		list = append(list, int((max(now.UnixMilli()-joined, 0)+999)/1000))
	}
	return list
}

// Waits counts waits by their length in seconds: in buckets of one second below 32, of two below 64,
// of four below 128 and so on, 16 to each doubling.
type Waits struct {
	Counts map[int]int `json:"counts,omitempty"` // by the bucket's number
	Max    int         `json:"max"`
}

const waitParts = 16 // a power of two

func (w *Waits) add(seconds int) {
	if w.Counts == nil {
		w.Counts = make(map[int]int)
	}
	w.Counts[waitBucket(seconds)]++
	w.Max = max(w.Max, seconds)
}

func waitBucket(seconds int) int {
	if seconds < waitParts {
		return max(seconds, 0)
	}
	doubling := bits.Len(uint(seconds)) - bits.Len(waitParts)
	return doubling*waitParts + seconds>>doubling
}

// longest is the longest wait that a bucket counts.
func longest(bucket int) int {
	if bucket < 2*waitParts {
		return bucket
	}
	doubling := bucket/waitParts - 1
	return (bucket-doubling*waitParts+1)<<doubling - 1
}

// summary is nil where nothing was counted.
func (w Waits) summary() *MinuteWait {
	total := 0
	for _, n := range w.Counts {
		total += n
	}
	if total == 0 {
		return nil
	}
	s := &MinuteWait{P50: -1, P90: -1, Max: w.Max}
	sum := 0
	for _, bucket := range slices.Sorted(maps.Keys(w.Counts)) {
		sum += w.Counts[bucket]
		if s.P50 < 0 && 2*sum >= total {
			s.P50 = min(longest(bucket), w.Max)
		}
		if s.P90 < 0 && 10*sum >= 9*total {
			s.P90 = min(longest(bucket), w.Max)
		}
	}
	return s
}
