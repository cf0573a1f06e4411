package wire

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// ErrUnavailable says that no origin answered, or that none could decide: the outcome is unknown,
// and the same request may be repeated.
var ErrUnavailable = errors.New("origin is unavailable")

// defaultTimeout bounds one attempt at one origin: longer than a slow store, short enough that a
// second origin can still answer the same fan.
const defaultTimeout = 3 * time.Second

// maxAnswer bounds the answer to a batch, in bytes.
const maxAnswer = 16 << 20

// Client speaks to the origins; it moves on to the next one when one fails. Safe for concurrent
// use; not to be copied after its first use.
type Client struct {
	// Origins are base URLs; plain http only to a loopback address.
	Origins []string
	// Secret is the cluster secret.
	Secret string
	// TLS is how https origins are verified; nil means by the system's roots.
	TLS *tls.Config
	// Timeout bounds each attempt at one origin; 0 means 3 s.
	Timeout time.Duration

	start   sync.Once
	wrong   error // what start found wrong with the fields above
	bases   []string
	http    *http.Client
	current atomic.Uint32 // index of the origin that answered last
}

// Check says what is wrong with the fields, before the first request does.
func (c *Client) Check() error {
	c.start.Do(c.prepare)
	return c.wrong
}

// CloseIdle closes the connections that carry no request.
func (c *Client) CloseIdle() {
	if c.Check() == nil {
		c.http.CloseIdleConnections()
	}
}

func (c *Client) prepare() {
	if len(c.Origins) == 0 {
		c.wrong = errors.New("check origins: none is named")
		return
	}
	if len(c.Secret) < LeastSecret {
		c.wrong = fmt.Errorf("check origins: the cluster secret has fewer than %d bytes", LeastSecret)
		return
	}
	for i, origin := range c.Origins {
		base, err := parseOrigin(origin)
		if err != nil {
			c.wrong = fmt.Errorf("check origins[%d]: %w", i, err)
			return
		}
		c.bases = append(c.bases, base)
	}
	if c.Timeout <= 0 {
		c.Timeout = defaultTimeout
	}
	// HTTP/1.1 on purpose: a pool of connections keeps one slow answer from holding up the
	// batches behind it.
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	c.http = &http.Client{
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: time.Second, KeepAlive: 15 * time.Second}).DialContext,
			TLSClientConfig:     c.TLS,
			TLSHandshakeTimeout: 2 * time.Second,
			Protocols:           &protocols,
			MaxIdleConnsPerHost: 64,
			MaxConnsPerHost:     256,
			IdleConnTimeout:     time.Minute, // below the origin's own, so that this end closes first
		},
		// The secret goes to the origins that were named and nowhere else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// parseOrigin checks a base URL and cuts its trailing slash.
func parseOrigin(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil {
		return "", errors.New("not a URL")
	}
	switch {
	case u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return "", errors.New("a base URL is https://host[:port]")
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		return "", errors.New("plain http carries the cluster secret only to a loopback address; use https")
	case u.Scheme != "http" && u.Scheme != "https":
		return "", errors.New("the scheme must be https")
	}
	return strings.TrimSuffix(u.String(), "/"), nil
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// Join asks for positions. A refusal is an *Error.
func (c *Client) Join(ctx context.Context, r JoinRequest) (JoinResponse, error) {
	var out JoinResponse
	if err := c.post(ctx, PathJoin, r, &out); err != nil {
		return JoinResponse{}, fmt.Errorf("join: %w", err)
	}
	if len(out.Joins) != len(r.Users) {
		return JoinResponse{}, fmt.Errorf("join: %w: %d answers to %d joins", ErrUnavailable, len(out.Joins), len(r.Users))
	}
	return out, nil
}

// See hands in sightings.
func (c *Client) See(ctx context.Context, r SightingsRequest) (SightingsResponse, error) {
	var out SightingsResponse
	if err := c.post(ctx, PathSightings, r, &out); err != nil {
		return SightingsResponse{}, fmt.Errorf("hand in sightings: %w", err)
	}
	return out, nil
}

// Claim asks for a session. An answer with Error set is no error here: it is what the fan is told.
func (c *Client) Claim(ctx context.Context, r ClaimRequest) (ClaimResponse, error) {
	var out ClaimResponse
	if err := c.post(ctx, PathClaim, r, &out); err != nil {
		return ClaimResponse{}, fmt.Errorf("claim: %w", err)
	}
	return out, nil
}

// Leave takes a ticket out of the line. A refusal is an *Error.
func (c *Client) Leave(ctx context.Context, r LeaveRequest) error {
	if err := c.post(ctx, PathLeave, r, nil); err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	return nil
}

// UserKey asks for a key of a tenant's identity provider. A refusal is an *Error.
func (c *Client) UserKey(ctx context.Context, r UserKeyRequest) (UserKeyResponse, error) {
	var out UserKeyResponse
	if err := c.post(ctx, PathUserKey, r, &out); err != nil {
		return UserKeyResponse{}, fmt.Errorf("ask for user key: %w", err)
	}
	return out, nil
}

func (e *Error) Error() string {
	if e.Code == CodeUnauthorized {
		return "origin refused: " + e.Code + ": its cluster secret is another one"
	}
	return "origin refused: " + e.Code
}

// post sends one request to the origin that answered last, and on to the others as long as none
// decides. Every request of the wire may be repeated, so an origin whose answer was lost is no
// reason to stop.
func (c *Client) post(ctx context.Context, path string, in, out any) error {
	if err := c.Check(); err != nil {
		return err
	}
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	var failed error
	for range c.bases {
		index := c.current.Load()
		failed = c.attempt(ctx, c.bases[index], path, body, out)
		if !errors.Is(failed, ErrUnavailable) {
			return failed
		}
		c.moveOn(index)
		if ctx.Err() != nil {
			break
		}
	}
	return failed
}

// moveOn makes the next origin the current one, unless another call has done so already.
func (c *Client) moveOn(from uint32) {
	c.current.CompareAndSwap(from, (from+1)%uint32(len(c.bases)))
}

func (c *Client) attempt(ctx context.Context, base, path string, body []byte, out any) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, base+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	r.Header.Set("Content-Type", "application/json")
	// Not sent; it tells net/http that the request may be repeated when the origin closed the
	// kept connection under it.
	r.Header["Idempotency-Key"] = nil
	answer, err := c.send(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	if err != nil {
		return fmt.Errorf("%w: read answer: %w", ErrUnavailable, err)
	}
	if len(text) > maxAnswer {
		return fmt.Errorf("%w: the answer is too long", ErrUnavailable)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("%w: decode answer: %w", ErrUnavailable, err)
	}
	return nil
}

// send adds the secret and turns an answer that is not a success into an error.
func (c *Client) send(r *http.Request) (*http.Response, error) {
	r.Header.Set("Authorization", "Bearer "+c.Secret)
	answer, err := c.http.Do(r)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if answer.StatusCode < 300 {
		return answer, nil
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 4096))
	refusal := &Error{}
	if err != nil || json.Unmarshal(text, refusal) != nil || refusal.Code == "" ||
		answer.StatusCode >= 500 || refusal.Code == CodeUnavailable {
		return nil, fmt.Errorf("%w: status %d", ErrUnavailable, answer.StatusCode)
	}
	return nil, refusal
}
