package edge

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"waitingroom/origin/queue"
	"waitingroom/origin/wire"
	"waitingroom/tokens"
)

// problem is an answer that is not a success, as RFC 9457 writes it. Code is stable; detail is
// for people and never repeats what was sent.
type problem struct {
	status int
	code   string
	detail string
	// ticket, where set, adds the members of the status document.
	ticket *queue.Status
	// retry asks for another try after some seconds, with jitter; no sooner than wait.
	retry bool
	wait  time.Duration
	// public lets any cache keep the answer for a second.
	public bool
}

func (p *problem) Error() string { return p.code }

func refuse(status int, code, detail string) *problem {
	return &problem{status: status, code: code, detail: detail}
}

func busy(code, detail string) *problem {
	return &problem{status: fasthttp.StatusServiceUnavailable, code: code, detail: detail, retry: true}
}

func limited(code, detail string) *problem {
	return &problem{status: fasthttp.StatusTooManyRequests, code: code, detail: detail, retry: true}
}

// after is the same problem for somebody who has to wait.
func (p *problem) after(wait time.Duration) *problem {
	again := *p
	again.wait = wait
	return &again
}

// forCaches is the same problem where caches keep the good answer: one that may not keep that there
// is no queue goes on answering with what it has of it.
func (p *problem) forCaches() *problem {
	again := *p
	again.public = true
	return &again
}

// What handlers answer with.
var (
	errNotFound         = refuse(fasthttp.StatusNotFound, "not_found", "There is nothing at this address.")
	errMethod           = refuse(fasthttp.StatusMethodNotAllowed, "method_not_allowed", "This address does not take this method; see Allow.")
	errInternal         = refuse(fasthttp.StatusInternalServerError, "internal_error", "Something went wrong here; it was logged.")
	errNotReady         = busy("not_ready", "This edge has not heard from an origin yet.")
	errOriginAway       = busy("origin_unavailable", "The origin cannot answer now; nothing was changed, or it may be asked again.")
	errTooManyJoins     = busy("too_many_joins", "More fans join at this moment than can be taken; try again.")
	errAddressLimit     = limited("address_limit", "Too many fans join from this network address; try again.")
	errKeyLimit         = limited("api_key_limit", "Too many fans join with this API key; try again.")
	errTooManyCalls     = busy("too_many_requests_waiting", "Too many requests wait for the origin; try again.")
	errStopping         = busy("stopping", "This edge is being stopped; try again.")
	errQueueNotFound    = refuse(fasthttp.StatusNotFound, "queue_not_found", "There is no such queue.")
	errNoPublicQueue    = errQueueNotFound.forCaches()
	errQueueClosed      = refuse(fasthttp.StatusGone, "queue_closed", "The queue is closed for good.")
	errMediaType        = refuse(fasthttp.StatusUnsupportedMediaType, "unsupported_media_type", "Content-Type must be application/json.")
	errBodyTooLarge     = refuse(fasthttp.StatusRequestEntityTooLarge, "body_too_large", "The body is over the limit.")
	errTwoLengths       = refuse(fasthttp.StatusBadRequest, "ambiguous_length", "The length of the body is told in two ways, or in one that is not known here.")
	errHead             = refuse(fasthttp.StatusBadRequest, "malformed_header", "The request has a header line that is not one, or no valid Host.")
	errTwoTypes         = refuse(fasthttp.StatusBadRequest, "duplicate_header", "Content-Type is there more than once.")
	errTwoOrigins       = refuse(fasthttp.StatusBadRequest, "duplicate_header", "Origin is there more than once.")
	errDuplicateHeader  = refuse(fasthttp.StatusBadRequest, "duplicate_credentials", "A credential header or cookie is there more than once.")
	errReturn           = refuse(fasthttp.StatusBadRequest, "invalid_return", "return must be a URL of one of the queue's own shops.")
	errDuplicateQuery   = refuse(fasthttp.StatusBadRequest, "duplicate_parameter", "A query parameter is there more than once.")
	errAuthorization    = refuse(fasthttp.StatusBadRequest, "malformed_authorization", `Authorization must be "Bearer" and a token.`)
	errAPIKeyRequired   = refuse(fasthttp.StatusUnauthorized, "api_key_required", "X-API-Key is required here, except from the waiting page itself.")
	errAPIKeyInvalid    = refuse(fasthttp.StatusUnauthorized, "invalid_api_key", "This API key is not known.")
	errSecretKey        = refuse(fasthttp.StatusForbidden, "secret_key_required", "A user id may be named with the tenant's secret API key only.")
	errNoUserTokens     = refuse(fasthttp.StatusBadRequest, "user_token_not_accepted", "This tenant has no identity provider here whose userToken could be accepted.")
	errUserTokenInvalid = refuse(fasthttp.StatusUnauthorized, "invalid_user_token", "The userToken is not valid for this queue.")
	errUserTokenExpired = refuse(fasthttp.StatusUnauthorized, "user_token_expired", "The userToken's time has passed; get a new one.")
	errUserKeysPending  = busy("user_keys_pending", "The key of this userToken is not known yet; it is being asked for.")
	errUserIDBad        = refuse(fasthttp.StatusBadRequest, "invalid_user_id", "userId must be 1 to 128 bytes.")
	errIdentityRequired = refuse(fasthttp.StatusForbidden, "identity_required", "This queue takes signed-in users only.")
	errOrigin           = refuse(fasthttp.StatusForbidden, "origin_forbidden", "With the cookie only the waiting page itself may ask this (Origin); a live connection may also be opened by the queue's returnOrigins, with the ticket.")
	errTicketRequired   = refuse(fasthttp.StatusUnauthorized, "ticket_required", "This needs the ticket, as a bearer token or in the page's cookie.")
	errTicketInvalid    = refuse(fasthttp.StatusUnauthorized, "invalid_ticket", "The ticket is not valid for this address.")
	errTicketExpired    = refuse(fasthttp.StatusGone, "ticket_expired", "The ticket's time has passed.")
	errEarlierQueue     = refuse(fasthttp.StatusGone, "ticket_of_earlier_queue", "The queue of this ticket does not exist any more.")
	errTicketUnknownYet = busy("ticket_not_known_yet", "This edge has not heard of the ticket's queue yet.")
	errHandshake        = refuse(fasthttp.StatusUpgradeRequired, "websocket_required", "This address takes the handshake of a WebSocket (RFC 6455).")
	errSubprotocol      = refuse(fasthttp.StatusBadRequest, "unknown_subprotocol", "Sec-WebSocket-Protocol must offer waitingroom.v1.")
	errTooManyLive      = busy("too_many_live", "This edge takes no more live connections at this moment; try again, or poll.")
	errPositionTaken    = refuse(fasthttp.StatusConflict, "position_taken", "This position belongs to somebody else; join again.")
	errTooManyPlaces    = refuse(fasthttp.StatusConflict, "too_many_places", "This browser holds places in too many queues; leave one of them first.")
	errPlaceHeld        = refuse(fasthttp.StatusConflict, "place_held", "This browser holds another place in the queue, and keeps it.")
	errSessionRequired  = refuse(fasthttp.StatusUnauthorized, "session_required", "A session token is required as a bearer token.")
	errSessionInvalid   = refuse(fasthttp.StatusUnauthorized, "invalid_session", "The session token is not valid here.")
	errSessionEnded     = refuse(fasthttp.StatusGone, "session_ended", "The session has ended.")
	errStaleRevocations = busy("revocations_stale", "The list of ended sessions is too old to go by.")

	errSecretKeyRequired = refuse(fasthttp.StatusForbidden, "secret_key_required", "This needs the tenant's secret API key.")
)

func errBody(detail string) *problem {
	return refuse(fasthttp.StatusBadRequest, "invalid_body", detail)
}

// asProblem is the one place that maps errors to answers; ok is false for an error that nobody
// expected, of which the answer tells nothing.
func asProblem(err error) (p *problem, ok bool) {
	var refusal *wire.Error
	switch {
	case errors.As(err, &p):
		return p, true
	case errors.As(err, &refusal):
		switch refusal.Code {
		case wire.CodeNotFound:
			return errQueueNotFound, true
		case wire.CodeClosed:
			return errQueueClosed, true
		case wire.CodeIdentity:
			return errIdentityRequired, true
		case wire.CodeBadTicket:
			return errTicketInvalid, true
		case wire.CodeUnavailable:
			return errOriginAway, true
		}
		return errInternal, false
	case errors.Is(err, wire.ErrUnavailable):
		return errOriginAway, true
	case errors.Is(err, tokens.ErrExpired):
		return errTicketExpired, true
	case errors.Is(err, tokens.ErrInvalid):
		return errTicketInvalid, true
	}
	return errInternal, false
}

// fail answers with an error.
func (s *Server) fail(ctx *fasthttp.RequestCtx, route string, err error) {
	p, expected := asProblem(err)
	if !expected {
		s.Logger.Error("request failed", "route", route, "error", err)
	}
	s.answer(ctx, p)
}

// answer writes a problem. Headers that a handler has set stay: CORS needs them on refusals too.
func (s *Server) answer(ctx *fasthttp.RequestCtx, p *problem) {
	r := &ctx.Response
	r.SetStatusCode(p.status)
	r.Header.SetContentType("application/problem+json")
	r.Header.Set(fasthttp.HeaderCacheControl, "no-store")
	if p.public {
		r.Header.Set(fasthttp.HeaderCacheControl, publicSecond)
	}
	switch {
	case p.status == fasthttp.StatusUnauthorized:
		r.Header.Set(fasthttp.HeaderWWWAuthenticate, "Bearer")
	case p.retry:
		r.Header.Set(fasthttp.HeaderRetryAfter, strconv.Itoa(retryAfter(p.wait)))
	}
	r.SetBodyRaw(p.document())
}

func (p *problem) document() []byte {
	b := make([]byte, 0, 512)
	b = fmt.Appendf(b, `{"type":"about:blank","title":%q,"status":%d,"code":%q,"detail":`,
		fasthttp.StatusMessage(p.status), p.status, p.code)
	b = appendString(b, p.detail)
	if p.ticket != nil {
		b = append(b, ',')
		b = appendStatusMembers(b, p.ticket)
	}
	return append(b, '}')
}
