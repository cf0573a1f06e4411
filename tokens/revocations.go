package tokens

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
)

const (
	// keepRevoked is how long after its session's expiry a revocation is remembered: longer than
	// clocks differ, so that no clock that is behind finds the token alive again.
	keepRevoked = time.Minute
	pruneEvery  = time.Minute
	// maxID bounds the id of a session, in bytes.
	maxID = 256
)

// Shared by all refusals that are not the token's fault.
var (
	errRevokedSession = error(&refusal{ErrRevoked, "released, revoked or left"})
	errStaleList      = error(&refusal{ErrStale, "the last list was fetched too long ago"})
	errNoKeysYet      = error(&refusal{ErrStale, "keys have not been fetched yet"})
)

// revocationPage is an answer of GET /revocations. reset says that it is the whole list; since a
// revocation is never taken back, that changes nothing for who remembers all that it was told.
type revocationPage struct {
	Revocations []revocation `json:"revocations"`
	Cursor      *string      `json:"cursor"`
	Reset       bool         `json:"reset"`
}

type revocation struct {
	ID        string    `json:"id"`
	ExpiresAt time.Time `json:"expiresAt"`
}

func parseRevocations(text []byte) (revocationPage, error) {
	var page revocationPage
	if err := json.Unmarshal(text, &page); err != nil {
		return revocationPage{}, errors.New("parse revocations: it is not the JSON that was expected")
	}
	if page.Revocations == nil || page.Cursor == nil {
		return revocationPage{}, errors.New("parse revocations: revocations or cursor is missing")
	}
	for i := range page.Revocations {
		r := &page.Revocations[i]
		if r.ID == "" || len(r.ID) > maxID || r.ExpiresAt.IsZero() {
			return revocationPage{}, fmt.Errorf("parse revocations: entry %d has no fitting id or expiresAt", i)
		}
	}
	return page, nil
}

// revocations are the sessions of the tenant that were ended early.
type revocations struct {
	cursor string    // owned by the goroutine that fetches
	pruned time.Time // likewise

	mu    sync.RWMutex
	until map[string]time.Time // guarded by mu: when each may be forgotten
	asOf  time.Time            // guarded by mu: the time of which the list is true; zero before the first
}

// look reports whether a session was ended early, and how old that knowledge is.
func (r *revocations) look(id string) (revoked bool, asOf time.Time) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	_, revoked = r.until[id]
	return revoked, r.asOf
}

// add takes in an answer to a question asked at now.
func (r *revocations) add(page revocationPage, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.until == nil {
		r.until = make(map[string]time.Time, len(page.Revocations))
	}
	for _, entry := range page.Revocations {
		if until := entry.ExpiresAt.Add(keepRevoked); until.After(now) {
			r.until[entry.ID] = until
		}
	}
	if now.Sub(r.pruned) >= pruneEvery {
		r.pruned = now
		for id, until := range r.until {
			if !until.After(now) {
				delete(r.until, id)
			}
		}
	}
	r.cursor, r.asOf = *page.Cursor, now
}
