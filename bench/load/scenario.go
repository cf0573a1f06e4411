package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"
)

// scenario is one row of the table.
type scenario struct {
	name   string
	about  string
	limits []limit // the first one is the row's own
	// run measures, or is nil while the part that it would measure does not exist.
	run func(context.Context, *lab) (measured, error)
}

// measured is what a run came to: a value for each of its scenario's limits, in their order, and
// what it was compared with where there is a yardstick.
type measured struct {
	values []float64
	race   *outcome
	// ratio is the one that the row is judged by, where there is a yardstick.
	ratio float64
	// seen is what else there is to say, without a budget, and notes are the first words about what
	// went wrong, where something did.
	seen  []observation
	notes []string
	// plots are drawings (SVG), by the name of their file.
	plots map[string]string
}

// observation is a figure that has no budget.
type observation struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
}

// result is the JSON line of a scenario.
type result struct {
	Scenario           string   `json:"scenario"`
	Value              *float64 `json:"value"`
	Unit               string   `json:"unit"`
	Bound              bound    `json:"bound"`
	Budget             float64  `json:"budget"`
	Met                *bool    `json:"met"` // null while the part does not exist
	PerSecond          float64  `json:"perSecond,omitzero"`
	YardstickPerSecond float64  `json:"yardstickPerSecond,omitzero"`
	Ratio              float64  `json:"ratio,omitzero"`
	// Figures are all that the row is judged by, the first one included.
	Figures []figure `json:"figures,omitempty"`
	// Ratios are those of all rounds.
	Ratios []float64 `json:"ratios,omitempty"`
	// Seen are figures without a budget, Notes say what went wrong.
	Seen  []observation `json:"seen,omitempty"`
	Notes []string      `json:"notes,omitempty"`

	plots map[string]string
}

// judge makes the result of a run; all its figures have to be within their budgets.
func (s scenario) judge(m measured) (result, error) {
	r := s.missing()
	if len(m.values) != len(s.limits) {
		return result{}, fmt.Errorf("judge %s: %d values for %d limits", s.name, len(m.values), len(s.limits))
	}
	met := true
	for i, l := range s.limits {
		f := l.judge(m.values[i])
		r.Figures = append(r.Figures, f)
		met = met && f.Met
	}
	r.Value, r.Met = &r.Figures[0].Value, &met
	for _, o := range m.seen {
		o.Value = rounded(o.Value)
		r.Seen = append(r.Seen, o)
	}
	r.Notes, r.plots = m.notes, m.plots
	if m.race != nil {
		r.PerSecond, r.YardstickPerSecond = rounded(m.race.median.server), rounded(m.race.median.yardstick)
		r.Ratio = rounded(m.ratio)
		for _, one := range m.race.rounds {
			r.Ratios = append(r.Ratios, rounded(one.ratio()))
		}
	}
	return r, nil
}

// missing is the result of a scenario whose part does not exist.
func (s scenario) missing() result {
	first := s.limits[0]
	return result{Scenario: s.name, Unit: first.unit, Bound: first.bound, Budget: first.budget}
}

// sizes of what is measured; the tests have smaller ones.
type sizes struct {
	duration        time.Duration // of each half of a round
	rounds          int
	connections     int
	joinConnections int
	tickets         int // in rotation
	unseen          int // tickets, or users, that are new in each round
	sessions        int // in rotation
	storeFans       int // for what is measured at the store
	ticks           int
	turns           int // closed, and take-overs
	slotQueues      int
	slots           int // freed in each queue
	saleFans        int // of a simulated sale
	sales           int // simulated, at least two
	live            liveSizes
}

func fullSizes(duration time.Duration) sizes {
	return sizes{
		duration: duration, rounds: roundsOfARace, connections: 64, joinConnections: 1024,
		tickets: 50_000, unseen: int(40_000 * max(duration.Seconds(), 1)), sessions: 10_000,
		storeFans: 1_000_000, ticks: 1000, turns: 10, slotQueues: 8, slots: 25,
		saleFans: 100_000, sales: 4, live: fullLiveSizes(),
	}
}

// lab is where scenarios run.
type lab struct {
	dir      string
	programs programs
	sizes    sizes
	progress func(string)
	profiles string // directory for CPU profiles of edge and origin; empty for none
}

// install starts an installation of the scenario's own.
func (l *lab) install(ctx context.Context) (*installation, error) {
	l.progress("starting")
	dir, err := os.MkdirTemp(l.dir, "installation-")
	if err != nil {
		return nil, fmt.Errorf("install: %w", err)
	}
	return install(ctx, dir, l.programs)
}

// scenarios are the rows of the table, in its order.
func scenarios() []scenario {
	ratio := func(budget float64) limit { return limit{"ratio", "× hello", atLeast, budget} }
	joinLimits := func(budget float64) []limit {
		return []limit{
			ratio(budget),
			{"p99", "ms", atMost, 30},
			{"commands sent to Redis per join", "commands", atMost, 0.02},
		}
	}
	return []scenario{
		{"poll", "GET /tickets/{id}, tickets in rotation", []limit{ratio(0.75)}, runPoll},
		{"first-poll", "GET /tickets/{id}, tickets that the edge has not seen", []limit{ratio(0.50)}, runFirstPoll},
		{"join", "POST /queues/{queue}/tickets, anonymous", joinLimits(0.40), runJoin},
		{"join-user", "the same with the secret key and a user id", []limit{ratio(0.35)}, runJoinUser},
		{"join-user-token", "the same with a publishable key and a user token", []limit{ratio(0.10)}, runJoinUserToken},
		{"access", "GET /access, sessions in rotation", []limit{ratio(0.75)}, runAccess},
		{"validate", "tokens.Validator, session seen before", []limit{
			{"time", "µs", atMost, 0.5}, {"allocations", "allocations", atMost, 0},
		}, runValidate},
		{"validate-new", "tokens.Validator, new session", []limit{{"ratio", "× ed25519.Verify", atMost, 1.3}}, runValidateNew},
		{"connections", "resident memory per idle live connection", []limit{
			{"WebSocket", "KiB", atMost, 6}, {"Server-Sent Events", "KiB", atMost, 6},
			{"lost", "fans", atMost, 0}, {"wrong", "events", atMost, 0},
		}, runConnections},
		{"live", "2,000 of 100,000 connections are told of an offer", []limit{
			{"p99", "ms", atMost, 250}, {"told of the closing", "s", atMost, 5},
			{"lost", "fans", atMost, 0}, {"wrong", "events", atMost, 0},
		}, runLive},
		{"redis-bytes", "Redis memory per waiting fan", []limit{
			{"anonymous", "bytes", atMost, 6}, {"with a user id", "bytes", atMost, 40},
		}, runRedisBytes},
		{"tick", "a tick with a million waiting", []limit{
			{"p99", "ms", atMost, 2}, {"read from Redis", "KB", atMost, 64},
			{"closing a turn", "ms", atMost, 50}, {"taking over", "ms", atMost, 50},
		}, runTick},
		{"slot", "a slot freed until it is offered to a polling fan", []limit{{"p99", "ms", atMost, 300}}, runSlot},
		{"page", "what the waiting page loads before it shows a place", []limit{
			{"size", "KB", atMost, 14}, {"from other hosts", "files", atMost, 0},
		}, runPage},
		{"estimate", "the estimated wait in simulation", []limit{
			{"told in time", "share", atLeast, 0.9},
			{"P50 holds", "share", atLeast, 0.40}, {"P50 holds", "share", atMost, 0.60},
			{"P90 holds", "share", atLeast, 0.85}, {"P90 holds", "share", atMost, 0.95},
			{"P90 / P50", "ratio", atMost, 2.5},
		}, runEstimate},
	}
}

// apart are scenarios that only show how live connections bear misfortune; they are measured where
// they are named.
func apart() []scenario {
	return []scenario{
		{"slow-readers", "what 1,000 bad readers among 10,000 are to the others", []limit{
			{"p99 of the others", "× without", atMost, 1.2}, {"memory", "KiB/reader", atMost, 32},
			{"lost", "fans", atMost, 0}, {"wrong", "events", atMost, 0},
		}, runSlowReaders},
		{"edge-death", "an edge with 10,000 connections is killed", []limit{
			{"all are back", "s", atMost, 15}, {"back in a second", "fans", atMost, 2000},
			{"lost", "fans", atMost, 0}, {"wrong", "events", atMost, 0},
		}, runEdgeDeath},
	}
}

func (r result) line() ([]byte, error) { return json.Marshal(r) }
