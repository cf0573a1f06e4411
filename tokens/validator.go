package tokens

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

// StaleRule says what becomes of sessions while the list of revocations is too old.
type StaleRule int

// The rules. There is no default: which harm is the smaller one, only the shop can know.
const (
	// FailOpen goes on accepting what the last known list accepts: a fan whose session was ended
	// early may stay until it expires.
	FailOpen StaleRule = iota + 1
	// FailClosed refuses every session with ErrStale: while the waiting room cannot be reached,
	// nobody buys.
	FailClosed
)

// DefaultCacheSize is how many verified tokens a Validator remembers.
const DefaultCacheSize = 16384

// Validator checks session tokens in a backend: locally, with the waiting room's public keys and
// its list of sessions that were ended early, both fetched in the background by Run. Set the
// fields before Run and do not change them afterwards. Safe for concurrent use.
//
// Keys are fetched every KeysEvery. A new signing key is to be published for twice as long before
// it signs (its nbf), so that every backend knows it by then.
type Validator struct {
	// Issuer is the iss of the waiting room's tokens.
	Issuer string
	// Tenant is the tenant whose sessions are accepted.
	Tenant string
	// BaseURL is the waiting room's edge, https://wait.example.org. Plain http carries the API key
	// in the open, and is refused off loopback unless PlainHTTP is set.
	BaseURL string
	// PlainHTTP permits http:// where the network itself is trusted.
	PlainHTTP bool
	// APIKey is a secret API key of the tenant.
	APIKey string
	// Refresh is how often the list of revocations is fetched: 1 to 5 seconds, 2 by default.
	Refresh time.Duration
	// MaxStale is how old the list may get before WhenStale applies; longer than Refresh.
	MaxStale time.Duration
	// WhenStale is required.
	WhenStale StaleRule
	// CacheSize is the number of verified tokens to remember; DefaultCacheSize where it is 0.
	CacheSize int
	// Client makes the requests; redirects are not followed. By default one of our own.
	Client *http.Client
	// Now is the clock that tokens are judged by; time.Now by default.
	Now func() time.Time
	// OnError is told why a fetch failed; the fetch is repeated by itself. Optional.
	OnError func(error)

	running   atomic.Bool
	ready     readiness
	revoked   revocations
	seen      *lru.Cache[string, verification] // by token; written before keys is
	unknown   *lru.Cache[string, struct{}]     // key ids that were asked for and not found; likewise
	wantsKeys chan struct{}                    // holds one wish for newer keys; likewise
	keys      atomic.Pointer[PublicKeys]       // nil before the first fetch
}

// Validate checks a session token for a queue, which the caller names. It waits for nothing and
// asks nobody; for a token seen before it allocates nothing. The error wraps ErrInvalid (answer
// 401), ErrExpired or ErrRevoked (410), or ErrStale (503).
func (v *Validator) Validate(token, queue string) (Session, error) {
	keys := v.keys.Load()
	if keys == nil {
		return Session{}, errNoKeysYet
	}
	if len(token) > maxToken {
		return Session{}, errTooLong
	}
	now := v.now()
	s, err := v.verified(keys, token, now)
	if err != nil && !errors.Is(err, ErrExpired) {
		return Session{}, err
	}
	if s.Queue != queue {
		return Session{}, errQueue
	}
	if err != nil {
		return Session{}, err
	}
	revoked, asOf := v.revoked.look(s.ID)
	if revoked {
		return Session{}, errRevokedSession
	}
	// Before the first list asOf is the zero time, which is older than any bound.
	if v.WhenStale != FailOpen && now.Sub(asOf) > v.MaxStale {
		return Session{}, errStaleList
	}
	return s, nil
}

// verified checks everything that is in the token, from memory where it was seen before.
func (v *Validator) verified(keys *PublicKeys, token string, now time.Time) (Session, error) {
	if known, found := v.seen.Get(token); found {
		key := keys.usable(known.key.id, now)
		if key == known.key || key != nil && bytes.Equal(key.key, known.key.key) {
			if !now.Before(known.session.ExpiresAt) {
				return known.session, errExpiredToken
			}
			return known.session, nil
		}
	}
	result, err := keys.verify(token, v.Issuer, v.Tenant, now)
	if err == nil {
		v.seen.Add(strings.Clone(token), result) // the token may be a piece of a large header
		return result.session, nil
	}
	if err == errKeyID {
		v.askForKeys(result.keyID)
	}
	return result.session, err
}

// askForKeys wishes for newer keys, once for each unknown key id; Run grants one wish a minute.
func (v *Validator) askForKeys(id string) {
	if asked, _ := v.unknown.ContainsOrAdd(id, struct{}{}); asked {
		return
	}
	select {
	case v.wantsKeys <- struct{}{}:
	default: // there is a wish already
	}
}

func (v *Validator) now() time.Time {
	if v.Now != nil {
		return v.Now()
	}
	return time.Now()
}

// Run keeps keys and revocations fresh until ctx ends, and then returns its error; a field that
// is missing or wrong it reports at once. While the waiting room cannot be reached, what is known
// stays in use.
func (v *Validator) Run(ctx context.Context) error {
	if err := v.check(); err != nil {
		return fmt.Errorf("run validator: %w", err)
	}
	if !v.running.CompareAndSwap(false, true) {
		return errors.New("run validator: it runs already")
	}
	defer v.running.Store(false)
	if v.seen == nil {
		if err := v.remember(); err != nil {
			return fmt.Errorf("run validator: %w", err)
		}
	}
	f := newFetcher(v)
	defer f.close()
	var both sync.WaitGroup
	both.Go(func() { f.keepKeys(ctx) })
	both.Go(func() { f.keepRevocations(ctx) })
	both.Wait()
	return ctx.Err()
}

// remember makes what Validate finds only after the first keys have come.
func (v *Validator) remember() (err error) {
	size := v.CacheSize
	if size == 0 {
		size = DefaultCacheSize
	}
	if v.unknown, err = lru.New[string, struct{}](maxUnknown); err != nil {
		return err
	}
	v.wantsKeys = make(chan struct{}, 1)
	v.seen, err = lru.New[string, verification](size)
	return err
}

// Ready waits until keys and revocations have been fetched for the first time. When ctx ends
// before, the error says why the last fetch failed.
func (v *Validator) Ready(ctx context.Context) error { return v.ready.wait(ctx) }

// readiness waits for two things to have happened once.
type readiness struct {
	once sync.Once
	done chan struct{}

	mu         sync.Mutex
	keys, list bool
	last       error
}

func (r *readiness) init() { r.once.Do(func() { r.done = make(chan struct{}) }) }

func (r *readiness) wait(ctx context.Context) error {
	r.init()
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.last != nil {
			return fmt.Errorf("wait for keys and revocations: %w (%w)", ctx.Err(), r.last)
		}
		return fmt.Errorf("wait for keys and revocations: %w", ctx.Err())
	}
}

func (r *readiness) happened(keys, list bool) {
	r.init()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.keys && r.list {
		return
	}
	r.keys, r.list = r.keys || keys, r.list || list
	if r.keys && r.list {
		close(r.done)
	}
}

func (r *readiness) failed(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = err
}
