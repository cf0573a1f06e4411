package edge

import (
	"bytes"

	"github.com/valyala/fasthttp"
)

var (
	headerContentLength    = []byte(fasthttp.HeaderContentLength)
	headerTransferEncoding = []byte(fasthttp.HeaderTransferEncoding)
	headerContentType      = []byte(fasthttp.HeaderContentType)
	headerHost             = []byte(fasthttp.HeaderHost)
	codingChunked          = []byte("chunked")
)

// checkHead refuses a request whose header says two things at once, above all about its body. fasthttp would
// read one of them, and a proxy in front of it might read the other; what the one takes for the
// body is to the other a request of its own (RFC 9112, section 11.2). The connection is closed
// after it.
//
// fasthttp closes the connection by itself where a request has both lengths, so a GET that keeps
// it open need not be looked at: nothing else of a body means anything in one.
func checkHead(ctx *fasthttp.RequestCtx) error {
	h := &ctx.Request.Header
	if h.IsHTTP11() && !validHost(h.Host()) {
		ctx.SetConnectionClose()
		return errHead
	}
	if (h.IsGet() || h.IsHead()) && !h.ConnectionClose() {
		return nil
	}
	var lengths, codings, types int
	chunked, sound := true, true
	// What fasthttp has parsed keeps the last of several values, so look at what was sent.
	for rest := h.RawHeaders(); len(rest) > 0; {
		var line []byte
		line, rest, _ = bytes.Cut(rest, []byte{'\n'})
		name, value, _ := bytes.Cut(line, []byte{':'})
		// A line that begins with a blank was once the rest of the one before (RFC 9112, section 5.2).
		sound = sound && !bytes.ContainsAny(name, " \t")
		switch {
		case bytes.EqualFold(name, headerContentLength):
			lengths++
		case bytes.EqualFold(name, headerTransferEncoding):
			codings++
			chunked = chunked && bytes.EqualFold(bytes.TrimSpace(value), codingChunked)
		case bytes.EqualFold(name, headerContentType):
			types++
		case bytes.EqualFold(name, headerHost):
			sound = sound && validHost(bytes.TrimSpace(value))
		}
	}
	switch {
	case !sound:
		ctx.SetConnectionClose()
		return errHead
	case lengths > 1, codings > 1, lengths > 0 && codings > 0, !chunked:
		ctx.SetConnectionClose()
		return errTwoLengths
	case types > 1:
		return errTwoTypes
	}
	return nil
}

// validHost reports whether the value of a Host header is host[:port] (RFC 9110, section 7.2); which
// one it is does not matter here.
func validHost(host []byte) bool {
	for _, c := range host {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '.', c == '-', c == ':', c == '[', c == ']', c == '_', c == '%', c == '~':
		default:
			return false
		}
	}
	return len(host) > 0
}
