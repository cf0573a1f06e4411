package deploy_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fasthttp/websocket"
)

// liveEvent is a live event with the members of its status that matter here.
type liveEvent struct {
	Type  string `json:"type"`
	State string `json:"state"`
	Ahead int    `json:"ahead"`
}

// live is a WebSocket of a fan to one edge. What it hears stands in events, which is closed at its end.
type live struct {
	in     *installation
	events chan liveEvent
	ended  error // why; once events is closed
}

func (f *fan) connect(edge int) *live {
	f.in.t.Helper()
	url := strings.Replace(f.in.url.edges[edge], "http:", "ws:", 1) + "/tickets/" + f.id + "/ws"
	conn, _, err := websocket.DefaultDialer.Dial(url, http.Header{"Sec-WebSocket-Protocol": {"waitingroom.v1, ticket." + f.ticket}})
	if err != nil {
		f.in.t.Fatalf("connect position %d: %v", f.position, err)
	}
	f.in.t.Cleanup(func() { _ = conn.Close() })
	l := &live{in: f.in, events: make(chan liveEvent, 1000)}
	go func() {
		defer close(l.events)
		for {
			_, data, err := conn.ReadMessage()
			if err != nil {
				l.ended = err
				return
			}
			var e liveEvent
			if json.Unmarshal(data, &e) != nil {
				return
			}
			l.events <- e
		}
	}()
	return l
}

// await waits for an event that tells a state.
func (l *live) await(timeout time.Duration, name, state string) {
	l.in.t.Helper()
	deadline := time.After(timeout)
	var heard []liveEvent
	for {
		select {
		case e, open := <-l.events:
			heard = append(heard, e)
			if e.Type == name && e.State == state {
				return
			}
			if !open {
				l.in.t.Fatalf("the connection ended before %s with %s; heard %+v", name, state, heard)
			}
		case <-deadline:
			l.in.t.Fatalf("not within %v: %s with %s; heard %+v", timeout, name, state, heard)
		}
	}
}

// TestTwoDevicesOnTwoEdges: what a fan does on one device is seen on the other one within two seconds,
// also where they hang on different edges.
func TestTwoDevicesOnTwoEdges(t *testing.T) {
	t.Parallel()
	in := install(t)
	queue := in.createQueue("devices", `"capacity":1`)
	first, second, third := in.join(0, queue), in.join(0, queue), in.join(1, queue)
	first.awaitState(0, 10*time.Second, "admitted")

	claiming, leaving, behind := first.connect(1), second.connect(1), third.connect(0)
	claiming.await(5*time.Second, "status", "admitted")
	leaving.await(5*time.Second, "status", "waiting")
	behind.await(5*time.Second, "status", "waiting")
	if got := first.claim(0); got.status != http.StatusOK {
		t.Fatalf("claim: got %d %s, want 200", got.status, got.raw)
	}
	claiming.await(2*time.Second, "position_changed", "active")
	if got := in.request("DELETE", in.url.edges[0]+"/tickets/"+second.id, "", bearer(second.ticket)); got.status != http.StatusNoContent {
		t.Fatalf("leave: got %d %s, want 204", got.status, got.raw)
	}
	leaving.await(2*time.Second, "position_changed", "left")
	behind.await(2*time.Second, "position_changed", "waiting") // one less is before the third
	if got := in.request("DELETE", in.url.edges[0]+"/tickets/"+first.id, "", bearer(first.ticket)); got.status != http.StatusNoContent {
		t.Fatalf("leave the shop: got %d %s, want 204", got.status, got.raw)
	}
	claiming.await(2*time.Second, "position_changed", "left")
	behind.await(2*time.Second, "admitted", "admitted")
}

// TestAConnectionKeepsThePlace: a fan who only holds a connection stays in line for many holds, and is
// offered a slot again after missing an offer, while one who does nothing loses the place.
func TestAConnectionKeepsThePlace(t *testing.T) {
	t.Parallel()
	in := install(t)
	queue := in.createQueue("places", `"capacity":1,"holdSeconds":2,"claimSeconds":1,"maxMissedOffers":3`)
	inside := in.join(0, queue)
	inside.enter(0)
	connected, absent := in.join(0, queue), in.join(0, queue)
	c := connected.connect(1)
	c.await(5*time.Second, "status", "waiting")
	in.eventually(30*time.Second, "the absent fan has expired", func() bool {
		// By the public state, for a poll would be a sighting.
		got := in.request("GET", fmt.Sprintf("%s/queues/%s/state", in.url.edges[0], queue), "", nil)
		return got.number("waiting") == 1
	})
	if got := absent.poll(0).text("state"); got != "expired" {
		t.Errorf("the absent fan: got %s, want expired", got)
	}
	if got := in.request("DELETE", in.url.edges[0]+"/tickets/"+inside.id, "", bearer(inside.ticket)); got.status != http.StatusNoContent {
		t.Fatalf("leave the shop: got %d %s, want 204", got.status, got.raw)
	}
	c.await(5*time.Second, "admitted", "admitted")
	c.await(20*time.Second, "position_changed", "waiting") // missed
	c.await(5*time.Second, "admitted", "admitted")
}

// TestAStoppedEdgeSendsItsFansElsewhere: they are told to come back, and do, with their places.
func TestAStoppedEdgeSendsItsFansElsewhere(t *testing.T) {
	t.Parallel()
	in := setup{edgeConfig: "moveSeconds: 1\n"}.install(t)
	queue := in.createQueue("moves", `"capacity":1`)
	in.join(0, queue).enter(0)
	var fans []*fan
	var lines []*live
	for range 10 {
		f := in.join(0, queue)
		c := f.connect(0)
		c.await(5*time.Second, "status", "waiting")
		fans, lines = append(fans, f), append(lines, c)
	}
	in.edges[0].stop()
	for i, c := range lines {
		for range c.events {
		}
		if !websocket.IsCloseError(c.ended, websocket.CloseServiceRestart) {
			t.Errorf("connection %d: got %v, want close code 1012", i, c.ended)
		}
	}
	for _, f := range fans {
		f.connect(1).await(5*time.Second, "status", "waiting")
	}
}
