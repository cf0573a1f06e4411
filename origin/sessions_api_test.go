package origin

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/wire"
	"waitingroom/tokens"
)

const second = time.Second

// sessionOf joins a fan to a free shop, claims, and returns what follows the ~ in the session's id.
func sessionOf(t *testing.T, r *rig, id queue.ID) string {
	t.Helper()
	position := r.joinOne(id)
	r.until(second, "the fan is admitted", func() bool { return r.status(id, position).State == queue.TicketAdmitted })
	token := r.claimOne(id, position).SessionToken
	jwks, err := r.keys.Load().sessions.Public(r.clock.Now())
	must(t, err)
	public, err := tokens.ParsePublicKeys(jwks)
	must(t, err)
	session, err := public.Verify(token, testIssuer, "shop", r.clock.Now())
	must(t, err)
	_, random, _ := strings.Cut(session.ID, "~")
	return random
}

func TestEndingASessionFreesItsSlotAndRevokesIt(t *testing.T) {
	creds := newCredentials(t)
	r := newRig(t, creds, nil)
	id := r.create("sale", `"capacity":1`)
	for name, credential := range map[string]string{
		"by the shop":     "X-API-Key: " + creds.tenants["shop"].secretKey,
		"by the operator": "Authorization: Bearer " + creds.operator(t, "shop", tokens.RoleOperator),
	} {
		session := string(id) + "~" + sessionOf(t, r, id)
		next := r.joinOne(id)
		for _, again := range []string{"", " again"} {
			if answer := r.send("DELETE", "/sessions/"+session, "", credential); answer.Code != http.StatusNoContent {
				t.Errorf("ending a session %s%s: got %d %s, want 204", name, again, answer.Code, answer.Body)
			}
		}
		r.until(second, "the slot is offered to the next", func() bool { return r.status(id, next).State == queue.TicketAdmitted })
		if revoked, err := r.feed.IsRevoked(t.Context(), "shop", session); err != nil || !revoked {
			t.Errorf("revoked %s: got %v, %v, want true", name, revoked, err)
		}
		r.leaveOne(id, next)
	}
	for _, unknown := range []string{"shop.sale~nobody", "shop.none~nobody", "shop.sale", "x", "shop.sale~", "a~b~c"} {
		answer := r.send("DELETE", "/sessions/"+unknown, "", "X-API-Key: "+creds.tenants["shop"].secretKey)
		wantProblem(t, answer, http.StatusNotFound, "session_not_found")
	}
}

// Whoever has the keys of the tickets, as a broken edge does, takes no user's place all the same.
func TestClaimsOfForgedTickets(t *testing.T) {
	r := newRig(t, newCredentials(t), nil)
	id := r.create("sale", `"capacity":2,"identity":"required"`)
	r.until(second, "the first tick", func() bool { return r.view(id).Turn > 1 })
	place := r.join(id, "ann").Joins[0].Position
	for _, forged := range []string{"bob", "anonymous"} {
		if got := r.claimAs(id, place, forged); got.Error != wire.CodeTaken {
			t.Errorf("claim of ann's place by %s: got %+v, want %q", forged, got, wire.CodeTaken)
		}
	}
	if got := r.claimAs(id, place, "ann"); got.SessionToken == "" {
		t.Errorf("claim by ann: got error %q, want a session", got.Error)
	}
}

func TestClaims(t *testing.T) {
	r := newRig(t, newCredentials(t), nil)
	id := r.create("sale", `"capacity":1`)
	r.create("second", `"capacity":1`)
	r.until(second, "the first tick", func() bool { return r.view(id).Turn > 1 })
	first, waiting := r.joinOne(id), r.joinOne(id)

	if got := r.claimAs(id, waiting, "fan"); got.Error != wire.CodeNotYourTurn {
		t.Errorf("claim before one's turn: got %+v, want %q", got, wire.CodeNotYourTurn)
	}
	session := r.claimOne(id, first)
	again := r.claimOne(id, first)
	if again.SessionToken != session.SessionToken || !again.ExpiresAt.Equal(session.ExpiresAt) {
		t.Error("a repeated claim: got another token or expiry, want the same session")
	}
	if got := r.claimAs(id, first, "another subject"); got.Error != wire.CodeTaken {
		t.Errorf("claim of somebody else's session: got %+v, want %q", got, wire.CodeTaken)
	}
	if got := r.claimAs(id, 99, "fan"); got.Error != wire.CodeBadTicket {
		t.Errorf("claim of a position that was not issued: got %+v, want %q", got, wire.CodeBadTicket)
	}
	for name, ticket := range map[string]string{
		"garbage": "garbage", "a cut signature": r.ticket(id, first, "fan")[:100],
		"a session token": session.SessionToken, "empty": "",
	} {
		var out wire.ClaimResponse
		if r.batch(wire.PathClaim, wire.ClaimRequest{Ticket: ticket}, &out); out.Error != wire.CodeBadTicket {
			t.Errorf("claim with %s: got %+v, want %q", name, out, wire.CodeBadTicket)
		}
	}

	old := r.ticket(id, first, "fan")
	r.operate("PATCH", "/queues/shop.sale", `{"state":"closed"}`)
	if got := r.claimOne(id, first); got.SessionToken != session.SessionToken {
		t.Error("a repeated claim in a closed queue: got another token, want the same session")
	}
	if got := r.claimAs(id, waiting, "fan"); got.Error != wire.CodeClosed {
		t.Errorf("claim in a closed queue: got %+v, want %q", got, wire.CodeClosed)
	}
	if code := r.leaveOne(id, first); code != http.StatusNoContent {
		t.Errorf("leave with a session: got %d, want 204", code)
	}
	if got := r.claimAs(id, first, "fan"); got.Error != wire.CodeOut || got.Fate != queue.Left {
		t.Errorf("claim after leaving: got %+v, want %q with fate left", got, wire.CodeOut)
	}
	if code := r.leaveOne(id, first); code != http.StatusNoContent {
		t.Errorf("leave again: got %d, want 204", code)
	}
	r.operate("DELETE", "/queues/shop.sale", "")
	r.create("sale", `"capacity":1`)
	var out wire.ClaimResponse
	if r.batch(wire.PathClaim, wire.ClaimRequest{Ticket: old}, &out); out.Error != wire.CodeBadTicket {
		t.Errorf("claim with a ticket of a queue that was deleted and created again: got %+v, want %q", out, wire.CodeBadTicket)
	}
	if code := r.batch(wire.PathLeave, wire.LeaveRequest{Ticket: old}, nil); code != http.StatusUnauthorized {
		t.Errorf("leave with such a ticket: got %d, want 401", code)
	}
}

func TestJoinBatches(t *testing.T) {
	r := newRig(t, newCredentials(t), nil)
	id := r.create("sale", `"capacity":0`)
	one := r.join(id, "", "anna", "", "boris")
	for i, j := range one.Joins {
		if j.Position != uint64(i+1) || !j.New {
			t.Errorf("join %d: got %+v, want the new position %d", i, j, i+1)
		}
	}
	two := r.join(id, "boris", "anna", "")
	for i, want := range []wire.Joined{{Position: 4}, {Position: 2}, {Position: 5, New: true}} {
		if got := two.Joins[i]; got.Position != want.Position || got.New != want.New {
			t.Errorf("second join %d: got %+v, want %+v", i, got, want)
		}
	}
	r.joins-- // the answer was lost: the same again
	if again := r.join(id, "boris", "anna", ""); again.Joins[2].Position != 5 {
		t.Errorf("repeated batch: got position %d, want the same as before: 5", again.Joins[2].Position)
	}
	other := r.creds.operator(t, "other", tokens.RoleOperator)
	r.send("POST", "/queues", `{"slug":"sale","capacity":0}`, "Content-Type: application/json", "Authorization: Bearer "+other)
	if got := r.join("other.sale", "anna").Joins[0]; got.Position != 1 || !got.New {
		t.Errorf("a user of the same name at another tenant: got %+v, want a position of their own", got)
	}

	for name, in := range map[string]wire.JoinRequest{
		"no fans":      {Queue: id, Edge: testEdge, Seq: 9},
		"no edge":      {Queue: id, Seq: 9, Users: []string{""}},
		"no number":    {Queue: id, Edge: testEdge, Users: []string{""}},
		"no queue":     {Queue: "sale", Edge: testEdge, Seq: 9, Users: []string{""}},
		"long user id": {Queue: id, Edge: testEdge, Seq: 9, Users: []string{strings.Repeat("x", 129)}},
		"too many":     {Queue: id, Edge: testEdge, Seq: 9, Users: make([]string, maxJoins+1)},
	} {
		var refusal wire.Error
		if code := r.batch(wire.PathJoin, in, &refusal); code != 400 || refusal.Code != wire.CodeBadRequest {
			t.Errorf("batch with %s: got %d %q, want 400 %q", name, code, refusal.Code, wire.CodeBadRequest)
		}
	}
	for name, in := range map[string]wire.JoinRequest{
		"unknown queue":  {Queue: "shop.none", Edge: testEdge, Seq: 9, Users: []string{""}},
		"unknown tenant": {Queue: "nobody.sale", Edge: testEdge, Seq: 9, Users: []string{""}},
	} {
		var refusal wire.Error
		if code := r.batch(wire.PathJoin, in, &refusal); code != 404 || refusal.Code != wire.CodeNotFound {
			t.Errorf("batch for an %s: got %d %q, want 404 %q", name, code, refusal.Code, wire.CodeNotFound)
		}
	}
	r.operate("PATCH", "/queues/shop.sale", `{"state":"closed"}`)
	var refusal wire.Error
	in := wire.JoinRequest{Queue: id, Edge: testEdge, Seq: 10, Users: []string{""}}
	if code := r.batch(wire.PathJoin, in, &refusal); code != 410 || refusal.Code != wire.CodeClosed {
		t.Errorf("join of a closed queue: got %d %q, want 410 %q", code, refusal.Code, wire.CodeClosed)
	}
}

func TestEdgesNeedTheSecretAndAPrivateConnection(t *testing.T) {
	r := newRig(t, newCredentials(t), nil)
	paths := map[string]string{
		wire.PathJoin: "POST", wire.PathSightings: "POST", wire.PathClaim: "POST", wire.PathLeave: "POST", wire.PathFeed: "GET",
	}
	for path, method := range paths {
		for name, headers := range map[string][]string{
			"no credential": nil, "a wrong secret": {"Authorization: Bearer wrong"},
			"an operator's token": {"Authorization: Bearer " + r.creds.operator(t, "shop", tokens.RoleOperator)},
			"an API key":          {"X-API-Key: " + r.creds.tenants["shop"].secretKey},
		} {
			answer := r.send(method, path, "{}", append(headers, "Content-Type: application/json")...)
			if answer.Code != 401 || !strings.Contains(answer.Body.String(), wire.CodeUnauthorized) {
				t.Errorf("%s with %s: got %d %s, want 401 %s", path, name, answer.Code, answer.Body, wire.CodeUnauthorized)
			}
		}
		r.fromFar(method, path, func(code int) {
			if code != http.StatusForbidden {
				t.Errorf("%s over plain HTTP from another host: got %d, want 403", path, code)
			}
		})
	}
}
