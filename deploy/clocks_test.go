package deploy_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/tokens"
)

const (
	clocksWindow = 3 * time.Second
	clocksHold   = 6 * time.Second
	// opensAfter the test's beginning; some clock is wrong then.
	opensAfter = 8 * time.Second
)

// TestWallClocksHaveNoSay has a sale go on while the clocks of origins and edges are wrong: by five
// minutes one way and the other, and jumping by an hour, with the lease going to and fro between
// origins of which one lives in the future. Nobody may notice: by a clock that is right, sessions, offers
// and holds last as long as promised, the sale opens on time, backends take the tokens from their first
// second to their last, what was revoked stays so, and all that must be true of a line is.
func TestWallClocksHaveNoSay(t *testing.T) {
	t.Parallel()
	in := setup{kind: datable, origins: 2, ahead: []time.Duration{5 * time.Minute, 0}}.install(t)
	in.edges[1].wall.put(-5 * time.Minute)
	in.awaitWallClock(in.url.origins[0], 5*time.Minute)
	in.awaitWallClock(in.url.edges[1], -5*time.Minute)
	c := &clocks{standoff: newStandoff(in), began: time.Now(), silent: make(map[int]time.Time)}
	awaitFans := c.arrive()
	c.leads = c.coordinator() // as long as there is only one queue to coordinate
	c.backend = in.validator(time.Minute, tokens.FailClosed)
	window := int(clocksWindow / time.Second)
	c.shop = in.createQueue("shop", fmt.Sprintf(`"capacity":100,"purchaseWindowSeconds":%d`, window))
	c.revoking = in.createQueue("revoking", `"capacity":100,"purchaseWindowSeconds":3600`)
	c.held = in.createQueue("held", fmt.Sprintf(`"capacity":0,"holdSeconds":%d`, int(clocksHold/time.Second)))
	c.opensAt = c.began.Add(opensAfter).UTC().Truncate(time.Millisecond)
	c.opening = in.createQueue("opening", fmt.Sprintf(`"capacity":5,"opensAt":%q`, c.opensAt.Format(time.RFC3339Nano)))
	stopWatching, stopStaying := c.watch(), c.stay()

	c.fallSilent()
	c.goShopping("origin 1 five minutes ahead")
	c.takeover(c.endThings)
	c.revokeOne()

	in.origins[1].wall.put(-5 * time.Minute)
	in.awaitWallClock(in.url.origins[1], -5*time.Minute)
	c.fallSilent()
	c.goShopping("and origin 2 five minutes behind")

	jump := func(ahead time.Duration) {
		for _, p := range in.programs() {
			p.wall.put(ahead)
		}
	}
	c.takeover(func(int) { jump(time.Hour) }) // the one that goes on finds itself in the future
	c.fallSilent()
	c.goShopping("all clocks an hour ahead")
	for i, ahead := range []time.Duration{-time.Hour, 0, time.Hour, 0} {
		jump(ahead)
		in.awaitWallClock(in.url.origins[i%2], ahead)
		c.retune(i) // by an operator's token, which is good all the time
	}
	c.revokeOne()

	awaitFans()
	c.awaitExpiries()
	stopStaying()
	stopWatching()
	c.checkLog()
	c.checkSessions()
	c.checkOpening()
	for id, lasts := range map[string]lasting{
		c.queue:    {window: time.Second, claim: time.Second},
		c.shop:     {window: clocksWindow, claim: 5 * time.Minute},
		c.revoking: {window: time.Hour, claim: 5 * time.Minute},
		c.opening:  {window: 20 * time.Minute, claim: 5 * time.Minute},
		c.held:     {},
	} {
		c.checkTimes(id, lasts)
	}
	c.checkRevoked()
}

// clocks is a busy queue under wrong clocks, and beside it queues in each of which one thing is timed.
type clocks struct {
	*standoff
	leads   int       // the origin that coordinates the busy queue
	began   time.Time // by the test's clock, which is right
	backend *tokens.Validator
	opensAt time.Time

	shop, revoking, held, opening string
	silent                        map[int]time.Time // when a fan of held was seen last, by position
	revoked                       []string          // tokens
}

// takeover has the lease go to the other origin while the one that has it is stopped, and meanwhile
// is called with the other one.
func (c *clocks) takeover(meanwhile func(other int)) {
	c.in.t.Helper()
	stopped := c.leads
	c.suspend(stopped)
	for deadline := time.Now().Add(15 * time.Second); c.look().Epoch == c.epoch; c.pause(20 * time.Millisecond) {
		if time.Now().After(deadline) { // on a busy machine the lease went to the other one before
			c.in.origins[stopped].resume()
			stopped = 1 - stopped
			c.suspend(stopped)
			break
		}
	}
	c.leads = 1 - stopped
	c.awaitTakeover(c.leads)
	if meanwhile != nil {
		meanwhile(c.leads)
	}
	c.in.origins[stopped].resume()
}

// admit has a fan join and claim, and checks the token's times by a clock that is right.
func (c *clocks) admit(id string, window time.Duration) (token string, expires time.Time) {
	c.in.t.Helper()
	f := c.in.join(0, id)
	f.awaitState(1, 20*time.Second, "admitted")
	sent := time.Now()
	token = f.enter(1)
	received := time.Now()
	_, payload, _ := strings.Cut(token, ".")
	payload, _, _ = strings.Cut(payload, ".")
	var claims struct{ Iat, Nbf, Exp int64 }
	if text, err := base64.RawURLEncoding.DecodeString(payload); err != nil || json.Unmarshal(text, &claims) != nil {
		c.in.t.Fatalf("read a session token: %q, %v", text, err)
	}
	// Redis's clock and the test's are the same machine's; an origin's measurement of it is not exact.
	const inexact = time.Second
	if iat := time.Unix(claims.Iat, 0); iat.Before(sent.Add(-inexact).Truncate(time.Second)) || iat.After(received.Add(inexact)) || claims.Nbf != claims.Iat {
		c.in.t.Errorf("a session that was claimed between %v and %v has iat %v and nbf %v", sent, received, iat, time.Unix(claims.Nbf, 0))
	}
	if got := time.Duration(claims.Exp-claims.Iat) * time.Second; (got - window).Abs() > time.Second {
		c.in.t.Errorf("a token is good for %v, want the purchase window, %v", got, window)
	}
	return token, time.Unix(claims.Exp, 0)
}

// goShopping follows one session from its start to its end.
func (c *clocks) goShopping(when string) {
	c.in.t.Helper()
	token, expires := c.admit(c.shop, clocksWindow)
	ask := func() (got [3]int) {
		got[0] = verdict(c.backend, token, c.shop)
		for i := range c.in.edges {
			got[1+i] = c.in.access(i, token)
		}
		return got
	}
	const good, over = http.StatusOK, http.StatusGone
	last := ""
	c.in.eventually(clocksWindow+20*time.Second, when+": the session ends for the backend and for both edges", func() bool {
		before := time.Now()
		got := ask()
		if text := fmt.Sprint(got); text != last {
			last = text
			c.in.t.Logf("%s: %v before its end the backend and the edges say %v", when, expires.Sub(before).Round(time.Millisecond), got)
		}
		// An edge is told what the store's time is, some milliseconds late or early.
		if early := time.Until(expires) > 500*time.Millisecond; early && slices.Contains(got[:], over) {
			c.in.t.Errorf("%s: %v before its end the session is over: %v", when, time.Until(expires), got)
		}
		if late := before.Sub(expires) > 500*time.Millisecond; late && slices.Contains(got[:], good) {
			c.in.t.Errorf("%s: %v after its end the session is good: %v", when, before.Sub(expires), got)
		}
		return got == [3]int{over, over, over}
	})
}

// revokeOne has a session revoked, which must remain so whatever the clocks say.
func (c *clocks) revokeOne() {
	c.in.t.Helper()
	token, _ := c.admit(c.revoking, time.Hour)
	url := c.in.url.origins[len(c.revoked)%2] + "/sessions/" + jti(c.in.t, token)
	if got := c.in.request("DELETE", url, "", bearer(c.in.operatorToken)); got.status != http.StatusNoContent {
		c.in.t.Fatalf("revoke: got %d %s, want 204", got.status, got.raw)
	}
	c.revoked = append(c.revoked, token)
}

func (c *clocks) checkRevoked() {
	c.in.t.Helper()
	for _, token := range c.revoked {
		c.in.eventually(10*time.Second, "a revoked session is over for backend and edges", func() bool {
			return verdict(c.backend, token, c.revoking) == http.StatusGone && c.in.access(0, token) == http.StatusGone && c.in.access(1, token) == http.StatusGone
		})
		for _, url := range c.in.url.edges {
			list := c.in.request("GET", url+"/revocations", "", []string{"X-API-Key: " + c.in.secretKey})
			if !strings.Contains(list.raw, jti(c.in.t, token)) {
				c.in.t.Errorf("the revocation of a session that has most of an hour left is not on the list: %s", list.raw)
			}
		}
	}
}

// retune changes a queue through one origin or the other.
func (c *clocks) retune(i int) {
	c.in.t.Helper()
	url := c.in.url.origins[i%2] + "/queues/" + c.shop
	if got := c.in.request("PATCH", url, fmt.Sprintf(`{"capacity":%d}`, 90+i), bearer(c.in.operatorToken)); got.status != http.StatusOK {
		c.in.t.Errorf("retune on origin %d: got %d %s, want 200", i%2+1, got.status, got.raw)
	}
}

// fallSilent has a fan join the queue in which nobody is let in, and never be seen again.
func (c *clocks) fallSilent() {
	c.in.t.Helper()
	before := time.Now()
	c.silent[c.in.join(len(c.silent)%2, c.held).position] = before
}

// stay has one fan stay in the queue in which nobody is let in, and one in that which opens, until
// the returned function is called. They keep their places.
func (c *clocks) stay() (stop func()) {
	c.in.t.Helper()
	ctx, cancel := context.WithCancel(c.in.t.Context())
	var group sync.WaitGroup
	for _, id := range []string{c.held, c.opening} {
		f := c.in.join(0, id)
		group.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				before := time.Now()
				got, _ := c.ask(ctx, "GET", c.in.url.edges[n%2]+"/tickets/"+f.id, "", bearer(f.ticket)...)
				want := "waiting"
				switch {
				case ctx.Err() != nil:
					return
				case id == c.held:
				case time.Now().Before(c.opensAt.Add(-500 * time.Millisecond)):
					want = "scheduled"
				case before.Before(c.opensAt.Add(10 * time.Second)):
					want = got.text("state") // the opening is a tick's, and origins may be stopped
				default:
					want = "admitted"
				}
				if got.text("state") != want {
					c.in.t.Errorf("a fan of %s who is here all the time, %v after the opening: got %s, want %s", id, before.Sub(c.opensAt), got.raw, want)
				}
				c.pause(300 * time.Millisecond)
			}
		})
	}
	return func() { cancel(); group.Wait() }
}

func (c *clocks) entries(id string) []queue.Entry {
	c.in.t.Helper()
	meta, err := c.store.Get(c.in.t.Context(), queue.ID(id))
	if err != nil {
		c.in.t.Fatalf("read queue: %v", err)
	}
	entries, err := c.store.Entries(c.in.t.Context(), queue.ID(id), meta.Incarnation, 0, "", 1_000_000)
	if err != nil {
		c.in.t.Fatalf("read the log: %v", err)
	}
	return entries
}

// awaitExpiries waits until everybody who fell silent has lost the place, nobody before the hold.
func (c *clocks) awaitExpiries() {
	c.in.t.Helper()
	expired := make(map[int]time.Time)
	c.in.eventually(clocksHold+time.Minute, "the silent expire", func() bool {
		for _, e := range c.entries(c.held) {
			if e.Kind != queue.EntryDone {
				continue
			}
			for _, position := range e.Positions {
				expired[int(position)] = e.At
			}
		}
		return len(expired) >= len(c.silent)
	})
	for position, at := range expired {
		if seen, silent := c.silent[position]; !silent || at.Sub(seen) < clocksHold {
			c.in.t.Errorf("position %d lost its place %v after it was seen, want at least %v", position, at.Sub(seen), clocksHold)
		}
	}
}

func (c *clocks) checkOpening() {
	c.in.t.Helper()
	for _, e := range c.entries(c.opening) {
		if e.Kind == queue.EntrySettings && e.Settings.State == queue.Open {
			if late := e.At.Sub(c.opensAt); late < 0 || late > 10*time.Second {
				c.in.t.Errorf("the queue opened %v after its time", late)
			}
			return
		}
	}
	c.in.t.Error("the queue never opened")
}

// lasting is how long sessions and offers of a queue last.
type lasting struct{ window, claim time.Duration }

// checkTimes reads a queue's log: it was written in the time that the test took, by a clock that is
// right, and nothing ended before its time.
func (c *clocks) checkTimes(id string, lasts lasting) {
	c.in.t.Helper()
	wrong := func(e queue.Entry, what string, args ...any) {
		c.in.t.Errorf("%s, entry %d (%s at %v): %s", id, e.Number, e.Kind, e.At, fmt.Sprintf(what, args...))
	}
	offers, sessions := make(map[uint64]time.Time), make(map[uint64]time.Time) // until when
	ends := func(e queue.Entry, position uint64, until time.Time) {
		if e.At.Before(until) {
			wrong(e, "position %d had until %v", position, until)
		}
	}
	const inexact = time.Second
	for _, e := range c.entries(id) {
		if e.At.Before(c.began.Add(-20*time.Second)) || e.At.After(time.Now().Add(inexact)) {
			wrong(e, "written between %v and %v", c.began, time.Now())
		}
		if e.Kind == queue.EntryProlonged {
			for position := range offers {
				offers[position] = offers[position].Add(e.Until.Sub(e.Since))
			}
		}
		for _, position := range e.Positions {
			switch {
			case e.Kind == queue.EntryOffered:
				if got := e.Until.Sub(e.At); got != lasts.claim {
					wrong(e, "an offer for %v, want %v", got, lasts.claim)
				}
				offers[position] = e.Until.Add(queue.ClaimGrace)
			case e.Kind == queue.EntryClaimed:
				// Tokens know whole seconds, so that a window may be longer by a part of one.
				if got := e.Until.Sub(e.At); got < lasts.window || got >= lasts.window+time.Second || !e.Since.Equal(e.At) {
					wrong(e, "a session from %v for %v, want one from now for %v", e.Since, got, lasts.window)
				}
				sessions[position] = e.Until
			case e.Kind == queue.EntryLapsed, e.Kind == queue.EntryDone && e.Fate == queue.Missed:
				ends(e, position, offers[position])
			case e.Kind == queue.EntryDone && e.Reason == queue.ReasonWindow:
				ends(e, position, sessions[position])
			}
		}
	}
}
