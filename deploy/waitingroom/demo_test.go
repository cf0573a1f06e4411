package main

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// startDemo runs the whole waiting room on free ports until the test ends.
func startDemo(t *testing.T, change func(*Options)) Access {
	t.Helper()
	_, a := runDemo(t, change)
	return a
}

func runDemo(t *testing.T, change func(*Options)) (*Demo, Access) {
	t.Helper()
	o := DefaultOptions()
	o.Edge, o.Origin, o.Shop, o.OtherShop = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	o.Capacity = 1
	if change != nil {
		change(&o)
	}
	demo, err := NewDemo(o, slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		t.Fatalf("compose demo: %v", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ready, ended := make(chan Access, 1), make(chan error, 1)
	go func() {
		ended <- demo.Run(ctx, func(_ context.Context, a Access) error { ready <- a; return nil },
			func(line string) { t.Log(line) })
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("stop demo: got error %v; want none", err)
		}
	})
	select {
	case a := <-ready:
		return demo, a
	case err := <-ended:
		ended <- nil
		t.Fatalf("start demo: %v", err)
	case <-time.After(30 * time.Second):
		t.Fatal("start demo: it was not ready within 30 s")
	}
	panic("unreachable")
}

func testApp(a Access) app {
	return app{edge: a.Edge, shop: a.Shop, key: a.PublishableKey, http: &http.Client{Timeout: 10 * time.Second}}
}

// enter brings an app's fan into the shop of a room where nobody waits.
func enter(t *testing.T, a Access) (fan, string) {
	t.Helper()
	fan, err := testApp(a).join(t.Context(), a.Queue)
	if err != nil {
		t.Fatal(err)
	}
	if fan.State != "admitted" {
		t.Fatalf("join an empty room: got state %q; want admitted", fan.State)
	}
	session, err := testApp(a).claim(t.Context(), fan)
	if err != nil {
		t.Fatal(err)
	}
	return fan, session
}

// send makes a request and returns the answer's status and text.
func send(t *testing.T, method, url string, header http.Header, body string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if request.Header = header.Clone(); header == nil {
		request.Header = http.Header{}
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	client := http.Client{Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// patch changes settings as the operator.
func patch(t *testing.T, a Access, body string) {
	t.Helper()
	header := bearer(a.OperatorToken)
	header.Set("Content-Type", "application/merge-patch+json")
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, a.Origin+"/queues/"+a.Queue, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header = header
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(response.Body)
		t.Fatalf("PATCH %s: got %d %s; want 200", body, response.StatusCode, text)
	}
}

// eventually waits for a condition that the program brings about by itself.
func eventually(t *testing.T, what string, limit time.Duration, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for !holds() {
		if !rest(ctx, 20*time.Millisecond) {
			t.Fatalf("wait for %s: it did not happen within %s", what, limit)
		}
	}
}

// The whole program stops without a trace.
func TestDemoStopsCleanly(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Run("run", func(t *testing.T) {
		a := startDemo(t, func(o *Options) { o.Crowd = 5; o.Shopping = 10 * time.Millisecond; o.Away = 10 * time.Millisecond })
		enterWhenFree(t, a)
	})
	http.DefaultClient.CloseIdleConnections()
	goleak.VerifyNone(t, before,
		// fasthttp keeps its clock for the life of the process, and a stopped server's cleaner of
		// idle workers looks up once in ten seconds.
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"))
}

// enterWhenFree stands in line among others until it is in the shop.
func enterWhenFree(t *testing.T, a Access) string {
	t.Helper()
	app := testApp(a)
	defer app.http.CloseIdleConnections()
	fan, err := app.join(t.Context(), a.Queue)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the fan's turn", 30*time.Second, func() bool {
		if err := app.poll(t.Context(), &fan); err != nil {
			t.Fatal(err)
		}
		return fan.State == "admitted"
	})
	session, err := app.claim(t.Context(), fan)
	if err != nil {
		t.Fatal(err)
	}
	return session
}

// A crowd moves the line: a newcomer behind it comes nearer and gets in, while fans buy.
func TestCrowdMovesTheLine(t *testing.T) {
	a := startDemo(t, func(o *Options) {
		o.Crowd, o.Capacity = 40, 2
		o.Shopping, o.Away = 200*time.Millisecond, time.Second
		o.Claim = time.Second // who is gone when the turn comes costs the others little
	})
	var newcomer fan
	app := testApp(a)
	eventually(t, "a line", 20*time.Second, func() bool {
		var err error
		if newcomer, err = app.join(t.Context(), a.Queue); err != nil {
			t.Fatal(err)
		}
		return newcomer.State == "waiting" && newcomer.Ahead != nil && *newcomer.Ahead >= 3
	})
	last := *newcomer.Ahead
	eventually(t, "the newcomer's turn", 60*time.Second, func() bool {
		if err := app.poll(t.Context(), &newcomer); err != nil {
			t.Fatal(err)
		}
		if newcomer.Ahead != nil {
			if *newcomer.Ahead > last {
				t.Errorf("ahead: got %d after %d; want it never to rise", *newcomer.Ahead, last)
			}
			last = *newcomer.Ahead
		}
		return newcomer.State == "admitted"
	})
	session, err := app.claim(t.Context(), newcomer)
	if err != nil {
		t.Fatal(err)
	}
	if code, text := send(t, http.MethodGet, a.Shop+"/", bearer(session), ""); code != http.StatusOK || !strings.Contains(text, "Match tickets") {
		t.Errorf("GET the shop with the session: got %d; want 200 and the tickets", code)
	}
}

// An app buys with a bearer token; the sale ends the session, and soon nobody accepts it.
func TestAppBuys(t *testing.T) {
	a := startDemo(t, nil)
	_, session := enter(t, a)
	if code, text := send(t, http.MethodPost, a.Shop+"/buy", bearer(session), ""); code != http.StatusOK || !strings.Contains(text, `"order"`) {
		t.Fatalf("POST /buy: got %d %s; want 200 and an order", code, text)
	}
	eventually(t, "the shop to refuse the ended session", 5*time.Second, func() bool {
		code, _ := send(t, http.MethodPost, a.Shop+"/buy", bearer(session), "")
		return code == http.StatusGone
	})
	eventually(t, "/access to refuse the ended session", 5*time.Second, func() bool {
		code, _ := send(t, http.MethodGet, a.Edge+"/access", bearer(session), "")
		return code == http.StatusGone
	})
	if code, _ := send(t, http.MethodPost, a.Shop+"/buy", nil, ""); code != http.StatusUnauthorized {
		t.Errorf("POST /buy without a session: got %d; want 401", code)
	}
}

func TestForbiddenReturnIsRefused(t *testing.T) {
	a := startDemo(t, nil)
	for _, c := range []struct {
		name, target string
		want         int
	}{
		{"the shop's page", a.Shop + "/match?x=1#y", http.StatusOK},
		{"another site", "https://evil.example/", http.StatusBadRequest},
		{"the other tenant's shop", a.Other.Shop + "/", http.StatusBadRequest},
		{"the shop as a user name", "http://" + strings.TrimPrefix(a.Shop, "http://") + "@evil.example/", http.StatusBadRequest},
		{"a longer host", a.Shop + ".evil.example/", http.StatusBadRequest},
		{"a script", "javascript:alert(1)", http.StatusBadRequest},
		{"nothing", "", http.StatusBadRequest},
		{"a backslash", a.Shop + `\@evil.example/`, http.StatusBadRequest},
	} {
		code, text := send(t, http.MethodGet, waitingPage(a, c.target), nil, "")
		if code != c.want {
			t.Errorf("%s: got %d; want %d", c.name, code, c.want)
		}
		if code != http.StatusOK && strings.Contains(text, "evil.example") {
			t.Errorf("%s: got a page that names the forbidden address", c.name)
		}
	}
	if code, _ := send(t, http.MethodGet, a.Edge+"/wait/"+a.Queue, nil, ""); code != http.StatusOK {
		t.Errorf("without return: got %d; want 200", code)
	}
}
