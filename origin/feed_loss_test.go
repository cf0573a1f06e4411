package origin

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
	"waitingroom/origin/store/memory"
	"waitingroom/origin/wire"
)

// lossyStore is one that loses things: entries that a reader was told and that are in it no more, or
// the whole of its queues.
type lossyStore struct {
	*memory.Store
	lose  atomic.Pointer[[]queue.Entry] // told to whoever reads, and lost; until a generation begins
	empty atomic.Bool
}

func (s *lossyStore) Entries(ctx context.Context, id queue.ID, incarnation string, after uint64, chain string, limit int) ([]queue.Entry, error) {
	if s.empty.Load() {
		return nil, store.ErrNotFound
	}
	entries, err := s.Store.Entries(ctx, id, incarnation, after, chain, limit)
	if err != nil {
		return nil, err
	}
	if lost := s.lose.Load(); lost != nil {
		for _, entry := range *lost {
			entry.Number, entry.Chain = after+uint64(len(entries))+1, "lost"
			entries = append(entries, entry)
		}
	}
	return entries, nil
}

func (s *lossyStore) Renew(ctx context.Context, remembered *queue.View, generation string, now time.Time) (store.Meta, store.Ack, error) {
	s.lose.Store(nil)
	return s.Store.Renew(ctx, remembered, generation, now)
}

func (s *lossyStore) Snapshot(ctx context.Context, id queue.ID) (queue.Snapshot, error) {
	if s.empty.Load() {
		return queue.Snapshot{}, store.ErrNotFound
	}
	return s.Store.Snapshot(ctx, id)
}

// TestLostEntriesBeginAGeneration has an origin read joins and a claim that its store then loses.
// Nobody is given one of those positions again, and the session is there.
func TestLostEntriesBeginAGeneration(t *testing.T) {
	st := &lossyStore{Store: &memory.Store{}}
	r := runOrigin(t, newCredentials(t), st)
	id := r.create("sale", `"capacity":1`)
	first := r.joinOne(id)
	r.until(5*second, "an offer", func() bool { return r.view(id).Offers == 1 })
	generation := r.view(id).Generation()
	ticket := r.ticket(id, first, "somebody")

	now := time.Now().UTC().Truncate(time.Millisecond)
	session := queue.Session{Position: first, ID: newSessionID(id), StartsAt: now, ExpiresAt: now.Add(time.Hour).Truncate(time.Second)}
	const issued = 700
	st.lose.Store(&[]queue.Entry{
		{At: now, Kind: queue.EntryJoined, Issued: issued},
		{At: now, Kind: queue.EntryClaimed, Positions: queue.Positions{first}, Session: session.ID, Since: session.StartsAt, Until: session.ExpiresAt},
	})
	f := newFollower()
	r.follow(f, func() bool { // an edge
		view := f.views[id]
		return view != nil && view.Generation() != generation && view.Issued >= issued+store.RenewalMargin
	})
	view := f.views[id]
	if got, runs := view.Session(first); !runs || got.ID != session.ID || !view.Knows(generation) {
		t.Errorf("the edge is told of the session %+v (%v) and of the generations %v, want %s, and %s among them", got, runs, view.Generations, session.ID, generation)
	}
	joined := r.join(id, "")
	if position := joined.Joins[0].Position; position <= issued+store.RenewalMargin || joined.Generation == generation {
		t.Errorf("the next join gets %d of %s, want a position above %d and the new generation", position, joined.Generation, issued+store.RenewalMargin)
	}
	var answer wire.ClaimResponse
	if code := r.batch(wire.PathClaim, wire.ClaimRequest{Ticket: ticket}, &answer); code != 200 || !answer.ExpiresAt.Equal(session.ExpiresAt) {
		t.Errorf("the claim by the old ticket: %d, %+v, want the session until %v", code, answer, session.ExpiresAt)
	}
	// The queue has a coordinator again, which goes on with offers.
	if code := r.operate("PATCH", "/queues/"+string(id), `{"capacity":2}`).Code; code != 200 {
		t.Fatalf("retune: got %d", code)
	}
	r.until(10*second, "another offer", func() bool { return r.view(id).Offers == 1 })
}

// TestALostQueueIsNotADeletedOne empties the store for a while: edges are not told that the queue is
// gone, as they are when somebody deletes it.
func TestALostQueueIsNotADeletedOne(t *testing.T) {
	st := &lossyStore{Store: &memory.Store{}}
	r := runOrigin(t, newCredentials(t), st)
	id := r.create("sale", `"capacity":0`)
	r.joinOne(id)
	view := r.view(id)
	st.empty.Store(true)
	r.feed.Hint(id)
	r.until(5*second, "the origin notices", func() bool {
		_, err := r.feed.Current(t.Context(), id)
		return err != nil
	})
	if got := r.feed.View(id); got != view {
		t.Errorf("the origin knows %+v of the lost queue, want what it knew", got)
	}
	st.empty.Store(false)
	r.joinOne(id)
	r.until(5*second, "it goes on", func() bool { return r.view(id).Issued == 2 })

	if code := r.operate("PATCH", "/queues/"+string(id), `{"state":"closed"}`).Code; code != 200 {
		t.Fatalf("close: got %d", code)
	}
	if code := r.operate("DELETE", "/queues/"+string(id), "").Code; code != 204 {
		t.Fatalf("delete: got %d", code)
	}
	r.until(5*second, "it is gone", func() bool { return !slices.Contains(r.feed.Queues(), id) })
}
