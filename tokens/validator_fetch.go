package tokens

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// KeysEvery is how often a Validator fetches the public keys.
const KeysEvery = 2 * time.Minute

const (
	defaultRefresh = 2 * time.Second
	// unknownKeyEvery is the least time between fetches because of an unknown key id, which anybody
	// can put into a token.
	unknownKeyEvery = time.Minute
	maxUnknown      = 256
	fetchTimeout    = 5 * time.Second
	// maxRevocationList bounds a list of revocations, in bytes: some 250,000 of them.
	maxRevocationList = 32 << 20
)

// check reports all that is wrong with the fields.
func (v *Validator) check() error {
	var problems []error
	require := func(fine bool, problem string) {
		if !fine {
			problems = append(problems, errors.New(problem))
		}
	}
	require(v.Issuer != "", "Issuer is not set")
	require(validName(v.Tenant), "Tenant is not a tenant's id")
	require(v.APIKey != "", "APIKey is not set")
	require(v.Refresh == 0 || time.Second <= v.Refresh && v.Refresh <= 5*time.Second, "Refresh is not between 1 and 5 seconds")
	require(v.MaxStale > v.refresh(), "MaxStale is not longer than Refresh")
	require(v.WhenStale == FailOpen || v.WhenStale == FailClosed, "WhenStale is neither FailOpen nor FailClosed")
	require(v.CacheSize >= 0, "CacheSize is negative")
	if err := checkBaseURL(v.BaseURL, v.PlainHTTP); err != nil {
		problems = append(problems, fmt.Errorf("BaseURL %w", err))
	}
	return errors.Join(problems...)
}

func (v *Validator) refresh() time.Duration {
	if v.Refresh == 0 {
		return defaultRefresh
	}
	return v.Refresh
}

// checkBaseURL wants https://host[:port][/path], or http where it is loopback or permitted.
func checkBaseURL(text string, plain bool) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Opaque != "":
		return errors.New("is not an absolute URL")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return errors.New("has a user, query or fragment")
	case u.Scheme == "https":
		return nil
	case u.Scheme != "http":
		return errors.New("is neither https nor http")
	case !plain && !isLoopback(u.Host):
		return errors.New("is plain http to another machine")
	}
	return nil
}

// isLoopback reports whether a host, with or without port, is this machine by its name alone.
func isLoopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	address, err := netip.ParseAddr(host)
	return err == nil && address.Unmap().IsLoopback()
}

// fetcher makes a Validator's requests; each of its two loops belongs to one goroutine.
type fetcher struct {
	v      *Validator
	client *http.Client
	close  func()
}

func newFetcher(v *Validator) *fetcher {
	f := &fetcher{v: v, close: func() {}}
	if v.Client != nil {
		client := *v.Client
		f.client = &client
	} else {
		transport := &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			ForceAttemptHTTP2:   true,
			TLSHandshakeTimeout: fetchTimeout,
			IdleConnTimeout:     time.Minute,
		}
		f.client = &http.Client{Transport: transport}
		f.close = transport.CloseIdleConnections
	}
	// A redirect would carry the API key to wherever it points.
	f.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return f
}

// get fetches a path of the waiting room.
func (f *fetcher) get(ctx context.Context, path string, limit int64, secret bool) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(f.v.BaseURL, "/")+path, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/json")
	if secret {
		request.Header.Set("X-API-Key", f.v.APIKey)
	}
	response, err := f.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		// Read to its end, a short answer leaves the connection usable.
		_, _ = io.CopyN(io.Discard, response.Body, 4096)
		return nil, fmt.Errorf("the waiting room answers %d", response.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(body)) > limit {
		return nil, fmt.Errorf("the answer is longer than %d bytes", limit)
	}
	return body, nil
}

// failed reports an error, unless it is only that Run ends.
func (f *fetcher) failed(ctx context.Context, what string, err error) {
	if ctx.Err() != nil {
		return
	}
	err = fmt.Errorf("%s: %w", what, err)
	f.v.ready.failed(err)
	if f.v.OnError != nil {
		f.v.OnError(err)
	}
}

// keepKeys fetches the keys every KeysEvery, soon again after a failure, and at once when Validate
// met an unknown key id, but for that reason at most once a minute.
func (f *fetcher) keepKeys(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var lastWish time.Time // when a wish was granted
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.v.wantsKeys:
			if wait := unknownKeyEvery - time.Since(lastWish); !lastWish.IsZero() && wait > 0 {
				if !pause(ctx, wait) {
					return
				}
			}
			lastWish = time.Now()
		case <-timer.C:
			// Who was unknown long ago may be asked for again.
			f.v.unknown.Purge()
		}
		if err := f.fetchKeys(ctx); err != nil {
			f.failed(ctx, "fetch public keys", err)
			timer.Reset(jitter(f.v.refresh()))
		} else {
			timer.Reset(jitter(KeysEvery))
		}
	}
}

func (f *fetcher) fetchKeys(ctx context.Context) error {
	body, err := f.get(ctx, "/.well-known/jwks.json", maxKeySet, false)
	if err != nil {
		return err
	}
	keys, err := ParsePublicKeys(body)
	if err != nil {
		return err
	}
	f.v.keys.Store(keys)
	f.v.ready.happened(true, false)
	return nil
}

// keepRevocations fetches what has been revoked since the last time.
func (f *fetcher) keepRevocations(ctx context.Context) {
	for {
		if err := f.fetchRevocations(ctx); err != nil {
			f.failed(ctx, "fetch revocations", err)
		}
		if !pause(ctx, jitter(f.v.refresh())) {
			return
		}
	}
}

func (f *fetcher) fetchRevocations(ctx context.Context) error {
	asked := f.v.now() // the answer may be no younger than the question
	path := "/revocations"
	if cursor := f.v.revoked.cursor; cursor != "" {
		path += "?after=" + url.QueryEscape(cursor)
	}
	body, err := f.get(ctx, path, maxRevocationList, true)
	if err != nil {
		return err
	}
	page, err := parseRevocations(body)
	if err != nil {
		return err
	}
	f.v.revoked.add(page, asked)
	f.v.ready.happened(false, true)
	return nil
}

// jitter shortens a delay by up to a tenth, so that backends do not ask in step.
func jitter(d time.Duration) time.Duration { return d - rand.N(d/10) }

// pause waits, and reports false when ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
