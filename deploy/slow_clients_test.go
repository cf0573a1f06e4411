//go:build siege

// What slow clients cost the others is a ratio of times, which a busy machine disturbs: a
// measurement of its own, make siege, and no part of the tests.

package deploy_test

import (
	"bytes"
	"flag"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// How long the attacks by slow clients are; make siege sets more.
var (
	siegePairs  = flag.Int("siege.pairs", 3, "alternations of quiet and attack in each mode, before the verdict")
	siegeWindow = flag.Duration("siege.window", 500*time.Millisecond, "length of one measurement")
)

const (
	// attackers is how many connections an attack holds, of slowConnections that the edge allows.
	attackers, slowConnections = 400, 1000
	// slowerAtMost is how much an attack may raise the others' p99.
	slowerAtMost = 1.5
	// morePairs bounds how often a verdict that fails is put off for more measurements: on a busy
	// machine a few disturbed ones outweigh the rest.
	morePairs = 8
)

// attack is one mode of slowhttptest.
type attack struct {
	name string
	args []string
	// holds says that the mode keeps its connections; else each is answered and closed, and the
	// tool opens new ones all the time.
	holds bool
}

func attacks(edge, queue string) []attack {
	return []attack{
		{"slow headers", []string{"-H", "-x", "16", "-u", edge + "/queues/" + queue}, true},
		{"slow body", []string{"-B", "-s", "8192", "-x", "16", "-f", "application/json", "-u", edge + "/queues/" + queue + "/tickets"}, true},
		{"slow read", []string{"-X", "-w", "8", "-y", "16", "-n", "1", "-z", "4", "-k", "3", "-u", edge + "/wait/" + queue}, true},
		{"range", []string{"-R", "-a", "5", "-b", "1500", "-u", edge + "/wait/" + queue}, false},
	}
}

// TestSlowClientsHurtNobody attacks an edge with slowhttptest in all its modes, and compares how
// long the polls of fans take with and without it, in turns: on a shared machine nothing else can
// be told apart from the weather.
func TestSlowClientsHurtNobody(t *testing.T) {
	in := setup{kind: shipped, edgeConfig: fmt.Sprintf("limits: {connections: %d}\n", slowConnections)}.install(t)
	queue := in.createQueue("match", `"capacity":1`)
	edge := in.watchedEdge(0)
	fans := in.pollers(queue, 4)
	fans.measure(*siegeWindow) // the first polls pay for what the later ones find done

	var calm, peak float64
	all := attacks(in.url.edges[0], queue)
	for _, a := range all {
		calm = max(calm, edge.resident())
		stop := in.attack(edge, a)
		fans.measure(*siegeWindow)
		peak = max(peak, edge.resident())
		stop()
	}
	t.Logf("resident memory: %.0f MiB before, %.0f MiB under attack", calm, peak)
	for _, a := range all {
		var quiet, attacked []float64
		for pair := 1; ; pair++ {
			without := fans.measure(*siegeWindow)
			stop := in.attack(edge, a)
			with := fans.measure(*siegeWindow)
			held, resident := edge.connections(), edge.resident()
			stop()
			if held > slowConnections {
				t.Errorf("%s: %d connections, want at most %d", a.name, held, slowConnections)
			}
			// Flat: every further attack fits into what the first ones took.
			if most := 1.15*peak + 8; resident > most {
				t.Errorf("%s: resident memory %.0f MiB, want at most %.0f", a.name, resident, most)
			}
			quiet, attacked = append(quiet, without.Seconds()*1e3), append(attacked, with.Seconds()*1e3)
			if pair < *siegePairs {
				continue
			}
			ratio := quantile(attacked, 0.5) / quantile(quiet, 0.5)
			if ratio > slowerAtMost && pair < morePairs**siegePairs {
				continue
			}
			t.Logf("%s: p99 %.2f ms, under attack %.2f ms, ratio %.2f (medians of %d)",
				a.name, quantile(quiet, 0.5), quantile(attacked, 0.5), ratio, pair)
			if ratio > slowerAtMost {
				t.Errorf("%s: p99 of the others is %.2f times that without the attack, want at most %.1f", a.name, ratio, slowerAtMost)
			}
			break
		}
	}
	if in.request("POST", in.url.edges[0]+"/queues/"+queue+"/tickets", `{}`, []string{"X-API-Key: " + in.publishableKey}).status != http.StatusCreated {
		t.Error("a new fan cannot join after the attacks")
	}
}

// attack starts slowhttptest and waits until it holds its connections. Stop ends it and waits
// until the edge has let them go.
func (in *installation) attack(edge watched, a attack) (stop func()) {
	in.t.Helper()
	before := edge.connections()
	const answers = `waitingroom_edge_requests_total{route="page",status="2xx"}`
	answered := edge.metric(answers)
	connections, rate := attackers, 2*attackers
	if !a.holds {
		connections, rate = 60_000, 50
	}
	args := append([]string{"-c", fmt.Sprint(connections), "-r", fmt.Sprint(rate), "-i", "1", "-l", "60", "-p", "20", "-v", "1"}, a.args...)
	// The attackers have computers of their own: theirs must not take time from the edge.
	cmd := exec.Command("nice", append([]string{"-n", "19", "slowhttptest"}, args...)...)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		in.t.Fatalf("start slowhttptest: %v", err)
	}
	end := sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	in.t.Cleanup(end)
	in.eventually(20*time.Second, a.name+": the attack is under way", func() bool {
		if a.holds {
			return edge.connections()-before >= attackers*9/10
		}
		return edge.metric(answers)-answered >= 20
	})
	return func() {
		in.t.Helper()
		end()
		in.eventually(30*time.Second, a.name+": the edge lets the attack's connections go", func() bool {
			return edge.connections() <= before
		})
		if strings.Contains(output.String(), "Error") {
			in.t.Logf("%s: slowhttptest says %s", a.name, output.String())
		}
	}
}

// pollers are fans in line who poll on connections of their own.
type pollers struct {
	t        *testing.T
	clients  []*rawClient
	requests [][]byte
}

func (in *installation) pollers(queue string, n int) *pollers {
	in.t.Helper()
	in.join(0, queue) // takes the one slot
	p := &pollers{t: in.t}
	for range n {
		f := in.join(0, queue)
		p.requests = append(p.requests, rawRequest("GET", "/tickets/"+f.id, "", "Authorization: Bearer "+f.ticket))
		client, err := dialRaw(in.url.edges[0])
		if err != nil {
			in.t.Fatal(err)
		}
		in.t.Cleanup(client.close)
		p.clients = append(p.clients, client)
	}
	return p
}

// measure polls for a while, each fan at a steady pace, and returns the p99 of the answers' times.
func (p *pollers) measure(window time.Duration) time.Duration {
	p.t.Helper()
	took := make([][]time.Duration, len(p.clients))
	var failed atomic.Int64
	var all sync.WaitGroup
	for i, client := range p.clients {
		all.Go(func() {
			pace := time.NewTicker(2 * time.Millisecond)
			defer pace.Stop()
			for end := time.Now().Add(window); time.Now().Before(end); <-pace.C {
				since := time.Now()
				status, _, err := client.ask(p.requests[i])
				if err != nil || status != http.StatusOK {
					failed.Add(1)
					return
				}
				took[i] = append(took[i], time.Since(since))
			}
		})
	}
	all.Wait()
	if n := failed.Load(); n > 0 {
		p.t.Fatalf("%d of %d fans could not poll", n, len(p.clients))
	}
	var list []time.Duration
	for _, times := range took {
		list = append(list, times...)
	}
	return quantile(list, 0.99)
}
