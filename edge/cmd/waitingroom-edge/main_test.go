package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheckConfig(t *testing.T) {
	const secret = "a cluster secret of more than 32 bytes"
	t.Setenv("WAITINGROOM_CLUSTER_SECRET", secret)
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("cluster.secret", secret)
	const good = "listen: 127.0.0.1:0\norigins: [http://127.0.0.1:1]\nclusterSecret: {env: WAITINGROOM_CLUSTER_SECRET}\nwhenStale: fail-open\n"
	for name, test := range map[string]struct {
		args []string
		want string // of the error; empty for none
	}{
		"example":         {[]string{"-config", "../../../deploy/edge.example.yaml"}, ""},
		"file beside it":  {[]string{"-config", write("beside.yaml", strings.Replace(good, "env: WAITINGROOM_CLUSTER_SECRET", "file: cluster.secret", 1))}, ""},
		"least":           {[]string{"-config", write("good.yaml", good)}, ""},
		"unknown key":     {[]string{"-config", write("bad.yaml", good+"vip: true\n")}, "vip"},
		"missing file":    {[]string{"-config", filepath.Join(dir, "none.yaml")}, "read config"},
		"missing secret":  {[]string{"-config", write("secret.yaml", strings.Replace(good, "CLUSTER_SECRET", "NONE", 1))}, "clusterSecret"},
		"stray argument":  {[]string{"-config", write("good.yaml", good), "x"}, "unexpected argument"},
		"unknown flag":    {[]string{"-vip"}, "not defined"},
		"remote and http": {[]string{"-config", write("http.yaml", strings.Replace(good, "127.0.0.1:1", "origin.example", 1))}, "origins[0]"},
	} {
		var out, logs bytes.Buffer
		err := run(context.Background(), append([]string{"-check-config"}, test.args...), &out, &logs)
		switch {
		case test.want == "" && (err != nil || out.String() != "config is good\n"):
			t.Errorf("%s: got %v, %q, want a good config", name, err, out.String())
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: got %v, want an error about %s", name, err, test.want)
		}
		if err != nil && strings.Contains(err.Error(), secret) || strings.Contains(out.String()+logs.String(), secret) {
			t.Errorf("%s: the secret was printed", name)
		}
	}
}

func TestItServesUntilItIsTold(t *testing.T) {
	t.Setenv("WAITINGROOM_CLUSTER_SECRET", "a cluster secret of more than 32 bytes")
	path := filepath.Join(t.TempDir(), "edge.yaml")
	const config = "listen: 127.0.0.1:0\norigins: [http://127.0.0.1:1]\nclusterSecret: {env: WAITINGROOM_CLUSTER_SECRET}\nwhenStale: fail-open\n"
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	out := &firstLine{cancel: cancel}
	if err := run(ctx, []string{"-config", path}, out, &bytes.Buffer{}); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(out.text, "edge listens on 127.0.0.1:") {
		t.Errorf("output: got %q, want the address", out.text)
	}
}

// firstLine stops the program once it has printed something.
type firstLine struct {
	text   string
	cancel func()
}

func (f *firstLine) Write(p []byte) (int, error) {
	f.text += string(p)
	f.cancel()
	return len(p), nil
}
