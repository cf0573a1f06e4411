package deploy_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// wall forbids the packages at or below From to reach, through any chain of imports, what
// matches Not. A pattern ending in /... means everything below as well.
type wall struct {
	from   string
	not    []string
	except []string // allowed although not matches
	why    string
}

const redisClient = "github.com/redis/go-redis/..."

var walls = []wall{
	{
		from: "waitingroom/tokens", not: []string{"waitingroom/..."},
		why: "shops link tokens into their own backends; it must not bring the waiting room along",
	},
	{
		from: "waitingroom/web", not: []string{"waitingroom/..."},
		why: "the page is static; what it shows comes over the API",
	},
	{
		from: "waitingroom/origin/queue", not: []string{"waitingroom/...", "net/http", redisClient},
		why: "the domain is pure, so that simulations and both ends of the wire can share it",
	},
	{
		from: "waitingroom/origin/push", not: []string{"waitingroom/..."},
		why: "sending to a provider knows nothing of queues",
	},
	{
		from: "waitingroom/edge/hub", not: []string{"waitingroom/..."},
		why: "fanning out to connections knows nothing of queues",
	},
	{
		from: "waitingroom/origin", not: []string{"waitingroom/origin/store/memory", "waitingroom/origin/store/redis", redisClient},
		why: "the origin is written against the Store interfaces; a main chooses the store",
	},
	{
		from: "waitingroom/edge", not: []string{"waitingroom/..."},
		except: []string{
			"waitingroom/edge", "waitingroom/edge/hub", "waitingroom/origin/wire", "waitingroom/origin/queue",
			"waitingroom/tokens", "waitingroom/web",
		},
		why: "an edge is the part that stands in the open: it has no way to the store, nor to anything that decides",
	},
	{
		from: "waitingroom/edge", not: []string{redisClient, "firebase.google.com/...", "github.com/sideshow/apns2/..."},
		why: "stores and push providers are the origin's",
	},
	{
		from: "waitingroom/origin/wire", not: []string{"waitingroom/..."},
		except: []string{"waitingroom/origin/wire", "waitingroom/origin/queue"},
		why:    "both ends link the messages; neither may pull in the other",
	},
	{
		from: "waitingroom/origin/store", not: []string{"waitingroom/..."},
		except: []string{"waitingroom/origin/store", "waitingroom/origin/queue"},
		why:    "the contract of the store knows the domain and nothing else",
	},
}

type listed struct {
	ImportPath string
	Name       string
	Imports    []string
	Deps       []string
}

// TestImportWalls keeps the house's rooms apart. Tests may import what they like.
func TestImportWalls(t *testing.T) {
	packages := listPackages(t)
	for _, w := range walls {
		p, exists := packages[w.from]
		if !exists {
			continue // a room that is not furnished yet
		}
		for _, dep := range p.Deps {
			if dep != w.from && matches(dep, w.not) && !matches(dep, w.except) {
				t.Errorf("%s reaches %s, which it must not: %s", w.from, dep, w.why)
			}
		}
	}
	for path, p := range packages {
		for _, imported := range p.Imports {
			if q, ours := packages[imported]; ours && q.Name == "main" {
				t.Errorf("%s imports the program %s, which it must not: mains only compose", path, imported)
			}
		}
	}
	jwx := "github.com/lestrrat-go/jwx/v2/..."
	for path, p := range packages {
		for _, imported := range p.Imports {
			if matches(imported, []string{jwx}) && path != "waitingroom/tokens" {
				t.Errorf("%s imports %s, which it must not: only tokens knows the JOSE library", path, imported)
			}
			if strings.HasSuffix(imported, "/jwx/v2/jwe") {
				t.Errorf("%s imports jwe, which it must not: nothing here is encrypted by JOSE", path)
			}
		}
	}
}

func listPackages(t *testing.T) map[string]listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Name,Imports,Deps", "waitingroom/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("list packages: %v", err)
	}
	packages := make(map[string]listed)
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("decode the list of packages: %v", err)
		}
		packages[p.ImportPath] = p
	}
	if len(packages) == 0 {
		t.Fatal("the list of packages is empty")
	}
	return packages
}

func matches(path string, patterns []string) bool {
	for _, pattern := range patterns {
		prefix, below := strings.CutSuffix(pattern, "/...")
		if path == pattern || below && (path == prefix || strings.HasPrefix(path, prefix+"/")) {
			return true
		}
	}
	return false
}
