package deploy_test

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// from is a client on a loopback address of its own, who unpacks nothing by itself.
func from(t *testing.T, address string) *http.Client {
	transport := &http.Transport{
		DialContext:        (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}).DialContext,
		DisableCompression: true,
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

// TestCacheInFront: what nginx, as we configure it, keeps and what it never keeps.
func TestCacheInFront(t *testing.T) {
	t.Parallel()
	in, front, nginx := behindNginx(t, setup{edgeConfig: "polling: cached\nlimits: {joinsPerAddress: {perSecond: 1, burst: 3}}\n"})
	queue := in.createQueue("match", `"capacity":1,"returnOrigins":["https://shop.example.com"]`)
	state := "/queues/" + queue + "/state"
	client := from(t, "127.0.0.1")
	get := func(path string, headers ...string) answer {
		t.Helper()
		return in.requestBy(client, "GET", front+path, "", headers)
	}

	t.Run("everybody gets the one public state", func(t *testing.T) {
		in := in.within(t)
		in.eventually(5*time.Second, "the cache has it", func() bool { return get(state).header.Get("X-Cache") == "HIT" })
		plain, zipped := get(state), get(state, "Accept-Encoding: br, gzip")
		unpacked, err := gzip.NewReader(strings.NewReader(zipped.raw))
		if err != nil {
			t.Fatalf("whoever takes gzip: got %q, error %v", zipped.raw, err)
		}
		text, err := io.ReadAll(unpacked)
		if err != nil || !json.Valid(text) || !json.Valid([]byte(plain.raw)) || !strings.Contains(string(text), `"watermark"`) {
			t.Errorf("got %s and, unpacked, %s (error %v), want the document twice", plain.raw, text, err)
		}
		for what, got := range map[string]answer{"plain": plain, "compressed": zipped} {
			h := got.header
			if got.status != 200 || h.Get("Cache-Control") != "public, max-age=1" || h.Get("Access-Control-Allow-Origin") != "*" || h.Get("ETag") == "" || h.Get("Set-Cookie") != "" {
				t.Errorf("%s: got %d %v, want 200, public for a second, with a tag and without a cookie", what, got.status, h)
			}
		}

		// However it is asked for, the edges are asked no more often than each second.
		before, began := in.requests("state"), time.Now()
		known, head := 0, 0
		for i := range 400 {
			path := fmt.Sprintf("%s?fan=%d", state, i)
			cookie := fmt.Sprintf("Cookie: wr_ticket_%s=%d", queue, i)
			switch i % 4 {
			case 0:
				get(path, cookie, "Authorization: Bearer x")
			case 1:
				get(path, "Accept-Encoding: gzip, deflate", "Cache-Control: no-cache", fmt.Sprintf("X-Forwarded-For: 192.0.2.%d", i%250))
			case 2:
				if again := get(state, "Accept-Encoding: gzip", "If-None-Match: "+get(state, "Accept-Encoding: gzip").header.Get("ETag")); again.status == 304 && again.raw == "" {
					known++
				}
			case 3:
				if got := in.requestBy(client, "HEAD", front+path, "", nil); got.status == 200 && got.raw == "" && got.header.Get("ETag") != "" {
					head++
				}
			}
		}
		asked, most := in.requests("state")-before, int(time.Since(began).Seconds())+2
		if asked > most {
			t.Errorf("500 requests of all kinds: the edges were asked %d times, want at most %d", asked, most)
		}
		if known < 80 || head != 100 { // a tag changes at times
			t.Errorf("304 to %d of 100 who knew the document, 200 to %d of 100 HEAD; want nearly all, and all", known, head)
		}
	})

	t.Run("edges that do not answer make one wait, nobody else, and are not asked again meanwhile", func(t *testing.T) {
		in := in.within(t)
		asks := func(patience time.Duration) func() answer {
			client := from(t, "127.0.0.1")
			client.Transport.(*http.Transport).DisableKeepAlives = true
			client.Timeout = patience
			return func() answer { return in.requestBy(client, "GET", front+state, "", nil) }
		}
		// The one who waits goes away; nginx goes on asking. The others wait for long if they have to.
		impatient, read := asks(500*time.Millisecond), asks(20*time.Second)
		before, began := in.requests("state"), time.Now()
		for _, p := range in.edges {
			p.suspend()
			defer p.resume()
		}
		in.eventually(10*time.Second, "the document is asked for anew", func() bool {
			return impatient().header.Get("X-Cache") == "UPDATING"
		})
		for range 200 {
			if got := read(); got.status != 200 || got.text("queueState") != "open" {
				t.Fatalf("while no edge answers: got %d %s, want what the cache has", got.status, got.raw)
			}
		}
		for _, p := range in.edges {
			p.resume()
		}
		in.eventually(20*time.Second, "the cache is up to date again", func() bool { return read().header.Get("X-Cache") == "HIT" })
		if asked, most := in.requests("state")-before, int(time.Since(began).Seconds())+3; asked > most {
			t.Errorf("the edges were asked %d times, want at most %d", asked, most)
		}
	})

	t.Run("the page and its files come through", func(t *testing.T) {
		in := in.within(t)
		page := get("/wait/"+queue+"?return=https://shop.example.com/", "Accept: text/html")
		if page.status != 200 || !strings.Contains(page.raw, "/assets/wait.mjs") || page.header.Get("X-Cache") != "" {
			t.Errorf("page: got %d %v, want 200 from an edge", page.status, page.header)
		}
		for _, path := range []string{"/assets/wait.mjs", "/queues/" + queue, "/.well-known/jwks.json"} {
			first, second := get(path), answer{}
			in.eventually(5*time.Second, "the cache has "+path, func() bool {
				second = get(path)
				return second.header.Get("X-Cache") == "HIT"
			})
			if first.status != 200 || second.raw != first.raw {
				t.Errorf("%s: got %d %s, then from the cache %s, want the same", path, first.status, first.raw, second.raw)
			}
		}
		if wrong := get("/wait/" + queue + "?return=https://evil.example/"); wrong.status != 400 {
			t.Errorf("a forbidden return through the cache: got %d, want 400", wrong.status)
		}
		if got := in.requestBy(client, "POST", front+state, `{}`, nil); got.status != 405 {
			t.Errorf("POST to a document: got %d %s, want 405", got.status, got.raw)
		}
	})

	t.Run("nothing of one fan's own is kept", func(t *testing.T) {
		in := in.within(t)
		join := func() (ticket, id string) {
			got := in.requestBy(client, "POST", front+"/queues/"+queue+"/tickets", `{}`, []string{"X-API-Key: " + in.secretKey})
			if got.status != 201 || got.header.Get("X-Cache") != "" {
				t.Fatalf("join: got %d %s", got.status, got.raw)
			}
			return got.text("ticket"), got.text("ticketId")
		}
		first, firstID := join()
		second, secondID := join()
		before := in.requests("status")
		for range 3 {
			one, other := get("/tickets/"+firstID, bearer(first)...), get("/tickets/"+secondID, bearer(second)...)
			if one.number("position") != 1 || other.number("position") != 2 {
				t.Errorf("statuses: got %s and %s, want each their own", one.raw, other.raw)
			}
			none := get("/tickets/" + firstID)
			if none.status != 401 {
				t.Errorf("a status without the ticket: got %d %s, want 401", none.status, none.raw)
			}
			for _, got := range []answer{one, other, none} {
				if got.header.Get("Cache-Control") != "no-store" || got.header.Get("X-Cache") != "" {
					t.Errorf("status: got %v, want no-store and no cache", got.header)
				}
			}
		}
		if got := in.requests("status") - before; got != 9 {
			t.Errorf("the edges answered %d of 9 requests for a status, want all", got)
		}
		session := in.requestBy(client, "POST", front+"/tickets/"+firstID+"/session", "", bearer(first)).text("sessionToken")
		for token, want := range map[string]int{session: 200, second: 401} {
			got := get("/access", bearer(token)...)
			if got.status != want || got.header.Get("X-Cache") != "" {
				t.Errorf("access: got %d %v, want %d and no cache", got.status, got.header, want)
			}
		}
		if got := in.endSession(jti(t, session)); got.status != http.StatusNoContent {
			t.Fatalf("end the session: got %d %s, want 204", got.status, got.raw)
		}
		in.eventually(5*time.Second, "access ends at once", func() bool { return get("/access", bearer(session)...).status == 410 })

		// The page's join sets a cookie, for its own fan alone.
		browser := from(t, "127.0.0.9")
		page := in.requestBy(browser, "POST", front+"/queues/"+queue+"/tickets", `{}`, []string{"Origin: " + front})
		if page.status != 201 || !strings.Contains(page.header.Get("Set-Cookie"), "HttpOnly") {
			t.Errorf("join from the page: got %d %v, want 201 with a cookie", page.status, page.header)
		}
		for _, path := range []string{state, "/queues/" + queue, "/assets/wait.mjs"} {
			if got := get(path); got.header.Get("Set-Cookie") != "" {
				t.Errorf("%s: got somebody's cookie", path)
			}
		}
	})

	t.Run("the edges know the clients' addresses", func(t *testing.T) {
		in := in.within(t)
		join := func(client *http.Client, forged string) int {
			return in.requestBy(client, "POST", front+"/queues/"+queue+"/tickets", `{}`, []string{"X-API-Key: " + in.publishableKey, "X-Forwarded-For: " + forged}).status
		}
		crowd := from(t, "127.0.0.2")
		limited := false
		for i := 0; i < 200 && !limited; i++ {
			limited = join(crowd, fmt.Sprintf("198.51.100.%d", i)) == 429
		}
		if !limited {
			t.Error("200 joins at once from one address, each naming another: want 429 in the end")
		}
		if got := join(from(t, "127.0.0.3"), "127.0.0.2"); got != 201 {
			t.Errorf("a join from another address: got %d, want 201", got)
		}
	})

	t.Run("a queue that is deleted is gone, though all go on asking", func(t *testing.T) {
		in := in.within(t)
		gone := in.createQueue("over", `"capacity":1`)
		url := in.url.origins[0] + "/queues/" + gone
		in.eventually(5*time.Second, "the cache has its state", func() bool { return get("/queues/"+gone+"/state").header.Get("X-Cache") == "HIT" })
		in.request("PATCH", url, `{"state":"closed"}`, append(bearer(in.operatorToken), "Content-Type: application/merge-patch+json"))
		in.eventually(10*time.Second, "the cache says closed", func() bool { return get("/queues/"+gone+"/state").text("queueState") == "closed" })
		if got := in.request("DELETE", url, "", bearer(in.operatorToken)); got.status != http.StatusNoContent {
			t.Fatalf("delete: got %d %s, want 204", got.status, got.raw)
		}
		in.eventually(10*time.Second, "the cache says 404", func() bool { return get("/queues/"+gone+"/state").status == 404 })
		if again := in.createQueue("over", `"capacity":1`); again != gone {
			t.Fatalf("created again: got %s, want %s", again, gone)
		}
		in.eventually(10*time.Second, "the cache has the new queue", func() bool { return get("/queues/"+gone+"/state").text("queueState") == "open" })
	})

	t.Run("an edge that stops is passed over", func(t *testing.T) {
		in := in.within(t)
		in.edges[0].stop()
		for range 20 {
			if got := get("/queues/" + queue + "/tickets/none"); got.status != 404 {
				t.Errorf("with one edge left: got %d, want the other's answer", got.status)
			}
		}
		in.edges[0].start()
		in.awaitReady(in.url.edges[0])
	})

	t.Run("without an origin the state is stale, without edges it is the last one", func(t *testing.T) {
		in := in.within(t)
		in.origins[0].stop()
		in.eventually(20*time.Second, "the state says stale", func() bool {
			got := get(state)
			return got.status == 200 && got.body["stale"] == true
		})
		for _, p := range in.edges {
			p.stop()
		}
		for range 10 {
			if got := get(state); got.status != 200 || got.body["stale"] != true {
				t.Errorf("state without edges: got %d %s, want the last one", got.status, got.raw)
			}
		}
		if got := get("/tickets/none"); got.status < 500 {
			t.Errorf("a ticket without edges: got %d, want 502 or so", got.status)
		}
	})
	select {
	case <-nginx.done:
		t.Error("nginx has ended")
	default:
	}
}
