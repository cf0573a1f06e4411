package origin

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
	"waitingroom/origin/store/memory"
	"waitingroom/origin/wire"
	"waitingroom/tokens"
)

const (
	testIssuer  = "https://wait.example.com"
	testPublic  = "https://origin.example.com"
	testCluster = "a cluster secret of more than 32 bytes"
	testEdge    = "00112233445566778899aabbccddeeff"
)

// credentials are the keys of an installation with the tenants shop and other.
type credentials struct {
	config  Config
	secrets Secrets
	tenants map[string]tenantCredentials
}

type tenantCredentials struct {
	operatorPrivate        []byte
	secretKey, publishable string
}

func newCredentials(t *testing.T) *credentials {
	t.Helper()
	c := &credentials{config: DefaultConfig(), tenants: make(map[string]tenantCredentials)}
	c.config.Listen, c.config.AdminListen = "127.0.0.1:0", adminOff
	c.config.PublicURL, c.config.Issuer = testPublic, testIssuer
	sessions, err := tokens.GenerateSessionKeys()
	must(t, err)
	c.secrets = Secrets{
		ClusterSecret: []byte(testCluster), SessionKeys: sessions,
		UserHashKey: []byte("a key to hash users of more than 32 bytes"), Tenants: make(map[string]TenantSecrets),
	}
	for _, id := range []string{"shop", "other"} {
		tickets, err := tokens.GenerateTicketKeys()
		must(t, err)
		private, public, err := tokens.GenerateOperatorKeys()
		must(t, err)
		secret, err := tokens.NewAPIKey(true)
		must(t, err)
		publishable, err := tokens.NewAPIKey(false)
		must(t, err)
		c.secrets.Tenants[id] = TenantSecrets{TicketKeys: tickets, OperatorKeys: public}
		c.tenants[id] = tenantCredentials{private, secret, publishable}
		c.config.Tenants = append(c.config.Tenants, TenantConfig{ID: id, APIKeys: []APIKeyConfig{
			{ID: "backend", Kind: SecretKey, SHA256: tokens.HashAPIKey(secret)},
			{ID: "app", Kind: PublishableKey, SHA256: tokens.HashAPIKey(publishable)},
		}})
	}
	return c
}

// operator signs an operator JWT.
func (c *credentials) operator(t *testing.T, tenant string, role tokens.Role) string {
	t.Helper()
	now := time.Now()
	token, err := tokens.SignOperator(c.tenants[tenant].operatorPrivate, tokens.Operator{
		Tenant: tenant, Subject: "somebody", Role: role, IssuedAt: now, ExpiresAt: now.Add(24 * time.Hour),
	}, testPublic)
	must(t, err)
	return token
}

// rig is an origin without sockets: requests go straight into its handler, so that it runs in
// virtual time too.
type rig struct {
	*Server
	t       *testing.T
	creds   *credentials
	http    http.Handler
	stop    func()
	joins   uint64
	tickets *tokens.Tickets
}

// newRig starts an origin on a store and waits until it is ready; it stops with the test at the
// latest.
func newRig(t *testing.T, creds *credentials, st store.Store) *rig {
	t.Helper()
	r := startRig(t, creds, st)
	for range 1000 {
		if r.feed.Ready() {
			return r
		}
		<-time.After(10 * time.Millisecond)
	}
	t.Fatal("the origin did not become ready")
	return nil
}

func startRig(t *testing.T, creds *credentials, st store.Store) *rig {
	t.Helper()
	if st == nil {
		st = &memory.Store{}
	}
	s := &Server{Config: creds.config, Store: st, Secrets: func() (Secrets, error) { return creds.secrets, nil }}
	must(t, s.prepare())
	ctx, cancel := context.WithCancel(context.Background())
	s.stopping = ctx.Done()
	r := &rig{Server: s, t: t, creds: creds, http: s.handler(), tickets: s.keys.Load().tickets}
	done := make(chan error, 1)
	go func() { done <- s.work(ctx) }()
	stopped := false
	r.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("work: got error %v, want none", err)
		}
	}
	t.Cleanup(r.stop)
	return r
}

// send makes one request; headers are "Name: value".
func (r *rig) send(method, path, body string, headers ...string) *httptest.ResponseRecorder {
	r.t.Helper()
	request := httptest.NewRequest(method, path, strings.NewReader(body))
	request.RemoteAddr = "127.0.0.1:4711"
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		request.Header.Add(name, value)
	}
	answer := httptest.NewRecorder()
	r.http.ServeHTTP(answer, request)
	return answer
}

// operate makes a request as the operator of the tenant shop.
func (r *rig) operate(method, path, body string) *httptest.ResponseRecorder {
	r.t.Helper()
	return r.send(method, path, body, "Content-Type: application/json", "Authorization: Bearer "+r.creds.operator(r.t, "shop", tokens.RoleOperator))
}

// create makes a queue of the tenant shop.
func (r *rig) create(slug, settings string) queue.ID {
	r.t.Helper()
	answer := r.operate("POST", "/queues", `{"slug":"`+slug+`",`+settings+`}`)
	if answer.Code != http.StatusCreated {
		r.t.Fatalf("create queue: got %d %s, want 201", answer.Code, answer.Body)
	}
	return queue.MakeID("shop", slug)
}

// batch sends a message of an edge and decodes the answer into out.
func (r *rig) batch(path string, in, out any) int {
	r.t.Helper()
	body, err := json.Marshal(in)
	must(r.t, err)
	answer := r.send("POST", path, string(body), "Content-Type: application/json", "Authorization: Bearer "+testCluster)
	if out != nil {
		if err := json.NewDecoder(bytes.NewReader(answer.Body.Bytes())).Decode(out); err != nil {
			r.t.Fatalf("POST %s: got %d %q, want JSON", path, answer.Code, answer.Body)
		}
	}
	return answer.Code
}

// join joins fans; "" is an anonymous one.
func (r *rig) join(id queue.ID, users ...string) wire.JoinResponse {
	r.t.Helper()
	r.joins++
	var out wire.JoinResponse
	in := wire.JoinRequest{Queue: id, Edge: testEdge, Seq: r.joins, Users: users}
	if code := r.batch(wire.PathJoin, in, &out); code != http.StatusOK {
		r.t.Fatalf("join: got %d, want 200", code)
	}
	return out
}

// joinOne joins one anonymous fan.
func (r *rig) joinOne(id queue.ID) uint64 {
	r.t.Helper()
	return r.join(id, "").Joins[0].Position
}

// ticket signs the ticket of a position as an edge does.
func (r *rig) ticket(id queue.ID, position uint64, subject string) string {
	r.t.Helper()
	view := r.view(id)
	now := r.clock.Now()
	text, err := r.tickets.Sign(nil, tokens.Ticket{
		Queue: string(id), IssuedAt: now, ExpiresAt: now.Add(30 * 24 * time.Hour), Subject: subject,
		Position: position, Incarnation: view.Incarnation, Generation: view.Generation(),
	}, now)
	must(r.t, err)
	return string(text)
}

func (r *rig) claimAs(id queue.ID, position uint64, subject string) wire.ClaimResponse {
	r.t.Helper()
	var out wire.ClaimResponse
	if code := r.batch(wire.PathClaim, wire.ClaimRequest{Ticket: r.ticket(id, position, subject)}, &out); code != http.StatusOK {
		r.t.Fatalf("claim %d: got %d, want 200", position, code)
	}
	return out
}

// claimOne claims and wants a session.
func (r *rig) claimOne(id queue.ID, position uint64) wire.ClaimResponse {
	r.t.Helper()
	out := r.claimAs(id, position, "fan")
	if out.Error != "" || out.SessionToken == "" {
		r.t.Fatalf("claim %d: got error %q, want a session", position, out.Error)
	}
	return out
}

func (r *rig) leaveOne(id queue.ID, position uint64) int {
	r.t.Helper()
	return r.batch(wire.PathLeave, wire.LeaveRequest{Ticket: r.ticket(id, position, "fan")}, nil)
}

// view is what the feed has after reading the log to its end.
func (r *rig) view(id queue.ID) *queue.View {
	r.t.Helper()
	view, err := r.feed.Current(context.Background(), id)
	must(r.t, err)
	return view
}

func (r *rig) status(id queue.ID, position uint64) queue.Status {
	r.t.Helper()
	return r.view(id).Status(position, r.clock.Now())
}

// see hands in sightings of now.
func (r *rig) see(id queue.ID, positions ...uint64) {
	r.t.Helper()
	slices.Sort(positions)
	view := r.view(id)
	var out wire.SightingsResponse
	code := r.batch(wire.PathSightings, wire.SightingsRequest{Edge: testEdge, Queues: []wire.Sightings{{
		Queue: id, Incarnation: view.Incarnation, Turn: view.Turn, Positions: positions, AsOf: view.Number, Complete: true, At: r.clock.Now(),
	}}}, &out)
	if code != http.StatusOK || len(out.Again) > 0 {
		r.t.Fatalf("sightings: got %d, again %v, want 200 and none", code, out.Again)
	}
}

// until waits for a condition and fails the test when it does not come true in time.
func (r *rig) until(within time.Duration, what string, holds func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(within); !holds(); {
		if !time.Now().Before(deadline) {
			r.t.Fatalf("not within %v: %s", within, what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fromFar sends an edge's request over plain HTTP from another host, with the right secret.
func (r *rig) fromFar(method, path string, check func(code int)) {
	r.t.Helper()
	request := httptest.NewRequest(method, path, strings.NewReader("{}"))
	request.RemoteAddr = "192.0.2.1:4711"
	request.Header.Set("Authorization", "Bearer "+testCluster)
	answer := httptest.NewRecorder()
	r.http.ServeHTTP(answer, request)
	check(answer.Code)
}
