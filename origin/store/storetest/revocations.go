package storetest

import (
	"fmt"
	"testing"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

var revocationCases = []testCase{
	{"read with a cursor", revokeCursor},
	{"revoke twice", revokeTwice},
	{"until the expiry", revokeExpiry},
	{"unknown cursors", revokeUnknown},
}

var scheduleCases = []testCase{
	{"remind and settle", remind},
}

// list is one tenant's revocations.
type list struct {
	t      *testing.T
	s      store.Store
	tenant string
	now    time.Time
}

func newList(t *testing.T, s store.Store) *list {
	t.Helper()
	now, err := s.Now(t.Context())
	if err != nil {
		t.Fatalf("Now: %v", err)
	}
	return &list{t, s, randomName(), now}
}

func (l *list) revoke(id string, expires time.Duration) {
	l.t.Helper()
	r := store.Revocation{ID: id, ExpiresAt: l.now.Add(expires)}
	if err := l.s.Revoke(l.t.Context(), l.tenant, r, l.now); err != nil {
		l.t.Fatalf("Revoke: %v", err)
	}
}

// want reads the list after a cursor and returns the next one.
func (l *list) want(what, cursor string, reset bool, ids ...string) string {
	l.t.Helper()
	got, next, gotReset, err := l.s.Revoked(l.t.Context(), l.tenant, cursor, l.now)
	if err != nil {
		l.t.Fatalf("Revoked: %v", err)
	}
	var names []string
	for _, r := range got {
		names = append(names, r.ID)
	}
	if fmt.Sprint(names) != fmt.Sprint(ids) {
		l.t.Errorf("%s: %v, want %v", what, names, ids)
	}
	if gotReset != reset {
		l.t.Errorf("%s: reset is %v, want %v", what, gotReset, reset)
	}
	return next
}

func revokeCursor(t *testing.T, s store.Store) {
	l := newList(t, s)
	empty := l.want("an empty list", "", false)
	l.want("an empty list again", empty, false)
	l.revoke("q~1", time.Hour)
	l.revoke("q~2", time.Minute)
	l.want("after the cursor of the empty list", empty, false, "q~1", "q~2")
	two := l.want("from the beginning", "", false, "q~1", "q~2")
	l.want("nothing new", two, false)
	l.revoke("q~3", time.Hour)
	three := l.want("one more", two, false, "q~3")
	l.want("from the beginning", "", false, "q~1", "q~2", "q~3")
	if again := l.want("nothing new", three, false); again != three {
		t.Errorf("the cursor moved from %q to %q without a revocation", three, again)
	}
	got, _, _, err := s.Revoked(t.Context(), l.tenant, two, l.now)
	if err != nil || len(got) != 1 || !got[0].ExpiresAt.Equal(l.now.Add(time.Hour)) {
		t.Errorf("Revoked: %+v, error %v, want q~3 until %v", got, err, l.now.Add(time.Hour))
	}
	other := *l
	other.tenant = randomName()
	other.want("another tenant", "", false)
}

func revokeTwice(t *testing.T, s store.Store) {
	l := newList(t, s)
	l.revoke("q~1", time.Hour)
	l.revoke("q~2", time.Hour)
	cursor := l.want("both", "", false, "q~1", "q~2")
	l.revoke("q~1", time.Hour)
	l.want("after the repetition", cursor, false)
	l.want("from the beginning", "", false, "q~1", "q~2")
}

func revokeExpiry(t *testing.T, s store.Store) {
	l := newList(t, s)
	l.revoke("q~short", time.Minute)
	first := l.want("one", "", false, "q~short")
	l.revoke("q~long", time.Hour)
	l.now = l.now.Add(time.Minute + store.RevocationLeeway - time.Millisecond)
	both := l.want("within the leeway", "", false, "q~short", "q~long")
	l.now = l.now.Add(time.Millisecond)
	l.want("after the leeway", "", false, "q~long")
	l.want("after the leeway, with a cursor", both, false)
	l.want("after the leeway, with the cursor of the one that is over", first, false, "q~long")
	l.revoke("q~shorter", time.Second)
	both = l.want("one that ends before an earlier one", both, false, "q~shorter")
	l.now = l.now.Add(time.Minute + time.Second)
	l.want("when it is over", both, false)
	l.want("when it is over, from the beginning", "", false, "q~long")
	l.revoke("q~over", -store.RevocationLeeway)
	l.want("a session that is over", both, false)
	l.now = l.now.Add(2 * time.Hour)
	l.want("when all are over", "", false)
	l.want("when all are over, with a cursor", both, false)
	l.revoke("q~new", time.Hour)
	l.want("a new one after all are over", both, false, "q~new")
}

func revokeUnknown(t *testing.T, s store.Store) {
	l := newList(t, s)
	l.revoke("q~1", time.Hour)
	l.revoke("q~2", time.Hour)
	for _, cursor := range []string{"x", "-", "0", "1-", "é", "99999999999999999999999999-1", " "} {
		l.want(fmt.Sprintf("cursor %q", cursor), cursor, true, "q~1", "q~2")
	}
	longer := newList(t, s)
	for i := range 5 {
		longer.revoke(fmt.Sprint("r~", i), time.Hour)
	}
	beyond := longer.want("a longer list", "", false, "r~0", "r~1", "r~2", "r~3", "r~4")
	next := l.want("a cursor beyond the end", beyond, true, "q~1", "q~2")
	l.want("the cursor that came with the reset", next, false)
}

// isDue reads the whole schedule, which the store may share with others.
func (sc *scene) isDue(now time.Time) bool {
	sc.t.Helper()
	ids, err := sc.s.Due(sc.t.Context(), now, 1_000_000)
	if err != nil {
		sc.t.Fatalf("Due: %v", err)
	}
	for _, id := range ids {
		if id == sc.id {
			return true
		}
	}
	return false
}

func remind(t *testing.T, s store.Store) {
	sc := newScene(t, s, nil)
	begin := sc.now
	remind := func(after time.Duration) {
		t.Helper()
		if err := s.Remind(t.Context(), sc.id, begin.Add(after)); err != nil {
			t.Fatalf("Remind: %v", err)
		}
	}
	settle := func(after time.Duration) {
		t.Helper()
		if err := s.Settle(t.Context(), sc.id, begin.Add(after)); err != nil {
			t.Fatalf("Settle: %v", err)
		}
	}
	want := func(after time.Duration, due bool) {
		t.Helper()
		if got := sc.isDue(begin.Add(after)); got != due {
			t.Errorf("due after %v: %v, want %v", after, got, due)
		}
	}
	want(time.Hour, false)
	remind(10 * time.Second)
	want(9999*time.Millisecond, false)
	want(10*time.Second, true)
	remind(20 * time.Second) // later: the earlier one stays
	want(10*time.Second, true)
	remind(5 * time.Second)
	want(5*time.Second, true)
	settle(4 * time.Second)
	want(5*time.Second, true)
	settle(5 * time.Second)
	want(5*time.Second, false)
	remind(30 * time.Second)
	settle(20 * time.Second)
	want(30*time.Second, true)

	missing := *sc
	missing.id = queue.MakeID(randomName(), "match")
	if err := s.Remind(t.Context(), missing.id, begin); err != nil {
		t.Fatalf("Remind of a queue before its creation: %v", err)
	}
	if !missing.isDue(begin) {
		t.Error("a queue that does not exist yet is not due")
	}
	if err := s.Settle(t.Context(), missing.id, begin); err != nil {
		t.Fatalf("Settle: %v", err)
	}
	ids, err := s.Due(t.Context(), begin.Add(time.Hour), 0)
	if err != nil || len(ids) > 0 {
		t.Errorf("Due with a limit of 0: %v, error %v", ids, err)
	}
}
