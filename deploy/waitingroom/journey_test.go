package main

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// lineStates are those of the waiting page in which a fan would say "I had to wait".
var lineStates = []string{"scheduled", "waiting", "next", "paused", "soldOut", "busy"}

func waited(states []string) bool {
	return slices.ContainsFunc(states, func(s string) bool { return slices.Contains(lineStates, s) })
}

// The main job in a real browser: capacity 1, one fan in the shop, the next in line.
func TestAFanWaitsAndIsLetIn(t *testing.T) {
	a := startDemo(t, nil)
	browser := startBrowser(t)

	first := newFan(t, browser)
	first.open(a.Shop + "/")
	first.waitInside()
	if waited(first.shown()) {
		t.Errorf("first fan: got states %q; want no waiting, the shop is empty", first.shown())
	}
	if !slices.Contains(first.shown(), "loading") {
		t.Errorf("first fan: got states %q; want a passage through the waiting page", first.shown())
	}
	first.checkNoToken()
	checkCookies(t, first, a)
	first.picture("shop")

	second := newFan(t, browser)
	second.open(a.Shop + "/?stand=north&x=a%20b#seats")
	second.waitState("next")
	if at := second.at(); !strings.HasPrefix(at, a.Edge+"/wait/"+a.Queue) {
		t.Errorf("second fan: got address %s; want the waiting page", at)
	}
	if got := second.text("#ahead") + "/" + second.text("#position"); got != "0/2" {
		t.Errorf("second fan: got ahead/position %s; want 0/2", got)
	}
	second.checkNoToken()
	checkCookies(t, second, a)
	second.picture("waiting")

	// Reload and second tab: the same place.
	ticket := second.ticketID(a.Queue)
	if ticket == "" {
		t.Fatal("second fan: got no ticket id in the page's storage")
	}
	second.reload()
	second.waitState("next")
	another := second.another()
	another.open(waitingPage(a, a.Shop+"/"))
	another.waitState("next")
	for name, tab := range map[string]*tab{"reload": second, "second tab": another} {
		if got := tab.ticketID(a.Queue); got != ticket || tab.text("#position") != "2" {
			t.Errorf("after %s: got ticket %s at position %s; want %s at 2", name, got, tab.text("#position"), ticket)
		}
	}
	another.close()

	first.click("buy")
	first.waitFor("the thanks", "document.getElementById('thanks') !== null")
	freed := time.Now()
	second.waitInside()
	if took := time.Since(freed); took > 2*time.Second {
		t.Errorf("second fan: let in after %s; want at most two seconds", took)
	} else {
		t.Logf("second fan: let in after %s", took)
	}
	second.checkNoToken()
	checkCookies(t, second, a)
	if got := evaluate[string](second, "location.href"); got != a.Shop+"/?stand=north&x=a%20b#seats" && got != a.Shop+"/?stand=north&x=a%20b" {
		t.Errorf("second fan: got address %s; want the page that was asked for", got)
	}
	for _, cookie := range first.cookies(a.Shop) {
		if strings.Contains(cookie.Name, "wr_session") {
			t.Errorf("first fan after buying: still has the cookie %s", cookie.Name)
		}
	}
	first.picture("thanks")
}

// checkCookies wants every cookie of shop and edge out of reach of scripts, and at least one.
func checkCookies(t *testing.T, fan *tab, a Access) {
	t.Helper()
	cookies := append(fan.cookies(a.Shop), fan.cookies(a.Edge)...)
	if len(cookies) == 0 {
		t.Error("got no cookies; want the ticket's and, inside, the session's")
	}
	for _, cookie := range cookies {
		if !cookie.HTTPOnly || cookie.SameSite != "Lax" {
			t.Errorf("cookie %s: got HttpOnly %v, SameSite %s; want HttpOnly, Lax", cookie.Name, cookie.HTTPOnly, cookie.SameSite)
		}
	}
}

// A tab that nobody looks at does not claim: its title and a button tell that it is the turn.
func TestHiddenTabIsToldAndClaimsWhenShown(t *testing.T) {
	a := startDemo(t, nil)
	_, session := enter(t, a)
	browser := startBrowser(t)
	fan := newFan(t, browser)
	fan.open(waitingPage(a, a.Shop+"/"))
	fan.waitState("next")
	fan.look(false)
	if err := testApp(a).buy(t.Context(), session); err != nil {
		t.Fatal(err)
	}
	fan.waitState("admitted")
	fan.waitFor("the title", "/^Your turn! 0:[0-5][0-9]$/.test(document.title)")
	fan.waitFor("the button", "/^Enter the shop \\(0:[0-5][0-9]\\)$/.test(document.getElementById('go').textContent)")
	fan.picture("admitted-hidden")
	fan.look(true)
	fan.waitInside()
}

// Leaving asks first; who left is not put into the line again by a reload or by another tab.
func TestLeavingAsksFirstAndIsFinal(t *testing.T) {
	a := startDemo(t, nil)
	enter(t, a)
	browser := startBrowser(t)
	fan := newFan(t, browser)
	fan.open(waitingPage(a, a.Shop+"/"))
	fan.waitState("next")
	another := fan.another()
	another.open(waitingPage(a, a.Shop+"/"))
	another.waitState("next")

	fan.click("leave")
	fan.waitFor("the question", "!document.getElementById('confirm').hidden")
	fan.picture("leave")
	fan.click("stay")
	fan.waitFor("no question", "document.getElementById('confirm').hidden && document.body.dataset.state === 'next'")
	fan.click("leave")
	fan.click("really-leave")
	fan.waitState("left")
	another.waitState("left")
	fan.reload()
	fan.waitState("left")
	fan.picture("left")
	fan.click("again")
	fan.waitState("next")
	if got := fan.text("#position"); got != "3" {
		t.Errorf("after joining again: got position %s; want 3, the end of the line", got)
	}
}

// A phone without signal is told until when the place is kept, and goes on by itself.
func TestConnectionLostAndRegained(t *testing.T) {
	a := startDemo(t, nil)
	enter(t, a)
	browser := startBrowser(t)
	fan := newFan(t, browser)
	fan.open(waitingPage(a, a.Shop+"/"))
	fan.waitState("next")
	fan.offline(true)
	fan.waitFor("the note", "/^Connection lost\\. Your place is kept until \\d\\d:\\d\\d/.test(document.getElementById('note').textContent)")
	fan.picture("offline")
	fan.offline(false)
	fan.waitFor("no note", "document.getElementById('note').hidden")
	if got := fan.text("#position"); got != "2" {
		t.Errorf("after the connection came back: got position %s; want 2", got)
	}
	if got := fan.text("#live"); !strings.Contains(got, "Connected again.") {
		t.Errorf("after the connection came back: a screen reader hears %q; want that it is back", got)
	}
}

// A phone whose clock is an hour fast, in a room that is too busy at first: the page says so, comes
// back when it was told to, and counts by the server's clock.
func TestWrongClockAndBusyRoom(t *testing.T) {
	a := startDemo(t, nil)
	_, session := enter(t, a)
	browser := startBrowser(t)
	fan := newFan(t, browser)
	fan.inject(`
		const now = Date.now, send = window.fetch;
		Date.now = () => now() + 3600_000;
		window.joins = [];
		window.fetch = (path, options) => {
			if (options.method === 'POST' && path.endsWith('/tickets')) {
				window.joins.push(now());
				if (window.joins.length === 1) return Promise.resolve(new Response('{}', {status: 503, headers: {'Retry-After': '2'}}));
			}
			return send(path, options);
		};`)
	fan.open(waitingPage(a, a.Shop+"/"))
	fan.waitState("next")
	if !slices.Contains(fan.shown(), "busy") {
		t.Errorf("got states %q; want it told that the room is busy", fan.shown())
	}
	if pause := evaluate[float64](fan, "window.joins[1] - window.joins[0]"); pause < 2000 || pause > 4000 {
		t.Errorf("second try: got it %.0f ms after the first; want 2000 to 3000, and a little", pause)
	}
	fan.waitFor("the elapsed time", "/waiting for 0:[0-5][0-9]\\./.test(document.getElementById('clock').textContent)")
	fan.look(false)
	if err := testApp(a).buy(t.Context(), session); err != nil {
		t.Fatal(err)
	}
	fan.waitState("admitted")
	fan.waitFor("the time left", "/^Your turn! (1:00|0:[3-5][0-9])$/.test(document.title)")
}

// Absent for longer than the hold: the page says why the place is gone and offers a new one.
func TestExpiredSaysWhy(t *testing.T) {
	a := startDemo(t, func(o *Options) { o.Hold = 2 * time.Second })
	enter(t, a)
	browser := startBrowser(t)
	fan := newFan(t, browser)
	fan.open(waitingPage(a, a.Shop+"/"))
	fan.waitState("next")
	watcher, err := testApp(a).join(t.Context(), a.Queue) // somebody present, so that the line is not idle
	if err != nil {
		t.Fatal(err)
	}
	fan.offline(true)
	eventually(t, "the place to expire", 30*time.Second, func() bool {
		if err := testApp(a).poll(t.Context(), &watcher); err != nil {
			t.Fatal(err)
		}
		_, text := send(t, "GET", a.Origin+"/queues/"+a.Queue+"/stats", bearer(a.ViewerToken), "")
		return strings.Contains(text, `"expired":1`)
	})
	fan.offline(false)
	fan.waitState("expiredAbsent")
	if got := fan.text("body"); !strings.Contains(got, "away for longer") {
		t.Errorf("expired: got %q; want the reason", got)
	}
	fan.picture("expired")
	fan.reload()
	fan.waitState("expiredAbsent")
	fan.click("again")
	fan.waitState("waiting")
}

// Every state of the queue has a text; what the operator does is told to those who wait.
func TestPageTellsTheStateOfTheQueue(t *testing.T) {
	a := startDemo(t, nil)
	enter(t, a)
	browser := startBrowser(t)
	fan := newFan(t, browser)
	fan.open(waitingPage(a, a.Shop+"/"))
	fan.waitState("next")
	for _, c := range []struct{ state, want string }{
		{"paused", "paused"}, {"sold_out", "soldOut"}, {"open", "next"}, {"closed", "closed"},
	} {
		patch(t, a, fmt.Sprintf(`{"state":%q}`, c.state))
		fan.waitState(c.want)
		fan.picture("queue-" + c.state)
	}
	fan.reload()
	fan.waitState("closed")
}

// A bad token in a link leads to a page with a way back, which enters the shop only on a click.
func TestRefusedTokenHandsOverOnlyOnAClick(t *testing.T) {
	a := startDemo(t, nil)
	browser := startBrowser(t)
	fan := newFan(t, browser)
	fan.open(a.Shop + "/?wr_session=planted")
	fan.waitFor("the refusal", "document.querySelector('a') !== null")
	evaluate[bool](fan, "document.querySelector('a').click(), true")
	fan.waitState("admitted")
	if slices.Contains(fan.shown(), "entering") {
		t.Errorf("got states %q; want no entering without a click", fan.shown())
	}
	fan.picture("click")
	fan.click("go")
	fan.waitInside()
}

// When the purchase window ends, the shop's page leads back, and the waiting page says so.
func TestWindowEndsInTheShop(t *testing.T) {
	a := startDemo(t, func(o *Options) { o.PurchaseWindow = 2 * time.Second })
	browser := startBrowser(t)
	fan := newFan(t, browser)
	fan.open(a.Shop + "/")
	fan.waitInside()
	fan.waitState("ended")
	fan.picture("ended")
	fan.click("again")
	fan.waitInside()
}

// Two shops on one host: each has its own line and its own cookie.
func TestOneFanInTwoShops(t *testing.T) {
	a := startDemo(t, nil)
	browser := startBrowser(t)
	fan := newFan(t, browser)
	fan.open(a.Shop + "/")
	fan.waitInside()
	another := fan.another()
	another.open(a.Other.Shop + "/")
	another.waitInside()
	fan.reload()
	fan.waitInside()
	if got, want := another.text("main p"), "Other Hall"; got != want {
		t.Errorf("second shop: got %q; want %q", got, want)
	}
	if u, err := url.Parse(another.at()); err != nil || u.Scheme+"://"+u.Host != a.Other.Shop {
		t.Errorf("second shop: got address %s; want %s", another.at(), a.Other.Shop)
	}
}
