package origin

import (
	"context"
	"errors"
	"net"
	"net/http"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"waitingroom/origin/wire"
	"waitingroom/tokens"
)

const (
	maxHeader      = 16 << 10
	requestTimeout = 5 * time.Second
	// batchTimeout ends before the edge's own patience does, so that it hears why.
	batchTimeout = 2500 * time.Millisecond
)

// handler builds the API.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST /queues", s.operated(s.createQueue))
	mux.Handle("GET /queues", s.operated(s.listQueues))
	mux.Handle("GET /queues/{queue}", s.operated(s.getQueue))
	mux.Handle("PATCH /queues/{queue}", s.operated(s.patchQueue))
	mux.Handle("DELETE /queues/{queue}", s.operated(s.deleteQueue))
	mux.Handle("GET /queues/{queue}/stats", s.operated(s.queueStats))
	mux.Handle("DELETE /sessions/{id}", s.public(s.endSession))
	mux.Handle("GET /.well-known/jwks.json", s.public(s.publishKeys))
	mux.Handle("GET /healthz", s.public(s.health))
	mux.Handle("GET /readyz", s.public(s.readiness))

	mux.Handle("POST "+wire.PathJoin, s.edge("join", s.join))
	mux.Handle("POST "+wire.PathSightings, s.edge("sightings", s.see))
	mux.Handle("POST "+wire.PathClaim, s.edge("claim", s.claim))
	mux.Handle("POST "+wire.PathLeave, s.edge("leave", s.leave))
	mux.Handle("POST "+wire.PathUserKey, s.edge("user-key", s.userKey))
	mux.Handle("GET "+wire.PathFeed, s.edge("feed", s.serveFeed))

	return s.recovered(s.routed(mux))
}

// routed answers what the mux has no route for in the form of all other errors; the mux itself
// would redirect unclean paths and answer in plain text.
func (s *Server) routed(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// net/http goes by the chunks where a request has a Content-Length too, and hides that; a
		// proxy in front may go by the length (RFC 9112, section 11.2). Nobody needs chunks here.
		if len(r.TransferEncoding) > 0 {
			w.Header().Set("Connection", "close")
			s.fail(w, r, errNoLength)
			return
		}
		clean := path.Clean("/" + r.URL.Path)
		if r.URL.Path != clean {
			s.fail(w, r, errNoPath)
			return
		}
		if _, pattern := mux.Handler(r); pattern != "" {
			mux.ServeHTTP(w, r)
			return
		}
		probe := &headerProbe{header: make(http.Header)}
		mux.ServeHTTP(probe, r)
		if probe.status == http.StatusMethodNotAllowed {
			w.Header().Set("Allow", probe.header.Get("Allow"))
			s.fail(w, r, errNoMethod)
			return
		}
		s.fail(w, r, errNoPath)
	})
}

// headerProbe takes what the mux would answer.
type headerProbe struct {
	header http.Header
	status int
}

func (p *headerProbe) Header() http.Header         { return p.header }
func (p *headerProbe) WriteHeader(status int)      { p.status = status }
func (p *headerProbe) Write(b []byte) (int, error) { return len(b), nil }

// recovered keeps a bug that one request brings to light from ending the others.
func (s *Server) recovered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if err, isError := p.(error); isError && errors.Is(err, http.ErrAbortHandler) {
				panic(p)
			}
			s.metrics.panics.Inc()
			s.log.Error("request panicked", "route", r.Pattern, "panic", p, "stack", string(debug.Stack()))
			s.fail(w, r, errInternal) // in vain where the answer had begun
		}()
		next.ServeHTTP(w, r)
	})
}

// handle is an endpoint: what it returns is answered, unless it has answered itself.
type handle func(w http.ResponseWriter, r *http.Request) error

// public runs an endpoint that sees to its credentials itself.
func (s *Server) public(h handle) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
		defer cancel()
		answer := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		if err := h(answer, r.WithContext(ctx)); err != nil {
			s.fail(answer, r, err)
		}
		s.metrics.requests.WithLabelValues(r.Pattern, strconv.Itoa(answer.status)).Inc()
	})
}

// operated runs an endpoint for the operators of a tenant.
func (s *Server) operated(h func(http.ResponseWriter, *http.Request, tokens.Operator) error) http.Handler {
	return s.public(func(w http.ResponseWriter, r *http.Request) error {
		operator, err := s.authOperator(r)
		if err != nil {
			return err
		}
		if operator.Role != tokens.RoleOperator && r.Method != http.MethodGet && r.Method != http.MethodHead {
			return errForbidden
		}
		return h(w, r, operator)
	})
}

// edge runs an endpoint for edges: behind the cluster secret, which never travels in the open.
func (s *Server) edge(name string, h handle) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		started := time.Now()
		ctx := r.Context()
		if name != "feed" {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, batchTimeout)
			defer cancel()
		}
		err := s.authEdge(r)
		if err == nil {
			err = h(w, r.WithContext(ctx))
		}
		result := "ok"
		if err != nil {
			_, result, _ = asProblem(err)
			s.failEdge(w, r, err)
		}
		s.metrics.batches.WithLabelValues(name, result).Inc()
		if name != "feed" {
			s.metrics.batchSeconds.WithLabelValues(name).Observe(time.Since(started).Seconds())
		}
	})
}

// statusWriter remembers the status for the metrics.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (s *Server) health(w http.ResponseWriter, _ *http.Request) error {
	writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
	return nil
}

// readiness tells a load balancer whether this origin can decide anything.
func (s *Server) readiness(w http.ResponseWriter, _ *http.Request) error {
	if !s.feed.Ready() {
		return errUnavailable
	}
	writeJSON(w, http.StatusOK, map[string]string{"status": "ready"})
	return nil
}

func (s *Server) publishKeys(w http.ResponseWriter, _ *http.Request) error {
	if !s.clock.Measured() {
		return errUnavailable
	}
	jwks, err := s.keys.Load().sessions.Public(s.clock.Now())
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/jwk-set+json")
	w.Header().Set("Content-Length", strconv.Itoa(len(jwks)))
	w.Header().Set("Cache-Control", "public, max-age=300")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(jwks)
	return nil
}

// isPrivate reports whether nobody off this host can have read the request.
func isPrivate(r *http.Request) bool {
	if r.TLS != nil {
		return true
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	return err == nil && isLoopback(strings.ToLower(host))
}
