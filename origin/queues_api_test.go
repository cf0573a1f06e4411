package origin

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
	"waitingroom/origin/store/memory"
	"waitingroom/tokens"
)

// object decodes a JSON object.
func object(t *testing.T, answer *httptest.ResponseRecorder) map[string]any {
	t.Helper()
	var members map[string]any
	if err := json.Unmarshal(answer.Body.Bytes(), &members); err != nil {
		t.Fatalf("body: got %q, want a JSON object", answer.Body)
	}
	return members
}

// wantProblem checks that an answer is a problem document with a status and a code.
func wantProblem(t *testing.T, answer *httptest.ResponseRecorder, status int, code string) {
	t.Helper()
	if answer.Code != status {
		t.Errorf("status: got %d %s, want %d %s", answer.Code, answer.Body, status, code)
		return
	}
	if got := answer.Header().Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("content type: got %q, want application/problem+json", got)
	}
	members := object(t, answer)
	if members["code"] != code || members["status"] != float64(status) {
		t.Errorf("problem: got %v, want code %q and status %d", members, code, status)
	}
}

func TestOperatorProvisionsAQueue(t *testing.T) {
	r := newRig(t, newCredentials(t), nil)

	created := r.operate("POST", "/queues", `{"slug":"final","capacity":5000,"returnOrigins":["https://shop.example.com"],"branding":{"name":"Shop"}}`)
	if created.Code != http.StatusCreated || created.Header().Get("Location") != "/queues/shop.final" {
		t.Fatalf("create: got %d %s, Location %q, want 201 and /queues/shop.final", created.Code, created.Body, created.Header().Get("Location"))
	}
	document := object(t, created)
	for name, want := range map[string]any{
		"id": "shop.final", "state": "open", "capacity": 5000.0, "purchaseWindowSeconds": 1200.0, "holdSeconds": 1800.0,
		"claimSeconds": 300.0, "maxMissedOffers": 2.0, "maxPerMinute": 0.0, "version": 1.0,
	} {
		if document[name] != want {
			t.Errorf("member %s of a new queue: got %v, want %v", name, document[name], want)
		}
	}
	wantProblem(t, r.operate("POST", "/queues", `{"slug":"final","capacity":1}`), http.StatusConflict, "queue_exists")

	patched := object(t, r.operate("PATCH", "/queues/shop.final", `{"capacity":7,"branding":{"name":null},"holdSeconds":600}`))
	if patched["capacity"] != 7.0 || patched["holdSeconds"] != 600.0 || patched["version"] != 2.0 {
		t.Errorf("patched: got %v, want capacity 7, holdSeconds 600, version 2", patched)
	}
	if origins, _ := patched["returnOrigins"].([]any); len(origins) != 1 {
		t.Errorf("members that the patch does not name: got returnOrigins %v, want the one that was there", patched["returnOrigins"])
	}
	if branding, _ := patched["branding"].(map[string]any); branding["name"] != nil {
		t.Errorf("a member that the patch sets to null: got %v, want none", branding["name"])
	}
	again := object(t, r.operate("PATCH", "/queues/shop.final", `{"holdSeconds":null}`))
	if again["holdSeconds"] != 1800.0 {
		t.Errorf("a setting that the patch sets to null: got %v, want its default", again["holdSeconds"])
	}
	if same := object(t, r.operate("PATCH", "/queues/shop.final", `{}`)); same["version"] != again["version"] {
		t.Errorf("version after a patch that changes nothing: got %v, want %v", same["version"], again["version"])
	}

	r.create("another", `"capacity":1`)
	list, _ := object(t, r.operate("GET", "/queues", ""))["queues"].([]any)
	if len(list) != 2 {
		t.Errorf("list: got %d queues, want 2", len(list))
	}

	wantProblem(t, r.operate("DELETE", "/queues/shop.final", ""), http.StatusConflict, "queue_not_closed")
	r.operate("PATCH", "/queues/shop.final", `{"state":"closed"}`)
	wantProblem(t, r.operate("PATCH", "/queues/shop.final", `{"state":"open"}`), http.StatusBadRequest, "invalid_settings")
	if deleted := r.operate("DELETE", "/queues/shop.final", ""); deleted.Code != http.StatusNoContent {
		t.Errorf("delete: got %d %s, want 204", deleted.Code, deleted.Body)
	}
	wantProblem(t, r.operate("GET", "/queues/shop.final", ""), http.StatusNotFound, "queue_not_found")
	wantProblem(t, r.operate("DELETE", "/queues/shop.final", ""), http.StatusNotFound, "queue_not_found")

	// Created again it is another queue: a ticket of the first opens nothing.
	r.create("final", `"capacity":1`)
	if got := object(t, r.operate("GET", "/queues/shop.final", "")); got["incarnation"] == document["incarnation"] {
		t.Error("incarnation of a queue that was deleted and created again: got the same, want another")
	}
}

func TestBadBodiesAreRefusedAndChangeNothing(t *testing.T) {
	r := newRig(t, newCredentials(t), nil)
	r.create("sale", `"capacity":3`)
	before := r.operate("GET", "/queues", "").Body.String()
	deep := `{"slug":"x","capacity":1,"branding":` + strings.Repeat(`{"branding":`, 20_000/4) + "1" + strings.Repeat("}", 5001)
	for name, c := range map[string]struct {
		body, code string
		status     int
	}{
		"empty":              {``, "invalid_body", 400},
		"no object":          {`[]`, "invalid_body", 400},
		"null":               {`null`, "invalid_body", 400},
		"truncated":          {`{"slug":"x","capacity":1`, "invalid_body", 400},
		"trailing":           {`{"slug":"x","capacity":1} {}`, "invalid_body", 400},
		"repeated":           {`{"slug":"x","slug":"y","capacity":1}`, "invalid_body", 400},
		"repeated setting":   {`{"slug":"x","capacity":1,"capacity":2}`, "invalid_body", 400},
		"repeated deeper":    {`{"slug":"x","capacity":1,"branding":{"name":"a","name":"b"}}`, "invalid_body", 400},
		"bad UTF-8":          {"{\"slug\":\"x\",\"capacity\":1,\"branding\":{\"name\":\"\xff\"}}", "invalid_body", 400},
		"too deep":           {deep, "invalid_body", 400},
		"no slug":            {`{"capacity":1}`, "invalid_settings", 400},
		"bad slug":           {`{"slug":"A b","capacity":1}`, "invalid_settings", 400},
		"slug of a number":   {`{"slug":7,"capacity":1}`, "invalid_settings", 400},
		"long slug":          {`{"slug":"` + strings.Repeat("a", 64) + `","capacity":1}`, "invalid_settings", 400},
		"no capacity":        {`{"slug":"x"}`, "invalid_settings", 400},
		"unknown field":      {`{"slug":"x","capacity":1,"vip":true}`, "invalid_settings", 400},
		"wrong type":         {`{"slug":"x","capacity":"1"}`, "invalid_settings", 400},
		"fraction":           {`{"slug":"x","capacity":1.5}`, "invalid_settings", 400},
		"negative":           {`{"slug":"x","capacity":-1}`, "invalid_settings", 400},
		"absurd number":      {`{"slug":"x","capacity":1e400}`, "invalid_settings", 400},
		"unknown state":      {`{"slug":"x","capacity":1,"state":"ajar"}`, "invalid_settings", 400},
		"origin with a path": {`{"slug":"x","capacity":1,"returnOrigins":["https://a.example/b"]}`, "invalid_settings", 400},
		"too large":          {`{"slug":"x","capacity":1,"branding":{"name":"` + strings.Repeat("a", 70_000) + `"}}`, "body_too_large", 413},
	} {
		t.Run(name, func(t *testing.T) {
			wantProblem(t, r.operate("POST", "/queues", c.body), c.status, c.code)
		})
	}
	for name, body := range map[string]string{
		"empty": ``, "no object": `7`, "slug": `{"slug":"y"}`, "id": `{"id":"shop.y"}`, "repeated": `{"capacity":1,"capacity":2}`,
		"capacity taken away": `{"capacity":null}`, "unknown": `{"opens":1}`,
	} {
		t.Run("patch "+name, func(t *testing.T) {
			if answer := r.operate("PATCH", "/queues/shop.sale", body); answer.Code != 400 {
				t.Errorf("status: got %d %s, want 400", answer.Code, answer.Body)
			}
		})
	}
	operator := "Authorization: Bearer " + r.creds.operator(t, "shop", tokens.RoleOperator)
	for name, headers := range map[string][]string{
		"none": {operator}, "text": {operator, "Content-Type: text/plain"}, "form": {operator, "Content-Type: application/x-www-form-urlencoded"},
		"two": {operator, "Content-Type: application/json", "Content-Type: application/json"}, "charset": {operator, "Content-Type: application/json; charset=latin1"},
		"compressed": {operator, "Content-Type: application/json", "Content-Encoding: gzip"},
	} {
		t.Run("media type "+name, func(t *testing.T) {
			wantProblem(t, r.send("POST", "/queues", `{"slug":"x","capacity":1}`, headers...), 415, "unsupported_media_type")
		})
	}
	if after := r.operate("GET", "/queues", "").Body.String(); after != before {
		t.Errorf("queues after all these: got %s, want them unchanged: %s", after, before)
	}
}

// TestRefusedOperatorTokensAreLogged reads what an operator of the waiting room finds who looks for
// the reason that the answer does not tell.
func TestRefusedOperatorTokensAreLogged(t *testing.T) {
	creds, foreign := newCredentials(t), newCredentials(t)
	good, stranger := creds.operator(t, "shop", tokens.RoleOperator), foreign.operator(t, "shop", tokens.RoleOperator)
	for _, c := range []struct{ name, public, token, want string }{
		{"good", testPublic, good, ""},
		{"another audience", testPublic + ":8443", good, "another audience"},
		{"a stranger's", testPublic, stranger, "no usable key has this key id"},
		{"no JWT", testPublic, "abc", "it has not three parts"},
	} {
		var logs bytes.Buffer
		config := creds.config
		config.PublicURL = c.public
		s := &Server{Config: config, Store: &memory.Store{}, Secrets: func() (Secrets, error) { return creds.secrets, nil }, Logger: slog.New(slog.NewTextHandler(&logs, nil))}
		must(t, s.prepare())
		must(t, s.clock.Measure(t.Context(), s.Store))
		_, err := s.verifyOperator(c.token)
		if (err == nil) != (c.want == "") || !strings.Contains(logs.String(), c.want) || err == nil && logs.Len() > 0 {
			t.Errorf("%s: got %v and the log %q, want the reason %q in it", c.name, err, logs.String(), c.want)
		}
		if strings.Contains(logs.String(), c.token) {
			t.Errorf("%s: the token is in the log", c.name)
		}
	}
}

func TestWhoMayDoWhat(t *testing.T) {
	creds := newCredentials(t)
	r := newRig(t, creds, nil)
	id := r.create("sale", `"capacity":3`)
	r.until(second, "the first tick", func() bool { return r.view(id).Turn > 1 })
	session := string(id) + "~" + sessionOf(t, r, id)
	foreign := newCredentials(t)
	bearer := func(token string) string { return "Authorization: Bearer " + token }
	shop, viewer := creds.operator(t, "shop", tokens.RoleOperator), creds.operator(t, "shop", tokens.RoleViewer)
	other := creds.operator(t, "other", tokens.RoleOperator)
	key := func(k string) string { return "X-API-Key: " + k }
	const body = `{"slug":"new","capacity":1}`
	for _, c := range []struct {
		name, method, path, body string
		headers                  []string
		status                   int
		code                     string
	}{
		{"nobody", "GET", "/queues", "", nil, 401, "unauthorized"},
		{"nobody ends a session", "DELETE", "/sessions/" + session, "", nil, 401, "unauthorized"},
		{"no bearer", "GET", "/queues", "", []string{"Authorization: Basic abc"}, 401, "invalid_token"},
		{"no JWT", "GET", "/queues", "", []string{bearer("abc")}, 401, "invalid_token"},
		{"signed by a stranger", "GET", "/queues", "", []string{bearer(foreign.operator(t, "shop", tokens.RoleOperator))}, 401, "invalid_token"},
		{"API key for the operator's", "GET", "/queues", "", []string{key(creds.tenants["shop"].secretKey)}, 401, "invalid_token"},
		{"two credentials", "GET", "/queues", "", []string{bearer(shop), key(creds.tenants["shop"].secretKey)}, 400, "duplicate_credentials"},
		{"a credential twice", "GET", "/queues", "", []string{bearer(shop), bearer(shop)}, 400, "duplicate_credentials"},
		{"viewer reads", "GET", "/queues/shop.sale", "", []string{bearer(viewer)}, 200, ""},
		{"viewer lists", "GET", "/queues", "", []string{bearer(viewer)}, 200, ""},
		{"viewer reads stats", "GET", "/queues/shop.sale/stats", "", []string{bearer(viewer)}, 200, ""},
		{"viewer creates", "POST", "/queues", body, []string{bearer(viewer)}, 403, "forbidden"},
		{"viewer patches", "PATCH", "/queues/shop.sale", `{"capacity":1}`, []string{bearer(viewer)}, 403, "forbidden"},
		{"viewer deletes", "DELETE", "/queues/shop.sale", "", []string{bearer(viewer)}, 403, "forbidden"},
		{"viewer ends a session", "DELETE", "/sessions/" + session, "", []string{bearer(viewer)}, 403, "forbidden"},
		{"publishable key ends a session", "DELETE", "/sessions/" + session, "", []string{key(creds.tenants["shop"].publishable)}, 403, "forbidden"},
		{"unknown key ends a session", "DELETE", "/sessions/" + session, "", []string{key("wr_sec_x")}, 401, "invalid_token"},
		{"other tenant reads", "GET", "/queues/shop.sale", "", []string{bearer(other)}, 404, "queue_not_found"},
		{"other tenant reads stats", "GET", "/queues/shop.sale/stats", "", []string{bearer(other)}, 404, "queue_not_found"},
		{"other tenant patches", "PATCH", "/queues/shop.sale", `{"capacity":1}`, []string{bearer(other)}, 404, "queue_not_found"},
		{"other tenant deletes", "DELETE", "/queues/shop.sale", "", []string{bearer(other)}, 404, "queue_not_found"},
		{"other tenant's operator ends a session", "DELETE", "/sessions/" + session, "", []string{bearer(other)}, 404, "session_not_found"},
		{"other tenant's backend ends a session", "DELETE", "/sessions/" + session, "", []string{key(creds.tenants["other"].secretKey)}, 404, "session_not_found"},
		{"unknown queue", "GET", "/queues/shop.none", "", []string{bearer(shop)}, 404, "queue_not_found"},
		{"no queue's id", "GET", "/queues/Shop.sale", "", []string{bearer(shop)}, 404, "queue_not_found"},
		{"unknown path", "GET", "/nothing", "", []string{bearer(shop)}, 404, "not_found"},
		{"unclean path", "GET", "/queues//shop.sale", "", []string{bearer(shop)}, 404, "not_found"},
		{"wrong method", "PUT", "/queues/shop.sale", "", []string{bearer(shop)}, 405, "method_not_allowed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			answer := r.send(c.method, c.path, c.body, append(c.headers, "Content-Type: application/json")...)
			if c.code != "" {
				wantProblem(t, answer, c.status, c.code)
			} else if answer.Code != c.status {
				t.Errorf("status: got %d %s, want %d", answer.Code, answer.Body, c.status)
			}
			if c.status == 405 && !strings.Contains(answer.Header().Get("Allow"), "PATCH") {
				t.Errorf("Allow: got %q, want the methods that exist", answer.Header().Get("Allow"))
			}
		})
	}
	list := object(t, r.send("GET", "/queues", "", bearer(other)))
	if queues, _ := list["queues"].([]any); len(queues) != 0 {
		t.Errorf("the other tenant's list: got %v, want it empty", list)
	}
	if got := r.status(id, 1).State; got != queue.TicketActive {
		t.Errorf("the session after all these: got %q, want it still active", got)
	}
}

func TestStatsCount(t *testing.T) {
	r := newRig(t, newCredentials(t), nil)
	id := r.create("sale", `"capacity":2`)
	r.until(second, "the first tick", func() bool { return r.view(id).Turn > 1 })
	r.join(id, "a", "b", "c", "d")
	if got := r.claimAs(id, 1, "a"); got.SessionToken == "" {
		t.Fatalf("claim 1: got error %q, want a session", got.Error)
	}
	r.until(second, "the tick after", func() bool {
		return object(t, r.operate("GET", "/queues/shop.sale/stats", ""))["present"] == 2.0
	})
	stats := object(t, r.operate("GET", "/queues/shop.sale/stats", ""))
	for name, want := range map[string]any{
		"capacity": 2.0, "issued": 4.0, "watermark": 2.0, "waiting": 2.0, "owed": 0.0, "offers": 1.0, "sessions": 1.0,
		"admitted": 2.0, "claimed": 1.0, "ratePerMinute": 2.0, "state": "open",
	} {
		if stats[name] != want {
			t.Errorf("%s: got %v, want %v", name, stats[name], want)
		}
	}
}

// lateDeletion is a store in which the deletion of an earlier queue of the same id comes to its end just
// before the creation.
type lateDeletion struct{ store.Store }

func (l lateDeletion) Create(ctx context.Context, id queue.ID, incarnation, generation string, settings queue.Settings, now time.Time) (store.Meta, store.Ack, error) {
	if err := l.Settle(ctx, id, settings.OpensAt); err != nil {
		return store.Meta{}, store.Ack{}, err
	}
	return l.Store.Create(ctx, id, incarnation, generation, settings, now)
}

// A queue made anew while the last one of its id goes has a reminder of its opening all the same.
func TestOpeningIsRememberedOverADeletion(t *testing.T) {
	st := &memory.Store{}
	r := newRig(t, newCredentials(t), lateDeletion{st})
	id := r.create("sale", `"capacity":1,"opensAt":`+in(time.Hour))
	due, err := st.Due(t.Context(), time.Now().Add(time.Hour), 10)
	if err != nil || !slices.Contains(due, id) {
		t.Errorf("due by the opening are %v, error %v, want %s", due, err, id)
	}
}
