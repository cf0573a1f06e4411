package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// A phone whose clock is an hour fast at first, and then is put back by two: the countdown, the
// opening and what follows go by the server's clock. The page polls, as its network knows no live
// connections; its questions can be held back.
const wrongClock = `
	const now = Date.now, send = window.fetch;
	window.wrong = 3600_000;
	Date.now = () => now() + window.wrong;
	let asked = 0;
	window.WebSocket = undefined;
	window.fetch = async (path, options) => {
		if (path.endsWith('/events')) return new Response('', {status: 502});
		if (path.startsWith('/tickets/') && options.method === 'GET' && (asked += 1) > 1 && window.holdBack) {
			await new Promise((resolve) => { window.letGo = resolve; });
		}
		return send(path, options);
	};`

func TestTheSaleOpens(t *testing.T) {
	t.Parallel() // it mostly waits
	a := startDemo(t, func(o *Options) { o.OpensIn = time.Hour })
	browser := startBrowser(t)
	fan := newFan(t, browser)
	fan.inject(wrongClock)
	fan.open(a.Shop + "/")
	fan.waitState("scheduled")
	fan.waitFor("the countdown", `/^The sale opens in (1:00:00|0?:?5\d:\d\d), at /.test(document.getElementById('clock').textContent)`)
	fan.waitFor("the title", `/^Opens in (1:00:00|5\d:\d\d)$/.test(document.title)`)
	if got := fan.text("#ahead") + "/" + fan.text("#position"); got != "0/1" {
		t.Errorf("before the opening: got ahead/position %s; want 0/1", got)
	}
	fan.picture("scheduled")
	second, err := testApp(a).join(t.Context(), a.Queue)
	if err != nil || second.State != "scheduled" {
		t.Fatalf("an app that joins before the opening: got state %q, error %v; want scheduled", second.State, err)
	}
	_, text := send(t, "GET", a.Edge+"/queues/"+a.Queue, nil, "")
	var description struct {
		State   string
		OpensAt time.Time
	}
	if err := json.Unmarshal([]byte(text), &description); err != nil || description.State != "scheduled" || time.Until(description.OpensAt) < 50*time.Minute {
		t.Errorf("public description: got %s, error %v; want when it opens", text, err)
	}

	const soon = 8 * time.Second
	opens := time.Now().Add(soon)
	patch(t, a, fmt.Sprintf(`{"opensAt":%q}`, opens.UTC().Format(time.RFC3339Nano)))
	fan.inject(`window.holdBack = true;`)
	fan.reload()
	fan.waitFor("the nearer opening", `/^The sale opens in 0:0\d, at /.test(document.getElementById('clock').textContent)`)
	evaluate[bool](fan, `window.wrong = -3600_000, true`)
	fan.waitFor("the last seconds", `/^The sale opens in 0:0[1-4], at /.test(document.getElementById('clock').textContent)`)
	fan.picture("countdown")
	fan.waitState("opening")
	if early := time.Until(opens); early > 500*time.Millisecond {
		t.Errorf("the page says that the sale opens %s before it does", early)
	}
	fan.picture("opening")
	fan.waitFor("a question that is held back", `window.letGo !== undefined`)
	evaluate[bool](fan, `window.holdBack = false, window.letGo(), true`)
	fan.waitInside()
	if err := testApp(a).poll(t.Context(), &second); err != nil || second.State != "waiting" {
		t.Errorf("the second in line after the opening: got state %q, error %v; want waiting", second.State, err)
	}
}

// Everything is sold while it is the turn of a fan whose phone is in the pocket: nothing is claimed
// without the fan, the offer is withdrawn, the place kept, and when tickets come back it is this
// fan's turn again.
func TestSoldOutAndReopened(t *testing.T) {
	t.Parallel() // it mostly waits
	a := startDemo(t, func(o *Options) { o.Claim = 10 * time.Minute; o.MaxMissedOffers = 1 })
	_, session := enter(t, a)
	browser := startBrowser(t)
	fan := newFan(t, browser)
	fan.open(waitingPage(a, a.Shop+"/"))
	fan.waitState("next")
	behind := newFan(t, browser)
	behind.open(waitingPage(a, a.Shop+"/"))
	behind.waitState("waiting")
	fan.look(false)
	if err := testApp(a).buy(t.Context(), session); err != nil {
		t.Fatal(err)
	}
	fan.waitState("admitted")

	patch(t, a, `{"remaining":0}`)
	fan.waitState("soldOut")
	fan.waitFor("the note", `document.getElementById('note').textContent.startsWith('Your turn had come')`)
	behind.waitState("soldOut")
	if got := behind.text("#note"); got != "" {
		t.Errorf("a fan whose turn had not come: got the note %q; want none", got)
	}
	if got := behind.text("#held"); !strings.Contains(got, "your place is kept until") {
		t.Errorf("sold out: got %q; want until when the place is kept", got)
	}
	fan.picture("sold-out-withdrawn")
	behind.picture("sold-out")

	patch(t, a, `{"remaining":3}`)
	fan.waitState("admitted")
	behind.waitFor("the note that tickets came back", `document.getElementById('note').textContent.startsWith('Tickets have come back')`)
	behind.picture("reopened")
	if slices.Contains(fan.shown(), "entering") {
		t.Errorf("a fan who did not look: got states %q; want no entering", fan.shown())
	}
	fan.look(true)
	fan.waitInside()
	patch(t, a, `{"state":"paused"}`)
	behind.waitState("paused")
	patch(t, a, `{"state":"closed"}`)
	behind.waitState("closed")
	if got := behind.text("#leave") + behind.text("#again"); got != "" {
		t.Errorf("closed: got the buttons %q; want none", got)
	}
}

// A fan who does not come until claimBy has not entered the shop, and reads why the place is gone.
func TestAHiddenTabThatNobodyShowsClaimsNothing(t *testing.T) {
	t.Parallel() // it mostly waits
	a := startDemo(t, func(o *Options) { o.Claim = time.Second; o.MaxMissedOffers = 1 })
	_, session := enter(t, a)
	browser := startBrowser(t)
	fan := newFan(t, browser)
	fan.open(waitingPage(a, a.Shop+"/"))
	fan.waitState("next")
	fan.look(false)
	if err := testApp(a).buy(t.Context(), session); err != nil {
		t.Fatal(err)
	}
	fan.waitState("expiredMissed")
	if slices.Contains(fan.shown(), "entering") {
		t.Errorf("got states %q; want no entering", fan.shown())
	}
	fan.look(true)
	if got := fan.text("#lead"); !strings.Contains(got, "nobody came in time") {
		t.Errorf("after a missed offer: got %q; want the reason", got)
	}
	fan.picture("missed")
	_, text := send(t, "GET", a.Origin+"/queues/"+a.Queue+"/stats", bearer(a.ViewerToken), "")
	if !strings.Contains(text, `"claimed":1,`) {
		t.Errorf("stats: got %s; want one session, that of the fan before", text)
	}
}

// When what is left will not reach a fan by what was sold so far, the page says so.
func TestProbablySoldOut(t *testing.T) {
	t.Parallel() // it mostly waits
	a := startDemo(t, nil)
	left := 26
	report := func() { patch(t, a, fmt.Sprintf(`{"remaining":%d}`, left)) }
	report()
	app := testApp(a)
	for range 11 {
		session := enterWhenFree(t, a)
		left -= 2
		report()
		if err := app.buy(t.Context(), session); err != nil {
			t.Fatal(err)
		}
	}
	// Four tickets are left, for two fans: one in the shop, one in line.
	enterWhenFree(t, a)
	if _, err := app.join(t.Context(), a.Queue); err != nil {
		t.Fatal(err)
	}
	fan := newFan(t, startBrowser(t))
	fan.open(waitingPage(a, a.Shop+"/"))
	fan.waitState("waiting")
	left--
	report()
	fan.waitFor("the note", `document.getElementById('note').textContent.startsWith('What is left will likely be sold')`)
	fan.picture("probably-sold-out")
	left = 500
	report()
	fan.waitFor("no note", `document.getElementById('note').hidden`)
}

// The data of a closed queue goes after its retention; the page of a fan who comes late says that
// there is nothing, and tickets of it open nothing.
func TestDataOfAClosedQueueGoes(t *testing.T) {
	a := startDemo(t, nil)
	fan, session := enter(t, a)
	patch(t, a, `{"state":"closed","retentionSeconds":1}`)
	if err := testApp(a).buy(t.Context(), session); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the queue to go", 30*time.Second, func() bool {
		code, _ := send(t, "GET", a.Edge+"/queues/"+a.Queue, nil, "")
		return code == http.StatusNotFound
	})
	if code, text := send(t, "GET", a.Origin+"/queues/"+a.Queue, bearer(a.OperatorToken), ""); code != http.StatusNotFound {
		t.Errorf("GET of a queue that is gone: got %d %s; want 404", code, text)
	}
	if code, text := send(t, "GET", a.Edge+"/tickets/"+fan.TicketID, bearer(fan.Ticket), ""); code != http.StatusGone {
		t.Errorf("poll with a ticket of it: got %d %s; want 410", code, text)
	}
}
