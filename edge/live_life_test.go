package edge

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fasthttp/websocket"

	"waitingroom/origin/queue"
	"waitingroom/origin/wire"
	"waitingroom/tokens"
)

// seenIn waits until the origin was told of a sighting of a position in a turn, as of a lapse or later.
func (o *scripted) seenIn(t *testing.T, turn, asOf, position uint64) {
	t.Helper()
	waitFor(t, "a sighting in turn "+strconv.FormatUint(turn, 10), func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		return slices.ContainsFunc(o.seen, func(s wire.Sightings) bool {
			return s.Turn == turn && s.AsOf >= asOf && slices.Contains(s.Positions, position)
		})
	})
}

// TestAConnectionIsASighting in every turn, and at once after a lapse, which brings the next offer.
func TestAConnectionIsASighting(t *testing.T) {
	for _, kind := range liveKinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			o := newScripted(t)
			o.log("acme.sale", queue.Entry{Kind: queue.EntryJoined, Issued: 5})
			e := startEdge(t, o, nil)
			token, id := o.ticketAt(t, 3)
			c := e.live(kind, token, id)
			c.next()
			o.seenIn(t, 1, 0, 3)
			for turn := uint64(2); turn < 5; turn++ {
				o.log("acme.sale", queue.Entry{Kind: queue.EntryTurn, Turn: turn})
				o.seenIn(t, turn, 0, 3)
			}
			for _, ends := range []queue.Kind{queue.EntryLapsed, queue.EntryWithdrawn} {
				o.log("acme.sale", queue.Entry{Kind: queue.EntryOffered, Positions: queue.Positions{3}, Until: time.Now().Add(time.Hour), Watermark: 3})
				for c.next().status["state"] != "admitted" {
				}
				since := time.Now()
				o.log("acme.sale", queue.Entry{Kind: ends, Positions: queue.Positions{3}})
				o.mu.Lock()
				end := o.views["acme.sale"].Number
				o.mu.Unlock()
				o.seenIn(t, 4, end, 3)
				if took := time.Since(since); took > 8*time.Second {
					t.Errorf("after the end of an offer: seen after %v, as who is told nothing is seen anyway", took)
				}
			}
		})
	}
}

// TestTwoDevicesOfOneTicket hear what is done on the other one.
func TestTwoDevicesOfOneTicket(t *testing.T) {
	o := newScripted(t)
	o.log("acme.sale", queue.Entry{Kind: queue.EntryJoined, Issued: 5})
	e := startEdge(t, o, nil)
	token, id := o.ticketAt(t, 3)
	devices := []*liveClient{e.live("ws", token, id), e.live("sse", token, id), e.live("ws", token, id)}
	for _, c := range devices {
		c.next()
	}
	o.log("acme.sale", queue.Entry{Kind: queue.EntryDone, Positions: queue.Positions{3}, Fate: queue.Left})
	for i, c := range devices {
		if got := c.next(); got.status["state"] != "left" {
			t.Errorf("device %d: got %+v, want left", i+1, got)
		}
	}
}

// TestStaleIsTold when the origins are lost, and that they are back.
func TestStaleIsTold(t *testing.T) {
	t.Parallel()
	o := newScripted(t)
	o.log("acme.sale", queue.Entry{Kind: queue.EntryJoined, Issued: 5})
	e := startEdge(t, o, nil)
	token, id := o.ticketAt(t, 3)
	c := e.live("ws", token, id)
	silence := func(silent bool) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.silent = silent
	}
	silence(true)
	for stale := false; !stale; stale = c.next().status["stale"] == true {
	}
	silence(false)
	for stale := true; stale; stale = c.next().status["stale"] == true {
	}
}

// TestNobodyIsToldAnEarlierGeneration by an edge whose feed comes from an origin that has not heard of the
// running one yet.
func TestNobodyIsToldAnEarlierGeneration(t *testing.T) {
	t.Parallel()
	o := newScripted(t)
	o.log("acme.sale", queue.Entry{Kind: queue.EntryJoined, Issued: 5})
	earlier := o.views["acme.sale"].Snapshot()
	running := earlier
	running.Generations = []string{"gen1", "gen2"}
	o.views["acme.sale"] = queue.NewView(running)
	e := startEdge(t, o, nil)
	token, id := o.ticketAt(t, 3)
	c := e.live("ws", token, id)
	c.next()
	o.mu.Lock()
	feeds := o.feeds
	o.mu.Unlock()
	o.tell(wire.Frame{Snapshot: &wire.Snapshot{Queue: earlier}})
	waitFor(t, "another connection to the feed", func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		return o.feeds > feeds
	})
	o.log("acme.sale", queue.Entry{Kind: queue.EntryDone, Positions: queue.Positions{3}, Fate: queue.Left})
	for {
		got := c.next()
		if seq, _ := got.status["seq"].(string); !strings.HasPrefix(seq, "gen2.") {
			t.Fatalf("told as of %s, want gen2", seq)
		}
		if got.status["state"] == "left" {
			return
		}
	}
}

// TestTicketsThatAreNotGoodAnyMore end their connections, so that the fan asks again.
func TestTicketsThatAreNotGoodAnyMore(t *testing.T) {
	for name, happens := range map[string]func(o *scripted){
		"the queue is deleted": func(o *scripted) {
			o.mu.Lock()
			delete(o.views, "acme.sale")
			o.mu.Unlock()
			o.tell(wire.Frame{Removed: &wire.Removed{Queue: "acme.sale"}})
		},
		"the queue is another": func(o *scripted) {
			view := testView("acme.sale", "inc2")
			snapshot := view.Snapshot()
			snapshot.CreatedAt = time.Now().UTC()
			o.tell(wire.Frame{Snapshot: &wire.Snapshot{Queue: snapshot}})
		},
		"the key is gone": func(o *scripted) {
			ring, _ := tokens.GenerateTicketKeys()
			o.mu.Lock()
			tenants := o.tenants
			tenants.Tenants = slices.Clone(tenants.Tenants)
			tenants.Tenants[0].TicketKeys = ring
			o.mu.Unlock()
			o.tell(wire.Frame{Tenants: &tenants})
		},
		"its time has passed": func(*scripted) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newScripted(t)
			o.log("acme.sale", queue.Entry{Kind: queue.EntryJoined, Issued: 5})
			e := startEdge(t, o, nil)
			token, id := o.ticket(t, func(c *tokens.Ticket) {
				if name == "its time has passed" {
					c.ExpiresAt = time.Now().Add(3 * time.Second)
				}
			})
			socket, stream := e.live("ws", token, id), e.live("sse", token, id)
			socket.next()
			stream.next()
			happens(o)
			if _, err := socket.read(); !websocket.IsCloseError(err, websocket.ClosePolicyViolation) {
				t.Errorf("socket: got %v, want close code 1008", err)
			}
			if _, err := stream.read(); err != io.EOF {
				t.Errorf("stream: got %v, want the end", err)
			}
			if got := e.do("GET", "/tickets/"+id, e.bearer(token), ""); got.status < 400 {
				t.Errorf("asked again: got %d %s, want a refusal", got.status, got.body)
			}
		})
	}
}

// TestAStopMovesLiveConnections: the edge is not ready, takes no more, and sends those it has
// elsewhere over a time; polls are answered meanwhile.
func TestAStopMovesLiveConnections(t *testing.T) {
	o := newScripted(t)
	o.log("acme.sale", queue.Entry{Kind: queue.EntryJoined, Issued: 50})
	e := startEdge(t, o, func(c *Config) { c.MoveSeconds = 2 })
	var clients []*liveClient
	for i := range 20 {
		token, id := o.ticketAt(t, uint64(i+1))
		c := e.live(liveKinds[i%2], token, id)
		c.next()
		clients = append(clients, c)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- e.stop() }()
	waitFor(t, "the stop", func() bool { return e.do("GET", "/readyz", nil, "").status == http.StatusServiceUnavailable })
	token, id := o.ticketAt(t, 30)
	if _, got := e.dialSocket(id, http.Header{"Authorization": {"Bearer " + token}}); got.status != 503 || got.code(t) != "stopping" || got.header.Get("Retry-After") == "" {
		t.Errorf("a new one: got %d %s, want 503 stopping with Retry-After", got.status, got.body)
	}
	if got := e.do("GET", "/tickets/"+id, e.bearer(token), ""); got.status != 200 {
		t.Errorf("a poll: got %d, want 200", got.status)
	}
	for i, c := range clients {
		_, err := c.read()
		if c.ws != nil && !websocket.IsCloseError(err, websocket.CloseServiceRestart) || c.ws == nil && err != io.EOF {
			t.Errorf("connection %d: got %v, want close code 1012, or the end", i, err)
		}
		if c.ws != nil {
			_ = c.ws.Close()
		} else {
			_ = c.stream.Body.Close()
		}
	}
	if err := <-stopped; err != nil {
		t.Errorf("run: got %v, want a clean stop", err)
	}
}

func TestLiveConnectionsAreLimited(t *testing.T) {
	for name, test := range map[string]struct {
		limit  func(*Limits)
		reason string
	}{
		"at once":     {func(l *Limits) { l.LiveConnections = 2 }, "connections"},
		"in a second": {func(l *Limits) { l.LiveUpgradesPerSecond = 1 }, "upgrades"},
	} {
		t.Run(name, func(t *testing.T) {
			o := newScripted(t)
			o.log("acme.sale", queue.Entry{Kind: queue.EntryJoined, Issued: 50})
			e := startEdge(t, o, func(c *Config) { test.limit(&c.Limits) })
			token, id := o.ticketAt(t, 3)
			refused := 0
			for i := range 6 {
				var got answer
				if i%2 == 0 {
					_, got = e.dialSocket(id, http.Header{"Authorization": {"Bearer " + token}})
				} else {
					request, _ := http.NewRequest("GET", "http://"+e.Addr().String()+"/tickets/"+id+"/events", nil)
					request.Header.Set("Authorization", "Bearer "+token)
					response, err := noRedirects.Do(request)
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { _ = response.Body.Close() })
					got = answer{status: response.StatusCode, header: response.Header}
					if got.status != 200 {
						body, _ := io.ReadAll(response.Body)
						got.body = string(body)
					}
				}
				if got.status >= 400 {
					refused++
					if got.status != 503 || got.code(t) != "too_many_live" || got.header.Get("Retry-After") == "" {
						t.Errorf("got %d %s, want 503 too_many_live with Retry-After", got.status, got.body)
					}
				}
			}
			if refused == 0 || refused > 5 {
				t.Errorf("refused: got %d of 6", refused)
			}
		})
	}
}

// TestWhatIsNoHandshakeUsesUpNothing: else one fan could keep everybody from this edge's live connections
// by asking for one in vain, again and again.
func TestWhatIsNoHandshakeUsesUpNothing(t *testing.T) {
	o := newScripted(t)
	o.log("acme.sale", queue.Entry{Kind: queue.EntryJoined, Issued: 5})
	e := startEdge(t, o, func(c *Config) { c.Limits.LiveUpgradesPerSecond = 1 })
	token, id := o.ticketAt(t, 3)
	for range 20 {
		if got := e.do("GET", "/tickets/"+id+"/ws", e.bearer(token), ""); got.status != http.StatusUpgradeRequired {
			t.Fatalf("no handshake: got %d %s, want 426", got.status, got.body)
		}
	}
	e.live("ws", token, id).next()
}

// TestLiveConnectionsOverTLS that the edge itself ends.
func TestLiveConnectionsOverTLS(t *testing.T) {
	model := httptest.NewUnstartedServer(nil)
	model.StartTLS()
	certificate := model.TLS.Certificates[0]
	model.Close()
	key, err := x509.MarshalPKCS8PrivateKey(certificate.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	files := &TLS{CertFile: filepath.Join(dir, "edge.crt"), KeyFile: filepath.Join(dir, "edge.key")}
	for file, block := range map[string]*pem.Block{
		files.CertFile: {Type: "CERTIFICATE", Bytes: certificate.Certificate[0]}, files.KeyFile: {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	o := newScripted(t)
	o.log("acme.sale", queue.Entry{Kind: queue.EntryJoined, Issued: 5})
	e := startEdge(t, o, func(c *Config) { c.TLS, c.PublicURL = files, "https://wait.example" })
	token, id := o.ticketAt(t, 3)
	trusting := &tls.Config{InsecureSkipVerify: true} // the certificate was made for examples
	dialer := websocket.Dialer{TLSClientConfig: trusting}
	ws, _, err := dialer.Dial("wss://"+e.Addr().String()+"/tickets/"+id+"/ws", http.Header{"Authorization": {"Bearer " + token}})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	request, err := http.NewRequest("GET", "https://"+e.Addr().String()+"/tickets/"+id+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	transport := &http.Transport{TLSClientConfig: trusting}
	defer transport.CloseIdleConnections()
	response, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	for _, c := range []*liveClient{{t: t, ws: ws}, {t: t, stream: response, lines: bufio.NewReader(response.Body)}} {
		if got := c.next(); got.name != "status" {
			t.Errorf("got %+v, want the status", got)
		}
		defer func() {
			if got := c.next(); got.status["state"] != "left" {
				t.Errorf("got %+v, want left", got)
			}
			if _, err := c.read(); c.ws != nil && !websocket.IsCloseError(err, websocket.CloseNormalClosure) || c.ws == nil && err != io.EOF {
				t.Errorf("then: got %v, want a normal end", err)
			}
		}()
	}
	if err := ws.WriteControl(websocket.PingMessage, []byte("hello"), time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	o.log("acme.sale", queue.Entry{Kind: queue.EntryDone, Positions: queue.Positions{3}, Fate: queue.Left})
}
