package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"
)

// machine is where the figures were measured.
type machine struct {
	Cores  int    `json:"cores"`
	CPU    string `json:"cpu"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
	Redis  string `json:"redis"`
}

func describeMachine(ctx context.Context, redis string) machine {
	m := machine{Cores: runtime.NumCPU(), CPU: "unknown", Kernel: "unknown", Go: runtime.Version(), Redis: "unknown"}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if name, found := colonValue(text, "model name"); found {
			m.CPU = name
		}
	}
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = runtime.GOOS + " " + string(bytes.TrimSpace(text))
	}
	if text, err := exec.CommandContext(ctx, redis, "--version").Output(); err == nil {
		for field := range strings.FieldsSeq(string(text)) {
			if version, found := strings.CutPrefix(field, "v="); found {
				m.Redis = version
			}
		}
	}
	return m
}

// colonValue finds the first line "name : value".
func colonValue(text []byte, name string) (string, bool) {
	for line := range bytes.Lines(text) {
		key, value, found := bytes.Cut(line, []byte(":"))
		if found && string(bytes.TrimSpace(key)) == name {
			return string(bytes.TrimSpace(value)), true
		}
	}
	return "", false
}

// table is what a whole run came to.
type table struct {
	Began    time.Time `json:"began"`
	Duration string    `json:"duration"` // of each half of a round
	Machine  machine   `json:"machine"`
	Results  []result  `json:"results"`
}

// missed lists the scenarios that are over their budgets.
func (t table) missed() []string {
	var list []string
	for _, r := range t.Results {
		if r.Met != nil && !*r.Met {
			list = append(list, r.Scenario)
		}
	}
	return list
}

var signs = map[bound]string{atLeast: "≥", atMost: "≤"}

// text is the table for people.
func (t table) text() string {
	var b bytes.Buffer
	m := t.Machine
	fmt.Fprintf(&b, "%s, %d cores, %s, %s, redis %s; %s\n\n", m.CPU, m.Cores, m.Kernel, m.Go, m.Redis, t.Began.Format(time.RFC3339))
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "scenario\tfigure\tbudget\tmeasured\tunit\tserver/s\tyardstick/s\tverdict")
	for _, r := range t.Results {
		if r.Met == nil {
			fmt.Fprintf(w, "%s\t\t%s %g\t-\t%s\t\t\tnot built yet\n", r.Scenario, signs[r.Bound], r.Budget, r.Unit)
			continue
		}
		for i, f := range r.Figures {
			name, rates := "", "\t"
			if i == 0 {
				name = r.Scenario
				if r.YardstickPerSecond > 0 {
					rates = fmt.Sprintf("%.0f\t%.0f", r.PerSecond, r.YardstickPerSecond)
				}
			}
			verdict := "met"
			if !f.Met {
				verdict = "MISSED"
			}
			fmt.Fprintf(w, "%s\t%s\t%s %g\t%g\t%s\t%s\t%s\n", name, f.Name, signs[f.Bound], f.Budget, f.Value, f.Unit, rates, verdict)
		}
		for _, o := range r.Seen {
			fmt.Fprintf(w, "\t%s\t\t%g\t%s\t\t\t\n", o.Name, o.Value, o.Unit)
		}
	}
	_ = w.Flush() // writes to memory
	for _, r := range t.Results {
		for _, note := range r.Notes {
			fmt.Fprintf(&b, "%s: %s\n", r.Scenario, note)
		}
	}
	return b.String()
}

// write keeps the table in a directory, under the time at which it was begun, and the plots.
func (t table) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	document, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		return fmt.Errorf("encode table: %w", err)
	}
	name := filepath.Join(dir, t.Began.Format("20060102T150405Z"))
	for ending, content := range map[string][]byte{".txt": []byte(t.text()), ".json": append(document, '\n')} {
		if err := os.WriteFile(name+ending, content, 0o644); err != nil {
			return fmt.Errorf("write table: %w", err)
		}
	}
	for _, r := range t.Results {
		for file, plot := range r.plots {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(plot), 0o644); err != nil {
				return fmt.Errorf("write plot: %w", err)
			}
		}
	}
	return nil
}
