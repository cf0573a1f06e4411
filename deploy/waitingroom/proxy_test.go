package main

import (
	"bufio"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// proxy stands between fans and edges, as those of companies, hotels and phone networks do, and can
// be told to treat live connections as badly as they do. It notes what it was asked for.
type proxy struct {
	URL string

	mu      sync.Mutex
	edge    string           // scheme://host:port, for what comes next
	refuse  map[string]bool  // kinds of live connection that are refused
	holding bool             // what edges say on live connections is held back
	freed   chan struct{}    // closed when it is not any more
	held    chan struct{}    // closed when the answer to a poll that is held back may go
	seen    map[string]int   // requests by kind: join, poll, ws, events, other
	streams map[*stream]bool // the open live connections
	told    chan struct{}    // closed at the next request
	plain   *httputil.ReverseProxy
}

// stream is a live connection through the proxy.
type stream struct {
	gone  chan struct{}
	close func() // both ends
}

func startProxy(t *testing.T) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{
		URL: "http://" + listener.Addr().String(), refuse: make(map[string]bool), seen: make(map[string]int),
		streams: make(map[*stream]bool), told: make(chan struct{}),
	}
	transport := &http.Transport{}
	p.plain = &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			to, _ := url.Parse(p.target())
			r.SetURL(to)
			r.Out.Host = r.In.Host
		},
	}
	server := &http.Server{Handler: p, ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(listener) }()
	t.Cleanup(func() {
		p.pass()
		p.cut()
		_ = server.Close()
		transport.CloseIdleConnections()
		<-done
	})
	return p
}

// kindOf tells what a page asks an edge for.
func kindOf(r *http.Request) string {
	ticket := strings.HasPrefix(r.URL.Path, "/tickets/")
	switch {
	case r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/tickets"):
		return "join"
	case ticket && strings.HasSuffix(r.URL.Path, "/ws"):
		return "ws"
	case ticket && strings.HasSuffix(r.URL.Path, "/events"):
		return "events"
	case ticket && r.Method == http.MethodGet:
		return "poll"
	}
	return "other"
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	kind := kindOf(r)
	p.mu.Lock()
	p.seen[kind]++
	close(p.told)
	p.told = make(chan struct{})
	refused, held := p.refuse[kind], p.held
	p.mu.Unlock()
	switch {
	case refused:
		http.Error(w, "no such thing here", http.StatusBadGateway)
	case kind == "ws" || kind == "events":
		p.carry(w, r)
	case kind == "poll" && held != nil:
		answer := httptest.NewRecorder()
		p.plain.ServeHTTP(answer, r)
		select {
		case <-held:
		case <-r.Context().Done():
		}
		maps.Copy(w.Header(), answer.Header())
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes())
	default:
		p.plain.ServeHTTP(w, r)
	}
}

// carry connects a client with an edge until either ends. The head of the answer is passed on at
// once, as proxies that hold back a body do.
func (p *proxy) carry(w http.ResponseWriter, r *http.Request) {
	edge, err := net.Dial("tcp", strings.TrimPrefix(p.target(), "http://"))
	if err != nil {
		http.Error(w, "the edge is gone", http.StatusBadGateway)
		return
	}
	defer edge.Close()
	if err := r.Write(edge); err != nil {
		return
	}
	client, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	s := &stream{gone: make(chan struct{})}
	s.close = sync.OnceFunc(func() {
		close(s.gone)
		_ = client.Close()
		_ = edge.Close()
	})
	p.mu.Lock()
	p.streams[s] = true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.streams, s)
		p.mu.Unlock()
		s.close()
	}()
	var up sync.WaitGroup
	up.Go(func() {
		_, _ = io.Copy(edge, buffered)
		s.close()
	})
	defer up.Wait()
	defer s.close()
	from := bufio.NewReader(edge)
	for {
		line, err := from.ReadString('\n')
		if _, written := io.WriteString(client, line); err != nil || written != nil {
			return
		}
		if line == "\r\n" {
			break
		}
	}
	b := make([]byte, 4096)
	for {
		n, err := from.Read(b)
		if freed := p.gate(); freed != nil {
			select {
			case <-freed:
			case <-s.gone:
			}
		}
		if _, written := client.Write(b[:n]); err != nil || written != nil {
			return
		}
	}
}

// gate is nil while what edges say passes.
func (p *proxy) gate() chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.holding {
		return p.freed
	}
	return nil
}

func (p *proxy) target() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.edge
}

// route sends what comes from now on to another edge; what is open stays where it is.
func (p *proxy) route(edge string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.edge = edge
}

// pass ends all that is bad.
func (p *proxy) pass() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.refuse)
	if p.holding {
		close(p.freed)
	}
	p.holding = false
}

// block refuses kinds of live connections from now on.
func (p *proxy) block(kinds ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, kind := range kinds {
		p.refuse[kind] = true
	}
}

// hold keeps back all that edges say on live connections, until pass.
func (p *proxy) hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.holding {
		p.holding, p.freed = true, make(chan struct{})
	}
}

// cut ends all live connections without a word.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for s := range p.streams {
		s.close()
	}
}

// holdPolls keeps back the answers to polls, which the edge has given, until the function that it
// returns is called.
func (p *proxy) holdPolls() (letGo func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = make(chan struct{})
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		close(p.held)
		p.held = nil
	}
}

// asked is how often something was asked for.
func (p *proxy) asked(kind string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen[kind]
}

// waitAsked waits until something was asked for more often than before.
func (p *proxy) waitAsked(t *testing.T, kind string, before int) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		p.mu.Lock()
		seen, told := p.seen[kind], p.told
		p.mu.Unlock()
		if seen > before {
			return
		}
		select {
		case <-told:
		case <-deadline:
			t.Fatalf("wait for %s after %d: got none", kind, before)
		}
	}
}
