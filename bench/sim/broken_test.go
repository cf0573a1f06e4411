package main

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// patches turn the real store into one that can break a rule. Each text must stand in its file
// exactly once.
var patches = []struct{ file, from, to string }{
	{
		"coordination.go", "if open && q.free() > 0 && position > 0 ",
		`if open && (q.free() > 0 || brokenRule == "recount") && position > 0 `,
	},
	{
		"state.go", "for _, turn := range q.kept() {",
		"for _, turn := range q.kept()[min(brokenTurns(), len(q.kept())-1):] {",
	},
	{
		"coordination.go", "look.Candidates = q.candidates(",
		"look.Candidates = q.brokenCandidates(",
	},
}

// TestBrokenRules builds the simulation over a store that breaks one rule at a time, and sees the
// invariant that stops it.
func TestBrokenRules(t *testing.T) {
	t.Parallel()
	simulation := buildBroken(t)
	cases := []struct {
		rule, says string
		invariants []string // any of them may be the first to break
	}{
		{"", "no rule is broken", nil},
		{"recount", "offers are not counted again when they are made", []string{"capacity"}},
		{"sweep", "the absent expire one turn early", []string{"hold"}},
		{"arrival", "who comes back goes behind those who are there", []string{"order"}},
		{"absent", "absent fans count as present", []string{"present"}},
		{"owed", "the owed are forgotten", []string{"order", "slots"}},
	}
	for _, c := range cases {
		t.Run(c.rule, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), simulation, "-fans", "8000", "-seed", "7", "-json")
			cmd.Env = append(os.Environ(), "BROKEN_RULE="+c.rule)
			var errors strings.Builder
			cmd.Stderr = &errors
			out, err := cmd.Output()
			var r report
			if err := json.Unmarshal(out, &r); err != nil {
				t.Fatalf("the output is not a report: %v\n%s\n%s", err, out, errors.String())
			}
			if c.invariants == nil {
				if err != nil || r.Broken != nil {
					t.Fatalf("%s: ended with %v, broken %v", c.says, err, r.Broken)
				}
				return
			}
			if r.Broken == nil {
				t.Fatalf("%s: not noticed", c.says)
			}
			t.Logf("%s: %v", c.says, r.Broken)
			if !slices.Contains(c.invariants, r.Broken.Invariant) || r.Met {
				t.Errorf("%s: stopped by %v, met %v, want one of %q", c.says, r.Broken, r.Met, c.invariants)
			}
			if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(errors.String(), "seed 7") {
				t.Errorf("%s: left with status %d and %q, want 1 and the seed", c.says, cmd.ProcessState.ExitCode(), errors.String())
			}
		})
	}
}

// buildBroken builds the simulation with patched sources laid over the store's.
func buildBroken(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	store, err := filepath.Abs("../../origin/store/memory")
	if err != nil {
		t.Fatal(err)
	}
	overlay := struct{ Replace map[string]string }{make(map[string]string)}
	write := func(name, text string) {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		overlay.Replace[filepath.Join(store, name)] = path
	}
	broken, err := os.ReadFile("testdata/broken.go.txt")
	if err != nil {
		t.Fatal(err)
	}
	write("broken.go", string(broken))
	texts := make(map[string]string)
	for _, p := range patches {
		if texts[p.file] == "" {
			text, err := os.ReadFile(filepath.Join(store, p.file))
			if err != nil {
				t.Fatal(err)
			}
			texts[p.file] = string(text)
		}
		if n := strings.Count(texts[p.file], p.from); n != 1 {
			t.Fatalf("%q stands %d times in %s: the rule has moved, and the patch must follow it", p.from, n, p.file)
		}
		texts[p.file] = strings.Replace(texts[p.file], p.from, p.to, 1)
	}
	for name, text := range texts {
		write(name, text)
	}
	list, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	overlayFile := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlayFile, list, 0o600); err != nil {
		t.Fatal(err)
	}
	simulation := filepath.Join(dir, "simulation")
	out, err := exec.CommandContext(context.WithoutCancel(t.Context()), "go", "build", "-overlay", overlayFile, "-o", simulation, ".").CombinedOutput()
	if err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return simulation
}
