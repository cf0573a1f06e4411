package edge

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/wire"
	"waitingroom/tokens"
)

func TestBeforeTheFirstSnapshotNothingIsGuessed(t *testing.T) {
	o := newScripted(t)
	e := startEdge(t, o, nil)
	token, id := o.ticket(t, nil)
	session := o.session(t, nil)
	known := e.known.current.Load()
	for name, snap := range map[string]*snapshot{
		"no keys":       {},
		"not told all":  {keys: known.keys, tenants: known.tenants, lines: known.lines},
		"lines, though": {lines: known.lines, synced: true},
	} {
		e.known.current.Store(snap)
		for _, request := range []struct {
			method, path string
			h            headers
			body         string
		}{
			{"GET", "/readyz", nil, ""},
			{"GET", "/queues/acme.sale", nil, ""},
			{"GET", "/queues/acme.sale/state", nil, ""},
			{"POST", "/queues/acme.sale/tickets", headers{"X-API-Key": o.apiKeys["acme secret"]}, "{}"},
			{"GET", "/tickets/" + id, e.bearer(token), ""},
			{"GET", "/access", e.bearer(session), ""},
			{"GET", "/revocations", headers{"X-API-Key": o.apiKeys["acme secret"]}, ""},
			{"GET", "/.well-known/jwks.json", nil, ""},
		} {
			got := e.do(request.method, request.path, request.h, request.body)
			if got.status != http.StatusServiceUnavailable || got.code(t) != "not_ready" || got.header.Get("Retry-After") == "" {
				t.Errorf("%s: %s %s: got %d %s, want 503 not_ready", name, request.method, request.path, got.status, got.body)
			}
		}
		if got := e.do("GET", "/wait/acme.sale", headers{"Accept": "text/html"}, ""); got.status != http.StatusServiceUnavailable || !strings.HasPrefix(got.header.Get("Content-Type"), "text/html") {
			t.Errorf("%s: page: got %d, want 503 in words", name, got.status)
		}
		if got := e.do("GET", "/healthz", nil, ""); got.status != http.StatusOK {
			t.Errorf("%s: healthz: got %d, want 200", name, got.status)
		}
	}
	e.known.current.Store(known)
}

func TestAGapInTheFeedBringsAFreshSnapshot(t *testing.T) {
	o := newScripted(t)
	e := startEdge(t, o, nil)
	o.mu.Lock()
	next, _ := o.views["acme.sale"].Apply([]queue.Entry{{Number: 2, Kind: queue.EntryJoined, Issued: 9}})
	o.views["acme.sale"] = next // the edge is not told
	o.mu.Unlock()
	o.log("acme.sale", queue.Entry{Kind: queue.EntryJoined, Issued: 10})
	e.applied("acme.sale")
	if got := e.known.current.Load().lines["acme.sale"].view.Load().Issued; got != 10 {
		t.Errorf("issued: got %d, want 10", got)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.feeds != 2 {
		t.Errorf("connections: got %d, want a second one", o.feeds)
	}
}

func TestQueuesThatVanishedWhileNobodyListenedAreForgotten(t *testing.T) {
	o := newScripted(t)
	e := startEdge(t, o, nil)
	token, id := o.ticket(t, func(c *tokens.Ticket) { c.Queue, c.IssuedAt = "acme.other", time.Now().Add(-time.Minute) })
	if got := e.do("GET", "/tickets/"+id, e.bearer(token), ""); got.status != http.StatusOK {
		t.Fatalf("before: got %d", got.status)
	}
	o.mu.Lock()
	delete(o.views, "acme.other")
	o.mu.Unlock()
	o.hangUp()
	waitFor(t, "the queue to be forgotten", func() bool { return e.do("GET", "/queues/acme.other", nil, "").status == http.StatusNotFound })
	if got := e.do("GET", "/tickets/"+id, e.bearer(token), ""); got.status != http.StatusGone {
		t.Errorf("its ticket: got %d, want 410", got.status)
	}
	if got := e.do("GET", "/queues/acme.sale", nil, ""); got.status != http.StatusOK {
		t.Errorf("the others: got %d, want 200", got.status)
	}
}

func TestRotatedKeysAreTakenUp(t *testing.T) {
	o := newScripted(t)
	e := startEdge(t, o, nil)
	token, id := o.ticket(t, nil)
	session := o.session(t, nil)
	if e.do("GET", "/tickets/"+id, e.bearer(token), "").status != 200 || e.do("GET", "/access", e.bearer(session), "").status != 200 {
		t.Fatal("before: want 200")
	}
	// New keys, and the old API key is withdrawn: what was remembered under the old ones is not
	// believed any more.
	other := newScripted(t)
	o.tell(wire.Frame{Tenants: &other.tenants})
	waitFor(t, "the new keys", func() bool { return e.do("GET", "/tickets/"+id, e.bearer(token), "").status == http.StatusUnauthorized })
	if got := e.do("GET", "/access", e.bearer(session), ""); got.status != http.StatusUnauthorized {
		t.Errorf("session under the old key: got %d, want 401", got.status)
	}
	if got := e.do("POST", "/queues/acme.sale/tickets", headers{"X-API-Key": o.apiKeys["acme secret"]}, "{}"); got.status != http.StatusUnauthorized {
		t.Errorf("withdrawn API key: got %d, want 401", got.status)
	}
	if got := e.do("POST", "/queues/acme.sale/tickets", headers{"X-API-Key": other.apiKeys["acme secret"]}, "{}"); got.status != http.StatusCreated {
		t.Errorf("new API key: got %d, want 201", got.status)
	}
	if got := e.do("GET", "/access", e.bearer(other.session(t, nil)), ""); got.status != http.StatusOK {
		t.Errorf("session under the new key: got %d, want 200", got.status)
	}
}

func TestSnapshotsAndEntries(t *testing.T) {
	k := newKnowledge(1024, testHub())
	apply := func(f wire.Frame) error { return k.apply(f) }
	at := func(number, issued uint64, generations ...string) wire.Frame {
		s := testView("acme.sale", "inc1").Snapshot()
		s.Number, s.Issued, s.Generations = number, issued, generations
		return wire.Frame{Snapshot: &wire.Snapshot{Queue: s}}
	}
	number := func() uint64 { return k.current.Load().lines["acme.sale"].view.Load().Number }
	if err := apply(at(5, 50, "g1")); err != nil || number() != 5 {
		t.Fatalf("snapshot: got %v at entry %d", err, number())
	}
	if err := apply(at(3, 30, "g1")); err != nil || number() != 5 {
		t.Errorf("an origin that reads behind: got %v at entry %d, want to stay at 5", err, number())
	}
	if err := apply(at(1, 60, "g1", "g2")); err != nil || number() != 1 {
		t.Errorf("a new generation: got %v at entry %d, want it to replace everything", err, number())
	}
	earlier, later := at(9, 90, "g0"), at(1, 1, "g9")
	earlier.Snapshot.Queue.Incarnation, later.Snapshot.Queue.Incarnation = "inc0", "inc2"
	earlier.Snapshot.Queue.CreatedAt = earlier.Snapshot.Queue.CreatedAt.Add(-time.Minute)
	later.Snapshot.Queue.CreatedAt = later.Snapshot.Queue.CreatedAt.Add(time.Minute)
	if err := apply(earlier); !errors.Is(err, errGap) || number() != 1 {
		t.Errorf("an origin that has not heard that the queue was made anew: got %v at entry %d, want errGap at 1", err, number())
	}
	if err := apply(later); err != nil || k.current.Load().lines["acme.sale"].incarnation != "inc2" {
		t.Errorf("a queue that was made anew: got %v, want it to replace everything", err)
	}
	for name, f := range map[string]wire.Frame{
		"gap":                 {Entries: &wire.Entries{Queue: "acme.sale", Entries: []queue.Entry{{Number: 3, Kind: queue.EntryTurn}}}},
		"unknown queue":       {Entries: &wire.Entries{Queue: "acme.none"}},
		"no generation":       {Snapshot: &wire.Snapshot{Queue: queue.Snapshot{ID: "acme.x"}}},
		"no id":               {Snapshot: &wire.Snapshot{Queue: queue.Snapshot{Generations: []string{"g"}}}},
		"revocations at once": {Revocations: &wire.Revocations{Tenant: "acme"}},
	} {
		if err := apply(f); !errors.Is(err, errGap) {
			t.Errorf("%s: got %v, want errGap", name, err)
		}
	}
	if err := apply(wire.Frame{}); err != nil {
		t.Errorf("a frame of a later version: got %v, want it passed over", err)
	}
	if err := apply(wire.Frame{Tenants: &wire.Tenants{Issuer: "i", JWKS: []byte(`{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}`)}}); err != nil && strings.Contains(err.Error(), "c2VjcmV0") {
		t.Errorf("bad keys: the error %q holds key material", err)
	}
}

func TestClockFollowsTheStore(t *testing.T) {
	const second = int64(time.Second)
	for name, test := range map[string]struct{ offset, heard, want int64 }{
		"first":           {0, 100 * second, 100 * second},
		"better":          {100 * second, 100*second + 5, 100*second + 5},
		"a late message":  {100 * second, 100*second - int64(3*time.Millisecond), 100*second - int64(3*time.Millisecond)},
		"a very late one": {100 * second, 99 * second, 100*second - int64(clockSlew)},
	} {
		if got := steer(test.offset, test.heard); got != test.want {
			t.Errorf("%s: got %d, want %d", name, got, test.want)
		}
	}
	c := newClock()
	if !c.stale() {
		t.Error("before the first heartbeat: got fresh, want stale")
	}
	store := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	c.heartbeat(store, false)
	if !c.stale() {
		t.Error("after a heartbeat without the store: got fresh, want stale")
	}
	c.heartbeat(store, true)
	if c.stale() || c.now().Sub(store) < 0 || c.now().Sub(store) > time.Minute || c.now().Location() != time.UTC {
		t.Errorf("now: got %v, want the store's time", c.now())
	}
}

// When an edge, or its origin, was stopped for a while, the heartbeats that it finds waiting are as
// old as that: going by them would put the clock back, and let an ended session in again. A clock
// that was really set is followed all the same.
func TestClockIsNotPutBackByOldHeartbeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClock()
		beat := func(behind time.Duration) { c.heartbeat(time.Now().Add(-behind), true) }
		want := func(when string, behind time.Duration) {
			t.Helper()
			if got := time.Since(c.now()); (got - behind).Abs() > 100*time.Millisecond {
				t.Errorf("%s: got a clock %v behind, want %v", when, got, behind)
			}
		}
		beat(0)
		time.Sleep(30 * time.Second)
		for old := 30 * time.Second; old > 0; old -= time.Second {
			beat(old)
			want("heartbeats that waited", 0)
		}
		for range 5 {
			time.Sleep(time.Second)
			beat(8 * time.Second)
			want("a few late heartbeats", 0)
		}
		beat(0)
		for range int(stepBackAfter / time.Second) {
			time.Sleep(time.Second)
			beat(time.Hour)
			want("the store's clock was set", 0)
		}
		time.Sleep(time.Second)
		beat(time.Hour)
		want("the store's clock was set and stays so", time.Hour)
	})
}

func TestStopTellsFirstAndHandsInLast(t *testing.T) {
	o := newScripted(t)
	e := startEdge(t, o, func(c *Config) { c.DrainSeconds = 1 })
	token, id := o.ticket(t, nil)
	if got := e.do("GET", "/tickets/"+id, e.bearer(token), ""); got.status != http.StatusOK {
		t.Fatalf("status: got %d", got.status)
	}
	stopped := make(chan error)
	go func() { stopped <- e.stop() }()
	waitFor(t, "readyz to say so", func() bool {
		got := e.do("GET", "/readyz", nil, "")
		return got.status == http.StatusServiceUnavailable && got.code(t) == "stopping"
	})
	// While the load balancer turns away, everybody is still served.
	if got := e.do("GET", "/tickets/"+id, e.bearer(token), ""); got.status != http.StatusOK {
		t.Errorf("while draining: got %d, want 200", got.status)
	}
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if n := len(o.seen); n == 0 || !o.seen[n-1].Leaving || !o.seen[n-1].Complete {
		t.Errorf("handed in: got %+v, want the last to say that the edge leaves", o.seen)
	}
}
