package tokens

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// shop is a real server behind a Gate, with a real room to ask.
type shop struct {
	room   *room
	gate   *Gate
	server *httptest.Server

	mu   sync.Mutex
	seen []string // everything that a handler or a log could see of the token
}

// newShop starts all of it; change may set the Gate's fields.
func newShop(t *testing.T, change func(*Gate)) *shop {
	t.Helper()
	m := newRoom(t, mustGenerate(t, GenerateSessionKeys))
	edge := httptest.NewServer(m)
	t.Cleanup(edge.Close)
	v := &Validator{
		Issuer: testIssuer, Tenant: testTenant, BaseURL: edge.URL, APIKey: testAPIKey, Refresh: time.Second,
		MaxStale: time.Minute, WhenStale: FailClosed,
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- v.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	})
	if err := v.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	s := &shop{room: m, gate: &Gate{
		Validator: v, WaitURL: "https://wait.example.org", Queue: func(*http.Request) string { return testQueue },
	}}
	if change != nil {
		change(s.gate)
	}
	guarded := s.gate.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.look(r)
		session, found := SessionFrom(r.Context())
		_, _ = fmt.Fprintf(w, "sold to %s %v", session.Subject, found)
	}))
	s.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// A log around the gate, which has read the form before and writes when all is done.
		_ = r.ParseForm()
		defer s.look(r)
		guarded.ServeHTTP(w, r)
	}))
	t.Cleanup(s.server.Close)
	return s
}

func (s *shop) look(r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, r.RequestURI, r.URL.String(), r.Referer(), r.FormValue("wr_session"))
}

// request is what a client sends.
type request struct {
	method, target string
	headers        map[string][]string
	cookie         string // the session token in the cookie
}

var (
	browser = map[string][]string{"Accept": {"text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}}
	client  = map[string][]string{"Accept": {"application/json"}}
)

func bearer(token string) map[string][]string {
	return map[string][]string{"Authorization": {"Bearer " + token}}
}

func (s *shop) do(t *testing.T, q request) (*http.Response, string) {
	t.Helper()
	if q.method == "" {
		q.method = http.MethodGet
	}
	r, err := http.NewRequestWithContext(t.Context(), q.method, s.server.URL+q.target, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range q.headers {
		r.Header[name] = values
	}
	if q.cookie != "" {
		r.AddCookie(&http.Cookie{Name: "wr_session_" + testQueue, Value: q.cookie})
	}
	response, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(body)
}

// awaitVerdict waits until the Validator has heard of a change.
func (s *shop) awaitVerdict(t *testing.T, token string, want error) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for tick := time.NewTicker(10 * time.Millisecond); ; <-tick.C {
		if _, err := s.gate.Validator.Validate(token, testQueue); errors.Is(err, want) {
			return
		} else if time.Now().After(deadline) {
			t.Fatalf("verdict stays %v, want %v", err, want)
		}
	}
}

func problemOf(t *testing.T, response *http.Response, body string) problem {
	t.Helper()
	var p problem
	if got := response.Header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("Content-Type %q, want application/problem+json", got)
	}
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		t.Fatalf("read problem %q: %v", body, err)
	}
	return p
}

func TestBrowserWithoutSessionIsSentToTheWaitingPage(t *testing.T) {
	s := newShop(t, nil)
	back := func(target string) string {
		return "https://wait.example.org/wait/club.final?return=" + url.QueryEscape(s.server.URL+target)
	}
	for _, c := range []struct {
		name string
		request
		want string
	}{
		{"nothing", request{target: "/buy?seat=A%2F1&x=ä", headers: browser}, back("/buy?seat=A%2F1&x=ä")},
		{"escaped path", request{target: "/a%2Fb/c%20d", headers: browser}, back("/a%2Fb/c%20d")},
		{"HEAD", request{method: http.MethodHead, target: "/", headers: browser}, back("/")},
		{"bad cookie", request{target: "/", headers: browser, cookie: "abc"}, back("/")},
		{"path that looks like a host", request{target: "//evil.example/x", headers: browser}, back("//evil.example/x")},
	} {
		response, _ := s.do(t, c.request)
		if got := response.Header.Get("Location"); response.StatusCode != http.StatusSeeOther || got != c.want {
			t.Errorf("%s: got %d to %q, want 303 to %q", c.name, response.StatusCode, got, c.want)
		}
		if got := response.Header.Get("Cache-Control"); got != "no-store" {
			t.Errorf("%s: Cache-Control %q, want no-store", c.name, got)
		}
		if got := response.Header.Values("Set-Cookie"); len(got) != 0 {
			t.Errorf("%s: sets cookies %q, want none", c.name, got)
		}
	}
}

func TestRedirectsAndAddressesBehindAProxy(t *testing.T) {
	s := newShop(t, func(g *Gate) {
		g.PublicURL = "https://shop.example.org/store/"
		g.WaitURL = "https://wait.example.org/"
		g.UserToken = func(*http.Request) string { return "user.token-1" }
	})
	response, _ := s.do(t, request{target: "/buy?x=1", headers: browser})
	want := "https://wait.example.org/wait/club.final?return=" + url.QueryEscape("https://shop.example.org/store/buy?x=1") + "#wr_user=user.token-1"
	if got := response.Header.Get("Location"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	_, token := s.room.sign(t, "R1", time.Hour)
	response, _ = s.do(t, request{target: "/buy?x=1&wr_session=" + token, headers: browser})
	if got := response.Header.Get("Location"); got != "/store/buy?x=1" {
		t.Errorf("handed over to %q, want /store/buy?x=1", got)
	}
	cookie := response.Cookies()
	if len(cookie) != 1 || cookie[0].Name != "__Host-wr_session_club.final" || !cookie[0].Secure {
		t.Errorf("got cookies %v, want a Secure one with the __Host- prefix", cookie)
	}
}

func TestGateAnswersAPIClients(t *testing.T) {
	s := newShop(t, nil)
	_, good := s.room.sign(t, "R1", time.Hour)
	gone, revoked := s.room.sign(t, "R2", time.Hour)
	expiredSession := someSession
	expiredSession.StartsAt, expiredSession.ExpiresAt = time.Now().Add(-time.Hour), time.Now().Add(-time.Minute)
	expired, err := s.room.keys.Sign(expiredSession, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	otherQueue := someSession
	otherQueue.Queue, otherQueue.ID, otherQueue.StartsAt, otherQueue.ExpiresAt = "club.other", "club.other~R1", time.Now(), time.Now().Add(time.Hour)
	other, err := s.room.keys.Sign(otherQueue, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s.room.revoke(gone)
	s.awaitVerdict(t, revoked, ErrRevoked)
	html := func(h map[string][]string) map[string][]string {
		return map[string][]string{"Accept": browser["Accept"], "Authorization": h["Authorization"]}
	}
	for _, c := range []struct {
		name string
		request
		status int
		code   string
	}{
		{"good bearer", request{headers: bearer(good)}, 200, ""},
		{"good bearer in other letters", request{headers: map[string][]string{"Authorization": {"bearer  " + good}}}, 200, ""},
		{"good cookie", request{headers: client, cookie: good}, 200, ""},
		{"good cookie, POST", request{method: http.MethodPost, cookie: good}, 200, ""},
		{"good cookie beside the shop's own bearer", request{headers: bearer("shop-token"), cookie: good}, 200, ""},
		{"good bearer beside an old cookie", request{headers: bearer(good), cookie: expired}, 200, ""},
		{"nothing", request{headers: client}, 401, "session_required"},
		{"basic", request{headers: map[string][]string{"Authorization": {"Basic abc"}}}, 401, "session_required"},
		{"html refused", request{headers: map[string][]string{"Accept": {"text/html;q=0, */*"}}}, 401, "session_required"},
		{"not a session", request{headers: bearer("shop-token")}, 401, "invalid_session"},
		{"bearer that accepts html", request{headers: html(bearer("x"))}, 401, "invalid_session"},
		{"another queue", request{headers: bearer(other)}, 401, "invalid_session"},
		{"expired", request{headers: bearer(expired)}, 410, "session_ended"},
		{"revoked", request{headers: bearer(revoked)}, 410, "session_ended"},
		{"revoked in the cookie", request{headers: client, cookie: revoked}, 410, "session_ended"},
		{"two credentials", request{headers: map[string][]string{"Authorization": {"Bearer " + good, "Bearer x"}}}, 400, "duplicate_credentials"},
	} {
		c.target = "/buy"
		response, body := s.do(t, c.request)
		if response.StatusCode != c.status {
			t.Errorf("%s: got %d %s, want %d", c.name, response.StatusCode, body, c.status)
			continue
		}
		if c.status == http.StatusOK {
			continue
		}
		if p := problemOf(t, response, body); p.Code != c.code || p.Status != c.status || p.Title == "" {
			t.Errorf("%s: got %+v, want code %s and status %d", c.name, p, c.code, c.status)
		}
		if c.status == http.StatusUnauthorized && response.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: no WWW-Authenticate", c.name)
		}
	}
	// The cookie of an ended session is of no more use, and the fan may join again.
	for name, token := range map[string]string{"expired": expired, "revoked": revoked} {
		response, _ := s.do(t, request{target: "/buy", headers: browser, cookie: token})
		cookies := response.Cookies()
		if response.StatusCode != http.StatusSeeOther || len(cookies) != 1 || cookies[0].MaxAge >= 0 || cookies[0].Value != "" {
			t.Errorf("browser with a session that is %s: got %d and cookies %v, want 303 and the cookie cleared", name, response.StatusCode, cookies)
		}
		// An order cannot be redirected: a page leads to the waiting room, and from there to the front.
		response, body := s.do(t, request{method: http.MethodPost, target: "/buy", headers: browser, cookie: token})
		link := `href="https://wait.example.org/wait/club.final?return=` + url.QueryEscape(s.server.URL+"/") + `"`
		cookies = response.Cookies()
		if response.StatusCode != http.StatusGone || !strings.Contains(body, link) || len(cookies) != 1 || cookies[0].MaxAge >= 0 {
			t.Errorf("order with a session that is %s: got %d, cookies %v and %s, want 410, the cookie cleared and %s",
				name, response.StatusCode, cookies, body, link)
		}
	}
}

// TestSessionOfAnotherUser: a session that was sold or planted does not open the shop where the
// shop knows better.
func TestStaleGateSaysTryAgain(t *testing.T) {
	s := newShop(t, nil)
	_, token := s.room.sign(t, "R1", time.Hour)
	// A Validator that has not loaded yet.
	s.gate.Validator = &Validator{WhenStale: FailClosed}
	for name, q := range map[string]request{
		"browser":    {target: "/", headers: browser, cookie: token},
		"hand-over":  {target: "/?wr_session=" + token, headers: browser},
		"API client": {target: "/", headers: bearer(token)},
	} {
		response, body := s.do(t, q)
		if response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") == "" || len(response.Cookies()) != 0 {
			t.Errorf("%s: got %d %v %s, want 503 with Retry-After", name, response.StatusCode, response.Header, body)
		}
	}
}

func TestGateFields(t *testing.T) {
	v := &Validator{}
	queue := func(*http.Request) string { return testQueue }
	for _, c := range []struct {
		name string
		gate Gate
		want string
	}{
		{"no validator", Gate{WaitURL: "https://wait.example.org", Queue: queue}, "Validator"},
		{"no queue", Gate{Validator: v, WaitURL: "https://wait.example.org"}, "Queue"},
		{"no waiting page", Gate{Validator: v, Queue: queue}, "WaitURL"},
		{"script as waiting page", Gate{Validator: v, Queue: queue, WaitURL: "javascript:alert(1)"}, "WaitURL"},
		{"plain http off loopback", Gate{Validator: v, Queue: queue, WaitURL: "https://wait.example.org", PublicURL: "http://shop.example.org"}, "PublicURL"},
	} {
		if err := c.gate.Check(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error that names %s", c.name, err, c.want)
		}
		recorder := httptest.NewRecorder()
		c.gate.Handler(http.NotFoundHandler()).ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/", nil))
		if p := problemOf(t, recorder.Result(), recorder.Body.String()); recorder.Code != 500 || p.Code != "gate_misconfigured" {
			t.Errorf("%s: a request gets %d %+v, want 500 gate_misconfigured", c.name, recorder.Code, p)
		}
	}
	for _, id := range []string{"", "club", "club.", "Club.final", "club.final/../x", "club.final.x"} {
		s := newShop(t, func(g *Gate) { g.Queue = func(*http.Request) string { return id } })
		response, body := s.do(t, request{target: "/", headers: client})
		if p := problemOf(t, response, body); response.StatusCode != http.StatusNotFound || p.Code != "queue_unknown" {
			t.Errorf("queue %q: got %d %+v, want 404 queue_unknown", id, response.StatusCode, p)
		}
	}
}

// TestCookiesAreSecureButOnLoopback: without the prefix and Secure only where no browser would keep
// them otherwise. A shop whose proxy ends TLS is reached over https, whatever the request says.
// TestGateInsideStripPrefix: the way back is what the browser asked for, not what is left of it.
