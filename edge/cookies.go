package edge

import (
	"strings"

	"github.com/valyala/fasthttp"

	"waitingroom/origin/queue"
	"waitingroom/tokens"
)

// cookiePrefix begins the names of the page's cookies, which end in the queue's id: one cookie for
// each queue, so that a fan can wait in several.
const cookiePrefix = "wr_ticket_"

// hostPrefix binds a cookie to this very host, over TLS (RFC 6265bis): no other host of the same
// domain can plant one.
const hostPrefix = "__Host-"

func (s *Server) cookieName(queue string) string {
	if s.secure {
		return hostPrefix + cookiePrefix + queue
	}
	return cookiePrefix + queue
}

// mostPlaces is how many places one browser can hold at once: with their cookies a request stays
// well within the limit of its header.
const mostPlaces = 16

// ticketCookie is one of the page's cookies; token belongs to the request.
type ticketCookie struct {
	queue string
	token []byte
}

// ticketCookies reads the page's cookies of all queues. Two of the same name contradict each
// other, and which one was meant cannot be known.
func (s *Server) ticketCookies(ctx *fasthttp.RequestCtx) ([]ticketCookie, error) {
	prefix := s.cookieName("")
	var list []ticketCookie
	for name, value := range ctx.Request.Header.Cookies() {
		queue, ours := strings.CutPrefix(string(name), prefix)
		if !ours {
			continue
		}
		for _, other := range list {
			if other.queue == queue {
				return nil, errDuplicateHeader
			}
		}
		list = append(list, ticketCookie{queue, value})
	}
	return list, nil
}

// cookieFor reads the page's cookie of one queue.
func (s *Server) cookieFor(ctx *fasthttp.RequestCtx, id queue.ID) (token []byte, err error) {
	cookies, err := s.ticketCookies(ctx)
	if err != nil {
		return nil, err
	}
	for _, c := range cookies {
		if c.queue == string(id) {
			return c.token, nil
		}
	}
	return nil, nil
}

// makeRoom takes away the page's cookies of other queues that hold no place any more, before one
// more is set: a browser keeps them for as long as tickets live, and too many would fill the
// header of every request. It reports whether there is room for another place.
func (s *Server) makeRoom(ctx *fasthttp.RequestCtx, snap *snapshot, id queue.ID) (bool, error) {
	cookies, err := s.ticketCookies(ctx)
	if err != nil {
		return false, err
	}
	held := 0
	for _, c := range cookies {
		if _, err := queue.ParseID(c.queue); err != nil || c.queue == string(id) {
			continue // not one that we set, or about to be replaced
		}
		if l := snap.lines[queue.ID(c.queue)]; l != nil {
			if _, holds := s.heldPlace(snap, l, c.token); holds {
				held++
				continue
			}
		}
		s.dropCookie(ctx, c.queue)
	}
	return held < mostPlaces, nil
}

// setCookie gives the page its ticket, out of reach of scripts.
func (s *Server) setCookie(ctx *fasthttp.RequestCtx, t *tokens.Ticket, token []byte) {
	s.writeCookie(ctx, t.Queue, string(token), cookieAge(t, s.known.clock.now()))
}

// dropCookie takes it away again.
func (s *Server) dropCookie(ctx *fasthttp.RequestCtx, queue string) {
	s.writeCookie(ctx, queue, "", -1)
}

func (s *Server) writeCookie(ctx *fasthttp.RequestCtx, queue, value string, age int) {
	c := fasthttp.AcquireCookie()
	defer fasthttp.ReleaseCookie(c)
	c.SetKey(s.cookieName(queue))
	c.SetValue(value)
	c.SetPath("/")
	c.SetHTTPOnly(true)
	c.SetSecure(s.secure)
	c.SetSameSite(fasthttp.CookieSameSiteLaxMode)
	if age > 0 {
		c.SetMaxAge(age)
	} else {
		c.SetExpire(fasthttp.CookieExpireDelete)
	}
	ctx.Response.Header.SetCookie(c)
}

// samePage reports whether a request comes from a page of this edge's own public address.
func (s *Server) samePage(ctx *fasthttp.RequestCtx) bool {
	origins := ctx.Request.Header.PeekAll(fasthttp.HeaderOrigin)
	return len(origins) == 1 && string(origins[0]) == s.publicURL
}
