package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"waitingroom/origin/queue"
)

// The budget of the estimate's quality.
const (
	leastCovered    = 0.90
	least50, most50 = 0.40, 0.60
	least90, most90 = 0.85, 0.95
	mostSpread      = 2.5
)

// report is what one run comes to: the JSON object at its end.
type report struct {
	Fans      int       `json:"fans"`
	Slots     int       `json:"slots"`
	Seed      uint64    `json:"seed"`
	Calm      bool      `json:"calm"` // without what no estimate can foresee
	Elements  []element `json:"elements"`
	Events    uint64    `json:"events"`
	Polls     uint64    `json:"polls"`
	Joins     uint64    `json:"joins"`
	Positions uint64    `json:"positions"`
	Ticks     uint64    `json:"ticks"`
	Turns     uint32    `json:"turns"`
	Entries   uint64    `json:"entries"`

	VirtualSeconds float64 `json:"virtualSeconds"`
	RealSeconds    float64 `json:"realSeconds"`

	States      []queue.State  `json:"states"` // that the queue was in, in order
	Fates       map[string]int `json:"fates"`
	WaitSeconds map[string]int `json:"waitSeconds"`
	Invariants  []checked      `json:"invariants"`
	Estimate    estimateReport `json:"estimate"`
	Broken      *breach        `json:"broken"`
	Met         bool           `json:"met"`

	estimates estimates
}

// checked is an invariant with the number of its checks.
type checked struct {
	Name   string `json:"name"`
	Says   string `json:"says"`
	Checks uint64 `json:"checks"`
	Held   bool   `json:"held"`
}

// estimateReport is the quality of the estimate. Met is null where it is not judged: nobody was told
// one, or something came that no estimate can foresee.
type estimateReport struct {
	Met *bool `json:"met"`
	// Covered is the part of those who stayed that had an estimate soon after the first admissions.
	Covered float64       `json:"covered"`
	Stayed  int           `json:"stayed"`
	All     tenthReport   `json:"all"`
	Tenths  []tenthReport `json:"tenths"`
}

type tenthReport struct {
	Tenth  int     `json:"tenth,omitzero"` // 1 is the front of the line
	Told   int     `json:"told"`
	P50    float64 `json:"p50Holds"`
	P90    float64 `json:"p90Holds"`
	Spread float64 `json:"p90ToP50"`  // in the median
	Came   float64 `json:"cameToP50"` // likewise
}

func (t *tenth) report(number int) tenthReport {
	told := float64(max(t.told, 1))
	return tenthReport{
		Tenth: number, Told: t.told, P50: float64(t.held50) / told, P90: float64(t.held90) / told,
		Spread: median(t.spread[:]), Came: median(t.came[:]),
	}
}

// report judges the estimates of calm runs, and only describes those of others.
func (e *estimates) report(calm bool) estimateReport {
	all := e.all()
	r := estimateReport{All: all.report(0), Stayed: e.Stayed, Covered: float64(e.Had) / float64(max(e.Stayed, 1))}
	for i := range e.Tenths {
		r.Tenths = append(r.Tenths, e.Tenths[i].report(i+1))
	}
	if calm && all.told > 0 {
		met := r.Covered >= leastCovered && r.All.within()
		r.Met = &met
	}
	r.Covered = rounded(r.Covered)
	r.All.round()
	for i := range r.Tenths {
		r.Tenths[i].round()
	}
	return r
}

// within reports whether P50 and P90 hold as often as they should, and are as close together.
func (t *tenthReport) within() bool {
	return t.P50 >= least50 && t.P50 <= most50 && t.P90 >= least90 && t.P90 <= most90 && t.Spread <= mostSpread
}

func (t *tenthReport) round() {
	t.P50, t.P90, t.Spread, t.Came = rounded(t.P50), rounded(t.P90), rounded(t.Spread), rounded(t.Came)
}

// rounded is a figure with as many digits as say something.
func rounded(figure float64) float64 { return math.Round(figure*1e4) / 1e4 }

// report sums the simulation up; err is what run returned.
func (w *world) report(took time.Duration, err error) report {
	r := report{
		Fans: w.about.fans, Slots: w.about.slots, Seed: w.about.seed, Calm: w.about.calm(), Elements: []element{},
		Events: w.events, Polls: w.polls, Joins: w.joins, Positions: w.books.issued(), Ticks: w.ticks,
		Turns: w.books.turn, States: w.books.states, Entries: w.books.entry,
		VirtualSeconds: rounded(float64(w.now) / second), RealSeconds: rounded(took.Seconds()),
		Fates: make(map[string]int), WaitSeconds: make(map[string]int),
		estimates: w.quality.result, Estimate: w.quality.result.report(w.about.calm()), Met: err == nil,
	}
	for _, e := range elements {
		if w.has(e) {
			r.Elements = append(r.Elements, e)
		}
	}
	for s, n := range w.books.tally {
		r.Fates[standingNames[s]] = n
	}
	for _, p := range []float64{10, 50, 90, 99, 100} {
		r.WaitSeconds[fmt.Sprintf("p%g", p)] = w.quality.waits.percentile(p)
	}
	errors.As(err, &r.Broken)
	for i, n := range w.books.checks {
		r.Invariants = append(r.Invariants, checked{
			Name: names[i].name, Says: names[i].says, Checks: n,
			Held: r.Broken == nil || r.Broken.Invariant != names[i].name,
		})
	}
	return r
}

// writeJSON prints one line.
func writeJSON(out io.Writer, v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode report: %w", err)
	}
	_, err = fmt.Fprintln(out, string(line))
	return err
}

// text is the report for people.
func (r *report) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %d fans, %d slots, %d positions; %d events (%d polls, %d ticks, %d turns) in %.0f virtual minutes, %.1f s\n",
		r.Seed, r.Fans, r.Slots, r.Positions, r.Events, r.Polls, r.Ticks, r.Turns, r.VirtualSeconds/60, r.RealSeconds)
	fmt.Fprintf(&b, "the queue was %v\nfates:", r.States)
	for _, name := range standingNames {
		fmt.Fprintf(&b, " %s %d", name, r.Fates[name])
	}
	fmt.Fprintf(&b, "\nwaits: p10 %d s, p50 %d s, p90 %d s, p99 %d s, longest %d s\n\n",
		r.WaitSeconds["p10"], r.WaitSeconds["p50"], r.WaitSeconds["p90"], r.WaitSeconds["p99"], r.WaitSeconds["p100"])
	for _, i := range r.Invariants {
		held := "held"
		if !i.Held {
			held = "BROKEN"
		}
		fmt.Fprintf(&b, "%-10s %12d  %-6s  %s\n", i.Name, i.Checks, held, i.Says)
	}
	b.WriteString("\n" + r.Estimate.text())
	if r.Broken != nil {
		fmt.Fprintf(&b, "\n%v\nreplay: go run ./bench/sim -fans %d -slots %d -seed %d%s\n", r.Broken, r.Fans, r.Slots, r.Seed, r.without())
	}
	return b.String()
}

// without is the flag that leaves out what this run left out.
func (r *report) without() string {
	var left []string
	for _, e := range elements {
		if !(plan{without: r.Elements}).has(e) {
			continue
		}
		left = append(left, string(e))
	}
	if left == nil {
		return ""
	}
	return " -without " + strings.Join(left, ",")
}

// text is the table of the estimate's quality by tenth of the line.
func (e *estimateReport) text() string {
	if e.All.Told == 0 {
		return "the estimate is silent\n"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%-7s %10s %10s %10s %12s %12s\n", "tenth", "told", "P50 holds", "P90 holds", "P90 / P50", "came / P50")
	row := func(name string, t tenthReport) {
		outside := ""
		if e.Met != nil && !t.within() {
			outside = "  outside"
		}
		fmt.Fprintf(&b, "%-7s %10d %8.1f %% %8.1f %% %12.2f %12.2f%s\n", name, t.Told, 100*t.P50, 100*t.P90, t.Spread, t.Came, outside)
	}
	within, told := 0, 0
	for _, t := range e.Tenths {
		row(fmt.Sprint(t.Tenth), t)
		if t.Told > 0 {
			told++
			if t.within() {
				within++
			}
		}
	}
	row("all", e.All)
	verdict := "not judged"
	if e.Met != nil {
		verdict = map[bool]string{true: "met", false: "missed"}[*e.Met] + fmt.Sprintf("; %d of %d tenths of the line are within it by themselves", within, told)
	}
	fmt.Fprintf(&b, "an estimate within two minutes of the first admissions: %.1f %% of %d who stayed\nbudget: %s\n", 100*e.Covered, e.Stayed, verdict)
	return b.String()
}
