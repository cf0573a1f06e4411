package edge

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"waitingroom/origin/queue"
)

// publicSecond is the Cache-Control of what is the same for everybody and may be a second old.
const publicSecond = "public, max-age=1"

// publicLine finds the queue of a document that any cache may keep.
func (s *Server) publicLine(ctx *fasthttp.RequestCtx) (*line, error) {
	snap, err := s.ready()
	if err != nil {
		return nil, err
	}
	l, err := findLine(ctx, snap)
	if err != nil {
		return nil, errNoPublicQueue
	}
	return l, nil
}

// getQueue answers GET /queues/{queue}: what the page needs to know of a queue.
func (s *Server) getQueue(ctx *fasthttp.RequestCtx) error {
	l, err := s.publicLine(ctx)
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

// stateTagStep is for how long a public state that does not change keeps its tag. A cache that is
// told 304 goes on with the old document, and its readers see by its now whether it still reaches an
// edge.
const stateTagStep = 5 * time.Second

// stateDocument is a view's public state as of one second, since the rate depends on the time.
type stateDocument struct {
	second int64
	stale  bool
	plain  []byte
	tag    string // without the closing quote
	zip    sync.Once
	zipped []byte // once zip is done
}

// makeStateDocument encodes a summary as encoding/json does.
func makeStateDocument(v *lineView, now time.Time, stale bool) (*stateDocument, error) {
	summary := v.Summary(now)
	summary.Stale = stale
	whole, err := json.Marshal(summary)
	if err != nil {
		return nil, fmt.Errorf("encode state: %w", err)
	}
	// now is the last member.
	others := whole[:len(whole)-len(appendTimeMember(nil, `,"now":`, summary.Now))-len("}")]
	tag := entityTag(appendTime(bytes.Clone(others), now.Truncate(stateTagStep)))
	tag = strings.TrimSuffix(tag, `"`)
	return &stateDocument{second: now.Unix(), stale: stale, plain: whole, tag: tag}, nil
}

// getState answers GET /queues/{queue}/state, from which any cache can serve everybody.
func (s *Server) getState(ctx *fasthttp.RequestCtx) error {
	l, err := s.publicLine(ctx)
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
	doc.answer(ctx)
	return nil
}

// answer answers with the document in the form that the reader takes, or with 304 to one that has it.
// A million places make it some kilobytes, of which a quarter is left when compressed.
func (d *stateDocument) answer(ctx *fasthttp.RequestCtx) {
	zipped := ctx.Request.Header.HasAcceptEncoding("gzip")
	tag := d.tag + `"`
	if zipped {
		tag = d.tag + `-gzip"`
	}
	h := &ctx.Response.Header
	h.Set(fasthttp.HeaderVary, fasthttp.HeaderAcceptEncoding)
	h.Set(fasthttp.HeaderCacheControl, publicSecond)
	h.Set(fasthttp.HeaderETag, tag)
	if matches(ctx, tag) {
		ctx.SetStatusCode(fasthttp.StatusNotModified)
		return
	}
	h.SetContentType("application/json")
	if !zipped {
		ctx.Response.SetBodyRaw(d.plain)
		return
	}
	d.zip.Do(func() {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, _ = w.Write(d.plain) // to memory: cannot fail
		_ = w.Close()
		d.zipped = b.Bytes()
	})
	h.SetContentEncoding("gzip")
	ctx.Response.SetBodyRaw(d.zipped)
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
