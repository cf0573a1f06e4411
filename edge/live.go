package edge

import (
	"bytes"
	"context"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"waitingroom/edge/hub"
	"waitingroom/origin/queue"
)

// ticketProtocol begins the subprotocol by which a browser's script can present a ticket, since it
// can set no header of a WebSocket's handshake.
const ticketProtocol = "ticket."

// getSocket answers GET /tickets/{id}/ws: the handshake of a WebSocket.
func (s *Server) getSocket(ctx *fasthttp.RequestCtx) error {
	token, given, err := presentedToSocket(ctx)
	if err != nil {
		return err
	}
	h, err := s.holderWith(ctx, token, given, (*Server).verifyLiveTicket)
	if err != nil {
		return err
	}
	if err := s.allowSocket(ctx, &h); err != nil {
		return err
	}
	if hub.IsHandshake(ctx) { // all else costs nobody a turn
		if err := s.admitLive(); err != nil {
			return err
		}
	}
	if err := h.line.live.UpgradeWebSocket(ctx, s.fan(&h)); err != nil {
		ctx.Response.Header.Set(fasthttp.HeaderUpgrade, "websocket")
		ctx.Response.Header.Set("Sec-WebSocket-Version", "13")
		return errHandshake
	}
	return nil
}

// getEvents answers GET /tickets/{id}/events: a stream of Server-Sent Events.
func (s *Server) getEvents(ctx *fasthttp.RequestCtx) error {
	token, given, err := bearer(ctx)
	if err != nil {
		return err
	}
	h, err := s.holderWith(ctx, token, given, (*Server).verifyLiveTicket)
	if err != nil {
		return err
	}
	after := string(ctx.Request.Header.Peek("Last-Event-ID"))
	if status := s.statusUnseen(h.line, h.ticket.Position); after != "" && !holdsPlace(&status) {
		// The last event was told, or GET /tickets/{id} tells it; no other answer ends an EventSource.
		ctx.Response.Header.Set(fasthttp.HeaderCacheControl, "no-store")
		ctx.SetStatusCode(fasthttp.StatusNoContent)
		return nil
	}
	if err := s.admitLive(); err != nil {
		return err
	}
	h.line.live.ServeEvents(ctx, s.fan(&h), after)
	return nil
}

// fan is what the hub keeps of a ticket, and no more: there are many.
func (s *Server) fan(h *holder) hub.Fan {
	fan := hub.Fan{Position: h.ticket.Position, Expires: h.ticket.ExpiresAt.Unix()}
	if ring := s.known.current.Load().keys.tickets.Rings[h.line.id.Tenant()]; ring != nil {
		fan.Key = ring.KeyID(h.token, s.known.clock.now())
	}
	return fan
}

// presentedToSocket finds the ticket of a handshake: a bearer token, or one of the subprotocols that
// are offered. Whoever offers some must offer that of the live events.
func presentedToSocket(ctx *fasthttp.RequestCtx) (token []byte, given bool, err error) {
	if token, given, err = bearer(ctx); err != nil {
		return nil, false, err
	}
	offered, ours := false, false
	for _, value := range ctx.Request.Header.PeekAll("Sec-WebSocket-Protocol") {
		for protocol := range bytes.SplitSeq(value, []byte{','}) {
			protocol = bytes.Trim(protocol, " \t")
			offered = true
			if string(protocol) == hub.Protocol {
				ours = true
				continue
			}
			if presented, is := bytes.CutPrefix(protocol, []byte(ticketProtocol)); is {
				if given {
					return nil, false, errDuplicateHeader
				}
				token, given = presented, true
			}
		}
	}
	if offered && !ours {
		return nil, false, errSubprotocol
	}
	return token, given, nil
}

// allowSocket refuses the page of a stranger. A browser lets any page open a WebSocket to anywhere,
// and sends the cookie with it; and what CORS does for other answers, nobody does for a
// WebSocket's. So with the cookie only the waiting page itself may connect, and with the ticket in
// its hands also a shop of the queue. Apps send no Origin.
func (s *Server) allowSocket(ctx *fasthttp.RequestCtx, h *holder) error {
	origins := ctx.Request.Header.PeekAll(fasthttp.HeaderOrigin)
	switch {
	case s.samePage(ctx):
		return nil
	case h.cookie, len(origins) > 1:
		return errOrigin
	case len(origins) == 0:
		return nil
	}
	if _, allowed := h.line.view.Load().returnTo[string(origins[0])]; !allowed {
		return errOrigin
	}
	return nil
}

// admitLive decides whether this edge takes one more live connection now. When a neighbour dies, its
// fans come all at once; they are taken in at a pace at which those who are here notice nothing.
func (s *Server) admitLive() error {
	switch {
	case s.stopping.Load():
		s.metrics.liveTurnedAway.WithLabelValues(liveStopping).Inc()
		return errStopping
	case s.hub.Open() >= s.Config.Limits.LiveConnections:
		s.metrics.liveTurnedAway.WithLabelValues(liveConnections).Inc()
		return errTooManyLive
	}
	if wait := s.upgrades.take(s.upgradeRate, time.Since(s.limits.start)); wait > 0 {
		s.metrics.liveTurnedAway.WithLabelValues(liveUpgrades).Inc()
		return errTooManyLive.after(wait)
	}
	return nil
}

// watchLive does for live connections what falls due with time, until ctx ends.
func (s *Server) watchLive(ctx context.Context) {
	wasStale := false
	for {
		if pause(ctx, time.Second); ctx.Err() != nil {
			return
		}
		at := s.known.clock.read()
		for _, l := range s.known.current.Load().lines {
			view := l.view.Load()
			if turn := view.turn(at.own, at.stale); l.watched != turn {
				l.watched = turn
				s.known.seeConnected(l, at)
			}
			if at.stale != wasStale {
				l.live.TellAll(false)
			}
			l.live.Advance(standing{view.View}, false)
			l.live.Refuse(func(f hub.Fan) bool { return at.now.Unix() >= f.Expires })
		}
		wasStale = at.stale
		s.hub.Sweep()
	}
}

// teller renders what the live connections of a line are told.
type teller struct {
	*line
	clock *clock
}

// Tell implements hub.Teller.
func (t teller) Tell(b []byte, c *hub.Conn) ([]byte, hub.Event) {
	view := t.view.Load()
	shared := view.sharedNow(t.clock)
	at := shared.at
	status := statusIn(view, c.Position, at)
	inLine := holdsPlace(&status)
	if inLine && status.State != queue.TicketActive {
		t.seen.note(view.turn(at.own, at.stale), view.Number, c.Position, at.own)
	}
	if knowsMore(c.After(), view) {
		return b, hub.Event{Later: true}
	}
	before, now := told(c.Told()), toldOf(&status)
	if before == now && status.State == queue.TicketActive {
		return b, hub.Event{} // nothing that it is shown moves
	}
	event := hub.Event{Name: eventName(before, status.State), Seq: status.Seq, State: uint8(now), Ahead: hub.NoAhead, Out: !inLine}
	if status.Ahead != nil {
		event.Ahead = *status.Ahead
	}
	return append(appendOwnMembers(b, &status), shared.members...), event
}

// longestEntry is how long the number of an entry is at most.
const longestEntry = 20

// knowsMore reports whether a client has been told of a later entry of the same generation than
// the view's.
func knowsMore(after string, v *lineView) bool {
	generation, number, ok := strings.Cut(after, ".")
	if !ok || generation != v.Generation() || len(number) > longestEntry {
		return false // a long one is not ours, and would be kept
	}
	entry, err := parseEntry(number)
	return err == nil && entry > v.Number
}

// sharedFor is how long the shared members of live events are used: many events are told together.
const sharedFor = 10 * time.Millisecond

// sharedMembers are the members of the status document that are the same for everybody who is told
// a view at one moment.
type sharedMembers struct {
	at      reading
	members []byte
}

// sharedNow makes them once for all who are told at this moment.
func (v *lineView) sharedNow(c *clock) *sharedMembers {
	if made := v.shared.Load(); made != nil && time.Since(made.at.own) < sharedFor {
		return made
	}
	at := c.read()
	made := &sharedMembers{at, appendSharedMembers(nil, &queue.Status{Now: at.now, Seq: queue.Seq(v.Generation(), v.Number), Stale: at.stale})}
	v.shared.Store(made)
	return made
}
