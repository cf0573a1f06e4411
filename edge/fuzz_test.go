package edge

import (
	"bufio"
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"
)

// FuzzReturn: a URL that the page would send a fan to leads to the shop, whoever parses it.
func FuzzReturn(f *testing.F) {
	for _, to := range []string{
		"https://shop.example/", "https://shop.example/a?b#c", "https://shop.example@evil.example/", `https://shop.example\@evil.example/`,
		"https://shop.example.evil.example/", "https:/shop.example", "//shop.example", "javascript:x", "https://shop.example/\t", "https://shop.example?x",
	} {
		f.Add(to)
	}
	origins := map[string]struct{}{"https://shop.example": {}}
	f.Fuzz(func(t *testing.T, to string) {
		if !allowedReturn(to, origins) {
			return
		}
		u, err := url.Parse(to)
		if err != nil || u.Scheme != "https" || u.Host != "shop.example" || u.User != nil {
			t.Errorf("%q is allowed, and leads to %v, %v", to, u, err)
		}
		if rest, same := strings.CutPrefix(to, "https://shop.example"); !same || rest != "" && !strings.ContainsAny(rest[:1], "/?#") || strings.ContainsAny(to, "\\ \t\r\n\x00") {
			t.Errorf("%q is allowed, and a browser may read another host in it", to)
		}
	})
}

// FuzzJoinBody: a body that is accepted names the user that every JSON parser finds in it.
func FuzzJoinBody(f *testing.F) {
	for _, body := range []string{
		`{}`, `{"userId":"fan"}`, `{"userId":"\u0066an"}`, `{"userId":""}`, `{"userId":null}`, `{"userId":"a","userId":"b"}`, `{"userid":"a"}`,
		`{"userToken":"a"}`, `{"userId":"\ud800"}`, `{"userId":1}`, `[]`, `{} {}`, "\ufeff{}",
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var ctx fasthttp.RequestCtx
		ctx.Request.Header.SetMethod(fasthttp.MethodPost)
		ctx.Request.Header.SetContentType("application/json")
		ctx.Request.SetBodyRaw(body)
		who, err := readJoin(&ctx, true)
		if err != nil {
			if p, expected := asProblem(err); !expected || p.status < 400 || p.status > 499 || p.code == "" {
				t.Errorf("%q is refused with %v", body, err)
			}
			return
		}
		var members map[string]any
		if err := json.Unmarshal(body, &members); err != nil {
			t.Fatalf("%q is accepted, and is no JSON: %v", body, err)
		}
		id, _ := members["userId"].(string)
		token, _ := members["userToken"].(string)
		if id != who.user || token != who.token || len(members) > 1 {
			t.Errorf("%q names %+v, others find %v", body, who, members)
		}
	})
}

// FuzzHead: a request that passes has at most one length and one type of its body.
func FuzzHead(f *testing.F) {
	for _, head := range []string{
		"Content-Length: 2", "Content-Length: 2\r\nContent-Length: 2", "Content-Length: 2\r\nTransfer-Encoding: chunked", "transfer-encoding: identity",
		"Transfer-Encoding: chunked\r\nTransfer-Encoding: x", "Content-Type: a\r\nContent-Type: b", "X: a\r\n Content-Length: 2", "Content-Length : 2", "X Y: z",
	} {
		f.Add(head)
	}
	f.Fuzz(func(t *testing.T, head string) {
		var ctx fasthttp.RequestCtx
		text := "POST / HTTP/1.1\r\nHost: h\r\n" + head + "\r\n\r\n"
		if ctx.Request.Header.Read(bufio.NewReaderSize(strings.NewReader(text), 16<<10)) != nil || checkHead(&ctx) != nil {
			return
		}
		// What fasthttp takes for the head ends at the first empty line.
		head, _, _ = strings.Cut(strings.ReplaceAll(head, "\r\n", "\n"), "\n\n")
		count := make(map[string]int)
		for line := range strings.SplitSeq(head, "\n") {
			if name, _, found := strings.Cut(line, ":"); found {
				count[strings.ToLower(strings.TrimSpace(name))]++
			}
		}
		if count["content-length"]+count["transfer-encoding"] > 1 || count["content-type"] > 1 {
			t.Errorf("%q passes", head)
		}
	})
}
