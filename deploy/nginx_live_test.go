package deploy_test

import (
	"bufio"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fasthttp/websocket"
)

// TestLiveConnectionsThroughNginx: both kinds come through the nginx that we configure, and what
// they tell is not held back.
func TestLiveConnectionsThroughNginx(t *testing.T) {
	t.Parallel()
	in, front, _ := behindNginx(t, setup{})
	queue := in.createQueue("match", `"capacity":1,"purchaseWindowSeconds":3600,"claimSeconds":3600`)
	in.join(0, queue).enter(0)
	before, watcher := in.join(0, queue), in.join(1, queue)

	request, err := http.NewRequestWithContext(t.Context(), "GET", front+"/tickets/"+watcher.id+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+watcher.ticket)
	stream, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatalf("events: %v", err)
	}
	defer stream.Body.Close()
	if h := stream.Header; stream.StatusCode != 200 || h.Get("Content-Type") != "text/event-stream" || h.Get("Cache-Control") != "no-store" {
		t.Fatalf("events: got %d %v, want a stream that nobody keeps", stream.StatusCode, h)
	}
	events := bufio.NewScanner(stream.Body)
	nextEvent := func() (event string, status map[string]any) {
		for events.Scan() {
			name, value, _ := strings.Cut(events.Text(), ":")
			switch name {
			case "event":
				event = strings.TrimSpace(value)
			case "data":
				if err := json.Unmarshal([]byte(value), &status); err != nil {
					t.Fatalf("event %s: got %q, error %v", event, value, err)
				}
				return event, status
			}
		}
		t.Fatalf("the stream ended: %v", events.Err())
		return "", nil
	}

	dialer := websocket.Dialer{Subprotocols: []string{"waitingroom.v1", "ticket." + watcher.ticket}, HandshakeTimeout: 20 * time.Second}
	socket, handshake, err := dialer.Dial("ws"+strings.TrimPrefix(front, "http")+"/tickets/"+watcher.id+"/ws", nil)
	if err != nil {
		t.Fatalf("handshake: %v (%v)", err, handshake)
	}
	defer socket.Close()
	if got := handshake.Header.Get("Sec-WebSocket-Protocol"); got != "waitingroom.v1" {
		t.Errorf("subprotocol: got %q, want waitingroom.v1", got)
	}
	nextFrame := func() (kind string, status map[string]any) {
		if err := socket.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if err := socket.ReadJSON(&status); err != nil {
			t.Fatalf("read a frame: %v", err)
		}
		kind, _ = status["type"].(string)
		return kind, status
	}

	// What is told first, and what changes, comes at once, although nothing follows it.
	for what, next := range map[string]func() (string, map[string]any){"events": nextEvent, "socket": nextFrame} {
		if kind, status := next(); kind != "status" || status["ahead"] != 1.0 {
			t.Errorf("%s: got first %s %v, want the status with one ahead", what, kind, status)
		}
	}
	if got := in.request("DELETE", front+"/tickets/"+before.id, "", bearer(before.ticket)); got.status != http.StatusNoContent {
		t.Fatalf("leave: got %d %s, want 204", got.status, got.raw)
	}
	for what, next := range map[string]func() (string, map[string]any){"events": nextEvent, "socket": nextFrame} {
		kind, status := next()
		for kind == "position_changed" && status["ahead"] != 0.0 { // told for the sake of telling
			kind, status = next()
		}
		if kind != "position_changed" {
			t.Errorf("%s: got %s %v, want position_changed with nobody ahead", what, kind, status)
		}
	}

	// A ping goes through in both directions.
	pong := make(chan string, 1)
	socket.SetPongHandler(func(payload string) error { pong <- payload; return nil })
	if err := socket.WriteControl(websocket.PingMessage, []byte("there?"), time.Now().Add(10*time.Second)); err != nil {
		t.Fatal(err)
	}
	go func() { _, _, _ = socket.ReadMessage() }() // handles the pong, and ends with the socket
	select {
	case got := <-pong:
		if got != "there?" {
			t.Errorf("pong: got %q, want what was sent", got)
		}
	case <-time.After(30 * time.Second):
		t.Error("no pong")
	}

	if _, refused, err := dialer.Dial("ws"+strings.TrimPrefix(front, "http")+"/tickets/"+before.id+"/ws", nil); err == nil || refused == nil || refused.StatusCode != http.StatusUnauthorized {
		t.Errorf("a handshake with another's ticket: got %v, error %v, want 401", refused, err)
	}
}
