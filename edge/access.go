package edge

import (
	"errors"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"waitingroom/tokens"
)

// longestAccess is for how many seconds a backend may go by an answer of /access: short enough that
// an early end is known everywhere within five.
const longestAccess = 2

// getAccess answers GET /access: whether a session token opens the shop now.
func (s *Server) getAccess(ctx *fasthttp.RequestCtx) error {
	gone, given, err := oneQueryValue(ctx, "gone")
	if err != nil {
		return err
	}
	if given && gone != "401" {
		return refuse(fasthttp.StatusBadRequest, "invalid_parameter", "gone may be 401 only.")
	}
	session, err := s.access(ctx)
	if errors.Is(err, errSessionEnded) && gone == "401" {
		return refuse(fasthttp.StatusUnauthorized, errSessionEnded.code, errSessionEnded.detail)
	}
	if err != nil {
		return err
	}
	b := make([]byte, 0, 256)
	b = append(b, `{"sub":`...)
	b = appendString(b, session.Subject)
	b = append(b, `,"queue":`...)
	b = appendString(b, session.Queue)
	b = append(b, `,"expiresAt":`...)
	b = appendTime(b, session.ExpiresAt.UTC())
	b = append(b, '}')
	left := int(session.ExpiresAt.Sub(s.known.clock.now()) / time.Second)
	h := &ctx.Response.Header
	h.Set(fasthttp.HeaderCacheControl, "private, max-age="+strconv.Itoa(max(1, min(left, longestAccess))))
	h.Set(fasthttp.HeaderVary, fasthttp.HeaderAuthorization)
	h.SetContentType("application/json")
	ctx.Response.SetBodyRaw(b)
	return nil
}

// access checks the presented session token: its signature and claims, the queue that the caller
// names, its expiry, and the tenant's list of sessions that were ended early.
func (s *Server) access(ctx *fasthttp.RequestCtx) (tokens.Session, error) {
	snap, err := s.ready()
	if err != nil {
		return tokens.Session{}, err
	}
	wanted, named, err := oneQueryValue(ctx, "queue")
	if err != nil {
		return tokens.Session{}, err
	}
	if named && wanted == "" {
		// A backend whose variable is empty must not find the sessions of all its queues let in.
		return tokens.Session{}, refuse(fasthttp.StatusBadRequest, "invalid_parameter", "queue may not be empty.")
	}
	token, given, err := bearer(ctx)
	if err != nil {
		return tokens.Session{}, err
	}
	if !given {
		return tokens.Session{}, errSessionRequired
	}
	now := s.known.clock.now()
	session, known := snap.keys.knownSessions.get(token)
	if !known {
		session, err = snap.keys.sessions.Verify(string(token), snap.keys.tickets.Issuer, "", now)
		if err != nil && !errors.Is(err, tokens.ErrExpired) {
			return tokens.Session{}, errSessionInvalid
		}
		if err == nil {
			snap.keys.knownSessions.add(token, session)
		}
	}
	ended := snap.tenants[session.Tenant]
	switch {
	case ended == nil, wanted != "" && wanted != session.Queue:
		return tokens.Session{}, errSessionInvalid
	case err != nil, !now.Before(session.ExpiresAt), ended.has(session.ID):
		return tokens.Session{}, errSessionEnded
	}
	if age, _ := s.known.clock.age(); age > s.Config.maxStale() && s.Config.WhenStale == FailClosed {
		return tokens.Session{}, errStaleRevocations
	}
	return session, nil
}
