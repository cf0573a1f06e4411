package tokens

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"
)

const testAPIKey = "wr_sec_test"

// room answers what a Validator asks of an edge, as the edge does.
type room struct {
	mu       sync.Mutex
	keys     *SessionKeys
	now      func() time.Time
	revoked  []revocation
	first    int  // the cursor of revoked[0]; older ones are unknown
	down     bool // answers 503 to everything
	override map[string]http.HandlerFunc

	keyFetches, listFetches int
	after                   []string // the cursors that were asked for
}

func newRoom(t testing.TB, set []byte) *room {
	t.Helper()
	keys, err := ParseSessionKeys(set)
	if err != nil {
		t.Fatal(err)
	}
	return &room{keys: keys, now: time.Now, override: map[string]http.HandlerFunc{}}
}

func (m *room) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch r.URL.Path {
	case "/.well-known/jwks.json":
		m.keyFetches++
	case "/revocations":
		m.listFetches++
		m.after = append(m.after, r.URL.Query().Get("after"))
	}
	if m.down {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if handler := m.override[r.URL.Path]; handler != nil {
		handler(w, r)
		return
	}
	switch r.URL.Path {
	case "/.well-known/jwks.json":
		text, err := m.keys.Public(m.now())
		if err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write(text)
	case "/revocations":
		if r.Header.Get("X-API-Key") != testAPIKey {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		page := map[string]any{"cursor": strconv.Itoa(m.first + len(m.revoked)), "reset": true, "revocations": append([]revocation{}, m.revoked...)}
		if after, err := strconv.Atoi(r.URL.Query().Get("after")); err == nil && after >= m.first && after <= m.first+len(m.revoked) {
			page["reset"], page["revocations"] = false, append([]revocation{}, m.revoked[after-m.first:]...)
		}
		_ = json.NewEncoder(w).Encode(page)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// change changes what the room answers from now on.
func (m *room) change(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

func (m *room) revoke(s Session) {
	m.change(func() { m.revoked = append(m.revoked, revocation{s.ID, s.ExpiresAt}) })
}

func (m *room) fetches() (keys, list int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.keyFetches, m.listFetches
}

// RoundTrip answers without a network, so that tests can run in virtual time.
func (m *room) RoundTrip(r *http.Request) (*http.Response, error) {
	recorder := httptest.NewRecorder()
	m.ServeHTTP(recorder, r)
	return recorder.Result(), r.Context().Err()
}

// sign makes a session of a queue that starts now, and its token.
func (m *room) sign(t testing.TB, id string, life time.Duration) (Session, string) {
	t.Helper()
	now := m.now()
	s := Session{
		Issuer: testIssuer, Tenant: testTenant, Queue: testQueue, ID: testQueue + "~" + id, Subject: "fan-7",
		StartsAt: now.UTC().Truncate(time.Second), ExpiresAt: now.Add(life).UTC().Truncate(time.Second),
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	token, err := m.keys.Sign(s, now)
	if err != nil {
		t.Fatal(err)
	}
	return s, token
}

// validator is one that asks the room without a network.
func (m *room) validator(rule StaleRule) *Validator {
	return &Validator{
		Issuer: testIssuer, Tenant: testTenant, BaseURL: "https://wait.example.org/base/", APIKey: testAPIKey,
		MaxStale: 20 * time.Second, WhenStale: rule,
		Client: &http.Client{Transport: stripBase{m}},
	}
}

// stripBase serves the room under a path, as behind a proxy.
type stripBase struct{ next http.RoundTripper }

func (s stripBase) RoundTrip(r *http.Request) (*http.Response, error) {
	inner := r.Clone(r.Context())
	inner.URL.Path = inner.URL.Path[len("/base"):]
	return s.next.RoundTrip(inner)
}
