package origin

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
	"waitingroom/origin/store/memory"
	"waitingroom/origin/wire"
	"waitingroom/tokens"
)

// in is a moment from now as JSON has it.
func in(d time.Duration) string { return `"` + time.Now().Add(d).UTC().Format(time.RFC3339Nano) + `"` }

// inVirtualTimeBefore runs a test on an origin with one queue that opens after a while.
func inVirtualTimeBefore(t *testing.T, opens time.Duration, settings string, test func(t *testing.T, a *audience)) {
	synctest.Test(t, func(t *testing.T) {
		creds := newCredentials(t)
		time.Sleep(300 * time.Millisecond)
		r := newRig(t, creds, nil)
		id := r.create("sale", settings+`,"opensAt":`+in(opens))
		test(t, &audience{r: r, id: id, seen: make(map[uint64]bool)})
		r.stop()
	})
}

func (a *audience) patch(body string) map[string]any {
	a.r.t.Helper()
	answer := a.r.operate("PATCH", "/queues/"+string(a.id), body)
	if answer.Code != http.StatusOK {
		a.r.t.Fatalf("PATCH %s: got %d %s, want 200", body, answer.Code, answer.Body)
	}
	return object(a.r.t, answer)
}

func wantQueueState(t *testing.T, a *audience, when string, want queue.State) {
	t.Helper()
	if got := a.r.view(a.id).Settings.State; got != want {
		t.Errorf("%s: the queue is %s, want %s", when, got, want)
	}
}

func TestAScheduledQueueOpensByItselfInOrderOfArrival(t *testing.T) {
	inVirtualTimeBefore(t, time.Hour, `"capacity":2,"holdSeconds":60,"claimSeconds":600`, func(t *testing.T, a *audience) {
		opens := time.Now().Add(time.Hour)
		gone, first, second, third := a.r.joinOne(a.id), a.r.joinOne(a.id), a.r.joinOne(a.id), a.r.joinOne(a.id)
		status := a.r.status(a.id, first)
		if status.State != queue.TicketScheduled || !status.OpensAt.Equal(opens.UTC().Truncate(time.Millisecond)) || status.ClaimBy != (time.Time{}) {
			t.Errorf("before the opening: %+v, want scheduled until %v", status, opens)
		}
		if got := status.HeldUntil; got.Before(opens.Add(59 * time.Second)) {
			t.Errorf("before the opening: held until %v, want the hold after the opening", got)
		}
		// Nothing runs while the opening is far.
		turn := a.r.view(a.id).Turn
		time.Sleep(30 * time.Minute)
		if view := a.r.view(a.id); view.Turn != turn {
			t.Errorf("turn %d half an hour before the opening, want %d as at the joining", view.Turn, turn)
		}
		a.seen[first], a.seen[second], a.seen[third] = true, true, true
		a.pass(time.Until(opens) - 10*time.Millisecond)
		wantQueueState(t, a, "just before the opening", queue.Scheduled)
		wantState(t, a, first, "just before the opening", queue.TicketScheduled, "")
		time.Sleep(300 * time.Millisecond)
		wantQueueState(t, a, "a tick after the opening", queue.Open)
		wantState(t, a, first, "at the opening", queue.TicketAdmitted, "")
		wantState(t, a, second, "at the opening", queue.TicketAdmitted, "")
		wantState(t, a, third, "at the opening", queue.TicketWaiting, "")
		// The hold of the one who went away began at the opening.
		wantState(t, a, gone, "passed by the opening", queue.TicketWaiting, "")
		a.pass(59 * time.Second)
		wantState(t, a, gone, "within the hold", queue.TicketWaiting, "")
		a.pass(8 * time.Second)
		wantState(t, a, gone, "after the hold", queue.TicketExpired, queue.ReasonAbsent)
	})
}

func TestAnOpeningThatIsMoved(t *testing.T) {
	inVirtualTimeBefore(t, 10*time.Minute, `"capacity":1`, func(t *testing.T, a *audience) {
		fan := a.arrive()
		a.patch(`{"opensAt":` + in(time.Hour) + `}`)
		a.pass(30 * time.Minute)
		wantState(t, a, fan, "at the first opening", queue.TicketScheduled, "")
		a.patch(`{"opensAt":` + in(20*time.Second) + `}`)
		a.pass(19 * time.Second)
		wantState(t, a, fan, "before the nearer opening", queue.TicketScheduled, "")
		a.pass(2 * time.Second)
		wantState(t, a, fan, "after it", queue.TicketAdmitted, "")
	})
	inVirtualTimeBefore(t, 10*time.Minute, `"capacity":1`, func(t *testing.T, a *audience) {
		fan := a.arrive()
		if got := a.patch(`{"opensAt":` + in(-time.Minute) + `}`)["state"]; got != "open" {
			t.Errorf("an opening moved into the past: the queue is %v, want open", got)
		}
		a.pass(time.Second)
		wantState(t, a, fan, "after it", queue.TicketAdmitted, "")
	})
}

// An operator who pauses a queue before its opening, and resumes it in time, gets the opening at its time.
func TestAPausedOpeningIsScheduledAgain(t *testing.T) {
	inVirtualTimeBefore(t, time.Hour, `"capacity":1,"holdSeconds":60`, func(t *testing.T, a *audience) {
		opens := time.Now().Add(time.Hour)
		first, second := a.r.joinOne(a.id), a.r.joinOne(a.id)
		a.patch(`{"state":"paused"}`)
		a.pass(5 * time.Minute) // longer than the hold, which does not run yet
		wantState(t, a, first, "paused before the opening", queue.TicketWaiting, "")
		a.seen[first], a.seen[second] = true, true
		a.patch(`{"state":"scheduled"}`)
		wantState(t, a, first, "scheduled again", queue.TicketScheduled, "")
		a.pass(time.Until(opens) - 10*time.Millisecond)
		wantQueueState(t, a, "just before the opening", queue.Scheduled)
		time.Sleep(300 * time.Millisecond)
		wantQueueState(t, a, "a tick after the opening", queue.Open)
		wantState(t, a, first, "at the opening", queue.TicketAdmitted, "")
		wantState(t, a, second, "at the opening", queue.TicketWaiting, "")
		a.patch(`{"state":"paused"}`)
		answer := a.r.operate("PATCH", "/queues/"+string(a.id), `{"state":"scheduled","opensAt":`+in(time.Hour)+`}`)
		wantProblem(t, answer, http.StatusBadRequest, "invalid_settings")
	})
}

func TestASoldOutQueueKeepsPlacesAndReopens(t *testing.T) {
	inVirtualTime(t, `"capacity":2,"holdSeconds":60,"claimSeconds":30,"purchaseWindowSeconds":600,"maxMissedOffers":1,"remaining":2`, func(t *testing.T, a *audience) {
		buyer, offered, waits, gone := a.arrive(), a.arrive(), a.arrive(), a.r.joinOne(a.id)
		a.r.claimOne(a.id, buyer)
		wantState(t, a, offered, "with a slot", queue.TicketAdmitted, "")
		if got := a.patch(`{"remaining":0}`)["state"]; got != "sold_out" {
			t.Fatalf("at zero: the queue is %v, want sold_out", got)
		}
		wantState(t, a, buyer, "sold out", queue.TicketActive, "")
		wantState(t, a, offered, "sold out", queue.TicketWaiting, "")
		if got := a.r.status(a.id, waits).QueueState; got != queue.SoldOut {
			t.Errorf("a waiting fan is told %s, want sold_out", got)
		}
		if got := a.r.claimAs(a.id, offered, "fan"); got.Error != wire.CodeNotYourTurn {
			t.Errorf("claim of a withdrawn offer: got %q, want %q", got.Error, wire.CodeNotYourTurn)
		}
		a.pass(67 * time.Second)
		wantState(t, a, gone, "absent for the hold while sold out", queue.TicketExpired, queue.ReasonAbsent)
		wantState(t, a, offered, "present while sold out", queue.TicketWaiting, "")

		a.patch(`{"remaining":1}`)
		a.pass(9 * time.Second)
		a.patch(`{"remaining":0}`)
		a.pass(5 * time.Second)
		wantQueueState(t, a, "after a ticket came and went", queue.SoldOut)
		a.patch(`{"remaining":3}`)
		a.pass(9500 * time.Millisecond)
		wantQueueState(t, a, "before 10 s", queue.SoldOut)
		a.pass(time.Second)
		wantQueueState(t, a, "after 10 s", queue.Open)
		wantState(t, a, offered, "reopened: owed, and no offer was missed", queue.TicketAdmitted, "")
		wantState(t, a, waits, "reopened, behind", queue.TicketWaiting, "")

		a.patch(`{"state":"sold_out"}`)
		a.patch(`{"remaining":500}`)
		a.pass(30 * time.Second)
		wantQueueState(t, a, "sold out by hand", queue.SoldOut)
		a.patch(`{"state":"open"}`)
		a.pass(time.Second)
		wantState(t, a, offered, "opened by hand", queue.TicketAdmitted, "")
	})
}

// A report with every purchase disturbs nobody: who joins an empty shop goes in at once all along.
func TestReportsOfWhatRemainsDisturbNobody(t *testing.T) {
	inVirtualTime(t, `"capacity":1000,"remaining":10000`, func(t *testing.T, a *audience) {
		a.r.joinOne(a.id)
		time.Sleep(time.Second)
		before := a.r.view(a.id)
		for left := range 200 {
			a.patch(fmt.Sprintf(`{"remaining":%d}`, 9999-left))
			if fan := a.r.joinOne(a.id); a.r.status(a.id, fan).State != queue.TicketAdmitted {
				t.Fatalf("the fan who joined after report %d waits, want an offer at once", left)
			}
			time.Sleep(7 * time.Millisecond)
		}
		if after := a.r.view(a.id); after.Turn != before.Turn {
			t.Errorf("turn %d after 200 reports in 1.4 s, want %d", after.Turn, before.Turn)
		}
	})
}

// Pause and resume, and retunes, in the middle of a sale.
func TestPauseAndRetune(t *testing.T) {
	inVirtualTime(t, `"capacity":2,"holdSeconds":600,"claimSeconds":30,"purchaseWindowSeconds":600`, func(t *testing.T, a *audience) {
		one, two, three, four := a.arrive(), a.arrive(), a.arrive(), a.arrive()
		session := a.r.claimOne(a.id, one)
		a.patch(`{"state":"paused"}`)
		a.r.claimOne(a.id, two) // a running offer stays claimable
		a.patch(`{"capacity":3}`)
		a.pass(10 * time.Second)
		wantState(t, a, three, "paused with a free slot", queue.TicketWaiting, "")
		a.patch(`{"state":"open"}`)
		a.pass(time.Second)
		wantState(t, a, three, "resumed", queue.TicketAdmitted, "")
		a.patch(`{"capacity":1,"claimSeconds":5,"purchaseWindowSeconds":10}`)
		a.pass(20 * time.Second)
		wantState(t, a, three, "offered before the retune", queue.TicketAdmitted, "")
		if got := a.r.status(a.id, one); got.State != queue.TicketActive || !got.SessionExpiresAt.Equal(session.ExpiresAt) {
			t.Errorf("a session after a smaller capacity and window: %s until %v, want active until %v", got.State, got.SessionExpiresAt, session.ExpiresAt)
		}
		wantState(t, a, four, "above the capacity", queue.TicketWaiting, "")
		a.patch(`{"capacity":4}`)
		a.pass(time.Second)
		got := a.r.status(a.id, four)
		if left := time.Until(got.ClaimBy); got.State != queue.TicketAdmitted || left > 5*time.Second {
			t.Errorf("offered after the retune: %s for %v, want admitted for at most 5s", got.State, left)
		}
	})
}

// An origin that is started anew finds what is due: the opening, the reopening, and the data of a
// closed queue that goes.
func TestWhatIsDueOutlivesEveryOrigin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		creds := newCredentials(t)
		st := &memory.Store{}
		r := newRig(t, creds, st)
		opens := r.create("opens", `"capacity":1,"opensAt":`+in(time.Hour))
		late := r.create("late", `"capacity":1,"opensAt":`+in(50*time.Minute))
		reopens := r.create("reopens", `"capacity":1,"remaining":0`)
		closed := r.create("closed", `"capacity":1,"retentionSeconds":3600`)
		for id, patch := range map[queue.ID]string{reopens: `{"remaining":1}`, closed: `{"state":"closed"}`} {
			if answer := r.operate("PATCH", "/queues/"+string(id), patch); answer.Code != http.StatusOK {
				t.Fatalf("PATCH: got %d %s", answer.Code, answer.Body)
			}
		}
		r.stop()
		time.Sleep(55*time.Minute + 30*time.Second) // the rounds of every minute fall between
		state := func(id queue.ID) queue.State {
			meta, err := st.Get(t.Context(), id)
			if errors.Is(err, store.ErrNotFound) {
				return "gone"
			}
			must(t, err)
			return meta.Settings.State
		}
		if got := state(opens) + " " + state(late) + " " + state(reopens) + " " + state(closed); got != "scheduled scheduled sold_out closed" {
			t.Fatalf("without an origin: %s", got)
		}
		r = newRig(t, creds, st)
		time.Sleep(3 * time.Second)
		if got := state(opens) + " " + state(late) + " " + state(reopens) + " " + state(closed); got != "scheduled open open closed" {
			t.Errorf("after the start of an origin: %s", got)
		}
		time.Sleep(4*time.Minute + 25*time.Second)
		if got := state(opens); got != "scheduled" {
			t.Errorf("before its time the queue is %s", got)
		}
		time.Sleep(5 * time.Second)
		if got := state(opens) + " " + state(closed); got != "open gone" {
			t.Errorf("at the time: %s, want open gone", got)
		}
		r.stop()
	})
}

func TestDataOfAClosedQueueGoes(t *testing.T) {
	inVirtualTime(t, `"capacity":2,"retentionSeconds":60,"purchaseWindowSeconds":300`, func(t *testing.T, a *audience) {
		shops, waits, offered := a.arrive(), a.r.joinOne(a.id), a.r.joinOne(a.id)
		a.r.claimOne(a.id, shops)
		_, _ = waits, offered
		a.patch(`{"state":"closed"}`)
		if view := a.r.view(a.id); view.Offers != 0 || view.Sessions != 1 {
			t.Errorf("closed: %d offers, %d sessions, want 0 and 1", view.Offers, view.Sessions)
		}
		wantState(t, a, waits, "closed", queue.TicketClosed, "")
		// The session keeps its window, and the data with it.
		time.Sleep(4 * time.Minute)
		wantState(t, a, shops, "after the retention", queue.TicketActive, "")
		wantProblem(t, a.r.operate("DELETE", "/queues/"+string(a.id), ""), http.StatusConflict, "session_running")
		time.Sleep(65 * time.Second)
		wantProblem(t, a.r.operate("GET", "/queues/"+string(a.id), ""), http.StatusNotFound, "queue_not_found")
		if got := a.r.feed.View(a.id); got != nil {
			t.Errorf("the feed still has a view of the queue: %+v", got.Settings)
		}
		var answer wire.ClaimResponse
		a.r.batch(wire.PathClaim, wire.ClaimRequest{Ticket: signedFor(a.r, a.id)}, &answer)
		if answer.Error == "" || answer.SessionToken != "" {
			t.Errorf("claim with a ticket of a queue that is gone: got %+v, want a refusal", answer)
		}
		due, err := a.r.Store.Due(t.Context(), time.Now().Add(1000*time.Hour), 10)
		if err != nil || len(due) != 0 {
			t.Errorf("still due are %v, %v, want nothing", due, err)
		}
	})
	inVirtualTime(t, `"capacity":2,"retentionSeconds":60`, func(t *testing.T, a *audience) {
		a.patch(`{"state":"closed"}`)
		time.Sleep(30 * time.Second)
		a.patch(`{"retentionSeconds":120}`)
		time.Sleep(80 * time.Second)
		wantQueueState(t, a, "with a longer retention", queue.Closed)
		time.Sleep(12 * time.Second)
		wantProblem(t, a.r.operate("GET", "/queues/"+string(a.id), ""), http.StatusNotFound, "queue_not_found")
	})
}

// signedFor is a ticket of a queue that may be gone.
func signedFor(r *rig, id queue.ID) string {
	r.t.Helper()
	now := r.clock.Now()
	text, err := r.tickets.Sign(nil, tokens.Ticket{
		Queue: string(id), IssuedAt: now, ExpiresAt: now.Add(time.Hour), Subject: "fan", Position: 1, Incarnation: "gone", Generation: "gone",
	}, now)
	must(r.t, err)
	return string(text)
}

func TestOperatorSchedulesAndReports(t *testing.T) {
	r := newRig(t, newCredentials(t), nil)
	created := object(t, r.operate("POST", "/queues", `{"slug":"sale","capacity":1,"opensAt":"2100-01-01T10:00:00+01:00","remaining":5}`))
	if created["state"] != "scheduled" || created["opensAt"] != "2100-01-01T09:00:00Z" || created["remaining"] != 5.0 {
		t.Errorf("created: got %v, want scheduled for 2100-01-01T09:00:00Z with 5 remaining", created)
	}
	if _, told := created["notes"]; told {
		t.Errorf("created: got %v, want no notes of the queue's own", created)
	}
	for body, want := range map[string]string{
		`{"opensAt":"2100-02-01T00:00:00Z"}`: "opensAt: at the latest 2100-01-30T09:00:00Z",
		`{"opensAt":null}`:                   "opensAt: it can be moved, not removed",
		`{"opensAt":"soon"}`:                 "opensAt: a time such as",
		`{"remaining":-1}`:                   "remaining: 0 to 1000000000",
		`{"remaining":"5"}`:                  "remaining",
		`{"milestones":[]}`:                  "unknown field /milestones",
	} {
		answer := r.operate("PATCH", "/queues/shop.sale", body)
		wantProblem(t, answer, http.StatusBadRequest, "invalid_settings")
		if detail := fmt.Sprint(object(t, answer)); !strings.Contains(detail, want) {
			t.Errorf("%s: got %s, want it to say %q", body, detail, want)
		}
	}
	patched := object(t, r.operate("PATCH", "/queues/shop.sale", `{"remaining":null,"state":"open"}`))
	if patched["state"] != "open" || patched["remaining"] != nil {
		t.Errorf("opened early: got %v", patched)
	}
	if _, told := patched["remaining"]; !told {
		t.Errorf("remaining that is not reported: got no member, want null")
	}
	r.operate("PATCH", "/queues/shop.sale", `{"remaining":7}`)
	if stats := object(t, r.operate("GET", "/queues/shop.sale/stats", "")); stats["remaining"] != 7.0 {
		t.Errorf("stats: got %v remaining, want 7", stats["remaining"])
	}
}
