package web

import (
	"bytes"
	"compress/gzip"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The rules of the page are tested in its own language.
func TestScriptsUnderNode(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatal("node is missing: install the Debian package `nodejs`, or run `make test`, which does")
	}
	tests, err := filepath.Glob("*.test.mjs")
	if err != nil || len(tests) == 0 {
		t.Fatalf("got %d test files, error %v; want some", len(tests), err)
	}
	cmd := exec.CommandContext(t.Context(), node, append([]string{"--test"}, tests...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("node --test: %v\n%s", err, out)
	}
}

// What is embedded is what was built from the sources.
func TestAssetsAreBuiltFromTheirSources(t *testing.T) {
	source, err := os.ReadFile("web.go")
	if err != nil {
		t.Fatal(err)
	}
	command := regexp.MustCompile(`(?m)^//go:generate go (tool esbuild .*) --outdir=assets(.*)$`).FindSubmatch(source)
	if command == nil {
		t.Fatal("web.go does not say how the assets are built")
	}
	dir := t.TempDir()
	args := append(strings.Fields(string(command[1])), strings.Fields(string(command[2]))...)
	if out, err := exec.CommandContext(t.Context(), "go", append(args, "--outdir="+dir)...).CombinedOutput(); err != nil {
		t.Fatalf("go tool esbuild: %v\n%s", err, out)
	}
	built, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(built) == 0 {
		t.Fatalf("got %d built files, error %v; want some", len(built), err)
	}
	for _, name := range built {
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if got, _, _ := Asset(filepath.Base(name)); !bytes.Equal(got, want) {
			t.Errorf("%s is older than its sources; run make web", filepath.Base(name))
		}
	}
}

// The page must work under its own policy and load nothing from elsewhere.
func TestPageKeepsItsPolicy(t *testing.T) {
	all := [][]byte{Page()}
	for _, name := range assetNames(t) {
		content, _, _ := Asset(name)
		all = append(all, content)
	}
	for _, banned := range []string{`<script[^>]*>[^<]`, `<style`, ` style=`, ` on[a-z]+=`, `javascript:`, `(src|href)="?https?:`, `url\(`, `@import`, `innerHTML`, `\beval\(`} {
		for _, content := range all {
			if found := regexp.MustCompile(banned).Find(content); found != nil {
				t.Errorf("got %q in the page; the policy forbids it", found)
			}
		}
	}
}

// Not every Safari in use counts a WebSocket to the same host as 'self'.
func TestPolicyNamesTheWebSocket(t *testing.T) {
	for publicURL, want := range map[string]string{
		"https://wait.example":  "; connect-src 'self' wss://wait.example; ",
		"http://127.0.0.1:8080": "; connect-src 'self' ws://127.0.0.1:8080; ",
	} {
		if got := ContentSecurityPolicy(publicURL); !strings.Contains(got, want) {
			t.Errorf("ContentSecurityPolicy(%q): got %q; want %q in it", publicURL, got, want)
		}
	}
}

func TestPageLoadsOnlyAssetsThatExist(t *testing.T) {
	loaded := regexp.MustCompile(`/assets/([\w.-]+)`).FindAllSubmatch(Page(), -1)
	if len(loaded) == 0 {
		t.Fatal("got no assets in the page; want its script and style")
	}
	for _, match := range loaded {
		if _, _, ok := Asset(string(match[1])); !ok {
			t.Errorf("Asset(%q): got none; the page loads it", match[1])
		}
	}
	for _, name := range assetNames(t) {
		content, _, _ := Asset(name)
		for _, match := range regexp.MustCompile(`from '\./([\w.-]+)'`).FindAllSubmatch(content, -1) {
			if _, contentType, ok := Asset(string(match[1])); !ok || !strings.HasPrefix(contentType, "text/javascript") {
				t.Errorf("Asset(%q): got type %q, %v; %s imports it", match[1], contentType, ok, name)
			}
		}
	}
}

func TestAssetRefusesOtherNames(t *testing.T) {
	for _, name := range []string{"", ".", "..", "../page.html", "../web.go", "assets/wait.css", "/wait.css", "missing.css", "./wait.css", "wait.css/", "wait"} {
		if _, _, ok := Asset(name); ok {
			t.Errorf("Asset(%q): got a file; want none", name)
		}
	}
}

// A hundred thousand phones load it in the same minute.
func TestPageIsSmall(t *testing.T) {
	const budget = 14 << 10
	size := 0
	compressed := func(content []byte) int {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Len()
	}
	size += compressed(Page())
	for _, name := range assetNames(t) {
		content, _, _ := Asset(name)
		size += compressed(content)
	}
	if size > budget {
		t.Errorf("page and assets: got %d bytes compressed; want at most %d", size, budget)
	}
	t.Logf("page and assets: %d bytes compressed", size)
}

func assetNames(t *testing.T) []string {
	t.Helper()
	entries, err := assets.ReadDir("assets")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, path.Base(entry.Name()))
	}
	return names
}
