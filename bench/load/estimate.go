package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// runEstimate has bench/sim play sales in which nothing happens that no estimate can foresee, and
// asks it how good the waits were that fans were told. The same program tells it by tenth of the
// line, and for sales with retunes and outages apart: `make sim`.
func runEstimate(ctx context.Context, l *lab) (measured, error) {
	l.progress("building bench/sim")
	program := filepath.Join(l.dir, "sim")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", program, "waitingroom/bench/sim").CombinedOutput(); err != nil {
		return measured{}, fmt.Errorf("build bench/sim: %w: %s", err, out)
	}
	l.progress("simulating")
	run := exec.CommandContext(ctx, program, "-calm", "-json", "-seed", "1",
		"-fans", strconv.Itoa(l.sizes.saleFans), "-runs", strconv.Itoa(l.sizes.sales))
	run.Stderr = os.Stderr
	// A missed budget is its status 1, and still a report.
	out, err := run.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return measured{}, fmt.Errorf("simulate: %w", err)
	}
	var report struct {
		Calm struct {
			Met     *bool   `json:"met"`
			Covered float64 `json:"covered"`
			All     struct {
				P50    float64 `json:"p50Holds"`
				P90    float64 `json:"p90Holds"`
				Spread float64 `json:"p90ToP50"`
			} `json:"all"`
		} `json:"calm"`
	}
	if err := json.Unmarshal(out, &report); err != nil {
		return measured{}, fmt.Errorf("read the report of bench/sim: %w", err)
	}
	if report.Calm.Met == nil {
		return measured{}, errors.New("read the report of bench/sim: nobody was told an estimate")
	}
	all := report.Calm.All
	return measured{values: []float64{report.Calm.Covered, all.P50, all.P50, all.P90, all.P90, all.Spread}}, nil
}
