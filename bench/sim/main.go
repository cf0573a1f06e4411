// Command sim proves the rules of the line: a discrete-event simulation, in virtual time, of a
// sale with up to millions of fans, over the real domain (origin/queue), the real steps of the
// coordinator (origin.Stepper) and the real memory store. Fans, edges, the operator and what breaks
// are modelled; whatever they are answered goes into books of the simulation's own, by which
// the invariants are judged at every event, and in full every virtual minute.
//
// An invariant that breaks ends the run with status 1 and the seed, with which -seed repeats it
// exactly: all chance comes from the seed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"syscall"
	"time"
)

var (
	errBroken = errors.New("an invariant is broken")
	errMissed = errors.New("the budget of the estimate is missed")
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "sim:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out, terminal io.Writer) error {
	flags := flag.NewFlagSet("sim", flag.ContinueOnError)
	flags.SetOutput(terminal)
	var p plan
	flags.IntVar(&p.fans, "fans", 1_000_000, "how many fans come")
	flags.IntVar(&p.slots, "slots", 0, "the shop's `capacity`; 0 is a twentieth of the fans")
	flags.Uint64Var(&p.seed, "seed", 1, "all chance comes from it")
	without := flags.String("without", "", fmt.Sprintf("leave `elements` out, with commas between them: %v", elements))
	calm := flags.Bool("calm", false, fmt.Sprintf("leave out what no estimate can foresee: %v", unforeseen))
	asJSON := flags.Bool("json", false, "print one JSON object at the end instead of tables")
	runs := flags.Int("runs", 1, "how many seeds, from -seed on")
	calmRuns := flags.Int("calm-runs", 0, "how many more seeds with -calm, from which the estimate is judged")
	atOnce := flags.Int("parallel", runtime.NumCPU(), "how many of them at a time")
	results := flags.String("results", "", "`directory` to write the summary to, as text, as JSON and as a plot")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	var err error
	if p.without, err = parseElements(*without); err != nil {
		return err
	}
	if *calm {
		p.without = append(p.without, unforeseen...)
	}
	if p.slots == 0 {
		p.slots = max(p.fans/20, 1)
	}
	if p.fans < 1 || p.fans > 20_000_000 || p.slots < 1 {
		return errors.New("-fans must be between 1 and 20000000, and -slots positive")
	}
	if *runs < 1 || *calmRuns < 0 || *atOnce < 1 {
		return errors.New("-runs and -parallel must be positive, and -calm-runs not negative")
	}
	if *runs+*calmRuns > 1 || *results != "" {
		return runMany(ctx, p.seeds(*runs, *calmRuns), *atOnce, *asJSON, *results, out)
	}
	return runOne(ctx, p, *asJSON, out, newProgress(terminal))
}

// runOne simulates once.
func runOne(ctx context.Context, p plan, asJSON bool, out io.Writer, progress *progress) error {
	r, err := simulate(ctx, p, progress.say)
	progress.clear()
	if err != nil && r.Broken == nil {
		return err
	}
	if asJSON {
		err = writeJSON(out, r)
	} else {
		_, err = fmt.Fprint(out, r.text())
	}
	if r.Broken != nil {
		return fmt.Errorf("%w: seed %d: %w", errBroken, p.seed, r.Broken)
	}
	return err
}

// runMany simulates once for each plan, and sums up.
func runMany(ctx context.Context, plans []plan, atOnce int, asJSON bool, results string, out io.Writer) error {
	table := out
	if asJSON {
		table = io.Discard
	}
	s, err := many(ctx, plans, atOnce, table)
	if err != nil {
		for i := range s.Runs {
			if r := &s.Runs[i]; r.Broken != nil {
				fmt.Fprint(table, r.text())
				return fmt.Errorf("%w: seed %d: %w", errBroken, r.Seed, r.Broken)
			}
		}
		return err
	}
	if results != "" {
		if err := s.write(results); err != nil {
			return err
		}
	}
	if asJSON {
		err = writeJSON(out, s)
	} else {
		_, err = fmt.Fprint(out, s.estimateText())
	}
	if err == nil && !s.Met {
		err = errMissed
	}
	return err
}

// seeds are the plans of several runs: some with everything, some calm.
func (p plan) seeds(runs, calm int) []plan {
	var list []plan
	for i := range runs + calm {
		next := p
		next.seed += uint64(i)
		if i >= runs {
			next.without = append(slices.Clone(p.without), unforeseen...)
		}
		list = append(list, next)
	}
	return list
}

// simulate runs one simulation. Where an invariant was broken the report says so too.
func simulate(ctx context.Context, p plan, say func(string)) (report, error) {
	started := time.Now()
	w, err := newWorld(ctx, p)
	if err != nil {
		return report{}, err
	}
	w.progress = func(w *world) {
		t := &w.books.tally
		say(fmt.Sprintf("seed %d: minute %d, %d of %d fans came, %d wait, %d offers, %d sessions, %d events, %.0f s",
			p.seed, w.now/minute, w.arrived, p.fans, t[isWaiting], t[isOffered], t[isActive], w.events, time.Since(started).Seconds()))
	}
	err = w.run()
	return w.report(time.Since(started), err), err
}

// progress tells on a terminal, and nowhere else, what is going on.
type progress struct{ terminal io.Writer }

func newProgress(w io.Writer) *progress {
	file, isFile := w.(*os.File)
	if !isFile {
		return &progress{}
	}
	if about, err := file.Stat(); err != nil || about.Mode()&os.ModeCharDevice == 0 {
		return &progress{}
	}
	return &progress{terminal: w}
}

const clearLine = "\r\033[K"

func (p *progress) say(text string) {
	if p.terminal != nil {
		fmt.Fprint(p.terminal, clearLine, text)
	}
}

func (p *progress) clear() {
	if p.terminal != nil {
		fmt.Fprint(p.terminal, clearLine)
	}
}
