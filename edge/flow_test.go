package edge_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"waitingroom/edge"
	"waitingroom/origin"
	"waitingroom/origin/store/memory"
	"waitingroom/origin/wire"
	"waitingroom/tokens"
)

var base64URL = base64.RawURLEncoding

const clusterSecret = "a cluster secret of more than 32 bytes"

// house is a real origin with two real edges, and the tenants acme and rival.
type house struct {
	t      *testing.T
	origin string
	edges  []*edge.Server
	keys   map[string]tenantKeys
	// stopOrigin ends the origin and waits for it.
	stopOrigin func()
}

type tenantKeys struct{ operator, secret, publishable string }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// run starts a server that stops with the test at the latest; stop may be called early.
func run(t *testing.T, name string, serve func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serve(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		http.DefaultClient.CloseIdleConnections()
		if err := <-done; err != nil {
			t.Errorf("%s: got %v, want a clean stop", name, err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func newHouse(t *testing.T) *house {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	h := &house{t: t, origin: "http://" + listener.Addr().String(), keys: make(map[string]tenantKeys)}
	config := origin.DefaultConfig()
	config.AdminListen, config.PublicURL, config.Issuer = "off", h.origin, "https://wait.example"
	config.TickEvery = 20 * time.Millisecond
	config.LeaseTTL = time.Second
	sessions, err := tokens.GenerateSessionKeys()
	must(t, err)
	secrets := origin.Secrets{
		ClusterSecret: []byte(clusterSecret), SessionKeys: sessions,
		UserHashKey: []byte("a key to hash users of more than 32 bytes"), Tenants: make(map[string]origin.TenantSecrets),
	}
	for _, id := range []string{"acme", "rival"} {
		tickets, err := tokens.GenerateTicketKeys()
		must(t, err)
		private, public, err := tokens.GenerateOperatorKeys()
		must(t, err)
		secrets.Tenants[id] = origin.TenantSecrets{TicketKeys: tickets, OperatorKeys: public}
		var keys tenantKeys
		keys.secret, err = tokens.NewAPIKey(true)
		must(t, err)
		keys.publishable, err = tokens.NewAPIKey(false)
		must(t, err)
		now := time.Now()
		keys.operator, err = tokens.SignOperator(private, tokens.Operator{
			Tenant: id, Subject: "op", Role: tokens.RoleOperator, IssuedAt: now, ExpiresAt: now.Add(time.Hour),
		}, h.origin)
		must(t, err)
		h.keys[id] = keys
		config.Tenants = append(config.Tenants, origin.TenantConfig{ID: id, APIKeys: []origin.APIKeyConfig{
			{ID: "backend", Kind: origin.SecretKey, SHA256: tokens.HashAPIKey(keys.secret)},
			{ID: "app", Kind: origin.PublishableKey, SHA256: tokens.HashAPIKey(keys.publishable)},
		}})
	}
	quiet := slog.New(slog.DiscardHandler)
	o := &origin.Server{
		Config: config, Store: &memory.Store{}, Logger: quiet, Listener: listener,
		Secrets: func() (origin.Secrets, error) { return secrets, nil },
	}
	h.stopOrigin = run(t, "origin", o.Run)
	for range 2 {
		client := &wire.Client{Origins: []string{h.origin}, Secret: clusterSecret}
		t.Cleanup(client.CloseIdle)
		e := &edge.Server{
			Config: edge.Config{Listen: "127.0.0.1:0", WhenStale: edge.FailClosed, MaxStaleSeconds: 1},
			Origin: client, Logger: quiet,
		}
		must(t, e.Listen())
		run(t, "edge", e.Run)
		h.edges = append(h.edges, e)
	}
	for i := range h.edges {
		h.until("the edge to be ready", func() bool { code, _ := h.edge(i, "GET", "/readyz", "", ""); return code == 200 })
	}
	return h
}

func (h *house) until(what string, holds func() bool) {
	h.t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline:
			h.t.Fatalf("waited in vain for %s", what)
		case <-tick.C:
		}
	}
}

// send makes a request; credential is "Name: value" or empty.
func (h *house) send(base, method, path, credential, body string) (int, map[string]any) {
	h.t.Helper()
	r, err := http.NewRequest(method, base+path, strings.NewReader(body))
	must(h.t, err)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if name, value, found := strings.Cut(credential, ": "); found {
		r.Header.Set(name, value)
	}
	response, err := http.DefaultClient.Do(r)
	must(h.t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	must(h.t, err)
	var m map[string]any
	var syntax *json.SyntaxError
	if err := json.Unmarshal(text, &m); err != nil && !errors.As(err, &syntax) {
		h.t.Fatalf("%s %s: %v", method, path, err)
	}
	return response.StatusCode, m
}

func (h *house) edge(i int, method, path, credential, body string) (int, map[string]any) {
	h.t.Helper()
	return h.send(h.edges[i].PublicURL(), method, path, credential, body)
}

// create makes a queue and waits until both edges know it.
func (h *house) create(tenant, slug, settings string) {
	h.t.Helper()
	code, m := h.send(h.origin, "POST", "/queues", "Authorization: Bearer "+h.keys[tenant].operator, `{"slug":"`+slug+`",`+settings+`}`)
	if code != http.StatusCreated {
		h.t.Fatalf("create %s.%s: got %d %v", tenant, slug, code, m)
	}
	for i := range h.edges {
		h.until("the queue", func() bool {
			code, _ := h.edge(i, "GET", "/queues/"+tenant+"."+slug, "", "")
			return code == http.StatusOK
		})
	}
}

type fan struct{ id, ticket string }

func (f fan) bearer() string { return "Authorization: Bearer " + f.ticket }

// join joins on an edge and returns the answer beside the fan.
func (h *house) join(i int, queue, key, body string) (fan, map[string]any) {
	h.t.Helper()
	code, m := h.edge(i, "POST", "/queues/"+queue+"/tickets", "X-API-Key: "+key, body)
	if code != http.StatusCreated && code != http.StatusOK {
		h.t.Fatalf("join %s: got %d %v", queue, code, m)
	}
	return fan{m["ticketId"].(string), m["ticket"].(string)}, m
}

// state waits until an edge tells a state of a fan's ticket, and returns the status.
func (h *house) state(i int, f fan, want string) (m map[string]any) {
	h.t.Helper()
	h.until("state "+want, func() bool {
		_, m = h.edge(i, "GET", "/tickets/"+f.id, f.bearer(), "")
		return m["state"] == want
	})
	return m
}

func (h *house) claim(i int, f fan) string {
	h.t.Helper()
	code, m := h.edge(i, "POST", "/tickets/"+f.id+"/session", f.bearer(), "")
	if code != http.StatusOK {
		h.t.Fatalf("claim: got %d %v, want 200", code, m)
	}
	return m["sessionToken"].(string)
}

func (h *house) access(i int, session, query string) int {
	h.t.Helper()
	code, _ := h.edge(i, "GET", "/access"+query, "Authorization: Bearer "+session, "")
	return code
}

func TestAFanWaitsAndIsLetIn(t *testing.T) {
	h := newHouse(t)
	keys := h.keys["acme"]
	h.create("acme", "sale", `"capacity":1`)

	first, m := h.join(0, "acme.sale", keys.publishable, `{}`)
	h.state(1, first, "admitted") // on the other edge too
	session := h.claim(1, first)
	if again := h.claim(0, first); again != session {
		t.Error("a second device got another session, want the same token")
	}
	if m["position"] != 1.0 {
		t.Errorf("first fan: got position %v, want 1", m["position"])
	}
	h.state(0, first, "active")

	second, m := h.join(1, "acme.sale", keys.secret, `{"userId":"u2"}`)
	if m["state"] != "waiting" || m["position"] != 2.0 {
		t.Errorf("second fan: got %v, want to wait at 2", m)
	}
	if same, m := h.join(0, "acme.sale", keys.secret, `{"userId":"u2"}`); same.id != second.id {
		t.Errorf("the same user on another edge: got %v, want the same place", m)
	}
	third, _ := h.join(0, "acme.sale", keys.publishable, `{}`)
	if m := h.state(1, third, "waiting"); m["ahead"] != 1.0 {
		t.Errorf("third fan: got %v ahead, want 1", m["ahead"])
	}
	code, m := h.edge(0, "POST", "/tickets/"+second.id+"/session", second.bearer(), "")
	if code != http.StatusConflict || m["code"] != "not_your_turn" || m["state"] != "waiting" {
		t.Errorf("claim out of turn: got %d %v, want 409 with the status", code, m)
	}
	for i := range h.edges {
		if code := h.access(i, session, "?queue=acme.sale"); code != http.StatusOK {
			t.Errorf("access on edge %d: got %d, want 200", i, code)
		}
	}

	// The shop sells and ends the session: the second fan is let in, and the session is over
	// everywhere.
	claims := decodeClaims(t, session)
	code, m = h.send(h.origin, "DELETE", "/sessions/"+claims["jti"].(string), "X-API-Key: "+keys.secret, "")
	if code != http.StatusNoContent {
		t.Fatalf("end session: got %d %v", code, m)
	}
	for i := range h.edges {
		h.until("410 from /access", func() bool { return h.access(i, session, "") == http.StatusGone })
	}
	h.state(0, first, "ended")
	code, m = h.edge(0, "POST", "/tickets/"+first.id+"/session", first.bearer(), "")
	if code != http.StatusGone || m["state"] != "ended" {
		t.Errorf("claim after the end: got %d %v, want 410", code, m)
	}
	code, m = h.edge(1, "GET", "/revocations", "X-API-Key: "+keys.secret, "")
	if list, _ := m["revocations"].([]any); code != http.StatusOK || len(list) != 1 || list[0].(map[string]any)["id"] != claims["jti"] {
		t.Errorf("revocations: got %d %v, want the session", code, m)
	}
	if code, m := h.edge(0, "GET", "/revocations?after="+m["cursor"].(string), "X-API-Key: "+keys.secret, ""); code != 200 || m["reset"] != false {
		t.Errorf("the cursor on another edge: got %d %v, want it known", code, m)
	}

	h.state(1, second, "admitted")
	h.claim(0, second)
	if code, _ := h.edge(1, "DELETE", "/tickets/"+second.id, second.bearer(), ""); code != http.StatusNoContent {
		t.Errorf("leave while active: got %d, want 204", code)
	}
	h.state(0, second, "left")
	h.state(0, third, "admitted")
}

func TestNothingOpensAnythingElsewhere(t *testing.T) {
	h := newHouse(t)
	for _, tenant := range []string{"acme", "rival"} {
		h.create(tenant, "sale", `"capacity":5`)
	}
	h.create("acme", "other", `"capacity":5`)
	key := h.keys["acme"].secret
	a, _ := h.join(0, "acme.sale", key, `{}`)
	h.state(0, a, "admitted")
	session := h.claim(0, a)
	b, _ := h.join(0, "acme.other", key, `{}`)

	if code, _ := h.edge(0, "GET", "/tickets/"+b.id, a.bearer(), ""); code != http.StatusUnauthorized {
		t.Errorf("ticket of one queue in another: got %d, want 401", code)
	}
	for _, queue := range []string{"acme.other", "rival.sale"} {
		if code := h.access(0, session, "?queue="+queue); code != http.StatusUnauthorized {
			t.Errorf("session in %s: got %d, want 401", queue, code)
		}
	}
	for _, key := range []string{h.keys["rival"].secret, h.keys["rival"].publishable} {
		if code, m := h.edge(0, "POST", "/queues/acme.sale/tickets", "X-API-Key: "+key, `{}`); code != http.StatusNotFound {
			t.Errorf("another tenant's key: got %d %v, want 404", code, m)
		}
	}

	// Deleted and created again: the old tickets are of no use, and the positions start anew.
	operator := "Authorization: Bearer " + h.keys["acme"].operator
	if code, m := h.send(h.origin, "PATCH", "/queues/acme.other", operator, `{"state":"closed"}`); code != http.StatusOK {
		t.Fatalf("close: got %d %v", code, m)
	}
	h.until("the closing", func() bool {
		code, _ := h.edge(1, "POST", "/queues/acme.other/tickets", "X-API-Key: "+key, `{}`)
		return code == http.StatusGone
	})
	h.until("the deletion", func() bool {
		code, _ := h.send(h.origin, "DELETE", "/queues/acme.other", operator, "")
		return code == http.StatusNoContent
	})
	for i := range h.edges {
		h.until("the deletion", func() bool {
			code, _ := h.edge(i, "GET", "/queues/acme.other", "", "")
			return code == http.StatusNotFound
		})
		if code, m := h.edge(i, "GET", "/tickets/"+b.id, b.bearer(), ""); code != http.StatusGone {
			t.Errorf("ticket of a deleted queue: got %d %v, want 410", code, m)
		}
	}
	h.create("acme", "other", `"capacity":5`)
	for i := range h.edges {
		for _, method := range []string{"GET", "DELETE"} {
			if code, m := h.edge(i, method, "/tickets/"+b.id, b.bearer(), ""); code != http.StatusGone || m["code"] != "ticket_of_earlier_queue" {
				t.Errorf("%s ticket of a queue that was made anew: got %d %v, want 410", method, code, m)
			}
		}
	}
	if c, m := h.join(0, "acme.other", key, `{}`); c.id == b.id || m["position"] != 1.0 {
		t.Errorf("join after it: got %v, want position 1 under another id", m)
	}
}

func TestAloneAnEdgeKeepsWhatItKnows(t *testing.T) {
	h := newHouse(t)
	h.create("acme", "sale", `"capacity":1`)
	key := h.keys["acme"].secret
	a, _ := h.join(0, "acme.sale", key, `{}`)
	h.state(0, a, "admitted")
	session := h.claim(0, a)
	b, _ := h.join(0, "acme.sale", key, `{}`)
	h.state(0, b, "waiting")
	h.stopOrigin()

	if code := h.access(0, session, ""); code != http.StatusOK {
		t.Errorf("access right after: got %d, want 200", code)
	}
	h.until("a stale status", func() bool {
		code, m := h.edge(0, "GET", "/tickets/"+b.id, b.bearer(), "")
		return code == http.StatusOK && m["state"] == "waiting" && m["stale"] == true
	})
	if code := h.access(0, session, ""); code != http.StatusServiceUnavailable {
		t.Errorf("access beyond maxStale, fail-closed: got %d, want 503", code)
	}
	if code, m := h.edge(0, "POST", "/tickets/"+b.id+"/session", b.bearer(), ""); code != http.StatusServiceUnavailable {
		t.Errorf("claim: got %d %v, want 503", code, m)
	}
	if code, m := h.edge(0, "POST", "/queues/acme.sale/tickets", "X-API-Key: "+key, `{}`); code != http.StatusServiceUnavailable {
		t.Errorf("join: got %d %v, want 503", code, m)
	}
	if code, _ := h.edge(0, "GET", "/wait/acme.sale", "", ""); code != http.StatusOK {
		t.Errorf("page: got %d, want 200", code)
	}
}

// decodeClaims reads a token's payload without checking it.
func decodeClaims(t *testing.T, token string) (m map[string]any) {
	t.Helper()
	parts := strings.Split(token, ".")
	payload, err := base64URL.DecodeString(parts[1])
	must(t, err)
	must(t, json.Unmarshal(payload, &m))
	return m
}
