package edge

import (
	"bufio"
	"encoding/json"
	"fmt"
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

// time reads a time of the status.
func (e liveEvent) time(t testing.TB, member string) time.Time {
	t.Helper()
	text, _ := e.status[member].(string)
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		t.Fatalf("%s: %v", member, err)
	}
	return at
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

// dialSocket tries a handshake and returns the answer.
func (e *edgeUnderTest) dialSocket(id string, h http.Header) (*websocket.Conn, answer) {
	e.t.Helper()
	ws, response, err := websocket.DefaultDialer.Dial("ws://"+e.Addr().String()+"/tickets/"+id+"/ws", h)
	if response == nil {
		e.t.Fatalf("handshake: %v", err)
	}
	body, _ := io.ReadAll(response.Body)
	if ws != nil {
		e.t.Cleanup(func() { _ = ws.Close() })
	}
	return ws, answer{response.StatusCode, response.Header, string(body)}
}

func TestStreams(t *testing.T) {
	o := newScripted(t)
	o.log("acme.sale", queue.Entry{Kind: queue.EntryJoined, Issued: 5}, queue.Entry{Kind: queue.EntryDone, Positions: queue.Positions{5}, Fate: queue.Left})
	e := startEdge(t, o, nil)
	token, id := o.ticketAt(t, 3)
	out, outID := o.ticketAt(t, 5)

	t.Run("the answer", func(t *testing.T) {
		c := e.stream(id, headers{"Authorization": "Bearer " + token, "Origin": shopOrigin})
		h := c.stream.Header
		for name, want := range map[string]string{
			"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no",
			"Access-Control-Allow-Origin": shopOrigin, "Vary": "Origin", "Connection": "close",
		} {
			if got := h.Get(name); got != want && !(name == "Connection" && c.stream.Close) {
				t.Errorf("%s: got %q, want %q", name, got, want)
			}
		}
		line, err := c.lines.ReadString('\n')
		var retry int
		if _, scanErr := fmt.Sscanf(line, "retry: %d\n", &retry); err != nil || scanErr != nil || retry < 1000 || retry > 10_000 {
			t.Errorf("first line: got %q %v, want retry: within 1000 to 10000", line, err)
		}
		if got := c.next(); got.name != "status" || c.id != got.status["seq"] {
			t.Errorf("first event: got %+v with id %q, want the status with its seq as id", got, c.id)
		}
	})
	t.Run("by cookie", func(t *testing.T) {
		c := e.stream(id, headers{"Cookie": "wr_ticket_acme.sale=" + token})
		if got := c.next(); got.status["position"] != 3.0 {
			t.Errorf("got %+v, want the status of position 3", got)
		}
	})
	t.Run("without a ticket", func(t *testing.T) {
		if got := e.do("GET", "/tickets/"+id+"/events", nil, ""); got.status != 401 || got.code(t) != "ticket_required" {
			t.Errorf("got %d %s, want 401", got.status, got.body)
		}
	})
	t.Run("a ticket that is out", func(t *testing.T) {
		c := e.stream(outID, e.bearer(out))
		if got := c.next(); got.name != "status" || got.status["state"] != "left" {
			t.Errorf("got %+v, want the last status", got)
		}
		if _, err := c.read(); err != io.EOF {
			t.Errorf("then: got %v, want the end", err)
		}
		again := e.bearer(out)
		again["Last-Event-ID"] = c.id
		if got := e.do("GET", "/tickets/"+outID+"/events", again, ""); got.status != http.StatusNoContent {
			t.Errorf("coming back: got %d, want 204, which ends an EventSource", got.status)
		}
	})
	t.Run("preflight", func(t *testing.T) {
		got := e.do("OPTIONS", "/tickets/"+id+"/events", headers{"Origin": shopOrigin, "Access-Control-Request-Method": "GET"}, "")
		if allowed := got.header.Get("Access-Control-Allow-Headers"); !strings.Contains(allowed, "Last-Event-ID") {
			t.Errorf("allowed headers: got %q, want Last-Event-ID among them", allowed)
		}
	})
	t.Run("Last-Event-ID", func(t *testing.T) {
		view := e.known.current.Load().lines["acme.sale"].view.Load()
		for after, atOnce := range map[string]bool{
			queue.Seq("gen1", view.Number): true, queue.Seq("gen1", 1): true, queue.Seq("gen0", view.Number+9): true,
			"rubbish": true, "gen1.x": true, "gen1." + strings.Repeat("0", 1000) + "99": true, queue.Seq("gen1", view.Number+1): false,
		} {
			h := e.bearer(token)
			h["Last-Event-ID"] = after
			c := e.stream(id, h)
			if atOnce {
				if got := c.next(); got.name != "status" {
					t.Errorf("after %s: got %+v, want the status", after, got)
				}
				continue
			}
			// It comes once the edge has heard of what the client knows already.
			since := time.Now()
			o.log("acme.sale", queue.Entry{Kind: queue.EntryTurn, Turn: 2})
			got := c.next()
			if took := time.Since(since); took > 8*time.Second {
				t.Errorf("after %s: told after %v, as who is told nothing is told anyway", after, took)
			}
			if got.name != "status" || got.status["seq"] != after {
				t.Errorf("after %s: got %+v, want the status as of it", after, got)
			}
		}
	})
}

// TestEachEventHasItsName walks through what can become of a ticket.
func TestEachEventHasItsName(t *testing.T) {
	until := time.Now().Add(time.Minute).UTC().Truncate(time.Millisecond)
	settings := func(o *scripted, state queue.State) queue.Entry {
		s := o.views["acme.sale"].Settings
		s.State = state
		return queue.Entry{Kind: queue.EntrySettings, Settings: &s}
	}
	offered := queue.Entry{Kind: queue.EntryOffered, Positions: queue.Positions{1}, Until: until, Watermark: 1}
	for name, test := range map[string]struct {
		happens     func(o *scripted) []queue.Entry
		event       string
		state       string
		out, paused bool
	}{
		"an offer": {happens: func(*scripted) []queue.Entry { return []queue.Entry{offered} }, event: "admitted", state: "admitted"},
		"absence": {happens: func(*scripted) []queue.Entry {
			return []queue.Entry{{Kind: queue.EntryDone, Positions: queue.Positions{1}, Fate: queue.Expired}}
		}, event: "expired", state: "expired", out: true},
		"missed": {happens: func(*scripted) []queue.Entry {
			return []queue.Entry{{Kind: queue.EntryDone, Positions: queue.Positions{1}, Fate: queue.Missed}}
		}, event: "expired", state: "expired", out: true},
		"leaving": {happens: func(*scripted) []queue.Entry {
			return []queue.Entry{{Kind: queue.EntryDone, Positions: queue.Positions{1}, Fate: queue.Left}}
		}, event: "position_changed", state: "left", out: true},
		"the closing": {happens: func(o *scripted) []queue.Entry { return []queue.Entry{settings(o, queue.Closed)} }, event: "queue_closed", state: "closed", out: true},
		"a pause":     {happens: func(o *scripted) []queue.Entry { return []queue.Entry{settings(o, queue.Paused)} }, event: "position_changed", state: "waiting"},
		"sold out":    {happens: func(o *scripted) []queue.Entry { return []queue.Entry{settings(o, queue.SoldOut)} }, event: "position_changed", state: "waiting"},
		"an estimate": {happens: func(*scripted) []queue.Entry {
			return []queue.Entry{{Kind: queue.EntryEstimate, Estimate: &queue.Estimate{Curve: queue.Curve{Ahead: []uint64{0, 100}, P50: []int{1, 2}, P90: []int{3, 4}}}}}
		}, event: "position_changed", state: "waiting"},
		"a short life": {happens: func(*scripted) []queue.Entry {
			return []queue.Entry{offered, {Kind: queue.EntryClaimed, Positions: queue.Positions{1}, Session: "s", Since: time.Now(), Until: until}, {Kind: queue.EntryDone, Positions: queue.Positions{1}, Fate: queue.Ended}}
		}, event: "session_expired", state: "ended", out: true},
	} {
		for _, kind := range liveKinds {
			t.Run(name+" "+kind, func(t *testing.T) {
				t.Parallel()
				o := newScripted(t)
				o.log("acme.sale", queue.Entry{Kind: queue.EntryJoined, Issued: 5})
				e := startEdge(t, o, nil)
				token, id := o.ticketAt(t, 1)
				c := e.live(kind, token, id)
				first := c.next()
				o.log("acme.sale", test.happens(o)...)
				got := c.next()
				if later := got.time(t, "now").Sub(first.time(t, "now")); later > 8*time.Second {
					t.Errorf("told after %v, as who hears nothing is told anyway", later)
				}
				if got.name != test.event || got.status["state"] != test.state {
					t.Errorf("got %s with state %v, want %s with state %s", got.name, got.status["state"], test.event, test.state)
				}
				if !test.out {
					return
				}
				if _, err := c.read(); kind == "ws" && !websocket.IsCloseError(err, websocket.CloseNormalClosure) || kind == "sse" && err != io.EOF {
					t.Errorf("then: got %v, want a normal end", err)
				}
			})
		}
	}
}

func TestLiveConnectionsLeaveFilesToOthers(t *testing.T) {
	for files, want := range map[int]int{20_000: 17_500, 1024: 896, 0: 1} {
		if got := mostLive(files); got != want {
			t.Errorf("with %d open files: got %d live connections at most, want %d", files, got, want)
		}
	}
}
