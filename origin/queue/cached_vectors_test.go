package queue_test

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"waitingroom/origin/queue"
)

const cachedVectorsFile = "testdata/cached.json"

// cachedVector is a public state as a cache answers it, and what fans who read it are told.
type cachedVector struct {
	Name  string        `json:"name"`
	State queue.Summary `json:"state"`
	Fans  []cachedFan   `json:"fans"`
}

type cachedFan struct {
	// Told is the fan's own status, as it was told before.
	Told queue.Status `json:"told"`
	// Now is when the document is read.
	Now time.Time `json:"now"`
	// Want is null where only the edge can tell.
	Want *queue.Status `json:"want"`
}

// cachedLine is a line, and how it was when its fans last asked. The first five whom the watermark
// has passed since then have an offer.
type cachedLine struct {
	name                   string
	issued, was, watermark uint64 // was is the watermark then
	wasState, state        queue.State
	done                   queue.Positions
	rate, reach            int
	opensIn                time.Duration
	hold                   time.Duration
	estimate               *queue.Estimate
	otherGeneration, stale bool
}

func (c cachedLine) views() (was, is *queue.View) {
	s := queue.Snapshot{
		ID: "t.q", Incarnation: "inc", Generations: []string{"g"}, CreatedAt: noon, Settings: queue.DefaultSettings(),
		Number: 90, Issued: c.issued, Watermark: c.was, Turn: 6, Fates: make([]byte, (c.issued+1)/2),
	}
	s.Settings.State, s.Settings.Capacity = c.wasState, 100
	if c.hold > 0 {
		s.Settings.HoldSeconds = int(c.hold / time.Second)
	}
	if c.wasState == queue.Scheduled {
		s.Settings.OpensAt = noon.Add(c.opensIn)
	}
	was = queue.NewView(s)

	s.Number, s.Watermark, s.Turn, s.Settings.State = 100, c.watermark, 7, c.state
	s.Fates = make([]byte, len(s.Fates))
	for _, p := range c.done {
		s.Fates[(p-1)/2] |= byte(queue.Expired) << (4 * (p % 2))
	}
	s.Estimate = c.estimate
	for p := c.was + 1; p <= min(c.was+5, c.watermark); p++ {
		s.Offers = append(s.Offers, queue.Offer{Position: p, ClaimBy: noon.Add(time.Hour)})
	}
	s.Settings.Notes.Measure.Reach = c.reach
	if c.rate > 0 {
		s.Admitted = []queue.Admitted{{At: noon, Count: c.rate}}
	}
	if c.otherGeneration {
		s.Generations = []string{"g", "h"}
	}
	return was, queue.NewView(s)
}

// vector says by the words of the design what some fans are told: as by the edge, except that their
// place is held from their last sighting on; and that the edge itself is asked when the watermark
// has reached them while offers are made, and whenever the document does not speak of them.
func (c cachedLine) vector(t *testing.T, positions ...uint64) cachedVector {
	t.Helper()
	was, is := c.views()
	now := noon.Add(20 * time.Second)
	state := is.Summary(now.Add(-time.Second))
	state.Stale = c.stale
	done := map[uint64]bool{}
	for _, p := range c.done {
		done[p] = true
	}
	made := cachedVector{Name: c.name, State: state}
	for _, p := range positions {
		fan := cachedFan{Told: was.Status(p, noon), Now: now}
		reached := p <= c.watermark
		first := (p-1)/queue.BlockSize == c.watermark/queue.BlockSize
		switch {
		case c.otherGeneration:
		case p > c.issued: // the document was made before this place was
			fan.Want = &fan.Told
		case p > c.was && reached && p <= c.was+5: // has an offer
		case reached && (c.state == queue.Open || c.state == queue.Closed || c.state != c.wasState):
		case first && done[p]:
		case done[p]: // the later blocks say how many, not who: the next sighting tells
			continue
		default:
			want := is.Status(p, now)
			// The rate is counted when the document is made.
			want.PollAfterSeconds = is.Status(p, state.Now).PollAfterSeconds
			if want.State == queue.TicketScheduled {
				want.PollAfterSeconds = is.Status(p, now).PollAfterSeconds
			}
			want.Stale = c.stale
			if want.State != queue.TicketClosed {
				want.HeldUntil = fan.Told.HeldUntil
			}
			fan.Want = &want
		}
		made.Fans = append(made.Fans, fan)
	}
	return made
}

func cachedVectors(t *testing.T) []cachedVector {
	t.Helper()
	estimate := &queue.Estimate{Curve: queue.Curve{Ahead: []uint64{0, 90, 3000}, P50: []int{5, 60, 300}, P90: []int{20, 90, 500}}}
	open := cachedLine{name: "open", issued: 3000, was: 10, watermark: 40, wasState: queue.Open, state: queue.Open, estimate: estimate}
	with := func(name string, change func(*cachedLine)) cachedLine {
		c := open
		c.name = name
		change(&c)
		return c
	}
	some := []uint64{9, 40, 41, 42, 50, 1024, 1025, 1026, 2000, 3000, 3001, 4000}
	lines := []cachedLine{
		open,
		with("the line moves at a measured rate", func(c *cachedLine) { c.rate = 240 }),
		with("short turns", func(c *cachedLine) { c.rate, c.hold = 240, 2*time.Minute }),
		with("the shortest turns", func(c *cachedLine) { c.hold = time.Second }),
		with("turns longer than any poll", func(c *cachedLine) { c.hold = 24 * time.Hour }),
		with("some have left", func(c *cachedLine) { c.done = append(upTo(41, 49), 1024, 1500, 2999) }),
		with("paused", func(c *cachedLine) { c.state = queue.Paused }),
		with("paused before", func(c *cachedLine) { c.wasState, c.state = queue.Paused, queue.Paused }),
		with("sold out", func(c *cachedLine) { c.state = queue.SoldOut }),
		with("sold out before", func(c *cachedLine) { c.wasState, c.state = queue.SoldOut, queue.SoldOut }),
		with("open again", func(c *cachedLine) { c.wasState = queue.SoldOut }),
		with("closed", func(c *cachedLine) { c.state = queue.Closed }),
		with("another generation", func(c *cachedLine) { c.otherGeneration = true }),
		with("the edge has lost its origin", func(c *cachedLine) { c.stale = true }),
		with("what remains reaches half of the line", func(c *cachedLine) { c.reach = 1500 }),
		with("what remains reaches all", func(c *cachedLine) { c.reach = 3001 }),
		with("what remains reaches the owed but one", func(c *cachedLine) {
			c.wasState, c.state, c.reach = queue.Paused, queue.Paused, 40
		}),
		with("what remains reaches nobody", func(c *cachedLine) {
			c.wasState, c.state, c.reach = queue.Paused, queue.Paused, 1
		}),
		with("scheduled", func(c *cachedLine) {
			c.was, c.watermark, c.wasState, c.state, c.opensIn = 0, 0, queue.Scheduled, queue.Scheduled, 25*time.Second
		}),
		with("scheduled for another day", func(c *cachedLine) {
			c.was, c.watermark, c.wasState, c.state, c.opensIn = 0, 0, queue.Scheduled, queue.Scheduled, 200*24*time.Hour
		}),
		with("about to open", func(c *cachedLine) {
			c.was, c.watermark, c.wasState, c.state, c.opensIn = 0, 0, queue.Scheduled, queue.Scheduled, 20*time.Second
		}),
		with("late to open", func(c *cachedLine) {
			c.was, c.watermark, c.wasState, c.state, c.opensIn = 0, 0, queue.Scheduled, queue.Scheduled, 13*time.Second
		}),
		with("opened", func(c *cachedLine) { c.was, c.wasState, c.opensIn = 0, queue.Scheduled, 5*time.Second }),
	}
	var made []cachedVector
	for _, c := range lines {
		made = append(made, c.vector(t, some...))
	}
	r := rand.New(rand.NewPCG(5, 1024))
	states := []queue.State{queue.Open, queue.Open, queue.Open, queue.Paused, queue.SoldOut, queue.Scheduled, queue.Closed}
	for range 24 {
		c := cachedLine{
			name: "by chance", issued: 1 + r.Uint64N(60_000>>r.IntN(8)), state: states[r.IntN(len(states))],
			rate: r.IntN(2) * r.IntN(20_000>>r.IntN(8)), hold: time.Duration(1+r.IntN(4000)) * time.Second,
			estimate: estimate, reach: r.IntN(2) * r.IntN(100_000), opensIn: time.Duration(r.IntN(60)) * time.Second,
		}
		if c.wasState = c.state; c.state == queue.Open && r.IntN(3) == 0 {
			c.wasState = queue.Scheduled
		}
		if c.state != queue.Scheduled {
			c.watermark = r.Uint64N(c.issued + 1)
		}
		if c.wasState != queue.Scheduled {
			c.was = r.Uint64N(c.watermark + 1)
		}
		for p := c.watermark + 1; p <= c.issued; p += 1 + r.Uint64N(100) {
			end := min(p+r.Uint64N(60), c.issued)
			c.done = append(c.done, upTo(p, end)...)
			p = end
		}
		var positions []uint64
		for range 8 {
			positions = append(positions, 1+r.Uint64N(c.issued+20))
		}
		made = append(made, c.vector(t, positions...))
	}
	return made
}

// What a page computes from the public state is what the edge would tell it; the page is held to
// the same vectors.
func TestCachedVectors(t *testing.T) {
	text, err := json.Marshal(cachedVectors(t))
	if err != nil {
		t.Fatal(err)
	}
	if *writeVectors {
		if err := os.WriteFile(cachedVectorsFile, append(text, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := os.ReadFile(cachedVectorsFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(kept) != string(text)+"\n" {
		t.Errorf("%s is not what this test makes; if the rule was meant to change, run it with -vectors", cachedVectorsFile)
	}
}
