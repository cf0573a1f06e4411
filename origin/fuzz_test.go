package origin

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/wire"
)

func fuzzRequest(body []byte) (*httptest.ResponseRecorder, *http.Request) {
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(string(body)))
	r.Header.Set("Content-Type", "application/json")
	return httptest.NewRecorder(), r
}

// FuzzDocument: the document of a new queue has a slug and settings, or is refused.
func FuzzDocument(f *testing.F) {
	for _, text := range []string{
		`{"slug":"a","capacity":1}`, `{"slug":"a","slug":"b"}`, `{"\u0073lug":"a","capacity":1}`, `{"slug":1}`, `{"slug":null,"capacity":1}`, `{}`, `{}{}`,
		`[]`, `{"slug":"a","branding":{"a":{"a":{}}}}`, `{"slug":"a","capacity":1} `, "{\"slug\":\"\xff\"}",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		w, r := fuzzRequest(text)
		body, err := readDocument(w, r)
		if err == nil {
			var slug string
			var rest []byte
			if slug, rest, err = splitSlug(body); err == nil {
				if !queue.ValidName(slug) {
					t.Errorf("%q has the slug %q", text, slug)
				}
				_, err = queue.DecodeSettings(rest, time.Now())
			}
		}
		if err == nil {
			return
		}
		if p, _, known := asProblem(err); !known || p.Status < 400 || p.Status > 499 || p.Code == "" {
			t.Errorf("%q is refused with %v", text, err)
		}
	})
}

// FuzzMessage is for what an edge sends.
func FuzzMessage(f *testing.F) {
	for _, text := range []string{
		`{"queue":"a.b","edge":"e","seq":1,"users":[""]}`, `{"edge":"e","queues":[{"queue":"a.b","positions":"1-5,9","turn":1}]}`, `{"ticket":"a.b.c"}`,
		`null`, `[]`, `{"seq":-1}`, `{"seq":1.5}`, `{"queues":[{"positions":"1-20000000"}]}`, `{"edge":"a","edge":"b"}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, into := range []any{&wire.JoinRequest{}, &wire.SightingsRequest{}, &wire.ClaimRequest{}} {
			w, r := fuzzRequest(text)
			if err := readMessage(w, r, maxTicketBody, into); err != nil && !errors.Is(err, errBadBody) && !errors.Is(err, errTooLarge) {
				t.Errorf("%q is refused with %v", text, err)
			}
		}
	})
}
