package main

import (
	"fmt"
	"testing"
	"time"
)

// countAsked counts what the page asks for, live connections among it. Its clock can be put forward.
const countAsked = `
	const send = window.fetch, mono = performance.now.bind(performance);
	let skipped = 0;
	performance.now = () => mono() + skipped;
	window.skip = (seconds) => { skipped += 1000 * seconds; return true; };
	window.asked = {state: 0, ticket: 0, live: 0};
	window.WebSocket = new Proxy(window.WebSocket, {construct(Socket, how) {
		window.asked.live += 1;
		return new Socket(...how);
	}});
	window.fetch = (path, options) => {
		if (path.endsWith('/state')) window.asked.state += 1;
		if (path.endsWith('/events')) window.asked.live += 1;
		else if (path.startsWith('/tickets/') && options.method === 'GET') window.asked.ticket += 1;
		return send(path, options);
	};`

// Behind a cache a fan sees what everybody sees, by the document that is the same for all: the line
// moving, a pause, the turn. The page asks for its own status only to be seen, and when its turn
// has come.
func TestAFanWaitsBehindACache(t *testing.T) {
	t.Parallel() // it mostly waits
	a := startDemo(t, func(o *Options) { o.Polling, o.Hold = "cached", 30*time.Minute })
	_, session := enter(t, a)
	app := testApp(a)
	first, err := app.join(t.Context(), a.Queue)
	if err != nil {
		t.Fatal(err)
	}
	browser := startBrowser(t)
	fan := newFan(t, browser)
	fan.inject(countAsked)
	fan.open(waitingPage(a, a.Shop+"/"))
	fan.waitState("waiting")
	asked := func(what string) int { return evaluate[int](fan, "window.asked."+what) }

	if err := app.leave(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	fan.waitState("next")
	patch(t, a, `{"state":"paused"}`)
	fan.waitState("paused")
	patch(t, a, `{"state":"open"}`)
	fan.waitState("next")
	if own, all := asked("ticket"), asked("state"); own != 0 || all < 3 {
		t.Errorf("the line moved, paused and went on: the page asked %d times for its own status and %d times for the public state; want never, and some", own, all)
	}

	// 48 seconds are 0.8 of a turn.
	evaluate[bool](fan, "window.skip(48)")
	fan.waitFor("the page to be seen", "window.asked.ticket === 1")
	before := asked("state")
	fan.waitFor("the page to go on reading", fmt.Sprintf("window.asked.state > %d", before+1))
	if own := asked("ticket"); own != 1 {
		t.Errorf("asked for its own status %d times in a turn; want once", own)
	}

	if live := asked("live"); live != 0 {
		t.Errorf("opened %d live connections; want none where a cache answers the polls", live)
	}
	if err := app.buy(t.Context(), session); err != nil {
		t.Fatal(err)
	}
	fan.waitInside()
	fan.checkNoToken()
}
