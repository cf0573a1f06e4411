package edge

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/wire"
	"waitingroom/web"
)

func TestReturnURLsMustLieInTheQueuesShop(t *testing.T) {
	origins := map[string]struct{}{shopOrigin: {}, "http://localhost:3000": {}}
	for to, want := range map[string]bool{
		"https://shop.example":                                       true,
		"https://shop.example/":                                      true,
		"https://shop.example/a/b?c=d&e=%2F#f":                       true,
		"https://shop.example?x=1":                                   true,
		"https://shop.example#x":                                     true,
		"http://localhost:3000/cart":                                 true,
		"":                                                           false,
		"/cart":                                                      false,
		"//shop.example/":                                            false,
		"https:shop.example":                                         false,
		"https:/shop.example/":                                       false,
		"https:///shop.example/":                                     false,
		"http://shop.example/":                                       false, // another scheme
		"https://shop.example:443/":                                  false, // spelled differently
		"https://shop.example:8443/":                                 false,
		"https://SHOP.example/":                                      false,
		"HTTPS://shop.example/":                                      false,
		"https://shop.example.evil.example/":                         false,
		"https://shop.example@evil.example/":                         false,
		"https://evil.example@shop.example/":                         false, // userinfo
		"https://evil.example/https://shop.example/":                 false,
		"https://shop.example\\@evil.example/":                       false,
		"https://shop.example/\\evil.example":                        false,
		"https://shop.example/a b":                                   false,
		"https://shop.example/\t":                                    false,
		"https://shop.example/\r\nX: y":                              false,
		"https://shop.example/\u0085":                                false,
		"https://shop.example/\xff":                                  false,
		" https://shop.example/":                                     false,
		"https://shop%2eexample/":                                    false,
		"https://shop.example./":                                     false,
		"javascript:alert(1)//https://shop.example":                  false,
		"https://shop.example/" + strings.Repeat("a", longestReturn): false,
	} {
		if got := allowedReturn(to, origins); got != want {
			t.Errorf("allowedReturn(%q): got %v, want %v", to, got, want)
		}
	}
}

func TestPage(t *testing.T) {
	e := startEdge(t, newScripted(t), nil)
	got := e.do("GET", "/wait/acme.sale?return="+url.QueryEscape(shopOrigin+"/cart?id=1"), nil, "")
	if got.status != http.StatusOK || got.body != string(web.Page()) {
		t.Fatalf("page: got %d and %d bytes, want 200 and the page", got.status, len(got.body))
	}
	for name, want := range map[string]string{
		"Content-Type":            "text/html; charset=utf-8",
		"Content-Security-Policy": web.ContentSecurityPolicy(e.PublicURL()),
		"Referrer-Policy":         "no-referrer",
		"X-Content-Type-Options":  "nosniff",
		"X-Frame-Options":         "DENY",
		"Cache-Control":           "no-cache",
	} {
		if value := got.header.Get(name); value != want {
			t.Errorf("%s: got %q, want %q", name, value, want)
		}
	}
	if got := e.do("GET", "/wait/acme.sale", headers{"If-None-Match": got.header.Get("ETag")}, ""); got.status != http.StatusNotModified || got.body != "" {
		t.Errorf("page that the browser has: got %d %q, want 304", got.status, got.body)
	}
	if got := e.do("HEAD", "/wait/acme.sale", nil, ""); got.status != http.StatusOK || got.body != "" {
		t.Errorf("HEAD: got %d %q, want 200 without a body", got.status, got.body)
	}

	for name, path := range map[string]string{
		"forbidden return":  "/wait/acme.sale?return=" + url.QueryEscape("https://evil.example/x"),
		"empty return":      "/wait/acme.sale?return=",
		"two returns":       "/wait/acme.sale?return=" + url.QueryEscape(shopOrigin) + "&return=" + url.QueryEscape(shopOrigin),
		"hidden host":       "/wait/acme.sale?return=" + url.QueryEscape(shopOrigin+`\@evil.example/`),
		"another's tenants": "/wait/rival.sale?return=" + url.QueryEscape("https://other.example/"),
	} {
		for accept, contentType := range map[string]string{
			"text/html,application/xhtml+xml;q=0.9": "text/html; charset=utf-8",
			"application/json":                      "application/problem+json",
		} {
			got := e.do("GET", path, headers{"Accept": accept}, "")
			if got.status != http.StatusBadRequest || got.header.Get("Content-Type") != contentType {
				t.Errorf("%s for somebody who reads %s: got %d %s, want 400 %s", name, accept, got.status, got.header.Get("Content-Type"), contentType)
			}
			if got.header.Get("Location") != "" || strings.Contains(got.body, "evil") || strings.Contains(got.body, "<a") {
				t.Errorf("%s: got %v %q, want neither a redirect nor a link", name, got.header, got.body)
			}
			if styled := strings.Contains(got.body, `<link rel="stylesheet" href="/assets/wait.css">`); styled != strings.HasPrefix(contentType, "text/html") {
				t.Errorf("%s for somebody who reads %s: got %q, want the page's style in a page alone", name, accept, got.body)
			}
		}
	}
	for _, path := range []string{"/wait/acme.none", "/wait/nonsense", "/wait/ACME.sale", "/wait/acme.sale/plain", "/wait/"} {
		if got := e.do("GET", path, nil, ""); got.status != http.StatusNotFound {
			t.Errorf("GET %s: got %d, want 404", path, got.status)
		}
	}
	unknown := e.do("GET", "/wait/acme.none", headers{"Accept": "text/html"}, "")
	if unknown.status != http.StatusNotFound || !strings.Contains(unknown.body, "<main><h1>There is no such queue</h1>") {
		t.Errorf("a browser at an unknown queue: got %d %q, want 404 and a page that says so", unknown.status, unknown.body)
	}
}

func TestAssets(t *testing.T) {
	e := startEdge(t, newScripted(t), nil)
	got := e.do("GET", "/assets/wait.mjs", nil, "")
	want, contentType, _ := web.Asset("wait.mjs")
	if got.status != http.StatusOK || got.body != string(want) || got.header.Get("Content-Type") != contentType {
		t.Errorf("asset: got %d %q and %d bytes, want 200 %q and %d", got.status, got.header.Get("Content-Type"), len(got.body), contentType, len(want))
	}
	if got.header.Get("X-Content-Type-Options") != "nosniff" || !strings.HasPrefix(got.header.Get("Cache-Control"), "public") {
		t.Errorf("asset: got headers %v, want nosniff and public caching", got.header)
	}
	for _, name := range []string{"none.mjs", "..%2fpage.html", "%2e%2e%2fweb.go", "wait"} {
		if got := e.do("GET", "/assets/"+name, nil, ""); got.status != http.StatusNotFound {
			t.Errorf("GET /assets/%s: got %d, want 404", name, got.status)
		}
	}
}

func TestPublicDescription(t *testing.T) {
	e := startEdge(t, newScripted(t), nil)
	got := e.do("GET", "/queues/acme.sale", nil, "")
	want := `{"id":"acme.sale","state":"open","identity":"optional","branding":{"name":"Acme"},"locale":"en","returnOrigins":["https://shop.example"],"polling":"direct"}`
	if got.status != http.StatusOK || got.body != want {
		t.Errorf("description: got %d %s, want 200 %s", got.status, got.body, want)
	}
	if cache := got.header.Get("Cache-Control"); cache != "public, max-age=5" {
		t.Errorf("Cache-Control: got %q, want public, max-age=5", cache)
	}
	cached := startEdge(t, newScripted(t), func(c *Config) { c.Polling = PollingCached })
	if got := cached.do("GET", "/queues/acme.sale", nil, "").object(t); got["polling"] != "cached" {
		t.Errorf("polling of an edge with a cache in front: got %v, want cached", got["polling"])
	}
	if got := e.do("GET", "/queues/acme.none", nil, ""); got.status != http.StatusNotFound || got.code(t) != "queue_not_found" {
		t.Errorf("unknown queue: got %d %s, want 404 queue_not_found", got.status, got.body)
	}
}

func TestPublicState(t *testing.T) {
	o := newScripted(t)
	e := startEdge(t, o, nil)
	o.log("acme.sale",
		queue.Entry{Kind: queue.EntryJoined, Issued: 3000},
		queue.Entry{Kind: queue.EntryOffered, Positions: queue.Positions{1, 2}, Watermark: 2, Until: time.Now().Add(time.Minute)})
	e.applied("acme.sale")
	got := e.do("GET", "/queues/acme.sale/state", nil, "")
	if cache := got.header.Get("Cache-Control"); got.status != http.StatusOK || cache != "public, max-age=1" {
		t.Errorf("state: got %d, Cache-Control %q, want 200, public, max-age=1", got.status, cache)
	}
	var summary queue.Summary
	if err := json.Unmarshal([]byte(got.body), &summary); err != nil {
		t.Fatal(err)
	}
	if summary.Watermark != 2 || summary.Issued != 3000 || summary.Waiting != 2998 || len(summary.Blocks) != 3 {
		t.Errorf("state: got %s, want watermark 2 of 3000", got.body)
	}
	if again, _ := json.Marshal(summary); string(again) != got.body {
		t.Errorf("state document:\n got %s\nwant %s", got.body, again)
	}

	tag := got.header.Get("ETag")
	o.log("acme.sale", queue.Entry{Kind: queue.EntryDone, Positions: queue.Positions{2500}, Fate: queue.Left})
	e.applied("acme.sale")
	if got := e.do("GET", "/queues/acme.sale/state", headers{"If-None-Match": tag}, ""); got.status != http.StatusOK || got.header.Get("ETag") == tag {
		t.Errorf("changed state: got %d, want 200 with another tag", got.status)
	}
}

// The public state has a form for those who take gzip, each with a tag of its own; the tag outlives
// the second, but neither a change nor the step after which a reader doubts what a cache answers.
func TestPublicStateIsCacheable(t *testing.T) {
	o := newScripted(t)
	e := startEdge(t, o, nil)
	o.log("acme.sale", queue.Entry{Kind: queue.EntryJoined, Issued: 3000})
	e.applied("acme.sale")
	view := e.known.current.Load().lines["acme.sale"].view.Load()
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	made := func(at time.Time, stale bool) *stateDocument {
		doc, err := makeStateDocument(view, at, stale)
		if err != nil {
			t.Fatal(err)
		}
		return doc
	}
	for what, c := range map[string]struct {
		at    time.Time
		stale bool
		same  bool
	}{
		"at once": {noon, false, true}, "a little later": {noon.Add(4999 * time.Millisecond), false, true},
		"after the step": {noon.Add(stateTagStep), false, false}, "stale": {noon, true, false},
	} {
		if got := made(c.at, c.stale).tag == made(noon, false).tag; got != c.same {
			t.Errorf("the same tag %s: got %v, want %v", what, got, c.same)
		}
	}

	for range 3 { // lest the step ends just between two requests
		begun := e.known.clock.now().Truncate(stateTagStep)
		plain := e.do("GET", "/queues/acme.sale/state", headers{"Accept-Encoding": "identity"}, "")
		zipped := e.do("GET", "/queues/acme.sale/state", headers{"Accept-Encoding": "br, gzip"}, "")
		known := e.do("GET", "/queues/acme.sale/state", headers{"Accept-Encoding": "identity", "If-None-Match": `"x", W/` + plain.header.Get("ETag")}, "")
		other := e.do("GET", "/queues/acme.sale/state", headers{"Accept-Encoding": "identity", "If-None-Match": zipped.header.Get("ETag")}, "")
		knownZipped := e.do("GET", "/queues/acme.sale/state", headers{"Accept-Encoding": "gzip", "If-None-Match": zipped.header.Get("ETag")}, "")
		head := e.do("HEAD", "/queues/acme.sale/state", headers{"Accept-Encoding": "identity"}, "")
		if !e.known.clock.now().Truncate(stateTagStep).Equal(begun) {
			continue
		}
		reader, err := gzip.NewReader(strings.NewReader(zipped.body))
		if err != nil {
			t.Fatalf("the form for those who take gzip: %v", err)
		}
		unzipped, err := io.ReadAll(reader)
		var a, b queue.Summary
		if err != nil || json.Unmarshal(unzipped, &a) != nil || json.Unmarshal([]byte(plain.body), &b) != nil || a.Seq != b.Seq || a.Issued != 3000 {
			t.Errorf("the compressed form: got %q, error %v, want the same as %s", unzipped, err, plain.body)
		}
		if plain.header.Get("ETag") == zipped.header.Get("ETag") {
			t.Errorf("tags of both forms: got %s twice, want two", plain.header.Get("ETag"))
		}
		for what, got := range map[string]answer{"known": known, "known and compressed": knownZipped} {
			if got.status != http.StatusNotModified || got.body != "" || got.header.Get("Vary") != "Accept-Encoding" {
				t.Errorf("%s: got %d %q, Vary %q, want 304", what, got.status, got.body, got.header.Get("Vary"))
			}
		}
		if other.status != http.StatusOK {
			t.Errorf("known in the other form: got %d, want 200", other.status)
		}
		if head.status != http.StatusOK || head.body != "" || head.header.Get("ETag") != plain.header.Get("ETag") ||
			head.header.Get("Cache-Control") != "public, max-age=1" || head.header.Get("Content-Length") == "0" {
			t.Errorf("HEAD: got %d %q %v, want the header of GET", head.status, head.body, head.header)
		}
		return
	}
	t.Error("could not ask six times within a step of the tag, three times over")
}

func TestJWKS(t *testing.T) {
	o := newScripted(t)
	e := startEdge(t, o, nil)
	got := e.do("GET", "/.well-known/jwks.json", nil, "")
	if got.status != http.StatusOK || got.body != string(o.tenants.JWKS) || got.header.Get("Content-Type") != "application/jwk-set+json" {
		t.Errorf("jwks: got %d %q, want the origin's keys", got.status, got.header.Get("Content-Type"))
	}
}

func TestCORSIsForShopsWithABearerToken(t *testing.T) {
	o := newScripted(t)
	e := startEdge(t, o, nil)
	token, id := o.ticket(t, nil)
	withOrigin := func(origin string, h headers) headers {
		h["Origin"] = origin
		return h
	}
	got := e.do("GET", "/tickets/"+id, withOrigin(shopOrigin, e.bearer(token)), "")
	if allowed := got.header.Get("Access-Control-Allow-Origin"); got.status != http.StatusOK || allowed != shopOrigin || got.header.Get("Vary") != "Origin" {
		t.Errorf("the shop with a bearer token: got %d, allowed %q, want 200 and itself", got.status, allowed)
	}
	got = e.do("GET", "/tickets/"+id, withOrigin("https://evil.example", e.bearer(token)), "")
	if allowed := got.header.Get("Access-Control-Allow-Origin"); allowed != "" {
		t.Errorf("another origin: got %q allowed, want none", allowed)
	}
	got = e.do("GET", "/tickets/"+id, withOrigin(shopOrigin, headers{"Cookie": "wr_ticket_acme.sale=" + token}), "")
	if allowed := got.header.Get("Access-Control-Allow-Origin"); allowed != "" {
		t.Errorf("the shop with the cookie: got %q allowed, want none", allowed)
	}

	preflight := func(path, origin string) answer {
		return e.do("OPTIONS", path, headers{"Origin": origin, "Access-Control-Request-Method": "DELETE"}, "")
	}
	got = preflight("/tickets/"+id, shopOrigin)
	if allowed := got.header.Get("Access-Control-Allow-Origin"); got.status != http.StatusNoContent || allowed != shopOrigin || !strings.Contains(got.header.Get("Access-Control-Allow-Headers"), "Authorization") {
		t.Errorf("preflight of the shop: got %d %v, want 204 and itself allowed", got.status, got.header)
	}
	if got := preflight("/tickets/"+id+"/session", "https://evil.example"); got.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("preflight of another origin: got %v, want nothing allowed", got.header)
	}
	if got := preflight("/tickets/"+id+"/handover", shopOrigin); got.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("preflight of the hand-over: got %v, want nothing allowed", got.header)
	}
	for _, got := range []answer{preflight("/tickets/"+id, shopOrigin), e.do("GET", "/tickets/"+id, withOrigin(shopOrigin, e.bearer(token)), "")} {
		if credentials := got.header.Get("Access-Control-Allow-Credentials"); credentials != "" {
			t.Errorf("Access-Control-Allow-Credentials: got %q, want none ever", credentials)
		}
	}

	// A retuned queue's new shop is known at once, the old one no more.
	settings := testView("acme.sale", "inc1").Settings
	settings.ReturnOrigins = []string{"https://new.example"}
	for _, id := range []queue.ID{"acme.other", "rival.sale"} {
		o.tell(wire.Frame{Removed: &wire.Removed{Queue: id}})
	}
	o.log("acme.sale", queue.Entry{Kind: queue.EntrySettings, Settings: &settings})
	e.applied("acme.sale")
	waitFor(t, "the new shop to be allowed", func() bool {
		return preflight("/tickets/"+id, "https://new.example").header.Get("Access-Control-Allow-Origin") != ""
	})
	if got := preflight("/tickets/"+id, shopOrigin); got.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("preflight of the former shop: got %v, want nothing allowed", got.header)
	}
}

func TestThePageComesCompressedToWhoeverTakesIt(t *testing.T) {
	e := startEdge(t, newScripted(t), nil)
	for _, path := range []string{"/wait/acme.sale", "/assets/wait.mjs", "/assets/wait.css", "/assets/icon.svg"} {
		plain := e.do("GET", path, headers{"Accept-Encoding": "identity"}, "")
		zipped := e.do("GET", path, headers{"Accept-Encoding": "br, gzip"}, "")
		if got := plain.header.Get("Content-Encoding"); got != "" {
			t.Errorf("%s for a browser that takes no gzip: got Content-Encoding %q, want none", path, got)
		}
		if got := zipped.header.Get("Content-Encoding"); got != "gzip" {
			t.Errorf("%s for a browser that takes gzip: got Content-Encoding %q, want gzip", path, got)
			continue
		}
		reader, err := gzip.NewReader(strings.NewReader(zipped.body))
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		content, err := io.ReadAll(reader)
		if err != nil || string(content) != plain.body {
			t.Errorf("%s: unpacked it differs from what is sent plain: %v", path, err)
		}
		tag := zipped.header.Get("ETag")
		if tag == plain.header.Get("ETag") || plain.header.Get("Vary") != "Accept-Encoding" || zipped.header.Get("Vary") != "Accept-Encoding" {
			t.Errorf("%s: got ETags %s and %s, Vary %q, want caches to tell both forms apart", path, tag, plain.header.Get("ETag"), zipped.header.Get("Vary"))
		}
		if got := e.do("GET", path, headers{"Accept-Encoding": "gzip", "If-None-Match": tag}, ""); got.status != http.StatusNotModified {
			t.Errorf("%s with its tag: got %d, want 304", path, got.status)
		}
	}
}
