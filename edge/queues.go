package edge

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/valyala/fasthttp"

	"waitingroom/origin/queue"
)

// getQueue answers GET /queues/{queue}: what the page needs to know of a queue.
func (s *Server) getQueue(ctx *fasthttp.RequestCtx) error {
	snap, err := s.ready()
	if err != nil {
		return err
	}
	l, err := findLine(ctx, snap)
	if err != nil {
		return err
	}
	settings := &l.view.Load().Settings
	opensAt := settings.OpensAt
	if settings.State != queue.Scheduled {
		opensAt = time.Time{} // it does nothing any more, or not for now
	}
	origins := settings.ReturnOrigins
	if origins == nil {
		origins = []string{}
	}
	allowAnyone(ctx)
	return s.json(ctx, fasthttp.StatusOK, "public, max-age=5", struct {
		ID            queue.ID       `json:"id"`
		State         queue.State    `json:"state"`
		OpensAt       time.Time      `json:"opensAt,omitzero"`
		Identity      queue.Identity `json:"identity"`
		Branding      queue.Branding `json:"branding"`
		Locale        string         `json:"locale"`
		ReturnOrigins []string       `json:"returnOrigins"`
		Polling       string         `json:"polling"`
	}{l.id, settings.State, opensAt, settings.Identity, settings.Branding, settings.Locale, origins, s.Config.Polling})
}

// stateDocument is a view's public state as of one second: the rate depends on the time, and
// now is the document's last member so that it can be left out of the tag.
type stateDocument struct {
	second int64
	stale  bool
	head   []byte // all but now and the closing brace
	tag    string
}

// makeStateDocument encodes a summary as encoding/json does.
func makeStateDocument(v *lineView, now time.Time, stale bool) (*stateDocument, error) {
	summary := v.Summary(now)
	summary.Stale = stale
	whole, err := json.Marshal(summary)
	if err != nil {
		return nil, fmt.Errorf("encode state: %w", err)
	}
	tail := len(appendTimeMember(nil, `,"now":`, summary.Now)) + len("}")
	head := whole[:len(whole)-tail]
	return &stateDocument{now.Unix(), stale, head, entityTag(head)}, nil
}

// getState answers GET /queues/{queue}/state, from which any cache can serve everybody.
func (s *Server) getState(ctx *fasthttp.RequestCtx) error {
	snap, err := s.ready()
	if err != nil {
		return err
	}
	l, err := findLine(ctx, snap)
	if err != nil {
		return err
	}
	view, now, stale := l.view.Load(), s.known.clock.now(), s.known.clock.stale()
	doc := view.doc.Load()
	if doc == nil || doc.second != now.Unix() || doc.stale != stale {
		if doc, err = makeStateDocument(view, now, stale); err != nil {
			return err
		}
		view.doc.Store(doc)
	}
	allowAnyone(ctx)
	h := &ctx.Response.Header
	h.Set(fasthttp.HeaderCacheControl, "public, max-age=1")
	h.Set(fasthttp.HeaderETag, doc.tag)
	if matches(ctx, doc.tag) {
		ctx.SetStatusCode(fasthttp.StatusNotModified)
		return nil
	}
	h.SetContentType("application/json")
	b := make([]byte, 0, len(doc.head)+64)
	b = append(b, doc.head...)
	b = appendTimeMember(b, `,"now":`, now)
	ctx.Response.SetBodyRaw(append(b, '}'))
	return nil
}

// getJWKS answers GET /.well-known/jwks.json with the keys of session tokens.
func (s *Server) getJWKS(ctx *fasthttp.RequestCtx) error {
	snap, err := s.ready()
	if err != nil {
		return err
	}
	allowAnyone(ctx)
	ctx.Response.Header.SetContentType("application/jwk-set+json")
	cached(ctx, "public, max-age=300", snap.keys.jwks)
	return nil
}

// json answers with a document.
func (s *Server) json(ctx *fasthttp.RequestCtx, status int, cacheControl string, document any) error {
	body, err := json.Marshal(document)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	ctx.SetStatusCode(status)
	ctx.Response.Header.Set(fasthttp.HeaderCacheControl, cacheControl)
	ctx.Response.Header.SetContentType("application/json")
	ctx.Response.SetBodyRaw(body)
	return nil
}
