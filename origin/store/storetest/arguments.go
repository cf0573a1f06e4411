package storetest

import (
	"context"
	"testing"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

// invalidArguments wants what no caller can mean refused as that, and with nothing changed: for a queue that
// exists and for one that does not.
func invalidArguments(t *testing.T, s store.Store) {
	sc := newScene(t, s, nil)
	sc.joinAnonymous(3)
	sc.tick()
	session := sc.claim(1)
	missing := *sc
	missing.id = queue.MakeID(randomName(), "match")
	tenant := sc.id.Tenant()
	for name, sc := range map[string]*scene{"a queue": sc, "no queue": &missing} {
		batch, claim := sc.batch(store.Key{}), sc.claimRequest(2)
		for _, c := range []struct {
			what string
			do   func(ctx context.Context) error
		}{
			{"Create without an incarnation", func(ctx context.Context) error {
				_, _, err := s.Create(ctx, sc.id, "", "g1", queue.DefaultSettings(), sc.now)
				return err
			}},
			{"Create with two generations", func(ctx context.Context) error {
				_, _, err := s.Create(ctx, sc.id, sc.inc, "g1,g2", queue.DefaultSettings(), sc.now)
				return err
			}},
			{"Join without an edge", func(ctx context.Context) error {
				batch.Edge, batch.Seq = "", 7
				_, err := s.Join(ctx, batch)
				return err
			}},
			{"Join without a number", func(ctx context.Context) error {
				batch.Edge, batch.Seq = sc.edge, 0
				_, err := s.Join(ctx, batch)
				return err
			}},
			{"Join with a number beyond all", func(ctx context.Context) error {
				batch.Seq = store.MaxSeq + 1
				_, err := s.Join(ctx, batch)
				return err
			}},
			{"Claim without a session id", func(ctx context.Context) error {
				claim.SessionID = ""
				_, _, err := s.Claim(ctx, claim)
				return err
			}},
			{"EndSession with the fate of an absent fan", func(ctx context.Context) error {
				_, err := s.EndSession(ctx, sc.id, session.ID, queue.Expired, "", sc.now)
				return err
			}},
			{"EndSession with a fate that is none", func(ctx context.Context) error {
				_, err := s.EndSession(ctx, sc.id, session.ID, queue.Waiting, "", sc.now)
				return err
			}},
			{"Acquire without an owner", func(ctx context.Context) error {
				_, err := s.Acquire(ctx, sc.id, "", leaseTTL, sc.now)
				return err
			}},
			{"Commit without an owner", func(ctx context.Context) error {
				_, err := s.Commit(ctx, sc.id, "", leaseTTL, queue.Tick{Epoch: sc.epoch, Now: sc.now})
				return err
			}},
			{"Release without an owner", func(ctx context.Context) error { return s.Release(ctx, sc.id, "", sc.epoch) }},
			{"Revoke of no session", func(ctx context.Context) error {
				return s.Revoke(ctx, tenant, store.Revocation{ExpiresAt: session.ExpiresAt}, sc.now)
			}},
		} {
			sc.wantErr(c.what+" of "+name, c.do(t.Context()), store.ErrInvalid)
		}
		nameless := *sc
		nameless.inc = ""
		nameless.wantRefused(store.ErrNotFound)
	}
	view := sc.view()
	_, _, err := s.Renew(t.Context(), view, "", sc.now)
	sc.wantErr("Renew without a generation", err, store.ErrInvalid)
	claim := sc.claimRequest(2)
	claim.SessionID = session.ID
	_, _, err = s.Claim(t.Context(), claim)
	sc.wantErr("Claim with the id of another session", err, store.ErrInvalid)
	if got := sc.view(); got.Number != view.Number || got.Sessions != 1 {
		t.Errorf("after all these the log ends at entry %d and %d sessions run, want %d and 1", got.Number, got.Sessions, view.Number)
	}
	if list, _, _, err := s.Revoked(t.Context(), tenant, "", sc.now); err != nil || len(list) != 0 {
		t.Errorf("revoked are %v, error %v, want nothing", list, err)
	}
	sc.claim(2)
}

// releaseOfAnIdleQueue wants a lease that was given up because nothing was left to do left so by whoever
// releases it: the next turn begins when somebody comes.
func releaseOfAnIdleQueue(t *testing.T, s store.Store) {
	sc := newScene(t, s, nil)
	if !sc.tick().Idle {
		t.Fatal("an empty queue is not idle")
	}
	turn := sc.look().Turn
	for _, name := range []string{sc.owner, randomName()} {
		if err := s.Release(t.Context(), sc.id, name, sc.epoch); err != nil {
			t.Fatalf("Release: %v", err)
		}
	}
	sc.acquire()
	if got := sc.look().Turn; got != turn+1 {
		t.Errorf("turn %d runs after the idleness, want %d", got, turn+1)
	}
}
