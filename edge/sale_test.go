package edge_test

import (
	"net/http"
	"testing"
	"time"

	"waitingroom/tokens"
)

// operate changes a queue of acme as its operator does.
func (h *house) operate(queue, patch string) {
	h.t.Helper()
	if code, m := h.send(h.origin, "PATCH", "/queues/"+queue, "Authorization: Bearer "+h.keys["acme"].operator, patch); code != http.StatusOK {
		h.t.Fatalf("PATCH %s: got %d %v, want 200", patch, code, m)
	}
}

// Who joins before the opening is told when it is, on every edge, and has a ticket that outlives it.
func TestBeforeAndAtTheOpening(t *testing.T) {
	h := newHouse(t)
	opens := time.Now().Add(100 * 24 * time.Hour).UTC().Truncate(time.Millisecond)
	h.create("acme", "sale", `"capacity":1,"opensAt":"`+opens.Format(time.RFC3339Nano)+`"`)
	first, m := h.join(0, "acme.sale", h.keys["acme"].publishable, `{}`)
	second, _ := h.join(1, "acme.sale", h.keys["acme"].publishable, `{}`)
	if m["state"] != "scheduled" || m["queueState"] != "scheduled" || m["opensAt"] != opens.Format(time.RFC3339Nano) {
		t.Errorf("join before the opening: got %v, want scheduled until %v", m, opens)
	}
	if held, _ := time.Parse(time.RFC3339Nano, m["heldUntil"].(string)); held.Before(opens) {
		t.Errorf("join before the opening: held until %v, want the hold to begin at %v", held, opens)
	}
	for name, f := range map[string]fan{"first": first, "second": second} {
		if exp := time.Unix(int64(decodeClaims(t, f.ticket)["exp"].(float64)), 0); exp.Before(opens.Add(tokens.TicketLifetime - time.Second)) {
			t.Errorf("%s ticket: expires %v, want 30 days after the opening at %v", name, exp, opens)
		}
	}
	for i := range h.edges {
		if _, m := h.edge(i, "GET", "/queues/acme.sale", "", ""); m["state"] != "scheduled" || m["opensAt"] != opens.Format(time.RFC3339Nano) {
			t.Errorf("edge %d describes the queue as %v, want scheduled until %v", i, m, opens)
		}
		if _, m := h.edge(i, "GET", "/queues/acme.sale", "", ""); m["remaining"] != nil {
			t.Errorf("edge %d tells everybody what remains: %v", i, m)
		}
	}

	moved := opens.Add(29 * 24 * time.Hour)
	h.operate("acme.sale", `{"opensAt":"`+moved.Format(time.RFC3339Nano)+`"}`)
	for i, f := range []fan{first, second} {
		h.until("the edge to tell the new opening", func() bool {
			_, m := h.edge(i, "GET", "/tickets/"+f.id, f.bearer(), "")
			return m["opensAt"] == moved.Format(time.RFC3339Nano)
		})
	}
	// Paused before the opening, it has none to tell until it is scheduled again.
	h.operate("acme.sale", `{"state":"paused"}`)
	for i := range h.edges {
		h.until("the pause to be told", func() bool {
			_, m := h.edge(i, "GET", "/queues/acme.sale", "", "")
			return m["state"] == "paused" && m["opensAt"] == nil
		})
	}
	h.operate("acme.sale", `{"state":"scheduled"}`)
	h.until("the schedule to be told again", func() bool {
		_, m := h.edge(0, "GET", "/queues/acme.sale", "", "")
		return m["state"] == "scheduled" && m["opensAt"] == moved.Format(time.RFC3339Nano)
	})
	soon := time.Now().Add(time.Second)
	h.operate("acme.sale", `{"opensAt":"`+soon.UTC().Format(time.RFC3339Nano)+`"}`)
	m = h.state(1, first, "admitted")
	if now := time.Now(); now.Before(soon) || m["opensAt"] != nil {
		t.Errorf("after the opening: admitted %v before it, status %v, want no opensAt any more", soon.Sub(now), m)
	}
	h.state(0, second, "waiting")
	h.claim(0, first)

	// What is sold out is told to both, and what comes back too.
	h.operate("acme.sale", `{"remaining":0}`)
	for i := range h.edges {
		h.until("sold out", func() bool {
			_, m := h.edge(i, "GET", "/tickets/"+second.id, second.bearer(), "")
			return m["state"] == "waiting" && m["queueState"] == "sold_out"
		})
		h.until("the state document to say so", func() bool {
			_, m := h.edge(i, "GET", "/queues/acme.sale/state", "", "")
			return m["queueState"] == "sold_out"
		})
		h.state(i, first, "active")
	}
	h.operate("acme.sale", `{"remaining":1,"capacity":2,"state":"open"}`)
	h.state(0, second, "admitted")
}
