package tokens

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestSource(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Setenv("WR_TEST_SECRET", "s3cret\n")
	t.Setenv("WR_TEST_EMPTY", "")
	for _, c := range []struct {
		name      string
		source    Source
		want, err string
	}{
		{"file", Source{File: write("a", " s3cret \r\n\n")}, " s3cret ", ""},
		{"environment", Source{Env: "WR_TEST_SECRET"}, "s3cret", ""},
		{"both", Source{File: write("b", "x"), Env: "WR_TEST_SECRET"}, "", "both set"},
		{"neither", Source{}, "", "neither file nor env"},
		{"no such file", Source{File: filepath.Join(dir, "none")}, "", "no such file"},
		{"empty file", Source{File: write("c", "\n")}, "", "is empty"},
		{"huge file", Source{File: write("d", strings.Repeat("x", maxSecret+1))}, "", "longer than"},
		{"directory", Source{File: dir}, "", "load secret"},
		{"no such variable", Source{Env: "WR_TEST_NOT_SET"}, "", "WR_TEST_NOT_SET is not set"},
		{"empty variable", Source{Env: "WR_TEST_EMPTY"}, "", "WR_TEST_EMPTY is empty"},
	} {
		got, err := c.source.Load()
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: got %v, want an error with %q", c.name, err, c.err)
			}
		} else if err != nil || string(got) != c.want {
			t.Errorf("%s: got %q, %v; want %q", c.name, got, err, c.want)
		}
	}
}

func TestAPIKeys(t *testing.T) {
	for secret, shape := range map[bool]string{true: `^wr_sec_[A-Za-z0-9_-]{43}$`, false: `^wr_pub_[A-Za-z0-9_-]{43}$`} {
		a, err := NewAPIKey(secret)
		if err != nil {
			t.Fatal(err)
		}
		b, err := NewAPIKey(secret)
		if err != nil {
			t.Fatal(err)
		}
		if !regexp.MustCompile(shape).MatchString(a) || a == b {
			t.Errorf("secret %v: got %q and %q, want two of the shape %s", secret, a, b, shape)
		}
	}
	const want = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
	if got := HashAPIKey("abc"); got != want {
		t.Errorf("HashAPIKey(abc) = %q, want %q", got, want)
	}
}
