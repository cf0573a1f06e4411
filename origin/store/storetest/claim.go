package storetest

import (
	"testing"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

var claimCases = []testCase{
	{"claim", claimOnce},
	{"refusals", claimRefusals},
	{"grace", claimGrace},
	{"paused and closed", claimStates},
	{"settings in force", claimSettings},
	{"expired session", claimExpired},
	{"leave", leave},
	{"end session", endSession},
	{"whole seconds", claimWholeSeconds},
	{"of a user's place", claimOfUser},
	{"after the user's place is done", claimAfterDone},
	{"find session", findSession},
}

func claimOnce(t *testing.T, s store.Store) {
	sc := newScene(t, s, nil)
	sc.joinAnonymous(2)
	sc.tick()
	sc.advance(3 * time.Second)
	request := sc.claimRequest(1)
	session, _, err := s.Claim(t.Context(), request)
	if err != nil {
		t.Fatalf("Claim: %v", err)
	}
	want := queue.Session{Position: 1, ID: request.SessionID, StartsAt: sc.now, ExpiresAt: sc.now.Add(100 * time.Second)}
	if session != want {
		t.Errorf("Claim: %+v, want %+v", session, want)
	}
	sc.wantFate(1, queue.Claimed)
	sc.wantOffer(1, time.Time{})
	sc.advance(5 * time.Second)
	sc.unchanged("claims of a second device and a retry", func() {
		for _, again := range []store.Claim{request, sc.claimRequest(1)} {
			got, _, err := s.Claim(t.Context(), again)
			if err != nil || got != want {
				t.Errorf("Claim again: %+v, error %v, want %+v", got, err, want)
			}
		}
	})
	if got := sc.look(); got.Sessions != 1 || got.Offers != 1 || !got.NextSessionEnd.Equal(want.ExpiresAt) {
		t.Errorf("%d sessions, %d offers, next end %v, want 1, 1, %v", got.Sessions, got.Offers, got.NextSessionEnd, want.ExpiresAt)
	}
}

// wantClaim checks how a claim is refused.
func (sc *scene) wantClaim(what string, position uint64, by store.Key, want error) {
	sc.t.Helper()
	request := sc.claimRequest(position)
	request.Subject = by
	sc.unchanged("claim of "+what, func() {
		sc.t.Helper()
		_, _, err := sc.s.Claim(sc.t.Context(), request)
		sc.wantErr("claim of "+what, err, want)
	})
}

func claimRefusals(t *testing.T, s store.Store) {
	sc := newScene(t, s, nil)
	sc.joinAnonymous(5)
	sc.tick() // offers 1 and 2
	session := sc.claim(1)
	sc.leave(5)
	sc.wantClaim("position 0", 0, key(1), store.ErrNotIssued)
	sc.wantClaim("a position not issued", 6, key(1), store.ErrNotIssued)
	sc.wantClaim("a position that waits", 3, key(1), store.ErrNotOffered)
	sc.wantClaim("another's session", 1, key(1), store.ErrTaken)
	sc.wantClaim("a position that left", 5, key(1), store.ErrOut)
	sc.endSession(session.ID)
	sc.wantClaim("an ended session by its subject", 1, subject(1), store.ErrOut)
	sc.wantClaim("an ended session by another", 1, key(1), store.ErrOut)
}

func claimGrace(t *testing.T, s store.Store) {
	sc := newScene(t, s, nil)
	sc.joinAnonymous(2)
	sc.tick()
	claimBy := sc.claimBy()
	sc.now = claimBy.Add(queue.ClaimGrace - time.Millisecond)
	sc.acquire()
	sc.wantPositions("due offers within the grace", sc.look().DueOffers)
	result := sc.commit(queue.Tick{Lapse: queue.Positions{1, 2}})
	sc.wantPositions("lapsed within the grace", result.Lapsed)
	sc.claim(1)
	sc.now = claimBy.Add(queue.ClaimGrace)
	sc.wantClaim("an offer past its grace", 2, subject(2), store.ErrNotOffered)
	sc.wantPositions("due offers", sc.look().DueOffers, 2)
	sc.advance(time.Millisecond)
	sc.commit(queue.Tick{Lapse: queue.Positions{1, 2}})
	sc.wantFate(1, queue.Claimed)
	sc.wantFate(2, queue.Waiting)
	sc.wantOffer(2, time.Time{})
	// A clock that lags does not bring the offer back.
	sc.now = claimBy.Add(-time.Second)
	sc.wantClaim("a lapsed offer", 2, subject(2), store.ErrNotOffered)
}

func claimStates(t *testing.T, s store.Store) {
	sc := newScene(t, s, nil)
	sc.joinAnonymous(3)
	sc.tick()
	sc.setState(queue.Paused)
	session := sc.claim(1)
	sc.setState(queue.Closed)
	sc.wantClaim("a position of a closed queue", 2, subject(2), store.ErrOut)
	sc.wantClaim("a waiting position of a closed queue", 3, subject(3), store.ErrOut)
	if got := sc.claim(1); got != session {
		t.Errorf("claim of the own session after the closing: %+v, want %+v", got, session)
	}
	sc.wantClaim("another's session after the closing", 1, key(1), store.ErrTaken)
}

func claimSettings(t *testing.T, s store.Store) {
	sc := newScene(t, s, nil)
	sc.joinAnonymous(3)
	sc.tick()
	claimBy := sc.claimBy()
	first := sc.claim(1)
	sc.update(func(s *queue.Settings) {
		s.PurchaseWindowSeconds = 10
		s.ClaimSeconds = 7
		s.Capacity = 3
	})
	sc.wantOffer(2, claimBy)
	if got, err := s.Session(t.Context(), sc.id, first.ID); err != nil || got != first {
		t.Errorf("a running session after a retune: %+v, error %v, want %+v", got, err, first)
	}
	if got := sc.claim(2); !got.ExpiresAt.Equal(sc.now.Add(10 * time.Second)) {
		t.Errorf("a session after the retune ends at %v, want %v", got.ExpiresAt, sc.now.Add(10*time.Second))
	}
	sc.advance(time.Second)
	sc.tick()
	sc.wantOffer(3, sc.now.Add(7*time.Second))
	// The later session ends first.
	sc.advance(9 * time.Second)
	sc.wantPositions("due sessions", sc.look().DueSessions, 2)
}

func claimExpired(t *testing.T, s store.Store) {
	sc := newScene(t, s, nil)
	sc.joinAnonymous(1)
	sc.tick()
	session := sc.claim(1)
	sc.now = session.ExpiresAt.Add(-time.Millisecond)
	if got := sc.claim(1); got != session {
		t.Errorf("claim just before the end: %+v, want %+v", got, session)
	}
	sc.now = session.ExpiresAt
	sc.wantClaim("an expired session", 1, subject(1), store.ErrOut)
	sc.wantClaim("another's expired session", 1, key(1), store.ErrOut)
	sc.unchanged("leave and end of an expired session", func() {
		sc.leave(1)
		sc.endSession(session.ID)
	})
	sc.wantPositions("due sessions", sc.look().DueSessions, 1)
	sc.acquire()
	result := sc.commit(queue.Tick{EndSessions: queue.Positions{1}})
	sc.wantPositions("ended", result.Ended, 1)
	sc.wantFate(1, queue.Ended)
	if e := sc.lastEntry(); e.Reason != queue.ReasonWindow {
		t.Errorf("the session ended with reason %q, want %q", e.Reason, queue.ReasonWindow)
	}
}

func (sc *scene) lastEntry() queue.Entry {
	sc.t.Helper()
	entries, err := sc.s.Entries(sc.t.Context(), sc.id, sc.inc, sc.snapshot().Number-1, "", 1)
	if err != nil || len(entries) != 1 {
		sc.t.Fatalf("Entries: %v, error %v", entries, err)
	}
	return entries[0]
}

func leave(t *testing.T, s store.Store) {
	sc := newScene(t, s, nil)
	sc.joinAnonymous(4)
	sc.tick()
	session := sc.claim(1)
	sc.leave(2) // has an offer
	if e := sc.lastEntry(); e.Reason != queue.ReasonDeclined {
		t.Errorf("a fan with an offer left with the reason %q, want %q", e.Reason, queue.ReasonDeclined)
	}
	sc.leave(3) // waits
	for position := range uint64(2) {
		sc.wantFate(position+2, queue.Left)
	}
	if e := sc.lastEntry(); e.Kind != queue.EntryDone || e.Fate != queue.Left || e.Reason != "" || !e.At.Equal(sc.now) {
		t.Errorf("last entry is %+v, want 3 left", e)
	}
	sc.unchanged("leaving twice", func() {
		sc.leave(2)
		sc.leave(3)
	})
	sc.unchanged("refused leaves", func() {
		_, err := s.Leave(t.Context(), sc.id, sc.inc, 1, sc.now)
		sc.wantErr("Leave while the session runs", err, store.ErrRunning)
		_, err = s.Leave(t.Context(), sc.id, sc.inc, 5, sc.now)
		sc.wantErr("Leave of a position not issued", err, store.ErrNotIssued)
		_, err = s.Leave(t.Context(), sc.id, sc.inc, 0, sc.now)
		sc.wantErr("Leave of position 0", err, store.ErrNotIssued)
	})
	sc.endSession(session.ID)
	sc.unchanged("leaving after the end", func() { sc.leave(1) })
	sc.wantFate(1, queue.Ended)
	look := sc.look()
	if look.Sessions != 0 || look.Offers != 0 || look.Waiting != 1 || look.Present != 1 {
		t.Errorf("%d sessions, %d offers, %d waiting, %d present, want 0, 0, 1, 1", look.Sessions, look.Offers, look.Waiting, look.Present)
	}
	sc.advance(250 * time.Millisecond)
	sc.wantPositions("offered", sc.tick().Offered, 4)
}

func endSession(t *testing.T, s store.Store) {
	sc := newScene(t, s, nil)
	sc.joinAnonymous(3)
	sc.tick()
	one, two := sc.claim(1), sc.claim(2)
	ack, err := s.EndSession(t.Context(), sc.id, one.ID, queue.Left, queue.ReasonLeft, sc.now)
	if err != nil {
		t.Fatalf("EndSession: %v", err)
	}
	if e := sc.lastEntry(); e.Number != ack.Entry || e.Kind != queue.EntryDone || e.Fate != queue.Left || e.Reason != queue.ReasonLeft {
		t.Errorf("last entry is %+v, want entry %d, 1 left", e, ack.Entry)
	}
	sc.unchanged("ending twice", func() {
		for _, id := range []string{one.ID, string(sc.id) + "~unknown", ""} {
			if _, err := s.EndSession(t.Context(), sc.id, id, queue.Ended, queue.ReasonRevoked, sc.now); err != nil {
				t.Errorf("EndSession of %q: %v", id, err)
			}
		}
	})
	sc.wantFate(1, queue.Left)
	sc.wantFate(2, queue.Claimed)
	sc.advance(250 * time.Millisecond)
	sc.wantPositions("offered in the freed slot", sc.tick().Offered, 3)
	if _, err := s.EndSession(t.Context(), sc.id, two.ID, queue.Ended, queue.ReasonRevoked, sc.now); err != nil {
		t.Fatalf("EndSession: %v", err)
	}
	if e := sc.lastEntry(); e.Fate != queue.Ended || e.Reason != queue.ReasonRevoked {
		t.Errorf("last entry is %+v, want 2 ended, revoked", e)
	}
}

func findSession(t *testing.T, s store.Store) {
	sc := newScene(t, s, nil)
	sc.joinAnonymous(2)
	sc.tick()
	session := sc.claim(1)
	if got, err := s.Session(t.Context(), sc.id, session.ID); err != nil || got != session {
		t.Errorf("Session: %+v, error %v, want %+v", got, err, session)
	}
	if got, err := s.SessionAt(t.Context(), sc.id, sc.inc, 1); err != nil || got != session {
		t.Errorf("SessionAt: %+v, error %v, want %+v", got, err, session)
	}
	for _, id := range []string{"", "x", session.ID + "x", session.ID[:len(session.ID)-1]} {
		_, err := s.Session(t.Context(), sc.id, id)
		sc.wantErr("Session "+id, err, store.ErrNoSession)
	}
	for _, position := range []uint64{0, 2, 3, 1 << 40} {
		_, err := s.SessionAt(t.Context(), sc.id, sc.inc, position)
		sc.wantErr("SessionAt", err, store.ErrNoSession)
	}
	sc.endSession(session.ID)
	_, err := s.Session(t.Context(), sc.id, session.ID)
	sc.wantErr("Session after its end", err, store.ErrNoSession)
	_, err = s.SessionAt(t.Context(), sc.id, sc.inc, 1)
	sc.wantErr("SessionAt after its end", err, store.ErrNoSession)
}

// wholeSecond rounds up: tokens count in seconds.
func wholeSecond(at time.Time) time.Time {
	return at.Add(time.Second - time.Nanosecond).Truncate(time.Second)
}

// claimWholeSeconds wants the window never cut short, and an end that a token can name.
func claimWholeSeconds(t *testing.T, s store.Store) {
	for _, ms := range []time.Duration{1, 500, 999, 1000} {
		sc := newScene(t, s, nil)
		sc.joinAnonymous(1)
		sc.tick()
		sc.advance(ms * time.Millisecond)
		if got, want := sc.claim(1).ExpiresAt, sc.now.Add(100*time.Second); !got.Equal(wholeSecond(want)) {
			t.Errorf("a session that starts %d ms after a second ends at %v, want %v rounded up to the second", ms, got, want)
		}
	}
}

// claimOfUser wants a user's place claimed by that user alone, whatever the queue's identity, and no other
// place in the name of a user who has one: a ticket that says otherwise is forged.
func claimOfUser(t *testing.T, s store.Store) {
	for _, identity := range []queue.Identity{queue.IdentityOptional, queue.IdentityRequired} {
		sc := newScene(t, s, func(s *queue.Settings) { s.Capacity = 4 })
		sc.join(store.Key{}, key(1), key(2), key(3))
		sc.update(func(s *queue.Settings) { s.Identity = identity })
		sc.tick()
		sc.wantClaim("a user's place by nobody whom the map knows", 2, subject(2), store.ErrTaken)
		sc.wantClaim("a user's place by nobody at all", 2, store.Key{}, store.ErrTaken)
		sc.wantClaim("a user's place by another user", 2, key(2), store.ErrTaken)
		sc.wantClaim("an anonymous place by a user", 1, key(1), store.ErrTaken)
		for position := range uint64(4) {
			sc.claim(position + 1) // the anonymous fan who came before an identity was required, too
		}
		sc.wantClaim("a user's session by nobody whom the map knows", 2, subject(2), store.ErrTaken)
	}
}

// claimAfterDone wants a user believed at a place that the map does not know, once the one that it knows
// is done: the later join may have been lost.
func claimAfterDone(t *testing.T, s store.Store) {
	const far = 140_000 // stores keep positions in pages
	sc := newScene(t, s, func(s *queue.Settings) { s.Capacity = 5; s.ClaimSeconds = 3600 })
	sc.join(key(1), key(2), key(3))
	sc.joinAnonymous(far)
	sc.leave(1)
	sc.acquire()
	sc.commit(queue.Tick{Offer: queue.Positions{2, 3, far + 1, far + 2}})
	session := sc.claim(2)
	wantClaimed := func(position uint64, by store.Key) {
		t.Helper()
		request := sc.claimRequest(position)
		request.Subject = by
		if _, _, err := s.Claim(t.Context(), request); err != nil {
			t.Errorf("claim of %d by a user whose known place is done: %v", position, err)
		}
	}
	sc.wantClaim("by a user with an offer elsewhere", far+1, key(3), store.ErrTaken)
	wantClaimed(far+1, key(1))
	sc.wantClaim("by a user with a session elsewhere", far+2, key(2), store.ErrTaken)
	sc.now = session.ExpiresAt // no tick has ended it yet
	wantClaimed(far+2, key(2))
}
