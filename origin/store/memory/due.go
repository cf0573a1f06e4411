package memory

import (
	"container/heap"
	"slices"
	"time"

	"waitingroom/origin/queue"
)

// due orders positions by the time at which something of theirs runs out. An entry whose position
// has meanwhile got another time, or none, is stale; it is dropped when it comes to the top.
type due struct {
	entries dueHeap
	// until tells when what the position has runs out; false when it has nothing any more.
	until func(position uint64) (time.Time, bool)
}

type dueEntry struct {
	at       time.Time
	position uint64
}

func (d *due) add(at time.Time, position uint64) {
	d.clean()
	heap.Push(&d.entries, dueEntry{at, position})
}

func (d *due) stale(e dueEntry) bool {
	until, running := d.until(e.position)
	return !running || !until.Equal(e.at)
}

func (d *due) clean() {
	for len(d.entries) > 0 && d.stale(d.entries[0]) {
		heap.Pop(&d.entries)
	}
}

// first is the earliest time, zero when there is none.
func (d *due) first() time.Time {
	d.clean()
	if len(d.entries) == 0 {
		return time.Time{}
	}
	return d.entries[0].at
}

// by lists who is due at a moment, in ascending order of position. It walks only the part of the
// heap that is due.
func (d *due) by(now time.Time) queue.Positions {
	d.clean()
	var list queue.Positions
	var walk func(i int)
	walk = func(i int) {
		if i >= len(d.entries) || d.entries[i].at.After(now) {
			return
		}
		if e := d.entries[i]; !d.stale(e) {
			list = append(list, e.position)
		}
		walk(2*i + 1)
		walk(2*i + 2)
	}
	walk(0)
	slices.Sort(list)
	return slices.Compact(list)
}

// move adds to every time, which keeps their order.
func (d *due) move(by time.Duration) {
	for i := range d.entries {
		d.entries[i].at = d.entries[i].at.Add(by)
	}
}

type dueHeap []dueEntry

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h dueHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(x any)        { *h = append(*h, x.(dueEntry)) }
func (h *dueHeap) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	*h = (*h)[:last]
	return x
}
