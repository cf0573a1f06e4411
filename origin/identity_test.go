package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store/memory"
	"waitingroom/origin/wire"
	"waitingroom/tokens"
)

const testKeysURL = "https://id.shop.example/keys"

// publisher is an identity provider as an http.RoundTripper, so that it runs in virtual time.
type publisher struct {
	mu      sync.Mutex
	keys    []string // JWKs
	broken  func() (*http.Response, error)
	took    time.Duration
	fetches []time.Time
	running int
	most    int // fetches at once
}

func (p *publisher) RoundTrip(r *http.Request) (*http.Response, error) {
	p.mu.Lock()
	p.fetches = append(p.fetches, time.Now())
	p.running++
	p.most = max(p.most, p.running)
	broken, body, took := p.broken, `{"keys":[`+strings.Join(p.keys, ",")+`]}`, p.took
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.running--
		p.mu.Unlock()
	}()
	select {
	case <-time.After(took):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	if broken != nil {
		return broken()
	}
	return answerOf(http.StatusOK, body), nil
}

func answerOf(status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
}

func (p *publisher) change(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

func (p *publisher) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.fetches)
}

// newUserKey makes a key as a provider publishes it, and its name.
func newUserKey(t *testing.T) (text, id string) {
	t.Helper()
	_, public, err := tokens.GenerateUserKeys()
	must(t, err)
	text = strings.TrimSuffix(strings.TrimPrefix(string(public), `{"keys":[`), `]}`)
	_, rest, _ := strings.Cut(text, `"kid":"`)
	id, _, _ = strings.Cut(rest, `"`)
	return text, id
}

// withProvider runs a provider in virtual time, once its first fetch is over.
func withProvider(t *testing.T, source *publisher, test func(p *provider, changes func() int)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		changes := 0
		changed := func() { mu.Lock(); changes++; mu.Unlock() }
		p := newProvider("shop", changed, newMetrics(), slog.New(slog.DiscardHandler))
		p.client.Transport = source
		p.configure(testKeysURL)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- p.Run(ctx) }()
		synctest.Wait()
		test(p, func() int { mu.Lock(); defer mu.Unlock(); return changes })
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: got %v, want nil", err)
		}
	})
}

func find(p *provider, id string) wire.UserKeyResponse {
	ctx, cancel := context.WithTimeout(context.Background(), answerKeyWithin)
	defer cancel()
	return p.find(ctx, id, time.Now)
}

// TestANewKeyIsFoundAtOnce: a provider begins to sign with a key that nobody has seen.
func TestANewKeyIsFoundAtOnce(t *testing.T) {
	old, oldID := newUserKey(t)
	next, nextID := newUserKey(t)
	source := &publisher{keys: []string{old}, took: 100 * time.Millisecond}
	withProvider(t, source, func(p *provider, changes func() int) {
		later(time.Second)
		if got := find(p, oldID); got.Key != wire.UserKeyKnown || !strings.Contains(string(p.published()), oldID) {
			t.Errorf("the first key: got %v of %s, want it known", got, p.published())
		}
		source.change(func() { source.keys = append(source.keys, next) })
		if got := find(p, nextID); got.Key != wire.UserKeyKnown || source.count() != 2 || changes() != 2 {
			t.Errorf("the next key: got %v after %d fetches and %d changes, want it known after the second of each", got, source.count(), changes())
		}
		if got := find(p, "none"); got.Key != wire.UserKeyPending || got.RetrySeconds < 58 || got.RetrySeconds > 60 {
			t.Errorf("an unknown key right after: got %v, want it pending for the rest of the minute", got)
		}
		later(time.Minute)
		if got := find(p, "none"); got.Key != wire.UserKeyAbsent || source.count() != 3 {
			t.Errorf("an unknown key a minute later: got %v after %d fetches, want it absent after the third", got, source.count())
		}
		if got := find(p, "none"); got.Key != wire.UserKeyAbsent || source.count() != 3 {
			t.Errorf("the same again: got %v after %d fetches, want it absent without another", got, source.count())
		}
		if changes() != 2 {
			t.Errorf("got %d changes, want none for the same keys", changes())
		}
	})
}

// TestUnknownKeysCauseFewFetches: many edges ask for many made-up keys at once.
func TestUnknownKeysCauseFewFetches(t *testing.T) {
	key, id := newUserKey(t)
	source := &publisher{keys: []string{key}, took: time.Second}
	withProvider(t, source, func(p *provider, _ func() int) {
		later(2 * time.Second)
		const minutes = 5
		before := source.count()
		for i := range minutes * 60 {
			var all sync.WaitGroup
			for j := range 10 {
				all.Go(func() {
					if got := find(p, fmt.Sprint("made up ", i, " ", j)); got.Key == wire.UserKeyKnown || got.RetrySeconds < 1 || got.RetrySeconds > 60 {
						t.Errorf("a made-up key: got %v", got)
					}
				})
			}
			all.Wait()
			later(time.Second)
		}
		// One a minute for them, and the usual ones.
		if n := source.count() - before; n < minutes-1 || n > 2*minutes+4 {
			t.Errorf("%d fetches, want about one a minute for %d minutes and more", n, minutes)
		}
		if source.most != 1 {
			t.Errorf("%d fetches at once, want one", source.most)
		}
		if len(p.asked) > maxKeysAsked || len(p.absent) > maxKeysAsked {
			t.Errorf("%d and %d keys are remembered, want at most %d", len(p.asked), len(p.absent), maxKeysAsked)
		}
		if got := find(p, id); got.Key != wire.UserKeyKnown {
			t.Errorf("the real key: got %v, want it known", got)
		}
	})
}

// TestAProviderThatIsDown: the last good keys stay, whatever it answers, and it is tried again soon,
// but not over and over.
func TestAProviderThatIsDown(t *testing.T) {
	key, id := newUserKey(t)
	secret := strings.Replace(key, `"x":`, `"d":"AAAA","x":`, 1)
	for name, broken := range map[string]func() (*http.Response, error){
		"refuses": func() (*http.Response, error) { return nil, errors.New("connection refused") },
		"fails":   func() (*http.Response, error) { return answerOf(500, "{}"), nil },
		"redirects": func() (*http.Response, error) {
			r := answerOf(302, "")
			r.Header.Set("Location", "https://evil.example/")
			return r, nil
		},
		"no keys":       func() (*http.Response, error) { return answerOf(200, `{"keys":[]}`), nil },
		"a page":        func() (*http.Response, error) { return answerOf(200, "<html>"), nil },
		"a private key": func() (*http.Response, error) { return answerOf(200, `{"keys":[`+secret+`]}`), nil },
		"without an end": func() (*http.Response, error) {
			return answerOf(200, strings.Repeat(" ", 1<<20)+`{"keys":[`+key+`]}`), nil
		},
	} {
		source := &publisher{keys: []string{key}}
		withProvider(t, source, func(p *provider, changes func() int) {
			source.change(func() { source.broken = broken })
			later(providerEvery + time.Second) // the first failure
			if got := find(p, id); got.Key != wire.UserKeyKnown || len(p.published()) == 0 || changes() != 1 {
				t.Errorf("%s: got %v, want the last good keys kept", name, got)
			}
			if got := find(p, "new"); got.Key != wire.UserKeyPending {
				t.Errorf("%s: a new key: got %v, want it pending", name, got)
			}
			before := source.count()
			later(30 * time.Minute)
			if n := source.count() - before; n < 20 || n > 45 {
				t.Errorf("%s: %d tries in half an hour, want about one a minute", name, n)
			}
			source.change(func() { source.broken = nil })
			later(mostProviderPause + time.Second)
			before = source.count()
			later(time.Hour)
			if n := source.count() - before; n < 10 || n > 16 {
				t.Errorf("%s: %d fetches in the hour after, want one every five minutes", name, n)
			}
		})
	}
}

// TestAProviderThatHangs does not hold up who asks.
func TestAProviderThatHangs(t *testing.T) {
	source := &publisher{took: time.Hour}
	withProvider(t, source, func(p *provider, _ func() int) {
		start := time.Now()
		if got := find(p, "any"); got.Key != wire.UserKeyPending || time.Since(start) > answerKeyWithin {
			t.Errorf("got %v after %v, want it pending in time", got, time.Since(start))
		}
	})
}

// TestAnotherProvider: keys of an address that is not configured any more are of no use.
func TestAnotherProvider(t *testing.T) {
	old, oldID := newUserKey(t)
	next, nextID := newUserKey(t)
	source := &publisher{keys: []string{old}}
	withProvider(t, source, func(p *provider, _ func() int) {
		source.change(func() { source.keys, source.took = []string{next}, time.Second })
		p.configure("https://other.shop.example/keys")
		if p.published() != nil {
			t.Errorf("got %s, want no keys before the first fetch", p.published())
		}
		later(2 * time.Second)
		if text := string(p.published()); strings.Contains(text, oldID) || !strings.Contains(text, nextID) {
			t.Errorf("got %s, want the other provider's key alone", text)
		}
		p.configure("")
		before := source.count()
		later(time.Hour)
		if got := find(p, nextID); got.Key != wire.UserKeyAbsent || source.count() != before || p.published() != nil {
			t.Errorf("without a provider: got %v, %s and %d fetches more; want nothing", got, p.published(), source.count()-before)
		}
	})
}

// later lets the bubble's time pass.
func later(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// TestEdgesAreToldOfProviders follows the keys of two tenants from a provider and from the secrets to
// the feed, over real sockets.
func TestEdgesAreToldOfProviders(t *testing.T) {
	creds := newCredentials(t)
	fetched, fetchedID := newUserKey(t)
	next, nextID := newUserKey(t)
	var mu sync.Mutex
	published := fetched
	source := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(w, `{"keys":[%s]}`, published)
	}))
	defer source.Close()
	static, staticID := newUserKey(t)
	creds.config.Tenants[0].UserTokens = UserTokensConfig{Issuer: "https://id.shop.example", Audience: "waitingroom", KeysURL: source.URL}
	creds.config.Tenants[1].UserTokens = UserTokensConfig{Issuer: "https://id.other.example", Audience: "waitingroom"}
	other := creds.secrets.Tenants["other"]
	other.UserKeys = []byte(`{"keys":[` + static + `]}`)
	creds.secrets.Tenants["other"] = other
	r := runOrigin(t, creds, &memory.Store{})
	told := func(tenant string) *wire.UserTokens {
		var frame *wire.Tenants
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		_ = r.client.Feed(ctx, testEdge, func(f wire.Frame) error {
			if f.Tenants != nil {
				frame = f.Tenants
				cancel()
			}
			return nil
		})
		if frame == nil {
			t.Fatal("the feed tells no tenants")
		}
		for _, one := range frame.Tenants {
			if one.ID == tenant {
				return one.UserTokens
			}
		}
		return nil
	}
	r.until(5*second, "the provider's key comes over the feed", func() bool {
		u := told("shop")
		return u != nil && u.Fetched && u.Issuer == "https://id.shop.example" && u.Audience == "waitingroom" && strings.Contains(string(u.Keys), fetchedID)
	})
	if u := told("other"); u == nil || u.Fetched || !strings.Contains(string(u.Keys), staticID) {
		t.Errorf("a tenant with keys in a file: got %+v, want its key", u)
	}

	mu.Lock()
	published = fetched + "," + next
	mu.Unlock()
	ask := func(tenant, id string) wire.UserKeyResponse {
		answer, err := r.client.UserKey(t.Context(), wire.UserKeyRequest{Tenant: tenant, KeyID: id})
		must(t, err)
		return answer
	}
	if got := ask("shop", nextID); got.Key != wire.UserKeyKnown {
		t.Errorf("a new key of a provider: got %v, want it known", got)
	}
	r.until(5*second, "the feed tells the new key", func() bool { return strings.Contains(string(told("shop").Keys), nextID) })
	if got := ask("other", nextID); got.Key != wire.UserKeyAbsent {
		t.Errorf("a key that a file does not hold: got %v, want it absent", got)
	}
	var refusal *wire.Error
	for name, in := range map[string]wire.UserKeyRequest{
		"unknown tenant": {Tenant: "nobody", KeyID: "k"}, "no key": {Tenant: "shop"}, "long key": {Tenant: "shop", KeyID: strings.Repeat("k", 129)},
	} {
		if _, err := r.client.UserKey(t.Context(), in); !errors.As(err, &refusal) || refusal.Code != wire.CodeBadRequest {
			t.Errorf("%s: got %v, want %s", name, err, wire.CodeBadRequest)
		}
	}

	// A reload may bring another provider, or none.
	config := creds.config
	config.Tenants = slices.Clone(config.Tenants)
	config.Tenants[0].UserTokens = UserTokensConfig{}
	must(t, r.Reload(config))
	if u := told("shop"); u != nil {
		t.Errorf("after a reload without a provider: got %+v, want nothing told", u)
	}
	other.UserKeys = []byte("x")
	creds.secrets.Tenants["other"] = other
	if err := r.Reload(creds.config); err == nil || !strings.Contains(err.Error(), "userTokens.keys of other") {
		t.Errorf("a reload of broken keys: got %v, want an error that names them", err)
	}
	if u := told("other"); !strings.Contains(string(u.Keys), staticID) {
		t.Errorf("after it: got %s, want the old keys", u.Keys)
	}
}

// TestAnEdgeCannotJoinAnonymouslyWhereUsersAreRequired, whatever it believes.
func TestAnEdgeCannotJoinAnonymouslyWhereUsersAreRequired(t *testing.T) {
	r := newRig(t, newCredentials(t), nil)
	id := r.create("match", `"capacity":1`)
	if got := r.joinOne(id); got != 1 {
		t.Fatalf("an anonymous join: got position %d, want 1", got)
	}
	if answer := r.operate("PATCH", "/queues/"+string(id), `{"identity":"required"}`); answer.Code != http.StatusOK {
		t.Fatalf("PATCH: got %d %s, want 200", answer.Code, answer.Body)
	}
	for _, users := range [][]string{{""}, {"ana", ""}} {
		r.joins++
		var refusal wire.Error
		code := r.batch(wire.PathJoin, wire.JoinRequest{Queue: id, Edge: testEdge, Seq: r.joins, Users: users}, &refusal)
		if code != http.StatusForbidden || refusal.Code != wire.CodeIdentity {
			t.Errorf("join of %q: got %d %s, want 403 %s", users, code, refusal.Code, wire.CodeIdentity)
		}
	}
	if got := r.join(id, "ana", "ben", "ana"); got.Joins[0].Position != 2 || got.Joins[1].Position != 3 || got.Joins[2].Position != 2 {
		t.Errorf("join of users: got %+v, want positions 2, 3 and 2", got.Joins)
	}
	if status := r.status(id, 1); status.State == queue.TicketLeft {
		t.Errorf("who joined before: got %+v, want the place kept", status)
	}
}

func TestConfigOfProviders(t *testing.T) {
	with := func(lines ...string) []byte {
		return []byte(goodConfig + "    userTokens:\n      " + strings.Join(lines, "\n      ") + "\n")
	}
	const issuer, audience = "issuer: https://id.example.com/", "audience: waitingroom"
	for name, lines := range map[string][]string{
		"URL": {issuer, audience, "keysURL: https://id.example.com/keys?tenant=1"}, "URL on loopback": {issuer, audience, "keysURL: http://127.0.0.1:8080/keys"},
		"file": {issuer, audience, "keys: {file: keys/provider.json}"}, "environment": {issuer, audience, "keys: {env: PROVIDER}"},
	} {
		c, err := ParseConfig(with(lines...))
		if err != nil || c.Tenants[0].UserTokens.Audience != "waitingroom" {
			t.Errorf("%s: got %+v, %v; want it taken", name, c.Tenants, err)
		}
	}
	for name, test := range map[string]struct {
		lines []string
		want  string
	}{
		"nothing but an issuer": {[]string{issuer}, "tenants[0].userTokens.audience: required"},
		"nothing but a URL":     {[]string{"keysURL: https://id.example.com/"}, "tenants[0].userTokens.issuer: required"},
		"no keys":               {[]string{issuer, audience}, "tenants[0].userTokens.keys: exactly one"},
		"URL and file":          {[]string{issuer, audience, "keysURL: https://id.example.com/", "keys: {file: x}"}, "tenants[0].userTokens.keys: excluded"},
		"file and environment":  {[]string{issuer, audience, "keys: {file: x, env: Y}"}, "tenants[0].userTokens.keys: exactly one"},
		"plain http":            {[]string{issuer, audience, "keysURL: http://id.example.com/"}, "tenants[0].userTokens.keysURL: https"},
		"user info in the URL":  {[]string{issuer, audience, "keysURL: https://a:b@id.example.com/"}, "tenants[0].userTokens.keysURL: https"},
		"no URL":                {[]string{issuer, audience, "keysURL: keys.json"}, "tenants[0].userTokens.keysURL: https"},
		"unknown key":           {[]string{issuer, audience, "keys: {file: x}", "jwks: x"}, "tenants[0].userTokens.jwks: unknown key"},
	} {
		if _, err := ParseConfig(with(test.lines...)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
	twice := string(with(issuer, audience, "keys: {file: x}")) + `
  - id: other
    ticketKeys: {file: keys/tickets.json}
    operatorKeys: {file: keys/operator.json}
    userTokens: {issuer: https://id.example.com/, audience: waitingroom, keys: {file: y}}
`
	if _, err := ParseConfig([]byte(twice)); err == nil || !strings.Contains(err.Error(), "tenants[1].userTokens: another tenant has the same") {
		t.Errorf("two tenants with one issuer and audience: got %v, want it refused", err)
	}
}
