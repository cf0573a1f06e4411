package edge

import (
	"encoding/json"
	"net/http"
	"reflect"
	"testing"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/tokens"
)

func TestStatusIsWrittenAsEncodingJSONDoes(t *testing.T) {
	ahead := uint64(12)
	none := uint64(0)
	now := time.Date(2026, 7, 1, 10, 0, 0, 120_000_000, time.UTC)
	for name, status := range map[string]queue.Status{
		"zero": {},
		"waiting": {State: queue.TicketWaiting, QueueState: queue.Open, Position: 1 << 60, Ahead: &ahead,
			HeldUntil: now.Truncate(time.Second), PollAfterSeconds: 7, Now: now, Seq: "g-1_x.12"},
		"first":    {State: queue.TicketWaiting, QueueState: queue.Paused, Position: 1, Ahead: &none, Now: now, Stale: true},
		"admitted": {State: queue.TicketAdmitted, QueueState: queue.Open, Position: 3, ClaimBy: now, HeldUntil: now, Now: now},
		"active":   {State: queue.TicketActive, QueueState: queue.SoldOut, Position: 3, SessionExpiresAt: now, Now: now},
		"expired":  {State: queue.TicketExpired, Reason: queue.ReasonMissed, QueueState: queue.Closed, Position: 9, Now: now},
		"estimate": {State: queue.TicketScheduled, WaitSeconds: &queue.Wait{P50: 60, P90: 125}, LikelySoldOut: true, OpensAt: now, Now: now},
		"odd":      {Reason: "a\"b\\c\x01é€", Now: now},
	} {
		want, err := json.Marshal(status)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(appendStatus(nil, &status)); got != string(want) {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
	}
}

func TestStatusOfATicket(t *testing.T) {
	o := newScripted(t)
	e := startEdge(t, o, nil)
	o.log("acme.sale", queue.Entry{Kind: queue.EntryJoined, Issued: 10})
	e.applied("acme.sale")
	token, id := o.ticket(t, func(c *tokens.Ticket) { c.Position = 5 })

	got := e.do("GET", "/tickets/"+id, e.bearer(token), "")
	if got.status != http.StatusOK {
		t.Fatalf("status: got %d %s, want 200", got.status, got.body)
	}
	if cache := got.header.Get("Cache-Control"); cache != "no-store" {
		t.Errorf("Cache-Control: got %q, want no-store", cache)
	}
	var status queue.Status
	if err := json.Unmarshal([]byte(got.body), &status); err != nil {
		t.Fatal(err)
	}
	if status.State != queue.TicketWaiting || status.Ahead == nil || *status.Ahead != 4 || status.Position != 5 || status.Stale {
		t.Errorf("status: got %s, want waiting with 4 ahead", got.body)
	}
	if again, _ := json.Marshal(status); string(again) != got.body {
		t.Errorf("document:\n got %s\nwant %s", got.body, again)
	}

	// The same connection, the other states: nothing of the longer answer before may remain.
	claimBy := time.Now().Add(time.Minute).UTC().Truncate(time.Millisecond)
	o.log("acme.sale", queue.Entry{Kind: queue.EntryOffered, Positions: queue.Positions{5}, Watermark: 5, Until: claimBy})
	e.applied("acme.sale")
	if m := e.do("GET", "/tickets/"+id, e.bearer(token), "").object(t); m["state"] != "admitted" || m["ahead"] != nil ||
		m["claimBy"] != claimBy.Format(time.RFC3339Nano) {
		t.Errorf("with an offer: got %v, want admitted, ahead null and claimBy %v", m, claimBy)
	}
	o.log("acme.sale", queue.Entry{Kind: queue.EntryDone, Positions: queue.Positions{5}, Fate: queue.Missed})
	e.applied("acme.sale")
	if m := e.do("GET", "/tickets/"+id, e.bearer(token), "").object(t); m["state"] != "expired" || m["reason"] != "missed_offers" {
		t.Errorf("after the last missed offer: got %v, want expired for missed_offers", m)
	}
}

// A page that reads the public state, from whatever cache, tells the same as the ticket's status.
func TestWaitIsAlikeInStatusAndPublicState(t *testing.T) {
	o := newScripted(t)
	e := startEdge(t, o, nil)
	estimate := &queue.Estimate{
		Curve:   queue.Curve{Ahead: []uint64{0, 10, 90}, P50: []int{5, 60, 300}, P90: []int{20, 90, 500}},
		Learned: queue.Learned{P50: []float64{1}, P90: []float64{2}},
	}
	o.log("acme.sale", queue.Entry{Kind: queue.EntryJoined, Issued: 100},
		queue.Entry{Kind: queue.EntryOffered, Positions: queue.Positions{2}, Watermark: 2, Until: time.Now().Add(time.Hour)},
		queue.Entry{Kind: queue.EntryEstimate, Estimate: estimate})
	e.applied("acme.sale")
	state := e.do("GET", "/queues/acme.sale/state", nil, "")
	var public struct {
		Estimate *queue.Curve `json:"estimate"`
	}
	if err := json.Unmarshal([]byte(state.body), &public); err != nil {
		t.Fatal(err)
	}
	if got := state.object(t)["estimate"].(map[string]any); len(got) != 3 {
		t.Errorf("public estimate: got %v, want ahead, p50 and p90 alone", got)
	}
	for position, want := range map[uint64]*queue.Wait{1: {P50: 3, P90: 20}, 3: {P50: 5, P90: 20}, 8: {P50: 33, P90: 55}, 93: {P50: 300, P90: 500}, 94: nil} {
		token, id := o.ticketAt(t, position)
		var status queue.Status
		if err := json.Unmarshal([]byte(e.do("GET", "/tickets/"+id, e.bearer(token), "").body), &status); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(status.WaitSeconds, want) {
			t.Errorf("position %d is told %+v, want %+v", position, status.WaitSeconds, want)
		}
		var byState *queue.Wait
		if wait, known := public.Estimate.Wait(*status.Ahead, position <= 2); known {
			byState = &wait
		}
		if !reflect.DeepEqual(byState, status.WaitSeconds) {
			t.Errorf("position %d: by the public state %+v, want %+v as in the status", position, byState, status.WaitSeconds)
		}
	}

	// It was made for other settings.
	retuned := queue.DefaultSettings()
	retuned.State, retuned.Capacity = queue.Open, 7
	o.log("acme.sale", queue.Entry{Kind: queue.EntrySettings, Settings: &retuned})
	e.applied("acme.sale")
	if got := e.do("GET", "/queues/acme.sale/state", nil, "").object(t); got["estimate"] != nil {
		t.Errorf("after a retune: got the estimate %v, want null", got["estimate"])
	}
}

func TestStaleStateIsMarked(t *testing.T) {
	o := newScripted(t)
	e := startEdge(t, o, nil)
	token, id := o.ticket(t, nil)
	o.mu.Lock()
	o.silent = true
	o.mu.Unlock()
	waitFor(t, "a stale status", func() bool {
		e.known.clock.ready.Store(int64(time.Since(e.known.clock.start) - 2*staleAfter))
		got := e.do("GET", "/tickets/"+id, e.bearer(token), "")
		if got.status != http.StatusOK {
			t.Fatalf("without an origin: got %d, want the last known status", got.status)
		}
		return got.object(t)["stale"] == true
	})
	if got := e.do("GET", "/readyz", nil, ""); got.status != http.StatusOK {
		t.Errorf("readyz: got %d, want 200, for places are kept all the same", got.status)
	}
}
