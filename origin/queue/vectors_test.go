package queue_test

import (
	"encoding/json"
	"flag"
	"math/rand/v2"
	"os"
	"reflect"
	"testing"

	"waitingroom/origin/queue"
)

var writeVectors = flag.Bool("vectors", false, "write testdata/line.json anew")

// vectorsFile holds what edge and page compute alike; web/line.test.mjs reads it too.
const vectorsFile = "testdata/line.json"

type vectors struct {
	Ahead []aheadVector `json:"ahead"`
	Wait  []waitVector  `json:"wait"`
}

// aheadVector is a public state, and what is ahead of some positions in it.
type aheadVector struct {
	Name  string          `json:"name"`
	Done  queue.Positions `json:"done"`
	State publicState     `json:"state"`
	// Positions are pairs: position and Ahead.
	Positions [][2]uint64 `json:"positions"`
}

type publicState struct {
	Watermark  uint64 `json:"watermark"`
	Issued     uint64 `json:"issued"`
	FirstBlock uint64 `json:"firstBlock"`
	Blocks     []int  `json:"blocks"`
	Bits       []byte `json:"bits"`
}

// waitVector is a curve, and what it says to some fans.
type waitVector struct {
	Name  string       `json:"name"`
	Curve *queue.Curve `json:"curve"`
	Waits []waitOf     `json:"waits"`
}

type waitOf struct {
	Ahead uint64      `json:"ahead"`
	Owed  bool        `json:"owed"`
	Wait  *queue.Wait `json:"wait"`
}

// What was worked out by hand: a line, and what is ahead of some positions.
var aheadByHand = []struct {
	name              string
	issued, watermark uint64
	done              queue.Positions
	positions         [][2]uint64
}{
	{"nobody has come", 0, 0, nil, [][2]uint64{{1, 0}, {2, 1}, {1024, 1023}, {1025, 1024}, {3000, 2999}}},
	{"all wait", 3000, 0, nil, [][2]uint64{{1, 0}, {2, 1}, {1024, 1023}, {1025, 1024}, {2048, 2047}, {2049, 2048}, {3000, 2999}, {3072, 3071}, {3073, 3072}, {5000, 4999}}},
	{"next in turn, and owed", 50, 10, queue.Positions{3, 12}, [][2]uint64{{1, 0}, {4, 0}, {10, 0}, {11, 0}, {12, 1}, {13, 1}, {14, 2}, {50, 38}}},
	{"the watermark is the last of a block", 3000, 1024, nil, [][2]uint64{{1024, 0}, {1025, 0}, {1026, 1}, {2048, 1023}, {2049, 1024}, {3000, 1975}}},
	{"one before the last of a block", 3000, 1023, nil, [][2]uint64{{1023, 0}, {1024, 0}, {1025, 1}, {1026, 2}, {2049, 1025}}},
	{"the first of a block", 3000, 1025, nil, [][2]uint64{{1025, 0}, {1026, 0}, {1027, 1}, {2049, 1023}}},
	// Elsewhere than in the first block the offset counts, up to the block's count less one.
	{"some of a later block are done", 2048, 0, upTo(1025, 1524), [][2]uint64{{1024, 1023}, {1025, 1024}, {1525, 1024 + 500}, {1548, 1024 + 523}, {1549, 1024 + 523}, {2048, 1024 + 523}, {2049, 1548}}},
	{"a whole later block is done", 4000, 5, upTo(1025, 2048), [][2]uint64{{1024, 1018}, {1025, 1019}, {2048, 1019}, {2049, 1019}, {2050, 1020}, {4000, 1019 + 1951}}},
	{"the rest of the first block is done", 3000, 500, upTo(501, 1024), [][2]uint64{{501, 0}, {1024, 0}, {1025, 0}, {1026, 1}, {2049, 1024}}},
	{"everybody is done", 2500, 2500, upTo(1, 2500), [][2]uint64{{2501, 0}, {2502, 1}, {3072, 571}, {3073, 572}}},
	{"positions beyond the issued ones count", 1500, 1400, queue.Positions{1450}, [][2]uint64{{1401, 0}, {1450, 49}, {1451, 49}, {1500, 98}, {1501, 99}, {2049, 647}}},
	{"the watermark ends the last block", 2048, 2048, nil, [][2]uint64{{2048, 0}, {2049, 0}, {2050, 1}, {3073, 1024}}},
}

func upTo(first, last uint64) queue.Positions {
	var list queue.Positions
	for p := first; p <= last; p++ {
		list = append(list, p)
	}
	return list
}

// waitsByHand follow from the rule: in proportion between two points, a half rounded up, nothing
// beyond the last point, half of it for the owed.
func waitsByHand() []waitVector {
	wait := func(p50, p90 int) *queue.Wait { return &queue.Wait{P50: p50, P90: p90} }
	curve := &queue.Curve{Ahead: []uint64{4, 14, 14, 24, 1000}, P50: []int{10, 20, 60, 61, 100}, P90: []int{30, 40, 80, 90, 1000}}
	return []waitVector{
		{"no measure", nil, []waitOf{{0, false, nil}, {5, true, nil}}},
		{"an empty curve", &queue.Curve{Ahead: []uint64{}, P50: []int{}, P90: []int{}}, []waitOf{{0, false, nil}}},
		{"one point", &queue.Curve{Ahead: []uint64{0}, P50: []int{7}, P90: []int{8}}, []waitOf{{0, false, wait(7, 8)}, {1, false, nil}, {0, true, wait(4, 8)}}},
		{"by hand", curve, []waitOf{
			{0, false, wait(10, 30)}, {0, true, wait(5, 30)}, {4, false, wait(10, 30)},
			{5, false, wait(11, 31)}, {9, false, wait(15, 35)}, {13, false, wait(19, 39)},
			{14, false, wait(20, 40)}, {15, false, wait(60, 81)}, {18, false, wait(60, 84)}, {19, false, wait(61, 85)}, {24, false, wait(61, 90)},
			{25, false, wait(61, 91)}, {512, false, wait(81, 545)}, {1000, false, wait(100, 1000)}, {1001, false, nil},
		}},
	}
}

// lineOf is the view of a line, and what is ahead of a position in it by the words of the design,
// counted position by position.
func lineOf(t *testing.T, issued, watermark uint64, done queue.Positions) (v *queue.View, ahead func(uint64) uint64) {
	t.Helper()
	fates := make([]byte, (issued+1)/2)
	isDone := map[uint64]bool{}
	for _, p := range done {
		isDone[p] = true
		fates[(p-1)/2] |= byte(queue.Expired) << (4 * (p % 2))
	}
	v = queue.NewView(queue.Snapshot{
		ID: "t.q", Incarnation: "inc", Generations: []string{"g"}, CreatedAt: noon, Settings: queue.DefaultSettings(),
		Issued: issued, Watermark: watermark, Turn: 1, Fates: fates,
	})
	between := func(after, before uint64) (n uint64) {
		for p := max(after, watermark) + 1; p < before; p++ {
			if !isDone[p] {
				n++
			}
		}
		return n
	}
	ahead = func(position uint64) uint64 {
		first := (position - 1) / queue.BlockSize * queue.BlockSize // before the own block
		if first <= watermark {
			return between(watermark, position)
		}
		own := between(first, first+queue.BlockSize+1)
		return between(watermark, first+1) + min(position-1-first, max(own, 1)-1)
	}
	return v, ahead
}

func stateOf(v *queue.View) publicState {
	s := v.Summary(noon)
	return publicState{s.Watermark, s.Issued, s.FirstBlock, s.Blocks, s.Bits}
}

// generated are lines and curves made by chance, the same ones each time.
func generated(t *testing.T) vectors {
	r := rand.New(rand.NewPCG(4, 1024))
	var made vectors
	for range 24 {
		issued := r.Uint64N(6000)
		watermark := r.Uint64N(issued + 1)
		if r.IntN(3) == 0 {
			watermark = min(issued, watermark/queue.BlockSize*queue.BlockSize+r.Uint64N(3))
		}
		var done queue.Positions
		gone := r.Float64()
		for p := uint64(1); p <= issued; {
			run := 1 + r.Uint64N(200) // long runs make a short file
			if r.Float64() < gone {
				done = append(done, upTo(p, min(p+run, issued))...)
			}
			p += run + 1
		}
		v, ahead := lineOf(t, issued, watermark, done)
		c := aheadVector{Name: "by chance", Done: done, State: stateOf(v)}
		for range 30 {
			p := 1 + r.Uint64N(issued+2000)
			c.Positions = append(c.Positions, [2]uint64{p, ahead(p)})
		}
		made.Ahead = append(made.Ahead, c)
	}
	for range 12 {
		c := &queue.Curve{}
		var ahead uint64
		var p50, p90 int
		for range 1 + r.IntN(30) {
			ahead += r.Uint64N(1 << (1 + r.IntN(16)))
			p50 += r.IntN(300)
			p90 = max(p90+r.IntN(400), p50)
			c.Ahead, c.P50, c.P90 = append(c.Ahead, ahead), append(c.P50, p50), append(c.P90, p90)
		}
		w := waitVector{Name: "by chance", Curve: c}
		for range 30 {
			at := waitOf{Ahead: r.Uint64N(ahead + 3), Owed: r.IntN(8) == 0}
			at.Wait = waitBySearch(c, at.Ahead, at.Owed)
			w.Waits = append(w.Waits, at)
		}
		made.Wait = append(made.Wait, w)
	}
	return made
}

// waitBySearch follows the curve's rule in whole numbers, so that nothing is lost by rounding.
func waitBySearch(c *queue.Curve, ahead uint64, owed bool) *queue.Wait {
	for i, at := range c.Ahead {
		if ahead > at {
			continue
		}
		w := queue.Wait{P50: c.P50[i], P90: c.P90[i]}
		if i > 0 && ahead < at {
			part, whole := int(ahead-c.Ahead[i-1]), int(at-c.Ahead[i-1])
			between := func(from, to int) int { return from + (2*(to-from)*part+whole)/(2*whole) }
			w = queue.Wait{P50: between(c.P50[i-1], c.P50[i]), P90: between(c.P90[i-1], c.P90[i])}
		}
		if owed {
			w.P50 = (w.P50 + 1) / 2
		}
		return &w
	}
	return nil
}

// The vectors are true, and edge and page are held to them.
func TestVectors(t *testing.T) {
	var want vectors
	for _, c := range aheadByHand {
		v, ahead := lineOf(t, c.issued, c.watermark, c.done)
		for _, pair := range c.positions {
			if got := ahead(pair[0]); got != pair[1] {
				t.Errorf("%s: counted by the words of the design %d are ahead of %d, by hand %d", c.name, got, pair[0], pair[1])
			}
		}
		want.Ahead = append(want.Ahead, aheadVector{c.name, c.done, stateOf(v), c.positions})
	}
	made := generated(t)
	want.Ahead = append(want.Ahead, made.Ahead...)
	want.Wait = append(waitsByHand(), made.Wait...)

	text, err := json.MarshalIndent(want, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	if *writeVectors {
		if err := os.WriteFile(vectorsFile, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := os.ReadFile(vectorsFile)
	if err != nil {
		t.Fatal(err)
	}
	var got vectors
	if err := json.Unmarshal(kept, &got); err != nil {
		t.Fatal(err)
	}
	if again, err := json.MarshalIndent(got, "", " "); err != nil || string(again) != string(text) {
		t.Errorf("%s is not what this test makes (error %v); if the rule was meant to change, run it with -vectors", vectorsFile, err)
	}
	for _, c := range got.Ahead {
		v, _ := lineOf(t, c.State.Issued, c.State.Watermark, c.Done)
		if state := stateOf(v); !reflect.DeepEqual(state, c.State) {
			t.Errorf("%s: public state is %+v, want %+v", c.Name, state, c.State)
		}
		for _, pair := range c.Positions {
			if ahead := v.Ahead(pair[0]); ahead != pair[1] {
				t.Errorf("%s: ahead of %d is %d, want %d", c.Name, pair[0], ahead, pair[1])
			}
		}
	}
	for _, c := range got.Wait {
		for _, at := range c.Waits {
			w, known := c.Curve.Wait(at.Ahead, at.Owed)
			if known != (at.Wait != nil) || known && w != *at.Wait {
				t.Errorf("%s: with %d ahead, owed %v: %+v, %v; want %+v", c.Name, at.Ahead, at.Owed, w, known, at.Wait)
			}
		}
	}
}
