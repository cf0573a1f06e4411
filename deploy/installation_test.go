package deploy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"waitingroom/origin/store/redis/redistest"
)

// installation is a whole waiting room of real programs, each a process of its own: a Redis that
// keeps what it acknowledged, one origin or several, and two edges that know all origins.
type installation struct {
	t       *testing.T
	dir     string
	redis   *redistest.Server
	origins []*program
	edges   [2]*program
	url     struct {
		origins []string
		edges   [2]string
	}
	admin struct { // where metrics and pprof are
		origins []string
		edges   [2]string
	}
	secretKey, publishableKey, operatorToken string
}

const tenant = "shop"

// setup is what an installation is made of; its zero value is the usual one.
type setup struct {
	kind kind
	// origins is how many there are on the one Redis; 0 means 1. The first edge tries them from
	// the first on, the second edge from the second on.
	origins int
	// redis is the origins' setting of that name where the test has started it; empty for a server
	// of the installation's own.
	redis string
	// edgeConfig and originConfig are more lines of the edges' and the origins' configuration.
	edgeConfig, originConfig string
	// ahead are the wall clocks of the first origins at the start, where the kind is datable.
	ahead []time.Duration
}

func install(t *testing.T) *installation {
	t.Helper()
	return setup{}.install(t)
}

func (as setup) install(t *testing.T) *installation {
	t.Helper()
	in := &installation{t: t, dir: t.TempDir()}
	bin := build(t, as.kind)
	originProgram := filepath.Join(bin, "waitingroom-origin")
	if as.redis == "" {
		in.redis = redistest.Start(t, "--appendonly", "yes")
		as.redis = fmt.Sprintf("{addresses: [%q]}", in.redis.Addr)
	}

	in.command(originProgram, "keys", "-dir", filepath.Join(in.dir, "keys"), "-tenant", tenant)
	var secretHash, publishableHash string
	in.secretKey, secretHash = in.apiKey(originProgram, "secret")
	in.publishableKey, publishableHash = in.apiKey(originProgram, "publishable")

	origins := max(as.origins, 1)
	ports := freePorts(t, 2*(origins+len(in.edges)))
	port := func() (address string) {
		address, ports = ports[0], ports[1:]
		return address
	}
	for i := range origins {
		name, listen, admin := fmt.Sprintf("origin%d.yaml", i+1), port(), port()
		in.url.origins = append(in.url.origins, "http://"+listen)
		in.admin.origins = append(in.admin.origins, "http://"+admin)
		in.write(name, fmt.Sprintf(`
listen: %s
adminListen: %s
publicURL: %s
issuer: https://wait.example.com
clusterSecret: {file: keys/cluster.secret}
sessionKeys: {file: keys/session.private.json}
userHashKey: {file: keys/userhash.secret}
redis: %s
tenants:
  - id: %[5]s
    ticketKeys: {file: keys/%[5]s/tickets.secret.json}
    operatorKeys: {file: keys/%[5]s/operator.public.json}
    apiKeys:
      - {id: backend, kind: secret, sha256: %[6]s}
      - {id: app, kind: publishable, sha256: %[7]s}
%[8]s`, listen, admin, in.publicURL(), as.redis, tenant, secretHash, publishableHash, as.originConfig))
		in.origins = append(in.origins, &program{
			t: t, path: originProgram, args: []string{"-config", filepath.Join(in.dir, name)}, log: &lockedBuffer{},
		})
	}
	in.operatorToken = in.operator(originProgram, "operator")
	for i := range in.edges {
		name, listen, admin := fmt.Sprintf("edge%d.yaml", i+1), port(), port()
		in.url.edges[i], in.admin.edges[i] = "http://"+listen, "http://"+admin
		first := i % origins
		known := slices.Concat(in.url.origins[first:], in.url.origins[:first])
		in.write(name, fmt.Sprintf(`
listen: %s
adminListen: %s
origins: [%s]
clusterSecret: {file: %s}
whenStale: fail-closed
maxStaleSeconds: 3600
%s`, listen, admin, strings.Join(known, ", "), filepath.Join(in.dir, "keys/cluster.secret"), as.edgeConfig))
		in.edges[i] = &program{
			t: t, path: filepath.Join(bin, "waitingroom-edge"), args: []string{"-config", filepath.Join(in.dir, name)}, log: &lockedBuffer{},
		}
	}
	if as.kind == datable {
		for _, p := range in.programs() {
			p.wall = newWallClock(t, filepath.Join(in.dir, p.name()+".clock"))
		}
		for i, ahead := range as.ahead {
			in.origins[i].wall.put(ahead)
		}
	}
	t.Cleanup(func() {
		in.stop()
		in.checkLogs()
	})
	in.start()
	return in
}

// publicURL is the name of all origins together, which operators' tokens are for.
func (in *installation) publicURL() string { return in.url.origins[0] }

func (in *installation) programs() []*program { return slices.Concat(in.edges[:], in.origins) }

// start starts origins and edges and waits until all are ready.
func (in *installation) start() {
	in.t.Helper()
	for _, p := range slices.Backward(in.programs()) {
		p.start()
	}
	for _, url := range slices.Concat(in.url.edges[:], in.url.origins) {
		in.awaitReady(url)
	}
}

// awaitReady waits until the program with this base URL is ready.
func (in *installation) awaitReady(url string) {
	in.t.Helper()
	in.eventually(20*time.Second, url+" is ready", func() bool {
		return in.request("GET", url+"/readyz", "", nil).status == http.StatusOK
	})
}

// stop stops the edges and the origins.
func (in *installation) stop() {
	in.t.Helper()
	for _, p := range in.programs() {
		p.stop()
	}
}

// checkLogs looks for what no program may log.
func (in *installation) checkLogs() {
	for _, p := range in.programs() {
		text := p.log.String()
		for name, secret := range map[string]string{
			"the secret API key": in.secretKey, "the publishable API key": in.publishableKey,
			"the operator's token": in.operatorToken, "a JWT": "eyJ", "a user id": "user-",
		} {
			if strings.Contains(text, secret) {
				in.t.Errorf("%s logged %s", p.name(), name)
			}
		}
		for _, trouble := range []string{"DATA RACE", "panic", "goroutine "} {
			if strings.Contains(text, trouble) {
				in.t.Errorf("%s logged trouble (%s):\n%s", p.name(), trouble, text)
			}
		}
		if in.t.Failed() {
			in.t.Logf("log of %s:\n%s", p.name(), text)
		}
	}
}

func (in *installation) write(name, text string) {
	in.t.Helper()
	if err := os.WriteFile(filepath.Join(in.dir, name), []byte(text), 0o600); err != nil {
		in.t.Fatalf("write %s: %v", name, err)
	}
}

func (in *installation) command(path string, args ...string) string {
	in.t.Helper()
	cmd := exec.Command(path, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		in.t.Fatalf("%s %s: %v\n%s", filepath.Base(path), strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

// apiKey makes an API key with the program's command.
func (in *installation) apiKey(path, kind string) (key, hash string) {
	in.t.Helper()
	out := in.command(path, "api-key", "-kind", kind)
	for field := range strings.FieldsSeq(out) {
		field = strings.Trim(field, `"{},`)
		if strings.HasPrefix(field, "wr_") {
			key = field
		} else if len(field) == 64 {
			hash = field
		}
	}
	if key == "" || hash == "" {
		in.t.Fatalf("api-key printed %q, want a key and its hash", out)
	}
	return key, hash
}

func (in *installation) operator(path, role string) string {
	in.t.Helper()
	return strings.TrimSpace(in.command(path, "operator-token",
		"-key", filepath.Join(in.dir, "keys", tenant, "operator.private.json"),
		"-tenant", tenant, "-role", role, "-audience", in.publicURL()))
}

// freePorts finds addresses on which nobody listens. They lie below the ports that the kernel gives to
// outgoing connections, so that none of the test's own takes one before the program listens on it.
func freePorts(t *testing.T, n int) []string {
	t.Helper()
	const lowest, count = 10_000, 20_000
	addresses := make([]string, 0, n)
	for range 1000 {
		if len(addresses) == n {
			return addresses
		}
		address := fmt.Sprintf("127.0.0.1:%d", lowest+rand.IntN(count))
		if _, given := portsGiven.LoadOrStore(address, true); given {
			continue
		}
		if l, err := net.Listen("tcp", address); err == nil {
			_ = l.Close()
			addresses = append(addresses, address)
		}
	}
	t.Fatalf("find %d free ports: only %d found", n, len(addresses))
	return nil
}

// portsGiven are those that tests running at the same time have from freePorts.
var portsGiven sync.Map

// eventually waits until a condition holds, and fails the test when it does not in time.
func (in *installation) eventually(timeout time.Duration, what string, holds func() bool) {
	in.t.Helper()
	ctx, cancel := context.WithTimeout(in.t.Context(), timeout)
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for !holds() {
		select {
		case <-again.C:
		case <-ctx.Done():
			in.t.Fatalf("not within %v: %s", timeout, what)
		}
	}
}

// answer is what a server said.
type answer struct {
	status int
	header http.Header
	body   map[string]any
	raw    string
}

func (a answer) text(name string) string {
	s, _ := a.body[name].(string)
	return s
}

func (a answer) number(name string) int {
	n, _ := a.body[name].(float64)
	return int(n)
}

// request sends one request with a JSON body; a header is given as "Name: value". An answer that
// does not come has the status 0.
func (in *installation) request(method, url, body string, headers []string) answer {
	in.t.Helper()
	return in.requestBy(http.DefaultClient, method, url, body, headers)
}

func (in *installation) requestBy(client *http.Client, method, url, body string, headers []string) answer {
	in.t.Helper()
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		in.t.Fatalf("make a request: %v", err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	response, err := client.Do(r)
	if err != nil {
		return answer{raw: err.Error()}
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return answer{raw: err.Error()}
	}
	a := answer{status: response.StatusCode, header: response.Header, raw: string(data)}
	_ = json.Unmarshal(data, &a.body)
	return a
}

func bearer(token string) []string { return []string{"Authorization: Bearer " + token} }

// createQueue makes a queue and returns its id.
func (in *installation) createQueue(slug, settings string) string {
	in.t.Helper()
	got := in.request("POST", in.url.origins[0]+"/queues", `{"slug":"`+slug+`",`+settings+`}`, bearer(in.operatorToken))
	if got.status != http.StatusCreated {
		in.t.Fatalf("create queue: got %d %s, want 201", got.status, got.raw)
	}
	id := got.text("id")
	for _, url := range in.url.edges {
		in.eventually(5*time.Second, "the edge knows the queue", func() bool {
			return in.request("GET", url+"/queues/"+id, "", nil).status == http.StatusOK
		})
	}
	return id
}

// fan is somebody in line, with the edge that the next request goes to.
type fan struct {
	in         *installation
	ticket, id string
	position   int
}

// join joins through one edge with the publishable key.
func (in *installation) join(edge int, queue string) *fan {
	in.t.Helper()
	got := in.request("POST", in.url.edges[edge]+"/queues/"+queue+"/tickets", `{}`, []string{"X-API-Key: " + in.publishableKey})
	if got.status != http.StatusCreated {
		in.t.Fatalf("join: got %d %s, want 201", got.status, got.raw)
	}
	return &fan{in: in, ticket: got.text("ticket"), id: got.text("ticketId"), position: got.number("position")}
}

func (f *fan) poll(edge int) answer {
	f.in.t.Helper()
	return f.in.request("GET", f.in.url.edges[edge]+"/tickets/"+f.id, "", bearer(f.ticket))
}

// awaitState polls until the ticket is in a state, and returns that status.
func (f *fan) awaitState(edge int, timeout time.Duration, want string) answer {
	f.in.t.Helper()
	var got answer
	f.in.eventually(timeout, fmt.Sprintf("position %d is %s", f.position, want), func() bool {
		got = f.poll(edge)
		return got.status == http.StatusOK && got.text("state") == want
	})
	return got
}

func (f *fan) claim(edge int) answer {
	f.in.t.Helper()
	return f.in.request("POST", f.in.url.edges[edge]+"/tickets/"+f.id+"/session", "", bearer(f.ticket))
}

// enter waits for the fan's turn, claims and returns the session token.
func (f *fan) enter(edge int) string {
	f.in.t.Helper()
	f.in.eventually(30*time.Second, fmt.Sprintf("position %d may claim", f.position), func() bool {
		state := f.poll(edge).text("state")
		return state == "admitted" || state == "active"
	})
	got := f.claim(edge)
	if got.status != http.StatusOK {
		f.in.t.Fatalf("claim of position %d: got %d %s, want 200", f.position, got.status, got.raw)
	}
	return got.text("sessionToken")
}

func (in *installation) access(edge int, session string) int {
	in.t.Helper()
	return in.request("GET", in.url.edges[edge]+"/access", "", bearer(session)).status
}
