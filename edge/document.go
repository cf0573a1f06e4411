package edge

import (
	"bytes"
	"compress/gzip"

	"github.com/valyala/fasthttp"
)

// document is something that a browser loads and that never changes while the edge runs: as it is,
// and compressed, which a fan on a crowded network gets in a third of the packets.
type document struct {
	contentType         string
	plain, zipped       []byte
	plainTag, zippedTag string
}

func newDocument(contentType string, content []byte) *document {
	var b bytes.Buffer
	w, _ := gzip.NewWriterLevel(&b, gzip.BestCompression) // the level is valid
	_, _ = w.Write(content)                               // to memory: cannot fail
	_ = w.Close()
	return &document{
		contentType: contentType, plain: content, zipped: b.Bytes(),
		plainTag: entityTag(content), zippedTag: entityTag(b.Bytes()),
	}
}

// answer answers with the document in the form that the browser takes, or with 304 to one that has
// it. The two forms have tags of their own, since caches must tell them apart (RFC 9110, section 8.8.3).
func (d *document) answer(ctx *fasthttp.RequestCtx, cacheControl string) {
	content, tag := d.plain, d.plainTag
	zipped := ctx.Request.Header.HasAcceptEncoding("gzip")
	if zipped {
		content, tag = d.zipped, d.zippedTag
	}
	h := &ctx.Response.Header
	h.SetContentType(d.contentType)
	h.Set(fasthttp.HeaderVary, fasthttp.HeaderAcceptEncoding)
	h.Set(fasthttp.HeaderCacheControl, cacheControl)
	h.Set(fasthttp.HeaderETag, tag)
	if matches(ctx, tag) {
		ctx.SetStatusCode(fasthttp.StatusNotModified)
		return
	}
	if zipped {
		h.SetContentEncoding("gzip")
	}
	ctx.Response.SetBodyRaw(content)
}
