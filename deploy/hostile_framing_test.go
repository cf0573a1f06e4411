package deploy_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// shape is a request whose end, or whose address, can be understood in two ways. SMUGGLED in it
// stands for a whole join, which a server that ends the body too early would carry out.
type shape struct {
	name string
	text string
	// lenient says that net/http, on which the origin stands, reads it in the one way that RFC 9110
	// and 9112 allow beside refusing it: two equal lengths are one, and a folded line is unfolded.
	lenient bool
	// cut says that the request has no end: nothing follows until the connection is closed, and it
	// may be closed without an answer.
	cut bool
}

// TestRequestsThatCanBeReadInTwoWays: none of the usual ways to smuggle a request into another is
// carried out, and what is told of them is a 4xx, after which the connection is closed.
func TestRequestsThatCanBeReadInTwoWays(t *testing.T) {
	t.Parallel()
	b := newBesieged(t)
	before := b.settled()
	edgeTarget, originTarget := "/queues/shop.match/tickets", "/queues"
	edgeSmuggled := (message{method: "POST", target: edgeTarget, body: `{}`, headers: []string{"X-API-Key: " + b.publishable, "Content-Type: application/json"}}).bytes(b.edge)
	originSmuggled := (message{method: "POST", target: originTarget, body: `{"slug":"smuggled","capacity":1}`, headers: []string{
		"Authorization: Bearer " + b.operator, "Content-Type: application/json"}}).bytes(b.origin)
	count := 0
	for _, to := range []struct {
		name, server, smuggled, credential, target string
	}{
		{"edge", b.edge, string(edgeSmuggled), "X-API-Key: " + b.publishable, edgeTarget},
		{"origin", b.origin, string(originSmuggled), "Authorization: Bearer " + b.operator, originTarget},
	} {
		var tricks []trick
		for _, s := range shapes() {
			tricks = append(tricks, trick{name: s.name, change: func(message) message { return message{} }, want: s.name})
		}
		byName := make(map[string]shape)
		for _, s := range shapes() {
			byName[s.name] = s
		}
		count += len(tricks)
		b.inParallel(tricks, func(one trick) {
			s := byName[one.name]
			text := strings.NewReplacer("HOST", to.server, "TARGET", to.target, "CREDENTIAL", to.credential, "SMUGGLED", to.smuggled,
				"{LENGTH}", fmt.Sprint(len(to.smuggled))).Replace(s.text)
			b.checkShape(to.name+", "+s.name, to.server, s, text)
		})
		if list := differences(before, b.dump()); len(list) > 0 {
			t.Errorf("%s: it changed what Redis holds:\n%s", to.name, strings.Join(list, "\n"))
		}
	}
	t.Logf("%d requests were refused", count)
	b.finish(before)
}

func (b *besieged) checkShape(what, server string, s shape, text string) {
	answers, err := exchange(server, []byte(text), s.cut)
	if len(answers) == 0 && s.cut {
		return
	}
	if err != nil || len(answers) == 0 {
		b.t.Errorf("%s: got %d answers and %v, want one", what, len(answers), err)
		return
	}
	for _, got := range answers {
		// net/http answers a transfer coding or a version that it does not know as RFC 9112, section
		// 6.1, and RFC 9110, section 15.6.6, have it, and lets nobody else do it.
		foreign := strings.HasPrefix(what, "origin") && (got.status == http.StatusNotImplemented || got.status == http.StatusHTTPVersionNotSupported) &&
			got.header.Get("X-Test-Close") == "true"
		if (got.status < 400 || got.status > 499) && !foreign {
			b.t.Errorf("%s: got %d %s, want a 4xx", what, got.status, got.raw)
		}
		if strings.HasPrefix(got.header.Get("Content-Type"), "application/problem+json") && got.text("code") == "" {
			b.t.Errorf("%s: got %s, want a code", what, got.raw)
		}
	}
	if s.lenient && strings.HasPrefix(what, "origin") {
		return // what follows on it is refused for itself
	}
	last := answers[len(answers)-1]
	if !s.cut && last.header.Get("X-Test-Close") != "true" {
		b.t.Errorf("%s: the connection stays open after %d %s", what, last.status, last.raw)
	}
	if len(answers) > 1 {
		b.t.Errorf("%s: got %d answers, want one", what, len(answers))
	}
}

// shapes are requests that would be right but for how they are framed; all go to an address that
// changes something.
func shapes() []shape {
	const start = "POST TARGET HTTP/1.1\r\nHost: HOST\r\nCREDENTIAL\r\nContent-Type: application/json\r\n"
	// A body that a server may take as chunks, and the smuggled join behind it.
	const chunks = "2\r\n{}\r\n0\r\n\r\n"
	framed := func(name, headers, body string) shape {
		return shape{name: name, text: start + headers + "\r\n" + body}
	}
	lenient := func(s shape) shape {
		s.lenient = true
		return s
	}
	return []shape{
		// Two lengths.
		framed("both lengths, the length first", "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", chunks+"SMUGGLED"),
		framed("both lengths, the chunks first", "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", chunks+"SMUGGLED"),
		framed("both lengths, which agree", "Content-Length: 12\r\nTransfer-Encoding: chunked\r\n", chunks),
		framed("both lengths, 0 of length", "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", chunks+"SMUGGLED"),
		framed("both lengths, no chunk", "Content-Length: {LENGTH}\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\nSMUGGLED"),
		framed("both lengths, in small letters", "content-length: 4\r\ntransfer-encoding: chunked\r\n", chunks+"SMUGGLED"),
		framed("both lengths, in capitals", "CONTENT-LENGTH: 4\r\nTRANSFER-ENCODING: CHUNKED\r\n", chunks+"SMUGGLED"),
		framed("two lengths, differing", "Content-Length: 2\r\nContent-Length: {LENGTH}\r\n", "{}SMUGGLED"),
		lenient(framed("two lengths, alike", "Content-Length: 2\r\nContent-Length: 2\r\n", "{}")),
		framed("two lengths in one", "Content-Length: 2, 2\r\n", "{}"),
		framed("two lengths in one, differing", "Content-Length: 2, {LENGTH}\r\n", "{}SMUGGLED"),
		// Lengths that are none.
		framed("length -1", "Content-Length: -1\r\n", "{}SMUGGLED"),
		framed("length -0", "Content-Length: -0\r\n", "SMUGGLED"),
		framed("length +2", "Content-Length: +2\r\n", "{}"),
		framed("length 2.0", "Content-Length: 2.0\r\n", "{}"),
		framed("length 1e400", "Content-Length: 1e400\r\n", "{}"),
		framed("length 0x2", "Content-Length: 0x2\r\n", "{}"),
		framed("length 2^63", "Content-Length: 9223372036854775808\r\n", "{}"),
		framed("length 2^64+2", "Content-Length: 18446744073709551618\r\n", "{}SMUGGLED"),
		framed("length NaN", "Content-Length: NaN\r\n", "{}"),
		framed("length empty", "Content-Length: \r\n", "SMUGGLED"),
		framed("length with a blank inside", "Content-Length: 2 3\r\n", "{}"),
		framed("length with a letter", "Content-Length: 2x\r\n", "{}"),
		framed("length with a NUL", "Content-Length: 2\x00\r\n", "{}"),
		framed("length in other digits", "Content-Length: ٢\r\n", "{}"),
		framed("length folded", "Content-Length: 2\r\n 3\r\n", "{}SMUGGLED"),
		framed("length with a blank before the colon", "Content-Length : 2\r\n", "{}SMUGGLED"),
		framed("length with a tab before the colon", "Content-Length\t: 2\r\n", "{}SMUGGLED"),
		// Transfer codings.
		framed("two codings", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", chunks+"SMUGGLED"),
		framed("two codings, the other way round", "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", chunks+"SMUGGLED"),
		framed("chunks twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", chunks+"SMUGGLED"),
		framed("chunks of chunks", "Transfer-Encoding: chunked, chunked\r\n", chunks+"SMUGGLED"),
		framed("chunks, then identity", "Transfer-Encoding: chunked, identity\r\n", chunks+"SMUGGLED"),
		framed("gzip, then chunks", "Transfer-Encoding: gzip, chunked\r\n", chunks+"SMUGGLED"),
		framed("identity beside a length", "Transfer-Encoding: identity\r\nContent-Length: 2\r\n", "{}"),
		framed("identity alone", "Transfer-Encoding: identity\r\n", ""),
		framed("a coding that is not known", "Transfer-Encoding: xchunked\r\nContent-Length: 4\r\n", chunks+"SMUGGLED"),
		framed("chunks in quotes", "Transfer-Encoding: \"chunked\"\r\nContent-Length: 4\r\n", chunks+"SMUGGLED"),
		framed("a coding with a NUL", "Transfer-Encoding: chunked\x00\r\nContent-Length: 4\r\n", chunks+"SMUGGLED"),
		framed("a coding with a vertical tab", "Transfer-Encoding: \x0bchunked\r\nContent-Length: 4\r\n", chunks+"SMUGGLED"),
		framed("a coding folded", "Transfer-Encoding:\r\n chunked\r\nContent-Length: 4\r\n", chunks+"SMUGGLED"),
		framed("a coding with a blank before the colon", "Transfer-Encoding : chunked\r\nContent-Length: 4\r\n", chunks+"SMUGGLED"),
		framed("a coding behind a bare CR", "X: y\rTransfer-Encoding: chunked\r\nContent-Length: 4\r\n", chunks+"SMUGGLED"),
		framed("a coding behind a bare LF", "X: y\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n", chunks+"SMUGGLED"),
		lenient(framed("a coding behind a blank", " Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", chunks+"SMUGGLED")),
		framed("a coding with an empty name beside it", ": x\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n", chunks+"SMUGGLED"),
		{name: "chunks in HTTP/1.0", text: "POST TARGET HTTP/1.0\r\nHost: HOST\r\nCREDENTIAL\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n" + chunks + "SMUGGLED"},
		// Chunks that are none.
		framed("a chunk of 2^64", "Transfer-Encoding: chunked\r\n", "10000000000000002\r\n{}\r\n0\r\n\r\n"),
		framed("a chunk of 2^63", "Transfer-Encoding: chunked\r\n", "8000000000000000\r\n{}\r\n0\r\n\r\n"),
		framed("a chunk of -2", "Transfer-Encoding: chunked\r\n", "-2\r\n{}\r\n0\r\n\r\n"),
		framed("a chunk of 0x2", "Transfer-Encoding: chunked\r\n", "0x2\r\n{}\r\n0\r\n\r\n"),
		framed("a chunk of a blank and 2", "Transfer-Encoding: chunked\r\n", " 2\r\n{}\r\n0\r\n\r\n"),
		framed("a chunk that is longer than it says", "Transfer-Encoding: chunked\r\n", "1\r\n{}\r\n0\r\n\r\n"),
		framed("a chunk without a size", "Transfer-Encoding: chunked\r\n", "\r\n{}\r\n0\r\n\r\n"),
		framed("a chunk that ends in LF alone", "Transfer-Encoding: chunked\r\n", "2\n{}\n0\n\n"),
		framed("a chunk's extension with LF", "Transfer-Encoding: chunked\r\n", "2;x\nxx\r\n{}\r\n0\r\n\r\nSMUGGLED"),
		framed("a chunk's size with a thousand digits", "Transfer-Encoding: chunked\r\n", strings.Repeat("0", 1000)+"2\r\n{}\r\n0\r\n\r\n"),
		framed("a chunk of a letter", "Transfer-Encoding: chunked\r\n", "z\r\n{}\r\n0\r\n\r\n"),
		framed("a length in the trailer", "Transfer-Encoding: chunked\r\nTrailer: Content-Length\r\n", "2\r\n{}\r\n0\r\nContent-Length: 4\r\n\r\nSMUGGLED"),
		// Heads that are none.
		{name: "no Host", text: "POST TARGET HTTP/1.1\r\nCREDENTIAL\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"},
		framed("two Hosts", "Host: HOST\r\nContent-Length: 2\r\n", "{}"),
		framed("two Hosts, differing", "host: evil.example.com\r\nContent-Length: 2\r\n", "{}"),
		{name: "a Host with a blank", text: "POST TARGET HTTP/1.1\r\nHost: a b\r\nCREDENTIAL\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"},
		{name: "a Host with a path", text: "POST TARGET HTTP/1.1\r\nHost: HOST/x\r\nCREDENTIAL\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"},
		{name: "a Host with user info", text: "POST TARGET HTTP/1.1\r\nHost: x@HOST\r\nCREDENTIAL\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"},
		{name: "a Host with bad UTF-8", text: "POST TARGET HTTP/1.1\r\nHost: \xff\r\nCREDENTIAL\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"},
		{name: "a Host with a NUL", text: "POST TARGET HTTP/1.1\r\nHost: HOST\x00\r\nCREDENTIAL\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"},
		{name: "a Host with quotes", text: "POST TARGET HTTP/1.1\r\nHost: \"HOST\"\r\nCREDENTIAL\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"},
		{name: "a Host with a blank, in a GET", text: "GET /healthz HTTP/1.1\r\nHost: a b\r\n\r\n"},
		{name: "a Host with user info, in a GET", text: "GET /healthz HTTP/1.1\r\nHost: x@HOST\r\n\r\n"},
		{name: "a Host with bad UTF-8, in a GET", text: "GET /healthz HTTP/1.1\r\nHost: \xff\r\n\r\n"},
		{name: "no Host, in a GET", text: "GET /healthz HTTP/1.1\r\n\r\n"},
		{name: "an address in absolute form, without a Host", text: "POST http://evil.example.comTARGET HTTP/1.1\r\nCREDENTIAL\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"},
		{name: "an address with user info", text: "POST http://x@y@HOSTTARGET HTTP/1.1\r\nHost: a b\r\nCREDENTIAL\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"},
		{name: "an address of authority form", text: "POST HOST HTTP/1.1\r\nHost: HOST\r\nCREDENTIAL\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"},
		{name: "an address without a slash", text: "POST queues/shop.match/tickets HTTP/1.1\r\nHost: HOST\r\nCREDENTIAL\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"},
		{name: "an asterisk", text: "POST * HTTP/1.1\r\nHost: HOST\r\nCREDENTIAL\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"},
		{name: "OPTIONS of an asterisk", text: "OPTIONS * HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n"},
		{name: "CONNECT", text: "CONNECT evil.example.com:443 HTTP/1.1\r\nHost: evil.example.com:443\r\nConnection: close\r\n\r\n"},
		{name: "no address", text: "POST  HTTP/1.1\r\nHost: HOST\r\nContent-Length: 2\r\n\r\n{}"},
		{name: "no version", text: "POST TARGET\r\nHost: HOST\r\nContent-Length: 2\r\n\r\n{}"},
		{name: "version 0.9", text: "POST TARGET HTTP/0.9\r\nHost: HOST\r\nCREDENTIAL\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"},
		{name: "version 3", text: "POST TARGET HTTP/3.0\r\nHost: HOST\r\nCREDENTIAL\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"},
		{name: "version 1.10", text: "POST TARGET HTTP/1.10\r\nHost: HOST\r\nCREDENTIAL\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"},
		{name: "version in small letters", text: "POST TARGET http/1.1\r\nHost: HOST\r\nCREDENTIAL\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"},
		{name: "HTTP/2 in clear", text: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", cut: true},
		{name: "TLS", text: "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("\x00", 200), cut: true},
		{name: "noise", text: strings.Repeat("\xff\x00\x7f", 200) + "\r\n\r\n", cut: true},
		framed("a header without a colon", "NoColon\r\nContent-Length: 2\r\n", "{}"),
		framed("a header with a blank in its name", "X Y: z\r\nContent-Length: 2\r\n", "{}"),
		framed("a header with a bare CR", "X: a\rb\r\nContent-Length: 2\r\n", "{}"),
		framed("a header of 40,000 bytes", "X: "+strings.Repeat("a", 40_000)+"\r\nContent-Length: 2\r\n", "{}"),
		framed("five thousand headers", strings.Repeat("X: aaaaaaa\r\n", 5000)+"Content-Length: 2\r\n", "{}"),
		// Requests that end too early.
		{name: "a body that is shorter than it says", text: start + "Content-Length: 200\r\n\r\n{}", cut: true},
		{name: "a chunk that is shorter than it says", text: start + "Transfer-Encoding: chunked\r\n\r\nff\r\n{}", cut: true},
		{name: "no last chunk", text: start + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", cut: true},
		{name: "no end of the head", text: start, cut: true},
		{name: "half a line", text: "POST TARG", cut: true},
		{name: "nothing", text: "", cut: true},
	}
}
