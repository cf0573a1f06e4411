package edge

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/wire"
	"waitingroom/tokens"
)

func TestJoinWithAKey(t *testing.T) {
	o := newScripted(t)
	e := startEdge(t, o, nil)
	for _, test := range []struct {
		name, key, body string
		status          int
		code            string
	}{
		{"anonymous", "acme publishable", `{}`, 201, ""},
		{"anonymous with the secret key", "acme secret", ` {} `, 201, ""},
		{"new user", "acme secret", `{"userId":"u1"}`, 201, ""},
		{"known user", "acme secret", `{"userId":"known"}`, 200, ""},
		{"longest user id", "acme secret", `{"userId":"` + strings.Repeat("a", 128) + `"}`, 201, ""},
		{"user with the publishable key", "acme publishable", `{"userId":"u1"}`, 403, "secret_key_required"},
		{"user token of a tenant without a provider", "acme publishable", `{"userToken":"x"}`, 400, "user_token_not_accepted"},
		{"user id and token", "acme secret", `{"userId":"u","userToken":"x"}`, 400, "invalid_body"},
		{"empty user id", "acme secret", `{"userId":""}`, 400, "invalid_user_id"},
		{"long user id", "acme secret", `{"userId":"` + strings.Repeat("a", 129) + `"}`, 400, "invalid_user_id"},
		{"no user id", "acme secret", `{"userId":null}`, 400, "invalid_body"},
		{"number as user id", "acme secret", `{"userId":7}`, 400, "invalid_body"},
		{"bad UTF-8", "acme secret", "{\"userId\":\"\xff\"}", 400, "invalid_body"},
		{"unknown member", "acme secret", `{"vip":true}`, 400, "invalid_body"},
		{"other case", "acme secret", `{"userid":"u"}`, 400, "invalid_body"},
		{"member twice", "acme secret", `{"userId":"a","userId":"b"}`, 400, "invalid_body"},
		{"array", "acme secret", `[]`, 400, "invalid_body"},
		{"null", "acme secret", `null`, 400, "invalid_body"},
		{"two documents", "acme secret", `{}{}`, 400, "invalid_body"},
		{"cut off", "acme secret", `{"userId":`, 400, "invalid_body"},
		{"deep", "acme secret", strings.Repeat(`{"userId":`, 1000), 400, "invalid_body"},
		{"blank", "acme secret", ` `, 400, "invalid_body"},
		{"another tenant's key", "rival secret", `{}`, 404, "queue_not_found"},
	} {
		got := e.do("POST", "/queues/acme.sale/tickets", headers{"X-API-Key": o.apiKeys[test.key]}, test.body)
		if got.status != test.status || test.code != "" && got.code(t) != test.code {
			t.Errorf("%s: got %d %s, want %d %s", test.name, got.status, got.body, test.status, test.code)
			continue
		}
		if test.code != "" {
			continue
		}
		m := got.object(t)
		if m["ticketId"] == "" || m["state"] != "waiting" || m["position"] == nil || m["seq"] == nil {
			t.Errorf("%s: got %s, want the ticket and its status", test.name, got.body)
		}
		if got.header.Get("Set-Cookie") != "" {
			t.Errorf("%s: got a cookie, want none for a join with a key", test.name)
		}
		if cache := got.header.Get("Cache-Control"); cache != "no-store" {
			t.Errorf("%s: Cache-Control: got %q, want no-store", test.name, cache)
		}
		status := e.do("GET", "/tickets/"+m["ticketId"].(string), e.bearer(m["ticket"].(string)), "")
		if status.status != http.StatusOK {
			t.Errorf("%s: the ticket: got %d %s, want 200", test.name, status.status, status.body)
		}
	}

	for name, test := range map[string]struct {
		h      headers
		path   string
		status int
		code   string
	}{
		"no credentials": {headers{}, "/queues/acme.sale/tickets", 401, "api_key_required"},
		"unknown key":    {headers{"X-API-Key": "wr_sec_nonsense"}, "/queues/acme.sale/tickets", 401, "invalid_api_key"},
		"empty key":      {headers{"X-API-Key": ""}, "/queues/acme.sale/tickets", 401, "invalid_api_key"},
		"unknown queue":  {headers{"X-API-Key": o.apiKeys["acme secret"]}, "/queues/acme.none/tickets", 404, "queue_not_found"},
		"form":           {headers{"X-API-Key": o.apiKeys["acme secret"], "Content-Type": "application/x-www-form-urlencoded"}, "/queues/acme.sale/tickets", 415, "unsupported_media_type"},
		"text":           {headers{"X-API-Key": o.apiKeys["acme secret"], "Content-Type": "text/plain"}, "/queues/acme.sale/tickets", 415, "unsupported_media_type"},
		"JSON in UTF-8":  {headers{"X-API-Key": o.apiKeys["acme secret"], "Content-Type": "Application/JSON; charset=utf-8"}, "/queues/acme.sale/tickets", 201, ""},
	} {
		got := e.do("POST", test.path, test.h, `{}`)
		if got.status != test.status || test.code != "" && got.code(t) != test.code {
			t.Errorf("%s: got %d %s, want %d %s", name, got.status, got.body, test.status, test.code)
		}
	}
}

func TestJoinAnswersWithAnOfferOrASessionThatTheFeedHasNotTold(t *testing.T) {
	o := newScripted(t)
	claimBy := time.Now().Add(time.Minute).UTC().Truncate(time.Millisecond)
	var joined wire.Joined
	o.join = func(context.Context, wire.JoinRequest) (wire.JoinResponse, error) {
		return wire.JoinResponse{Incarnation: "inc1", Generation: "gen1", Entry: 44, Joins: []wire.Joined{joined}}, nil
	}
	e := startEdge(t, o, nil)
	joined = wire.Joined{Position: 7, New: true, ClaimBy: claimBy}
	m := e.do("POST", "/queues/acme.sale/tickets", headers{"X-API-Key": o.apiKeys["acme secret"]}, `{}`).object(t)
	if m["state"] != "admitted" || m["claimBy"] != claimBy.Format(time.RFC3339Nano) || m["ahead"] != nil || m["seq"] != "gen1.44" {
		t.Errorf("with an offer: got %v, want admitted as of entry 44", m)
	}
	joined = wire.Joined{Position: 7, ExpiresAt: claimBy}
	m = e.do("POST", "/queues/acme.sale/tickets", headers{"X-API-Key": o.apiKeys["acme secret"]}, `{"userId":"u"}`).object(t)
	if m["state"] != "active" || m["sessionExpiresAt"] != claimBy.Format(time.RFC3339Nano) || m["heldUntil"] != nil {
		t.Errorf("with a session: got %v, want active", m)
	}
}

func TestJoinIsRefused(t *testing.T) {
	o := newScripted(t)
	e := startEdge(t, o, nil)
	join := func(body string) answer {
		return e.do("POST", "/queues/acme.sale/tickets", headers{"X-API-Key": o.apiKeys["acme secret"]}, body)
	}
	settings := testView("acme.sale", "inc1").Settings
	settings.Identity = queue.IdentityRequired
	required := settings
	o.log("acme.sale", queue.Entry{Kind: queue.EntrySettings, Settings: &required})
	e.applied("acme.sale")
	if got := join(`{}`); got.status != http.StatusForbidden || got.code(t) != "identity_required" {
		t.Errorf("anonymous: got %d %s, want 403 identity_required", got.status, got.body)
	}
	if got := join(`{"userId":"u"}`); got.status != http.StatusCreated {
		t.Errorf("user: got %d %s, want 201", got.status, got.body)
	}
	settings.State = queue.Closed
	o.log("acme.sale", queue.Entry{Kind: queue.EntrySettings, Settings: &settings})
	e.applied("acme.sale")
	if got := join(`{"userId":"u"}`); got.status != http.StatusGone || got.code(t) != "queue_closed" {
		t.Errorf("closed: got %d %s, want 410 queue_closed", got.status, got.body)
	}
}

func TestJoinWithoutAnOriginIsAskedToComeBack(t *testing.T) {
	for name, test := range map[string]struct {
		err    error
		status int
		code   string
	}{
		"closed meanwhile":  {&wire.Error{Code: wire.CodeClosed}, 410, "queue_closed"},
		"deleted meanwhile": {fmt.Errorf("join: %w", &wire.Error{Code: wire.CodeNotFound}), 404, "queue_not_found"},
		"wrong secret":      {&wire.Error{Code: wire.CodeUnauthorized}, 500, "internal_error"},
	} {
		o := newScripted(t)
		o.join = func(context.Context, wire.JoinRequest) (wire.JoinResponse, error) {
			return wire.JoinResponse{}, test.err
		}
		e := startEdge(t, o, nil)
		got := e.do("POST", "/queues/acme.sale/tickets", headers{"X-API-Key": o.apiKeys["acme secret"]}, `{}`)
		if got.status != test.status || got.code(t) != test.code {
			t.Errorf("%s: got %d %s, want %d %s", name, got.status, got.body, test.status, test.code)
		}
		if err := e.stop(); err != nil {
			t.Error(err)
		}
	}
}

// cookieOf reads the one cookie that an answer sets.
func cookieOf(t *testing.T, a answer) *http.Cookie {
	t.Helper()
	list := (&http.Response{Header: a.header}).Cookies()
	if len(list) != 1 {
		t.Fatalf("cookies: got %v, want one", a.header["Set-Cookie"])
	}
	return list[0]
}

func TestJoinFromThePage(t *testing.T) {
	o := newScripted(t)
	e := startEdge(t, o, nil)
	path := "/queues/acme.sale/tickets"
	got := e.do("POST", path, e.fromPage(""), `{}`)
	if got.status != http.StatusCreated {
		t.Fatalf("join: got %d %s, want 201", got.status, got.body)
	}
	c := cookieOf(t, got)
	if c.Name != "wr_ticket_acme.sale" || !c.HttpOnly || c.Secure || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" {
		t.Errorf("cookie on http: got %v, want wr_ticket_acme.sale, HttpOnly, SameSite=Lax, Path=/", got.header["Set-Cookie"])
	}
	if days := c.MaxAge / 86_400; days < 29 || days > 30 {
		t.Errorf("cookie's age: got %d s, want the ticket's 30 days", c.MaxAge)
	}
	first := got.object(t)
	if first["ticket"] != c.Value {
		t.Error("the cookie does not hold the ticket")
	}

	// A reload has the same place, and so has a second tab.
	e.applied("acme.sale")
	cookie := c.Name + "=" + c.Value
	again := e.do("POST", path, e.fromPage(cookie), `{}`)
	if m := again.object(t); again.status != http.StatusOK || m["ticketId"] != first["ticketId"] || m["ticket"] != first["ticket"] {
		t.Errorf("with the cookie: got %d %s, want 200 with the same ticket", again.status, again.body)
	}
	if status := e.do("GET", "/tickets/"+first["ticketId"].(string), headers{"Cookie": "a=b; " + cookie}, ""); status.status != http.StatusOK {
		t.Errorf("status with the cookie: got %d %s, want 200", status.status, status.body)
	}
	// The same with an active session, but a place that is lost is not given again.
	for _, test := range []struct {
		entry queue.Entry
		keeps bool
	}{
		{queue.Entry{Kind: queue.EntryOffered, Watermark: 1, Until: time.Now().Add(time.Hour)}, true},
		{queue.Entry{Kind: queue.EntryClaimed, Session: "acme.sale~x", Since: time.Now(), Until: time.Now().Add(time.Hour)}, true},
		{queue.Entry{Kind: queue.EntryDone, Fate: queue.Ended}, false},
	} {
		test.entry.Positions = queue.Positions{1}
		o.log("acme.sale", test.entry)
		e.applied("acme.sale")
		got := e.do("POST", path, e.fromPage(cookie), `{}`)
		if kept := got.object(t)["ticketId"] == first["ticketId"]; kept != test.keeps || kept != (got.status == http.StatusOK) {
			t.Errorf("after %s: got %d, same place %v, want %v", test.entry.Kind, got.status, kept, test.keeps)
		}
	}

	for name, test := range map[string]struct {
		h      headers
		body   string
		status int
		code   string
	}{
		"another origin":  {headers{"Origin": shopOrigin}, `{}`, 403, "origin_forbidden"},
		"opaque origin":   {headers{"Origin": "null"}, `{}`, 403, "origin_forbidden"},
		"without origin":  {headers{"Cookie": cookie}, `{}`, 401, "api_key_required"},
		"names a user":    {e.fromPage(""), `{"userId":"u"}`, 403, "secret_key_required"},
		"cookie twice":    {e.fromPage(cookie + "; " + c.Name + "=x"), `{}`, 400, "duplicate_credentials"},
		"nonsense cookie": {e.fromPage(c.Name + "=x"), `{}`, 201, ""},
	} {
		got := e.do("POST", path, test.h, test.body)
		if got.status != test.status || test.code != "" && got.code(t) != test.code {
			t.Errorf("%s: got %d %s, want %d %s", name, got.status, got.body, test.status, test.code)
		}
	}
}

func TestCookieOnHTTPSIsBoundToTheHost(t *testing.T) {
	o := newScripted(t)
	e := startEdge(t, o, func(c *Config) { c.PublicURL = "https://wait.example" })
	got := e.do("POST", "/queues/acme.sale/tickets", headers{"Origin": "https://wait.example"}, `{}`)
	c := cookieOf(t, got)
	if c.Name != "__Host-wr_ticket_acme.sale" || !c.Secure || !c.HttpOnly || c.Path != "/" || c.Domain != "" {
		t.Errorf("cookie on https: got %v, want __Host-, Secure, HttpOnly, Path=/", got.header["Set-Cookie"])
	}
	// Without the prefix anybody on a sister host could have planted it.
	id := got.object(t)["ticketId"].(string)
	if got := e.do("GET", "/tickets/"+id, headers{"Cookie": "wr_ticket_acme.sale=" + c.Value}, ""); got.status != http.StatusUnauthorized {
		t.Errorf("cookie without the prefix: got %d, want 401", got.status)
	}
}

func TestTicketIsSignedFreshForAKnownUser(t *testing.T) {
	o := newScripted(t)
	e := startEdge(t, o, nil)
	join := func() map[string]any {
		return e.do("POST", "/queues/acme.sale/tickets", headers{"X-API-Key": o.apiKeys["acme secret"]}, `{"userId":"known"}`).object(t)
	}
	a, b := join(), join()
	if a["ticketId"] != b["ticketId"] || a["position"] != b["position"] {
		t.Errorf("the same user twice: got %v and %v, want the same place", a, b)
	}
	claims, err := o.ticketKeys.Verify([]byte(a["ticket"].(string)), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if claims.Subject != "known" || claims.Queue != "acme.sale" || claims.Incarnation != "inc1" || claims.Generation != "gen1" ||
		claims.ExpiresAt.Sub(claims.IssuedAt) != tokens.TicketLifetime {
		t.Errorf("claims: got %+v", claims)
	}
}
