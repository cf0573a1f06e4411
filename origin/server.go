// Package origin is the part of the waiting room that decides: it keeps the queues in a store,
// runs their coordinators, signs sessions, answers operators and backends, and tells edges what
// happens. Origins are many and equal; what they share is in the store.
package origin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

const (
	// rescueEvery is how often every queue in which something happens is looked at, whatever
	// the schedule says: what no crash between two writes can keep from being noticed.
	rescueEvery = time.Minute
	// stopWithin bounds how long requests may go on once the origin was told to stop.
	stopWithin = 5 * time.Second
)

// Server is one origin. Set the fields, then call Run; Listen before it tells the addresses early.
// Everything below the exported fields is set by Listen or Run and not changed after, but for the
// atomics.
type Server struct {
	Config Config
	Store  store.Store
	// Logger is told what an operator should know; nil discards it.
	Logger *slog.Logger
	// Secrets, where it is set, is asked instead of the sources that Config names.
	Secrets func() (Secrets, error)
	// Listener, where it is set, is served instead of one on Config.Listen: for whoever has to know
	// the port before PublicURL can be said. The Server closes it.
	Listener net.Listener

	listening    sync.Once
	listenErr    error
	listener     net.Listener
	admin        net.Listener // nil when it is off
	log          *slog.Logger
	metrics      *metrics
	clock        *storeClock
	coordinators *coordinators
	journalist   *journalist
	feed         *feed
	providers    map[string]*provider // by tenant
	stopping     <-chan struct{}

	reloading   sync.Mutex // held by Reload
	publishing  sync.Mutex // held by publishToEdges, so that no older keys follow newer ones
	keys        atomic.Pointer[keys]
	certificate atomic.Pointer[tls.Certificate] // nil with plain HTTP
}

// Listen checks the config, reads the secrets and opens the listeners. Run does it otherwise.
func (s *Server) Listen() error {
	s.listening.Do(func() { s.listenErr = s.listen() })
	return s.listenErr
}

func (s *Server) listen() error {
	if err := s.prepare(); err != nil {
		return err
	}
	var err error
	if s.listener = s.Listener; s.listener == nil {
		if s.listener, err = net.Listen("tcp", s.Config.Listen); err != nil {
			return fmt.Errorf("listen: %w", err)
		}
	}
	if s.Config.AdminListen != adminOff {
		if s.admin, err = net.Listen("tcp", s.Config.AdminListen); err != nil {
			_ = s.listener.Close()
			return fmt.Errorf("listen for admin: %w", err)
		}
	}
	return nil
}

// prepare checks the config, reads the secrets and puts the parts together.
func (s *Server) prepare() error {
	if problems := s.Config.problems(); problems != nil {
		return &ConfigError{problems}
	}
	if s.log = s.Logger; s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.metrics = newMetrics()
	s.clock = &storeClock{}
	s.feed = &feed{
		store: s.Store, clock: s.clock, metrics: s.metrics, logger: s.log,
		reading:  make(chan struct{}, readAtOnce),
		sweep:    make(chan struct{}, 1),
		mirrors:  make(map[queue.ID]*mirror),
		revoked:  make(map[string]*revoked),
		outboxes: make(map[*outbox]struct{}), interrupted: make(chan struct{}, 1),
	}
	for _, t := range s.Config.Tenants {
		s.feed.tenants = append(s.feed.tenants, t.ID)
		s.feed.revoked[t.ID] = &revoked{kick: make(chan struct{}, 1), known: make(map[string]struct{})}
	}
	s.journalist = &journalist{store: s.Store, feed: s.feed, clock: s.clock, metrics: s.metrics, logger: s.log}
	s.coordinators = &coordinators{
		store: s.Store, clock: s.clock, owner: randomName(),
		tickEvery: s.Config.TickEvery, leaseTTL: s.Config.LeaseTTL,
		changed: s.feed.Hint, view: s.feed.View, journal: s.journalist.Follow, metrics: s.metrics, logger: s.log,
	}
	s.feed.gone = s.coordinators.Forget
	s.feed.wake = s.coordinators.Wake
	s.providers = make(map[string]*provider)
	for _, t := range s.Config.Tenants {
		s.providers[t.ID] = newProvider(t.ID, s.providerChanged, s.metrics, s.log)
		s.providers[t.ID].configure(t.UserTokens.KeysURL)
	}
	k, certificate, err := s.readKeys(s.Config)
	if err != nil {
		return err
	}
	s.keys.Store(k)
	s.certificate.Store(certificate)
	return nil
}

// Addr is where the API listens, once Listen has succeeded.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// AdminAddr is where the metrics listen, nil when they do not.
func (s *Server) AdminAddr() net.Addr {
	if s.admin == nil {
		return nil
	}
	return s.admin.Addr()
}

func (s *Server) readKeys(c Config) (*keys, *tls.Certificate, error) {
	if s.Secrets != nil {
		return c.readKeys(s.Secrets)
	}
	return c.readKeys(c.ReadSecrets)
}

// Reload reads all key files and the certificate again, and takes the tenants' sources, API keys and
// identity providers from a config that was read again. Everything else of it needs a restart. When anything is
// wrong, all stays as it was, and the error says what.
func (s *Server) Reload(c Config) error {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	if problems := c.problems(); problems != nil {
		return fmt.Errorf("reload: %w", &ConfigError{problems})
	}
	if len(c.Tenants) != len(s.feed.tenants) {
		return errors.New("reload: tenants come and go with a restart only")
	}
	for _, t := range c.Tenants {
		if s.feed.revoked[t.ID] == nil {
			return errors.New("reload: tenants come and go with a restart only")
		}
	}
	if c.Issuer != s.Config.Issuer || (c.TLS.CertFile == "") != (s.Config.TLS.CertFile == "") {
		return errors.New("reload: issuer and tls change with a restart only")
	}
	k, certificate, err := s.readKeys(c)
	if err != nil {
		return fmt.Errorf("reload: %w", err)
	}
	s.keys.Store(k)
	s.certificate.Store(certificate)
	for _, t := range c.Tenants {
		s.providers[t.ID].configure(t.UserTokens.KeysURL)
	}
	if !s.clock.Measured() {
		return nil // Run publishes them
	}
	if err := s.publishToEdges(); err != nil {
		return fmt.Errorf("reload: %w", err)
	}
	return nil
}

func (s *Server) publishToEdges() error {
	s.publishing.Lock()
	defer s.publishing.Unlock()
	fetched := func(tenant string) []byte { return s.providers[tenant].published() }
	frame, err := s.keys.Load().tenantsFrame(s.Config.Issuer, fetched, s.clock.Now())
	if err != nil {
		return err
	}
	return s.feed.SetKeys(frame)
}

// Run serves until ctx ends; then it lets requests finish, gives up its leases and returns nil.
// While the store cannot be reached it goes on trying and answers 503.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.stopping = ctx.Done()
	if err := s.Listen(); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.serve(ctx, s.apiServer(), s.listener) })
	if s.admin != nil {
		group.Go(func() error { return s.serve(ctx, s.adminServer(), s.admin) })
	}
	group.Go(func() error { return s.work(ctx) })
	s.log.Info("origin listens", "address", s.listener.Addr().String(), "publicURL", s.Config.PublicURL)
	if err := group.Wait(); err != nil {
		return fmt.Errorf("run origin: %w", err)
	}
	return nil
}

// work follows the store and coordinates, once the store's time is known.
func (s *Server) work(ctx context.Context) error {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		err := s.measure(ctx)
		if err == nil {
			break
		}
		if ctx.Err() == nil {
			s.log.Warn("cannot reach the store", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
	if err := s.publishToEdges(); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	s.coordinators.begin(ctx)
	group.Go(func() error { return s.feed.Run(ctx) })
	group.Go(func() error { return s.coordinators.Run(ctx) })
	group.Go(func() error { return s.rescue(ctx) })
	for _, p := range s.providers {
		group.Go(func() error { return p.Run(ctx) })
	}
	return group.Wait()
}

// providerChanged tells edges of the keys that an identity provider has begun to publish.
func (s *Server) providerChanged() {
	if err := s.publishToEdges(); err != nil {
		s.log.Error("cannot publish keys", "error", err)
	}
}

func (s *Server) measure(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return s.clock.Measure(ctx, s.Store)
}

// rescue wakes, once all queues have been read and then now and then, those in which something
// happens or is due. Whoever does not hold the lease finds out with one question.
func (s *Server) rescue(ctx context.Context) error {
	first := time.NewTicker(50 * time.Millisecond)
	defer first.Stop()
	for !s.feed.Ready() {
		select {
		case <-ctx.Done():
			return nil
		case <-first.C:
		}
	}
	every := time.NewTicker(rescueEvery)
	defer every.Stop()
	for {
		now := s.clock.Now()
		for _, id := range s.feed.Queues() {
			if v := s.feed.View(id); v != nil && (isLive(v, now) || isDue(v, now)) {
				s.coordinators.Wake(id)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
		}
		// Keys enter and leave the published set with time.
		if err := s.publishToEdges(); err != nil {
			s.log.Error("cannot publish keys", "error", err)
		}
	}
}

func (s *Server) apiServer() *http.Server {
	server := s.httpServer(s.handler())
	if s.certificate.Load() != nil {
		server.TLSConfig = &tls.Config{
			MinVersion: tls.VersionTLS12,
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				return s.certificate.Load(), nil
			},
		}
	}
	return server
}

func (s *Server) adminServer() *http.Server {
	server := s.httpServer(s.metrics.adminHandler())
	server.WriteTimeout = 2 * time.Minute // a profile takes its time
	return server
}

func (s *Server) httpServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      30 * time.Second, // the feed sets its own
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeader,
		// OPTIONS * is answered like every other path that does not exist.
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

// serve answers until ctx ends and then lets running requests finish.
func (s *Server) serve(ctx context.Context, server *http.Server, listener net.Listener) error {
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
		defer cancel()
		if err := server.Shutdown(patience); err != nil {
			_ = server.Close()
		}
	}()
	var err error
	if server.TLSConfig != nil {
		err = server.ServeTLS(listener, "", "")
	} else {
		err = server.Serve(listener)
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return err // ctx is ended by it, which ends the goroutine above
	}
	<-stopped
	return nil
}
