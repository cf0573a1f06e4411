package tokens

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestHandOver(t *testing.T) {
	s := newShop(t, nil)
	session, token := s.room.sign(t, "R1", 10*time.Minute)
	for _, c := range []struct{ target, want string }{
		{"/buy?wr_session=" + token, "/buy"},
		{"/?a=1&wr_session=" + token + "&b=%2F&a=2", "/?a=1&b=%2F&a=2"},
		{"/?wr%5Fsession=" + token, "/"},
		{"//evil.example/?wr_session=" + token, "/.//evil.example/"},
		{"/%5Cevil.example/?wr_session=" + token, "/%5Cevil.example/"},
		{"/?x=ä&wr_session=" + token, "/?x=%C3%A4"},
	} {
		response, body := s.do(t, request{target: c.target, headers: map[string][]string{
			"Accept": browser["Accept"], "Referer": {"https://wait.example.org/?wr_session=" + token},
		}})
		if got := response.Header.Get("Location"); response.StatusCode != http.StatusSeeOther || got != c.want {
			t.Errorf("%s: got %d to %q, want 303 to %q", c.target, response.StatusCode, got, c.want)
			continue
		}
		base, _ := url.Parse("https://shop.example.org/")
		if to, err := base.Parse(response.Header.Get("Location")); err != nil || to.Host != base.Host {
			t.Errorf("%s: leads to %v, %v; want the same host", c.target, to, err)
		}
		if strings.Contains(body+response.Header.Get("Location"), token) {
			t.Errorf("%s: the answer repeats the token", c.target)
		}
		for name, want := range map[string]string{"Referrer-Policy": "no-referrer", "Cache-Control": "no-store"} {
			if got := response.Header.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", c.target, name, got, want)
			}
		}
		cookies := response.Cookies()
		if len(cookies) != 1 {
			t.Fatalf("%s: got cookies %v, want one", c.target, cookies)
		}
		k := cookies[0]
		left := int(time.Until(session.ExpiresAt) / time.Second)
		if k.Name != "wr_session_club.final" || k.Value != token || k.Path != "/" || k.Domain != "" || !k.HttpOnly || k.Secure ||
			k.SameSite != http.SameSiteLaxMode || k.MaxAge < left-5 || k.MaxAge > left+5 {
			t.Errorf("%s: got cookie %+v, want it HttpOnly, Lax, for / and until the expiry, and on loopback without Secure", c.target, k)
		}
		response, body = s.do(t, request{target: c.want, headers: browser, cookie: k.Value})
		if response.StatusCode != http.StatusOK || body != "sold to fan-7 true" {
			t.Errorf("%s with the cookie: got %d %q, want the shop with the session", c.want, response.StatusCode, body)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, text := range s.seen {
		if strings.Contains(text, token) || strings.Contains(text, "wr_session=") {
			t.Errorf("a handler or log sees %q", text)
		}
	}
}

func TestRefusedHandOverLeavesTheCookieAlone(t *testing.T) {
	s := newShop(t, func(g *Gate) { g.UserToken = func(*http.Request) string { return "ut" } })
	_, good := s.room.sign(t, "R1", time.Hour)
	gone, revoked := s.room.sign(t, "R2", time.Hour)
	s.room.revoke(gone)
	s.awaitVerdict(t, revoked, ErrRevoked)
	page := "https://wait.example.org/wait/club.final?return=" + url.QueryEscape(s.server.URL+"/buy?a=1")
	for name, query := range map[string]string{
		"forged": good + "x", "revoked": revoked, "empty": "", "two": good + "&wr_session=" + good, "bad escape": "%zz",
	} {
		target := "/buy?a=1&wr_session=" + query
		response, body := s.do(t, request{target: target, headers: browser, cookie: good})
		if response.StatusCode != http.StatusForbidden || len(response.Cookies()) != 0 {
			t.Errorf("%s: got %d with cookies %v, want 403 and none", name, response.StatusCode, response.Cookies())
		}
		link := `href="` + strings.ReplaceAll(page+"#wr_click=1&wr_user=ut", "&", "&amp;") + `"`
		if !strings.Contains(body, link) {
			t.Errorf("%s: got the page %s\nwant the link %s", name, body, link)
		}
		if response.Header.Get("Referrer-Policy") != "no-referrer" || !strings.HasPrefix(response.Header.Get("Content-Type"), "text/html") {
			t.Errorf("%s: got headers %v, want a page that tells nobody its address", name, response.Header)
		}
		response, body = s.do(t, request{target: target, headers: client, cookie: good})
		if p := problemOf(t, response, body); response.StatusCode != http.StatusForbidden || p.Code != "session_refused" || p.WaitURL != page {
			t.Errorf("%s from an API client: got %d %+v, want 403 session_refused with %s", name, response.StatusCode, p, page)
		}
	}
	if response, body := s.do(t, request{target: "/buy", headers: browser, cookie: good}); response.StatusCode != http.StatusOK {
		t.Errorf("the good session afterwards: got %d %s, want 200", response.StatusCode, body)
	}
	// A form's data cannot be redirected: the token is taken out, and the cookie counts.
	if response, body := s.do(t, request{method: http.MethodPost, target: "/?wr_session=" + good}); response.StatusCode != http.StatusUnauthorized {
		t.Errorf("POST with a token in the query: got %d %s, want 401", response.StatusCode, body)
	}
	if response, _ := s.do(t, request{method: http.MethodPost, target: "/?wr_session=bad", cookie: good}); response.StatusCode != http.StatusOK {
		t.Errorf("POST with cookie: got %d, want 200", response.StatusCode)
	}
}

func TestSessionOfAnotherUser(t *testing.T) {
	user, known := "fan-7", true
	var mu sync.Mutex
	s := newShop(t, func(g *Gate) {
		g.User = func(r *http.Request) (string, bool) {
			if strings.Contains(r.URL.RawQuery+r.RequestURI, "wr_session") {
				t.Error("the hook sees the token")
			}
			mu.Lock()
			defer mu.Unlock()
			return user, known
		}
	})
	_, token := s.room.sign(t, "R1", time.Hour)
	for _, c := range []struct {
		user   string
		known  bool
		status int
	}{{"fan-7", true, 200}, {"", false, 200}, {"fan-8", true, 403}, {"", true, 403}} {
		mu.Lock()
		user, known = c.user, c.known
		mu.Unlock()
		name := fmt.Sprintf("user %q known %v", c.user, c.known)
		handOver := c.status
		if handOver == 200 {
			handOver = 303
		}
		response, _ := s.do(t, request{target: "/?wr_session=" + token, headers: browser})
		if response.StatusCode != handOver || (len(response.Cookies()) > 0) != (handOver == 303) {
			t.Errorf("%s hands over: got %d with cookies %v, want %d", name, response.StatusCode, response.Cookies(), handOver)
		}
		response, body := s.do(t, request{target: "/", headers: browser, cookie: token})
		if response.StatusCode != c.status || (c.status == 403) != strings.Contains(body, "#wr_click=1") {
			t.Errorf("%s with the cookie: got %d %s, want %d", name, response.StatusCode, body, c.status)
		}
		response, body = s.do(t, request{target: "/", headers: bearer(token)})
		if response.StatusCode != c.status {
			t.Errorf("%s with the bearer: got %d, want %d", name, response.StatusCode, c.status)
		} else if c.status == 403 {
			if p := problemOf(t, response, body); p.Code != "session_of_other_user" {
				t.Errorf("%s: got %+v, want session_of_other_user", name, p)
			}
		}
	}
}

func TestCookiesAreSecureButOnLoopback(t *testing.T) {
	for _, c := range []struct {
		public, host string
		want         bool
	}{
		{"", "shop.example.org", true}, {"", "127.0.0.1.example.org", true}, {"", "localhost:8082", false}, {"", "127.0.0.1:1", false},
		{"", "[::1]:8082", false}, {"", "shop.localhost", false}, {"https://localhost", "localhost", true},
		{"https://shop.example.org", "127.0.0.1:8082", true}, {"http://localhost:8082", "shop.example.org", false},
	} {
		g := &Gate{PublicURL: c.public}
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Host = c.host
		if got := g.cookie(r, testQueue, "x", 1); got.Secure != c.want || strings.HasPrefix(got.Name, "__Host-") != c.want {
			t.Errorf("public %q, host %q: got cookie %v, want Secure and prefix %v", c.public, c.host, got, c.want)
		}
	}
}

func TestGateInsideStripPrefix(t *testing.T) {
	s := newShop(t, nil)
	_, token := s.room.sign(t, "R1", time.Hour)
	inner := http.StripPrefix("/store", s.gate.Handler(http.NotFoundHandler()))
	for target, want := range map[string]string{
		"/store/buy?wr_session=" + token: "/store/buy",
		"/store/buy?x=1":                 "https://wait.example.org/wait/club.final?return=" + url.QueryEscape("http://127.0.0.1/store/buy?x=1"),
	} {
		r := httptest.NewRequest(http.MethodGet, target, nil)
		r.Host = "127.0.0.1"
		r.Header.Set("Accept", "text/html")
		recorder := httptest.NewRecorder()
		inner.ServeHTTP(recorder, r)
		if got := recorder.Header().Get("Location"); got != want {
			t.Errorf("%s: got %d to %q, want %q", target, recorder.Code, got, want)
		}
	}
}
