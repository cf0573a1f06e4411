package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// signIn signs in at the shop, which sends the fan on to the waiting page or lets the fan in.
func (b *tab) signIn(a Access, name string) {
	b.t.Helper()
	b.open(a.Shop + "/sign-in")
	b.waitFor("the form", "document.getElementById('name') !== null")
	evaluate[bool](b, fmt.Sprintf("document.getElementById('name').value = %q, true", name))
	b.click("sign-in")
}

// place waits until the tab stands in line, and tells where.
func (b *tab) place(a Access, state string) (ticket, position string) {
	b.t.Helper()
	b.waitState(state)
	b.checkNoToken()
	if at := evaluate[string](b, "location.hash"); strings.Contains(at, "wr_user") {
		b.t.Errorf("got the fragment %s; want the user's token taken out", at)
	}
	return b.ticketID(a.Queue), b.text("#position")
}

// The same user in two browsers has one place. Leaving with the one is seen in the other, and a
// browser that has only its cookie left fetches the user's name from the shop before it joins again.
func TestOneUserInTwoBrowsers(t *testing.T) {
	a := startDemo(t, nil)
	enter(t, a)
	browser := startBrowser(t)
	phone, laptop, other := newFan(t, browser), newFan(t, browser), newFan(t, browser)
	phone.signIn(a, "Ana Ü")
	ticket, position := phone.place(a, "next")
	if position != "2" {
		t.Errorf("phone: got position %s; want 2", position)
	}
	other.signIn(a, "Ben")
	if otherTicket, otherPosition := other.place(a, "waiting"); otherTicket == ticket || otherPosition != "3" {
		t.Errorf("another user: got ticket %s at %s; want one of their own at 3", otherTicket, otherPosition)
	}
	laptop.signIn(a, "Ana Ü")
	if gotTicket, gotPosition := laptop.place(a, "next"); gotTicket != ticket || gotPosition != position {
		t.Errorf("laptop: got ticket %s at %s; want the phone's, %s at %s", gotTicket, gotPosition, ticket, position)
	}
	laptop.picture("user")

	phone.click("leave")
	phone.click("really-leave")
	phone.waitState("left")
	left := time.Now()
	laptop.waitState("left")
	if took := time.Since(left); took > 2*time.Second {
		t.Errorf("laptop: saw that the phone left after %s; want two seconds at the most", took)
	}
	other.waitState("next")

	laptop.reload()
	laptop.waitState("left")
	laptop.click("again")
	laptop.waitState("waiting")
	again, position := laptop.place(a, "waiting")
	if again == ticket || position != "4" {
		t.Errorf("laptop, joined again: got ticket %s at %s; want a new one at 4", again, position)
	}
	phone.click("again") // its page still has the token
	if gotTicket, gotPosition := phone.place(a, "waiting"); gotTicket != again || gotPosition != "4" {
		t.Errorf("phone, joined again: got ticket %s at %s; want the laptop's, %s at 4", gotTicket, gotPosition, again)
	}
}

// When the turn comes, both browsers of a user are let in with one session.
func TestOneUserEntersWithTwoBrowsers(t *testing.T) {
	a := startDemo(t, nil)
	_, session := enter(t, a)
	browser := startBrowser(t)
	phone, laptop := newFan(t, browser), newFan(t, browser)
	for _, b := range []*tab{phone, laptop} {
		b.signIn(a, "Ana")
		b.place(a, "next")
	}
	if err := testApp(a).buy(t.Context(), session); err != nil {
		t.Fatal(err)
	}
	ids := make(map[string]bool)
	for _, b := range []*tab{phone, laptop} {
		b.waitInside()
		if got := b.text("#user"); got != "Ana" {
			t.Errorf("the shop greets %q; want Ana", got)
		}
		ids[b.sessionID(a)] = true
	}
	if len(ids) != 1 {
		t.Errorf("got the sessions %v; want one", ids)
	}
	// Bought with the one, the session is over for the other too.
	phone.click("buy")
	phone.waitFor("the thanks", "document.getElementById('thanks') !== null")
	eventually(t, "the shop to hear of it", 10*time.Second, func() bool {
		code, _ := send(t, "GET", a.Shop+"/", bearer(laptop.session(a)), "")
		return code == http.StatusGone
	})
	laptop.open(a.Shop + "/")
	laptop.waitState("ended")
}

// session is the token in the shop's cookie; empty without one.
func (b *tab) session(a Access) string {
	b.t.Helper()
	for _, cookie := range b.cookies(a.Shop) {
		if cookie.Name == "wr_session_"+a.Queue {
			return cookie.Value
		}
	}
	return ""
}

// sessionID is the id of Ana's session.
func (b *tab) sessionID(a Access) string {
	b.t.Helper()
	var claims struct{ Jti, Sub string }
	if err := json.Unmarshal(payload(b.t, b.session(a)), &claims); err != nil || claims.Sub != "Ana" {
		b.t.Errorf("got a session of %q, %v; want Ana's", claims.Sub, err)
	}
	return claims.Jti
}

// Whoever signs in as somebody else in the same browser has their own place, and the first one's is
// kept for the first one.
func TestTwoUsersOfOneBrowser(t *testing.T) {
	a := startDemo(t, nil)
	enter(t, a)
	fan := newFan(t, startBrowser(t))
	fan.open(waitingPage(a, a.Shop+"/"))
	fan.waitState("next")
	fan.signIn(a, "Ana")
	anas, position := fan.place(a, "waiting")
	if position != "3" {
		t.Errorf("Ana, after an anonymous fan: got position %s; want 3", position)
	}
	fan.signIn(a, "Ben")
	fan.waitFor("Ben's place", "document.getElementById('position').textContent === '4'")
	fan.signIn(a, "Ana")
	fan.waitFor("Ana's place", "document.getElementById('position').textContent === '3'")
	if got, _ := fan.place(a, "waiting"); got != anas {
		t.Errorf("Ana again: got ticket %s; want hers, %s", got, anas)
	}
}

// A session that somebody else planted does not open the shop for a signed-in user, who is led to
// the line to stand in it by name.
func TestAPlantedSessionIsRefused(t *testing.T) {
	a := startDemo(t, func(o *Options) { o.Capacity = 2 })
	var bens fan
	code, text := send(t, "POST", a.Edge+"/queues/"+a.Queue+"/tickets", http.Header{"X-Api-Key": {a.SecretKey}}, `{"userId":"Ben"}`)
	if err := json.Unmarshal([]byte(text), &bens); err != nil || code != http.StatusCreated {
		t.Fatalf("join for Ben: got %d %s; want 201", code, text)
	}
	session, err := testApp(a).claim(t.Context(), bens)
	if err != nil {
		t.Fatal(err)
	}
	victim := newFan(t, startBrowser(t))
	victim.signIn(a, "Ana")
	victim.waitInside()
	own := victim.sessionID(a)
	victim.open(a.Shop + "/?wr_session=" + session)
	victim.waitFor("the refusal", "document.querySelector('a') !== null && document.getElementById('inside') === null")
	if got := victim.text("h1"); got != "This session belongs to another user" {
		t.Errorf("got the title %q; want to be told whose it is", got)
	}
	if got := victim.sessionID(a); got != own {
		t.Errorf("got the session %s afterwards; want Ana's own, %s", got, own)
	}
	evaluate[bool](victim, "document.querySelector('a').click(), true")
	victim.waitState("active")
	victim.click("go")
	victim.waitInside()
	if got := victim.sessionID(a); got != own {
		t.Errorf("let in with the session %s; want Ana's own, %s", got, own)
	}
}

// Where users are required, a page without one leads to the shop.
func TestThePageAsksToSignIn(t *testing.T) {
	a := startDemo(t, nil)
	enter(t, a)
	patch(t, a, `{"identity":"required"}`)
	fan := newFan(t, startBrowser(t))
	fan.open(waitingPage(a, a.Shop+"/sign-in"))
	fan.waitState("identity")
	fan.picture("identity")
	fan.click("again")
	fan.waitFor("the form", "document.getElementById('name') !== null")
	fan.signIn(a, "Ana")
	if _, position := fan.place(a, "next"); position != "2" {
		t.Errorf("signed in: got position %s; want 2", position)
	}
}
