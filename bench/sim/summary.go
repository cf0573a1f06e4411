package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// summary is what many runs come to.
type summary struct {
	Began       time.Time `json:"began"`
	Go          string    `json:"go"`
	Cores       int       `json:"cores"`
	RealSeconds float64   `json:"realSeconds"`
	Runs        []report  `json:"runs"`
	// Calm is the quality of the estimate over the runs without what no estimate can foresee,
	// Disturbed over the others.
	Calm      estimateReport `json:"calm"`
	Disturbed estimateReport `json:"disturbed"`
	Met       bool           `json:"met"`
}

// many simulates the plans, at most a number of them at a time, and tells of each as it ends. The
// first invariant that breaks ends them all.
func many(ctx context.Context, plans []plan, atOnce int, out io.Writer) (summary, error) {
	s := summary{
		Began: time.Now().UTC().Truncate(time.Second), Go: runtime.Version(), Cores: runtime.NumCPU(),
		Runs: make([]report, len(plans)),
	}
	fmt.Fprint(out, header)
	lines := make(chan string)
	group, running := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	told := make(chan struct{})
	go func() {
		defer close(told)
		for line := range lines {
			fmt.Fprint(out, line)
		}
	}()
	for i, p := range plans {
		group.Go(func() error {
			if running.Err() != nil {
				return running.Err()
			}
			r, err := simulate(running, p, func(string) {})
			s.Runs[i] = r
			if err == nil {
				lines <- r.row()
			}
			return err
		})
	}
	err := group.Wait()
	close(lines)
	<-told
	s.RealSeconds = rounded(time.Since(s.Began).Seconds())
	var calm, disturbed estimates
	for i := range s.Runs {
		if r := &s.Runs[i]; r.Calm {
			calm.add(&r.estimates)
		} else {
			disturbed.add(&r.estimates)
		}
	}
	s.Calm, s.Disturbed = calm.report(true), disturbed.report(false)
	s.Met = err == nil && (s.Calm.Met == nil || *s.Calm.Met)
	return s, err
}

const header = "   seed       fans  positions      events  minutes  seconds     checks  broken  p50 wait  p90 wait\n"

// row is a run as one line of the table.
func (r *report) row() string {
	checks, broken := uint64(0), 0
	for _, i := range r.Invariants {
		checks += i.Checks
		if !i.Held {
			broken++
		}
	}
	calm := ""
	if r.Calm {
		calm = "  calm"
	}
	return fmt.Sprintf("%7d %10d %10d %11d %8.0f %8.1f %10d %7d %8d s %8d s%s\n", r.Seed, r.Fans, r.Positions, r.Events,
		r.VirtualSeconds/60, r.RealSeconds, checks, broken, r.WaitSeconds["p50"], r.WaitSeconds["p90"], calm)
}

// text is the summary for people: the runs, each invariant over all of them, the estimate.
func (s *summary) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d runs on %d cores with %s in %.0f s\n\n%s", len(s.Runs), s.Cores, s.Go, s.RealSeconds, header)
	var checks [invariants]uint64
	for i := range s.Runs {
		b.WriteString(s.Runs[i].row())
		for n, c := range s.Runs[i].Invariants {
			checks[n] += c.Checks
		}
	}
	b.WriteString("\nchecks of each invariant over all runs\n")
	for i, n := range checks {
		fmt.Fprintf(&b, "%-10s %14d  %s\n", names[i].name, n, names[i].says)
	}
	b.WriteString(s.estimateText())
	return b.String()
}

func (s *summary) estimateText() string {
	return "\nthe estimate in the runs without outage, pause, retunes and sell-out\n" + s.Calm.text() +
		"\nthe estimate in the runs with them, for which there is no budget\n" + s.Disturbed.text()
}

// write keeps the summary in a directory: as JSON, as text, and the estimate's quality as a plot.
func (s *summary) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make directory of results: %w", err)
	}
	list, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("encode summary: %w", err)
	}
	for name, content := range map[string]string{
		"sim.json": string(list) + "\n", "sim.txt": s.text(), "sim-estimate.svg": s.plot(),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			return fmt.Errorf("write results: %w", err)
		}
	}
	return nil
}
