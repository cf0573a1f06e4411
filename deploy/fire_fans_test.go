package deploy_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// watchEvery is how often a client looks after its fans whose turn may have come.
	watchEvery = 100 * time.Millisecond
	// tryAgain is how long a client waits after a 503.
	tryAgain = 50 * time.Millisecond
)

// fireClient plays many fans, one request at a time, on connections to both edges. What it is
// answered it keeps for the observer.
type fireClient struct {
	fire   *fire
	home   int // the edge that its fans join on
	edges  [2]*rawClient
	origin string // its URL
	dice   *rand.Rand

	fans      []*fireFan // in the order of their positions
	turn      []*fireFan // of them, those whose turn may have come and who are not out
	next      int        // index of the first fan whose turn has not come
	watched   time.Duration
	joins     []joined
	holdings  []*holding
	prolonged []time.Duration // when a running offer was seen to have another claimBy
	ended     map[string]int  // how offers and sessions ended
}

// fireFan is a fan in line.
type fireFan struct {
	position   uint64
	ticket, id string
	claims     bool          // when offered a slot; else the offer lapses
	leaves     bool          // what it holds, by itself, rather than claiming or waiting for the shop
	releases   bool          // the shop ends its session, rather than the window
	stays      time.Duration // in the shop, at the most

	state   string // as last told
	entry   uint64 // of the log, from which that was told
	waited  time.Time
	offer   *holding // the one that runs; nil without one
	session string
	leaving time.Duration // when to end the session, by the observer's clock
	touched time.Duration // when it may have begun to be gone: its first offer seen, or its leaving
	out     bool
}

// fanStatus is what the observer reads of a status.
type fanStatus struct {
	Ticket, TicketID, State, Reason, Seq string
	Position                             uint64
	Now, ClaimBy                         time.Time
	Stale                                bool
}

func (s *fanStatus) entry() uint64 {
	_, number, _ := strings.Cut(s.Seq, ".")
	entry, _ := strconv.ParseUint(number, 10, 64)
	return entry
}

// trickle lets fans come in ones and twos until it is over.
func (c *fireClient) trickle(over <-chan struct{}) error {
	again := time.NewTicker(watchEvery)
	defer again.Stop()
	for {
		select {
		case <-over:
			return nil
		case <-c.fire.ctx.Done():
			return nil
		case <-again.C:
		}
		if c.dice.IntN(16) == 0 {
			if err := c.join(); err != nil {
				return err
			}
		}
		if err := c.watch(); err != nil {
			return err
		}
	}
}

// settle asks a last time after everybody who is not known to be out.
func (c *fireClient) settle() error {
	for _, f := range c.fans {
		if !f.out {
			if err := c.poll(f); err != nil {
				return err
			}
		}
	}
	return nil
}

// ask sends a request until it is answered otherwise than with 503, and tells when the one that was
// answered was sent, and when its answer came.
func (c *fireClient) ask(to *rawClient, request []byte) (status int, body []byte, sent, received time.Duration, err error) {
	for {
		sent = c.fire.now()
		status, body, err = to.ask(request)
		received = c.fire.now()
		if err != nil || status != http.StatusServiceUnavailable {
			return status, body, sent, received, err
		}
		c.fire.busy.Add(1)
		select {
		case <-time.After(tryAgain):
		case <-c.fire.ctx.Done():
			return 0, nil, sent, received, c.fire.ctx.Err()
		}
	}
}

// join has one more fan join: a third of them one of the users, the others anonymous.
func (c *fireClient) join() error {
	user, body, key := anonymous, `{}`, c.fire.in.publishableKey
	if c.dice.IntN(3) == 0 {
		user = c.dice.IntN(c.fire.users)
		body, key = fmt.Sprintf(`{"userId":"user-%d"}`, user), c.fire.in.secretKey
	}
	path := "/queues/" + c.fire.queue + "/tickets"
	status, answer, sent, received, err := c.ask(c.edges[c.home], rawRequest("POST", path, body, "X-API-Key: "+key))
	if err != nil || status != http.StatusCreated && status != http.StatusOK {
		return fmt.Errorf("join: got %d %s (%v), want 201 or 200", status, answer, err)
	}
	var got fanStatus
	if err := json.Unmarshal(answer, &got); err != nil {
		return fmt.Errorf("join: %w", err)
	}
	c.joins = append(c.joins, joined{user, got.Position, status == http.StatusCreated, sent, received})
	if status == http.StatusOK {
		return nil // whoever got the place looks after it
	}
	f := &fireFan{
		position: got.Position, ticket: got.Ticket, id: got.TicketID, touched: never,
		claims: c.dice.IntN(8) > 0, leaves: c.dice.IntN(3) == 0, releases: c.dice.IntN(2) == 0,
		stays: time.Duration(c.dice.IntN(1000)) * time.Millisecond,
		// The join was sent before there was an offer.
		waited: got.Now.Add(sent - received),
	}
	c.fans = append(c.fans, f)
	return c.told(f, &got, sent, received)
}

// watch looks after the fans whose turn may have come, if it is time again.
func (c *fireClient) watch() error {
	if c.fire.now()-c.watched < watchEvery {
		return nil
	}
	c.watched = c.fire.now()
	status, answer, _, _, err := c.ask(c.edges[c.dice.IntN(2)], c.fire.stateRequest)
	var state struct{ Watermark uint64 }
	if err == nil {
		err = json.Unmarshal(answer, &state)
	}
	if err != nil || status != http.StatusOK {
		return fmt.Errorf("state: got %d %s (%v), want 200", status, answer, err)
	}
	for ; c.next < len(c.fans) && c.fans[c.next].position <= state.Watermark; c.next++ {
		c.turn = append(c.turn, c.fans[c.next])
	}
	for _, f := range c.turn {
		if !f.out {
			if err := c.poll(f); err != nil {
				return err
			}
		}
	}
	c.turn = slices.DeleteFunc(c.turn, func(f *fireFan) bool { return f.out })
	return nil
}

// poll asks one edge or the other for a fan's status.
func (c *fireClient) poll(f *fireFan) error {
	status, answer, sent, received, err := c.ask(c.edges[c.dice.IntN(2)], rawRequest("GET", "/tickets/"+f.id, "", "Authorization: Bearer "+f.ticket))
	var got fanStatus
	if err == nil {
		err = json.Unmarshal(answer, &got)
	}
	if err != nil || status != http.StatusOK || got.Position != f.position {
		return fmt.Errorf("poll of position %d: got %d %s (%v), want 200", f.position, status, answer, err)
	}
	return c.told(f, &got, sent, received)
}

// told takes in a status, and has the fan do what it does then.
func (c *fireClient) told(f *fireFan, got *fanStatus, sent, received time.Duration) error {
	if got.entry() < f.entry {
		return nil // the other edge was ahead
	}
	f.state, f.entry = got.State, got.entry()
	switch f.state {
	case "waiting":
		if f.offer != nil {
			c.ended["lapsed"]++
			f.offer = nil
		}
		if !got.Stale {
			f.waited = got.Now
		}
		return nil
	case "admitted":
		f.touched = min(f.touched, received)
		c.sees(f, sight{got.ClaimBy, got.Now, f.waited, sent, received})
		switch {
		case f.claims:
			return c.claim(f)
		case f.leaves:
			return c.leave(f)
		}
		return nil
	case "active":
		if f.session == "" || c.fire.now() < f.leaving {
			return nil
		}
		switch {
		case f.leaves:
			return c.leave(f)
		case f.releases:
			return c.release(f)
		}
		return nil
	}
	f.out = true
	switch {
	case f.state == "expired":
		c.ended["expired "+got.Reason]++
	case f.offer == nil || f.offer.ended == never:
		c.ended[f.state]++
	default:
		c.ended[f.state+" early"]++
	}
	return nil
}

// sees notes an offer that the observer did not know.
func (c *fireClient) sees(f *fireFan, s sight) {
	if f.offer != nil && f.offer.sight.claimBy.Equal(s.claimBy) {
		return
	}
	// A fan who missed an offer gets the next one much later; sooner, it is the same one, prolonged.
	if f.offer != nil && s.claimBy.Sub(f.offer.sight.claimBy) < leastClaim+claimGrace {
		c.prolonged = append(c.prolonged, s.received)
		return
	}
	f.offer = &holding{position: f.position, sight: s, until: s.claimBy.Add(claimGrace), ended: never}
	c.holdings = append(c.holdings, f.offer)
}

// claim claims the offer. The slot is held on, by the session.
func (c *fireClient) claim(f *fireFan) error {
	status, answer, _, received, err := c.ask(c.edges[c.dice.IntN(2)], rawRequest("POST", "/tickets/"+f.id+"/session", "", "Authorization: Bearer "+f.ticket, "Content-Length: 0"))
	switch {
	case err != nil:
		return fmt.Errorf("claim of position %d: %w", f.position, err)
	case status == http.StatusConflict, status == http.StatusGone:
		return nil // it lapsed, and the next poll tells
	case status != http.StatusOK:
		return fmt.Errorf("claim of position %d: got %d %s, want 200", f.position, status, answer)
	}
	var got struct {
		SessionToken string
		ExpiresAt    time.Time
	}
	if err := json.Unmarshal(answer, &got); err != nil {
		return fmt.Errorf("claim of position %d: %w", f.position, err)
	}
	session, starts, err := readSession(got.SessionToken)
	if err != nil {
		return fmt.Errorf("claim of position %d: %w", f.position, err)
	}
	// Started before the offer could lapse, it is the same slot.
	if starts.Before(f.offer.until) {
		f.offer.until = got.ExpiresAt
	}
	// The shop's bell rings every second: in between slots fill up, and the observer misses none.
	f.session, f.leaving = session, (received+f.stays).Truncate(time.Second)+time.Second
	return nil
}

// leave gives up what the fan holds.
func (c *fireClient) leave(f *fireFan) error {
	f.ends(c.fire.now())
	status, answer, _, _, err := c.ask(c.edges[c.dice.IntN(2)], rawRequest("DELETE", "/tickets/"+f.id, "", "Authorization: Bearer "+f.ticket))
	if err != nil || status != http.StatusNoContent {
		return fmt.Errorf("leave of position %d: got %d %s (%v), want 204", f.position, status, answer, err)
	}
	return nil
}

// release has the shop end the session.
func (c *fireClient) release(f *fireFan) error {
	shop, err := dialRaw(c.origin) // an origin keeps no connection that is hardly used
	if err != nil {
		return err
	}
	defer shop.close()
	f.ends(c.fire.now())
	status, answer, _, _, err := c.ask(shop, rawRequest("DELETE", "/sessions/"+f.session, "", "X-API-Key: "+c.fire.in.secretKey))
	// The window may have been faster.
	if err != nil || status != http.StatusNoContent && status != http.StatusNotFound {
		return fmt.Errorf("release of position %d: got %d %s (%v), want 204", f.position, status, answer, err)
	}
	return nil
}

// ends notes that the slot may be free from now on.
func (f *fireFan) ends(now time.Duration) {
	f.touched = min(f.touched, now)
	if f.offer != nil {
		f.offer.ended = min(f.offer.ended, now)
	}
}

// readSession reads a session token's id and start without checking it.
func readSession(token string) (id string, starts time.Time, err error) {
	var claims struct {
		ID       string `json:"jti"`
		IssuedAt int64  `json:"iat"`
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "", time.Time{}, fmt.Errorf("read a session token of %d parts", len(parts))
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err == nil {
		err = json.Unmarshal(payload, &claims)
	}
	if err != nil {
		return "", time.Time{}, fmt.Errorf("read a session token: %w", err)
	}
	return claims.ID, time.Unix(claims.IssuedAt, 0), nil
}
