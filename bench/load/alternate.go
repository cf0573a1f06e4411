package main

import (
	"context"
	"fmt"
	"time"
)

// roundsOfARace is how often server and yardstick alternate.
const roundsOfARace = 5

// race drives a server and the yardstick by turns with the same request bytes.
type race struct {
	server, yardstick *target
	// requests returns what is sent in a round. Where they must not be repeated, every call returns
	// new ones, and once is set.
	requests func(round int) (*requests, error)
	once     bool
	duration time.Duration // of each half of a round
	rounds   int
	// around wraps the drives of the server. Optional.
	around func(drive func() (pace, error)) (pace, error)
}

// outcome of a race.
type outcome struct {
	median round
	rounds []round
	p99    []float64 // of the server's answers in each round, in milliseconds
}

// run alternates; who goes first changes from round to round.
func (r race) run(ctx context.Context, progress func(string)) (outcome, error) {
	var o outcome
	for i := range r.rounds {
		list, err := r.requests(i)
		if err != nil {
			return outcome{}, err
		}
		var both round
		yardstick := func() error {
			p, err := r.yardstick.drive(ctx, list, r.duration, r.once)
			both.yardstick = p.perSecond()
			return err
		}
		server := func() error {
			drive := func() (pace, error) { return r.server.drive(ctx, list, r.duration, r.once) }
			if r.around != nil {
				inner := drive
				drive = func() (pace, error) { return r.around(inner) }
			}
			p, err := drive()
			both.server = p.perSecond()
			o.p99 = append(o.p99, milliseconds(percentile(p.latencies, 99)))
			return err
		}
		order := []func() error{yardstick, server}
		if i%2 == 1 {
			order[0], order[1] = order[1], order[0]
		}
		for _, half := range order {
			if err := half(); err != nil {
				return outcome{}, err
			}
		}
		o.rounds = append(o.rounds, both)
		progress(fmt.Sprintf("round %d of %d: %.0f/s, yardstick %.0f/s, ratio %.2f", i+1, r.rounds, both.server, both.yardstick, both.ratio()))
	}
	var err error
	o.median, err = medianRound(o.rounds)
	return o, err
}
