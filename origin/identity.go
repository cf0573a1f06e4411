package origin

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"waitingroom/origin/wire"
	"waitingroom/tokens"
)

const (
	// providerEvery is how often the published keys are fetched at the most usual.
	providerEvery = 5 * time.Minute
	// unknownKeyEvery is the least time between two fetches because of unknown keys.
	unknownKeyEvery = time.Minute
	// After a failure the next fetch follows soon, and then ever later.
	leastProviderPause, mostProviderPause = time.Second, time.Minute
	providerTimeout                       = 5 * time.Second
	maxProviderAnswer                     = 256 << 10 // bytes
	// maxKeysAsked bounds how many key ids are remembered that somebody has asked for.
	maxKeysAsked = 1024
	// answerKeyWithin ends before the time for the edge's request does.
	answerKeyWithin = 2 * time.Second
)

// provider keeps the public keys that one tenant's identity provider publishes: the last good set,
// whatever becomes of the provider. Nobody else ever speaks to it.
type provider struct {
	tenant  string
	changed func() // called when the keys are others than before
	client  *http.Client
	metrics *metrics
	logger  *slog.Logger
	wake    chan struct{} // holds one: a fetch is wanted now

	mu     sync.Mutex
	url    string // "": there is none, and nothing is fetched
	keys   *tokens.UserKeys
	public []byte // the keys as edges are told of them; nil before the first
	// asked are the key ids that edges met and that no fetch since has settled; absent those that a
	// fetch did not find.
	asked, absent   map[string]struct{}
	wished          time.Time // when an unknown key last caused a fetch
	wanted, running bool      // a fetch because of it is to come; one is under way
	fetched         chan struct{}
}

func newProvider(tenant string, changed func(), m *metrics, logger *slog.Logger) *provider {
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, TLSHandshakeTimeout: providerTimeout,
		IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 64 << 10,
	}
	return &provider{
		tenant: tenant, changed: changed, metrics: m, logger: logger,
		client: &http.Client{
			Transport: transport,
			// The keys are those of the URL that was configured and of no other.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Timeout:       providerTimeout,
		},
		wake: make(chan struct{}, 1), fetched: make(chan struct{}),
		asked: make(map[string]struct{}), absent: make(map[string]struct{}),
	}
}

// configure says where the keys are, "" for nowhere, and has them fetched anew. Keys from another
// address are forgotten.
func (p *provider) configure(url string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if url != p.url {
		p.url, p.keys, p.public = url, nil, nil
		clear(p.asked)
		clear(p.absent)
	}
	kick(p.wake)
}

// published is the key set for edges, nil while there is none.
func (p *provider) published() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.public
}

// Run fetches the keys until ctx ends.
func (p *provider) Run(ctx context.Context) error {
	pause := leastProviderPause
	timer := time.NewTimer(providerEvery)
	defer timer.Stop()
	defer p.client.CloseIdleConnections()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
		case <-timer.C:
		}
		err := p.fetch(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			pause = leastProviderPause
			timer.Reset(providerEvery - rand.N(providerEvery/10))
		default:
			p.metrics.providerFetches.WithLabelValues("failed").Inc()
			p.logger.Warn("cannot fetch the keys of an identity provider; the last ones stay", "tenant", p.tenant, "error", err)
			timer.Reset(pause - rand.N(pause/10))
			pause = min(2*pause, mostProviderPause)
		}
	}
}

// fetch replaces the keys by those that are published now, and settles which of the keys that were
// asked for before exist.
func (p *provider) fetch(ctx context.Context) error {
	p.mu.Lock()
	url, settling := p.url, p.asked
	p.wanted = false
	if url == "" {
		p.mu.Unlock()
		return nil
	}
	p.asked, p.running = make(map[string]struct{}), true
	p.mu.Unlock()

	keys, public, err := p.download(ctx, url)

	p.mu.Lock()
	p.running = false
	close(p.fetched)
	p.fetched = make(chan struct{})
	if p.url != url {
		p.mu.Unlock()
		return nil // configured anew meanwhile, and fetched from there next
	}
	if err != nil {
		for id := range settling {
			remember(p.asked, id)
		}
		p.mu.Unlock()
		return err
	}
	other := !bytes.Equal(public, p.public)
	p.keys, p.public = keys, public
	for id := range settling {
		remember(p.absent, id) // whoever asks looks among the keys first
	}
	p.mu.Unlock()
	p.metrics.providerFetches.WithLabelValues("ok").Inc()
	if other {
		p.changed()
	}
	return nil
}

// remember adds to a set of bounded size; a full one begins anew, which only makes somebody wait for
// the next fetch.
func remember(set map[string]struct{}, id string) {
	if len(set) >= maxKeysAsked {
		clear(set)
	}
	set[id] = struct{}{}
}

func (p *provider) download(ctx context.Context, url string) (*tokens.UserKeys, []byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("make request: %w", err)
	}
	request.Header.Set("Accept", "application/jwk-set+json, application/json")
	answer, err := p.client.Do(request)
	if err != nil {
		return nil, nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("it answers %d", answer.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxProviderAnswer+1))
	if err != nil {
		return nil, nil, fmt.Errorf("read keys: %w", err)
	}
	if len(body) > maxProviderAnswer {
		return nil, nil, fmt.Errorf("its answer is longer than %d bytes", maxProviderAnswer)
	}
	keys, err := tokens.ParseUserKeys(body)
	if err != nil {
		return nil, nil, err
	}
	public, err := keys.Public()
	return keys, public, err
}

// find says whether the provider has a key of that name, and has the set fetched for it where that
// was not done since it was first asked for: at most once a minute, whatever is asked for. It waits
// for the fetch, but not for longer than ctx.
func (p *provider) find(ctx context.Context, id string, now func() time.Time) wire.UserKeyResponse {
	for {
		p.mu.Lock()
		wait := max(unknownKeyEvery-time.Since(p.wished), 0)
		_, absent := p.absent[id]
		switch {
		case p.keys != nil && p.keys.Has(id, now()):
			p.mu.Unlock()
			return wire.UserKeyResponse{Key: wire.UserKeyKnown, RetrySeconds: 1}
		case p.url == "" || absent && wait > 0:
			p.mu.Unlock()
			return wire.UserKeyResponse{Key: wire.UserKeyAbsent, RetrySeconds: seconds(max(wait, time.Second))}
		}
		delete(p.absent, id)
		remember(p.asked, id)
		switch {
		case p.keys == nil: // the first fetch is tried until it succeeds; it is nobody's wish
		case wait == 0:
			p.wished, p.wanted = time.Now(), true
			kick(p.wake)
		case !p.wanted && !p.running:
			p.mu.Unlock()
			return wire.UserKeyResponse{Key: wire.UserKeyPending, RetrySeconds: seconds(wait)}
		}
		fetched := p.fetched
		p.mu.Unlock()
		select {
		case <-fetched:
		case <-ctx.Done():
			return wire.UserKeyResponse{Key: wire.UserKeyPending, RetrySeconds: 1}
		}
	}
}

func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

// userKey tells an edge what there is to know of a key of a tenant's identity provider.
func (s *Server) userKey(w http.ResponseWriter, r *http.Request) error {
	var in wire.UserKeyRequest
	if err := readMessage(w, r, maxTicketBody, &in); err != nil {
		return err
	}
	p := s.providers[in.Tenant]
	if p == nil || in.KeyID == "" || len(in.KeyID) > tokens.MaxKeyID {
		return errBadBody
	}
	ctx, cancel := context.WithTimeout(r.Context(), answerKeyWithin)
	defer cancel()
	writeJSON(w, http.StatusOK, p.find(ctx, in.KeyID, s.clock.Now))
	return nil
}
