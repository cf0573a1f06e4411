package edge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"waitingroom/edge/hub"
	"waitingroom/origin/queue"
	"waitingroom/origin/wire"
	"waitingroom/tokens"
)

const (
	shopOrigin = "https://shop.example"
	testIssuer = "https://wait.example"
)

// scripted is an origin that does what a test tells it to. Where a hook is nil it refuses with
// wire.ErrUnavailable.
type scripted struct {
	join  func(context.Context, wire.JoinRequest) (wire.JoinResponse, error)
	see   func(context.Context, wire.SightingsRequest) (wire.SightingsResponse, error)
	claim func(context.Context, wire.ClaimRequest) (wire.ClaimResponse, error)
	leave func(context.Context, wire.LeaveRequest) error
	key   func(context.Context, wire.UserKeyRequest) (wire.UserKeyResponse, error)

	tenants     wire.Tenants
	ticketKeys  tokens.Tickets
	sessionKeys *tokens.SessionKeys
	apiKeys     map[string]string // by name: "acme secret", "acme publishable"

	mu     sync.Mutex
	views  map[queue.ID]*queue.View
	ended  map[string]wire.Revocations
	frames chan wire.Frame
	cut    chan struct{} // closed to break the connection
	silent bool          // no heartbeats
	feeds  int
	seen   []wire.Sightings
}

// newScripted is an origin with the tenants acme and rival and one queue of each, "sale", besides
// acme's second one, "other".
func newScripted(t testing.TB) *scripted {
	t.Helper()
	o := &scripted{
		apiKeys: make(map[string]string), views: make(map[queue.ID]*queue.View),
		ended: make(map[string]wire.Revocations), frames: make(chan wire.Frame, 64), cut: make(chan struct{}),
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	private, err := tokens.GenerateSessionKeys()
	must(err)
	o.sessionKeys, err = tokens.ParseSessionKeys(private)
	must(err)
	public, err := o.sessionKeys.Public(time.Now())
	must(err)
	o.tenants = wire.Tenants{Issuer: testIssuer, JWKS: public}
	o.ticketKeys = tokens.Tickets{Issuer: testIssuer, Rings: make(map[string]*tokens.KeyRing)}
	for _, id := range []string{"acme", "rival"} {
		ring, err := tokens.GenerateTicketKeys()
		must(err)
		o.ticketKeys.Rings[id], err = tokens.ParseKeyRing(ring)
		must(err)
		tenant := wire.Tenant{ID: id, TicketKeys: ring}
		for _, secret := range []bool{true, false} {
			key, err := tokens.NewAPIKey(secret)
			must(err)
			kind := "publishable"
			if secret {
				kind = "secret"
			}
			o.apiKeys[id+" "+kind] = key
			tenant.APIKeys = append(tenant.APIKeys, wire.APIKey{ID: kind, Secret: secret, SHA256: tokens.HashAPIKey(key)})
		}
		o.tenants.Tenants = append(o.tenants.Tenants, tenant)
	}
	for _, id := range []queue.ID{"acme.sale", "acme.other", "rival.sale"} {
		o.views[id] = testView(id, "inc1")
	}
	o.join = o.joinInOrder
	o.see = func(_ context.Context, r wire.SightingsRequest) (wire.SightingsResponse, error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.seen = append(o.seen, r.Queues...)
		return wire.SightingsResponse{}, nil
	}
	return o
}

func testView(id queue.ID, incarnation string) *queue.View {
	settings := queue.DefaultSettings()
	settings.Capacity = 10
	settings.ReturnOrigins = []string{shopOrigin}
	settings.Branding.Name = "Acme"
	return queue.NewView(queue.Snapshot{
		ID: id, Incarnation: incarnation, Generations: []string{"gen1"}, Number: 1,
		CreatedAt: time.Now().Add(-time.Hour).UTC().Truncate(time.Millisecond), Settings: settings, Turn: 1,
	})
}

// joinInOrder issues positions; users keep theirs.
func (o *scripted) joinInOrder(_ context.Context, r wire.JoinRequest) (wire.JoinResponse, error) {
	o.mu.Lock()
	view := o.views[r.Queue]
	issued := max(view.Issued, r.Floor)
	answer := wire.JoinResponse{Incarnation: view.Incarnation, Generation: view.Generation(), Now: time.Now()}
	for _, user := range r.Users {
		if user == "known" {
			answer.Joins = append(answer.Joins, wire.Joined{Position: 1})
			continue
		}
		issued++
		answer.Joins = append(answer.Joins, wire.Joined{Position: issued, New: true})
	}
	answer.Entry = view.Number + 1
	o.mu.Unlock()
	o.log(r.Queue, queue.Entry{Kind: queue.EntryJoined, Issued: issued})
	return answer, nil
}

// log appends an entry to a queue and tells the edge.
func (o *scripted) log(id queue.ID, entries ...queue.Entry) {
	o.mu.Lock()
	defer o.mu.Unlock()
	view := o.views[id]
	for i := range entries {
		entries[i].Number = view.Number + 1 + uint64(i)
		if entries[i].At.IsZero() {
			entries[i].At = time.Now().UTC()
		}
	}
	next, ok := view.Apply(entries)
	if !ok {
		panic("the script's entries do not follow on each other")
	}
	o.views[id] = next
	o.frames <- wire.Frame{Entries: &wire.Entries{Queue: id, Entries: entries}}
}

func (o *scripted) tell(f wire.Frame) { o.frames <- f }

// revoke continues a tenant's list.
func (o *scripted) revoke(tenant, cursor string, ids ...string) {
	frame := wire.Revocations{Tenant: tenant, Cursor: cursor}
	for _, id := range ids {
		frame.List = append(frame.List, wire.Revocation{ID: id, ExpiresAt: time.Now().Add(time.Hour)})
	}
	o.tell(wire.Frame{Revocations: &frame})
}

// hangUp breaks the running connection; what is told from now on begins with a new one.
func (o *scripted) hangUp() {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.cut)
	o.cut = make(chan struct{})
	o.frames = make(chan wire.Frame, 64)
}

func (o *scripted) Feed(ctx context.Context, _ string, handle func(wire.Frame) error) error {
	o.mu.Lock()
	o.feeds++
	cut, frames := o.cut, o.frames
	opening := []wire.Frame{{Tenants: &o.tenants}}
	for _, view := range o.views {
		opening = append(opening, wire.Frame{Snapshot: &wire.Snapshot{Queue: view.Snapshot()}})
	}
	for len(frames) > 0 {
		<-frames // the snapshots hold it
	}
	o.mu.Unlock()
	for _, t := range o.tenants.Tenants {
		opening = append(opening, wire.Frame{Revocations: &wire.Revocations{Tenant: t.ID, Reset: true}})
	}
	opening = append(opening, wire.Frame{Heartbeat: &wire.Heartbeat{Now: time.Now(), Ready: true}})
	for _, f := range opening {
		if err := handle(f); err != nil {
			return err
		}
	}
	beat := time.NewTicker(wire.HeartbeatEvery)
	defer beat.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-cut:
			return wire.ErrUnavailable
		case f := <-frames:
			err = handle(f)
		case <-beat.C:
			o.mu.Lock()
			silent := o.silent
			o.mu.Unlock()
			if !silent {
				err = handle(wire.Frame{Heartbeat: &wire.Heartbeat{Now: time.Now(), Ready: true}})
			}
		}
		if err != nil {
			return err
		}
	}
}

func (o *scripted) Join(ctx context.Context, r wire.JoinRequest) (wire.JoinResponse, error) {
	if o.join == nil {
		return wire.JoinResponse{}, wire.ErrUnavailable
	}
	return o.join(ctx, r)
}

func (o *scripted) See(ctx context.Context, r wire.SightingsRequest) (wire.SightingsResponse, error) {
	if o.see == nil {
		return wire.SightingsResponse{}, wire.ErrUnavailable
	}
	return o.see(ctx, r)
}

func (o *scripted) Claim(ctx context.Context, r wire.ClaimRequest) (wire.ClaimResponse, error) {
	if o.claim == nil {
		return wire.ClaimResponse{}, wire.ErrUnavailable
	}
	return o.claim(ctx, r)
}

func (o *scripted) Leave(ctx context.Context, r wire.LeaveRequest) error {
	if o.leave == nil {
		return wire.ErrUnavailable
	}
	return o.leave(ctx, r)
}

func (o *scripted) UserKey(ctx context.Context, r wire.UserKeyRequest) (wire.UserKeyResponse, error) {
	if o.key == nil {
		return wire.UserKeyResponse{}, wire.ErrUnavailable
	}
	return o.key(ctx, r)
}

// ticket signs a ticket as another edge would.
func (o *scripted) ticket(t testing.TB, change func(*tokens.Ticket)) (token, id string) {
	t.Helper()
	now := time.Now()
	claims := tokens.Ticket{
		Queue: "acme.sale", IssuedAt: now, ExpiresAt: now.Add(time.Hour), Subject: "fan-1",
		Position: 1, Incarnation: "inc1", Generation: "gen1",
	}
	if change != nil {
		change(&claims)
	}
	signed, err := o.ticketKeys.Sign(nil, claims, now)
	if err != nil {
		t.Fatal(err)
	}
	return string(signed), tokens.TicketID(claims.Incarnation, claims.Position)
}

// session signs a session token as the origin would.
func (o *scripted) session(t testing.TB, change func(*tokens.Session)) string {
	t.Helper()
	now := time.Now()
	s := tokens.Session{
		Issuer: testIssuer, Tenant: "acme", Queue: "acme.sale", ID: "acme.sale~s1", Subject: "fan-1",
		StartsAt: now, ExpiresAt: now.Add(time.Hour),
	}
	if change != nil {
		change(&s)
	}
	token, err := o.sessionKeys.Sign(s, now)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// edgeUnderTest is a running edge and a client of it.
type edgeUnderTest struct {
	*Server
	t      testing.TB
	origin *scripted
	logs   *lockedBuffer
	stop   func() error // ends Run and returns its error
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func startEdge(t testing.TB, o *scripted, change func(*Config)) *edgeUnderTest {
	t.Helper()
	config := Config{Listen: "127.0.0.1:0", AdminListen: "127.0.0.1:0", WhenStale: FailOpen}
	if change != nil {
		change(&config)
	}
	logs := &lockedBuffer{}
	s := &Server{Config: config, Origin: o, Logger: slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var once sync.Once
	var result error
	e := &edgeUnderTest{Server: s, t: t, origin: o, logs: logs, stop: func() error {
		once.Do(func() {
			cancel()
			http.DefaultClient.CloseIdleConnections()
			result = <-done
		})
		return result
	}}
	t.Cleanup(func() {
		if err := e.stop(); err != nil {
			t.Errorf("run: got %v, want a clean stop", err)
		}
	})
	waitFor(t, "the edge to be ready", func() bool { _, err := s.ready(); return err == nil })
	return e
}

// waitFor waits until a condition holds.
func waitFor(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		case <-tick.C:
		}
	}
}

// answer is what an edge answered.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) object(t testing.TB) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(a.body), &m); err != nil {
		t.Fatalf("the body is not a JSON object: %q", a.body)
	}
	return m
}

// code is the code of a problem document, which must be one in every other way too.
func (a answer) code(t testing.TB) string {
	t.Helper()
	if got, want := a.header.Get("Content-Type"), "application/problem+json"; got != want {
		t.Errorf("content type of a refusal: got %q, want %q (body %q)", got, want, a.body)
	}
	m := a.object(t)
	if got := m["status"]; got != float64(a.status) {
		t.Errorf("status in the document: got %v, want %d", got, a.status)
	}
	code, _ := m["code"].(string)
	return code
}

type headers map[string]string

func (e *edgeUnderTest) do(method, path string, h headers, body string) answer {
	e.t.Helper()
	var content io.Reader
	if body != "" {
		content = strings.NewReader(body)
	}
	r, err := http.NewRequest(method, "http://"+e.Addr().String()+path, content)
	if err != nil {
		e.t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for name, value := range h {
		r.Header.Set(name, value)
	}
	response, err := noRedirects.Do(r)
	if err != nil {
		e.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		e.t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, string(text)}
}

var noRedirects = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

func (e *edgeUnderTest) bearer(token string) headers {
	return headers{"Authorization": "Bearer " + token}
}

// fromPage are the headers of a request by the waiting page.
func (e *edgeUnderTest) fromPage(cookie string) headers {
	h := headers{"Origin": e.PublicURL()}
	if cookie != "" {
		h["Cookie"] = cookie
	}
	return h
}

// applied waits until the edge has applied all that the script has logged of a queue.
func (e *edgeUnderTest) applied(id queue.ID) {
	e.t.Helper()
	waitFor(e.t, "the feed", func() bool {
		e.origin.mu.Lock()
		want := e.origin.views[id].Number
		e.origin.mu.Unlock()
		l := e.known.current.Load().lines[id]
		return l != nil && l.view.Load().Number == want
	})
}

var errScript = errors.New("the script says so")

// ticketAt signs a ticket with a position.
func (o *scripted) ticketAt(t testing.TB, position uint64) (token, id string) {
	return o.ticket(t, func(c *tokens.Ticket) { c.Position = position })
}

// testHub is a hub for an edge that is not run.
func testHub() *hub.Hub { return hub.New(100, time.Second, slog.New(slog.DiscardHandler)) }
