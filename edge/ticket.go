package edge

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"waitingroom/origin/queue"
	"waitingroom/tokens"
)

// ticket is a verified ticket.
type ticket struct {
	tokens.Ticket
	queue queue.ID
}

// holder is whoever presented a valid ticket of a running queue.
type holder struct {
	line   *line
	ticket *ticket
	// token is the ticket as it was presented. It belongs to the request: copy it to keep it.
	token []byte
	// cookie says that it came in the page's cookie and not as a bearer token.
	cookie bool
}

// holder finds out who presents the ticket that the path names. A bearer token goes before the
// cookies; a cookie counts for requests that change something only from the page's own Origin,
// because a browser sends it whoever made the request.
func (s *Server) holder(ctx *fasthttp.RequestCtx) (holder, error) {
	token, given, err := bearer(ctx)
	if err != nil {
		return holder{}, err
	}
	return s.holderWith(ctx, token, given, (*Server).verifyTicket)
}

// holderWith does the same with the token that was found elsewhere in the request, or with another
// way to verify it.
func (s *Server) holderWith(ctx *fasthttp.RequestCtx, token []byte, given bool, verify verification) (holder, error) {
	snap, err := s.ready()
	if err != nil {
		return holder{}, err
	}
	id := pathValue(ctx, "id")
	h := holder{token: token}
	if given {
		if h.ticket, err = verify(s, snap, token); err != nil {
			return holder{}, err
		}
		if h.ticket.ID != id {
			return holder{}, errTicketInvalid
		}
		if err = allowOrigin(ctx, snap.lines[h.ticket.queue]); err != nil {
			return holder{}, err
		}
	} else if h, err = s.cookieHolder(ctx, snap, id, verify); err != nil {
		return holder{}, err
	}
	if h.line, err = s.lineOf(snap, h.ticket); err != nil {
		return holder{}, err
	}
	return h, nil
}

// cookieHolder looks for the path's ticket among the page's cookies.
func (s *Server) cookieHolder(ctx *fasthttp.RequestCtx, snap *snapshot, id string, verify verification) (holder, error) {
	cookies, err := s.ticketCookies(ctx)
	if err != nil {
		return holder{}, err
	}
	if len(cookies) == 0 {
		return holder{}, errTicketRequired
	}
	if !ctx.IsGet() && !ctx.IsHead() && !s.samePage(ctx) {
		return holder{}, errOrigin
	}
	// A browser holds a cookie for each queue that its user waits in. The id begins with the
	// incarnation, which tells the one that counts; the others are looked at only when no queue
	// here has it, because it was deleted.
	var own []ticketCookie
	for _, c := range cookies {
		if l := snap.lines[queue.ID(c.queue)]; l != nil && strings.HasPrefix(id, l.incarnation+"-") {
			own = append(own, c)
		}
	}
	if own != nil {
		cookies = own
	}
	for _, c := range cookies[:min(len(cookies), mostPlaces)] {
		if t, err := verify(s, snap, c.token); err == nil && t.ID == id && c.queue == t.Queue {
			return holder{ticket: t, token: c.token, cookie: true}, nil
		}
	}
	return holder{}, errTicketInvalid
}

// verification checks a ticket's signature and claims.
type verification func(s *Server, snap *snapshot, token []byte) (*ticket, error)

// verifyTicket checks a ticket's signature and claims, or remembers that it did; the expiry is
// compared every time.
func (s *Server) verifyTicket(snap *snapshot, token []byte) (*ticket, error) {
	t, known, err := s.verifyOnce(snap, token)
	if err == nil && !known {
		snap.keys.knownTickets.add(token, t)
	}
	return t, err
}

// verifyLiveTicket does the same for a connection that stays: its ticket will not come again
// soon, and to remember it would take more memory than the connection itself.
func (s *Server) verifyLiveTicket(snap *snapshot, token []byte) (*ticket, error) {
	t, _, err := s.verifyOnce(snap, token)
	return t, err
}

// verifyOnce is verifyTicket for a token that it need not remember; known reports that it did.
func (s *Server) verifyOnce(snap *snapshot, token []byte) (t *ticket, known bool, err error) {
	now := s.known.clock.now()
	t, known = snap.keys.knownTickets.get(token)
	if !known {
		claims, err := snap.keys.tickets.Verify(token, now)
		if err != nil {
			return nil, false, err
		}
		t = &ticket{claims, queue.ID(claims.Queue)}
	}
	if !now.Before(t.ExpiresAt) {
		return nil, known, errTicketExpired
	}
	if l := snap.lines[t.queue]; !known && l != nil && l.incarnation == t.Incarnation {
		l.raise(t.Position)
	}
	return t, known, nil
}

// lineOf finds the line in which a valid ticket stands. A ticket of a queue that was deleted is
// out for good; one that may be younger than what this edge has heard is asked to come back.
func (s *Server) lineOf(snap *snapshot, t *ticket) (*line, error) {
	l := snap.lines[t.queue]
	if l == nil {
		if deleted, known := snap.gone[t.queue]; known && !t.IssuedAt.After(deleted) {
			return nil, errEarlierQueue
		}
		if s.known.clock.stale() || s.known.clock.now().Sub(t.IssuedAt) < 2*staleAfter {
			return nil, errTicketUnknownYet
		}
		return nil, errEarlierQueue
	}
	view := l.view.Load()
	if l.incarnation != t.Incarnation {
		if t.IssuedAt.Before(view.CreatedAt) {
			return nil, errEarlierQueue
		}
		return nil, errTicketUnknownYet
	}
	if !view.Knows(t.Generation) {
		return nil, errTicketUnknownYet
	}
	return l, nil
}

// sign makes the ticket of a join's answer. It outlives the queue's opening, also one that is put
// off as far as it can be.
func (s *Server) sign(snap *snapshot, l *line, a joinAnswer, subject string) (token []byte, t tokens.Ticket, err error) {
	now := s.known.clock.now()
	from := now
	if opens := l.view.Load().Settings.OpensAt; opens.After(now) {
		from = opens
	}
	t = tokens.Ticket{
		Queue: string(l.id), ID: tokens.TicketID(a.incarnation, a.Position), IssuedAt: now,
		ExpiresAt: from.Add(tokens.TicketLifetime), Subject: subject,
		Position: a.Position, Incarnation: a.incarnation, Generation: a.generation,
	}
	if token, err = snap.keys.tickets.Sign(nil, t, now); err != nil {
		return nil, tokens.Ticket{}, fmt.Errorf("answer join: %w", err)
	}
	return token, t, nil
}

var bearerScheme = []byte("bearer ")

// bearer reads the Authorization header.
func bearer(ctx *fasthttp.RequestCtx) (token []byte, given bool, err error) {
	values := ctx.Request.Header.PeekAll(fasthttp.HeaderAuthorization)
	switch len(values) {
	case 0:
		return nil, false, nil
	case 1:
	default:
		return nil, false, errDuplicateHeader
	}
	value := values[0]
	if len(value) <= len(bearerScheme) || !bytes.EqualFold(value[:len(bearerScheme)], bearerScheme) {
		return nil, false, errAuthorization
	}
	return value[len(bearerScheme):], true, nil
}

// presentedAPIKey reads X-API-Key. An unknown key is an error, whatever is asked with it.
func presentedAPIKey(ctx *fasthttp.RequestCtx, k *keys) (key apiKey, given bool, err error) {
	values := ctx.Request.Header.PeekAll("X-API-Key")
	switch len(values) {
	case 0:
		return apiKey{}, false, nil
	case 1:
	default:
		return apiKey{}, false, errDuplicateHeader
	}
	key, known := k.apiKey(string(values[0]))
	if !known {
		return apiKey{}, false, errAPIKeyInvalid
	}
	return key, true, nil
}

// oneQueryValue reads a query parameter that may be there at most once.
func oneQueryValue(ctx *fasthttp.RequestCtx, name string) (value string, given bool, err error) {
	for k, v := range ctx.QueryArgs().All() {
		if string(k) != name {
			continue
		}
		if given {
			return "", true, errDuplicateQuery
		}
		value, given = string(v), true
	}
	return value, given, nil
}

// pathValue is a part of the path. It belongs to the request: clone it to keep it.
func pathValue(ctx *fasthttp.RequestCtx, name string) string {
	value, _ := ctx.UserValue(name).(string)
	return value
}

// lifetime of the page's cookie: the ticket's own.
func cookieAge(t *tokens.Ticket, now time.Time) int { return int(t.ExpiresAt.Sub(now) / time.Second) }
