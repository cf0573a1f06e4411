package edge

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"waitingroom/origin/wire"
	"waitingroom/tokens"
)

func TestAccess(t *testing.T) {
	o := newScripted(t)
	e := startEdge(t, o, nil)
	expires := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	good := o.session(t, func(s *tokens.Session) { s.ExpiresAt = expires })
	for range 2 { // the second time from memory
		got := e.do("GET", "/access", e.bearer(good), "")
		want := fmt.Sprintf(`{"sub":"fan-1","queue":"acme.sale","expiresAt":%q}`, expires.Format(time.RFC3339))
		if got.status != http.StatusOK || got.body != want {
			t.Errorf("active: got %d %s, want 200 %s", got.status, got.body, want)
		}
		if cache := got.header.Get("Cache-Control"); cache != "private, max-age=2" || got.header.Get("Vary") != "Authorization" {
			t.Errorf("active: got Cache-Control %q, Vary %q, want private, max-age=2 and Authorization", cache, got.header.Get("Vary"))
		}
	}

	past := o.session(t, func(s *tokens.Session) {
		s.ID, s.StartsAt, s.ExpiresAt = "acme.sale~past", time.Now().Add(-time.Hour), time.Now().Add(-time.Minute)
	})
	revoked := o.session(t, func(s *tokens.Session) { s.ID = "acme.sale~revoked" })
	ticket, _ := o.ticket(t, nil)
	foreign := newScripted(t).session(t, nil)
	strangersTenant := o.session(t, func(s *tokens.Session) { s.Tenant, s.Queue, s.ID = "nobody", "nobody.sale", "nobody.sale~1" })
	if got := e.do("GET", "/access", e.bearer(revoked), ""); got.status != http.StatusOK {
		t.Errorf("before it was revoked: got %d, want 200", got.status)
	}
	o.revoke("acme", "c1", "acme.sale~revoked", "acme.sale~unknown")
	waitFor(t, "the revocation", func() bool { return e.do("GET", "/access", e.bearer(revoked), "").status != http.StatusOK })

	for name, test := range map[string]struct {
		query, token string
		status       int
		code         string
	}{
		"right queue":            {"?queue=acme.sale", good, 200, ""},
		"another queue":          {"?queue=acme.other", good, 401, "invalid_session"},
		"another tenant's queue": {"?queue=rival.sale", good, 401, "invalid_session"},
		"expired":                {"", past, 410, "session_ended"},
		"expired for a proxy":    {"?gone=401", past, 401, "session_ended"},
		"expired, another queue": {"?queue=acme.other", past, 401, "invalid_session"},
		"revoked":                {"", revoked, 410, "session_ended"},
		"revoked for a proxy":    {"?gone=401&queue=acme.sale", revoked, 401, "session_ended"},
		"revoked, another queue": {"?queue=acme.other", revoked, 401, "invalid_session"},
		"ticket":                 {"", ticket, 401, "invalid_session"},
		"foreign keys":           {"", foreign, 401, "invalid_session"},
		"unknown tenant":         {"", strangersTenant, 401, "invalid_session"},
		"nonsense":               {"", "a.b.c", 401, "invalid_session"},
		"active for a proxy":     {"?gone=401", good, 200, ""},
		"strange gone":           {"?gone=500", good, 400, "invalid_parameter"},
	} {
		got := e.do("GET", "/access"+test.query, e.bearer(test.token), "")
		if got.status != test.status || test.code != "" && got.code(t) != test.code {
			t.Errorf("%s: got %d %s, want %d %s", name, got.status, got.body, test.status, test.code)
		}
		if test.status != 200 && got.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: got Cache-Control %q, want no-store", name, got.header.Get("Cache-Control"))
		}
	}
	if got := e.do("GET", "/access", nil, ""); got.status != http.StatusUnauthorized || got.code(t) != "session_required" || got.header.Get("WWW-Authenticate") != "Bearer" {
		t.Errorf("no token: got %d %s, want 401 session_required", got.status, got.body)
	}
	if strings.Contains(e.logs.String(), "fan-1") || strings.Contains(e.logs.String(), good[:40]) {
		t.Error("the log holds a user id or a token")
	}
}

func TestRememberedSessionEndsAtItsExpiry(t *testing.T) {
	o := newScripted(t)
	e := startEdge(t, o, nil)
	token := o.session(t, func(s *tokens.Session) { s.ExpiresAt = time.Now().Add(2 * time.Second) })
	got := e.do("GET", "/access", e.bearer(token), "")
	if got.status != http.StatusOK || got.header.Get("Cache-Control") != "private, max-age=1" {
		t.Errorf("just before: got %d %q, want 200 for no longer than it runs", got.status, got.header.Get("Cache-Control"))
	}
	waitFor(t, "the expiry", func() bool { return e.do("GET", "/access", e.bearer(token), "").status == http.StatusGone })
}

func TestAccessWithoutAnOrigin(t *testing.T) {
	for whenStale, want := range map[string]int{FailOpen: 200, FailClosed: 503} {
		o := newScripted(t)
		e := startEdge(t, o, func(c *Config) { c.WhenStale, c.MaxStaleSeconds = whenStale, 10 })
		o.mu.Lock()
		o.silent = true
		o.mu.Unlock()
		good := o.session(t, nil)
		ended := o.session(t, func(s *tokens.Session) { s.ID = "acme.sale~ended" })
		o.revoke("acme", "c1", "acme.sale~ended")
		waitFor(t, "the revocation", func() bool { return e.do("GET", "/access", e.bearer(ended), "").status == http.StatusGone })
		aged := func(age time.Duration) {
			e.known.clock.ready.Store(int64(time.Since(e.known.clock.start) - age))
		}
		// One beat may have been under way when the silence began.
		waitFor(t, "8 s of age to be accepted", func() bool {
			aged(8 * time.Second)
			return e.do("GET", "/access", e.bearer(good), "").status == http.StatusOK
		})
		waitFor(t, fmt.Sprintf("%s after 12 s: %d", whenStale, want), func() bool {
			aged(12 * time.Second)
			return e.do("GET", "/access", e.bearer(good), "").status == want
		})
		if got := e.do("GET", "/access", e.bearer(ended), ""); got.status != http.StatusGone {
			t.Errorf("%s: known to have ended: got %d, want 410", whenStale, got.status)
		}
		if got := e.do("GET", "/access", e.bearer("x"), ""); got.status != http.StatusUnauthorized {
			t.Errorf("%s: nonsense: got %d, want 401", whenStale, got.status)
		}
		// A validator that was given an old list would take it for a fresh one.
		if got := e.do("GET", "/revocations", headers{"X-API-Key": o.apiKeys["acme secret"]}, ""); got.status != http.StatusServiceUnavailable {
			t.Errorf("%s: revocations: got %d, want 503", whenStale, got.status)
		}
		if err := e.stop(); err != nil {
			t.Error(err)
		}
	}
}

func TestRevocationsOverHTTP(t *testing.T) {
	o := newScripted(t)
	e := startEdge(t, o, nil)
	o.revoke("acme", "c1", "acme.sale~1")
	o.revoke("acme", "c2", "acme.sale~2")
	o.revoke("rival", "r1", "rival.sale~1")
	get := func(key, query string) answer {
		return e.do("GET", "/revocations"+query, headers{"X-API-Key": o.apiKeys[key]}, "")
	}
	waitFor(t, "the revocations", func() bool { return strings.Contains(get("rival secret", "").body, "rival.sale~1") })
	got := get("acme secret", "")
	m := got.object(t)
	if list := m["revocations"].([]any); got.status != 200 || len(list) != 2 || m["cursor"] != "c2" || m["reset"] != true ||
		list[0].(map[string]any)["id"] != "acme.sale~1" || list[0].(map[string]any)["expiresAt"] == nil {
		t.Errorf("whole list: got %s, want both of acme's and none of rival's", got.body)
	}
	if m := get("acme secret", "?after=c1").object(t); len(m["revocations"].([]any)) != 1 || m["reset"] != false {
		t.Errorf("after c1: got %v, want the second one only", m)
	}
	if got := get("acme secret", "?after=c2"); !strings.HasPrefix(got.body, `{"revocations":[],`) {
		t.Errorf("after the end: got %s, want an empty list", got.body)
	}
	if m := get("acme secret", "?after=r1").object(t); m["reset"] != true {
		t.Errorf("another tenant's cursor: got %v, want a reset", m)
	}
	for key, want := range map[string]string{"acme publishable": "secret_key_required", "nobody's": "invalid_api_key"} {
		if got := get(key, ""); got.code(t) != want {
			t.Errorf("%s key: got %d %s, want %s", key, got.status, got.body, want)
		}
	}
	if got := e.do("GET", "/revocations", nil, ""); got.status != http.StatusUnauthorized {
		t.Errorf("no key: got %d, want 401", got.status)
	}
}

func TestRevocationCursors(t *testing.T) {
	now := time.Now()
	frame := func(cursor string, reset bool, ids ...string) wire.Revocations {
		f := wire.Revocations{Cursor: cursor, Reset: reset}
		for _, id := range ids {
			f.List = append(f.List, wire.Revocation{ID: id, ExpiresAt: now.Add(time.Hour)})
		}
		return f
	}
	r := newRevocations()
	check := func(after, wantIDs, wantCursor string, wantReset bool) {
		t.Helper()
		list, cursor, reset := r.after(after)
		var ids []string
		for _, one := range list {
			ids = append(ids, one.ID)
		}
		if got := strings.Join(ids, " "); got != wantIDs || cursor != wantCursor || reset != wantReset {
			t.Errorf("after %q: got [%s] %q %v, want [%s] %q %v", after, got, cursor, reset, wantIDs, wantCursor, wantReset)
		}
	}
	check("", "", "", true)
	check("c0", "", "", true)
	r.apply(frame("c1", true, "a"), now)
	r.apply(frame("c2", false, "b"), now)
	r.apply(frame("c3", false, "b", "c"), now) // told twice
	check("", "a b c", "c3", true)
	check("c1", "b c", "c3", false)
	check("c2", "c", "c3", false)
	check("c3", "", "c3", false)
	check("c4", "a b c", "c3", true) // beyond the end
	r.apply(frame("c3", true, "a", "b", "c"), now)
	check("c1", "b c", "c3", false)      // a new connection told the same
	r.apply(frame("c1", true, "a"), now) // an origin that reads behind
	check("c1", "b c", "c3", false)
	check("", "a b c", "c3", true)
	r.apply(frame("c2b", false, "b"), now) // and catches up
	check("c2b", "c", "c3", false)
	r.apply(frame("c0", true), now) // one that knows of none
	check("c0", "a b c", "c3", false)
	r.apply(frame("c9", true, "c", "d"), now) // a list of which the beginning was lost
	check("c3", "d", "c9", false)
	check("c9", "", "c9", false)
	check("", "a b c d", "c9", true)

	// Kept until the expiry plus the leeway of verifiers.
	short := wire.Revocations{Cursor: "c10", List: []wire.Revocation{{ID: "e", ExpiresAt: now.Add(time.Minute)}}}
	r.apply(short, now)
	r.apply(frame("c11", false, "f"), now.Add(2*time.Minute))
	if !r.has("e") {
		t.Error("a minute after its expiry: the revocation is forgotten, want it kept")
	}
	r.apply(frame("c12", false, "g"), now.Add(2*time.Minute+time.Second))
	if r.has("e") || !r.has("d") {
		t.Errorf("later: got e %v, d %v, want only d", r.has("e"), r.has("d"))
	}
	check("c9", "f g", "c12", false)
	check("c10", "f g", "c12", false)
	check("c11", "g", "c12", false)
}
