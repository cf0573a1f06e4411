package tokens

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestValidatorFollowsRotations(t *testing.T) {
	old, next, sudden := mustGenerate(t, GenerateSessionKeys), mustGenerate(t, GenerateSessionKeys), mustGenerate(t, GenerateSessionKeys)
	parse := func(set []byte) *SessionKeys {
		keys, err := ParseSessionKeys(set)
		if err != nil {
			t.Fatal(err)
		}
		return keys
	}
	inVirtualTime(t, FailClosed, func(t *testing.T, m *room, v *Validator) {
		now := time.Now()
		m.change(func() { m.keys = parse(join(t, old, withLife(t, next, now.Add(2*KeysEvery), time.Time{}))) })
		later(2*KeysEvery + time.Second)
		_, oldToken := signWithSet(t, m, old, "R0")
		_, token := m.sign(t, "R1", time.Hour)
		if _, err := v.Validate(token, testQueue); err != nil {
			t.Errorf("a key published two lifetimes before: got %v, want its first token accepted at once", err)
		}
		wantVerdict(t, v, "the key before", oldToken, testQueue, nil)

		m.change(func() { m.keys = parse(sudden) })
		_, fresh := m.sign(t, "R2", time.Hour)
		if _, err := v.Validate(fresh, testQueue); !errors.Is(err, errKeyID) {
			t.Errorf("a key nobody told of: got %v, want %v", err, errKeyID)
		}
		synctest.Wait()
		wantVerdict(t, v, "after the fetch that it caused", fresh, testQueue, nil)
		wantVerdict(t, v, "a withdrawn key, token remembered", oldToken, testQueue, ErrInvalid)
		wantVerdict(t, v, "a withdrawn key, token remembered", token, testQueue, ErrInvalid)
	})
}

func signWithSet(t *testing.T, m *room, set []byte, id string) (Session, string) {
	t.Helper()
	other := newRoom(t, set)
	other.now = m.now
	return other.sign(t, id, time.Hour)
}

func TestUnknownKeysCauseFewFetches(t *testing.T) {
	inVirtualTime(t, FailClosed, func(t *testing.T, m *room, v *Validator) {
		_, foreign := signWithSet(t, m, mustGenerate(t, GenerateSessionKeys), "R1")
		_, rest, _ := strings.Cut(foreign, ".")
		before, _ := m.fetches()
		const minutes = 10
		for i := range minutes * 60 {
			for j := range 20 {
				named := raw64(object{{"alg", `"EdDSA"`}, {"kid", fmt.Sprintf(`"x%d-%d"`, i, j)}, {"typ", quote(sessionType)}}.String())
				if _, err := v.Validate(named+"."+rest, testQueue); !errors.Is(err, errKeyID) {
					t.Fatalf("got %v, want %v", err, errKeyID)
				}
			}
			later(time.Second)
		}
		after, _ := m.fetches()
		if n := after - before; n < 2 || n > 2*minutes {
			t.Errorf("%d fetches of keys in %d minutes of made-up key ids, want some, and at most one a minute beside the usual", n, minutes)
		}

		// One and the same unknown key is asked for once between two usual fetches.
		later(2 * unknownKeyEvery)
		start, _ := m.fetches()
		for before = start; before == start; before, _ = m.fetches() {
			later(time.Second)
		}
		for range 100 {
			if _, err := v.Validate(foreign, testQueue); !errors.Is(err, errKeyID) {
				t.Fatalf("got %v, want %v", err, errKeyID)
			}
			later(time.Second)
		}
		after, _ = m.fetches()
		if n := after - before; n != 1 {
			t.Errorf("%d fetches because of one unknown key, want 1", n)
		}
	})
}

func TestValidatorReadsOnFromItsCursor(t *testing.T) {
	inVirtualTime(t, FailClosed, func(t *testing.T, m *room, v *Validator) {
		a, aToken := m.sign(t, "A", time.Hour)
		b, bToken := m.sign(t, "B", time.Hour)
		m.revoke(a)
		later(2 * time.Second)
		m.change(func() { m.revoked, m.first = nil, 1000 })
		m.revoke(b)
		later(2 * time.Second)
		wantVerdict(t, v, "revoked before the reset", aToken, testQueue, ErrRevoked)
		wantVerdict(t, v, "revoked after the reset", bToken, testQueue, ErrRevoked)
		later(2 * time.Second)
		m.mu.Lock()
		defer m.mu.Unlock()
		if first, last := m.after[0], m.after[len(m.after)-1]; first != "" || last != "1001" {
			t.Errorf("asked first after %q and last after %q, want nothing and 1001", first, last)
		}
	})
}

func TestRevocationsAreForgottenAfterTheirSession(t *testing.T) {
	inVirtualTime(t, FailClosed, func(t *testing.T, m *room, v *Validator) {
		s, token := m.sign(t, "A", 10*time.Minute)
		m.revoke(s)
		later(10*time.Minute - 2*time.Second)
		wantVerdict(t, v, "shortly before its expiry", token, testQueue, ErrRevoked)
		later(keepRevoked)
		if revoked, _ := v.revoked.look(s.ID); !revoked {
			t.Error("forgotten within a minute of the expiry, when a clock may be behind")
		}
		later(2 * pruneEvery)
		if revoked, _ := v.revoked.look(s.ID); revoked {
			t.Error("remembered long after the expiry")
		}
	})
}

func TestBadAnswersChangeNothing(t *testing.T) {
	const keysPath, listPath = "/.well-known/jwks.json", "/revocations"
	text := func(s string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(s)) }
	}
	for _, c := range []struct {
		name, path string
		answer     http.HandlerFunc
		want       string
	}{
		{"keys: not JSON", keysPath, text("<html>"), "not a JWK set"},
		{"keys: none", keysPath, text(`{"keys":[]}`), "no key"},
		{"keys: without end", keysPath, text(strings.Repeat(" ", maxKeySet+1)), "longer than"},
		{"keys: redirect", keysPath, http.RedirectHandler("https://evil.example/", http.StatusFound).ServeHTTP, "answers 302"},
		{"list: not JSON", listPath, text("<html>"), "not the JSON"},
		{"list: duplicate member", listPath, text(`{"revocations":[],"revocations":[],"cursor":"1"}`), "not the JSON"},
		{"list: no cursor", listPath, text(`{"revocations":[]}`), "missing"},
		{"list: null", listPath, text(`{"revocations":null,"cursor":"1"}`), "missing"},
		{"list: entry without expiry", listPath, text(`{"revocations":[{"id":"x"}],"cursor":"1"}`), "no fitting"},
		{"list: entry without id", listPath, text(`{"revocations":[{"expiresAt":"2030-01-01T00:00:00Z"}],"cursor":"1"}`), "no fitting"},
		{"list: without end", listPath, text(strings.Repeat(" ", maxRevocationList+1)), "longer than"},
		{"list: redirect", listPath, http.RedirectHandler("https://evil.example/", http.StatusFound).ServeHTTP, "answers 302"},
	} {
		set := mustGenerate(t, GenerateSessionKeys)
		synctest.Test(t, func(t *testing.T) {
			m := newRoom(t, set)
			v := m.validator(FailOpen)
			told := make(chan string, 1000)
			v.OnError = func(err error) { told <- err.Error() }
			ctx, cancel := context.WithCancel(t.Context())
			var running sync.WaitGroup
			running.Go(func() { _ = v.Run(ctx) })
			defer running.Wait()
			defer cancel()
			if err := v.Ready(ctx); err != nil {
				t.Fatal(err)
			}
			gone, goneToken := m.sign(t, "A", time.Hour)
			_, token := m.sign(t, "B", time.Hour)
			m.revoke(gone)
			later(2 * time.Second)
			m.change(func() { m.override[c.path] = c.answer })
			if c.path == keysPath {
				later(KeysEvery)
			}
			later(2 * time.Second)
			wantVerdict(t, v, c.name, token, testQueue, nil)
			wantVerdict(t, v, c.name, goneToken, testQueue, ErrRevoked)
			select {
			case text := <-told:
				if !strings.Contains(text, c.want) {
					t.Errorf("%s: OnError was told %q, want %q in it", c.name, text, c.want)
				}
			default:
				t.Errorf("%s: OnError was told nothing", c.name)
			}
		})
	}
}

func TestRedirectDoesNotCarryTheAPIKey(t *testing.T) {
	var asked atomic.Int32
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer elsewhere.Close()
	edge := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	defer edge.Close()
	v := &Validator{
		Issuer: testIssuer, Tenant: testTenant, BaseURL: edge.URL, APIKey: testAPIKey, MaxStale: 10 * time.Second, WhenStale: FailClosed,
	}
	ctx, cancel := context.WithCancel(t.Context())
	var failures atomic.Int32
	v.OnError = func(error) {
		if failures.Add(1) == 2 {
			cancel()
		}
	}
	if err := v.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Run: got %v, want %v", err, context.Canceled)
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("%d requests followed the redirect, want none", n)
	}
}
