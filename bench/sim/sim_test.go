package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"waitingroom/origin/queue"
)

func quiet(string) {}

// TestSale simulates a whole sale with everything that can happen in it. The program is built
// without the race detector, which has nothing to find in one goroutine.
func TestSale(t *testing.T) {
	t.Parallel()
	simulation := filepath.Join(t.TempDir(), "simulation")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", simulation, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	var errors bytes.Buffer
	cmd := exec.CommandContext(t.Context(), simulation, "-fans", "50000", "-seed", "1", "-json")
	cmd.Stderr = &errors
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, errors.String())
	}
	var r report
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("the output is not a report: %v", err)
	}
	sum := 0
	for _, n := range r.Fates {
		sum += n
	}
	if sum != int(r.Positions) || r.Positions < uint64(r.Fans) {
		t.Errorf("%d fans, %d positions, and %d fates: %v", r.Fans, r.Positions, sum, r.Fates)
	}
	for _, fate := range []standing{isWaiting, isOffered, isActive} {
		if n := r.Fates[standingNames[fate]]; n != 0 {
			t.Errorf("%d are still %s", n, standingNames[fate])
		}
	}
	for _, fate := range []standing{isEnded, isExpired, isMissed, isLeft} {
		if r.Fates[standingNames[fate]] == 0 {
			t.Errorf("nobody is %s: %v", standingNames[fate], r.Fates)
		}
	}
	want := []queue.State{queue.Scheduled, queue.Open, queue.Paused, queue.Open, queue.SoldOut, queue.Open, queue.Closed}
	if !slices.Equal(r.States, want) {
		t.Errorf("the queue was %v, want %v", r.States, want)
	}
	for _, i := range r.Invariants {
		if i.Checks == 0 || !i.Held {
			t.Errorf("%s: %d checks, held %v", i.Name, i.Checks, i.Held)
		}
	}
}

// TestSameSeed repeats a simulation by its seed.
func TestSameSeed(t *testing.T) {
	t.Parallel()
	sale := func(seed uint64) report {
		r, err := simulate(t.Context(), plan{fans: 400, slots: 20, seed: seed}, quiet)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		r.RealSeconds = 0
		return r
	}
	first, again, other := sale(3), sale(3), sale(4)
	if !reflect.DeepEqual(first, again) {
		t.Errorf("the same seed gives\n%+v\nand\n%+v", first, again)
	}
	if first.Events == other.Events {
		t.Errorf("another seed gives the same %d events", other.Events)
	}
}

func TestArguments(t *testing.T) {
	for _, args := range []string{"-fans 0", "-fans x", "-without rain", "-slots -1", "more"} {
		var out, terminal bytes.Buffer
		if err := run(t.Context(), strings.Fields(args), &out, &terminal); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
}

// TestReport reads the JSON object at the end of a run.
func TestReport(t *testing.T) {
	t.Parallel()
	var out, terminal bytes.Buffer
	args := []string{"-fans", "500", "-slots", "20", "-seed", "9", "-calm", "-json"}
	if err := run(context.Background(), args, &out, &terminal); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("%v in %s", err, out.String())
	}
	for _, member := range []string{"fans", "events", "virtualSeconds", "realSeconds", "invariants", "waitSeconds", "estimate", "seed"} {
		if got[member] == nil {
			t.Errorf("the report has no %s", member)
		}
	}
	if got["seed"] != 9.0 || got["broken"] != nil || got["met"] != true || got["calm"] != true {
		t.Errorf("seed %v, broken %v, met %v, calm %v", got["seed"], got["broken"], got["met"], got["calm"])
	}
	if got["estimate"].(map[string]any)["met"] == nil {
		t.Error("a calm run does not judge the estimate")
	}
	out.Reset()
	if err := run(context.Background(), slices.DeleteFunc(args, func(arg string) bool { return arg == "-calm" }), &out, &terminal); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("%v in %s", err, out.String())
	}
	if estimate := got["estimate"].(map[string]any); estimate["met"] != nil {
		t.Errorf("a run that is not calm judges the estimate: %v", estimate["met"])
	}
	if terminal.Len() > 0 {
		t.Errorf("progress is printed although there is no terminal: %q", terminal.String())
	}
}

// TestTenthsOutside reads in the table which tenths of the line are outside the budget by themselves.
func TestTenthsOutside(t *testing.T) {
	var e estimates
	for i := range e.Tenths {
		e.Tenths[i] = tenth{told: 100, held50: 50, held90: 90}
	}
	e.Stayed, e.Had = 100, 95
	e.Tenths[2].held50, e.Tenths[8].held90 = 61, 84
	for _, c := range []struct {
		calm    bool
		outside int
		verdict string
	}{
		{true, 2, "budget: met; 8 of 10 tenths of the line are within it by themselves\n"},
		{false, 0, "budget: not judged\n"},
	} {
		r := e.report(c.calm)
		text := r.text()
		if got := strings.Count(text, "outside\n"); got != c.outside || !strings.HasSuffix(text, c.verdict) {
			t.Errorf("calm %v: %d tenths are outside, want %d, and at the end %q:\n%s", c.calm, got, c.outside, c.verdict, text)
		}
	}
}
