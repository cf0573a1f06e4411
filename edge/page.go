package edge

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/valyala/fasthttp"

	"waitingroom/origin/queue"
	"waitingroom/web"
)

// longestReturn bounds a return URL, in bytes.
const longestReturn = 2048

// getPage answers GET /wait/{queue}. The page is the same for everybody; what is checked here is
// that the address it was called with leads back to the queue's own shop.
func (s *Server) getPage(ctx *fasthttp.RequestCtx) error {
	s.secureHeaders(ctx)
	snap, err := s.ready()
	if err != nil {
		ctx.Response.Header.Set("Refresh", "3")
		return refusePage(ctx, err, "One moment …", "The waiting room is starting. This page tries again by itself.")
	}
	l, err := findLine(ctx, snap)
	if err != nil {
		return refusePage(ctx, err, "There is no such queue", "The sale may be over, or the address incomplete. Please go back to the shop and start from there.")
	}
	to, given, err := oneQueryValue(ctx, "return")
	if err == nil && given && !allowedReturn(to, l.view.Load().returnTo) {
		err = errReturn
	}
	if err != nil {
		return refusePage(ctx, err, "This link does not work", "It leads to a shop that does not belong to this queue. Please go back to the shop and start from there.")
	}
	s.page.answer(ctx, "no-cache")
	return nil
}

// allowedReturn reports whether a URL stays within one of the origins. A browser forgives much
// that a parser refuses, so the URL must begin with the origin byte for byte, and be one that
// nobody can read in two ways.
func allowedReturn(to string, origins map[string]struct{}) bool {
	if len(to) > longestReturn || !utf8.ValidString(to) {
		return false
	}
	for _, r := range to {
		if r <= ' ' || r == '\\' || r >= 0x7f && r < 0xa0 {
			return false
		}
	}
	u, err := url.Parse(to)
	if err != nil || u.User != nil || u.Opaque != "" {
		return false
	}
	origin := u.Scheme + "://" + u.Host
	if _, known := origins[origin]; !known {
		return false
	}
	rest, same := strings.CutPrefix(to, origin)
	return same && (rest == "" || strings.ContainsRune("/?#", rune(rest[0])))
}

// refusePage answers a browser, which says that it reads HTML, in words and in the waiting page's
// style, and anyone else as all other addresses do. It never redirects nor links to what was asked for.
func refusePage(ctx *fasthttp.RequestCtx, err error, title, text string) error {
	p, expected := asProblem(err)
	if !expected || !bytes.Contains(ctx.Request.Header.Peek(fasthttp.HeaderAccept), []byte("text/html")) {
		return err
	}
	ctx.SetStatusCode(p.status)
	ctx.Response.Header.SetContentType("text/html; charset=utf-8")
	ctx.Response.Header.Set(fasthttp.HeaderCacheControl, "no-store")
	ctx.SetBodyString(`<!doctype html><html lang="en"><meta charset="utf-8">` +
		`<meta name="viewport" content="width=device-width, initial-scale=1">` +
		`<meta name="robots" content="noindex"><meta name="color-scheme" content="light dark">` +
		`<title>` + title + `</title><link rel="icon" href="/assets/icon.svg" type="image/svg+xml">` +
		`<link rel="stylesheet" href="/assets/wait.css">` +
		`<main><h1>` + title + `</h1><p>` + text + `</p></main></html>`)
	return nil
}

// getAsset answers GET /assets/{name}.
func (s *Server) getAsset(ctx *fasthttp.RequestCtx) error {
	asset := s.assets[pathValue(ctx, "name")]
	if asset == nil {
		return errNotFound
	}
	s.secureHeaders(ctx)
	asset.answer(ctx, "public, max-age=300")
	return nil
}

// secureHeaders are those of everything that a browser shows or runs.
func (s *Server) secureHeaders(ctx *fasthttp.RequestCtx) {
	h := &ctx.Response.Header
	h.Set(fasthttp.HeaderContentSecurityPolicy, web.ContentSecurityPolicy(s.publicURL))
	h.Set(fasthttp.HeaderReferrerPolicy, "no-referrer")
	h.Set(fasthttp.HeaderXContentTypeOptions, "nosniff")
	h.Set(fasthttp.HeaderXFrameOptions, "DENY")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
}

// cached answers with a document and its ETag, or with 304 to somebody who has it.
func cached(ctx *fasthttp.RequestCtx, cacheControl string, content []byte) {
	h := &ctx.Response.Header
	h.Set(fasthttp.HeaderCacheControl, cacheControl)
	tag := entityTag(content)
	h.Set(fasthttp.HeaderETag, tag)
	if matches(ctx, tag) {
		ctx.SetStatusCode(fasthttp.StatusNotModified)
		return
	}
	ctx.Response.SetBodyRaw(content)
}

func entityTag(content []byte) string {
	sum := sha256.Sum256(content)
	return strconv.Quote(hex.EncodeToString(sum[:12]))
}

// matches reports whether If-None-Match names a tag (RFC 9110, section 13.1.2; weak comparison).
func matches(ctx *fasthttp.RequestCtx, tag string) bool {
	for one := range strings.SplitSeq(string(ctx.Request.Header.Peek(fasthttp.HeaderIfNoneMatch)), ",") {
		if one = strings.TrimSpace(one); one == "*" || strings.TrimPrefix(one, "W/") == tag {
			return true
		}
	}
	return false
}

// findLine finds the queue that the path names.
func findLine(ctx *fasthttp.RequestCtx, snap *snapshot) (*line, error) {
	if l := snap.lines[queue.ID(pathValue(ctx, "queue"))]; l != nil {
		return l, nil
	}
	return nil, errQueueNotFound
}
