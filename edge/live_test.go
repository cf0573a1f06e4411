package edge

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fasthttp/websocket"

	"waitingroom/origin/queue"
)

// liveClient is a live connection of either kind, as a client sees it.
type liveClient struct {
	t      testing.TB
	ws     *websocket.Conn
	stream *http.Response
	lines  *bufio.Reader
	id     string // of the last event of a stream
}

// liveEvent is an event with the status that it carries.
type liveEvent struct {
	name   string
	status map[string]any
}

// liveKinds are the two kinds of live connections.
var liveKinds = []string{"ws", "sse"}

// live opens a live connection.
func (e *edgeUnderTest) live(kind, token, id string) *liveClient {
	e.t.Helper()
	if kind == "ws" {
		return e.socket(id, http.Header{"Authorization": {"Bearer " + token}})
	}
	return e.stream(id, e.bearer(token))
}

func (e *edgeUnderTest) socket(id string, h http.Header) *liveClient {
	e.t.Helper()
	ws, response, err := websocket.DefaultDialer.Dial("ws://"+e.Addr().String()+"/tickets/"+id+"/ws", h)
	if err != nil {
		e.t.Fatalf("connect: %v (%+v)", err, response)
	}
	e.t.Cleanup(func() { _ = ws.Close() })
	return &liveClient{t: e.t, ws: ws}
}

func (e *edgeUnderTest) stream(id string, h headers) *liveClient {
	e.t.Helper()
	request, err := http.NewRequest("GET", "http://"+e.Addr().String()+"/tickets/"+id+"/events", nil)
	if err != nil {
		e.t.Fatal(err)
	}
	for name, value := range h {
		request.Header.Set(name, value)
	}
	response, err := noRedirects.Do(request)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = response.Body.Close() })
	if response.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(response.Body)
		e.t.Fatalf("stream: got %d %s, want 200", response.StatusCode, body)
	}
	return &liveClient{t: e.t, stream: response, lines: bufio.NewReader(response.Body)}
}

// next waits for the next event.
func (c *liveClient) next() liveEvent {
	c.t.Helper()
	e, err := c.read()
	if err != nil {
		c.t.Fatalf("event: %v", err)
	}
	return e
}

func (c *liveClient) read() (e liveEvent, err error) {
	var data []byte
	if c.ws != nil {
		_ = c.ws.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, data, err = c.ws.ReadMessage(); err != nil {
			return e, err
		}
	}
	for c.ws == nil && (data == nil || e.name == "") {
		line, err := c.lines.ReadString('\n')
		if err != nil {
			return e, err
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch name {
		case "event":
			e.name = value
		case "data":
			data = []byte(value)
		case "id":
			c.id = value
		}
	}
	if err := json.Unmarshal(data, &e.status); err != nil {
		return e, err
	}
	if c.ws != nil {
		e.name, _ = e.status["type"].(string)
		delete(e.status, "type")
	}
	return e, nil
}

func TestLiveConnectionsTellTheStatusAndWhatBecomesOfIt(t *testing.T) {
	for _, kind := range liveKinds {
		t.Run(kind, func(t *testing.T) {
			o := newScripted(t)
			o.log("acme.sale", queue.Entry{Kind: queue.EntryJoined, Issued: 5})
			e := startEdge(t, o, nil)
			token, id := o.ticketAt(t, 3)
			c := e.live(kind, token, id)
			first := c.next()
			if first.name != "status" || first.status["state"] != "waiting" || first.status["ahead"] != 2.0 {
				t.Fatalf("first: got %+v, want the status of who waits behind two", first)
			}
			o.log("acme.sale", queue.Entry{Kind: queue.EntryDone, Positions: queue.Positions{1}, Fate: queue.Left})
			if got := c.next(); got.name != "position_changed" || got.status["ahead"] != 1.0 {
				t.Errorf("after the first has left: got %+v, want one ahead", got)
			}
			claimBy := time.Now().Add(time.Minute).UTC().Truncate(time.Millisecond)
			o.log("acme.sale", queue.Entry{Kind: queue.EntryOffered, Positions: queue.Positions{2, 3}, Until: claimBy, Watermark: 3})
			if got := c.next(); got.name != "admitted" || got.status["state"] != "admitted" {
				t.Errorf("offered: got %+v, want admitted", got)
			}
			o.log("acme.sale", queue.Entry{Kind: queue.EntryClaimed, Positions: queue.Positions{3}, Session: "acme.sale~s", Since: time.Now(), Until: time.Now().Add(time.Hour)})
			if got := c.next(); got.name != "position_changed" || got.status["state"] != "active" {
				t.Errorf("claimed on another device: got %+v, want active", got)
			}
			o.log("acme.sale", queue.Entry{Kind: queue.EntryDone, Positions: queue.Positions{3}, Fate: queue.Ended})
			if got := c.next(); got.name != "session_expired" || got.status["state"] != "ended" {
				t.Errorf("ended: got %+v, want session_expired", got)
			}
			_, err := c.read()
			if kind == "ws" && !websocket.IsCloseError(err, websocket.CloseNormalClosure) || kind == "sse" && err != io.EOF {
				t.Errorf("then: got %v, want a normal end", err)
			}
			waitFor(t, "the connection to be gone", func() bool { return e.hub.Open() == 0 })
		})
	}
}
