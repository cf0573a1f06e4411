package deploy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"waitingroom/tokens"
)

// verdict is what a backend is told of a session token, in the words of /access.
func verdict(v *tokens.Validator, token, queue string) int {
	_, err := v.Validate(token, queue)
	switch {
	case err == nil:
		return http.StatusOK
	case errors.Is(err, tokens.ErrExpired), errors.Is(err, tokens.ErrRevoked):
		return http.StatusGone
	case errors.Is(err, tokens.ErrInvalid):
		return http.StatusUnauthorized
	case errors.Is(err, tokens.ErrStale):
		return http.StatusServiceUnavailable
	}
	return -1
}

// validator runs a Validator against the first edge until the test ends.
func (in *installation) validator(maxStale time.Duration, whenStale tokens.StaleRule) *tokens.Validator {
	in.t.Helper()
	v := &tokens.Validator{
		BaseURL: in.url.edges[0], Issuer: "https://wait.example.com", Tenant: tenant, APIKey: in.secretKey,
		Refresh: time.Second, MaxStale: maxStale, WhenStale: whenStale,
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- v.Run(ctx) }()
	in.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			in.t.Errorf("run the validator: %v", err)
		}
	})
	return v
}

// TestAccessAndValidatorAgree follows sessions through everything that can become of them, and
// compares what /access of both edges and a backend's Validator say: while the session runs, after
// release, revocation, leaving and expiry, after a key rotation, and while the waiting room is down.
func TestAccessAndValidatorAgree(t *testing.T) {
	t.Parallel()
	in := install(t)
	queue := in.createQueue("match", `"capacity":100,"purchaseWindowSeconds":3600`)
	brief := in.createQueue("brief", `"capacity":100,"purchaseWindowSeconds":2`)
	other := in.createQueue("other", `"capacity":100`)
	open := in.validator(5*time.Second, tokens.FailOpen)
	closed := in.validator(5*time.Second, tokens.FailClosed)

	admit := func(queue string) (*fan, string) {
		f := in.join(0, queue)
		f.awaitState(1, 20*time.Second, "admitted")
		return f, f.enter(1)
	}
	agree := func(name, token, queue string, want int) {
		t.Helper()
		last := ""
		defer func() {
			if t.Failed() {
				t.Log(last)
			}
		}()
		in.eventually(30*time.Second, fmt.Sprintf("%s: everybody says %d", name, want), func() bool {
			got := [4]int{verdict(open, token, queue), verdict(closed, token, queue)}
			for edge, url := range in.url.edges {
				got[2+edge] = in.request("GET", url+"/access?queue="+queue, "", bearer(token)).status
			}
			last = fmt.Sprintf("%s: validators and edges said %v, want %d", name, got, want)
			return got == [4]int{want, want, want, want}
		})
	}

	_, running := admit(queue)
	_, released := admit(queue)
	_, revoked := admit(queue)
	leaver, left := admit(queue)
	_, expiring := admit(brief)
	for name, token := range map[string]string{"running": running, "released": released, "revoked": revoked, "left": left} {
		agree(name+" at first", token, queue, http.StatusOK)
	}
	agree("of another queue", running, other, http.StatusUnauthorized)
	agree("a ticket", leaver.ticket, queue, http.StatusUnauthorized)
	agree("nonsense", "nonsense", queue, http.StatusUnauthorized)
	agree("changed", running[:len(running)-4]+"AAAA", queue, http.StatusUnauthorized)
	agree("expired", expiring, brief, http.StatusGone)

	if got := in.endSession(jti(t, released)); got.status != http.StatusNoContent {
		t.Fatalf("release: got %d %s, want 204", got.status, got.raw)
	}
	for _, again := range []string{"", " again"} {
		if got := in.request("DELETE", in.url.origins[0]+"/sessions/"+jti(t, revoked), "", bearer(in.operatorToken)); got.status != http.StatusNoContent {
			t.Fatalf("revoke%s: got %d %s, want 204", again, got.status, got.raw)
		}
	}
	if got := in.endSession(queue + "~AAAAAAAAAAAAAAAAAAAAAA"); got.status != http.StatusNotFound {
		t.Errorf("end a session that never was: got %d %s, want 404", got.status, got.raw)
	}
	if got := in.request("DELETE", in.url.edges[0]+"/tickets/"+leaver.id, "", bearer(leaver.ticket)); got.status != http.StatusNoContent {
		t.Fatalf("leave: got %d %s, want 204", got.status, got.raw)
	}
	agree("released", released, queue, http.StatusGone)
	agree("revoked", revoked, queue, http.StatusGone)
	agree("left", left, queue, http.StatusGone)
	agree("running, after others ended", running, queue, http.StatusOK)
	if got := leaver.poll(0); got.text("state") != "left" {
		t.Errorf("state after leaving while active: got %s, want left", got.raw)
	}

	in.rotateSessionKeys()
	_, renewed := admit(queue)
	if header(t, renewed) == header(t, running) {
		t.Error("after the rotation a session is signed with the old key")
	}
	agree("signed with the new key", renewed, queue, http.StatusOK)
	agree("signed with the old key", running, queue, http.StatusOK)
	agree("revoked under the old key", revoked, queue, http.StatusGone)

	// The public keys are enough for a stranger's library.
	script, err := filepath.Abs("../tokens/testdata/jose/verify.mjs")
	if err != nil {
		t.Fatalf("find the script: %v", err)
	}
	for name, token := range map[string]string{"old": running, "new": renewed} {
		out, err := exec.Command("node", script, in.url.edges[1]+"/.well-known/jwks.json", token, "https://wait.example.com", tenant).CombinedOutput()
		if err != nil {
			t.Errorf("verify a session signed with the %s key under node with jose: %v\n%s", name, err, out)
		}
	}

	for _, p := range in.programs() {
		p.stop()
	}
	// Local validation goes on; what the stale list means is the shop's choice.
	if got := verdict(open, revoked, queue); got != http.StatusGone {
		t.Errorf("a revoked session while the waiting room is down: got %d, want 410", got)
	}
	if got := verdict(open, running, queue); got != http.StatusOK {
		t.Errorf("a running session while the waiting room is down: got %d, want 200", got)
	}
	in.eventually(20*time.Second, "the validator that fails closed refuses once its list is too old", func() bool {
		return verdict(closed, running, queue) == http.StatusServiceUnavailable
	})
	if got := verdict(open, running, queue); got != http.StatusOK {
		t.Errorf("a running session with a stale list, failing open: got %d, want 200", got)
	}
	in.start()
	agree("running, after the waiting room is back", running, queue, http.StatusOK)
	agree("revoked, after the waiting room is back", revoked, queue, http.StatusGone)
}

// rotateSessionKeys adds a new signing key beside the old one, has the origins read it, and waits
// until the edges publish it. A backend that met a session before that, signed with the new key, would
// ask for the key in vain, and not again within a minute.
func (in *installation) rotateSessionKeys() {
	in.t.Helper()
	path := filepath.Join(in.dir, "keys/session.private.json")
	var old, fresh struct {
		Keys []map[string]any `json:"keys"`
	}
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, &old)
	}
	if err == nil {
		data, err = tokens.GenerateSessionKeys()
	}
	if err == nil {
		err = json.Unmarshal(data, &fresh)
	}
	if err != nil {
		in.t.Fatalf("make a new session key: %v", err)
	}
	for _, key := range fresh.Keys {
		key["nbf"] = time.Now().Unix()
	}
	old.Keys = append(old.Keys, fresh.Keys...)
	if data, err = json.Marshal(old); err != nil {
		in.t.Fatalf("encode session keys: %v", err)
	}
	in.write("keys/session.private.json", string(data))
	for _, p := range in.origins {
		p.signal(syscall.SIGHUP)
	}
	for _, url := range in.url.edges {
		in.eventually(20*time.Second, url+" publishes the new key", func() bool {
			published, _ := in.request("GET", url+"/.well-known/jwks.json", "", nil).body["keys"].([]any)
			return len(published) == len(old.Keys)
		})
	}
}

// header is the first part of a token, which names its key.
func header(t *testing.T, token string) string {
	t.Helper()
	part, _, found := strings.Cut(token, ".")
	if !found {
		t.Fatal("a token has no dot")
	}
	return part
}
