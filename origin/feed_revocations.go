package origin

import (
	"context"
	"fmt"
	"sync"
	"time"

	"waitingroom/origin/store"
	"waitingroom/origin/wire"
)

// revocationPoll is when a tenant's list is read although no hint came: a revocation reaches
// every edge within seconds whatever is lost.
const revocationPoll = time.Second

// revoked is one tenant's list of sessions that were ended early.
type revoked struct {
	kick    chan struct{} // holds one: the list has grown
	reading sync.Mutex    // held while the list is read

	// All guarded by feed.mu.
	list   []wire.Revocation // in the order in which they were revoked
	known  map[string]struct{}
	cursor string
	pruned time.Time // by the store's time
	read   time.Time // when the list was read last, by the own clock
}

// followRevoked keeps one tenant's list current.
func (f *feed) followRevoked(ctx context.Context, tenant string, r *revoked) {
	poll := time.NewTicker(revocationPoll)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.kick:
		case <-poll.C:
		}
		if err := f.refreshRevoked(ctx, tenant); err != nil && ctx.Err() == nil {
			f.failed("read revocations", err)
		}
	}
}

// refreshRevoked reads what is new of a tenant's list and tells the edges.
func (f *feed) refreshRevoked(ctx context.Context, tenant string) error {
	r := f.revoked[tenant] // the map itself never changes
	r.reading.Lock()
	defer r.reading.Unlock()
	f.mu.Lock()
	cursor := r.cursor
	f.mu.Unlock()
	now := f.clock.Now()
	list, next, reset, err := f.store.Revoked(ctx, tenant, cursor, now)
	if err != nil {
		return fmt.Errorf("read revocations: %w", err)
	}
	told := make([]wire.Revocation, len(list))
	for i, revocation := range list {
		told[i] = wire.Revocation(revocation)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	r.cursor, r.read = next, time.Now()
	if reset {
		r.list, r.known = nil, make(map[string]struct{})
	}
	for _, revocation := range told {
		if _, known := r.known[revocation.ID]; !known {
			r.known[revocation.ID] = struct{}{}
			r.list = append(r.list, revocation)
		}
	}
	r.prune(now)
	if len(told) == 0 && !reset {
		return nil
	}
	frame, err := encodeFrame(wire.Frame{Revocations: &wire.Revocations{Tenant: tenant, List: told, Cursor: next, Reset: reset}})
	if err != nil {
		return err
	}
	f.sendLocked("revocations", item{line: frame})
	return nil
}

// prune forgets, now and then, what no verifier accepts any more.
func (r *revoked) prune(now time.Time) {
	if now.Sub(r.pruned) < store.RevocationLeeway {
		return
	}
	r.pruned = now
	// A new list, because frames that are being written still hold the old one.
	kept := make([]wire.Revocation, 0, len(r.list))
	for _, revocation := range r.list {
		if now.Before(revocation.ExpiresAt.Add(store.RevocationLeeway)) {
			kept = append(kept, revocation)
		} else {
			delete(r.known, revocation.ID)
		}
	}
	r.list = kept
}

// IsRevoked reports whether a session stands on its tenant's list.
func (f *feed) IsRevoked(ctx context.Context, tenant, session string) (bool, error) {
	r := f.revoked[tenant]
	if r == nil {
		return false, nil
	}
	if err := f.refreshRevoked(ctx, tenant); err != nil {
		return false, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	_, known := r.known[session]
	return known, nil
}
