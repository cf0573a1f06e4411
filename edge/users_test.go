package edge

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/wire"
	"waitingroom/tokens"
)

const (
	testProvider = "https://id.acme.example/"
	testAudience = "waitingroom"
)

// providers are the identity providers of acme, whose keys are fetched, and of rival, whose are not.
type providers struct {
	acme, rival *tokens.UserSigner
	acmeNext    *tokens.UserSigner // with a key that the edge has not been told of
	acmeKeys    []byte
	allKeys     []byte // with the next one
}

func addProviders(t testing.TB, o *scripted) *providers {
	t.Helper()
	p := &providers{}
	provider := func(issuer string) (*tokens.UserSigner, []byte) {
		private, public, err := tokens.GenerateUserKeys()
		if err != nil {
			t.Fatal(err)
		}
		signer, err := tokens.NewUserSigner(private, issuer, testAudience)
		if err != nil {
			t.Fatal(err)
		}
		return signer, public
	}
	var rivalKeys, nextKeys []byte
	p.acme, p.acmeKeys = provider(testProvider)
	p.acmeNext, nextKeys = provider(testProvider)
	p.rival, rivalKeys = provider("https://id.rival.example/")
	p.allKeys = []byte(strings.Replace(string(p.acmeKeys), `]}`, ",", 1) + strings.TrimPrefix(string(nextKeys), `{"keys":[`))
	o.tenants.Tenants[0].UserTokens = &wire.UserTokens{Issuer: testProvider, Audience: testAudience, Keys: p.acmeKeys, Fetched: true}
	o.tenants.Tenants[1].UserTokens = &wire.UserTokens{Issuer: "https://id.rival.example/", Audience: testAudience, Keys: rivalKeys}
	return p
}

func userToken(t testing.TB, signer *tokens.UserSigner, sub string) string {
	t.Helper()
	token, err := signer.Sign(sub, time.Now(), time.Now().Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func tokenBody(token string) string { return `{"userToken":"` + token + `"}` }

// subjectOf verifies the ticket that a join was answered with.
func subjectOf(t *testing.T, o *scripted, a answer) string {
	t.Helper()
	token, _ := a.object(t)["ticket"].(string)
	claims, err := o.ticketKeys.Verify([]byte(token), time.Now())
	if err != nil {
		t.Fatalf("the ticket in %s: %v", a.body, err)
	}
	return claims.Subject
}

func TestJoinWithAUserToken(t *testing.T) {
	o := newScripted(t)
	p := addProviders(t, o)
	e := startEdge(t, o, nil)
	now := time.Now()
	expired, err := p.acme.Sign("fan-7", now.Add(-time.Hour), now.Add(-time.Second))
	if err != nil {
		t.Fatal(err)
	}
	good, ofRival := userToken(t, p.acme, "fan-7"), userToken(t, p.rival, "fan-7")
	acme := headers{"X-API-Key": o.apiKeys["acme publishable"]}
	for _, c := range []struct {
		name, queue string
		h           headers
		body        string
		status      int
		code        string
	}{
		{"with the publishable key", "acme.sale", acme, tokenBody(good), 201, ""},
		{"with the secret key", "acme.sale", headers{"X-API-Key": o.apiKeys["acme secret"]}, tokenBody(good), 201, ""},
		{"by the page", "acme.sale", e.fromPage(""), tokenBody(good), 201, ""},
		{"a known user", "acme.sale", acme, tokenBody(userToken(t, p.acme, "known")), 200, ""},
		{"by the page of another shop", "acme.sale", headers{"Origin": shopOrigin}, tokenBody(good), 403, "origin_forbidden"},
		{"by nobody", "acme.sale", nil, tokenBody(good), 401, "api_key_required"},
		{"empty", "acme.sale", acme, tokenBody(""), 400, "invalid_body"},
		{"null", "acme.sale", acme, `{"userToken":null}`, 400, "invalid_body"},
		{"a number", "acme.sale", acme, `{"userToken":1}`, 400, "invalid_body"},
		{"beside a user id", "acme.sale", headers{"X-API-Key": o.apiKeys["acme secret"]}, `{"userId":"u","userToken":"` + good + `"}`, 400, "invalid_body"},
		{"beside an empty user id", "acme.sale", acme, `{"userId":"","userToken":"` + good + `"}`, 400, "invalid_body"},
		{"nonsense", "acme.sale", acme, tokenBody("x"), 401, "invalid_user_token"},
		{"forged", "acme.sale", acme, tokenBody(good[:len(good)-8] + "AAAAAAAA"), 401, "invalid_user_token"},
		{"too long", "acme.sale", acme, tokenBody(good + strings.Repeat("A", 9000)), 401, "invalid_user_token"},
		{"expired", "acme.sale", acme, tokenBody(expired), 401, "user_token_expired"},
		{"a ticket", "acme.sale", acme, tokenBody(first(o.ticket(t, nil))), 401, "invalid_user_token"},
		{"of another tenant's provider", "acme.sale", acme, tokenBody(ofRival), 401, "invalid_user_token"},
		{"of another tenant's provider, by the page", "acme.sale", e.fromPage(""), tokenBody(ofRival), 401, "invalid_user_token"},
		{"for another tenant's queue", "rival.sale", acme, tokenBody(good), 404, "queue_not_found"},
		{"for another tenant's queue, by the page", "rival.sale", e.fromPage(""), tokenBody(good), 401, "invalid_user_token"},
		{"for another tenant's queue with its key", "rival.sale", headers{"X-API-Key": o.apiKeys["rival publishable"]}, tokenBody(good), 401, "invalid_user_token"},
	} {
		got := e.do("POST", "/queues/"+c.queue+"/tickets", c.h, c.body)
		if got.status != c.status || c.code != "" && got.code(t) != c.code {
			t.Errorf("%s: got %d %s, want %d %s", c.name, got.status, got.body, c.status, c.code)
			continue
		}
		if strings.Contains(string(got.body), good) {
			t.Errorf("%s: the answer repeats the token", c.name)
		}
		if c.status == http.StatusCreated && subjectOf(t, o, got) != "fan-7" {
			t.Errorf("%s: got a ticket of %q, want fan-7's", c.name, subjectOf(t, o, got))
		}
	}
	if err := e.stop(); err != nil {
		t.Error(err)
	}
	if logs := e.logs.String(); strings.Contains(logs, "eyJ") || strings.Contains(logs, "fan-7") {
		t.Errorf("the log tells a token or a user: %s", logs)
	}
}

func first(token, _ string) string { return token }

func TestIdentityRequired(t *testing.T) {
	o := newScripted(t)
	p := addProviders(t, o)
	e := startEdge(t, o, nil)
	settings := testView("acme.sale", "inc1").Settings
	settings.Identity = queue.IdentityRequired
	o.log("acme.sale", queue.Entry{Kind: queue.EntrySettings, Settings: &settings})
	e.applied("acme.sale")
	for name, h := range map[string]headers{
		"publishable key": {"X-API-Key": o.apiKeys["acme publishable"]}, "secret key": {"X-API-Key": o.apiKeys["acme secret"]}, "the page": e.fromPage(""),
	} {
		if got := e.do("POST", "/queues/acme.sale/tickets", h, `{}`); got.status != http.StatusForbidden || got.code(t) != "identity_required" {
			t.Errorf("%s, anonymous: got %d %s, want 403 identity_required", name, got.status, got.body)
		}
		if got := e.do("POST", "/queues/acme.sale/tickets", h, tokenBody(userToken(t, p.acme, name))); got.status != http.StatusCreated {
			t.Errorf("%s, with a user token: got %d %s, want 201", name, got.status, got.body)
		}
	}
}

// TestTheOriginRequiresAnIdentityFirst: an edge that has not heard of a retune yet has its batch
// refused. The anonymous fans in it are told so; the others get their places.
func TestTheOriginRequiresAnIdentityFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &batches{took: time.Millisecond}
		g := newTestGatherer(b, 100)
		b.fail = func(seq uint64, _ int) error {
			if slices.Contains(b.requests[len(b.requests)-1].Users, "") {
				return &wire.Error{Code: wire.CodeIdentity}
			}
			return nil
		}
		var group, all sync.WaitGroup
		for _, users := range [][]string{{"a"}, {"", "b", "", "c"}, {""}, {"d"}} {
			for _, user := range users {
				all.Go(func() {
					a := g.join(t.Context(), &group, user)
					p, _ := asProblem(a.err)
					if anonymous := user == ""; anonymous != (a.err != nil && p == errIdentityRequired) || anonymous != (a.Position == 0) {
						t.Errorf("user %q: got position %d, %v", user, a.Position, a.err)
					}
				})
			}
			all.Wait()
		}
		group.Wait()
		if b.issued != 4 {
			t.Errorf("%d positions were issued, want those of the 4 users", b.issued)
		}
		for i, r := range b.requests {
			if r.Seq != uint64(i+1) {
				t.Errorf("batch %d has the number %d, want each its own", i+1, r.Seq)
			}
		}
	})
}

// TestPageWithAUserToken: a browser's place is given to the user whom the shop has signed in, and to
// nobody else.
func TestPageWithAUserToken(t *testing.T) {
	o := newScripted(t)
	p := addProviders(t, o)
	e := startEdge(t, o, nil)
	path := "/queues/acme.sale/tickets"
	anonymous := e.do("POST", path, e.fromPage(""), `{}`)
	ana := e.do("POST", path, e.fromPage(""), tokenBody(userToken(t, p.acme, "ana")))
	e.applied("acme.sale")
	cookie := func(a answer) string { c := cookieOf(t, a); return c.Name + "=" + c.Value }
	for _, c := range []struct {
		name   string
		cookie string
		body   string
		same   bool // the place that the cookie holds
		sub    string
	}{
		{"the same user", cookie(ana), tokenBody(userToken(t, p.acme, "ana")), true, "ana"},
		{"the user's browser without a token", cookie(ana), `{}`, true, "ana"},
		{"another user in the same browser", cookie(ana), tokenBody(userToken(t, p.acme, "ben")), false, "ben"},
		{"somebody who signed in since", cookie(anonymous), tokenBody(userToken(t, p.acme, "ana")), false, "ana"},
	} {
		got := e.do("POST", path, e.fromPage(c.cookie), c.body)
		if same := got.status == http.StatusOK; same != c.same || got.status != http.StatusOK && got.status != http.StatusCreated {
			t.Errorf("%s: got %d %s, want the same place %v", c.name, got.status, got.body, c.same)
			continue
		}
		if sub := subjectOf(t, o, got); sub != c.sub {
			t.Errorf("%s: got the place of %q, want that of %q", c.name, sub, c.sub)
		}
		if !c.same && cookieOf(t, got).Value == strings.SplitN(c.cookie, "=", 2)[1] {
			t.Errorf("%s: the cookie still holds the old place", c.name)
		}
	}
	forged := userToken(t, p.rival, "ben")
	if got := e.do("POST", path, e.fromPage(cookie(ana)), tokenBody(forged)); got.status != http.StatusUnauthorized {
		t.Errorf("a token of another provider: got %d %s, want 401", got.status, got.body)
	}
}

// TestAKeyThatIsNotKnownYet: the fan is asked to come back while it is looked for, and let in when
// the feed has brought it; a key that does not exist is refused, and the origin is not asked again
// and again.
func TestAKeyThatIsNotKnownYet(t *testing.T) {
	o := newScripted(t)
	p := addProviders(t, o)
	var mu sync.Mutex
	asked := make(map[string]int)
	answered := wire.UserKeyResponse{Key: wire.UserKeyKnown, RetrySeconds: 1}
	o.key = func(_ context.Context, r wire.UserKeyRequest) (wire.UserKeyResponse, error) {
		mu.Lock()
		defer mu.Unlock()
		asked[r.Tenant]++
		return answered, nil
	}
	e := startEdge(t, o, nil)
	join := func(tenant string, token string) answer {
		return e.do("POST", "/queues/"+tenant+".sale/tickets", headers{"X-API-Key": o.apiKeys[tenant+" publishable"]}, tokenBody(token))
	}
	ticket, _ := o.ticket(t, nil)
	if got := e.do("GET", "/tickets/inc1-1", e.bearer(ticket), ""); got.status != http.StatusOK {
		t.Fatalf("a ticket: got %d %s, want 200", got.status, got.body)
	}
	before := e.known.current.Load().keys

	next := userToken(t, p.acmeNext, "fan-7")
	got := join("acme", next)
	if after, err := strconv.Atoi(got.header.Get("Retry-After")); got.status != 503 || got.code(t) != "user_keys_pending" || err != nil || after < 1 || after > 20 {
		t.Errorf("a key that is not known: got %d %s, Retry-After %q; want 503 user_keys_pending soon again", got.status, got.body, got.header.Get("Retry-After"))
	}
	frame := o.tenants
	frame.Tenants = slices.Clone(frame.Tenants)
	with := *frame.Tenants[0].UserTokens
	with.Keys = p.allKeys
	frame.Tenants[0].UserTokens = &with
	o.tell(wire.Frame{Tenants: &frame})
	waitFor(t, "the new key", func() bool { got = join("acme", next); return got.status != http.StatusServiceUnavailable })
	if got.status != http.StatusCreated || subjectOf(t, o, got) != "fan-7" {
		t.Errorf("with the new key: got %d %s, want 201", got.status, got.body)
	}
	if e.known.current.Load().keys != before {
		t.Error("a new key of an identity provider made the edge forget the tickets that it has verified")
	}

	// An origin that has not reached the provider yet takes no keys away.
	without := with
	without.Keys = nil
	frame.Tenants = slices.Clone(frame.Tenants)
	frame.Tenants[0].UserTokens = &without
	o.tell(wire.Frame{Tenants: &frame})
	o.log("acme.other", queue.Entry{Kind: queue.EntryTurn, Turn: 2}) // told after it
	e.applied("acme.other")
	if got := join("acme", userToken(t, p.acmeNext, "fan-8")); got.status != http.StatusCreated {
		t.Errorf("after an origin told no keys: got %d %s, want 201", got.status, got.body)
	}

	// rival's keys come from a file: what is not in it is not there.
	if got := join("rival", strangersToken(t, "https://id.rival.example/")); got.status != 401 || got.code(t) != "invalid_user_token" {
		t.Errorf("an unknown key of a file: got %d %s, want 401 invalid_user_token", got.status, got.body)
	}
	mu.Lock()
	answered = wire.UserKeyResponse{Key: wire.UserKeyAbsent, RetrySeconds: 60}
	mu.Unlock()
	stranger := strangersToken(t, testProvider)
	waitFor(t, "the key to be absent", func() bool { got = join("acme", stranger); return got.status != http.StatusServiceUnavailable })
	mu.Lock()
	count := asked["acme"]
	mu.Unlock()
	for range 50 {
		if got := join("acme", stranger); got.status != 401 || got.code(t) != "invalid_user_token" {
			t.Fatalf("an absent key: got %d %s, want 401 invalid_user_token", got.status, got.body)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if asked["acme"] != count || asked["rival"] != 0 {
		t.Errorf("asked the origin %v times, want no more than %d for acme and none for rival", asked, count)
	}
}

// strangersToken is right but for its key, which nobody knows.
func strangersToken(t testing.TB, issuer string) string {
	t.Helper()
	private, _, err := tokens.GenerateUserKeys()
	if err != nil {
		t.Fatal(err)
	}
	signer, err := tokens.NewUserSigner(private, issuer, testAudience)
	if err != nil {
		t.Fatal(err)
	}
	return userToken(t, signer, "fan-7")
}

// TestMadeUpKeysCauseFewQuestions: whoever invents key ids makes an edge ask no more often than the
// origin allows, and one question at a time.
func TestMadeUpKeysCauseFewQuestions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &scripted{}
		s := &Server{Origin: o, known: newKnowledge(1024, testHub())}
		s.work, s.stopWork = context.WithCancel(t.Context())
		defer s.stopWork()
		asked, running := 0, 0
		o.key = func(ctx context.Context, _ wire.UserKeyRequest) (wire.UserKeyResponse, error) {
			asked++
			if running++; running > 1 {
				t.Error("two questions at once")
			}
			pause(ctx, 2*time.Second)
			running--
			return wire.UserKeyResponse{Key: wire.UserKeyPending, RetrySeconds: 58}, nil
		}
		const minutes = 10
		for i := range minutes * 60 {
			for j := range 50 {
				if err := s.askForKey("acme", strconv.Itoa(i*50+j)); err == nil || errors.Is(err, tokens.ErrInvalid) {
					t.Fatalf("a key that nobody looked for: got %v, want to be asked to come back", err)
				}
			}
			pause(t.Context(), time.Second)
		}
		s.running.Wait()
		if asked < 2 || asked > minutes+1 {
			t.Errorf("asked %d times in %d minutes, want about one a minute", asked, minutes)
		}
	})
}
