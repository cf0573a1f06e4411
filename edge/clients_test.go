package edge

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/wire"
)

// said is a line that one of the scripts in testdata/clients prints.
type said struct {
	Name, Event string

	// Of a WebSocket.
	Protocol, Extensions, Type, Code, Reason, Message string
	Status                                            int
	IsBinary                                          bool

	// Of a stream.
	At              float64 // ms
	LastEventID, ID string
	State, Seq      string
	Ahead           uint64
	Retry           float64 // ms
	Closed          bool
}

// UnmarshalJSON takes a code as a number or as text: close codes and statuses are the one, the codes of
// problems the other.
func (s *said) UnmarshalJSON(b []byte) error {
	type plain said
	line := struct {
		*plain
		Code json.RawMessage
	}{plain: (*plain)(s)}
	err := json.Unmarshal(b, &line)
	s.Code = strings.Trim(string(line.Code), `"`)
	return err
}

// script is a running program of testdata/clients.
type script struct {
	t     *testing.T
	lines *bufio.Scanner
	fault bytes.Buffer
	wait  func() error
}

func runClient(t *testing.T, program string, args ...string) *script {
	t.Helper()
	for _, name := range []string{"ws", "eventsource"} {
		if _, err := os.Stat("testdata/clients/node_modules/" + name + "/package.json"); err != nil {
			t.Fatalf("the npm package %s is missing: run make test, or npm ci in edge/testdata/clients", name)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	command := exec.CommandContext(ctx, "node", append([]string{program}, args...)...)
	command.Dir = "testdata/clients"
	s := &script{t: t, wait: command.Wait}
	command.Stderr = &s.fault
	out, err := command.StdoutPipe()
	if err == nil {
		err = command.Start()
	}
	if err != nil {
		cancel()
		t.Fatalf("node is missing, or did not start: run make test, or install Node.js: %v", err)
	}
	s.lines = bufio.NewScanner(out)
	t.Cleanup(func() {
		cancel()
		_ = s.wait()
	})
	return s
}

// next waits for the next line; ok is false when the program has ended, which it must do well.
func (s *script) next() (line said, ok bool) {
	s.t.Helper()
	if !s.lines.Scan() {
		if err := s.wait(); err != nil {
			s.t.Fatalf("node: %v\n%s", err, s.fault.String())
		}
		s.wait = func() error { return nil }
		return said{}, false
	}
	if err := json.Unmarshal(s.lines.Bytes(), &line); err != nil {
		s.t.Fatalf("node says %q: %v", s.lines.Text(), err)
	}
	return line, true
}

// expect waits for the next line, which must tell of an event.
func (s *script) expect(event string) said {
	s.t.Helper()
	line, ok := s.next()
	if !ok || line.Event != event {
		s.t.Fatalf("got %+v, want %s", line, event)
	}
	return line
}

// TestWebSocketOfNode: a client that nobody here wrote opens sockets, sends and ends them.
func TestWebSocketOfNode(t *testing.T) {
	t.Parallel()
	o := newScripted(t)
	o.log("acme.sale", queue.Entry{Kind: queue.EntryJoined, Issued: 5})
	e := startEdge(t, o, nil)
	token, id := o.ticketAt(t, 3)
	type h = map[string]string
	type step = []any
	bearer := h{"Authorization": "Bearer " + token}
	fragment, last := map[string]bool{"fin": false}, map[string]bool{"fin": true}
	long := strings.Repeat("x", 512)
	type socket struct {
		Protocols []string `json:"protocols,omitempty"`
		Headers   h        `json:"headers,omitempty"`
		Steps     []step   `json:"steps,omitempty"`
	}
	cases := make(map[string]socket)
	type ending struct {
		Event, Code string
		Status      int
	}
	well := ending{Event: "well"}
	closed := func(code string) ending { return ending{Event: "close", Code: code} }
	refused := func(status int, code string) ending { return ending{"refused", code, status} }
	tests := map[string]struct {
		socket
		ends     ending
		protocol string
	}{
		"bearer":                      {socket{Headers: bearer}, well, ""},
		"subprotocol":                 {socket{Protocols: []string{"waitingroom.v1"}, Headers: bearer}, well, "waitingroom.v1"},
		"ticket as subprotocol":       {socket{Protocols: []string{"waitingroom.v1", "ticket." + token}}, well, "waitingroom.v1"},
		"the ticket first":            {socket{Protocols: []string{"ticket." + token, "waitingroom.v1"}}, well, "waitingroom.v1"},
		"several subprotocols":        {socket{Protocols: []string{"waitingroom.v2", "waitingroom.v1", "chat"}, Headers: bearer}, well, "waitingroom.v1"},
		"cookie of the page":          {socket{Headers: h{"Cookie": "wr_ticket_acme.sale=" + token, "Origin": e.PublicURL()}}, well, ""},
		"cookie of a stranger's page": {socket{Headers: h{"Cookie": "wr_ticket_acme.sale=" + token, "Origin": "https://evil.example"}}, refused(403, "origin_forbidden"), ""},
		"no ticket":                   {socket{}, refused(401, "ticket_required"), ""},
		"another subprotocol":         {socket{Protocols: []string{"chat"}, Headers: bearer}, refused(400, "unknown_subprotocol"), ""},
		"ticket without subprotocol":  {socket{Protocols: []string{"ticket." + token}}, refused(400, "unknown_subprotocol"), ""},
		"pings":                       {socket{Headers: bearer, Steps: []step{{"ping", ""}, {"ping", "hello"}, {"ping", long[:124]}, {"ping", long[:125]}}}, well, ""},
		"text":                        {socket{Headers: bearer, Steps: []step{{"send", "hello"}, {"send", ""}, {"send", long}}}, well, ""},
		"fragments":                   {socket{Headers: bearer, Steps: []step{{"send", "a", fragment}, {"ping", "between"}, {"send", "", fragment}, {"send", "b", last}}}, well, ""},
		"a character in fragments":    {socket{Headers: bearer, Steps: []step{{"send", "a", fragment}, {"bytes", "e282ac"}}}, well, ""},
		"fragments too long":          {socket{Headers: bearer, Steps: []step{{"send", long, fragment}, {"send", "x", last}}}, closed("1009"), ""},
		"text too long":               {socket{Headers: bearer, Steps: []step{{"send", long + "x"}}}, closed("1009"), ""},
		"text far too long":           {socket{Headers: bearer, Steps: []step{{"send", strings.Repeat(long, 128)}}}, closed("1009"), ""},
		"binary":                      {socket{Headers: bearer, Steps: []step{{"binary", "x"}}}, closed("1003"), ""},
		"binary in fragments":         {socket{Headers: bearer, Steps: []step{{"binary", "x", fragment}, {"binary", "y", last}}}, closed("1003"), ""},
		"not UTF-8":                   {socket{Headers: bearer, Steps: []step{{"bytes", "61ff62"}}}, closed("1007"), ""},
		"close":                       {socket{Headers: bearer, Steps: []step{{"close", 1000, "bye"}}}, closed("1000"), ""},
		"close without a code":        {socket{Headers: bearer, Steps: []step{{"close"}}}, closed("1005"), ""},
		"close with a library's code": {socket{Headers: bearer, Steps: []step{{"close", 3000}}}, closed("3000"), ""},
		"close with an app's code":    {socket{Headers: bearer, Steps: []step{{"close", 4999, long[:123]}}}, closed("4999"), ""},
		"close after text":            {socket{Headers: bearer, Steps: []step{{"send", "hello"}, {"ping", "p"}, {"close", 1001}}}, closed("1001"), ""},
		"close within a message":      {socket{Headers: bearer, Steps: []step{{"send", "hello", fragment}, {"close", 1000}}}, closed("1000"), ""},
	}
	for name, test := range tests {
		cases[name] = test.socket
	}
	argument, err := json.Marshal(cases)
	if err != nil {
		t.Fatal(err)
	}
	s := runClient(t, "socket.mjs", "ws://"+e.Addr().String()+"/tickets/"+id+"/ws", string(argument))
	ended := make(map[string]ending)
	for {
		line, ok := s.next()
		if !ok {
			break
		}
		switch line.Event {
		case "open":
			if line.Protocol != tests[line.Name].protocol || line.Extensions != "" {
				t.Errorf("%s: subprotocol and extensions: got %q and %q, want %q and none", line.Name, line.Protocol, line.Extensions, tests[line.Name].protocol)
			}
		case "message":
			if line.Type != "status" || line.State != "waiting" || line.IsBinary {
				t.Errorf("%s: first message: got %+v, want the status as text", line.Name, line)
			}
		case "error":
			t.Errorf("%s: %s", line.Name, line.Message)
		default:
			if _, again := ended[line.Name]; !again { // it also tells that a socket which was well is terminated
				ended[line.Name] = ending{line.Event, line.Code, line.Status}
			}
		}
	}
	for name, test := range tests {
		if ended[name] != test.ends {
			t.Errorf("%s: got %+v, want %+v", name, ended[name], test.ends)
		}
	}
	waitFor(t, "all to be gone", func() bool { return e.hub.Open() == 0 })
}

// TestWebSocketOfNodeIsToldHowItEnds: what becomes of the ticket, and the close code that says whether
// to come back.
func TestWebSocketOfNodeIsToldHowItEnds(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		happens    func(o *scripted, e *edgeUnderTest)
		told, code string
	}{
		"the ticket is out": {func(o *scripted, _ *edgeUnderTest) {
			o.log("acme.sale", queue.Entry{Kind: queue.EntryDone, Positions: queue.Positions{3}, Fate: queue.Expired})
		}, "expired", "1000"},
		"the edge stops": {func(_ *scripted, e *edgeUnderTest) { e.hub.Drain(context.Background(), 0) }, "", "1012"},
		"the queue is deleted": {func(o *scripted, _ *edgeUnderTest) {
			o.mu.Lock()
			delete(o.views, "acme.sale")
			o.mu.Unlock()
			o.tell(wire.Frame{Removed: &wire.Removed{Queue: "acme.sale"}})
		}, "", "1008"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newScripted(t)
			o.log("acme.sale", queue.Entry{Kind: queue.EntryJoined, Issued: 5})
			e := startEdge(t, o, nil)
			token, id := o.ticketAt(t, 3)
			s := runClient(t, "socket.mjs", "ws://"+e.Addr().String()+"/tickets/"+id+"/ws",
				`{"it":{"watch":true,"protocols":["waitingroom.v1","ticket.`+token+`"]}}`)
			s.expect("open")
			if first := s.expect("message"); first.Type != "status" || first.State != "waiting" {
				t.Errorf("first message: got %+v, want the status", first)
			}
			test.happens(o, e)
			if test.told != "" {
				if got := s.expect("message"); got.Type != test.told {
					t.Errorf("got %+v, want %s", got, test.told)
				}
			}
			if got := s.expect("close"); got.Code != test.code {
				t.Errorf("close code: got %s, want %s", got.Code, test.code)
			}
			if line, more := s.next(); more {
				t.Errorf("then: got %+v, want nothing", line)
			}
		})
	}
}

// TestEventSourceOfNode: a client that nobody here wrote hears each event by its name, and comes
// back by itself, after the time that it was asked to wait, to where it was.
func TestEventSourceOfNode(t *testing.T) {
	t.Parallel()
	o := newScripted(t)
	o.log("acme.sale", queue.Entry{Kind: queue.EntryJoined, Issued: 5})
	e := startEdge(t, o, nil)
	token, id := o.ticketAt(t, 3)
	s := runClient(t, "events.mjs", "http://"+e.Addr().String()+"/tickets/"+id+"/events", `{"Authorization":"Bearer `+token+`"}`)
	if first := s.expect("connect"); first.LastEventID != "" {
		t.Errorf("first request: got Last-Event-ID %q, want none", first.LastEventID)
	}
	s.expect("answer")
	retry := s.expect("retry").Retry
	if got := s.expect("status"); got.State != "waiting" || got.Ahead != 2 || got.ID != got.Seq {
		t.Errorf("first event: got %+v, want the status of who waits behind two", got)
	}
	o.log("acme.sale", queue.Entry{Kind: queue.EntryDone, Positions: queue.Positions{1}, Fate: queue.Left})
	moved := s.expect("position_changed")
	if moved.Ahead != 1 || moved.ID != moved.Seq {
		t.Errorf("after the first has left: got %+v, want one ahead", moved)
	}
	e.hub.Drain(context.Background(), 0)
	cut := s.expect("error")
	if cut.Closed {
		t.Fatal("a stream that ended: the EventSource does not come back")
	}
	o.log("acme.sale", queue.Entry{Kind: queue.EntryOffered, Positions: queue.Positions{2, 3}, Until: time.Now().Add(time.Hour), Watermark: 3})
	back := s.expect("connect")
	if back.LastEventID != moved.ID {
		t.Errorf("second request: got Last-Event-ID %q, want %q", back.LastEventID, moved.ID)
	}
	if waited := back.At - cut.At; waited < retry-1 {
		t.Errorf("came back after %.0f ms, was asked to wait %.0f ms", waited, retry)
	}
	s.expect("answer")
	s.expect("retry")
	if got := s.expect("status"); got.State != "admitted" || got.ID == moved.ID {
		t.Errorf("after coming back: got %+v, want what happened meanwhile", got)
	}
}

// TestEventSourceOfNodeComesToAnEnd when the ticket is out: it hears so, asks once more, and is told to
// stay away. It also stays away after a refusal.
func TestEventSourceOfNodeComesToAnEnd(t *testing.T) {
	t.Parallel()
	o := newScripted(t)
	o.log("acme.sale", queue.Entry{Kind: queue.EntryJoined, Issued: 5})
	e := startEdge(t, o, nil)
	token, id := o.ticketAt(t, 3)
	url := "http://" + e.Addr().String() + "/tickets/" + id + "/events"

	refused := runClient(t, "events.mjs", url, `{"Authorization":"Bearer x"}`)
	s := runClient(t, "events.mjs", url, `{"Cookie":"wr_ticket_acme.sale=`+token+`"}`)
	for _, event := range []string{"connect", "answer", "retry", "status"} {
		s.expect(event)
	}
	o.log("acme.sale", queue.Entry{Kind: queue.EntryDone, Positions: queue.Positions{3}, Fate: queue.Expired})
	last := s.expect("expired")
	if last.State != "expired" {
		t.Errorf("last event: got %+v, want expired", last)
	}
	s.expect("error")
	if back := s.expect("connect"); back.LastEventID != last.ID {
		t.Errorf("second request: got Last-Event-ID %q, want %q", back.LastEventID, last.ID)
	}
	for s, status := range map[*script]int{s: 204, refused: 401} {
		if s == refused {
			s.expect("connect")
		}
		if got := s.expect("answer"); got.Status != status {
			t.Errorf("got %d, want %d", got.Status, status)
		}
		if got := s.expect("error"); !got.Closed {
			t.Errorf("after %d: got %+v, want it closed for good", status, got)
		}
		if line, more := s.next(); more {
			t.Errorf("after %d: got %+v, want nothing more", status, line)
		}
	}
}
