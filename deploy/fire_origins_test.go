package deploy_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

// TestOriginsAreEqual has two origins serve the same queue: what is provisioned on one is seen on
// the other at once, fans of both edges, each of which follows another origin, are told the same,
// and whichever origin goes, the other one carries on.
func TestOriginsAreEqual(t *testing.T) {
	t.Parallel()
	in := setup{origins: 2}.install(t)
	operator := bearer(in.operatorToken)
	queue := in.createQueue("match", `"capacity":1,"purchaseWindowSeconds":3600`)
	for i := range 10 {
		one, other := in.url.origins[i%2], in.url.origins[1-i%2]
		slug := fmt.Sprintf("other-%d", i)
		if got := in.request("POST", one+"/queues", `{"slug":"`+slug+`","capacity":1}`, operator); got.status != http.StatusCreated {
			t.Fatalf("create a queue: got %d %s, want 201", got.status, got.raw)
		}
		path := "/queues/" + tenant + "." + slug
		if got := in.request("PATCH", other+path, `{"capacity":7,"state":"closed"}`, operator); got.status != http.StatusOK {
			t.Errorf("change a queue that the other origin made: got %d %s, want 200", got.status, got.raw)
		}
		if got := in.request("GET", one+path, "", operator); got.status != http.StatusOK || got.number("capacity") != 7 {
			t.Errorf("read a queue that the other origin changed: got %d %s, want capacity 7", got.status, got.raw)
		}
		if got := in.request("DELETE", one+path, "", operator); got.status != http.StatusNoContent {
			t.Errorf("delete a queue: got %d %s, want 204", got.status, got.raw)
		}
		if got := in.request("GET", other+path, "", operator); got.status != http.StatusNotFound {
			t.Errorf("read a queue that the other origin deleted: got %d %s, want 404", got.status, got.raw)
		}
	}

	active := in.join(0, queue)
	active.awaitState(1, 5*time.Second, "admitted")
	session := jti(t, active.enter(1))
	var line []*fan
	for i := range 10 {
		line = append(line, in.join(i%2, queue))
		if i > 0 && line[i].position <= line[i-1].position {
			t.Errorf("position on edge %d: got %d after %d on the other", i%2+1, line[i].position, line[i-1].position)
		}
	}
	// Each origin in turn is killed, then suspended; who is left takes the lease, and offers the slot
	// that is freed through it.
	for turn, next := range line[:4] {
		gone, left, killed := turn%2, 1-turn%2, turn < 2
		next.awaitState(left, 5*time.Second, "waiting")
		if killed {
			in.origins[gone].kill()
		} else {
			in.origins[gone].suspend()
		}
		if got := in.request("DELETE", in.url.origins[left]+"/sessions/"+session, "", []string{"X-API-Key: " + in.secretKey}); got.status != http.StatusNoContent {
			t.Fatalf("end a session while origin %d is gone: got %d %s, want 204", gone+1, got.status, got.raw)
		}
		for edge := range in.edges {
			next.awaitState(edge, 20*time.Second, "admitted")
		}
		if killed {
			in.origins[gone].start()
		} else {
			in.origins[gone].resume()
		}
		in.awaitReady(in.url.origins[gone])
		session = jti(t, next.enter(gone))
		for _, f := range line[turn+1:] {
			in.eventually(10*time.Second, "both edges tell a fan the same", func() bool {
				one, other := f.poll(0), f.poll(1)
				return one.text("state") == "waiting" && one.text("seq") == other.text("seq") &&
					one.number("ahead") == f.position-next.position-1 && other.number("ahead") == one.number("ahead")
			})
		}
	}
}
