package edge

import (
	"slices"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"waitingroom/origin/wire"
)

const (
	// revocationLeeway is how long a revocation outlives its session: the leeway of verifiers.
	revocationLeeway = time.Minute
	// keptCursors bounds how many cursors a backend may come back with; an older one counts as
	// unknown, which costs it the whole list once.
	keptCursors = 4096
)

// revocations are the sessions of a tenant that were ended early, in the order in which they
// were, with the cursors that origins gave between them.
type revocations struct {
	mu      sync.RWMutex
	numbers map[string]uint64 // by session id
	list    []revocation      // ascending by number
	cursors []cursor          // ascending by after
	next    uint64            // the number of the next revocation
}

type revocation struct {
	number uint64
	wire.Revocation
}

// cursor names the place in the list behind all revocations with a number below after.
type cursor struct {
	name  string
	after uint64
}

func newRevocations() *revocations { return &revocations{numbers: make(map[string]uint64)} }

// apply takes in a frame. Nothing that was revoked is forgotten before its time, not even when an
// origin tells a whole list that lacks it: that origin may have been stopped for a while, and
// reads behind the one that was heard before it.
func (r *revocations) apply(frame wire.Revocations, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if frame.Cursor == r.cursor() && frame.Cursor != "" {
		return // a new connection tells what the last one told
	}
	after := uint64(0)
	for _, one := range frame.List {
		if isOver(one, now) {
			continue
		}
		number, known := r.numbers[one.ID]
		if !known {
			number = r.next
			r.next++
			r.numbers[one.ID] = number
			r.list = append(r.list, revocation{number, one})
		}
		after = max(after, number+1)
	}
	// All origins tell the list in the same order, so the cursor's place is behind the last one that
	// came with it, also where this origin reads behind. Too early a place only repeats something.
	r.place(cursor{frame.Cursor, after})
	r.prune(now)
}

// place puts a cursor among the others, and forgets the earliest when they are too many.
func (r *revocations) place(c cursor) {
	if c.name == "" || slices.ContainsFunc(r.cursors, func(known cursor) bool { return known.name == c.name }) {
		return
	}
	at := len(r.cursors)
	for at > 0 && r.cursors[at-1].after > c.after {
		at--
	}
	r.cursors = slices.Insert(r.cursors, at, c)
	if len(r.cursors) > keptCursors {
		r.cursors = slices.Delete(r.cursors, 0, len(r.cursors)-keptCursors)
	}
}

// isOver reports whether no verifier needs a revocation any more.
func isOver(one wire.Revocation, now time.Time) bool {
	return now.Sub(one.ExpiresAt) > revocationLeeway
}

// prune drops what no verifier needs any more.
func (r *revocations) prune(now time.Time) {
	r.list = slices.DeleteFunc(r.list, func(one revocation) bool {
		over := isOver(one.Revocation, now)
		if over {
			delete(r.numbers, one.ID)
		}
		return over
	})
}

// cursor is the name of the list's end.
func (r *revocations) cursor() string {
	if len(r.cursors) == 0 {
		return ""
	}
	return r.cursors[len(r.cursors)-1].name
}

// has reports whether a session was ended early.
func (r *revocations) has(id string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	_, ended := r.numbers[id]
	return ended
}

// after reads what follows on a cursor; the whole list, with reset, where that is not known.
func (r *revocations) after(name string) (list []wire.Revocation, next string, reset bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	from := 0
	i := slices.IndexFunc(r.cursors, func(c cursor) bool { return c.name == name })
	if i < 0 || name == "" {
		reset = true
	} else {
		from, _ = slices.BinarySearchFunc(r.list, r.cursors[i].after, func(one revocation, number uint64) int {
			return int(int64(one.number) - int64(number))
		})
	}
	list = make([]wire.Revocation, 0, len(r.list)-from)
	for _, one := range r.list[from:] {
		list = append(list, one.Revocation)
	}
	return list, r.cursor(), reset
}

// getRevocations answers GET /revocations. Out of contact it refuses: a backend that went by an
// answer would take a list that nobody keeps up for a fresh one, and its own MaxStale would
// never come.
func (s *Server) getRevocations(ctx *fasthttp.RequestCtx) error {
	snap, err := s.ready()
	if err != nil {
		return err
	}
	key, given, err := presentedAPIKey(ctx, snap.keys)
	if err != nil {
		return err
	}
	switch {
	case !given:
		return errAPIKeyRequired
	case !key.secret:
		return errSecretKeyRequired
	case s.known.clock.stale():
		return errStaleRevocations
	}
	after, _, err := oneQueryValue(ctx, "after")
	if err != nil {
		return err
	}
	list, next, reset := snap.tenants[key.tenant].after(after)
	return s.json(ctx, fasthttp.StatusOK, "no-store", struct {
		Revocations []wire.Revocation `json:"revocations"`
		Cursor      string            `json:"cursor"`
		Reset       bool              `json:"reset"`
	}{list, next, reset})
}
