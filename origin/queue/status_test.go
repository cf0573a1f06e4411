package queue_test

import (
	"testing"
	"time"

	"waitingroom/origin/queue"
)

func TestStatus(t *testing.T) {
	h := newHistory(1)
	h.issued = 20
	session := queue.Session{Position: 2, ID: "t.q~x", StartsAt: noon, ExpiresAt: noon.Add(time.Minute)}
	claimBy := noon.Add(5 * time.Minute)
	entries := []queue.Entry{
		h.entry(queue.Entry{Kind: queue.EntryJoined, Issued: 20}),
		h.entry(queue.Entry{Kind: queue.EntryOffered, Positions: queue.Positions{1, 2, 3, 4}, Until: claimBy, Watermark: 4, Issued: 20}),
		h.entry(queue.Entry{Kind: queue.EntryClaimed, Positions: queue.Positions{2}, Session: session.ID, Since: session.StartsAt, Until: session.ExpiresAt}),
		h.entry(queue.Entry{Kind: queue.EntryLapsed, Positions: queue.Positions{3}}),
		h.entry(queue.Entry{Kind: queue.EntryDone, Positions: queue.Positions{4}, Fate: queue.Missed}),
		h.entry(queue.Entry{Kind: queue.EntryDone, Positions: queue.Positions{5}, Fate: queue.Expired}),
		h.entry(queue.Entry{Kind: queue.EntryDone, Positions: queue.Positions{6}, Fate: queue.Left}),
	}
	open, ok := h.view().Apply(entries)
	if !ok {
		t.Fatal("entries were refused")
	}
	closed := h.settings
	closed.State = queue.Closed
	ended, _ := open.Apply([]queue.Entry{
		h.entry(queue.Entry{Kind: queue.EntryDone, Positions: queue.Positions{2}, Fate: queue.Ended}),
		h.entry(queue.Entry{Kind: queue.EntrySettings, Settings: &closed}),
		h.entry(queue.Entry{Kind: queue.EntryWithdrawn, Positions: queue.Positions{1}}),
	})
	ahead := func(n uint64) *uint64 { return &n }
	for _, c := range []struct {
		name     string
		view     *queue.View
		position uint64
		want     queue.Status
	}{
		{"offered", open, 1, queue.Status{State: queue.TicketAdmitted, ClaimBy: claimBy}},
		{"in the shop", open, 2, queue.Status{State: queue.TicketActive, SessionExpiresAt: session.ExpiresAt}},
		{"owed", open, 3, queue.Status{State: queue.TicketWaiting, Ahead: ahead(0)}},
		{"missed", open, 4, queue.Status{State: queue.TicketExpired, Reason: queue.ReasonMissed}},
		{"absent", open, 5, queue.Status{State: queue.TicketExpired, Reason: queue.ReasonAbsent}},
		{"left", open, 6, queue.Status{State: queue.TicketLeft}},
		{"next", open, 7, queue.Status{State: queue.TicketWaiting, Ahead: ahead(0)}},
		{"behind one", open, 8, queue.Status{State: queue.TicketWaiting, Ahead: ahead(1)}},
		{"newer than the view", open, 25, queue.Status{State: queue.TicketWaiting, Ahead: ahead(18)}},
		{"session ended", ended, 2, queue.Status{State: queue.TicketEnded}},
		{"closed while offered", ended, 1, queue.Status{State: queue.TicketClosed}},
		{"closed while waiting", ended, 9, queue.Status{State: queue.TicketClosed}},
		{"missed before the closing", ended, 4, queue.Status{State: queue.TicketExpired, Reason: queue.ReasonMissed}},
	} {
		t.Run(c.name, func(t *testing.T) {
			now := noon.Add(time.Second)
			got := c.view.Status(c.position, now)
			if got.State != c.want.State || got.Reason != c.want.Reason || !got.ClaimBy.Equal(c.want.ClaimBy) || !got.SessionExpiresAt.Equal(c.want.SessionExpiresAt) {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
			if (got.Ahead == nil) != (c.want.Ahead == nil) || got.Ahead != nil && *got.Ahead != *c.want.Ahead {
				t.Errorf("ahead is %v, want %v", got.Ahead, c.want.Ahead)
			}
			if got.QueueState != c.view.Settings.State || got.Position != c.position || !got.Now.Equal(now) || got.PollAfterSeconds < 1 ||
				got.Seq != queue.Seq("g1", c.view.Number) {
				t.Errorf("got %+v, want state %s, position %d, now %v, seq g1.%d", got, c.view.Settings.State, c.position, now, c.view.Number)
			}
			if inLine := got.State == queue.TicketWaiting || got.State == queue.TicketAdmitted; inLine == got.HeldUntil.IsZero() {
				t.Errorf("held until %v in state %s", got.HeldUntil, got.State)
			}
		})
	}
}
