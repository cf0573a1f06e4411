package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"waitingroom/origin"
	"waitingroom/tokens"
)

// call runs the program with some arguments.
func call(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := run(context.Background(), args, &out, io.Discard)
	return out.String(), err
}

func succeed(t *testing.T, args ...string) string {
	t.Helper()
	out, err := call(t, args...)
	if err != nil {
		t.Fatalf("waitingroom-origin %s: got %v, want no error", strings.Join(args, " "), err)
	}
	return out
}

func TestKeysMakeAFirstInstallation(t *testing.T) {
	dir := t.TempDir()
	keys := filepath.Join(dir, "keys")
	config := filepath.Join(dir, "origin.yaml")
	text := succeed(t, "keys", "-dir", keys, "-tenant", "acme")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	succeed(t, "-config", config, "-check-config")

	contents := make(map[string][]byte)
	err := filepath.WalkDir(keys, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("mode of %s: got %o, want 600", path, info.Mode().Perm())
		}
		contents[path], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(contents) != 6 {
		t.Errorf("key files: got %d, want 6", len(contents))
	}

	if _, err := call(t, "keys", "-dir", keys, "-tenant", "acme"); err == nil {
		t.Error("keys of a tenant that has some: got no error, want one")
	}
	succeed(t, "keys", "-dir", keys, "-tenant", "beta")
	for path, before := range contents {
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
			t.Errorf("%s after more calls: got it changed, want it as it was", path)
		}
	}
	for _, args := range [][]string{{"keys"}, {"keys", "-dir", keys}, {"keys", "-dir", keys, "-tenant", "A b"}, {"keys", "-dir", keys, "-tenant", "../x"}} {
		if _, err := call(t, args...); err == nil {
			t.Errorf("%v: got no error, want one", args)
		}
	}
}

func TestAPIKeyIsShownOnceWithItsHash(t *testing.T) {
	for _, kind := range []string{"secret", "publishable"} {
		out := succeed(t, "api-key", "-kind", kind)
		key, _, _ := strings.Cut(out, "\n")
		if !strings.Contains(out, "kind: "+kind) || !strings.Contains(out, tokens.HashAPIKey(key)) {
			t.Errorf("got %q, want a line for the config with the hash of the key above it", out)
		}
		if strings.Count(out, key) != 1 {
			t.Errorf("got the key %d times, want it once", strings.Count(out, key))
		}
	}
	if _, err := call(t, "api-key", "-kind", "vip"); err == nil {
		t.Error("an unknown kind: got no error, want one")
	}
}

func TestOperatorTokenIsAccepted(t *testing.T) {
	dir := t.TempDir()
	succeed(t, "keys", "-dir", dir, "-tenant", "acme")
	private := filepath.Join(dir, "acme", privateFile)
	public, err := os.ReadFile(filepath.Join(dir, "acme", publicFile))
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := tokens.ParseOperatorKeys(public)
	if err != nil {
		t.Fatal(err)
	}
	const audience = "https://origin.example.com"
	for _, role := range []tokens.Role{tokens.RoleOperator, tokens.RoleViewer} {
		token := strings.TrimSpace(succeed(t, "operator-token", "-key", private, "-tenant", "acme", "-role", string(role), "-audience", audience, "-hours", "2"))
		operator, err := verifier.Verify(token, "acme", audience, time.Now())
		if err != nil || operator.Role != role {
			t.Errorf("token of the role %s: got %+v, %v, want it valid", role, operator, err)
		}
		if _, err := verifier.Verify(token, "acme", audience, time.Now().Add(2*time.Hour+time.Minute)); err == nil {
			t.Error("after two hours: got it valid, want it expired")
		}
	}
	for _, args := range [][]string{
		{"-tenant", "acme", "-audience", audience},
		{"-key", private, "-tenant", "acme", "-audience", audience, "-hours", "25"},
		{"-key", private, "-tenant", "acme", "-audience", audience, "-hours", "NaN"},
		{"-key", private, "-tenant", "acme", "-audience", audience, "-role", "king"},
		{"-key", filepath.Join(dir, "none"), "-tenant", "acme", "-audience", audience},
	} {
		if _, err := call(t, append([]string{"operator-token"}, args...)...); err == nil {
			t.Errorf("%v: got no error, want one", args)
		}
	}
}

func TestAnUnknownCommandIsNamed(t *testing.T) {
	if _, err := call(t, "bogus"); err == nil || !strings.Contains(err.Error(), `unknown command "bogus"`) {
		t.Errorf("got %v, want it to name the unknown command", err)
	}
}

func TestExampleConfigIsGood(t *testing.T) {
	example, err := os.ReadFile("../../../deploy/origin.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "origin.yaml")
	if err := os.WriteFile(config, example, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := call(t, "-config", config, "-check-config"); err == nil {
		t.Error("without its keys: got no error, want one")
	}
	succeed(t, "keys", "-dir", filepath.Join(dir, "keys"), "-tenant", "acme")
	succeed(t, "-config", config, "-check-config")

	// What the example shows as comments is good too.
	all := regexp.MustCompile(`(?m)^( *)# ([a-z][A-Za-z]+:.*|  [a-z][A-Za-z]+:.*)$`).ReplaceAllString(string(example), "$1$2")
	for _, excluded := range []string{"allowPlainHTTP: true", "cluster: true"} {
		all = strings.Replace(all, excluded, "", 1)
	}
	c, err := origin.ParseConfig([]byte(all))
	if err != nil {
		t.Fatalf("the example with its comments taken in: %v", err)
	}
	if c.TLS.CertFile == "" || c.Redis.MasterName == "" || c.Redis.SentinelPassword.Env == "" || c.Redis.CAFile == "" {
		t.Errorf("the example with its comments taken in: got %+v, want tls and all of redis", c)
	}
}

func TestCheckConfigSaysWhatIsWrong(t *testing.T) {
	config := filepath.Join(t.TempDir(), "origin.yaml")
	if err := os.WriteFile(config, []byte("listen: nowhere\nvip: true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := call(t, "-config", config, "-check-config")
	if err == nil || !strings.Contains(err.Error(), "vip") || !strings.Contains(err.Error(), "listen") {
		t.Errorf("got %v, want all problems", err)
	}
	for _, args := range [][]string{{}, {"serve"}, {"-config", config + "x"}} {
		if _, err := call(t, args...); err == nil {
			t.Errorf("%v: got no error, want one", args)
		}
	}
}
