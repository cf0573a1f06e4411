package deploy_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"waitingroom/tokens"
)

// provider is the tenant's identity provider: it publishes keys and mints user tokens.
type provider struct {
	t      *testing.T
	server *httptest.Server
	issuer string

	mu     sync.Mutex
	keys   []string // JWKs, as they are published
	signer *tokens.UserSigner
	down   bool
}

func startProvider(t *testing.T) *provider {
	t.Helper()
	p := &provider{t: t, issuer: "https://id.shop.example/"}
	p.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.down {
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintf(w, `{"keys":[%s]}`, strings.Join(p.keys, ","))
	}))
	t.Cleanup(p.server.Close)
	p.rotate()
	return p
}

// rotate publishes another key beside the earlier ones, and signs with it from now on.
func (p *provider) rotate() {
	p.t.Helper()
	private, public, err := tokens.GenerateUserKeys()
	if err != nil {
		p.t.Fatal(err)
	}
	signer, err := tokens.NewUserSigner(private, p.issuer, "waitingroom")
	if err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys = append(p.keys, strings.TrimSuffix(strings.TrimPrefix(string(public), `{"keys":[`), `]}`))
	p.signer = signer
}

func (p *provider) token(sub string) string {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	token, err := p.signer.Sign(sub, time.Now(), time.Now().Add(5*time.Minute))
	if err != nil {
		p.t.Fatal(err)
	}
	return token
}

// joinAs joins through one edge with the publishable key and a user token.
func (in *installation) joinAs(edge int, queue, token string) answer {
	in.t.Helper()
	return in.request("POST", in.url.edges[edge]+"/queues/"+queue+"/tickets", `{"userToken":"`+token+`"}`, []string{"X-API-Key: " + in.publishableKey})
}

// device is one of the devices of a user, which speaks to one edge.
func (in *installation) device(edge int, queue, token string, want int) *fan {
	in.t.Helper()
	got := in.joinAs(edge, queue, token)
	if got.status != want {
		in.t.Fatalf("join on edge %d: got %d %s, want %d", edge, got.status, got.raw, want)
	}
	return &fan{in: in, ticket: got.text("ticket"), id: got.text("ticketId"), position: got.number("position")}
}

// TestOnePlaceOnEveryDevice: a user's phone and laptop speak to different edges, and have the same
// place, the same offer and the same session.
func TestOnePlaceOnEveryDevice(t *testing.T) {
	t.Parallel()
	p := startProvider(t)
	in := setup{origins: 2, originConfig: fmt.Sprintf("    userTokens: {issuer: %q, audience: waitingroom, keysURL: %q}\n", p.issuer, p.server.URL)}.install(t)
	queue := in.createQueue("match", `"capacity":1,"claimSeconds":600`)
	in.eventually(10*time.Second, "the edges know the provider's keys", func() bool {
		for i := range in.edges {
			if in.joinAs(i, queue, p.token("user-warm")).status == http.StatusServiceUnavailable {
				return false
			}
		}
		return true
	})
	warm := in.device(0, queue, p.token("user-warm"), http.StatusOK)
	warm.awaitState(1, 5*time.Second, "admitted")
	session := warm.enter(1)

	phone, laptop := in.device(0, queue, p.token("user-ana"), http.StatusCreated), in.device(1, queue, p.token("user-ana"), http.StatusOK)
	if phone.id != laptop.id || phone.position != laptop.position {
		t.Errorf("laptop: got ticket %s at %d, want the phone's, %s at %d", laptop.id, laptop.position, phone.id, phone.position)
	}
	backend := in.request("POST", in.url.edges[1]+"/queues/"+queue+"/tickets", `{"userId":"user-ana"}`, []string{"X-API-Key: " + in.secretKey})
	if backend.status != http.StatusOK || backend.text("ticketId") != phone.id {
		t.Errorf("the backend for the same user: got %d %s, want 200 and ticket %s", backend.status, backend.raw, phone.id)
	}
	ben := in.device(1, queue, p.token("user-ben"), http.StatusCreated)
	if ben.position <= phone.position {
		t.Errorf("another user: got position %d, want one after %d", ben.position, phone.position)
	}

	if got := in.endSession(jti(t, session)); got.status != http.StatusNoContent {
		t.Fatalf("end the session: got %d %s, want 204", got.status, got.raw)
	}
	offers := [2]answer{phone.awaitState(0, 5*time.Second, "admitted"), laptop.awaitState(1, 5*time.Second, "admitted")}
	if offers[0].text("claimBy") != offers[1].text("claimBy") {
		t.Errorf("got offers until %s and %s, want one", offers[0].text("claimBy"), offers[1].text("claimBy"))
	}
	claims := [2]answer{phone.claim(0), laptop.claim(1)}
	for i, got := range claims {
		if got.status != http.StatusOK || jti(t, got.text("sessionToken")) != jti(t, claims[0].text("sessionToken")) || got.text("expiresAt") != claims[0].text("expiresAt") {
			t.Fatalf("claim of device %d: got %d %s, want the session of the first, %s", i+1, got.status, got.raw, claims[0].raw)
		}
	}
	tablet := in.device(0, queue, p.token("user-ana"), http.StatusOK)
	if got := tablet.claim(1); jti(t, got.text("sessionToken")) != jti(t, claims[0].text("sessionToken")) {
		t.Errorf("a third device while the session runs: got %d %s, want the same session", got.status, got.raw)
	}

	// Leaving on one device ends it on all.
	leave := func(f *fan, on int, sees *fan, at int) time.Duration {
		t.Helper()
		if got := in.request("DELETE", in.url.edges[on]+"/tickets/"+f.id, "", bearer(f.ticket)); got.status != http.StatusNoContent {
			t.Fatalf("leave: got %d %s, want 204", got.status, got.raw)
		}
		since := time.Now()
		sees.awaitState(at, 20*time.Second, "left")
		return time.Since(since)
	}
	fastest := leave(phone, 0, laptop, 1)
	in.eventually(5*time.Second, "the session is over on both edges", func() bool {
		return in.access(0, claims[0].text("sessionToken")) == http.StatusGone && in.access(1, claims[1].text("sessionToken")) == http.StatusGone
	})
	for i := range 4 {
		phone, laptop = in.device(0, queue, p.token(fmt.Sprint("user-", i)), http.StatusCreated), in.device(1, queue, p.token(fmt.Sprint("user-", i)), http.StatusOK)
		fastest = min(fastest, leave(laptop, 1, phone, 0))
	}
	// A busy machine may hold up one or the other.
	if fastest > 2*time.Second {
		t.Errorf("leaving on one device was seen on the other after %v at the best, want two seconds", fastest)
	}
	if again := in.device(0, queue, p.token("user-ana"), http.StatusCreated); again.id == tablet.id {
		t.Errorf("joined again after leaving: got the old ticket %s, want a new one", again.id)
	}
}

// TestIdentityProviderOverTime: keys come and go, and so does the provider.
func TestIdentityProviderOverTime(t *testing.T) {
	t.Parallel()
	p := startProvider(t)
	in := setup{originConfig: fmt.Sprintf("    userTokens: {issuer: %q, audience: waitingroom, keysURL: %q}\n", p.issuer, p.server.URL)}.install(t)
	queue := in.createQueue("match", `"capacity":1,"identity":"required"`)
	for i := range in.edges {
		in.eventually(10*time.Second, "the edge knows the provider's key", func() bool {
			return in.joinAs(i, queue, p.token("user-ana")).status != http.StatusServiceUnavailable
		})
		if got := in.joinAs(i, queue, p.token("user-ana")); got.status != http.StatusOK {
			t.Errorf("join with a user token on edge %d: got %d %s, want 200", i, got.status, got.raw)
		}
		got := in.request("POST", in.url.edges[i]+"/queues/"+queue+"/tickets", `{}`, []string{"X-API-Key: " + in.publishableKey})
		if got.status != http.StatusForbidden || got.text("code") != "identity_required" {
			t.Errorf("join anonymously on edge %d: got %d %s, want 403 identity_required", i, got.status, got.raw)
		}
	}

	// The provider begins to use a new key, which nobody has been told of.
	p.rotate()
	first := in.joinAs(0, queue, p.token("user-ben"))
	if first.status == http.StatusServiceUnavailable {
		if first.text("code") != "user_keys_pending" || first.header.Get("Retry-After") == "" {
			t.Errorf("with a key that is not known yet: got %s, want user_keys_pending and Retry-After", first.raw)
		}
	} else if first.status != http.StatusCreated {
		t.Errorf("with a key that is not known yet: got %d %s, want 503", first.status, first.raw)
	}
	for i := range in.edges {
		in.eventually(10*time.Second, "the new key is known", func() bool {
			return in.joinAs(i, queue, p.token("user-ben")).status == http.StatusOK || in.joinAs(i, queue, p.token("user-ben")).status == http.StatusCreated
		})
	}

	// It goes away, and an origin starts anew without it: what the edges know is enough.
	p.mu.Lock()
	p.down = true
	p.mu.Unlock()
	in.origins[0].stop()
	in.origins[0].start()
	in.awaitReady(in.url.origins[0])
	for i := range in.edges {
		var got answer
		in.eventually(20*time.Second, "users join while their provider is down", func() bool {
			got = in.joinAs(i, queue, p.token(fmt.Sprint("user-late-", i)))
			return got.status != http.StatusServiceUnavailable
		})
		if got.status != http.StatusCreated && got.status != http.StatusOK {
			t.Errorf("join on edge %d while the provider is down: got %d %s, want a place", i, got.status, got.raw)
		}
	}
}
