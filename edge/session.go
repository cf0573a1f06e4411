package edge

import (
	"context"
	"errors"
	"time"

	"github.com/valyala/fasthttp"

	"waitingroom/origin/queue"
	"waitingroom/origin/wire"
)

// originDeadline is how long a fan waits for the origin's answer to a claim or a leave.
const originDeadline = 5 * time.Second

// callOrigin runs a call that waits for the origin; only so many wait at once.
func (s *Server) callOrigin(call func(ctx context.Context) error) error {
	select {
	case s.calls <- struct{}{}:
	default:
		return errTooManyCalls
	}
	defer func() { <-s.calls }()
	ctx, cancel := context.WithTimeout(s.work, originDeadline)
	defer cancel()
	return call(ctx)
}

// postSession answers POST /tickets/{id}/session: the offer becomes a session, or the session
// that runs already is given again.
func (s *Server) postSession(ctx *fasthttp.RequestCtx) error {
	h, err := s.holder(ctx)
	if err != nil {
		return err
	}
	if err := emptyBody(ctx); err != nil {
		return err
	}
	status := s.status(h.line, h.ticket.Position)
	if !holdsPlace(&status) {
		return ticketOut(status) // a fate is final: the origin need not be asked
	}
	var answer wire.ClaimResponse
	err = s.callOrigin(func(ctx context.Context) error {
		var err error
		answer, err = s.Origin.Claim(ctx, wire.ClaimRequest{Ticket: string(h.token)})
		return err
	})
	code := answer.Error
	var refusal *wire.Error
	if errors.As(err, &refusal) {
		code = refusal.Code
	} else if err != nil {
		return err
	}
	// The view may have moved on while the origin was asked.
	status = s.statusUnseen(h.line, h.ticket.Position)
	switch code {
	case "":
		return s.json(ctx, fasthttp.StatusOK, "no-store", struct {
			SessionToken string    `json:"sessionToken"`
			ExpiresAt    time.Time `json:"expiresAt"`
		}{answer.SessionToken, answer.ExpiresAt.UTC()})
	case wire.CodeNotYourTurn:
		return notYourTurn(status)
	case wire.CodeTaken:
		return errPositionTaken
	case wire.CodeOut, wire.CodeClosed:
		return ticketOut(withFate(status, answer.Fate))
	case wire.CodeUnavailable:
		return errOriginAway
	}
	return &wire.Error{Code: code}
}

// notYourTurn is the answer to a claim without an offer. Where the view still shows the offer
// that the origin says is gone, the origin is believed.
func notYourTurn(status queue.Status) error {
	if status.State == queue.TicketAdmitted || status.State == queue.TicketActive {
		status.State, status.ClaimBy, status.SessionExpiresAt = queue.TicketWaiting, zeroTime, zeroTime
		status.Ahead = new(uint64)
	}
	p := refuse(fasthttp.StatusConflict, "not_your_turn", "It is not this ticket's turn yet.")
	p.ticket = &status
	return p
}

// ticketOut is the answer to a claim with a ticket that is out of the line.
func ticketOut(status queue.Status) error {
	p := refuse(fasthttp.StatusGone, "ticket_out", "This ticket is out of the line.")
	p.ticket = &status
	return p
}

// withFate brings a status to a final fate of which the origin knows before the view does.
func withFate(status queue.Status, fate queue.Fate) queue.Status {
	if !holdsPlace(&status) {
		return status
	}
	status.Reason, status.Ahead, status.WaitSeconds = "", nil, nil
	status.ClaimBy, status.HeldUntil, status.SessionExpiresAt = zeroTime, zeroTime, zeroTime
	switch fate {
	case queue.Expired:
		status.State, status.Reason = queue.TicketExpired, queue.ReasonAbsent
	case queue.Missed:
		status.State, status.Reason = queue.TicketExpired, queue.ReasonMissed
	case queue.Left:
		status.State = queue.TicketLeft
	case queue.Waiting:
		status.State, status.QueueState = queue.TicketClosed, queue.Closed
	default:
		status.State = queue.TicketEnded
	}
	return status
}

// deleteTicket answers DELETE /tickets/{id}: the fan leaves, as often as the request is repeated.
func (s *Server) deleteTicket(ctx *fasthttp.RequestCtx) error {
	h, err := s.holder(ctx)
	if err != nil {
		return err
	}
	if status := s.statusUnseen(h.line, h.ticket.Position); holdsPlace(&status) {
		err := s.callOrigin(func(ctx context.Context) error {
			return s.Origin.Leave(ctx, wire.LeaveRequest{Ticket: string(h.token)})
		})
		var refusal *wire.Error
		out := errors.As(err, &refusal) && (refusal.Code == wire.CodeOut || refusal.Code == wire.CodeClosed)
		if err != nil && !out {
			return err
		}
	}
	if h.cookie {
		s.dropCookie(ctx, h.ticket.Queue)
	}
	ctx.Response.Header.Set(fasthttp.HeaderCacheControl, "no-store")
	ctx.SetStatusCode(fasthttp.StatusNoContent)
	return nil
}

// postHandover answers POST /tickets/{id}/handover, for the waiting page alone: it tells the page
// the ticket in its cookie, to be carried to the shop in a fragment, or takes one that came back
// that way into the cookie.
func (s *Server) postHandover(ctx *fasthttp.RequestCtx) error {
	if !s.samePage(ctx) {
		return errOrigin
	}
	h, err := s.holder(ctx)
	if err != nil {
		return err
	}
	if err := emptyBody(ctx); err != nil {
		return err
	}
	ctx.Response.Header.Set(fasthttp.HeaderCacheControl, "no-store")
	if h.cookie {
		return s.json(ctx, fasthttp.StatusOK, "no-store", struct {
			Ticket string `json:"ticket"`
		}{string(h.token)})
	}
	own, err := s.cookieFor(ctx, h.line.id)
	if err != nil {
		return err
	}
	if own != nil {
		// A link must not be able to take somebody's place away by planting another.
		if t, held := s.heldPlace(s.known.current.Load(), h.line, own); held && t.ID != h.ticket.ID {
			return errPlaceHeld
		}
	}
	if room, err := s.makeRoom(ctx, s.known.current.Load(), h.line.id); err != nil {
		return err
	} else if !room {
		return errTooManyPlaces
	}
	s.setCookie(ctx, &h.ticket.Ticket, h.token)
	ctx.SetStatusCode(fasthttp.StatusNoContent)
	return nil
}

// emptyBody wants no body or {}.
func emptyBody(ctx *fasthttp.RequestCtx) error {
	if len(ctx.PostBody()) == 0 {
		return nil
	}
	var none struct{}
	return decodeBody(ctx, &none)
}
