package edge

import (
	"github.com/valyala/fasthttp"
)

// allowOrigin lets a script of a shop read an answer about a ticket that it presented itself as
// a bearer token (the Fetch standard's CORS protocol). Cookies are never allowed this way, so an
// origin gains nothing that the token in its hands does not give.
func allowOrigin(ctx *fasthttp.RequestCtx, l *line) error {
	origins := ctx.Request.Header.PeekAll(fasthttp.HeaderOrigin)
	switch len(origins) {
	case 0:
		return nil
	case 1:
	default:
		return errTwoOrigins
	}
	origin := origins[0]
	h := &ctx.Response.Header
	h.Add(fasthttp.HeaderVary, fasthttp.HeaderOrigin)
	if l == nil {
		return nil
	}
	if _, allowed := l.view.Load().returnTo[string(origin)]; allowed {
		h.SetBytesV(fasthttp.HeaderAccessControlAllowOrigin, origin)
		h.Set(fasthttp.HeaderAccessControlExposeHeaders, fasthttp.HeaderRetryAfter)
	}
	return nil
}

// allowAnyone lets any script read a document that is the same for everybody.
func allowAnyone(ctx *fasthttp.RequestCtx) {
	ctx.Response.Header.Set(fasthttp.HeaderAccessControlAllowOrigin, "*")
}

// preflight answers the question that a browser asks before a script of a shop may send a bearer
// token. It carries no ticket, so it is answered for the shops of all queues; the request itself
// is checked against its own queue's.
func (s *Server) preflight(ctx *fasthttp.RequestCtx) error {
	h := &ctx.Response.Header
	h.Set(fasthttp.HeaderVary, "Origin, Access-Control-Request-Method, Access-Control-Request-Headers")
	origin := ctx.Request.Header.Peek(fasthttp.HeaderOrigin)
	if _, allowed := s.known.current.Load().returnOrigins[string(origin)]; allowed {
		h.SetBytesV(fasthttp.HeaderAccessControlAllowOrigin, origin)
		h.Set(fasthttp.HeaderAccessControlAllowMethods, "GET, POST, DELETE")
		h.Set(fasthttp.HeaderAccessControlAllowHeaders, "Authorization, Content-Type, Last-Event-ID")
		h.Set(fasthttp.HeaderAccessControlMaxAge, "600")
	}
	ctx.SetStatusCode(fasthttp.StatusNoContent)
	return nil
}
