package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"waitingroom/origin/queue"
	"waitingroom/origin/wire"
	"waitingroom/tokens"
)

// tenant is whose queues are measured.
const tenant = "bench"

// installation is a whole waiting room of real programs, each a process of its own, with the
// yardstick beside it.
type installation struct {
	dir       string
	processes []*process

	hello, edge, origin, edgeAdmin, originAdmin string // addresses
	redis                                       *goredis.Client
	redisAddress                                string
	wire                                        *wire.Client
	edgeName                                    string // of this program, as an edge
	batches                                     uint64 // that it has sent
	sources                                     int    // addresses from which crowds of fans come

	publishableKey, secretKey, operatorToken string
	tickets                                  *tokens.Tickets
	users                                    *tokens.UserSigner // the tenant's identity provider
	issuer                                   string
}

// install starts everything; close ends it, also after an error.
func install(ctx context.Context, dir string, p programs) (in *installation, err error) {
	in = &installation{dir: dir, edgeName: fmt.Sprintf("%032x", time.Now().UnixNano())}
	defer func() {
		if err != nil {
			in.close()
			err = fmt.Errorf("install: %w", err)
		}
	}()
	addresses, err := freeAddresses(6)
	if err != nil {
		return in, err
	}
	in.hello, in.edge, in.origin = addresses[0], addresses[1], addresses[2]
	in.edgeAdmin, in.originAdmin, in.redisAddress = addresses[3], addresses[4], addresses[5]
	in.issuer = "http://" + in.edge
	if err := in.makeKeys(); err != nil {
		return in, err
	}
	redis, client, err := startRedis(ctx, dir, in.redisAddress, p.redis)
	if err != nil {
		return in, err
	}
	in.redis, in.processes = client, append(in.processes, redis)
	steps := []struct {
		name, path string
		ready      func(context.Context) bool
		args       []string
	}{
		{"hello", p.hello, accepts(in.hello), []string{"-listen", in.hello}},
		{"origin", p.origin, answersReady(in.origin), []string{"-config", filepath.Join(dir, "origin.yaml")}},
		{"edge", p.edge, answersReady(in.edge), []string{"-config", filepath.Join(dir, "edge.yaml")}},
	}
	for _, s := range steps {
		started, err := start(ctx, dir, s.name, s.ready, s.path, s.args...)
		if err != nil {
			return in, err
		}
		in.processes = append(in.processes, started)
	}
	return in, nil
}

func (in *installation) close() {
	if in.wire != nil {
		in.wire.CloseIdle()
	}
	if in.redis != nil {
		_ = in.redis.Close()
	}
	for i := len(in.processes) - 1; i >= 0; i-- {
		in.processes[i].stop()
	}
	in.processes = nil
}

// makeKeys makes all secrets and the two configurations.
func (in *installation) makeKeys() error {
	ticketKeys, err := tokens.GenerateTicketKeys()
	if err != nil {
		return err
	}
	sessionKeys, err := tokens.GenerateSessionKeys()
	if err != nil {
		return err
	}
	operatorPrivate, operatorPublic, err := tokens.GenerateOperatorKeys()
	if err != nil {
		return err
	}
	if in.publishableKey, err = tokens.NewAPIKey(false); err != nil {
		return err
	}
	if in.secretKey, err = tokens.NewAPIKey(true); err != nil {
		return err
	}
	if in.operatorToken, err = signOperator(operatorPrivate, "http://"+in.origin); err != nil {
		return err
	}
	userPrivate, userPublic, err := tokens.GenerateUserKeys()
	if err != nil {
		return err
	}
	if in.users, err = tokens.NewUserSigner(userPrivate, "https://id.bench.example", tenant); err != nil {
		return err
	}
	ring, err := tokens.ParseKeyRing(ticketKeys)
	if err != nil {
		return err
	}
	in.tickets = &tokens.Tickets{Issuer: in.issuer, Rings: map[string]*tokens.KeyRing{tenant: ring}}
	cluster, err := tokens.NewAPIKey(true) // random enough for any secret
	if err != nil {
		return err
	}
	in.wire = &wire.Client{Origins: []string{"http://" + in.origin}, Secret: cluster}
	files := map[string]string{
		"tickets.json": string(ticketKeys), "sessions.json": string(sessionKeys), "operator.json": string(operatorPublic),
		"users.json":     string(userPublic),
		"cluster.secret": cluster, "userhash.secret": cluster + "users",
		"origin.yaml": fmt.Sprintf(`
listen: %s
adminListen: %s
publicURL: http://%[1]s
issuer: %[3]s
clusterSecret: {file: cluster.secret}
sessionKeys: {file: sessions.json}
userHashKey: {file: userhash.secret}
redis: {addresses: ["%[4]s"]}
tenants:
  - id: %[5]s
    ticketKeys: {file: tickets.json}
    operatorKeys: {file: operator.json}
    apiKeys:
      - {id: backend, kind: secret, sha256: %[6]s}
      - {id: app, kind: publishable, sha256: %[7]s}
    userTokens: {issuer: "https://id.bench.example", audience: %[5]s, keys: {file: users.json}}
`, in.origin, in.originAdmin, in.issuer, in.redisAddress, tenant,
			tokens.HashAPIKey(in.secretKey), tokens.HashAPIKey(in.publishableKey)),
		"edge.yaml": in.edgeConfig(in.edge, in.edgeAdmin),
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(in.dir, name), []byte(text), 0o600); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return nil
}

// edgeConfig is the configuration of an edge.
func (in *installation) edgeConfig(listen, admin string) string {
	return fmt.Sprintf(`
listen: %s
adminListen: %s
origins: ["http://%s"]
clusterSecret: {file: %q}
whenStale: fail-closed
# All joins of a drive come with one key, faster than any app's fans.
limits: {joinsPerPublishableKey: {off: true}}
`, listen, admin, in.origin, filepath.Join(in.dir, "cluster.secret"))
}

// edge is one of further edges.
type edge struct {
	address, admin string
	process        *process
}

// addEdges starts further edges.
func (in *installation) addEdges(ctx context.Context, program string, n int) ([]edge, error) {
	addresses, err := freeAddresses(2 * n)
	if err != nil {
		return nil, err
	}
	list := make([]edge, n)
	for i := range list {
		e := edge{address: addresses[2*i], admin: addresses[2*i+1]}
		config := filepath.Join(in.dir, fmt.Sprintf("edge-%d.yaml", i+1))
		if err := os.WriteFile(config, []byte(in.edgeConfig(e.address, e.admin)), 0o600); err != nil {
			return nil, fmt.Errorf("write edge's configuration: %w", err)
		}
		if e.process, err = start(ctx, in.dir, "edge", answersReady(e.address), program, "-config", config); err != nil {
			return nil, err
		}
		in.processes = append(in.processes, e.process)
		list[i] = e
	}
	return list, nil
}

func signOperator(keys []byte, audience string) (string, error) {
	now := time.Now()
	return tokens.SignOperator(keys, tokens.Operator{
		Tenant: tenant, Subject: "bench", Role: tokens.RoleOperator, IssuedAt: now, ExpiresAt: now.Add(time.Hour),
	}, audience)
}

// answersReady is the readiness of an edge and of an origin.
func answersReady(address string) func(context.Context) bool {
	return func(ctx context.Context) bool {
		status, _, err := ask(ctx, http.MethodGet, "http://"+address+"/readyz", "", nil)
		return err == nil && status == http.StatusOK
	}
}

// ask sends one request, for what is not measured.
func ask(ctx context.Context, method, url, body string, header http.Header) (status int, answer []byte, err error) {
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	for name, values := range header {
		r.Header[name] = values
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(response.Body)
	return response.StatusCode, answer, err
}

func bearer(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }

// createQueue makes a queue and waits until the edge knows it.
func (in *installation) createQueue(ctx context.Context, slug string, capacity int) (queue.ID, error) {
	return in.createQueueWith(ctx, slug, fmt.Sprintf(`"capacity":%d,"claimSeconds":3600,"purchaseWindowSeconds":3600`, capacity))
}

// createQueueWith makes a queue with these members of its settings.
func (in *installation) createQueueWith(ctx context.Context, slug, settings string) (queue.ID, error) {
	body := fmt.Sprintf(`{"slug":%q,"returnOrigins":["http://127.0.0.1:1"],%s}`, slug, settings)
	status, answer, err := ask(ctx, http.MethodPost, "http://"+in.origin+"/queues", body, bearer(in.operatorToken))
	if err != nil || status != http.StatusCreated {
		return "", fmt.Errorf("create queue: status %d %s %w", status, answer, err)
	}
	id := queue.ID(tenant + "." + slug)
	return id, until(ctx, "the edge knows the queue", func(ctx context.Context) bool {
		status, _, err := ask(ctx, http.MethodGet, "http://"+in.edge+"/queues/"+string(id), "", nil)
		return err == nil && status == http.StatusOK
	})
}

// patchQueue changes a queue's settings.
func (in *installation) patchQueue(ctx context.Context, id queue.ID, patch string) error {
	status, answer, err := ask(ctx, http.MethodPatch, "http://"+in.origin+"/queues/"+string(id), patch, bearer(in.operatorToken))
	if err != nil || status != http.StatusOK {
		return fmt.Errorf("change queue: status %d %s %w", status, answer, err)
	}
	return nil
}

// offersMade is how many offers a queue has ever made, joins that were let in at once included.
func (in *installation) offersMade(ctx context.Context, id queue.ID) (int, error) {
	status, answer, err := ask(ctx, http.MethodGet, "http://"+in.origin+"/queues/"+string(id)+"/stats?minutes=0&moves=0", "", bearer(in.operatorToken))
	var stats struct{ Admitted int }
	if err == nil && status == http.StatusOK {
		err = json.Unmarshal(answer, &stats)
	}
	if err != nil || status != http.StatusOK {
		return 0, fmt.Errorf("read stats: status %d %s %w", status, answer, err)
	}
	return stats.Admitted, nil
}

// until waits for a condition.
func until(ctx context.Context, what string, holds func(context.Context) bool) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	for !holds(ctx) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w", what, ctx.Err())
		case <-time.After(askEvery):
		}
	}
	return nil
}

// fans joins that many fans as one more edge would, a batch at a time, and returns their tickets.
func (in *installation) fans(ctx context.Context, id queue.ID, n int) ([]fan, error) {
	const batch = 4096
	list := make([]fan, 0, n)
	for len(list) < n {
		in.batches++
		request := wire.JoinRequest{Queue: id, Edge: in.edgeName, Seq: in.batches, Users: make([]string, min(batch, n-len(list)))}
		answer, err := in.wire.Join(ctx, request)
		if err != nil {
			return nil, fmt.Errorf("join fans: %w", err)
		}
		for _, joined := range answer.Joins {
			f, err := in.ticket(id, answer, joined.Position)
			if err != nil {
				return nil, err
			}
			list = append(list, f)
		}
	}
	highest := list[len(list)-1].position
	return list, until(ctx, "the edge knows all positions", func(ctx context.Context) bool {
		var state struct{ Issued uint64 }
		_, answer, err := ask(ctx, http.MethodGet, "http://"+in.edge+"/queues/"+string(id)+"/state", "", nil)
		return err == nil && json.Unmarshal(answer, &state) == nil && state.Issued >= highest
	})
}

// fan is somebody with a ticket.
type fan struct {
	position  uint64
	id, token string
}

// ticket signs as an edge does.
func (in *installation) ticket(id queue.ID, answer wire.JoinResponse, position uint64) (fan, error) {
	token, err := in.tickets.Sign(nil, tokens.Ticket{
		Queue: string(id), ExpiresAt: answer.Now.Add(tokens.TicketLifetime),
		Subject: fmt.Sprintf("%032x", position*0x9e3779b97f4a7c15), Position: position,
		Incarnation: answer.Incarnation, Generation: answer.Generation,
	}, answer.Now)
	if err != nil {
		return fan{}, fmt.Errorf("sign ticket: %w", err)
	}
	return fan{position: position, id: tokens.TicketID(answer.Incarnation, position), token: string(token)}, nil
}

// info reads a number that Redis tells of itself.
func info(ctx context.Context, client *goredis.Client, section, name string) (int64, error) {
	text, err := client.Info(ctx, section).Bytes()
	if err != nil {
		return 0, fmt.Errorf("ask redis for %s: %w", name, err)
	}
	return parseInfo(text, name)
}

// parseInfo finds a number in an answer to INFO.
func parseInfo(text []byte, name string) (int64, error) {
	for line := range bytes.Lines(text) {
		key, value, found := bytes.Cut(bytes.TrimSpace(line), []byte(":"))
		if found && string(key) == name {
			n, err := strconv.ParseInt(string(value), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read %s: %w", name, err)
			}
			return n, nil
		}
	}
	return 0, fmt.Errorf("read %s: redis does not tell it", name)
}
