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
	ids     map[string]time.Time // expiry by session id
	list    []revocation         // ascending by number
	cursors []cursor             // ascending by after
	next    uint64               // the number of the next revocation
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

func newRevocations() *revocations { return &revocations{ids: make(map[string]time.Time)} }

// apply continues or replaces the list.
func (r *revocations) apply(frame wire.Revocations, now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if frame.Reset {
		if r.cursor() == frame.Cursor && r.cursor() != "" {
			return nil // a new connection tells what the last one told: the cursors live on
		}
		clear(r.ids)
		r.list, r.cursors = nil, nil
	}
	for _, one := range frame.List {
		if _, known := r.ids[one.ID]; known {
			continue
		}
		r.ids[one.ID] = one.ExpiresAt
		r.list = append(r.list, revocation{r.next, one})
		r.next++
	}
	if frame.Cursor != r.cursor() {
		r.cursors = append(r.cursors, cursor{frame.Cursor, r.next})
		if len(r.cursors) > keptCursors {
			r.cursors = slices.Delete(r.cursors, 0, len(r.cursors)-keptCursors)
		}
	}
	r.prune(now)
	return nil
}

// prune drops what no verifier needs any more.
func (r *revocations) prune(now time.Time) {
	r.list = slices.DeleteFunc(r.list, func(one revocation) bool {
		over := now.Sub(one.ExpiresAt) > revocationLeeway
		if over {
			delete(r.ids, one.ID)
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
	_, ended := r.ids[id]
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
