package edge

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/wire"
	"waitingroom/tokens"
)

func TestATicketOpensItsOwnPlaceOnly(t *testing.T) {
	o := newScripted(t)
	e := startEdge(t, o, nil)
	own, id := o.ticket(t, nil)
	sign := func(change func(*tokens.Ticket)) string {
		token, _ := o.ticket(t, change)
		return token
	}
	foreign := newScripted(t) // the same names, other keys
	forged, _ := foreign.ticket(t, nil)
	for name, test := range map[string]struct {
		path   string
		h      headers
		status int
		code   string
	}{
		"own":                    {id, e.bearer(own), 200, ""},
		"scheme in lower case":   {id, headers{"Authorization": "bearer " + own}, 200, ""},
		"another position":       {tokens.TicketID("inc1", 2), e.bearer(own), 401, "invalid_ticket"},
		"no ticket":              {id, nil, 401, "ticket_required"},
		"another scheme":         {id, headers{"Authorization": "Basic " + own}, 400, "malformed_authorization"},
		"no token":               {id, headers{"Authorization": "Bearer"}, 400, "malformed_authorization"},
		"nonsense":               {id, e.bearer("x"), 401, "invalid_ticket"},
		"forged":                 {id, e.bearer(forged), 401, "invalid_ticket"},
		"session token":          {id, e.bearer(o.session(t, nil)), 401, "invalid_ticket"},
		"flipped":                {id, e.bearer(own[:len(own)-2] + "xx"), 401, "invalid_ticket"},
		"same id, another queue": {id, e.bearer(sign(func(c *tokens.Ticket) { c.Queue = "acme.other" })), 200, ""}, // its own place there
		"tenant without keys":    {id, headers{"Cookie": "wr_ticket_acme.other=" + own}, 401, "invalid_ticket"},
		"earlier incarnation": {tokens.TicketID("inc0", 1), e.bearer(sign(func(c *tokens.Ticket) {
			c.Incarnation, c.IssuedAt = "inc0", time.Now().Add(-2*time.Hour)
		})), 410, "ticket_of_earlier_queue"},
		"later incarnation":  {tokens.TicketID("inc2", 1), e.bearer(sign(func(c *tokens.Ticket) { c.Incarnation = "inc2" })), 503, "ticket_not_known_yet"},
		"unknown generation": {id, e.bearer(sign(func(c *tokens.Ticket) { c.Generation = "gen2" })), 503, "ticket_not_known_yet"},
		"deleted queue":      {id, e.bearer(sign(func(c *tokens.Ticket) { c.Queue, c.IssuedAt = "acme.gone", time.Now().Add(-time.Hour) })), 410, "ticket_of_earlier_queue"},
		"queue just made":    {id, e.bearer(sign(func(c *tokens.Ticket) { c.Queue = "acme.new" })), 503, "ticket_not_known_yet"},
	} {
		got := e.do("GET", "/tickets/"+test.path, test.h, "")
		if got.status != test.status || test.code != "" && got.code(t) != test.code {
			t.Errorf("%s: got %d %s, want %d %s", name, got.status, got.body, test.status, test.code)
		}
		if test.status == http.StatusServiceUnavailable && got.header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", name)
		}
	}
	// A remembered ticket is still held against its expiry.
	short, id := o.ticket(t, func(c *tokens.Ticket) { c.ExpiresAt = time.Now().Add(2 * time.Second) })
	if got := e.do("GET", "/tickets/"+id, e.bearer(short), ""); got.status != http.StatusOK {
		t.Errorf("before its expiry: got %d, want 200", got.status)
	}
	waitFor(t, "the expiry", func() bool {
		got := e.do("GET", "/tickets/"+id, e.bearer(short), "")
		return got.status == http.StatusGone && got.code(t) == "ticket_expired"
	})
}

func TestATicketOfAQueueThatWasMadeAnewIsGone(t *testing.T) {
	o := newScripted(t)
	e := startEdge(t, o, nil)
	token, id := o.ticket(t, func(c *tokens.Ticket) { c.IssuedAt = time.Now().Add(-time.Second) })
	if got := e.do("GET", "/tickets/"+id, e.bearer(token), ""); got.status != http.StatusOK {
		t.Fatalf("before: got %d, want 200", got.status)
	}
	o.claim = func(context.Context, wire.ClaimRequest) (wire.ClaimResponse, error) {
		t.Error("the origin was asked for the session of a queue that is gone")
		return wire.ClaimResponse{}, nil
	}
	gone := func(when string) {
		t.Helper()
		waitFor(t, "410 "+when, func() bool {
			return e.do("GET", "/tickets/"+id, e.bearer(token), "").status == http.StatusGone
		})
		for _, request := range []string{"GET ", "DELETE ", "POST /session"} {
			method, suffix, _ := strings.Cut(request, " ")
			if got := e.do(method, "/tickets/"+id+suffix, e.bearer(token), ""); got.status != http.StatusGone || got.code(t) != "ticket_of_earlier_queue" {
				t.Errorf("%s, %s: got %d %s, want 410", when, request, got.status, got.body)
			}
		}
		if got := e.do("POST", "/queues/acme.sale/tickets", e.fromPage("wr_ticket_acme.sale="+token), `{}`); got.status == http.StatusOK {
			t.Errorf("%s: the cookie still holds a place", when)
		}
	}
	o.tell(wire.Frame{Removed: &wire.Removed{Queue: "acme.sale"}})
	gone("once deleted")
	anew := testView("acme.sale", "inc2").Snapshot()
	anew.CreatedAt = time.Now()
	o.mu.Lock()
	o.views["acme.sale"] = queue.NewView(anew)
	o.mu.Unlock()
	o.tell(wire.Frame{Snapshot: &wire.Snapshot{Queue: anew}})
	e.applied("acme.sale")
	gone("made anew")
}

func TestDuplicateCredentialsAreRefused(t *testing.T) {
	o := newScripted(t)
	e := startEdge(t, o, nil)
	token, id := o.ticket(t, nil)
	session := o.session(t, nil)
	key := o.apiKeys["acme secret"]
	for name, lines := range map[string]string{
		"tickets":  "GET /tickets/" + id + " HTTP/1.1\r\nAuthorization: Bearer " + token + "\r\nAuthorization: Bearer " + token,
		"sessions": "GET /access HTTP/1.1\r\nAuthorization: Bearer " + session + "\r\nauthorization: Bearer " + session,
		"keys":     "GET /revocations HTTP/1.1\r\nX-API-Key: " + key + "\r\nX-API-Key: " + key,
		"cookies":  "GET /tickets/" + id + " HTTP/1.1\r\nCookie: wr_ticket_acme.sale=" + token + "\r\nCookie: wr_ticket_acme.sale=x",
		"queries":  "GET /access?queue=acme.sale&queue=acme.other HTTP/1.1\r\nAuthorization: Bearer " + session,
	} {
		if got := e.raw(t, lines+"\r\nHost: x\r\n\r\n"); got.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: got %d, want 400", name, got.StatusCode)
		}
	}
}

// raw sends bytes that no client would.
func (e *edgeUnderTest) raw(t *testing.T, request string) *http.Response {
	t.Helper()
	c, err := net.Dial("tcp", e.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte(request)); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("read the answer to %.60q: %v", request, err)
	}
	return response
}

func TestMalformedRequestsAreRefusedAndTheServerLives(t *testing.T) {
	o := newScripted(t)
	e := startEdge(t, o, nil)
	token, id := o.ticket(t, nil)
	for name, test := range map[string]struct {
		request string
		status  int
	}{
		"header over the limit": {"GET /healthz HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + token + strings.Repeat("x", 20_000) + "\r\n\r\n", 431},
		"body over the limit":   {"POST /queues/acme.sale/tickets HTTP/1.1\r\nHost: x\r\nContent-Length: 20000\r\n\r\n" + strings.Repeat(" ", 20_000), 413},
		"no request line":       {"Authorization: Bearer " + token + "\r\n\r\n", 400},
		"two lengths":           {"POST /queues/acme.sale/tickets HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}x", 400},
		"broken chunks":         {"POST /queues/acme.sale/tickets HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400},
	} {
		if got := e.raw(t, test.request); got.StatusCode != test.status {
			t.Errorf("%s: got %d, want %d", name, got.StatusCode, test.status)
		}
	}
	for path, want := range map[string]int{
		"/": 404, "/tickets": 404, "/tickets/": 404, "/nope": 404, "/tickets/%00": 404, "/wait/..%2f..": 404,
		"/tickets/" + id + "/ws": 401, "/tickets/" + id + "/events": 401, "/tickets/" + id + "/devices/d": 404,
	} {
		if got := e.do("GET", path, nil, ""); got.status != want {
			t.Errorf("GET %s: got %d, want %d", path, got.status, want)
		}
	}
	if got := e.do("PUT", "/access", nil, ""); got.status != http.StatusMethodNotAllowed || got.code(t) != "method_not_allowed" || got.header.Get("Allow") == "" {
		t.Errorf("PUT /access: got %d %v, want 405 with Allow", got.status, got.header)
	}
	if strings.Contains(e.logs.String(), token[:40]) {
		t.Error("the log holds a token")
	}
}

func TestClaim(t *testing.T) {
	o := newScripted(t)
	var reply wire.ClaimResponse
	var failure error
	asked := ""
	o.claim = func(_ context.Context, r wire.ClaimRequest) (wire.ClaimResponse, error) {
		asked = r.Ticket
		return reply, failure
	}
	e := startEdge(t, o, nil)
	token, id := o.ticket(t, func(c *tokens.Ticket) { c.Position = 3 })
	o.log("acme.sale", queue.Entry{Kind: queue.EntryJoined, Issued: 5})
	e.applied("acme.sale")
	claim := func() answer { return e.do("POST", "/tickets/"+id+"/session", e.bearer(token), `{}`) }

	reply.Error = wire.CodeNotYourTurn
	got := claim()
	m := got.object(t)
	if got.status != http.StatusConflict || got.code(t) != "not_your_turn" || m["state"] != "waiting" || m["ahead"] != 2.0 || m["pollAfterSeconds"] == nil {
		t.Errorf("not this fan's turn: got %d %s, want 409 with the status flat", got.status, got.body)
	}
	if asked != token {
		t.Error("the origin was not given the ticket")
	}

	// The origin knows that the offer is gone before the feed tells.
	o.log("acme.sale", queue.Entry{Kind: queue.EntryOffered, Positions: queue.Positions{3}, Watermark: 3, Until: time.Now().Add(time.Minute)})
	e.applied("acme.sale")
	if m := claim().object(t); m["state"] != "waiting" || m["claimBy"] != nil || m["ahead"] != 0.0 {
		t.Errorf("offer gone: got %v, want waiting", m)
	}

	expires := time.Now().Add(time.Minute).UTC().Truncate(time.Second)
	reply = wire.ClaimResponse{SessionToken: "token", ExpiresAt: expires}
	got = claim()
	if want := fmt.Sprintf(`{"sessionToken":"token","expiresAt":%q}`, expires.Format(time.RFC3339)); got.status != http.StatusOK || got.body != want || got.header.Get("Cache-Control") != "no-store" {
		t.Errorf("claim: got %d %s, want 200 %s", got.status, got.body, want)
	}
	if got := e.do("POST", "/tickets/"+id+"/session", e.bearer(token), ""); got.status != http.StatusOK {
		t.Errorf("claim without a body: got %d, want 200", got.status)
	}
	if got := e.do("POST", "/tickets/"+id+"/session", e.bearer(token), `{"x":1}`); got.status != http.StatusBadRequest {
		t.Errorf("claim with a strange body: got %d, want 400", got.status)
	}

	for name, test := range map[string]struct {
		reply  wire.ClaimResponse
		err    error
		status int
		code   string
		state  any
		reason any
	}{
		"taken":           {reply: wire.ClaimResponse{Error: wire.CodeTaken}, status: 409, code: "position_taken"},
		"expired":         {reply: wire.ClaimResponse{Error: wire.CodeOut, Fate: queue.Expired}, status: 410, code: "ticket_out", state: "expired", reason: "absent"},
		"missed":          {reply: wire.ClaimResponse{Error: wire.CodeOut, Fate: queue.Missed}, status: 410, code: "ticket_out", state: "expired", reason: "missed_offers"},
		"left":            {reply: wire.ClaimResponse{Error: wire.CodeOut, Fate: queue.Left}, status: 410, code: "ticket_out", state: "left"},
		"ended":           {reply: wire.ClaimResponse{Error: wire.CodeOut, Fate: queue.Ended}, status: 410, code: "ticket_out", state: "ended"},
		"closed":          {reply: wire.ClaimResponse{Error: wire.CodeClosed}, status: 410, code: "ticket_out", state: "closed"},
		"ticket refused":  {reply: wire.ClaimResponse{Error: wire.CodeBadTicket}, status: 401, code: "invalid_ticket"},
		"queue gone":      {reply: wire.ClaimResponse{Error: wire.CodeNotFound}, status: 404, code: "queue_not_found"},
		"undecided":       {reply: wire.ClaimResponse{Error: wire.CodeUnavailable}, status: 503, code: "origin_unavailable"},
		"away":            {err: fmt.Errorf("claim: %w", wire.ErrUnavailable), status: 503, code: "origin_unavailable"},
		"refused as such": {err: fmt.Errorf("claim: %w", &wire.Error{Code: wire.CodeBadTicket}), status: 401, code: "invalid_ticket"},
		"unheard of":      {err: errScript, status: 500, code: "internal_error"},
	} {
		reply, failure = test.reply, test.err
		got := claim()
		m := got.object(t)
		if got.status != test.status || got.code(t) != test.code || m["state"] != test.state || m["reason"] != test.reason {
			t.Errorf("%s: got %d %s, want %d %s %v %v", name, got.status, got.body, test.status, test.code, test.state, test.reason)
		}
	}

	// What the edge knows to be final it answers by itself.
	failure = errScript
	o.log("acme.sale", queue.Entry{Kind: queue.EntryDone, Positions: queue.Positions{3}, Fate: queue.Expired})
	e.applied("acme.sale")
	if got := claim(); got.status != http.StatusGone || got.object(t)["reason"] != "absent" {
		t.Errorf("known to be out: got %d %s, want 410", got.status, got.body)
	}
}

func TestAPanicIsAnsweredAndLogged(t *testing.T) {
	o := newScripted(t)
	e := startEdge(t, o, nil)
	token, id := o.ticket(t, nil)
	o.claim = func(_ context.Context, r wire.ClaimRequest) (wire.ClaimResponse, error) { panic("about " + r.Ticket) }
	if got := e.do("POST", "/tickets/"+id+"/session", e.bearer(token), ""); got.status != http.StatusInternalServerError || got.code(t) != "internal_error" {
		t.Errorf("panic: got %d %s, want 500", got.status, got.body)
	}
	if got := e.do("GET", "/tickets/"+id, e.bearer(token), ""); got.status != http.StatusOK {
		t.Errorf("after it: got %d, want 200", got.status)
	}
	if logs := e.logs.String(); !strings.Contains(logs, "handler panicked") || strings.Contains(logs, token) {
		t.Error("the log must tell of the panic and not hold the token")
	}
	metrics, err := http.Get("http://" + e.AdminAddr().String() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer metrics.Body.Close()
	found := false
	for lines := bufio.NewScanner(metrics.Body); lines.Scan(); {
		found = found || lines.Text() == "waitingroom_edge_panics_total 1"
	}
	if !found {
		t.Error("the panic was not counted")
	}
}

func TestLeave(t *testing.T) {
	o := newScripted(t)
	asked := 0
	var failure error
	o.leave = func(context.Context, wire.LeaveRequest) error { asked++; return failure }
	e := startEdge(t, o, nil)
	o.log("acme.sale", queue.Entry{Kind: queue.EntryJoined, Issued: 5})
	e.applied("acme.sale")
	token, id := o.ticket(t, nil)
	cookie := "wr_ticket_acme.sale=" + token

	if got := e.do("DELETE", "/tickets/"+id, headers{"Cookie": cookie}, ""); got.status != http.StatusForbidden || got.code(t) != "origin_forbidden" {
		t.Errorf("by the cookie from nowhere: got %d %s, want 403", got.status, got.body)
	}
	if got := e.do("DELETE", "/tickets/"+id, headers{"Cookie": cookie, "Origin": shopOrigin}, ""); got.status != http.StatusForbidden {
		t.Errorf("by the cookie from another origin: got %d, want 403", got.status)
	}
	if asked != 0 {
		t.Error("the origin was asked all the same")
	}
	failure = wire.ErrUnavailable
	if got := e.do("DELETE", "/tickets/"+id, e.bearer(token), ""); got.status != http.StatusServiceUnavailable {
		t.Errorf("without an origin: got %d, want 503", got.status)
	}
	failure = nil
	got := e.do("DELETE", "/tickets/"+id, e.fromPage(cookie), "")
	if got.status != http.StatusNoContent || !strings.HasPrefix(got.header.Get("Set-Cookie"), "wr_ticket_acme.sale=;") {
		t.Errorf("leave: got %d %v, want 204 and the cookie gone", got.status, got.header)
	}
	o.log("acme.sale", queue.Entry{Kind: queue.EntryDone, Positions: queue.Positions{1}, Fate: queue.Left})
	e.applied("acme.sale")
	before := asked
	if got := e.do("DELETE", "/tickets/"+id, e.bearer(token), ""); got.status != http.StatusNoContent || asked != before {
		t.Errorf("again: got %d, origin asked %d times, want 204 without it", got.status, asked-before)
	}
}

func TestHandover(t *testing.T) {
	o := newScripted(t)
	e := startEdge(t, o, nil)
	o.log("acme.sale", queue.Entry{Kind: queue.EntryJoined, Issued: 5})
	e.applied("acme.sale")
	token, id := o.ticket(t, nil)
	other, otherID := o.ticket(t, func(c *tokens.Ticket) { c.Position = 2 })
	path := "/tickets/" + id + "/handover"
	cookie := "wr_ticket_acme.sale=" + token

	if got := e.do("POST", path, e.fromPage(cookie), `{}`); got.status != http.StatusOK || got.body != `{"ticket":"`+token+`"}` {
		t.Errorf("with the cookie: got %d %s, want the ticket", got.status, got.body)
	}
	bearerFromPage := func(token, cookie string) headers {
		h := e.fromPage(cookie)
		h["Authorization"] = "Bearer " + token
		return h
	}
	got := e.do("POST", path, bearerFromPage(token, ""), "")
	if c := cookieOf(t, got); got.status != http.StatusNoContent || c.Value != token || !c.HttpOnly {
		t.Errorf("with a bearer: got %d %v, want 204 and the cookie", got.status, got.header)
	}
	if got := e.do("POST", path, bearerFromPage(token, "wr_ticket_acme.sale="+other), ""); got.status != http.StatusConflict || got.code(t) != "place_held" || got.header.Get("Set-Cookie") != "" {
		t.Errorf("over another place: got %d %s, want 409 place_held", got.status, got.body)
	}
	o.log("acme.sale", queue.Entry{Kind: queue.EntryDone, Positions: queue.Positions{2}, Fate: queue.Left})
	e.applied("acme.sale")
	if got := e.do("POST", path, bearerFromPage(token, "wr_ticket_acme.sale="+other), ""); got.status != http.StatusNoContent {
		t.Errorf("over a place that is lost: got %d, want 204", got.status)
	}
	for name, h := range map[string]headers{
		"bearer from the shop":  {"Authorization": "Bearer " + token, "Origin": shopOrigin},
		"bearer from nowhere":   {"Authorization": "Bearer " + token},
		"cookie from the shop":  {"Cookie": cookie, "Origin": shopOrigin},
		"cookie from elsewhere": {"Cookie": cookie, "Origin": "https://evil.example"},
	} {
		if got := e.do("POST", path, h, ""); got.status != http.StatusForbidden || got.header.Get("Set-Cookie") != "" || strings.Contains(got.body, token) {
			t.Errorf("%s: got %d %s, want 403", name, got.status, got.body)
		}
	}
	if got := e.do("POST", "/tickets/"+otherID+"/handover", e.fromPage(cookie), ""); got.status != http.StatusUnauthorized {
		t.Errorf("another ticket's path: got %d, want 401", got.status)
	}
}

// TestABrowserInManyQueues joins one queue after the other with one browser's cookies.
func TestABrowserInManyQueues(t *testing.T) {
	o := newScripted(t)
	var queues []queue.ID
	for i := range mostPlaces + 4 {
		id := queue.ID(fmt.Sprintf("acme.many-%d", i))
		queues = append(queues, id)
		o.views[id] = testView(id, fmt.Sprintf("inc-of-%d", i))
	}
	e := startEdge(t, o, nil)
	jar := map[string]string{}
	browser := func() headers {
		var pairs []string
		for _, name := range slices.Sorted(maps.Keys(jar)) {
			pairs = append(pairs, name+"="+jar[name])
		}
		return e.fromPage(strings.Join(pairs, "; "))
	}
	ids := map[queue.ID]string{}
	join := func(id queue.ID) answer {
		t.Helper()
		got := e.do("POST", "/queues/"+string(id)+"/tickets", browser(), `{}`)
		for _, c := range (&http.Response{Header: got.header}).Cookies() {
			if c.Value == "" {
				delete(jar, c.Name)
			} else {
				jar[c.Name] = c.Value
			}
		}
		if got.status == http.StatusCreated {
			ids[id], _ = got.object(t)["ticketId"].(string)
			e.applied(id)
		}
		return got
	}
	for _, id := range queues[:mostPlaces] {
		if got := join(id); got.status != http.StatusCreated {
			t.Fatalf("join of %s: got %d %s, want 201", id, got.status, got.body)
		}
		if got := e.do("GET", "/tickets/"+ids[id], browser(), ""); got.status != http.StatusOK {
			t.Fatalf("poll in %s with %d cookies: got %d %s, want 200", id, len(jar), got.status, got.body)
		}
	}
	if got := join(queues[mostPlaces]); got.status != http.StatusConflict || got.code(t) != "too_many_places" || len(jar) != mostPlaces {
		t.Errorf("one queue too many: got %d %s with %d cookies, want 409 too_many_places and all kept", got.status, got.body, len(jar))
	}
	// Places that are lost make room, and their cookies go.
	for _, id := range queues[:3] {
		o.log(id, queue.Entry{Kind: queue.EntryDone, Positions: queue.Positions{1}, Fate: queue.Expired, Reason: queue.ReasonAbsent})
		e.applied(id)
	}
	if got := join(queues[mostPlaces]); got.status != http.StatusCreated || len(jar) != mostPlaces-2 {
		t.Errorf("after three places were lost: got %d with %d cookies, want 201 with %d", got.status, len(jar), mostPlaces-2)
	}
	for _, id := range queues[3 : mostPlaces+1] {
		if got := e.do("GET", "/tickets/"+ids[id], browser(), ""); got.status != http.StatusOK {
			t.Errorf("poll in %s: got %d %s, want 200", id, got.status, got.body)
		}
	}
}
