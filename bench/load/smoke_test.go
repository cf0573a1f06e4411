package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"waitingroom/bench/fans"
)

var tiny = sizes{
	duration: 40 * time.Millisecond, rounds: 2, connections: 4, joinConnections: 16,
	tickets: 200, unseen: 200, sessions: 50, storeFans: 3000, ticks: 3, turns: 2, slotQueues: 2, slots: 2,
	saleFans: 5000, sales: 2,
	live: liveSizes{
		fans: 300, edges: 3, perSecond: 1000, reportEvery: 50 * time.Millisecond, idle: 200 * time.Millisecond, hold: time.Second,
		perMinute: 3000, think: 50 * time.Millisecond, shop: 100 * time.Millisecond, atOnce: 40, rounds: 2, settle: 50 * time.Millisecond,
		slowFans: 100, slowReaders: 20, slowRounds: 1, slowHalf: time.Second, slowSoak: time.Second, passersBy: 400, slowPerMinute: 3000,
		killedFans: 60, otherFans: 20,
	},
}

// TestMain makes this program one of the crowds where a scenario starts it as one.
func TestMain(m *testing.M) {
	if os.Getenv(fans.Environment) != "" {
		serveFans()
		return
	}
	os.Exit(m.Run())
}

// TestEveryScenarioMeasures runs each scenario on a small scale with the real programs. What it
// measures there says nothing, but that it measures has to be true.
func TestEveryScenarioMeasures(t *testing.T) {
	built, err := build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range append(scenarios(), apart()...) {
		t.Run(s.name, func(t *testing.T) {
			l := &lab{dir: t.TempDir(), programs: built, sizes: tiny, progress: func(string) {}}
			r, err := l.measure(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			line, err := r.line()
			if err != nil {
				t.Fatal(err)
			}
			var members map[string]any
			if err := json.Unmarshal(line, &members); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"scenario", "value", "unit", "budget", "met"} {
				if _, given := members[name]; !given {
					t.Errorf("%s lacks %s", line, name)
				}
			}
			if s.run == nil {
				if members["met"] != nil {
					t.Errorf("got %s, want met null", line)
				}
				return
			}
			for _, f := range r.Figures {
				if f.Value < 0 || f.Value == 0 && f.Budget != 0 {
					t.Errorf("%s: got %v %s, want something measured", f.Name, f.Value, f.Unit)
				}
				if (f.Name == "lost" || f.Name == "wrong") && f.Value != 0 {
					t.Errorf("%s: got %v %s, want none: %v %v", f.Name, f.Value, f.Unit, r.Notes, r.Seen)
				}
			}
			if s.limits[0].unit == "× hello" && (r.PerSecond <= 0 || r.YardstickPerSecond <= 0 || r.Ratio <= 0) {
				t.Errorf("got %s, want it compared with the yardstick", line)
			}
		})
	}
}

func TestWrongAnswersEndADrive(t *testing.T) {
	dir := t.TempDir()
	built, err := build(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	in, err := install(t.Context(), dir, built)
	if err != nil {
		t.Fatal(err)
	}
	defer in.close()
	list := &requests{}
	list.add("GET /tickets/none HTTP/1.1\r\nHost: x\r\n\r\n")
	edge, err := dial(t.Context(), "edge", in.edge, 2, 200, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer edge.close()
	if _, err := edge.drive(t.Context(), list, time.Second, false); err == nil {
		t.Error("answers of 401: got no error, want one")
	}
	hello, err := dial(t.Context(), "hello", in.hello, 2, 200, func(body []byte) error {
		if len(body) != 40 {
			return fmt.Errorf("%d bytes", len(body))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer hello.close()
	for range 10 {
		list.add("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	}
	p, err := hello.drive(t.Context(), list, time.Minute, true)
	if err != nil || p.answers != list.len() || len(p.latencies) != p.answers {
		t.Errorf("every request once: got %d answers, %v, want %d", p.answers, err, list.len())
	}
}

func TestCommandLine(t *testing.T) {
	for name, args := range map[string][]string{
		"unknown scenario": {"-scenario", "pole"}, "unknown flag": {"-x"}, "an argument": {"poll"},
		"no duration": {"-duration", "0s"}, "a long duration": {"-duration", "2h"},
	} {
		if err := run(t.Context(), args, &bytes.Buffer{}, &bytes.Buffer{}); err == nil {
			t.Errorf("%s: got no error, want one", name)
		}
	}
}

func TestResultsAreKept(t *testing.T) {
	dir := t.TempDir() + "/results"
	var out, terminal bytes.Buffer
	// A budget that is missed here says nothing.
	if err := run(t.Context(), []string{"-scenario", "page", "-duration", "20ms", "-json", "-results", dir}, &out, &terminal); err != nil && !errors.Is(err, errMissed) {
		t.Fatal(err)
	}
	if lines := bytes.Count(out.Bytes(), []byte("\n")); lines != 1 || terminal.Len() > 0 {
		t.Errorf("got %q and %q, want one line and no progress where there is no terminal", out.String(), terminal.String())
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 2 {
		t.Errorf("got %d files, %v, want the table as text and as JSON", len(files), err)
	}
}
