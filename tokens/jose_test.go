package tokens

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// runJose runs a script on the npm package jose; refusal is what it says when it leaves with 1.
func runJose(t *testing.T, script string, args ...string) (out, refusal string) {
	t.Helper()
	if _, err := os.Stat("testdata/jose/node_modules/jose/package.json"); err != nil {
		t.Fatal("the npm package jose is missing: run make test, or npm ci in tokens/testdata/jose")
	}
	if _, err := exec.LookPath("node"); err != nil {
		t.Fatal("node is missing: run make test, or install Node.js")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, "node", append([]string{script}, args...)...)
	command.Dir = "testdata/jose"
	var stdout, fault bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &fault
	if err := command.Run(); err != nil {
		if command.ProcessState != nil && command.ProcessState.ExitCode() == 1 {
			return "", strings.TrimSpace(fault.String())
		}
		t.Fatalf("run node: %v\n%s", err, fault.String())
	}
	return stdout.String(), ""
}

// verifyWithJose verifies a session token.
func verifyWithJose(t *testing.T, jwksURL, token, issuer, audience string) (payload, refusal string) {
	t.Helper()
	return runJose(t, "verify.mjs", jwksURL, token, issuer, audience)
}

// TestSessionsVerifyWithJose: a backend in another language needs nothing of ours.
func TestSessionsVerifyWithJose(t *testing.T) {
	now := time.Now()
	current, next := mustGenerate(t, GenerateSessionKeys), mustGenerate(t, GenerateSessionKeys)
	// With an exp beside the key, and a second key that does not sign yet.
	m := newRoom(t, join(t, withLife(t, current, time.Time{}, now.Add(48*time.Hour)), withLife(t, next, now.Add(time.Hour), time.Time{})))
	edge := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/jwk-set+json")
		m.ServeHTTP(w, r)
	}))
	defer edge.Close()
	jwks := edge.URL + "/.well-known/jwks.json"

	session, token := m.sign(t, "R1", 20*time.Minute)
	m.change(func() { m.now = func() time.Time { return now.Add(2 * time.Hour) } })
	ofNext := session
	ofNext.ID = testQueue + "~R2"
	nextToken, err := m.keys.Sign(ofNext, m.now())
	if err != nil {
		t.Fatal(err)
	}
	for want, token := range map[Session]string{session: token, ofNext: nextToken} {
		payload, refusal := verifyWithJose(t, jwks, token, testIssuer, testTenant)
		if refusal != "" {
			t.Errorf("jose refuses a good token: %s", refusal)
			continue
		}
		var got sessionClaims
		if err := json.Unmarshal([]byte(payload), &got); err != nil {
			t.Fatalf("read %q: %v", payload, err)
		}
		claims := sessionClaims{
			want.Issuer, want.Tenant, want.ID, want.StartsAt.Unix(), want.StartsAt.Unix(), want.ExpiresAt.Unix(), want.Subject, want.Queue,
		}
		if got != claims {
			t.Errorf("jose reads %+v, want %+v", got, claims)
		}
	}

	_, foreign := newRoom(t, mustGenerate(t, GenerateSessionKeys)).sign(t, "R1", time.Hour)
	old := session
	old.StartsAt, old.ExpiresAt = now.Add(-time.Hour), now.Add(-time.Second)
	expired, err := m.keys.Sign(old, now)
	if err != nil {
		t.Fatal(err)
	}
	forged := token[:strings.LastIndexByte(token, '.')] + nextToken[strings.LastIndexByte(nextToken, '.'):]
	for _, c := range []struct{ name, token, audience, want string }{
		{"another tenant", token, "rival", "ERR_JWT_CLAIM_VALIDATION_FAILED"},
		{"expired", expired, testTenant, "ERR_JWT_EXPIRED"},
		{"forged", forged, testTenant, "ERR_JWS_SIGNATURE_VERIFICATION_FAILED"},
		{"of a key that is not published", foreign, testTenant, "ERR_JWKS_NO_MATCHING_KEY"},
	} {
		if payload, refusal := verifyWithJose(t, jwks, c.token, testIssuer, c.audience); refusal != c.want {
			t.Errorf("%s: jose says %q and reads %q, want %s", c.name, refusal, payload, c.want)
		}
	}
}

// TestUserTokensOfJose: an identity provider in another language mints user tokens, and its set of
// keys is read as it publishes it.
func TestUserTokensOfJose(t *testing.T) {
	out, refusal := runJose(t, "mint.mjs", testProvider, testAudience, "fan-\u00fc\U0001f3ab")
	if refusal != "" {
		t.Fatal(refusal)
	}
	var minted struct {
		JWKS   json.RawMessage
		Tokens []struct{ Alg, Case, Token string }
	}
	if err := json.Unmarshal([]byte(out), &minted); err != nil {
		t.Fatalf("read %q: %v", out, err)
	}
	keys, err := ParseUserKeys(minted.JWKS)
	if err != nil {
		t.Fatal(err)
	}
	tokens := &UserTokens{Issuer: testProvider, Audience: testAudience, Keys: keys}
	seen := make(map[string]int)
	for _, m := range minted.Tokens {
		var want error
		switch m.Case {
		case "good":
		case "expired":
			want = ErrExpired
		default:
			want = ErrInvalid
		}
		user, err := tokens.Verify([]byte(m.Token), time.Now())
		if !errors.Is(err, want) || err == nil && user.Subject != "fan-\u00fc\U0001f3ab" {
			t.Errorf("%s, %s: got %+v, %v; want %v", m.Alg, m.Case, user, err, want)
		}
		if err == nil {
			seen[m.Alg]++
		}
	}
	for _, algorithm := range []string{"EdDSA", "ES256", "RS256"} {
		if seen[algorithm] != 1 {
			t.Errorf("%s: %d tokens were accepted, want the good one", algorithm, seen[algorithm])
		}
	}
}
