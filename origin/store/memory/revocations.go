package memory

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"waitingroom/origin/store"
)

// revocations is a tenant's list, in the order in which the sessions were ended. A cursor is the
// number of the last one read, behind the name of this process.
type revocations struct {
	last    uint64 // number of the newest one ever
	trimmed uint64 // number of the newest one that is no longer kept
	list    []revocation
	byID    map[string]struct{}
}

type revocation struct {
	store.Revocation
	number uint64
}

func over(r store.Revocation, now time.Time) bool {
	return !r.ExpiresAt.Add(store.RevocationLeeway).After(now)
}

// trim drops from the beginning what verifiers need no more.
func (r *revocations) trim(now time.Time) {
	n := 0
	for n < len(r.list) && over(r.list[n].Revocation, now) {
		delete(r.byID, r.list[n].ID)
		r.trimmed = r.list[n].number
		n++
	}
	r.list = slices.Delete(r.list, 0, n)
}

// Revoke implements store.Revocations.
func (s *Store) Revoke(ctx context.Context, tenant string, r store.Revocation, now time.Time) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := r.Check(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r.ExpiresAt = moment(r.ExpiresAt)
	if s.lists == nil {
		s.lists = make(map[string]*revocations)
	}
	list := s.lists[tenant]
	if list == nil {
		list = &revocations{byID: make(map[string]struct{})}
		s.lists[tenant] = list
	}
	list.trim(now)
	if _, known := list.byID[r.ID]; known || over(r, now) {
		return nil
	}
	list.last++
	list.byID[r.ID] = struct{}{}
	list.list = append(list.list, revocation{r, list.last})
	s.hint(store.RevocationHint(tenant))
	return nil
}

// Revoked implements store.Revocations.
func (s *Store) Revoked(ctx context.Context, tenant, cursor string, now time.Time) ([]store.Revocation, string, bool, error) {
	if err := ctx.Err(); err != nil {
		return nil, "", false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	list, begun := s.lists[tenant], true
	if list == nil {
		list, begun = &revocations{}, false
	}
	list.trim(now)
	after, known := uint64(0), true
	if cursor != "" {
		boot, number, _ := strings.Cut(cursor, "-")
		n, err := strconv.ParseUint(number, 10, 64)
		known = err == nil && boot == s.bootName() && n <= list.last && n >= list.trimmed
		if known {
			after = n
		}
	}
	var rest []store.Revocation
	for _, r := range list.list {
		if r.number > after && !over(r.Revocation, now) {
			rest = append(rest, r.Revocation)
		}
	}
	next := ""
	if begun {
		next = s.bootName() + "-" + strconv.FormatUint(list.last, 10)
	}
	return rest, next, !known, nil
}
