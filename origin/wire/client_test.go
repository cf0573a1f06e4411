package wire

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"waitingroom/origin/queue"
)

const secret = "a cluster secret of 32 bytes or more"

// fake is an origin that answers as it is told.
type fake struct {
	*httptest.Server
	asked       atomic.Int64
	connections sync.Map
}

func newFake(t *testing.T, handler http.HandlerFunc) *fake {
	t.Helper()
	f := &fake{}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // else the end of the client would not be noticed
		f.asked.Add(1)
		f.connections.Store(r.RemoteAddr, true)
		if r.Header.Get("Authorization") != "Bearer "+secret {
			t.Errorf("Authorization: got %q, want the secret", r.Header.Get("Authorization"))
		}
		handler(w, r)
	}))
	t.Cleanup(f.Close)
	return f
}

func answer(status int, body any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(body)
	}
}

func TestSecretTravelsOnlyWhereNobodyReadsAlong(t *testing.T) {
	for origin, good := range map[string]bool{
		"https://origin.example.com": true, "https://10.0.0.1:8081": true, "https://origin.example.com/": true,
		"http://127.0.0.1:8081": true, "http://[::1]:8081": true, "http://localhost:8081": true, "http://127.1.2.3": true,
		"http://origin.example.com": false, "http://10.0.0.1:8081": false, "http://localhost.example.com": false,
		"ftp://127.0.0.1": false, "origin.example.com": false, "": false, "https://": false, "https://user@origin.example.com": false,
		"https://origin.example.com/?a=b": false,
	} {
		err := (&Client{Origins: []string{origin}, Secret: secret}).Check()
		if good != (err == nil) {
			t.Errorf("origin %q: got error %v, want good: %v", origin, err, good)
		}
	}
	if err := (&Client{Origins: []string{"https://a.example"}}).Check(); err == nil {
		t.Error("no secret: got no error, want one")
	}
	if err := (&Client{Origins: []string{"https://origin.example"}, Secret: secret[:31]}).Check(); err == nil || !strings.Contains(err.Error(), "32") {
		t.Errorf("a secret of 31 bytes: got %v, want how many it needs", err)
	}
	if err := (&Client{Secret: secret}).Check(); err == nil {
		t.Error("no origin: got no error, want one")
	}
	if _, err := (&Client{Origins: []string{"http://10.0.0.1"}, Secret: secret}).Join(t.Context(), JoinRequest{}); err == nil || errors.Is(err, ErrUnavailable) {
		t.Errorf("join by a client with bad fields: got %v, want an error that repetition does not cure", err)
	}
}

func TestClientMovesOnToTheNextOrigin(t *testing.T) {
	joined := JoinResponse{Joins: []Joined{{Position: 7}}}
	for name, first := range map[string]http.HandlerFunc{
		"is broken":          answer(500, "x"),
		"cannot decide":      answer(503, Error{Code: CodeUnavailable}),
		"talks nonsense":     answer(200, "nonsense"),
		"answers half":       answer(200, JoinResponse{}),
		"is a proxy's page":  answer(404, "no such page"),
		"closes the line":    func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"redirects":          func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) },
		"does not answer":    func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"answers for a year": func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(200); <-r.Context().Done() },
	} {
		t.Run(name, func(t *testing.T) {
			if name == "answers half" {
				// Nothing to move on for: it answered, though wrongly. It must not pass for an answer.
				c := &Client{Origins: []string{newFake(t, first).URL}, Secret: secret}
				if _, err := c.Join(t.Context(), JoinRequest{Users: []string{""}}); !errors.Is(err, ErrUnavailable) {
					t.Errorf("join: got %v, want %v", err, ErrUnavailable)
				}
				return
			}
			bad, good := newFake(t, first), newFake(t, answer(200, joined))
			c := &Client{Origins: []string{bad.URL, good.URL}, Secret: secret, Timeout: 200 * time.Millisecond}
			defer c.CloseIdle()
			for range 3 {
				got, err := c.Join(t.Context(), JoinRequest{Users: []string{""}})
				if err != nil || got.Joins[0].Position != 7 {
					t.Fatalf("join: got %+v, %v, want position 7", got, err)
				}
			}
			if asked := bad.asked.Load(); asked != 1 {
				t.Errorf("requests to the origin that failed: got %d, want 1: the client stays with the good one", asked)
			}
		})
	}
}

func TestRefusalIsNotTriedElsewhere(t *testing.T) {
	refusing, other := newFake(t, answer(410, Error{Code: CodeClosed})), newFake(t, answer(200, JoinResponse{}))
	c := &Client{Origins: []string{refusing.URL, other.URL}, Secret: secret}
	defer c.CloseIdle()
	_, err := c.Join(t.Context(), JoinRequest{})
	var refusal *Error
	if !errors.As(err, &refusal) || refusal.Code != CodeClosed || errors.Is(err, ErrUnavailable) {
		t.Errorf("join: got %v, want the refusal %q", err, CodeClosed)
	}
	if other.asked.Load() != 0 {
		t.Error("the other origin was asked, want it left alone")
	}
	if strings.Contains(err.Error(), secret) {
		t.Errorf("error text %q holds the secret", err)
	}
}

func TestNoOriginAnswers(t *testing.T) {
	gone := newFake(t, answer(200, nil))
	gone.Close()
	c := &Client{Origins: []string{gone.URL, gone.URL}, Secret: secret}
	_, err := c.Claim(t.Context(), ClaimRequest{})
	if !errors.Is(err, ErrUnavailable) {
		t.Errorf("claim: got %v, want %v", err, ErrUnavailable)
	}
	if err := c.Feed(t.Context(), "edge", func(Frame) error { return nil }); !errors.Is(err, ErrUnavailable) {
		t.Errorf("feed: got %v, want %v", err, ErrUnavailable)
	}
}

func TestJoinsReuseConnections(t *testing.T) {
	origin := newFake(t, answer(200, JoinResponse{Joins: []Joined{}}))
	c := &Client{Origins: []string{origin.URL}, Secret: secret}
	defer c.CloseIdle()
	for range 50 {
		if _, err := c.Join(t.Context(), JoinRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	origin.connections.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("connections for 50 joins one after another: got %d, want 1", n)
	}
}

func TestFeedReadsFramesOfAnySize(t *testing.T) {
	fates := make([]byte, 3<<20)
	for i := range fates {
		fates[i] = byte(i)
	}
	origin := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("edge") != "edge-1" {
			t.Errorf("edge: got %q, want edge-1", r.URL.Query().Get("edge"))
		}
		encode := json.NewEncoder(w)
		_ = encode.Encode(Frame{Tenants: &Tenants{Issuer: "https://wait.example.com"}})
		_ = encode.Encode(Frame{Snapshot: &Snapshot{Queue: queue.Snapshot{ID: "a.b", Fates: fates}}})
		_ = encode.Encode(Frame{Entries: &Entries{Queue: "a.b", Entries: []queue.Entry{{Number: 1, Positions: queue.Positions{1, 2, 3}}}}})
	})
	c := &Client{Origins: []string{origin.URL}, Secret: secret}
	defer c.CloseIdle()
	var frames []Frame
	err := c.Feed(t.Context(), "edge-1", func(f Frame) error {
		frames = append(frames, f)
		return nil
	})
	if !errors.Is(err, ErrUnavailable) {
		t.Errorf("end of the connection: got %v, want %v", err, ErrUnavailable)
	}
	if len(frames) != 3 || frames[0].Tenants == nil || string(frames[1].Snapshot.Queue.Fates) != string(fates) ||
		len(frames[2].Entries.Entries[0].Positions) != 3 {
		t.Errorf("frames: got %d of them, want the three that were sent", len(frames))
	}
	stop := errors.New("enough")
	if err := c.Feed(t.Context(), "edge-1", func(Frame) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("an error of handle: got %v, want it returned", err)
	}
}

func TestFeedRefusesWhatIsNoFrame(t *testing.T) {
	for name, body := range map[string]string{
		"nonsense": "nonsense\n", "a cut frame": `{"heartbeat":{"now":`,
	} {
		origin := newFake(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) })
		c := &Client{Origins: []string{origin.URL}, Secret: secret}
		err := c.Feed(t.Context(), "edge", func(f Frame) error {
			t.Errorf("%s: got the frame %+v, want none", name, f)
			return nil
		})
		if err == nil {
			t.Errorf("%s: got no error, want one", name)
		}
		c.CloseIdle()
	}
}

// silentBody is a body that goes silent after its first frame; in virtual time.
type silentBody struct {
	first *strings.Reader
	ctx   context.Context
}

func (b *silentBody) Read(p []byte) (int, error) {
	if b.first.Len() > 0 {
		return b.first.Read(p)
	}
	<-b.ctx.Done()
	return 0, b.ctx.Err()
}

func (b *silentBody) Close() error { return nil }

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestFeedEndsWhenTheHeartbeatStaysAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Client{Origins: []string{"http://127.0.0.1:1", "http://127.0.0.1:2"}, Secret: secret}
		if err := c.Check(); err != nil {
			t.Fatal(err)
		}
		c.http.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
			body := &silentBody{strings.NewReader(`{"heartbeat":{"ready":true}}` + "\n"), r.Context()}
			return &http.Response{StatusCode: 200, Body: body}, nil
		})
		began := time.Now()
		err := c.Feed(t.Context(), "edge", func(Frame) error { return nil })
		if !errors.Is(err, ErrSilent) {
			t.Errorf("a silent feed: got %v, want %v", err, ErrSilent)
		}
		if took := time.Since(began); took != FeedSilence {
			t.Errorf("a silent feed was given up after %v, want %v", took, FeedSilence)
		}
		if c.current.Load() != 1 {
			t.Error("after a silent feed: got the same origin again, want the next one")
		}
	})
}
