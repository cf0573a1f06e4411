package edge

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"runtime/debug"

	"github.com/fasthttp/router"
	"github.com/valyala/fasthttp"
)

// handler answers a request, or returns the problem to answer with.
type handler func(ctx *fasthttp.RequestCtx) error

// routes is the whole interface of an edge.
func (s *Server) routes() fasthttp.RequestHandler {
	r := router.New()
	r.RedirectTrailingSlash, r.RedirectFixedPath, r.HandleOPTIONS = false, false, false
	get := func(path, name string, h handler) {
		wrapped := s.route(name, h)
		r.GET(path, wrapped)
		r.HEAD(path, wrapped)
	}
	get("/wait/{queue}", "page", s.getPage)
	get("/assets/{name}", "asset", s.getAsset)
	get("/queues/{queue}", "queue", s.getQueue)
	get("/queues/{queue}/state", "state", s.getState)
	get("/.well-known/jwks.json", "jwks", s.getJWKS)
	get("/healthz", "health", s.getHealth)
	get("/readyz", "ready", s.getReady)
	r.POST("/queues/{queue}/tickets", s.route("join", s.postTicket))
	r.GET("/tickets/{id}", s.route("status", s.getTicket))
	r.DELETE("/tickets/{id}", s.route("leave", s.deleteTicket))
	r.GET("/tickets/{id}/ws", s.route("ws", s.getSocket))
	r.GET("/tickets/{id}/events", s.route("events", s.getEvents))
	r.POST("/tickets/{id}/session", s.route("claim", s.postSession))
	r.POST("/tickets/{id}/handover", s.route("handover", s.postHandover))
	preflight := s.route("preflight", s.preflight)
	r.OPTIONS("/tickets/{id}", preflight)
	r.OPTIONS("/tickets/{id}/session", preflight)
	r.OPTIONS("/tickets/{id}/events", preflight)
	r.GET("/access", s.route("access", s.getAccess))
	r.GET("/revocations", s.route("revocations", s.getRevocations))
	r.NotFound = s.route("none", func(*fasthttp.RequestCtx) error { return errNotFound })
	r.MethodNotAllowed = s.route("none", func(*fasthttp.RequestCtx) error { return errMethod })
	none := r.NotFound
	return func(ctx *fasthttp.RequestCtx) {
		// Each address has one spelling. The router would also find it under those that fasthttp
		// resolves ("/x/../wait", "//wait", "%77ait"), which a proxy in front may read otherwise.
		if !bytes.Equal(ctx.URI().PathOriginal(), ctx.Path()) {
			none(ctx)
			return
		}
		r.Handler(ctx)
	}
}

// route wraps a handler: it counts, answers with what went wrong, and lets no panic through, for
// fasthttp would end the process by it.
func (s *Server) route(name string, h handler) fasthttp.RequestHandler {
	counters := s.metrics.route(name)
	return func(ctx *fasthttp.RequestCtx) {
		defer func() {
			if cause := recover(); cause != nil {
				s.panicked(ctx, name, cause)
			}
			counters.count(ctx.Response.StatusCode())
		}()
		err := checkHead(ctx)
		if err == nil {
			err = h(ctx)
		}
		if err != nil {
			s.fail(ctx, name, err)
		}
	}
}

// panicked answers 500. The cause's text is left out of the log unless it is the runtime's, since
// it could hold what was sent.
func (s *Server) panicked(ctx *fasthttp.RequestCtx, route string, cause any) {
	s.metrics.panics.Inc()
	text := fmt.Sprintf("%T", cause)
	if err, ok := cause.(interface {
		error
		RuntimeError()
	}); ok {
		text = err.Error()
	}
	s.Logger.Error("handler panicked", "route", route, "cause", text, "stack", string(debug.Stack()))
	ctx.Response.Reset()
	s.answer(ctx, errInternal)
}

// malformed answers what fasthttp could not read as a request. The connection is closed after it.
func (s *Server) malformed(ctx *fasthttp.RequestCtx, err error) {
	var small *fasthttp.ErrSmallBuffer
	var network net.Error
	status := fasthttp.StatusBadRequest
	ctx.Response.Reset()
	ctx.SetConnectionClose()
	switch {
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		s.answer(ctx, errBodyTooLarge)
		return
	case errors.As(err, &small):
		status = fasthttp.StatusRequestHeaderFieldsTooLarge
	case errors.As(err, &network) && network.Timeout():
		status = fasthttp.StatusRequestTimeout
	}
	ctx.SetStatusCode(status)
}

func (s *Server) getHealth(ctx *fasthttp.RequestCtx) error {
	ctx.Response.Header.Set(fasthttp.HeaderCacheControl, "no-store")
	ctx.SetBodyString("ok\n")
	return nil
}

// getReady answers whether fans may be sent here: from when an origin has told everything until
// the stop. An edge that loses its origin later stays ready, for it still keeps everyone's place.
func (s *Server) getReady(ctx *fasthttp.RequestCtx) error {
	if s.stopping.Load() {
		return errStopping
	}
	if _, err := s.ready(); err != nil {
		return err
	}
	return s.getHealth(ctx)
}
