package deploy_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestSaleOverHTTP plays a sale as an app does it: against an origin, two edges and a Redis, each
// a process of its own. Purchase window, claim time and hold are short and each is seen to end.
func TestSaleOverHTTP(t *testing.T) {
	t.Parallel()
	in := install(t)
	const window, hold, claimTime = 4 * time.Second, 6 * time.Second, time.Second
	queue := in.createQueue("match", `"capacity":1,"purchaseWindowSeconds":4,"holdSeconds":6,"claimSeconds":1`)

	first := in.join(0, queue)
	if got := first.poll(0); got.text("state") != "admitted" {
		first.awaitState(0, 2*time.Second, "admitted")
	}
	first.awaitState(1, 2*time.Second, "admitted") // joined on one edge, told so by the other
	session := first.enter(1)
	started := time.Now()
	for edge := range in.edges {
		if got := in.access(edge, session); got != http.StatusOK {
			t.Errorf("access on edge %d while the session runs: got %d, want 200", edge, got)
		}
	}
	if again := first.enter(0); jti(t, again) != jti(t, session) {
		t.Errorf("a second claim got session %s, want the same again, %s", jti(t, again), jti(t, session))
	}

	second, silent, third := in.join(0, queue), in.join(1, queue), in.join(0, queue)
	if got := second.awaitState(1, 2*time.Second, "waiting"); got.number("ahead") != 0 || got.text("heldUntil") == "" {
		t.Errorf("status of the next in line: got %s, want ahead 0 and heldUntil", got.raw)
	}
	if got := third.poll(1); got.number("ahead") != 2 {
		t.Errorf("ahead of the third in line: got %s, want 2", got.raw)
	}
	if got := second.claim(0); got.status != http.StatusConflict || got.text("code") != "not_your_turn" || got.text("state") != "waiting" {
		t.Errorf("claim before the turn: got %d %s, want 409 not_your_turn with the state", got.status, got.raw)
	}

	// The purchase window ends by itself, and the slot goes to the next in line.
	in.eventually(window+5*time.Second, "the purchase window ends for /access", func() bool {
		second.poll(0)
		third.poll(1)
		return in.access(0, session) == http.StatusGone && in.access(1, session) == http.StatusGone
	})
	if ran := time.Since(started); ran < window-time.Second {
		t.Errorf("the session ran for %v, want %v", ran, window)
	}
	if got := first.claim(0); got.status != http.StatusGone {
		t.Errorf("claim after the session ended: got %d %s, want 410", got.status, got.raw)
	}
	if got := second.awaitState(0, 3*time.Second, "admitted"); got.text("claimBy") == "" {
		t.Errorf("status of the admitted: got %s, want claimBy", got.raw)
	}

	// The claim time ends without a claim: the slot goes on, to the one who is present.
	third.awaitState(1, claimTime+10*time.Second, "admitted")
	if got := second.poll(0); got.text("state") != "waiting" {
		t.Errorf("state after a missed offer: got %s, want waiting", got.raw)
	}
	// The hold of the one who was silent ends.
	third.enter(0)
	var expired answer
	in.eventually(hold+30*time.Second, "the silent fan expires", func() bool {
		// Only a poll tells, and a poll is a sighting: so look at the public count first.
		second.poll(0)
		if in.request("GET", in.url.edges[0]+"/queues/"+queue+"/state", "", nil).number("waiting") > 1 {
			return false
		}
		expired = silent.poll(1)
		return expired.text("state") == "expired"
	})
	if expired.text("reason") != "absent" {
		t.Errorf("reason of the expired ticket: got %s, want absent", expired.raw)
	}
	if got := silent.claim(1); got.status != http.StatusGone {
		t.Errorf("claim with an expired ticket: got %d %s, want 410", got.status, got.raw)
	}
}

// TestOutageLosesNobody stops everything for longer than the hold, and starts it again.
func TestOutageLosesNobody(t *testing.T) {
	t.Parallel()
	in := install(t)
	const hold = 4 * time.Second
	queue := in.createQueue("match", `"capacity":2,"purchaseWindowSeconds":3600,"holdSeconds":4,"claimSeconds":3600`)

	active, offered := in.join(0, queue), in.join(1, queue)
	active.awaitState(0, 3*time.Second, "admitted")
	session := active.enter(0)
	offered.awaitState(1, 3*time.Second, "admitted")
	var waiting []*fan
	for i := range 20 {
		waiting = append(waiting, in.join(i%2, queue))
	}

	for _, outage := range []struct {
		name string
		end  func(*program)
	}{{"stopped", (*program).stop}, {"killed", (*program).kill}} {
		for _, p := range in.programs() {
			outage.end(p)
		}
		in.redis.Stop()
		down := time.Now()
		in.eventually(time.Minute, "the outage has lasted longer than the hold and all its turns", func() bool {
			return time.Since(down) > 2*hold+2*time.Second
		})
		in.redis.Restart()
		in.start()

		for i, f := range waiting {
			got := f.poll(i % 2)
			if got.status != http.StatusOK || got.text("state") != "waiting" || got.number("position") != f.position {
				t.Fatalf("%s: a fan at position %d: got %d %s, want to wait there", outage.name, f.position, got.status, got.raw)
			}
		}
		if got := offered.poll(0); got.text("state") != "admitted" {
			t.Errorf("%s: a running offer after the outage: got %s, want admitted", outage.name, got.raw)
		}
		in.eventually(5*time.Second, outage.name+": the session is valid again", func() bool {
			return in.access(1, session) == http.StatusOK
		})
		if late := in.join(0, queue); late.position <= waiting[len(waiting)-1].position {
			t.Errorf("%s: the first join after the outage got position %d, want one above %d", outage.name, late.position, waiting[len(waiting)-1].position)
		}
	}
	// The line goes on where it stood.
	if got := in.endSession(jti(t, session)); got.status != http.StatusNoContent {
		t.Fatalf("end the session: got %d %s, want 204", got.status, got.raw)
	}
	waiting[0].awaitState(0, 5*time.Second, "admitted")
}

func (in *installation) endSession(id string) answer {
	in.t.Helper()
	return in.request("DELETE", in.url.origins[0]+"/sessions/"+id, "", []string{"X-API-Key: " + in.secretKey})
}

// jti reads the id of a token without checking it.
func jti(t *testing.T, token string) string {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("a token has %d parts, want 3", len(parts))
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatalf("decode a token's payload: %v", err)
	}
	var claims struct {
		ID string `json:"jti"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil || claims.ID == "" {
		t.Fatalf("read jti of %s: %v", payload, err)
	}
	return claims.ID
}
