package main

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
)

// tellStatus makes the page hear what the test says instead of the edge, and no live connection.
const tellStatus = `
	const send = window.fetch, never = new Promise(() => {});
	const told = JSON.parse(sessionStorage.told || '{}');
	window.WebSocket = undefined;
	let asked = 0;
	if (told.hidden) Object.defineProperty(document, 'visibilityState', {get: () => 'hidden'});
	window.fetch = (path, options) => {
		if (path.endsWith('/session')) return never;
		if (path.endsWith('/events')) return Promise.resolve(new Response('', {status: 503}));
		if (!path.endsWith('/tickets') && !path.startsWith('/tickets/')) return send(path, options);
		asked += 1;
		if (told.code && asked > (told.after || 0)) return Promise.resolve(new Response('{}', {status: told.code, headers: {'Retry-After': '60'}}));
		if (told.lost && asked > 1) return Promise.reject(new TypeError('no network'));
		const status = {ticketId: 't', pollAfterSeconds: 1, now: new Date().toISOString(), ...told.status};
		return Promise.resolve(new Response(JSON.stringify(status), {status: 200}));
	};`

// Every view of the page fits a small phone and a wide screen, and its buttons fit a thumb. With
// -artifacts it keeps a picture of each.
func TestEveryViewFitsItsScreen(t *testing.T) {
	t.Parallel() // it mostly waits
	a := startDemo(t, nil)
	fan := newFan(t, startBrowser(t))
	fan.inject(tellStatus)
	fan.open(waitingPage(a, a.Shop+"/"))
	in := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(time.RFC3339Nano) }
	type status map[string]any
	line := func(more status) status {
		s := status{
			"state": "waiting", "queueState": "open", "position": 48211, "ahead": 31950, "seq": "g.1",
			"heldUntil": in(30 * time.Minute), "waitSeconds": map[string]int{"p50": 2400, "p90": 3300},
		}
		for name, value := range more {
			s[name] = value
		}
		return s
	}
	turn := line(status{"state": "admitted", "ahead": nil, "waitSeconds": nil, "claimBy": in(5 * time.Minute)})
	for _, c := range []struct {
		name, want string
		told       map[string]any
	}{
		{"scheduled", "scheduled", status{"status": line(status{"state": "scheduled", "queueState": "scheduled", "opensAt": in(95 * time.Minute), "heldUntil": in(125 * time.Minute), "waitSeconds": nil})}},
		{"scheduled-days", "scheduled", status{"status": line(status{"state": "scheduled", "queueState": "scheduled", "opensAt": in(70 * time.Hour), "heldUntil": in(71 * time.Hour), "waitSeconds": nil})}},
		{"opening", "opening", status{"status": line(status{"state": "scheduled", "queueState": "scheduled", "opensAt": in(-time.Second), "waitSeconds": nil})}},
		{"waiting-far", "waiting", status{"status": line(nil)}},
		{"waiting-millions", "waiting", status{"status": line(status{"position": 9123456, "ahead": 8765432, "waitSeconds": map[string]int{"p50": 14400, "p90": 30000}})}},
		{"waiting-near", "waiting", status{"status": line(status{"ahead": 12, "waitSeconds": map[string]int{"p50": 70, "p90": 150}})}},
		{"waiting-no-estimate", "waiting", status{"status": line(status{"waitSeconds": nil})}},
		{"next", "next", status{"status": line(status{"ahead": 0, "waitSeconds": map[string]int{"p50": 5, "p90": 20}})}},
		{"paused", "paused", status{"status": line(status{"queueState": "paused", "waitSeconds": nil})}},
		{"sold-out", "soldOut", status{"status": line(status{"queueState": "sold_out", "waitSeconds": nil})}},
		{"likely-sold-out", "waiting", status{"status": line(status{"likelySoldOut": true})}},
		{"admitted-hidden", "admitted", status{"hidden": true, "status": turn}},
		{"admitted", "entering", status{"status": turn}},
		{"active-hidden", "active", status{"hidden": true, "status": line(status{"state": "active", "ahead": nil, "sessionExpiresAt": in(18 * time.Minute)})}},
		{"stale", "waiting", status{"status": line(status{"stale": true, "waitSeconds": nil})}},
		{"offline", "waiting", status{"lost": true, "status": line(nil)}},
		{"crowded", "waiting", status{"code": 503, "after": 1, "status": line(nil)}},
		{"busy", "busy", status{"code": 503}},
		{"expired-absent", "expiredAbsent", status{"status": status{"state": "expired", "reason": "absent", "seq": "g.1"}}},
		{"expired-missed", "expiredMissed", status{"status": status{"state": "expired", "reason": "missed_offers", "seq": "g.1"}}},
		{"left", "left", status{"status": status{"state": "left", "seq": "g.1"}}},
		{"ended", "ended", status{"status": status{"state": "ended", "seq": "g.1"}}},
		{"closed", "closed", status{"status": status{"state": "closed", "queueState": "closed", "seq": "g.1"}}},
		{"no-such-line", "missing", status{"code": 404}},
		{"sign-in", "identity", status{"code": 403}},
		{"refused", "refused", status{"code": 400}},
	} {
		told, err := json.Marshal(c.told)
		if err != nil {
			t.Fatal(err)
		}
		evaluate[bool](fan, fmt.Sprintf("sessionStorage.told = %q, localStorage.clear(), true", told))
		fan.reload()
		fan.waitFor(c.name, fmt.Sprintf("sessionStorage.told === %q && document.body && document.body.dataset.state === %q", told, c.want))
		switch c.name {
		case "offline", "crowded":
			fan.waitFor("the note", "!document.getElementById('note').hidden")
		}
		for _, width := range []int64{320, 390, 1280} {
			call(fan, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
				Width: width, Height: 800, DeviceScaleFactor: 1, Mobile: width < 500,
			})
			for _, wrong := range evaluate[[]string](fan, misfits) {
				t.Errorf("%s, %d pixels wide: %s", c.name, width, wrong)
			}
		}
		call(fan, emulation.ClearDeviceMetricsOverride, cdp.Empty{})
		fan.picture("view-" + c.name)
	}
}

// misfits lists what does not fit: text beside the screen or wider than its box, and buttons that
// are smaller than a thumb needs (44 pixels, WCAG 2.5.5).
const misfits = `(() => {
	const wrong = [];
	for (const e of document.querySelectorAll('main, main *')) {
		const box = e.getBoundingClientRect();
		if (box.width === 0 || e.id === 'live') continue;
		const name = e.tagName.toLowerCase() + '#' + e.id;
		if (box.left < 0 || box.right > innerWidth) wrong.push(name + ' lies beside the screen');
		if (e.scrollWidth > Math.ceil(box.width)) wrong.push(name + ' is wider than its box');
		if (e.tagName === 'BUTTON' && (box.height < 44 || box.width < 44)) wrong.push(name + ' is too small for a thumb');
	}
	if (document.documentElement.scrollWidth > innerWidth) wrong.push('the page scrolls sideways');
	return wrong;
})()`
