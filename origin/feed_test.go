package origin

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
	"waitingroom/origin/store/memory"
	"waitingroom/origin/wire"
)

// running is an origin with its sockets.
type running struct {
	*rig
	client *wire.Client
	end    func()
}

func runOrigin(t *testing.T, creds *credentials, st store.Store) *running {
	t.Helper()
	s := &Server{Config: creds.config, Store: st, Secrets: func() (Secrets, error) { return creds.secrets, nil }}
	must(t, s.Listen())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	r := &running{
		rig:    &rig{Server: s, t: t, creds: creds, http: s.handler(), tickets: s.keys.Load().tickets},
		client: &wire.Client{Origins: []string{"http://" + s.Addr().String()}, Secret: testCluster},
	}
	stopped := false
	r.end = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		r.client.CloseIdle()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: got %v, want nil", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Run did not return within 10 s of the end of its context")
		}
	}
	t.Cleanup(r.end)
	r.until(5*second, "ready", s.feed.Ready)
	return r
}

// follower is an edge as far as the feed goes: it wants every log without a gap.
type follower struct {
	views      map[queue.ID]*queue.View
	revoked    map[string]bool
	removed    map[queue.ID]bool
	tenants    *wire.Tenants
	snapshots  int
	heartbeats int
}

// follow reads the feed until holds, asked after each frame, is true.
func (r *running) follow(f *follower, holds func() bool) {
	r.t.Helper()
	done := errors.New("done")
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	defer cancel()
	first, told := true, make(map[queue.ID]bool)
	beats := f.heartbeats
	err := r.client.Feed(ctx, testEdge, func(frame wire.Frame) error {
		if first && frame.Tenants == nil {
			return fmt.Errorf("the first frame: got %+v, want tenants", frame)
		}
		first = false
		if err := f.handle(frame); err != nil {
			return err
		}
		if frame.Snapshot != nil {
			told[frame.Snapshot.Queue.ID] = true
		}
		if f.heartbeats == beats+1 { // what was not told of by now is gone
			maps.DeleteFunc(f.views, func(id queue.ID, _ *queue.View) bool { return !told[id] })
		}
		if holds() {
			return done
		}
		return nil
	})
	if !errors.Is(err, done) {
		r.t.Fatalf("reading the feed: %v", err)
	}
}

func (f *follower) handle(frame wire.Frame) error {
	switch {
	case frame.Tenants != nil:
		f.tenants = frame.Tenants
	case frame.Snapshot != nil:
		f.snapshots++
		f.views[frame.Snapshot.Queue.ID] = queue.NewView(frame.Snapshot.Queue)
	case frame.Entries != nil:
		view := f.views[frame.Entries.Queue]
		if view == nil {
			return errors.New("entries of a queue without a snapshot")
		}
		if first := frame.Entries.Entries[0].Number; first != view.Number+1 {
			return fmt.Errorf("entries: got %d after %d, want no gap and no repetition", first, view.Number)
		}
		next, ok := view.Apply(frame.Entries.Entries)
		if !ok {
			return errors.New("entries that do not fit")
		}
		f.views[frame.Entries.Queue] = next
	case frame.Removed != nil:
		f.removed[frame.Removed.Queue] = true
		delete(f.views, frame.Removed.Queue)
	case frame.Revocations != nil:
		if frame.Revocations.Reset {
			clear(f.revoked)
		}
		for _, revocation := range frame.Revocations.List {
			f.revoked[revocation.ID] = true
		}
	case frame.Heartbeat != nil:
		f.heartbeats++
	default:
		return errors.New("an empty frame")
	}
	return nil
}

func newFollower() *follower {
	return &follower{views: make(map[queue.ID]*queue.View), revoked: make(map[string]bool), removed: make(map[queue.ID]bool)}
}

func TestFeedTellsEverythingThenEveryChange(t *testing.T) {
	defer goleak.VerifyNone(t)
	r := runOrigin(t, newCredentials(t), &memory.Store{})
	defer r.end()
	id := r.create("sale", `"capacity":1,"claimSeconds":600`)
	r.until(second, "the first tick", func() bool { return r.view(id).Turn > 1 })
	first := r.joinOne(id)
	r.claimOne(id, first)
	r.view(id) // the feed has read it

	f := newFollower()
	r.follow(f, func() bool { return f.heartbeats > 0 })
	view := f.views[id]
	if view == nil || view.Fate(first) != queue.Claimed || view.Sessions != 1 {
		t.Fatalf("the state at the first heartbeat: got %+v, want the queue with its session", view)
	}
	if len(f.tenants.Tenants) != 2 || f.tenants.Issuer != testIssuer || len(f.tenants.JWKS) == 0 {
		t.Errorf("tenants: got %d of %q, want 2 of %q with the public keys", len(f.tenants.Tenants), f.tenants.Issuer, testIssuer)
	}

	// While an edge reads, things happen; a second connection takes up where it stands.
	running := view.Sessions
	session, _ := view.Session(first)
	go func() {
		for range 200 {
			r.join(id, "", "")
		}
		r.leaveOne(id, first)
		r.operate("POST", "/queues", `{"slug":"new","capacity":1}`)
		r.operate("POST", "/queues", `{"slug":"gone","capacity":1,"state":"closed"}`)
	}()
	r.follow(f, func() bool {
		return f.views[id].Issued == 401 && f.views[id].Sessions < running && f.revoked[session.ID] &&
			f.views[queue.MakeID("shop", "new")] != nil && f.views[queue.MakeID("shop", "gone")] != nil
	})
	go r.operate("DELETE", "/queues/shop.gone", "")
	beats := f.heartbeats
	r.follow(f, func() bool { return f.heartbeats > beats && f.views["shop.gone"] == nil })
	if got := f.views[id].Fate(first); got != queue.Left {
		t.Errorf("fate of the fan who left: got %v, want left", got)
	}
}

func TestFeedReachesEdgesWithinMilliseconds(t *testing.T) {
	r := runOrigin(t, newCredentials(t), &memory.Store{})
	id := r.create("sale", `"capacity":0`)
	f := newFollower()
	var asked time.Time
	var took []time.Duration
	r.follow(f, func() bool {
		view := f.views[id]
		if view == nil || f.heartbeats == 0 {
			return false
		}
		if view.Issued == uint64(len(took))+1 {
			took = append(took, time.Since(asked))
		}
		if view.Issued == uint64(len(took)) && len(took) < 20 {
			asked = time.Now()
			r.joinOne(id)
		}
		return len(took) == 20
	})
	fast := 0
	for _, d := range took {
		if d < 50*time.Millisecond {
			fast++
		}
	}
	if fast < 15 {
		t.Errorf("from join to edge: got %v, want most within 50 ms", took)
	}
}

func TestSlowEdgeIsCutOff(t *testing.T) {
	r := runOrigin(t, newCredentials(t), &memory.Store{})
	o, err := r.feed.subscribe()
	must(t, err)
	defer r.feed.unsubscribe(o)
	for range maxOutboxItems + 1 {
		o.put(item{line: []byte("x\n")})
	}
	if _, overflowed := o.take(); !overflowed {
		t.Error("an outbox that nobody reads: got no overflow, want one")
	}
	if len(o.items) != 0 {
		t.Errorf("an overflowed outbox: got %d items, want none kept", len(o.items))
	}
}

func TestFeedRefusesWithoutTheSecret(t *testing.T) {
	r := runOrigin(t, newCredentials(t), &memory.Store{})
	client := &wire.Client{Origins: r.client.Origins, Secret: strings.Repeat("wrong", 10)}
	err := client.Feed(t.Context(), testEdge, func(wire.Frame) error { return nil })
	var refusal *wire.Error
	if !errors.As(err, &refusal) || refusal.Code != wire.CodeUnauthorized {
		t.Errorf("feed with a wrong secret: got %v, want %q", err, wire.CodeUnauthorized)
	}
}

// silentStore can stop answering.
type silentStore struct {
	*memory.Store
	silent chan struct{} // closed: it is silent
}

func (s *silentStore) err() error {
	select {
	case <-s.silent:
		return errors.New("the store is silent")
	default:
		return nil
	}
}

func (s *silentStore) Now(ctx context.Context) (time.Time, error) {
	if err := s.err(); err != nil {
		return time.Time{}, err
	}
	return s.Store.Now(ctx)
}

func (s *silentStore) Entries(ctx context.Context, id queue.ID, incarnation string, after uint64, chain string, limit int) ([]queue.Entry, error) {
	if err := s.err(); err != nil {
		return nil, err
	}
	return s.Store.Entries(ctx, id, incarnation, after, chain, limit)
}

func (s *silentStore) Join(ctx context.Context, batch store.JoinBatch) (store.JoinResult, error) {
	if err := s.err(); err != nil {
		return store.JoinResult{}, err
	}
	return s.Store.Join(ctx, batch)
}

func TestEdgesAreToldWhenTheStoreIsGone(t *testing.T) {
	st := &silentStore{Store: &memory.Store{}, silent: make(chan struct{})}
	r := runOrigin(t, newCredentials(t), st)
	id := r.create("sale", `"capacity":0`)
	r.joinOne(id)
	close(st.silent)
	if _, err := r.client.Join(t.Context(), wire.JoinRequest{Queue: id, Edge: testEdge, Seq: 77, Users: []string{""}}); !errors.Is(err, wire.ErrUnavailable) {
		t.Errorf("join while the store is gone: got %v, want %v", err, wire.ErrUnavailable)
	}
	ready := true
	f := newFollower()
	done := errors.New("done")
	err := r.client.Feed(t.Context(), testEdge, func(frame wire.Frame) error {
		if frame.Heartbeat != nil {
			ready = frame.Heartbeat.Ready
		}
		if !ready {
			return done
		}
		return f.handle(frame)
	})
	if !errors.Is(err, done) {
		t.Fatalf("reading the feed: %v", err)
	}
	answer, err := http.Get(r.client.Origins[0] + "/readyz")
	must(t, err)
	answer.Body.Close()
	if answer.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("/readyz while the store is gone: got %d, want 503", answer.StatusCode)
	}
}

func TestReloadTakesNewKeysAndKeepsOldOnesWhenTheNewAreBroken(t *testing.T) {
	creds := newCredentials(t)
	r := runOrigin(t, creds, &memory.Store{})
	fresh := newCredentials(t)
	good := creds.secrets

	creds.secrets.SessionKeys = []byte("broken")
	if err := r.Reload(creds.config); err == nil {
		t.Error("reload with a broken key file: got no error, want one")
	}
	creds.secrets = good
	if answer := r.operate("GET", "/queues", ""); answer.Code != 200 {
		t.Errorf("with the old keys after a failed reload: got %d, want 200", answer.Code)
	}

	f := newFollower()
	reloaded := false
	r.follow(f, func() bool {
		if f.heartbeats > 0 && !reloaded {
			reloaded = true
			creds.secrets.SessionKeys = fresh.secrets.SessionKeys
			creds.secrets.Tenants["shop"] = fresh.secrets.Tenants["shop"]
			before := string(f.tenants.JWKS)
			must(t, r.Reload(creds.config))
			f.tenants.JWKS = []byte(before)
			return false
		}
		jwks, err := r.keys.Load().sessions.Public(r.clock.Now())
		must(t, err)
		return reloaded && string(f.tenants.JWKS) == string(jwks)
	})
	if answer := r.operate("GET", "/queues", ""); answer.Code != 401 {
		t.Errorf("an operator's token of the replaced key: got %d, want 401", answer.Code)
	}
}

func TestPlainHTTPOffLoopbackNeedsAWord(t *testing.T) {
	creds := newCredentials(t)
	creds.config.Listen = "0.0.0.0:0"
	s := &Server{Config: creds.config, Store: &memory.Store{}, Secrets: func() (Secrets, error) { return creds.secrets, nil }}
	if err := s.Listen(); err == nil {
		t.Fatal("listening on all addresses without TLS: got no error, want one")
	}
	creds.config.AllowPlainHTTP = true
	r := runOrigin(t, creds, &memory.Store{})
	_, port, err := net.SplitHostPort(r.Addr().String())
	must(t, err)
	answer, err := http.Get("http://127.0.0.1:" + port + "/healthz")
	must(t, err)
	answer.Body.Close()
	if answer.StatusCode != 200 {
		t.Errorf("/healthz: got %d, want 200", answer.StatusCode)
	}
}

func TestEdgesComeOverTLS(t *testing.T) {
	creds := newCredentials(t)
	dir := t.TempDir()
	roots := writeCertificate(t, dir)
	creds.config.TLS = TLSConfig{CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem")}
	creds.config.AdminListen = "127.0.0.1:0"
	r := runOrigin(t, creds, &memory.Store{})
	id := r.create("sale", `"capacity":1`)
	r.client = &wire.Client{
		Origins: []string{"https://" + r.Addr().String()}, Secret: testCluster, TLS: &tls.Config{RootCAs: roots},
	}
	defer r.client.CloseIdle()
	joined, err := r.client.Join(t.Context(), wire.JoinRequest{Queue: id, Edge: testEdge, Seq: 1, Users: []string{"anna", ""}})
	if err != nil || len(joined.Joins) != 2 {
		t.Fatalf("join over TLS: got %+v, %v, want two positions", joined, err)
	}
	f := newFollower()
	r.follow(f, func() bool { return f.heartbeats > 1 })

	strangers := &wire.Client{Origins: r.client.Origins, Secret: testCluster}
	if _, err := strangers.Join(t.Context(), wire.JoinRequest{}); !errors.Is(err, wire.ErrUnavailable) {
		t.Errorf("join at an origin whose certificate nobody signed: got %v, want %v", err, wire.ErrUnavailable)
	}

	answer, err := http.Get("http://" + r.AdminAddr().String() + "/metrics")
	must(t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	must(t, err)
	for _, name := range []string{
		"tick_seconds_count", "leases ", "joins_total 2", `batches_total{endpoint="join",result="ok"} 1`, "feed_drops_total", "feeds ",
	} {
		if !strings.Contains(string(text), "waitingroom_origin_"+name) {
			t.Errorf("metrics: got none named waitingroom_origin_%s", name)
		}
	}
	if strings.Contains(string(text), "anna") {
		t.Error("metrics hold a user's id")
	}
}

// writeCertificate writes a certificate for 127.0.0.1 and returns who signed it.
func writeCertificate(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	must(t, err)
	key, err := x509.MarshalPKCS8PrivateKey(private)
	must(t, err)
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})
	must(t, os.WriteFile(filepath.Join(dir, "cert.pem"), certPEM, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600))
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(certPEM)
	return roots
}
