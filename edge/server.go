package edge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
	"golang.org/x/sync/errgroup"

	"waitingroom/edge/hub"
	"waitingroom/origin/queue"
	"waitingroom/origin/wire"
	"waitingroom/web"
)

// Origin is what an edge needs of the origins; *wire.Client is one. All methods may be called
// concurrently, and again with the same request: a repetition changes nothing. An error that is a
// *wire.Error is a refusal; after any other the outcome is unknown.
type Origin interface {
	// Join asks for positions; a repetition under the same number gets the same answer.
	Join(ctx context.Context, r wire.JoinRequest) (wire.JoinResponse, error)
	// See hands in sightings.
	See(ctx context.Context, r wire.SightingsRequest) (wire.SightingsResponse, error)
	// Claim asks for the session of a ticket.
	Claim(ctx context.Context, r wire.ClaimRequest) (wire.ClaimResponse, error)
	// Leave takes a ticket out of the line.
	Leave(ctx context.Context, r wire.LeaveRequest) error
	// UserKey asks for a key of a tenant's identity provider.
	UserKey(ctx context.Context, r wire.UserKeyRequest) (wire.UserKeyResponse, error)
	// Feed calls handle for each frame, from one goroutine, until ctx ends, handle returns an
	// error or the connection breaks; it always returns an error.
	Feed(ctx context.Context, edge string, handle func(wire.Frame) error) error
}

const (
	adminReadTimeout = 10 * time.Second
	shutdownTimeout  = 15 * time.Second
	// Between connections to the feed.
	leastReconnect, mostReconnect = 100 * time.Millisecond, 3 * time.Second
)

var zeroTime time.Time

// Server is an edge.
type Server struct {
	Config Config
	Origin Origin
	Logger *slog.Logger // nil is slog's default

	// Set by Listen, and not changed afterwards.
	listener, adminListener net.Listener
	publicURL               string // scheme://host[:port], as in an Origin header
	secure                  bool   // publicURL is https
	edgeID                  string
	page                    *document
	assets                  map[string]*document
	http                    *fasthttp.Server
	metrics                 *metrics
	known                   *knowledge
	limits                  *joinLimits
	hub                     *hub.Hub
	upgradeRate             cells // of live connections
	upgrades                bucket
	// work is the context of what outlives a request: batches and calls to the origin. It ends
	// when the last connection is closed.
	work     context.Context
	stopWork context.CancelFunc
	calls    chan struct{} // holds one element for each call that waits for the origin

	running  sync.WaitGroup // senders of batches
	stopping atomic.Bool

	mu        sync.Mutex
	gatherers map[queue.ID]*gatherer

	unknownKeys unknownKeys
}

// Listen checks the configuration and opens the listeners, after which Addr, AdminAddr and
// PublicURL are known. Run does it where it was not done before.
func (s *Server) Listen() error {
	if s.listener != nil {
		return nil
	}
	if s.Logger == nil {
		s.Logger = slog.Default()
	}
	if problems := s.Config.check(); len(problems) > 0 {
		return fmt.Errorf("check config: %w", errors.Join(problems...))
	}
	var certificate *tls.Config
	if files := s.Config.TLS; files != nil {
		pair, err := tls.LoadX509KeyPair(files.CertFile, files.KeyFile)
		if err != nil {
			return fmt.Errorf("load certificate: %w", err)
		}
		certificate = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	}
	listener, err := net.Listen("tcp", s.Config.Listen)
	if err != nil {
		return fmt.Errorf("open listener: %w", err)
	}
	if s.Config.AdminListen != "" {
		if s.adminListener, err = net.Listen("tcp", s.Config.AdminListen); err != nil {
			_ = listener.Close()
			return fmt.Errorf("open admin listener: %w", err)
		}
	}
	s.publicURL = s.Config.PublicURL
	if s.publicURL == "" {
		s.publicURL = "http://" + listener.Addr().String()
	}
	s.secure = strings.HasPrefix(s.publicURL, "https:")
	if s.listener = listener; certificate != nil {
		s.listener = tls.NewListener(listener, certificate)
	}
	if err := s.prepare(); err != nil {
		_ = listener.Close()
		if s.adminListener != nil {
			_ = s.adminListener.Close()
		}
		return err
	}
	return nil
}

// mostLive is how many live connections leave some of the open files to everything else: where there
// are none left, nobody can connect, not even to poll.
func mostLive(files int) int { return max(files-files/8, 1) }

// prepare makes everything that handlers use.
func (s *Server) prepare() error {
	s.edgeID = randomName()
	s.page = newDocument("text/html; charset=utf-8", web.Page())
	s.assets = make(map[string]*document)
	for _, name := range web.Assets() {
		if content, contentType, ok := web.Asset(name); ok {
			s.assets[name] = newDocument(contentType, content)
		}
	}
	if n, ok := openFiles(); ok {
		if most := mostLive(n); most < s.Config.Limits.LiveConnections {
			s.Logger.Info("fewer live connections than limits.liveConnections, for the process may open only so many files",
				"connections", most, "files", n)
			s.Config.Limits.LiveConnections = most
		}
	}
	s.hub = hub.New(s.Config.Limits.LiveConnections, time.Duration(s.Config.Limits.WriteSeconds)*time.Second, s.Logger)
	s.known = newKnowledge(s.Config.Limits.RememberedTokens, s.hub)
	s.upgradeRate = newCells(JoinRate{PerSecond: s.Config.Limits.LiveUpgradesPerSecond, Burst: max(1, s.Config.Limits.LiveUpgradesPerSecond/4)})
	s.work, s.stopWork = context.WithCancel(context.Background())
	s.calls = make(chan struct{}, s.Config.Limits.OriginCalls)
	s.gatherers = make(map[queue.ID]*gatherer)
	limits := &s.Config.Limits
	var err error
	if s.limits, err = newJoinLimits(&s.Config); err != nil {
		return err
	}
	if !limits.JoinsPerAddress.Off && !s.Config.knowsClients() && s.secure {
		s.Logger.Warn("joins are not limited by address: trustedProxies does not name the proxy that serves publicURL")
	}
	s.http = &fasthttp.Server{
		// Each is a deadline for the whole, so that a client that sends or reads byte by byte
		// holds its connection no longer than one that does nothing.
		ReadTimeout:        time.Duration(limits.ReadSeconds) * time.Second,
		WriteTimeout:       time.Duration(limits.WriteSeconds) * time.Second,
		IdleTimeout:        time.Duration(limits.IdleSeconds) * time.Second,
		MaxRequestBodySize: limits.BodyBytes,
		ReadBufferSize:     limits.HeaderBytes,
		Concurrency:        limits.Connections,
		ErrorHandler:       s.malformed,
		// Raw headers hold tokens; connectionLog holds back what this leaves.
		SecureErrorLogMessage:        true,
		Logger:                       connectionLog{s.Logger},
		NoDefaultServerHeader:        true,
		DisablePreParseMultipartForm: true,
		CloseOnShutdown:              true,
		KeepHijackedConns:            true, // the hub closes them
	}
	s.metrics = newMetrics(s)
	s.hub.Metrics.Register(s.metrics.registry)
	s.http.Handler = s.routes()
	return nil
}

// connectionLog takes what fasthttp says of broken connections, which is nobody's business
// unless somebody looks for it. The text of a parser's error quotes the request, tokens and all,
// so only the network's own errors are told.
type connectionLog struct{ logger *slog.Logger }

func (l connectionLog) Printf(_ string, args ...any) {
	reason := "malformed request"
	for _, arg := range args {
		var network net.Error
		if err, ok := arg.(error); ok && errors.As(err, &network) {
			reason = network.Error()
		}
	}
	l.logger.Debug("connection failed", "reason", reason)
}

// Addr is the listener's address, nil before Listen.
func (s *Server) Addr() net.Addr { return addr(s.listener) }

// AdminAddr is the address of metrics and pprof, nil where there is none.
func (s *Server) AdminAddr() net.Addr { return addr(s.adminListener) }

// PublicURL is the address that fans see, without a slash at the end; empty before Listen.
func (s *Server) PublicURL() string { return s.publicURL }

func addr(l net.Listener) net.Addr {
	if l == nil {
		return nil
	}
	return l.Addr()
}

// Run serves until ctx ends and then stops in order: not ready any more, and no new live
// connections; then those that there are go elsewhere; then no new connections at all, then the
// running requests are answered, with the batches of joins that they wait for, and
// last the sightings are handed in.
func (s *Server) Run(ctx context.Context) error {
	if err := s.Listen(); err != nil {
		return err
	}
	defer s.stopWork()
	feeding, stopFeed := context.WithCancel(context.WithoutCancel(ctx))
	defer stopFeed()
	group, failing := errgroup.WithContext(ctx)
	admin := &http.Server{Handler: s.metrics.adminHandler(), ReadHeaderTimeout: adminReadTimeout}
	if s.adminListener != nil {
		group.Go(func() error {
			if err := admin.Serve(s.adminListener); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve admin: %w", err)
			}
			return nil
		})
	}
	group.Go(func() error {
		if err := s.http.Serve(s.listener); err != nil {
			return fmt.Errorf("serve: %w", err)
		}
		return nil
	})
	group.Go(func() error { s.follow(feeding); return nil })
	group.Go(func() error { s.handInSightings(feeding); return nil })
	group.Go(func() error { s.watchLive(feeding); return nil })
	living, stopHub := context.WithCancel(context.WithoutCancel(ctx))
	defer stopHub()
	group.Go(func() error { return s.hub.Run(living) })
	group.Go(func() error {
		<-failing.Done()
		err := s.stop(ctx)
		stopHub()
		stopFeed()
		return errors.Join(err, admin.Close())
	})
	err := group.Wait()
	s.running.Wait()
	return err
}

// stop ends the serving of requests.
func (s *Server) stop(ctx context.Context) error {
	s.stopping.Store(true)
	s.Logger.Info("edge stops")
	base := context.WithoutCancel(ctx)
	pause(base, time.Duration(s.Config.DrainSeconds)*time.Second)
	s.hub.Drain(base, time.Duration(s.Config.MoveSeconds)*time.Second)
	limit, cancel := context.WithTimeout(base, shutdownTimeout)
	defer cancel()
	err := s.http.ShutdownWithContext(limit)
	// Where the stop came before Serve had taken the listener, the shutdown knew nothing of it.
	_ = s.listener.Close()
	s.stopWork()
	if err != nil {
		return fmt.Errorf("stop serving: %w", err)
	}
	return nil
}

// follow keeps a connection to the feed until ctx ends.
func (s *Server) follow(ctx context.Context) {
	wait := leastReconnect
	for ctx.Err() == nil {
		s.known.connected()
		err := s.Origin.Feed(ctx, s.edgeID, func(f wire.Frame) error {
			if f.Heartbeat != nil && f.Heartbeat.Ready {
				wait = leastReconnect
			}
			return s.known.apply(f)
		})
		if ctx.Err() != nil {
			return
		}
		reason := "lost"
		if errors.Is(err, errGap) {
			reason = "gap"
		}
		s.metrics.feedEnds.WithLabelValues(reason).Inc()
		s.Logger.Warn("feed ended; connecting again", "reason", reason, "error", err)
		pause(ctx, wait/2+rand.N(wait/2))
		wait = min(2*wait, mostReconnect)
	}
}

// ready returns the snapshot once an origin has told everything: never a guess before.
func (s *Server) ready() (*snapshot, error) {
	snap := s.known.current.Load()
	if !snap.synced || snap.keys == nil {
		return nil, errNotReady
	}
	return snap, nil
}

// gatherer finds the queue's gatherer.
func (s *Server) gatherer(id queue.ID) *gatherer {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.gatherers[id]
	if g == nil {
		g = &gatherer{
			id: id, edge: s.edgeID, limit: s.Config.Limits.GatheredJoins,
			slow:   time.Duration(s.Config.Limits.JoinWaitMillis) * time.Millisecond,
			origin: s.Origin, metrics: s.metrics,
			floor: func() (uint64, string) {
				if l := s.known.current.Load().lines[id]; l != nil {
					return l.high.Load(), l.incarnation
				}
				return 0, ""
			},
		}
		s.gatherers[id] = g
	}
	return g
}
