package deploy_test

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

var (
	cachedFans    = flag.Int("cached.fans", 1000, "fans who poll through a cache")
	cachedSeconds = flag.Int("cached.seconds", 10, "for how long they do, in seconds")
	cachedHold    = flag.Int("cached.hold", 120, "the hold of their queue, in seconds; a turn is a thirtieth")
	cachedResults = flag.String("cached.results", "", "directory to keep the figures in")
)

// cachedFigures are what testdata/fans.mjs tells of a crowd.
type cachedFigures struct {
	Fans           int            `json:"fans"`
	Sent           map[string]int `json:"sent"`
	Why            map[string]int `json:"why"`
	Cache          map[string]int `json:"cache"`
	Refused        map[string]int `json:"refused"`
	Wrong          []string       `json:"wrong"`
	Compared       int            `json:"compared"`
	StateBytes     int            `json:"stateBytes"`
	JoiningSeconds float64        `json:"joiningSeconds"`
	Seconds        float64        `json:"seconds"`
	Claimed        int            `json:"claimed"`
	Delay          struct {
		P50, P99, Max float64
	} `json:"delayMillis"`
	LongestGapMillis float64 `json:"longestGapMillis"`
}

// TestPollingThroughACache: a crowd polls by the waiting page's own rules through a real nginx. The
// public state costs the edges about one request a second, however many read it; a fan costs them one a
// turn; and what fans are told is what the edges would tell them.
func TestPollingThroughACache(t *testing.T) {
	t.Parallel()
	as := setup{edgeConfig: "polling: cached\n"}
	if *cachedFans > 1000 {
		as.kind = shipped
	}
	in, front, _ := behindNginx(t, as)
	const claimSeconds = 30
	queue := in.createQueue("match", fmt.Sprintf(`"capacity":40,"purchaseWindowSeconds":4,"claimSeconds":%d,"holdSeconds":%d`, claimSeconds, *cachedHold))
	if got := in.request("GET", front+"/queues/"+queue, "", nil).text("polling"); got != "cached" {
		t.Fatalf("the description says polling %q, want cached", got)
	}

	input, err := json.Marshal(map[string]any{
		"base": front, "queue": queue, "key": in.secretKey, "fans": *cachedFans, "seconds": *cachedSeconds, "claimSeconds": claimSeconds,
	})
	if err != nil {
		t.Fatal(err)
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatal("node is missing: install the Debian package `nodejs`, or run `make test`, which does")
	}
	crowd := exec.CommandContext(t.Context(), node, "testdata/fans.mjs", string(input))
	crowd.Stderr = os.Stderr
	out, err := crowd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	before := map[string]int{"state": in.requests("state"), "status": in.requests("status")}
	began := time.Now()
	if err := crowd.Start(); err != nil {
		t.Fatal(err)
	}
	var last string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		last = lines.Text()
	}
	if err := crowd.Wait(); err != nil {
		t.Fatalf("the crowd: %v", err)
	}
	elapsed := time.Since(began).Seconds()
	var got cachedFigures
	if err := json.Unmarshal([]byte(last), &got); err != nil {
		t.Fatalf("the crowd said %q: %v", last, err)
	}
	stateRequests, statusRequests := in.requests("state")-before["state"], in.requests("status")-before["status"]
	stats := in.request("GET", in.url.origins[0]+"/queues/"+queue+"/stats", "", bearer(in.operatorToken))

	for _, fault := range got.Wrong {
		t.Errorf("a fan: %s", fault)
	}
	if len(got.Refused) > 0 {
		t.Errorf("answers other than 200: got %v by status, want none", got.Refused)
	}
	// nginx counts in whole seconds, and so asks at most once in each, while somebody reads.
	if most := int(elapsed) + 2; stateRequests > most {
		t.Errorf("the edges were asked for the public state %d times in %.1f s, want at most %d", stateRequests, elapsed, most)
	}
	if got.Sent["state"] < 10*stateRequests || stateRequests == 0 {
		t.Errorf("the public state was read %d times and asked of the edges %d times, want the cache to answer", got.Sent["state"], stateRequests)
	}
	if statusRequests != got.Sent["ticket"] {
		t.Errorf("fans asked for their own status %d times and the edges were asked %d times; no cache may come between", got.Sent["ticket"], statusRequests)
	}
	// A sighting is due 0.8 of a turn after the last one, and jitter takes away a fifth of that at most.
	turn := float64(*cachedHold) / 30
	shortest := 0.64 * turn
	if after := float64(int(0.8 * turn)); after*0.8 < shortest {
		shortest = after * 0.8 // in whole seconds
	}
	if most := int(float64(got.Fans) * (elapsed/shortest + 1)); got.Why["sighting"] > most {
		t.Errorf("sightings: got %d of %d fans in %.1f s, want at most %d", got.Why["sighting"], got.Fans, elapsed, most)
	}
	if got.Seconds > 2*turn && got.LongestGapMillis == 0 {
		t.Error("no fan was seen twice, want everybody in each turn")
	}
	if longest := 1000 * (turn + 5); got.LongestGapMillis > longest {
		t.Errorf("the longest between two sightings of a fan: got %.0f ms, want less than a turn and what a busy machine takes, %.0f", got.LongestGapMillis, longest)
	}
	if got.Compared == 0 || got.Claimed == 0 {
		t.Errorf("%d statuses compared with the edge's own, %d fans let in; want some of both", got.Compared, got.Claimed)
	}
	if stats.number("expired") != 0 || stats.number("missedOffers") != 0 || stats.number("claimed") != got.Claimed {
		t.Errorf("stats: got %s, want nobody expired, no offer missed and %d sessions", stats.raw, got.Claimed)
	}
	report := fmt.Sprintf(`%d fans poll through one nginx for %.0f s, after joining in %.1f s; a turn is %.1f s
(they, nginx, two edges, an origin and Redis on the same %d processors)
                        fans sent   a second   reached the edges   a second
public state            %9d   %8.1f   %17d   %8.2f
own status              %9d   %8.1f   %17d   %8.1f
  of them sightings     %9d             (%.2f for each fan and turn)
  the turn may have come%9d
public state, bytes     %9d   (%.0f each, compressed)
let in                  %9d
from offer to knowing   p50 %.0f ms, p99 %.0f ms, longest %.0f ms
longest between two sightings of a fan: %.1f s
`, got.Fans, got.Seconds, got.JoiningSeconds, turn, runtime.NumCPU(),
		got.Sent["state"], float64(got.Sent["state"])/got.Seconds, stateRequests, float64(stateRequests)/elapsed,
		got.Sent["ticket"], float64(got.Sent["ticket"])/got.Seconds, statusRequests, float64(statusRequests)/elapsed,
		got.Why["sighting"], float64(got.Why["sighting"])/float64(got.Fans)/(got.Seconds/turn), got.Why["turn"],
		got.StateBytes, float64(got.StateBytes)/float64(max(got.Sent["state"], 1)),
		got.Claimed, got.Delay.P50, got.Delay.P99, got.Delay.Max, got.LongestGapMillis/1000)
	t.Log("\n" + report)
	if *cachedResults != "" {
		if err := os.WriteFile(filepath.Join(*cachedResults, "cached.txt"), []byte(strings.TrimSuffix(report, "\n")+"\n"), 0o644); err != nil {
			t.Errorf("keep the figures: %v", err)
		}
	}
}
