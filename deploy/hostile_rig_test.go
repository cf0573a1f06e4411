package deploy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"waitingroom/edge"
	"waitingroom/origin"
	"waitingroom/origin/store/redis"
	"waitingroom/origin/store/redis/redistest"
	"waitingroom/origin/wire"
	"waitingroom/tokens"
)

const (
	hostileCluster = "a cluster secret of more than 32 bytes"
	// hostileUser is a user id, which no log may hold.
	hostileUser = "user-of-the-tenant"
	shopOrigin  = "https://shop.example.com"
)

// besieged is an edge and an origin in this process, on a real Redis, with every kind of place in
// line. What they log, at every level, is kept.
type besieged struct {
	t       *testing.T
	redis   *goredis.Client
	log     *lockedBuffer
	edge    string // host:port
	origin  string
	edgeURL string
	// stop ends both programs in order.
	stop func()

	operator, viewer, rivalOperator  string
	secretKey, publishable, rivalKey string
	session                          string // a running session's token
	sessionID                        string
	// Tickets of the queue shop.match, by state, and of others.
	active, offered, waiting, rival held
}

// held is a ticket and its id.
type held struct{ token, id string }

func newBesieged(t *testing.T) *besieged {
	t.Helper()
	server := redistest.Start(t)
	b := &besieged{t: t, log: &lockedBuffer{}}
	b.redis = goredis.NewClient(&goredis.Options{Addr: server.Addr})
	t.Cleanup(func() { _ = b.redis.Close() })
	store, err := redis.Open(redis.Config{Addresses: []string{server.Addr}})
	b.must(err)
	t.Cleanup(func() { _ = store.Close() })
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	b.must(err)
	b.origin = listener.Addr().String()

	logger := slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	config, secrets := b.credentials()
	o := &origin.Server{
		Config: config, Store: store, Logger: logger, Listener: listener,
		Secrets: func() (origin.Secrets, error) { return secrets, nil },
	}
	client := &wire.Client{Origins: []string{"http://" + b.origin}, Secret: hostileCluster}
	t.Cleanup(client.CloseIdle)
	e := &edge.Server{
		Config: edge.Config{
			Listen: "127.0.0.1:0", WhenStale: edge.FailClosed, MaxStaleSeconds: 3600,
			// All requests come from one address; how joins are limited is not asked here.
			Limits: edge.Limits{JoinsPerAddress: edge.JoinRate{Off: true}},
		},
		Origin: client, Logger: logger,
	}
	b.must(e.Listen())
	b.edge, b.edgeURL = e.Addr().String(), e.PublicURL()

	stopOrigin, stopEdge := b.run("origin", o.Run), b.run("edge", e.Run)
	b.stop = func() {
		stopEdge()
		client.CloseIdle()
		stopOrigin()
	}
	t.Cleanup(func() {
		b.stop()
		if t.Failed() {
			t.Logf("log:\n%s", b.log.String())
		}
	})
	b.eventually("both are ready", func() bool {
		return b.get(b.origin, "/readyz").status == http.StatusOK && b.get(b.edge, "/readyz").status == http.StatusOK
	})
	b.furnish()
	return b
}

func (b *besieged) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// run starts a program, and stops it with the test at the latest.
func (b *besieged) run(name string, serve func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serve(ctx) }()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("%s: got %v, want a clean stop", name, err)
		}
	})
}

// credentials makes all keys, for the tenants shop and rival.
func (b *besieged) credentials() (origin.Config, origin.Secrets) {
	config := origin.DefaultConfig()
	config.AdminListen, config.PublicURL, config.Issuer = "off", "http://"+b.origin, "https://wait.example.com"
	config.TickEvery, config.LeaseTTL = 50*time.Millisecond, 30*time.Second
	sessions, err := tokens.GenerateSessionKeys()
	b.must(err)
	secrets := origin.Secrets{
		ClusterSecret: []byte(hostileCluster), SessionKeys: sessions,
		UserHashKey: []byte("a key to hash users of more than 32 bytes"), Tenants: make(map[string]origin.TenantSecrets),
	}
	for _, id := range []string{tenant, "rival"} {
		tickets, err := tokens.GenerateTicketKeys()
		b.must(err)
		private, public, err := tokens.GenerateOperatorKeys()
		b.must(err)
		secrets.Tenants[id] = origin.TenantSecrets{TicketKeys: tickets, OperatorKeys: public}
		secret, err := tokens.NewAPIKey(true)
		b.must(err)
		publishable, err := tokens.NewAPIKey(false)
		b.must(err)
		config.Tenants = append(config.Tenants, origin.TenantConfig{ID: id, APIKeys: []origin.APIKeyConfig{
			{ID: "backend", Kind: origin.SecretKey, SHA256: tokens.HashAPIKey(secret)},
			{ID: "app", Kind: origin.PublishableKey, SHA256: tokens.HashAPIKey(publishable)},
		}})
		if id == tenant {
			b.secretKey, b.publishable = secret, publishable
			b.operator, b.viewer = b.operatorToken(private, id, tokens.RoleOperator), b.operatorToken(private, id, tokens.RoleViewer)
		} else {
			b.rivalKey, b.rivalOperator = secret, b.operatorToken(private, id, tokens.RoleOperator)
		}
	}
	return config, secrets
}

func (b *besieged) operatorToken(private []byte, tenant string, role tokens.Role) string {
	b.t.Helper()
	now := time.Now()
	token, err := tokens.SignOperator(private, tokens.Operator{
		Tenant: tenant, Subject: "somebody", Role: role, IssuedAt: now, ExpiresAt: now.Add(time.Hour),
	}, "http://"+b.origin)
	b.must(err)
	return token
}

// furnish makes queues and fans. All windows are long, so that nothing ends while the test runs.
func (b *besieged) furnish() {
	b.t.Helper()
	const long = `"purchaseWindowSeconds":604800,"holdSeconds":604800,"claimSeconds":604800,"returnOrigins":["` + shopOrigin + `"]`
	for _, q := range []struct{ slug, settings, operator string }{
		{"match", `"capacity":2,` + long, b.operator},
		{"members", `"identity":"required","capacity":0,` + long, b.operator},
		{"closed", `"state":"closed","capacity":0,` + long, b.operator},
		{"match", `"capacity":0,` + long, b.rivalOperator},
	} {
		got := b.send(b.origin, "POST", "/queues", `{"slug":"`+q.slug+`",`+q.settings+`}`, "Authorization: Bearer "+q.operator)
		b.want(got, "create queue", http.StatusCreated)
		id := got.text("id")
		b.eventually("the edge knows "+id, func() bool { return b.get(b.edge, "/queues/"+id).status == http.StatusOK })
	}
	// The first session is ended at once, so that the list of revocations is not empty.
	first := b.joinMatch(`{}`, b.publishable)
	b.awaitState(first, "admitted")
	b.session = b.claimed(first)
	b.want(b.send(b.origin, "DELETE", "/sessions/"+jti(b.t, b.session), "", "X-API-Key: "+b.secretKey), "end a session", http.StatusNoContent)

	b.active = b.joinMatch(`{}`, b.publishable)
	b.awaitState(b.active, "admitted")
	b.session = b.claimed(b.active)
	b.sessionID = jti(b.t, b.session)
	b.offered = b.joinMatch(`{"userId":"`+hostileUser+`"}`, b.secretKey)
	b.awaitState(b.offered, "admitted")
	b.waiting = b.joinMatch(`{}`, b.publishable)
	b.awaitState(b.waiting, "waiting")
	b.rival = b.join("rival.match", `{}`, b.rivalKey)
	b.awaitState(b.rival, "waiting")
	b.eventually("/access lets the session in", func() bool {
		return b.send(b.edge, "GET", "/access", "", "Authorization: Bearer "+b.session).status == http.StatusOK
	})
}

func (b *besieged) want(got answer, what string, status int) {
	b.t.Helper()
	if got.status != status {
		b.t.Fatalf("%s: got %d %s, want %d", what, got.status, got.raw, status)
	}
}

func (b *besieged) joinMatch(body, key string) held { return b.join("shop.match", body, key) }

func (b *besieged) join(queue, body, key string) held {
	b.t.Helper()
	got := b.send(b.edge, "POST", "/queues/"+queue+"/tickets", body, "X-API-Key: "+key)
	b.want(got, "join", http.StatusCreated)
	return held{got.text("ticket"), got.text("ticketId")}
}

func (b *besieged) awaitState(h held, state string) {
	b.t.Helper()
	b.eventually("a ticket is "+state, func() bool {
		return b.send(b.edge, "GET", "/tickets/"+h.id, "", "Authorization: Bearer "+h.token).text("state") == state
	})
}

func (b *besieged) claimed(h held) (session string) {
	b.t.Helper()
	got := b.send(b.edge, "POST", "/tickets/"+h.id+"/session", "", "Authorization: Bearer "+h.token)
	b.want(got, "claim", http.StatusOK)
	return got.text("sessionToken")
}

func (b *besieged) eventually(what string, holds func() bool) {
	b.t.Helper()
	(&installation{t: b.t}).eventually(20*time.Second, what, holds)
}

func (b *besieged) get(server, path string) answer { return b.send(server, "GET", path, "") }

// send sends a well-formed request.
func (b *besieged) send(server, method, path, body string, headers ...string) answer {
	b.t.Helper()
	m := message{method: method, target: path, body: body}
	if body != "" {
		m.headers = append(m.headers, "Content-Type: application/json")
	}
	m.headers = append(m.headers, headers...)
	answers, err := exchange(server, m.bytes(server), false)
	if err != nil || len(answers) != 1 {
		return answer{raw: fmt.Sprint(err)}
	}
	return answers[0]
}

// timeDriven are the fields of a queue's meta that every tick writes, whatever is asked: when it
// was, when the lease ends, and the latest time that a script has seen.
var timeDriven = []string{"lastTick", "ticked", "latest", "leaseUntil"}

// dump is everything that Redis holds: each key with its type and its content. Left out is what
// time alone moves, and nothing else: the fields above, when an edge reported last that it has
// handed in all sightings (each second; the edges' names stay in), and for when the schedule has its
// reminders (coordinators push them ahead; the queues' names stay in).
func (b *besieged) dump() map[string]string {
	b.t.Helper()
	ctx := b.t.Context()
	keys, err := b.redis.Keys(ctx, "*").Result()
	b.must(err)
	types := make(map[string]*goredis.StatusCmd)
	_, err = b.redis.Pipelined(ctx, func(p goredis.Pipeliner) error {
		for _, key := range keys {
			types[key] = p.Type(ctx, key)
		}
		return nil
	})
	b.must(err)
	contents := make(map[string]func() any)
	_, err = b.redis.Pipelined(ctx, func(p goredis.Pipeliner) error {
		for _, key := range keys {
			switch types[key].Val() {
			case "hash":
				c := p.HGetAll(ctx, key)
				contents[key] = func() any { return c.Val() }
			case "string":
				c := p.Get(ctx, key)
				contents[key] = func() any { return c.Val() }
			case "set":
				c := p.SMembers(ctx, key)
				contents[key] = func() any { return slices.Sorted(slices.Values(c.Val())) }
			case "zset":
				c := p.ZRangeWithScores(ctx, key, 0, -1)
				contents[key] = func() any { return c.Val() }
			case "stream":
				c := p.XRange(ctx, key, "-", "+")
				contents[key] = func() any { return c.Val() }
			case "list":
				c := p.LRange(ctx, key, 0, -1)
				contents[key] = func() any { return c.Val() }
			}
		}
		return nil
	})
	if !errors.Is(err, goredis.Nil) {
		b.must(err)
	}
	whole := make(map[string]string)
	for key, content := range contents {
		value := content()
		if hash, ok := value.(map[string]string); ok {
			switch {
			case strings.HasSuffix(key, ":meta"):
				for _, field := range timeDriven {
					delete(hash, field)
				}
			case strings.HasSuffix(key, ":edges"):
				value = slices.Sorted(maps.Keys(hash))
			}
		}
		if reminders, ok := value.([]goredis.Z); ok && key == "wr:schedule" {
			var queues []string
			for _, one := range reminders {
				queues = append(queues, fmt.Sprint(one.Member))
			}
			slices.Sort(queues)
			value = queues
		}
		text, err := json.Marshal(value)
		b.must(err)
		whole[types[key].Val()+" "+key] = string(text)
	}
	return whole
}

// settled waits until all that follows from the furnishing has reached Redis, and returns a dump.
func (b *besieged) settled() map[string]string {
	b.t.Helper()
	ctx := b.t.Context()
	var last map[string]string
	same := 0
	b.eventually("Redis is at rest", func() bool {
		now := b.dump()
		// The edge hands in its first sightings a quarter of a second after they were made.
		_, one := now["hash wr:{shop.match}:edges"]
		_, other := now["hash wr:{rival.match}:edges"]
		if one && other && b.journaled("shop.match") && b.journaled("rival.match") && len(differences(last, now)) == 0 {
			same++
		} else {
			same = 0
		}
		last = now
		return same == 20
	})
	// The memory of batches lasts two minutes, which a slow machine could need for this test.
	for key := range last {
		_, name, _ := strings.Cut(key, " ")
		b.must(b.redis.Persist(ctx, name).Err())
	}
	return last
}

// journaled reports whether a queue's journal, which comes a second behind its log, is up to date.
func (b *besieged) journaled(queue string) bool {
	b.t.Helper()
	ctx, key := b.t.Context(), "wr:{"+queue+"}:"
	number, err := b.redis.HGet(ctx, key+"meta", "number").Result()
	b.must(err)
	entry, err := b.redis.HGet(ctx, key+"journal", "entry").Result()
	return err == nil && entry == number
}

// differences says in which keys two dumps differ.
func differences(before, after map[string]string) []string {
	var list []string
	for _, key := range slices.Sorted(maps.Keys(before)) {
		if now, exists := after[key]; !exists {
			list = append(list, key+" is gone")
		} else if now != before[key] {
			list = append(list, fmt.Sprintf("%s\n  was %s\n  is  %s", key, before[key], now))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(after)) {
		if _, existed := before[key]; !existed {
			list = append(list, fmt.Sprintf("%s is new: %s", key, after[key]))
		}
	}
	return list
}
