package hub

import (
	"log/slog"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// someLine is a line of which some positions are done. As in queue.View, ahead is exact in the
// watermark's block and an upper bound elsewhere.
type someLine struct {
	mark uint64
	done []bool // by position - 1
}

func (l *someLine) Mark() uint64 { return l.mark }

func (l *someLine) open(from, to uint64) (n uint64) { // positions, both included
	for p := max(from, 1); p <= to; p++ {
		if p > uint64(len(l.done)) || !l.done[p-1] {
			n++
		}
	}
	return n
}

func (l *someLine) OpenThrough(index uint64) uint64 { return l.open(l.mark+1, (index+1)*blockSize) }

func (l *someLine) Ahead(position uint64) uint64 {
	if position <= l.mark+1 {
		return 0
	}
	index, offset := (position-1)/blockSize, (position-1)%blockSize
	if index == l.mark/blockSize {
		return l.open(l.mark+1, position-1)
	}
	inside := l.open(index*blockSize+1, (index+1)*blockSize)
	return l.open(l.mark+1, index*blockSize) + min(offset, max(inside, 1)-1)
}

// TestAdvanceMissesNobody: whoever must hear is marked, however the line moved, and only who hears
// something new.
func TestAdvanceMissesNobody(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const length = 6 * blockSize
		l := &someLine{done: make([]bool, length)}
		h := New(1000, time.Second, slog.New(slog.DiscardHandler)) // not run: marks stay
		line := h.NewLine(nil)
		var conns []*Conn
		come := func(position uint64) {
			c := &Conn{Fan: Fan{Position: position}, line: line}
			c.ahead.Store(l.Ahead(position))
			if l.done[position-1] {
				c.ahead.Store(NoAhead)
			}
			line.add(c)
			conns = append(conns, c)
		}
		for range rapid.IntRange(1, 40).Draw(t, "connections") {
			come(rapid.Uint64Range(1, length).Draw(t, "position"))
		}
		for range rapid.IntRange(1, 12).Draw(t, "views") {
			l.mark = min(l.mark+rapid.Uint64Range(0, 40).Draw(t, "offered"), length)
			if rapid.Bool().Draw(t, "leap") {
				l.mark = min(l.mark+rapid.Uint64Range(0, 1500).Draw(t, "more"), length)
			}
			from := rapid.IntRange(0, length-1).Draw(t, "done from")
			for p := from; p < min(from+rapid.IntRange(0, 200).Draw(t, "done"), length); p += 2 {
				l.done[p] = true
			}
			if rapid.Bool().Draw(t, "somebody comes") {
				come(rapid.Uint64Range(1, length).Draw(t, "position"))
			}
			h.start = h.start.Add(-pace) // time passes
			front := rapid.Bool().Draw(t, "front")
			line.Advance(l, front)
			for _, c := range conns {
				told, ahead := c.ahead.Load(), l.Ahead(c.Position)
				marked := c.wants.Load()&wantTell != 0
				must := told != NoAhead && (told-ahead >= max(told/frontOfLine, 1) || front && ahead < frontOfLine && c.Position > l.mark/blockSize*blockSize)
				if must && !marked {
					t.Fatalf("position %d, watermark %d: told %d, now %d, and not marked", c.Position, l.mark, told, ahead)
				}
				if marked && told == NoAhead {
					t.Fatalf("position %d does not wait and was marked", c.Position)
				}
				if marked && ahead == told && !front {
					t.Fatalf("position %d was marked, and has %d ahead as before", c.Position, ahead)
				}
				if marked {
					c.wants.And(^wantTell)
					c.ahead.Store(ahead)
				}
			}
		}
	})
}

// TestFarBlocksAreLeftAlone: while the line creeps, nobody looks at blocks in which nobody can see it.
func TestFarBlocksAreLeftAlone(t *testing.T) {
	l := &someLine{done: make([]bool, 20*blockSize)}
	h := New(1000, time.Second, slog.New(slog.DiscardHandler))
	line := h.NewLine(nil)
	for i := range uint64(20) {
		c := &Conn{Fan: Fan{Position: i*blockSize + 500}, line: line}
		c.ahead.Store(l.Ahead(c.Position))
		line.add(c)
	}
	line.Advance(l, false)
	before := line.blocks[15].scanned
	h.start = h.start.Add(-time.Minute)
	l.mark = 120 // of the 15,859 before position 15,860: under a hundredth
	line.Advance(l, false)
	if got := line.blocks[15].scanned; got != before {
		t.Errorf("the far block was looked at again, %v after", got-before)
	}
	l.mark = 200
	line.Advance(l, false)
	if got := line.blocks[15].scanned; got == before {
		t.Error("the far block was not looked at, though its fan must hear")
	}
}

// TestWhoComesIsReckonedWith: a block in which nobody waited is looked at when somebody has come.
func TestWhoComesIsReckonedWith(t *testing.T) {
	l := &someLine{done: make([]bool, 3*blockSize)}
	h := New(1000, time.Second, slog.New(slog.DiscardHandler))
	line := h.NewLine(nil)
	inside, waiting := &Conn{Fan: Fan{Position: 2100}, line: line}, &Conn{Fan: Fan{Position: 2200}, line: line}
	inside.ahead.Store(NoAhead)
	line.add(inside)
	line.Advance(l, false)
	waiting.ahead.Store(l.Ahead(2200))
	line.add(waiting)
	h.start = h.start.Add(-pace)
	l.mark = 500
	line.Advance(l, false)
	if waiting.wants.Load()&wantTell == 0 {
		t.Error("who came was not marked when the line had moved by 500")
	}
	if inside.wants.Load() != 0 {
		t.Error("who does not wait was marked")
	}
}

// TestABlockThatIsPassedAgain: after a loss the line stands where it stood before, and passes those whom
// it had passed already.
func TestABlockThatIsPassedAgain(t *testing.T) {
	l := &someLine{done: make([]bool, 5*blockSize)}
	h := New(1000, time.Second, slog.New(slog.DiscardHandler))
	line := h.NewLine(nil)
	c := &Conn{Fan: Fan{Position: 1500}, line: line}
	c.ahead.Store(l.Ahead(1500))
	line.add(c)
	for range 2 {
		l.mark = 100
		c.ahead.Store(l.Ahead(1500))
		line.Advance(l, false)
		c.wants.Store(0)
		h.start = h.start.Add(-pace)
		l.mark = 3000
		line.Advance(l, false)
		if c.wants.Load()&wantTell == 0 {
			t.Fatal("whom the line passed was not marked")
		}
		c.wants.Store(0)
		h.start = h.start.Add(-pace)
	}
}
