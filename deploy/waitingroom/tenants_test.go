package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// Whatever one tenant holds opens nothing of another's, and does not even tell what exists there.
func TestTenantsAreApart(t *testing.T) {
	a := startDemo(t, func(o *Options) { o.Capacity = 3 })
	other := *a.Other
	ownFan, ownSession := enter(t, a)
	theirFan, theirSession := enter(t, other)
	theirID := sessionID(t, other, theirSession)

	key := func(key string) http.Header { return http.Header{"X-Api-Key": {key}} }
	theirTickets := a.Edge + "/queues/" + other.Queue + "/tickets"
	theirQueue := a.Origin + "/queues/" + other.Queue
	none, hidden := []int{http.StatusUnauthorized, http.StatusNotFound}, []int{http.StatusNotFound}
	for _, c := range []struct {
		name, method, url string
		header            http.Header
		body              string
		want              []int
	}{
		{"join with our publishable key", "POST", theirTickets, key(a.PublishableKey), `{}`, hidden},
		{"join with our secret key", "POST", theirTickets, key(a.SecretKey), `{"userId":"u"}`, hidden},
		{"read their queue as our operator", "GET", theirQueue, bearer(a.OperatorToken), "", hidden},
		{"retune their queue as our operator", "PATCH", theirQueue, bearer(a.OperatorToken), `{"capacity":0}`, hidden},
		{"delete their queue as our operator", "DELETE", theirQueue, bearer(a.OperatorToken), "", hidden},
		{"read their stats as our viewer", "GET", theirQueue + "/stats", bearer(a.ViewerToken), "", hidden},
		{"a queue that does not exist looks the same", "GET", a.Origin + "/queues/other.nothing", bearer(a.OperatorToken), "", hidden},
		{"end their session with our key", "DELETE", a.Origin + "/sessions/" + theirID, key(a.SecretKey), "", hidden},
		{"end their session as our operator", "DELETE", a.Origin + "/sessions/" + theirID, bearer(a.OperatorToken), "", hidden},
		{"poll their ticket with ours", "GET", a.Edge + "/tickets/" + theirFan.TicketID, bearer(ownFan.Ticket), "", none},
		{"claim their ticket with ours", "POST", a.Edge + "/tickets/" + theirFan.TicketID + "/session", bearer(ownFan.Ticket), "", none},
		{"leave for them with our ticket", "DELETE", a.Edge + "/tickets/" + theirFan.TicketID, bearer(ownFan.Ticket), "", none},
		{"enter their shop with our session", "GET", other.Shop + "/", bearer(ownSession), "", none},
		{"buy in their shop with our session", "POST", other.Shop + "/buy", bearer(ownSession), "", none},
		{"our session as access to their queue", "GET", a.Edge + "/access?queue=" + other.Queue, bearer(ownSession), "", none},
		{"our ticket as a session", "GET", a.Edge + "/access", bearer(ownFan.Ticket), "", none},
		{"our operator token as a session", "GET", a.Shop + "/", bearer(a.OperatorToken), "", none},
	} {
		code, text := send(t, c.method, c.url, c.header, c.body)
		if code != c.want[0] && code != c.want[len(c.want)-1] {
			t.Errorf("%s: got %d %s; want one of %v", c.name, code, text, c.want)
		}
	}

	// What was tried has changed nothing there.
	if code, _ := send(t, "GET", other.Shop+"/", bearer(theirSession), ""); code != http.StatusOK {
		t.Errorf("their own session in their shop: got %d; want 200", code)
	}
	if code, text := send(t, "GET", theirQueue, bearer(other.OperatorToken), ""); code != http.StatusOK || !strings.Contains(text, `"capacity":3`) {
		t.Errorf("their queue as their operator: got %d %s; want 200 with capacity 3", code, text)
	}
	if _, text := send(t, "GET", a.Origin+"/queues", bearer(a.OperatorToken), ""); strings.Contains(text, other.Queue) {
		t.Errorf("our list of queues: got %s; want none of theirs", text)
	}
	if code, _ := send(t, "DELETE", a.Origin+"/sessions/"+theirID, key(other.SecretKey), ""); code != http.StatusNoContent {
		t.Errorf("end their session with their key: got %d; want 204", code)
	}
	if _, text := send(t, "GET", a.Edge+"/revocations", key(a.SecretKey), ""); strings.Contains(text, theirID) {
		t.Errorf("our revocations: got %s; want none of their sessions", text)
	}
	if code, _ := send(t, "PATCH", a.Origin+"/queues/"+a.Queue, bearer(a.ViewerToken), `{"capacity":0}`); code != http.StatusForbidden {
		t.Errorf("retune our own queue as a viewer: got %d; want 403", code)
	}
}

// sessionID reads a session's id as a backend would: from the list of those that it ended, or,
// as here, from the token itself.
func sessionID(t *testing.T, a Access, session string) string {
	t.Helper()
	if code, text := send(t, "GET", a.Edge+"/access", bearer(session), ""); code != http.StatusOK {
		t.Fatalf("/access with a fresh session: got %d %s; want 200", code, text)
	}
	var claims struct {
		ID string `json:"jti"`
	}
	if err := json.Unmarshal(payload(t, session), &claims); err != nil {
		t.Fatal(err)
	}
	return claims.ID
}
