package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"waitingroom/edge"
	"waitingroom/origin/wire"
)

// watchLine records every place that the page shows and how it hears of it, and the close codes of
// its WebSockets. Its dice always fall low, and its clocks can be put forward (skip), so that a test
// does not wait for what would come in half a minute.
const watchLine = `
	const mono = performance.now.bind(performance), wall = Date.now, send = window.fetch, Socket = window.WebSocket;
	let skipped = 0;
	performance.now = () => mono() + skipped;
	Date.now = () => wall() + skipped;
	Math.random = () => 0;
	window.skip = (seconds) => { skipped += 1000 * seconds; return true; };
	window.answered = 0;
	window.fetch = (...request) => send(...request).finally(() => { window.answered += 1; });
	window.closes = [];
	if (!sessionStorage.noSockets) window.WebSocket = class extends Socket {
		constructor(...how) {
			super(...how);
			this.addEventListener('close', (e) => window.closes.push(e.code));
		}
	}; else window.WebSocket = undefined;
	window.places = [];
	addEventListener('DOMContentLoaded', () => {
		const note = () => {
			const shown = (id) => document.getElementById(id).textContent;
			const place = [document.body.dataset.live || '', shown('ahead'), shown('position')].join('/');
			if (shown('ahead') !== '' && window.places[window.places.length - 1] !== place) window.places.push(place);
		};
		new MutationObserver(note).observe(document.body, {subtree: true, childList: true, characterData: true, attributes: true});
	});`

// room is a waiting room whose fans come through a proxy to edges of which there can be several.
type room struct {
	Access         // Edge is the proxy's address
	app     app    // comes to the demo's own edge
	session string // of who is in the shop
	line    []fan  // who waits, in order
	proxy   *proxy
	edges   []*testEdge
}

// testEdge is an edge that can be stopped.
type testEdge struct {
	url  string
	stop func() // as a SIGTERM does; returns when it has stopped
}

// startRoom fills the shop, puts apps into the line and starts edges, of which the first one gets
// what comes.
func startRoom(t *testing.T, waiting, edges int) *room {
	t.Helper()
	// The apps are silent for the whole of a test; a page polls every four seconds at least.
	demo, a := runDemo(t, func(o *Options) { o.Hold = 3 * time.Minute })
	r := &room{Access: a, app: testApp(a), proxy: startProxy(t)}
	_, r.session = enter(t, a)
	for range waiting {
		fan, err := r.app.join(t.Context(), a.Queue)
		if err != nil {
			t.Fatal(err)
		}
		r.line = append(r.line, fan)
	}
	for range edges {
		r.edges = append(r.edges, startEdge(t, demo.edge.Origin.(*wire.Client), r.proxy.URL))
	}
	r.proxy.route(r.edges[0].url)
	r.Edge = r.proxy.URL
	return r
}

func startEdge(t *testing.T, origin *wire.Client, publicURL string) *testEdge {
	t.Helper()
	server := &edge.Server{
		Config: edge.Config{Listen: "127.0.0.1:0", PublicURL: publicURL, WhenStale: edge.FailClosed, MoveSeconds: 1},
		Origin: &wire.Client{Origins: origin.Origins, Secret: origin.Secret},
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	if err := server.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := server.Run(ctx); err != nil {
			t.Errorf("run edge: got error %v; want none", err)
		}
	}()
	e := &testEdge{url: "http://" + server.Addr().String(), stop: func() { cancel(); <-ended }}
	t.Cleanup(e.stop)
	eventually(t, "the edge to be ready", 30*time.Second, func() bool {
		code, _ := send(t, http.MethodGet, e.url+"/readyz", nil, "")
		return code == http.StatusOK
	})
	return e
}

// move lets the line move by one; the page shows it.
func (r *room) move(t *testing.T, fan *tab) {
	t.Helper()
	if err := r.app.leave(t.Context(), r.line[0]); err != nil {
		t.Fatal(err)
	}
	r.line = r.line[1:]
	fan.waitFor("the line to move", fmt.Sprintf("document.getElementById('ahead').textContent === '%d'", len(r.line)))
}

// comeBack lets the time pass after which the page tries a live connection again, and waits for it.
func (b *tab) comeBack() {
	b.t.Helper()
	b.skip(300)
	b.waitFor("a live connection", "document.body.dataset.live !== ''")
}

// waitLive waits until the page hears by a kind of live connection, or by none.
func (b *tab) waitLive(kind string) {
	b.t.Helper()
	b.waitFor("a live connection by "+strconv.Quote(kind), fmt.Sprintf("document.body.dataset.live === %q", kind))
}

// skip puts the page's clocks forward.
func (b *tab) skip(seconds int) {
	b.t.Helper()
	evaluate[bool](b, fmt.Sprintf("window.skip(%d)", seconds))
}

// checkPlaces wants a place that was kept, and nothing older shown after something newer.
func (b *tab) checkPlaces(position int) {
	b.t.Helper()
	places := evaluate[[]string](b, "window.places")
	least := 1 << 30
	for _, place := range places {
		part := strings.Split(place, "/")
		ahead, err := strconv.Atoi(part[1])
		if err != nil || ahead > least || part[2] != strconv.Itoa(position) {
			b.t.Errorf("places shown: got %q; want position %d throughout and never more ahead than before", places, position)
			return
		}
		least = ahead
	}
	b.t.Logf("places shown: %q", places)
}

// A page goes from live to polling and back by itself, whatever a network does to it, keeps its
// place, and shows nothing older than before.
func TestPageMovesBetweenLiveAndPolling(t *testing.T) {
	t.Parallel() // it mostly waits
	r := startRoom(t, 9, 1)
	fan := newFan(t, startBrowser(t))
	fan.inject(watchLine)
	fan.open(waitingPage(r.Access, r.Shop+"/"))
	fan.waitLive("ws")
	ticket := fan.ticketID(r.Queue)
	// Nothing is asked while the edge tells by itself.
	checkLive := func(what string) {
		t.Helper()
		r.move(t, fan)
		polls := r.proxy.asked("poll")
		r.move(t, fan)
		if got := r.proxy.asked("poll"); got != polls {
			t.Errorf("%s: got %d polls; want none", what, got-polls)
		}
	}
	checkPolls := func(what string) {
		t.Helper()
		fan.waitLive("")
		polls := r.proxy.asked("poll")
		r.move(t, fan)
		if r.proxy.asked("poll") == polls {
			t.Errorf("%s: got no polls; want some", what)
		}
	}
	checkLive("by WebSocket")

	// WebSockets are cut and refused from then on, as by a proxy that does not know them.
	r.proxy.block("ws")
	r.proxy.cut()
	fan.waitLive("sse")
	checkLive("by events")

	// Both are cut and refused; then the proxy is mended.
	events := r.proxy.asked("events")
	r.proxy.block("events")
	r.proxy.cut()
	checkPolls("with both refused")
	r.proxy.waitAsked(t, "events", events)
	r.proxy.pass()
	fan.comeBack()

	// A proxy accepts both and holds everything back.
	r.proxy.hold()
	r.proxy.cut()
	checkPolls("with all held back")
	ws := r.proxy.asked("ws")
	events = r.proxy.asked("events")
	eventually(t, "both kinds to be tried and given up", 30*time.Second, func() bool {
		fan.skip(11)
		return r.proxy.asked("ws") > ws+1 && r.proxy.asked("events") > events+1
	})
	checkPolls("with all held back for long")
	r.proxy.pass()
	fan.comeBack()

	// A connection that worked falls silent without an end.
	polls := r.proxy.asked("poll")
	r.proxy.hold()
	fan.skip(30)
	r.proxy.waitAsked(t, "poll", polls)
	r.move(t, fan)
	r.proxy.pass()

	fan.checkPlaces(11)
	if got := fan.ticketID(r.Queue); got != ticket || r.proxy.asked("join") != 1 {
		t.Errorf("got ticket %s after %d joins; want %s after one", got, r.proxy.asked("join"), ticket)
	}
}

// An answer that was on its way when a live connection told something newer shows nothing older.
func TestLateAnswerShowsNothingOlder(t *testing.T) {
	t.Parallel() // it mostly waits
	r := startRoom(t, 4, 1)
	r.proxy.block("ws", "events")
	fan := newFan(t, startBrowser(t))
	fan.inject(watchLine)
	fan.open(waitingPage(r.Access, r.Shop+"/"))
	r.proxy.waitAsked(t, "events", 0)
	fan.waitFor("its place", "document.getElementById('ahead').textContent === '4'")
	letGo := r.proxy.holdPolls()
	polls, answered := r.proxy.asked("poll"), evaluate[int](fan, "window.answered")
	r.proxy.waitAsked(t, "poll", polls)
	r.proxy.pass()
	fan.comeBack()
	r.move(t, fan)
	letGo()
	fan.waitFor("the late answer", fmt.Sprintf("window.answered > %d", answered))
	r.move(t, fan)
	fan.checkPlaces(6)
}

// Whose turn it is hears it at once and without asking, also in a tab that nobody looks at.
func TestLivePageIsToldItsTurn(t *testing.T) {
	t.Parallel() // it mostly waits
	browser := startBrowser(t)
	for _, kind := range []string{"ws", "sse"} {
		r := startRoom(t, 0, 1)
		if kind == "sse" {
			r.proxy.block("ws")
		}
		fan := newFan(t, browser)
		fan.inject(watchLine)
		fan.open(waitingPage(r.Access, r.Shop+"/"))
		fan.waitState("next")
		fan.waitLive(kind)
		fan.look(false)
		polls := r.proxy.asked("poll")
		// In front of the line a page that polls does so every second.
		since := evaluate[float64](fan, "performance.now()")
		fan.waitFor("time for two polls", fmt.Sprintf("performance.now() > %f", since+2000))
		freed := time.Now()
		if err := r.app.buy(t.Context(), r.session); err != nil {
			t.Fatal(err)
		}
		fan.waitState("admitted")
		t.Logf("told by %s after %s", kind, time.Since(freed))
		if got := r.proxy.asked("poll"); got != polls {
			t.Errorf("by %s: got %d polls before the turn was shown; want none", kind, got-polls)
		}
		if slices.Contains(fan.shown(), "entering") {
			t.Errorf("by %s: got states %q; want no entering while nobody looks", kind, fan.shown())
		}
		fan.look(true)
		fan.waitInside()
	}
}

// An edge that stops sends its pages to the others, where they have their places.
func TestPagesMoveFromAnEdgeThatStops(t *testing.T) {
	t.Parallel() // it mostly waits
	r := startRoom(t, 4, 2)
	browser := startBrowser(t)
	pages := map[string]*tab{"ws": newFan(t, browser), "sse": newFan(t, browser)}
	position := map[string]int{"ws": 6, "sse": 7}
	for _, kind := range []string{"ws", "sse"} {
		fan := pages[kind]
		fan.inject(fmt.Sprintf("sessionStorage.noSockets = %q;", strings.TrimPrefix(kind, "ws")) + watchLine)
		fan.open(waitingPage(r.Access, r.Shop+"/"))
		fan.waitLive(kind)
	}
	ws, events := r.proxy.asked("ws"), r.proxy.asked("events")
	r.proxy.route(r.edges[1].url)
	r.edges[0].stop()
	r.proxy.waitAsked(t, "ws", ws)
	r.proxy.waitAsked(t, "events", events)
	for kind, fan := range pages {
		fan.waitLive(kind)
	}
	r.move(t, pages["ws"])
	for kind, fan := range pages {
		fan.waitFor("the line to move", fmt.Sprintf("document.getElementById('ahead').textContent === '%d'", len(r.line)+position[kind]-6))
		fan.checkPlaces(position[kind])
	}
	if codes := evaluate[[]int](pages["ws"], "window.closes"); !slices.Equal(codes, []int{1012}) {
		t.Errorf("close codes: got %v; want one 1012", codes)
	}
	if got := r.proxy.asked("join"); got != 2 {
		t.Errorf("got %d joins; want 2", got)
	}
}

// Without WebSockets one tab of a browser hears events, and the others poll, since a browser opens six
// connections to a host at most. When that one is gone, another takes its turn.
func TestOneTabHoldsTheStreamOfEvents(t *testing.T) {
	t.Parallel() // it mostly waits
	r := startRoom(t, 4, 1)
	r.proxy.block("ws")
	first := newFan(t, startBrowser(t))
	first.inject(watchLine)
	first.open(waitingPage(r.Access, r.Shop+"/"))
	first.waitLive("sse")
	second := first.another()
	second.inject(watchLine)
	ws := r.proxy.asked("ws")
	second.open(waitingPage(r.Access, r.Shop+"/"))
	r.proxy.waitAsked(t, "ws", ws)
	r.move(t, first)
	second.waitFor("the line to move", "document.getElementById('ahead').textContent === '3'")
	if got := r.proxy.asked("events"); got != 1 {
		t.Errorf("got %d streams of events; want one", got)
	}
	first.open(r.Edge + "/healthz")
	second.comeBack()
	r.move(t, second)
	second.checkPlaces(6)
}
