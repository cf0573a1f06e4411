package deploy_test

import (
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestStatsTellTheTruth plays a short sale on two origins, one of which is killed in the midst of it,
// and keeps a log of its own. What either origin then tells the operator is what was done.
func TestStatsTellTheTruth(t *testing.T) {
	t.Parallel()
	in := setup{origins: 2}.install(t)
	operator := bearer(in.operatorToken)
	queue := in.createQueue("match", `"capacity":3,"purchaseWindowSeconds":3600,"claimSeconds":3600,"holdSeconds":7200`)
	path := "/queues/" + queue

	type move struct{ from, to, offered int }
	var moves []move
	var why []map[string]int
	done := map[string]int{"ended": 0, "left": 0, "claimed": 0}
	sessions := map[int]string{}
	enter := func(f *fan) {
		t.Helper()
		sessions[f.position] = jti(t, f.enter(f.position%2))
		done["claimed"]++
	}
	admitted := func(f *fan, reason string) {
		t.Helper()
		f.awaitState(f.position%2, 20*time.Second, "admitted")
		moves = append(moves, move{f.position - 1, f.position, 1})
		why = append(why, map[string]int{reason: 1})
	}
	end := func(origin, position int, credential string) {
		t.Helper()
		got := in.request("DELETE", in.url.origins[origin]+"/sessions/"+sessions[position], "", []string{credential})
		if got.status != http.StatusNoContent {
			t.Fatalf("end the session of position %d: got %d %s, want 204", position, got.status, got.raw)
		}
		done["ended"]++
	}
	leave := func(f *fan) {
		t.Helper()
		if got := in.request("DELETE", in.url.edges[0]+"/tickets/"+f.id, "", bearer(f.ticket)); got.status != http.StatusNoContent {
			t.Fatalf("leave: got %d %s, want 204", got.status, got.raw)
		}
		done["left"]++
	}
	patch := func(origin int, settings string) {
		t.Helper()
		if got := in.request("PATCH", in.url.origins[origin]+path, settings, operator); got.status != http.StatusOK {
			t.Fatalf("patch %s: got %d %s, want 200", settings, got.status, got.raw)
		}
	}
	shop := "X-API-Key: " + in.secretKey

	line := []*fan{nil}
	for i := range 10 {
		line = append(line, in.join(i%2, queue))
		if i < 3 { // one at a time into the empty shop
			admitted(line[i+1], "opening")
			enter(line[i+1])
		}
	}
	end(0, 1, shop)
	admitted(line[4], "purchase")
	enter(line[4])
	end(1, 2, operator[0])
	admitted(line[5], "revoked")
	enter(line[5])
	patch(0, `{"capacity":4}`)
	admitted(line[6], "retune")
	leave(line[6])
	admitted(line[7], "left")
	enter(line[7])

	in.origins[0].kill()
	end(1, 7, shop)
	admitted(line[8], "purchase")
	enter(line[8])
	in.origins[0].start()
	in.awaitReady(in.url.origins[0])

	leave(line[10])
	patch(1, `{"state":"paused"}`)
	end(0, 3, shop)
	patch(0, `{"state":"open"}`)
	admitted(line[9], "reopening")
	enter(line[9])

	var told [2]struct {
		Admitted, Claimed, Ended, Left, Issued, Watermark, JournalLost int
		Series                                                         []struct {
			Joined, Admitted, Absent, Claimed, Ended, Left, Expired, Missed, MissedOffers, Watermark, Sessions int
			Wait                                                                                               *struct{ P50, P90, Max int }
		}
		Journal []struct {
			Number, From, To, Offered, OfOwed int
			Reasons                           map[string]int
		}
	}
	for i, url := range in.url.origins {
		stats := in.request("GET", url+path+"/stats", "", operator)
		if err := json.Unmarshal([]byte(stats.raw), &told[i]); err != nil || stats.status != http.StatusOK {
			t.Fatalf("stats of origin %d: got %d %s", i+1, stats.status, stats.raw)
		}
	}
	got := told[0]
	if !reflect.DeepEqual(got, told[1]) {
		t.Errorf("the origins tell %+v and %+v, want the same", got, told[1])
	}
	sums := map[string]int{}
	for _, m := range got.Series {
		for name, n := range map[string]int{
			"joined": m.Joined, "admitted": m.Admitted, "absent": m.Absent, "claimed": m.Claimed, "ended": m.Ended,
			"left": m.Left, "expired": m.Expired, "missed": m.Missed, "missedOffers": m.MissedOffers,
		} {
			sums[name] += n
		}
	}
	want := map[string]int{
		"joined": 10, "admitted": len(moves), "absent": 0, "claimed": done["claimed"], "ended": done["ended"],
		"left": done["left"], "expired": 0, "missed": 0, "missedOffers": 0,
	}
	if !reflect.DeepEqual(sums, want) || got.JournalLost != 0 {
		t.Errorf("the series sums to %v with %d lost, want what was done: %v", sums, got.JournalLost, want)
	}
	if last := got.Series[len(got.Series)-1]; last.Watermark != 9 || last.Sessions != done["claimed"]-done["ended"] {
		t.Errorf("the last minute ends with %+v, want watermark 9 and %d sessions", last, done["claimed"]-done["ended"])
	}
	if len(got.Journal) != len(moves) {
		t.Fatalf("the journal has %d moves: %+v, want %v", len(got.Journal), got.Journal, moves)
	}
	for i, m := range got.Journal {
		if m.Number != i+1 || (move{m.From, m.To, m.Offered}) != moves[i] || m.OfOwed != 0 || !reflect.DeepEqual(m.Reasons, why[i]) {
			t.Errorf("move %d: got %+v, want %v for %v", i+1, m, moves[i], why[i])
		}
	}
	stats := in.request("GET", in.url.origins[0]+path+"/stats", "", operator).raw
	for _, f := range line[1:] { // nobody is recognized by what is told
		for _, secret := range []string{f.id, f.ticket, sessions[f.position]} {
			if secret != "" && strings.Contains(stats, secret) {
				t.Errorf("stats name the ticket or the session of position %d", f.position)
			}
		}
	}
}
