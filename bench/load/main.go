// Command load measures the waiting room against its budgets: real programs as processes of their
// own on loopback, driven by a plain client over sockets, and compared with a yardstick that the
// same client drives with the same bytes.
//
// Without -scenario it measures everything, prints the table, writes it to a directory as text and
// as JSON, and leaves with status 1 where a budget is missed. With -json the last line on standard
// output is one JSON object, or one for each scenario.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"waitingroom/bench/fans"
)

// longestScenario ends a scenario that hangs.
const longestScenario = 10 * time.Minute

var errMissed = errors.New("a budget is missed")

func main() {
	if os.Getenv(fans.Environment) != "" {
		serveFans()
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

// serveFans makes this program one of the crowds that another one measures with.
func serveFans() {
	if err := fans.Serve(context.Background(), os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "load: fans:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out, terminal io.Writer) error {
	flags := flag.NewFlagSet("load", flag.ContinueOnError)
	flags.SetOutput(terminal)
	name := flags.String("scenario", "", "measure these alone; `names` with commas between them: "+strings.Join(scenarioNames(), ", "))
	asJSON := flags.Bool("json", false, "print JSON lines instead of the table")
	duration := flags.Duration("duration", 2*time.Second, "how long each half of a round lasts")
	results := flags.String("results", "", "`directory` to write the table to, as text and as JSON")
	profiles := flags.String("profile", "", "`directory` to write CPU profiles of edge and origin to")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if *duration < 10*time.Millisecond || *duration > time.Minute {
		return errors.New("-duration must be between 10ms and 1m")
	}
	chosen, err := choose(*name)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "waitingroom-bench-")
	if err != nil {
		return fmt.Errorf("make temporary directory: %w", err)
	}
	defer os.RemoveAll(dir)
	progress := newProgress(terminal)
	progress.say("building")
	built, err := build(ctx, dir)
	if err != nil {
		return err
	}
	l := &lab{dir: dir, programs: built, sizes: fullSizes(*duration), profiles: *profiles, progress: progress.say}
	t := table{Machine: describeMachine(ctx, built.redis), Duration: duration.String(), Began: time.Now().UTC().Truncate(time.Second)}
	for _, s := range chosen {
		progress.scenario = s.name
		r, err := l.measure(ctx, s)
		progress.clear()
		if err != nil {
			return fmt.Errorf("measure %s: %w", s.name, err)
		}
		t.Results = append(t.Results, r)
		if *asJSON {
			line, err := r.line()
			if err != nil {
				return err
			}
			fmt.Fprintln(out, string(line))
		}
	}
	if !*asJSON {
		fmt.Fprint(out, t.text())
	}
	if *results != "" {
		if err := t.write(*results); err != nil {
			return err
		}
	}
	if missed := t.missed(); len(missed) > 0 {
		return fmt.Errorf("%w: %s", errMissed, strings.Join(missed, ", "))
	}
	return nil
}

// choose finds scenarios by their names; no name is all of them but those that are measured apart.
func choose(names string) ([]scenario, error) {
	if names == "" {
		return scenarios(), nil
	}
	all := append(scenarios(), apart()...)
	var chosen []scenario
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(all, func(s scenario) bool { return s.name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no scenario %q; there are %s", name, strings.Join(scenarioNames(), ", "))
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

func scenarioNames() []string {
	var names []string
	for _, s := range append(scenarios(), apart()...) {
		names = append(names, s.name)
	}
	return names
}

// measure runs one scenario.
func (l *lab) measure(ctx context.Context, s scenario) (result, error) {
	if s.run == nil {
		return s.missing(), nil
	}
	ctx, cancel := context.WithTimeout(ctx, longestScenario)
	defer cancel()
	m, err := s.run(ctx, l)
	if err != nil {
		return result{}, err
	}
	return s.judge(m)
}

// progress tells on a terminal, and nowhere else, what is going on.
type progress struct {
	terminal io.Writer // nil where there is none
	scenario string
}

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
		fmt.Fprintf(p.terminal, "%s%s: %s", clearLine, p.scenario, text)
	}
}

func (p *progress) clear() {
	if p.terminal != nil {
		fmt.Fprint(p.terminal, clearLine)
	}
}
