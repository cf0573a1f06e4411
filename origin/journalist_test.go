package origin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store/memory"
	"waitingroom/origin/store/storetest"
	"waitingroom/tokens"
)

// stats reads the stats of a queue as a viewer.
func (r *rig) stats(id queue.ID, query string) statsDocument {
	r.t.Helper()
	answer := r.send("GET", "/queues/"+string(id)+"/stats"+query, "", "Authorization: Bearer "+r.creds.operator(r.t, "shop", tokens.RoleViewer))
	var document statsDocument
	if err := json.Unmarshal(answer.Body.Bytes(), &document); answer.Code != http.StatusOK || err != nil {
		r.t.Fatalf("stats%s: got %d %s, want 200", query, answer.Code, answer.Body)
	}
	return document
}

// sums adds up what the minutes of a series count.
func sums(series []queue.Minute) (sum queue.Minute) {
	for _, m := range series {
		sum.Joined += m.Joined
		sum.Admitted += m.Admitted
		sum.Absent += m.Absent
		sum.MissedOffers += m.MissedOffers
		sum.Claimed += m.Claimed
		sum.Ended += m.Ended
		sum.Expired += m.Expired
		sum.Missed += m.Missed
		sum.Left += m.Left
		sum.Lost += m.Lost
	}
	return sum
}

// release ends the session of a position as the shop does.
func (r *rig) release(id queue.ID, position uint64) {
	r.t.Helper()
	session, _ := r.view(id).Session(position)
	answer := r.send("DELETE", "/sessions/"+session.ID, "", "X-API-Key: "+r.creds.tenants["shop"].secretKey)
	if answer.Code != http.StatusNoContent {
		r.t.Fatalf("release of position %d: got %d %s, want 204", position, answer.Code, answer.Body)
	}
}

// patch changes a queue's settings.
func (r *rig) patch(id queue.ID, patch string) {
	r.t.Helper()
	if answer := r.operate("PATCH", "/queues/"+string(id), patch); answer.Code != http.StatusOK {
		r.t.Fatalf("patch %s: got %d %s, want 200", patch, answer.Code, answer.Body)
	}
}

// TestStatsTellTheSale plays a sale in which slots become free for every reason, and compares what the
// operator is told with what was done.
func TestStatsTellTheSale(t *testing.T) {
	inVirtualTime(t, `"capacity":2,"holdSeconds":60,"purchaseWindowSeconds":300,"claimSeconds":20`, func(t *testing.T, a *audience) {
		r, id := a.r, a.id
		for range 2 {
			r.claimOne(id, a.arrive()) // the shop is empty
		}
		third := a.arrive()
		r.joinOne(id) // is never seen again
		fifth, sixth := a.arrive(), a.arrive()
		seventh, eighth, ninth := a.arrive(), a.arrive(), a.arrive()
		tenth, eleventh := a.arrive(), a.arrive()
		a.pass(10 * time.Second)
		r.release(id, 1)
		a.pass(time.Second)
		wantState(t, a, third, "after a purchase", queue.TicketAdmitted, "")
		delete(a.seen, third) // and misses the offer
		a.pass(30 * time.Second)
		wantState(t, a, fifth, "after a missed offer", queue.TicketAdmitted, "")
		if code := r.leaveOne(id, fifth); code != http.StatusNoContent {
			t.Fatalf("leave: got %d, want 204", code)
		}
		delete(a.seen, fifth)
		a.pass(2 * time.Second)
		r.claimOne(id, sixth)
		r.patch(id, `{"capacity":3}`)
		a.pass(2 * time.Second)
		r.claimOne(id, seventh)
		r.patch(id, `{"state":"paused"}`)
		r.release(id, 2)
		a.pass(5 * time.Second)
		r.patch(id, `{"state":"open"}`)
		a.pass(2 * time.Second)
		r.claimOne(id, eighth)
		session, _ := r.view(id).Session(sixth)
		if answer := r.operate("DELETE", "/sessions/"+session.ID, ""); answer.Code != http.StatusNoContent {
			t.Fatalf("revoke: got %d %s, want 204", answer.Code, answer.Body)
		}
		a.pass(2 * time.Second)
		r.claimOne(id, ninth)
		if code := r.leaveOne(id, ninth); code != http.StatusNoContent { // with the session
			t.Fatalf("leave: got %d, want 204", code)
		}
		a.pass(2 * time.Second)
		r.claimOne(id, tenth)
		a.pass(300 * time.Second) // the absent expire, and then the windows end
		last := r.stats(id, "?minutes=100&moves=1000")

		type move struct {
			from, to uint64
			reason   queue.SlotReason
		}
		want := []move{
			{0, 1, queue.SlotOpening}, {1, 2, queue.SlotOpening}, {2, third, queue.SlotPurchase},
			{third, fifth, queue.SlotMissedOffer}, {fifth, sixth, queue.SlotLeft}, {sixth, seventh, queue.SlotRetune},
			{seventh, eighth, queue.SlotReopening}, {eighth, ninth, queue.SlotRevoked}, {ninth, tenth, queue.SlotLeft},
			{tenth, eleventh, queue.SlotExpiry},
		}
		var got []move
		for i, m := range last.Journal {
			for reason := range m.Reasons {
				got = append(got, move{m.From, m.To, reason})
			}
			if m.Number != uint64(i)+1 || m.Offered != 1 || m.OfOwed != 0 {
				t.Errorf("move %d: got %+v, want one offer beyond the watermark", i+1, m)
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("moves: got %v, want %v", got, want)
		}
		sum := sums(last.Series)
		wantSum := queue.Minute{Joined: 11, Admitted: 10, Absent: 1, MissedOffers: 1, Claimed: 7, Ended: 5, Expired: 2, Left: 2}
		if sum != wantSum {
			t.Errorf("the series sums to %+v, want %+v", sum, wantSum)
		}
		totals := queue.Minute{
			Joined: int(last.Issued), Admitted: last.Admitted, Absent: 1, MissedOffers: last.MissedOffers, Claimed: last.Claimed,
			Ended: last.Ended, Expired: last.Expired, Missed: last.Missed, Left: last.Left,
		}
		if sum != totals || last.JournalLost != 0 {
			t.Errorf("the series sums to %+v with %d lost, the totals are %+v", sum, last.JournalLost, totals)
		}
		first := last.Series[0]
		if first.Joined != 11 || first.Wait == nil || first.Wait.P50 < 10 || first.Wait.P90 < first.Wait.P50 || first.Wait.Max > 55 {
			t.Errorf("first minute: got %+v, wait %+v, want all joins, and waits of up to some 50 s", first, first.Wait)
		}
		end := last.Series[len(last.Series)-1]
		if end.Waiting != last.Waiting || end.Sessions != last.Sessions || end.Offers != last.Offers || end.Watermark != eleventh || end.Owed != last.Owed {
			t.Errorf("last minute: got %+v, want it to end as the queue stands: %+v", end, last)
		}
		// In parts.
		for after := 0; after <= len(want); after += 3 {
			part := r.stats(id, fmt.Sprintf("?moves=3&minutes=1&after=%d", after))
			if end := min(after+3, len(want)); !reflect.DeepEqual(part.Journal, append([]queue.Move{}, last.Journal[after:end]...)) || len(part.Series) != 1 {
				t.Errorf("three moves after %d: got %+v with %d minutes, want those of %+v with 1", after, part.Journal, len(part.Series), last.Journal)
			}
		}
		if none := r.stats(id, "?moves=0&minutes=0"); len(none.Journal)+len(none.Series) != 0 {
			t.Errorf("stats without a journal: got %d moves, %d minutes", len(none.Journal), len(none.Series))
		}
		if usual := r.stats(id, "?moves=2"); len(usual.Journal) != 2 || usual.Journal[1].Number != uint64(len(want)) {
			t.Errorf("the last two moves: got %+v", usual.Journal)
		}

		// Told at once, before anything is written.
		for range 3 {
			r.joinOne(id)
			if now := r.stats(id, ""); sums(now.Series).Joined != int(now.Issued) {
				t.Errorf("after a join the series counts %d, want %d at once", sums(now.Series).Joined, now.Issued)
			}
		}

		r.stop()
		view := r.feed.View(id)
		journal, _, err := r.Store.ReadJournal(t.Context(), id, view.Incarnation, 0)
		if err != nil || journal.Entry != view.Number {
			t.Errorf("after the origin has stopped the journal is written up to entry %d, %v, want %d", journal.Entry, err, view.Number)
		}
		storetest.CheckJournal(t, r.Store, id, view.Incarnation)
	})
}

// TestJournalOfAnIdleQueue wants the journal written once nobody looks after the queue any more.
func TestJournalOfAnIdleQueue(t *testing.T) {
	inVirtualTime(t, `"capacity":5`, func(t *testing.T, a *audience) {
		a.r.claimOne(a.id, a.arrive())
		time.Sleep(2 * time.Second)
		view := a.r.view(a.id)
		journal, _, err := a.r.Store.ReadJournal(t.Context(), a.id, view.Incarnation, 0)
		if err != nil || journal.Entry != view.Number || journal.Sessions != 1 {
			t.Errorf("journal: up to entry %d with %d sessions, %v, want %d with 1", journal.Entry, journal.Sessions, err, view.Number)
		}
	})
}

// mutedStore is one in which the journal cannot be written for a while: it takes all the time that it
// is given.
type mutedStore struct {
	*memory.Store
	muted atomic.Bool
}

func (s *mutedStore) WriteJournal(ctx context.Context, id queue.ID, incarnation string, from queue.Cursor, page queue.Page) error {
	if s.muted.Load() {
		<-ctx.Done()
		return ctx.Err()
	}
	return s.Store.WriteJournal(ctx, id, incarnation, from, page)
}

// TestJournalThatFailsSlowsNothing keeps the journal from being written until the log has been trimmed
// behind it. The sale goes on meanwhile, and afterwards the journal does and says what it has lost.
func TestJournalThatFailsSlowsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &mutedStore{Store: &memory.Store{LogEntries: 30}}
		r := newRig(t, newCredentials(t), st)
		id := r.create("sale", `"capacity":1`)
		time.Sleep(3 * time.Second)
		sell := func(n int) {
			for range n {
				position := r.joinOne(id)
				time.Sleep(600 * time.Millisecond)
				if state := r.status(id, position).State; state != queue.TicketAdmitted {
					t.Errorf("position %d, 600 ms after the slot is free: got %s, want it admitted", position, state)
				}
				r.claimOne(id, position)
				r.joinOne(id) // somebody waits, so that the queue is coordinated
				r.release(id, position)
				time.Sleep(600 * time.Millisecond)
				r.claimOne(id, position+1)
				r.release(id, position+1)
				time.Sleep(600 * time.Millisecond)
			}
		}
		sell(2)
		if before := r.stats(id, ""); before.JournalLost != 0 || sums(before.Series).Admitted != before.Admitted {
			t.Errorf("before it fails: got %d lost and %+v, want all of %d offers", before.JournalLost, sums(before.Series), before.Admitted)
		}
		st.muted.Store(true)
		sell(1)
		time.Sleep(time.Minute)
		sell(1)
		if now := r.stats(id, ""); now.JournalLost != 0 || sums(now.Series).Admitted != now.Admitted {
			t.Errorf("while it is not written: got %d lost and %+v, want all of %d offers, from the log", now.JournalLost, sums(now.Series), now.Admitted)
		}
		sell(10)
		if now := r.stats(id, ""); now.JournalLost == 0 || now.Journal[len(now.Journal)-1].Lost == 0 {
			t.Errorf("after the log was trimmed: got %d lost, last move %+v, want the loss told", now.JournalLost, now.Journal[len(now.Journal)-1])
		}
		st.muted.Store(false)
		sell(3)

		end := r.stats(id, "?moves=1000")
		sum := sums(end.Series)
		if end.JournalLost == 0 || sum.Lost != end.JournalLost || sum.Admitted >= end.Admitted || sum.Admitted < 6 {
			t.Errorf("in the end: got %d lost and %+v of %d offers, want some lost, and the others counted", end.JournalLost, sum, end.Admitted)
		}
		var watermark uint64
		for i, m := range end.Journal {
			if m.From != watermark || m.Number != uint64(i)+1 {
				t.Errorf("move %+v does not follow on watermark %d", m, watermark)
			}
			watermark = m.To
		}
		if watermark != end.Watermark {
			t.Errorf("the moves lead to watermark %d, want %d", watermark, end.Watermark)
		}
		scrape := httptest.NewRecorder()
		r.metrics.adminHandler().ServeHTTP(scrape, httptest.NewRequest("GET", "/metrics", nil))
		if want := fmt.Sprintf("journal_lost_entries_total %d\n", end.JournalLost); !strings.Contains(scrape.Body.String(), want) {
			t.Errorf("metrics: want %q", want)
		}
		r.stop()
	})
}

// TestJournalOfANewGeneration has the store begin a generation, as after a failover, whose entry tells
// nothing of what has changed.
func TestJournalOfANewGeneration(t *testing.T) {
	inVirtualTime(t, `"capacity":1`, func(t *testing.T, a *audience) {
		r, id := a.r, a.id
		a.arrive()
		a.arrive()
		a.pass(3 * time.Second)
		before := r.stats(id, "")
		remembered := r.view(id).Snapshot()
		remembered.Number, remembered.Chain = remembered.Number+40, "lost"
		if _, _, err := r.Store.Renew(t.Context(), queue.NewView(remembered), "another", r.clock.Now()); err != nil {
			t.Fatalf("renew: %v", err)
		}
		r.coordinators.Wake(id)
		a.pass(3 * time.Second)
		after := r.stats(id, "")
		if after.JournalLost < 40 || sums(after.Series).Joined != sums(before.Series).Joined {
			t.Errorf("got %d lost and %+v, want at least 40 and nothing counted that nobody saw", after.JournalLost, sums(after.Series))
		}
		r.patch(id, `{"capacity":2}`)
		a.pass(2 * time.Second)
		end := r.stats(id, "")
		if last := end.Journal[len(end.Journal)-1]; last.Offered != 1 || last.Reasons[queue.SlotRetune] != 1 || last.To != 2 {
			t.Errorf("last move: got %+v, want the next fan let in because of the retune", last)
		}
		r.stop()
	})
}

func TestStatsRefuseBadQueries(t *testing.T) {
	r := newRig(t, newCredentials(t), nil)
	r.create("sale", `"capacity":1`)
	for _, query := range []string{
		"minutes=", "minutes=-1", "minutes=1.5", "minutes=x", "minutes=10081", "minutes=99999999999999999999",
		"moves=1001", "moves=-0", "moves", "after=", "after=-1", "after=9223372036854775808", "after=a", "minute=1", "Moves=1",
		"minutes=%zz", "minutes=1;moves=2", "=1", "moves=%201",
	} {
		wantProblem(t, r.operate("GET", "/queues/shop.sale/stats?"+query, ""), http.StatusBadRequest, "invalid_parameter")
	}
	for _, query := range []string{"minutes=1&minutes=1", "moves=1&mov%65s=2", "after&after"} {
		wantProblem(t, r.operate("GET", "/queues/shop.sale/stats?"+query, ""), http.StatusBadRequest, "duplicate_parameter")
	}
	for _, query := range []string{"", "minutes=10080", "moves=1000&after=9223372036854775807&minutes=0"} {
		r.stats("shop.sale", "?"+query)
	}
}
