package deploy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"waitingroom/origin/store/redis/redistest"
)

// installation is a whole waiting room of real programs, each a process of its own: a Redis that
// keeps what it acknowledged, an origin and two edges.
type installation struct {
	t      *testing.T
	dir    string
	redis  *redistest.Server
	origin *program
	edges  [2]*program
	url    struct {
		origin string
		edges  [2]string
	}
	admin struct { // where metrics and pprof are
		origin string
		edges  [2]string
	}
	secretKey, publishableKey, operatorToken string
}

const tenant = "shop"

var programs [2]struct { // by kind
	once sync.Once
	dir  string
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	for i := range programs {
		if dir := programs[i].dir; dir != "" {
			_ = os.RemoveAll(dir)
		}
	}
	os.Exit(code)
}

// kind is how programs are built.
type kind int

const (
	// checked programs have the race detector, like the tests.
	checked kind = iota
	// shipped programs are as people run them, for tests that measure time and memory.
	shipped
)

// build builds the programs once for all tests.
func build(t *testing.T, as kind) string {
	t.Helper()
	programs := &programs[as]
	programs.once.Do(func() {
		if programs.dir, programs.err = os.MkdirTemp("", "waitingroom-programs-"); programs.err != nil {
			return
		}
		out, err := exec.Command("go", "build", fmt.Sprintf("-race=%t", as == checked), "-o", programs.dir,
			"waitingroom/origin/cmd/waitingroom-origin", "waitingroom/edge/cmd/waitingroom-edge").CombinedOutput()
		if err != nil {
			programs.err = fmt.Errorf("%w\n%s", err, out)
		}
	})
	if programs.err != nil {
		t.Fatalf("build the programs: %v", programs.err)
	}
	return programs.dir
}

// program is one running process and what it logged.
type program struct {
	t    *testing.T
	path string
	args []string
	cmd  *exec.Cmd
	done chan struct{}
	log  *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (p *program) start() {
	p.t.Helper()
	p.cmd = exec.Command(p.path, p.args...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		p.t.Fatalf("start %s: %v", filepath.Base(p.path), err)
	}
	p.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) {
		_ = cmd.Wait()
		close(done)
	}(p.cmd, p.done)
}

// stop asks the program to end and waits until it has; kill does not ask.
func (p *program) stop() { p.end(syscall.SIGTERM) }
func (p *program) kill() { p.end(syscall.SIGKILL) }

func (p *program) end(signal syscall.Signal) {
	p.t.Helper()
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(signal)
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
		p.t.Errorf("%s did not end within 20 s of a signal", filepath.Base(p.path))
	}
	p.cmd = nil
}

func install(t *testing.T) *installation {
	t.Helper()
	return installAs(t, checked, "")
}

// installAs installs programs of a kind, with more lines in the edges' configuration.
func installAs(t *testing.T, as kind, edgeConfig string) *installation {
	t.Helper()
	in := &installation{t: t, dir: t.TempDir()}
	bin := build(t, as)
	originProgram := filepath.Join(bin, "waitingroom-origin")
	in.redis = redistest.Start(t, "--appendonly", "yes")

	in.command(originProgram, "keys", "-dir", filepath.Join(in.dir, "keys"), "-tenant", tenant)
	var secretHash, publishableHash string
	in.secretKey, secretHash = in.apiKey(originProgram, "secret")
	in.publishableKey, publishableHash = in.apiKey(originProgram, "publishable")

	ports := freePorts(t, 6)
	in.admin.origin = "http://" + ports[3]
	in.url.origin = "http://" + ports[0]
	in.operatorToken = in.operator(originProgram, "operator")
	originConfig := fmt.Sprintf(`
listen: %[1]s
adminListen: %[7]s
publicURL: %[2]s
issuer: https://wait.example.com
clusterSecret: {file: keys/cluster.secret}
sessionKeys: {file: keys/session.private.json}
userHashKey: {file: keys/userhash.secret}
redis: {addresses: [%[3]q]}
tenants:
  - id: %[4]s
    ticketKeys: {file: keys/%[4]s/tickets.secret.json}
    operatorKeys: {file: keys/%[4]s/operator.public.json}
    apiKeys:
      - {id: backend, kind: secret, sha256: %[5]s}
      - {id: app, kind: publishable, sha256: %[6]s}
`, ports[0], in.url.origin, in.redis.Addr, tenant, secretHash, publishableHash, ports[3])
	in.write("origin.yaml", originConfig)
	in.origin = &program{
		t: t, path: originProgram, args: []string{"-config", filepath.Join(in.dir, "origin.yaml")}, log: &lockedBuffer{},
	}
	for i := range in.edges {
		name := fmt.Sprintf("edge%d.yaml", i+1)
		in.url.edges[i], in.admin.edges[i] = "http://"+ports[i+1], "http://"+ports[i+4]
		in.write(name, fmt.Sprintf(`
listen: %s
adminListen: %s
origins: [%s]
clusterSecret: {file: %s}
whenStale: fail-closed
maxStaleSeconds: 3600
%s`, ports[i+1], ports[i+4], in.url.origin, filepath.Join(in.dir, "keys/cluster.secret"), edgeConfig))
		in.edges[i] = &program{
			t: t, path: filepath.Join(bin, "waitingroom-edge"), args: []string{"-config", filepath.Join(in.dir, name)}, log: &lockedBuffer{},
		}
	}
	t.Cleanup(func() {
		in.stop()
		in.checkLogs()
	})
	in.start()
	return in
}

func (in *installation) programs() []*program {
	return []*program{in.edges[0], in.edges[1], in.origin}
}

// start starts origin and edges and waits until all are ready.
func (in *installation) start() {
	in.t.Helper()
	for _, p := range slices.Backward(in.programs()) {
		p.start()
	}
	for _, url := range append(in.url.edges[:], in.url.origin) {
		in.eventually(20*time.Second, url+" is ready", func() bool {
			return in.request("GET", url+"/readyz", "", nil).status == http.StatusOK
		})
	}
}

// stop stops the edges and the origin.
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
				in.t.Errorf("%s logged %s", filepath.Base(p.path), name)
			}
		}
		for _, trouble := range []string{"DATA RACE", "panic", "goroutine "} {
			if strings.Contains(text, trouble) {
				in.t.Errorf("%s logged trouble (%s):\n%s", filepath.Base(p.path), trouble, text)
			}
		}
		if in.t.Failed() {
			in.t.Logf("log of %s:\n%s", filepath.Base(p.path), text)
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
		"-tenant", tenant, "-role", role, "-audience", in.url.origin))
}

// freePorts finds addresses on which nobody listens.
func freePorts(t *testing.T, n int) []string {
	t.Helper()
	var addresses []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatalf("find a free port: %v", err)
		}
		defer l.Close()
		addresses = append(addresses, l.Addr().String())
	}
	return addresses
}

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
	response, err := http.DefaultClient.Do(r)
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
	got := in.request("POST", in.url.origin+"/queues", `{"slug":"`+slug+`",`+settings+`}`, bearer(in.operatorToken))
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

// enter claims and returns the session token.
func (f *fan) enter(edge int) string {
	f.in.t.Helper()
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
