package tokens

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// verifyWithJose runs the npm package jose on a token.
func verifyWithJose(t *testing.T, jwksURL, token, issuer, audience string) (payload, refusal string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, "node", "verify.mjs", jwksURL, token, issuer, audience)
	command.Dir = "testdata/jose"
	var out, fault bytes.Buffer
	command.Stdout, command.Stderr = &out, &fault
	if err := command.Run(); err != nil {
		if command.ProcessState != nil && command.ProcessState.ExitCode() == 1 {
			return "", strings.TrimSpace(fault.String())
		}
		t.Fatalf("run node: %v\n%s", err, fault.String())
	}
	return out.String(), ""
}

// TestSessionsVerifyWithJose: a backend in another language needs nothing of ours.
func TestSessionsVerifyWithJose(t *testing.T) {
	if _, err := os.Stat("testdata/jose/node_modules/jose/package.json"); err != nil {
		t.Fatal("the npm package jose is missing: run make test, or npm ci in tokens/testdata/jose")
	}
	if _, err := exec.LookPath("node"); err != nil {
		t.Fatal("node is missing: run make test, or install Node.js")
	}
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
