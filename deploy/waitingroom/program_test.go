package main

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func buildProgram(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "waitingroom")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return binary
}

// The first line tells everything that a script needs, and the program ends well on Ctrl-C.
func TestFirstLineIsJSON(t *testing.T) {
	command := exec.Command(buildProgram(t), "-json",
		"-edge", "127.0.0.1:0", "-origin", "127.0.0.1:0", "-shop", "127.0.0.1:0", "-crowd", "3")
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	command.Stderr = t.Output()
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	t.Cleanup(func() {
		if !ended {
			_ = command.Process.Kill()
			_ = command.Wait()
		}
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("read the first line: %v", err)
	}
	var first map[string]any
	if err := json.Unmarshal([]byte(line), &first); err != nil {
		t.Fatalf("first line %q: %v", line, err)
	}
	members := []string{"edge", "origin", "shop", "queue", "publishableKey", "secretKey", "operatorToken", "viewerToken"}
	other, _ := first["other"].(map[string]any)
	for _, name := range members {
		own, _ := first[name].(string)
		theirs, _ := other[name].(string)
		if own == "" || theirs == "" {
			t.Errorf("%s: got %q and %q in other; want both", name, own, theirs)
		}
		if shared := name == "edge" || name == "origin"; shared != (own == theirs) {
			t.Errorf("%s: got %q and %q; want the same: %v", name, own, theirs, shared)
		}
	}

	// What it says is true: the queue can be joined with its key, and the shop is guarded.
	var a Access
	if err := json.Unmarshal([]byte(line), &a); err != nil {
		t.Fatal(err)
	}
	if fan, err := testApp(a).join(t.Context(), a.Queue); err != nil || fan.Position == 0 {
		t.Errorf("join: got position %d, error %v; want a place", fan.Position, err)
	}
	if code, _ := send(t, "GET", a.Shop+"/", map[string][]string{"Accept": {"text/html"}}, ""); code != 303 {
		t.Errorf("GET the shop without a session: got %d; want 303 to the waiting page", code)
	}
	if code, _ := send(t, "GET", a.Origin+"/queues/"+a.Queue+"/stats", bearer(a.ViewerToken), ""); code != 200 {
		t.Errorf("stats with the viewer's token: got %d; want 200", code)
	}

	if err := command.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	ended = true
	if err := command.Wait(); err != nil {
		t.Errorf("after Ctrl-C: got %v; want exit code 0", err)
	}
}

func TestAddressInUseIsSaid(t *testing.T) {
	binary := buildProgram(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, which := range []string{"-edge", "-origin", "-shop"} {
		args := []string{"-edge", "127.0.0.1:0", "-origin", "127.0.0.1:0", "-shop", "127.0.0.1:0", which, taken.Addr().String()}
		out, err := exec.CommandContext(t.Context(), binary, args...).CombinedOutput()
		if err == nil {
			t.Errorf("%s in use: got exit code 0; want a failure", which)
		}
		for _, part := range []string{taken.Addr().String(), "address already in use", "choose others with -edge"} {
			if !strings.Contains(string(out), part) {
				t.Errorf("%s in use: got %q; want it to say %q", which, out, part)
			}
		}
	}
}

func TestUnknownFlagsAreRefused(t *testing.T) {
	binary := buildProgram(t)
	for _, args := range [][]string{{"-nonsense"}, {"extra"}, {"-crowd", "many"}, {"-crowd", "-1"}, {"-hold", "0s"}, {"-hold", "1500ms"}, {"-capacity", "-1"}, {"-opens-in", "-1s"}} {
		all := append([]string{"-edge", "127.0.0.1:0", "-origin", "127.0.0.1:0", "-shop", "127.0.0.1:0"}, args...)
		command := exec.CommandContext(t.Context(), binary, all...)
		command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
		if out, err := command.CombinedOutput(); err == nil || len(out) == 0 {
			t.Errorf("%q: got exit code 0 or no words (%q); want a refusal", args, out)
		}
	}
}

func TestTheWelcomeSaysWhetherTheSaleIsOpen(t *testing.T) {
	for opensIn, want := range map[time.Duration]string{0: "The waiting room is open,", time.Hour: "The waiting room opens at "} {
		var out strings.Builder
		welcome(&out, Access{Other: &Access{}}, Options{OpensIn: opensIn})
		if !strings.Contains(out.String(), want) || strings.Contains(out.String(), "%!") {
			t.Errorf("with -opens-in %v: got %q, want %q in it", opensIn, out.String(), want)
		}
	}
}

// payload is the middle part of a JWT.
func payload(t *testing.T, token string) []byte {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("got a token of %d parts; want 3", len(parts))
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	return text
}
