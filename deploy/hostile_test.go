package deploy_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
)

// endpoint is an address of the edge or the origin with a request that is right, the answer to
// that, and the fields that can be wrong. Everything else of the request stays right, so that no
// refusal hides behind another.
type endpoint struct {
	name   string
	server string
	base   message
	good   int
	fields []field
}

// leastTricks is how many ways to get it wrong each field has at least.
const leastTricks = 15

// TestBadInputIsRefusedAndChangesNothing: whatever is wrong with a request, it is answered with a
// 4xx that says so in a stable code, and Redis holds what it held.
func TestBadInputIsRefusedAndChangesNothing(t *testing.T) {
	t.Parallel()
	b := newBesieged(t)
	before := b.settled()
	count := 0
	for _, e := range slices.Concat(b.edgeEndpoints(), b.originEndpoints(), b.wireEndpoints()) {
		e.fields = append(e.fields, methods(e))
		for _, f := range e.fields {
			at := e.name + ", " + f.name
			if len(f.tricks) < leastTricks {
				t.Errorf("%s: got %d ways to get it wrong, want at least %d", at, len(f.tricks), leastTricks)
			}
			count += len(f.tricks)
			b.inParallel(f.tricks, func(one trick) { b.refused(at+", "+one.name, e.server, one.change(e.base), one.want) })
			if list := differences(before, b.dump()); len(list) > 0 {
				t.Fatalf("%s: it changed what Redis holds:\n%s", at, strings.Join(list, "\n"))
			}
		}
	}
	t.Logf("%d requests were refused", count)
	b.finish(before)
}

// TestGoodInputIsAccepted: the requests that the other test spoils are right before that.
func TestGoodInputIsAccepted(t *testing.T) {
	t.Parallel()
	b := newBesieged(t)
	for _, e := range slices.Concat(b.edgeEndpoints(), b.originEndpoints(), b.wireEndpoints()) {
		got, err := exchange(e.server, e.base.bytes(e.server), strings.HasPrefix(e.name, "feed"))
		if e.good == feeds {
			continue // an answer without an end; the edge beside it reads one
		}
		if err != nil || len(got) != 1 || got[0].status != e.good {
			t.Errorf("%s: got %v, %v, want one answer with %d", e.name, got, err, e.good)
		}
	}
}

// feeds stands for an answer that does not end.
const feeds = -1

func (b *besieged) inParallel(tricks []trick, send func(trick)) {
	var group sync.WaitGroup
	jobs := make(chan trick)
	for range 16 {
		group.Go(func() {
			for one := range jobs {
				send(one)
			}
		})
	}
	for _, one := range tricks {
		jobs <- one
	}
	close(jobs)
	group.Wait()
}

// refused sends a request and looks at the answer.
func (b *besieged) refused(what, server string, m message, want string) {
	answers, err := exchange(server, m.bytes(server), false)
	// A machine that stands still for seconds makes a server give up on a request that comes too late,
	// and close. What is refused may be asked again.
	for again := 0; again < 2 && len(answers) == 0; again++ {
		answers, err = exchange(server, m.bytes(server), false)
	}
	if err != nil || len(answers) == 0 {
		b.t.Errorf("%s: got %d answers and %v, want one", what, len(answers), err)
		return
	}
	b.checkRefusal(what, m.method, answers[0], want)
	if len(answers) > 1 {
		b.t.Errorf("%s: got %d answers to one request, the second %d %s", what, len(answers), answers[1].status, answers[1].raw)
	}
}

// checkRefusal compares an answer with what is wanted.
func (b *besieged) checkRefusal(what, method string, got answer, want string) {
	contentType := got.header.Get("Content-Type")
	for name, secret := range b.secrets() {
		if strings.Contains(got.raw, secret) {
			b.t.Errorf("%s: the answer repeats %s", what, name)
		}
	}
	if want == plain {
		if got.status < 400 || got.status > 499 || got.header.Get("X-Test-Close") != "true" {
			b.t.Errorf("%s: got %d %q, want a 4xx and the connection closed", what, got.status, got.raw)
		}
		if strings.Contains(contentType, "json") {
			b.t.Errorf("%s: got %s, want its code to be named in the table", what, got.raw)
		}
		return
	}
	code := got.text("code")
	if got.status == http.StatusOK {
		code = got.text("error") // the wire's answer to a claim
	} else if contentType != "application/problem+json" {
		b.t.Errorf("%s: got %d with Content-Type %q, want application/problem+json", what, got.status, contentType)
	}
	if method == "HEAD" { // whose answer has no body
		_, code, _ = strings.Cut(want, " ")
	} else if got.status != http.StatusOK && (got.number("status") != got.status || got.text("title") == "" || got.text("type") != "about:blank") {
		b.t.Errorf("%s: got %s, want type, title and the status %d", what, got.raw, got.status)
	}
	if found := fmt.Sprintf("%d %s", got.status, code); found != want {
		b.t.Errorf("%s: got %s %s, want %s", what, found, got.raw, want)
	}
}

// finish stops both programs, in the course of which the edge hands in what it still has, and looks
// at Redis and at the logs for the last time.
func (b *besieged) finish(before map[string]string) {
	b.t.Helper()
	b.stop()
	after := b.dump()
	for _, dump := range []map[string]string{before, after} {
		// Leaving, an edge takes its name out; an origin gives up its leases.
		for key, content := range dump {
			if strings.HasSuffix(key, ":edges") {
				delete(dump, key)
			} else if strings.HasSuffix(key, ":meta") {
				dump[key] = withoutLease(content)
			}
		}
	}
	if list := differences(before, after); len(list) > 0 {
		b.t.Errorf("after the stop Redis holds something else:\n%s", strings.Join(list, "\n"))
	}
	log := b.log.String()
	for name, secret := range b.secrets() {
		if strings.Contains(log, secret) {
			b.t.Errorf("the log holds %s", name)
		}
	}
	for _, trouble := range []string{"panic", "goroutine ", "level=ERROR", "eyJ", "evil.example", "Bearer", "request failed"} {
		if strings.Contains(log, trouble) {
			b.t.Errorf("the log holds %q", trouble)
		}
	}
}

// withoutLease is a queue's meta without the lease's holder.
func withoutLease(meta string) string {
	var fields map[string]string
	if err := json.Unmarshal([]byte(meta), &fields); err != nil {
		return meta
	}
	delete(fields, "owner")
	text, err := json.Marshal(fields)
	if err != nil {
		return meta
	}
	return string(text)
}

// secrets are what neither a log nor an answer may hold.
func (b *besieged) secrets() map[string]string {
	return map[string]string{
		"the operator's token": b.operator, "the viewer's token": b.viewer, "a rival's token": b.rivalOperator,
		"the secret key": b.secretKey, "the publishable key": b.publishable, "a rival's key": b.rivalKey,
		"a session": b.session, "a ticket": b.active.token, "another ticket": b.offered.token, "a third ticket": b.waiting.token,
		"the cluster secret": hostileCluster, "a user id": hostileUser, "another user id": newUser,
		"a ticket's signature":  b.waiting.token[strings.LastIndexByte(b.waiting.token, '.')+1:],
		"a session's signature": b.session[strings.LastIndexByte(b.session, '.')+1:],
	}
}

// methods are those that an address does not take.
func methods(e endpoint) field {
	f := field{name: "method"}
	for _, method := range []string{
		"PUT", "PATCH", "POST", "DELETE", "GET", "TRACE", "PROPFIND", "SEARCH", "LINK", "get", "Get", "post", "PoSt", "GETT", "XGET",
		"G-T", "PURGE", "MOVE", "QUERY", "PRI",
	} {
		if method == e.base.method || slices.Contains(e.takes(), method) {
			continue
		}
		f.tricks = append(f.tricks, one(method, "405 method_not_allowed", func(m message) message { m.method = method; return m }))
	}
	return f
}

// takes are the other methods that the address takes.
func (e endpoint) takes() []string {
	path, _, _ := strings.Cut(e.base.target, "?")
	switch {
	case path == "/queues":
		return []string{"GET", "POST"}
	case strings.HasPrefix(e.name, "queue") && strings.Count(path, "/") == 2:
		return []string{"GET", "PATCH", "DELETE"}
	case strings.HasPrefix(path, "/tickets/") && strings.Count(path, "/") == 2:
		return []string{"GET", "DELETE"}
	}
	return nil
}
