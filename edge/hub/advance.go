package hub

import "time"

const (
	// frontOfLine is how many have fewer ahead than somebody who hears every change.
	frontOfLine = 100
	// pace is the least time between two events that only tell those further back that the
	// line has moved.
	pace = 2 * time.Second
)

// Standing is how a line stands, as of one moment.
type Standing interface {
	// Ahead is how many are before a position, as it is told.
	Ahead(position uint64) uint64
	// OpenThrough is how many beyond the watermark are not done, up to the end of the block with
	// this index.
	OpenThrough(index uint64) uint64
	// Mark is the watermark.
	Mark() uint64
}

// Advance marks the connections for which the line has moved far enough: those in front at
// every change of their ahead, others when it fell by a hundredth since they were told. front marks
// those in front in any case, since something else that they are shown has changed.
//
// No ahead in a block can fall by more than the number of open positions through the block's end
// does: what is done before the block counts in both, and what is done inside counts for some of it.
// So when a block has been looked at, the least fall that somebody in it waits for (room) says
// until when it need not be looked at again. Two kinds of block are looked at every time, for
// nothing bounds the fall there: that of the watermark, where ahead becomes exact, and those in
// front.
func (l *Line) Advance(v Standing, front bool) {
	if l.Len() == 0 {
		return
	}
	now := l.hub.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	mark := v.Mark()
	first := mark / blockSize
	for index, b := range l.blocks {
		if index < first {
			if !b.passed {
				b.passed = true
				b.scan(v, front, now)
			}
			continue
		}
		if b.passed { // after a loss the watermark can lie lower than it did
			b.passed, b.fresh = false, false
		}
		inFront := index == first || v.OpenThrough(index-1) < frontOfLine
		if !inFront {
			if b.fresh && b.end-v.OpenThrough(index) < b.room || b.scanned != 0 && now-b.scanned < pace {
				continue
			}
		}
		b.end = v.OpenThrough(index)
		b.scan(v, front, now)
	}
}

// scan looks at each connection of a block.
func (b *block) scan(v Standing, front bool, now time.Duration) {
	b.fresh, b.scanned = true, now
	b.room = ^uint64(0)
	for _, c := range b.conns {
		told := c.ahead.Load()
		if told == NoAhead {
			continue
		}
		ahead := v.Ahead(c.Position)
		step := max(told/frontOfLine, 1)
		fell := told - min(ahead, told)
		if fell >= step || front && ahead < frontOfLine {
			c.mark(wantTell, ahead < frontOfLine)
			told, fell = ahead, 0
			step = max(told/frontOfLine, 1)
		}
		b.room = min(b.room, step-fell)
	}
}
