package tokens

import (
	"errors"
	"strings"
	"testing"
	"time"
)

var someSession = Session{
	Issuer: testIssuer, Tenant: testTenant, Queue: testQueue, ID: testQueue + "~R1", Subject: "fan-7",
	StartsAt: testNow, ExpiresAt: testNow.Add(20 * time.Minute),
}

func sessionKeysOf(t testing.TB, set []byte) (*SessionKeys, *PublicKeys) {
	t.Helper()
	keys, err := ParseSessionKeys(set)
	if err != nil {
		t.Fatal(err)
	}
	text, err := keys.Public(testNow)
	if err != nil {
		t.Fatal(err)
	}
	public, err := ParsePublicKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	return keys, public
}

// TestSameSessionSameToken: a reload gets the token that the first device got.
func TestSameSessionSameToken(t *testing.T) {
	keys, public := sessionKeysOf(t, mustGenerate(t, GenerateSessionKeys))
	s := someSession
	s.StartsAt, s.ExpiresAt = s.StartsAt.Add(700*time.Millisecond), s.ExpiresAt.Add(700*time.Millisecond)
	first, err := keys.Sign(s, testNow)
	if err != nil {
		t.Fatal(err)
	}
	second, err := keys.Sign(s, testNow.Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if first != second {
		t.Errorf("got %q and %q, want the same", first, second)
	}
	got, err := public.Verify(first, testIssuer, testTenant, testNow)
	if err != nil || got != someSession {
		t.Errorf("got %+v, %v; want %+v, cut to whole seconds", got, err, someSession)
	}
}

func TestSignSessionRefuses(t *testing.T) {
	keys, _ := sessionKeysOf(t, mustGenerate(t, GenerateSessionKeys))
	for _, c := range []struct {
		name   string
		change func(*Session)
	}{
		{"no issuer", func(s *Session) { s.Issuer = "" }},
		{"queue of another tenant", func(s *Session) { s.Tenant = "rival" }},
		{"tenant that is the beginning of the queue's", func(s *Session) { s.Tenant = "clu" }},
		{"id of another queue", func(s *Session) { s.ID = "club.other~R1" }},
		{"id without random part", func(s *Session) { s.ID = testQueue + "~" }},
		{"subject too long", func(s *Session) { s.Subject = strings.Repeat("x", 129) }},
		{"subject not UTF-8", func(s *Session) { s.Subject = "\xff" }},
		{"no end", func(s *Session) { s.ExpiresAt = time.Time{} }},
		{"end before the start", func(s *Session) { s.ExpiresAt = s.StartsAt.Add(-time.Second) }},
	} {
		s := someSession
		c.change(&s)
		if token, err := keys.Sign(s, testNow); err == nil || token != "" {
			t.Errorf("%s: got %q, %v; want an error", c.name, token, err)
		}
	}
}

func TestVerifySessionForTenants(t *testing.T) {
	keys, public := sessionKeysOf(t, mustGenerate(t, GenerateSessionKeys))
	token, err := keys.Sign(someSession, testNow)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, issuer, tenant string
		now                  time.Time
		want                 error
	}{
		{"its tenant", testIssuer, testTenant, testNow, nil},
		{"every tenant", testIssuer, "", testNow, nil},
		{"another tenant", testIssuer, "rival", testNow, errAudience},
		{"another issuer", "https://other.example.org", testTenant, testNow, errIssuer},
		{"no issuer", "", testTenant, testNow, errIssuer},
		{"30 s before its start", testIssuer, testTenant, testNow.Add(-30 * time.Second), nil},
		{"31 s before its start", testIssuer, testTenant, testNow.Add(-31 * time.Second), errNotYet},
		{"at its last second", testIssuer, testTenant, someSession.ExpiresAt.Add(-time.Nanosecond), nil},
		{"at its expiry", testIssuer, testTenant, someSession.ExpiresAt, ErrExpired},
	} {
		got, err := public.Verify(token, c.issuer, c.tenant, c.now)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
		if readable := err == nil || errors.Is(err, ErrExpired); readable != (got == someSession) {
			t.Errorf("%s: got %+v, want the session only when good or expired", c.name, got)
		}
	}
}

func TestSessionKeysRotate(t *testing.T) {
	turn := testNow.Add(time.Hour)
	old, fresh := mustGenerate(t, GenerateSessionKeys), mustGenerate(t, GenerateSessionKeys)
	keys, public := sessionKeysOf(t, join(t, old, withLife(t, fresh, turn, time.Time{})))
	s := someSession
	s.ExpiresAt = testNow.Add(24 * time.Hour)
	before, err := keys.Sign(s, turn.Add(-time.Second))
	if err != nil {
		t.Fatal(err)
	}
	after, err := keys.Sign(s, turn)
	if err != nil {
		t.Fatal(err)
	}
	if before == after {
		t.Error("the new key does not sign")
	}
	for name, token := range map[string]string{"before the turn": before, "after the turn": after} {
		if got, err := public.Verify(token, testIssuer, testTenant, turn); err != nil || got != s {
			t.Errorf("signed %s: got %+v, %v; want it accepted", name, got, err)
		}
	}
	if _, err := public.Verify(before, testIssuer, testTenant, turn); err != nil {
		t.Error(err)
	}
	_, onlyNew := sessionKeysOf(t, fresh)
	if _, err := onlyNew.Verify(before, testIssuer, testTenant, turn); !errors.Is(err, errKeyID) {
		t.Errorf("after the old key is gone: got %v, want %v", err, errKeyID)
	}
}
