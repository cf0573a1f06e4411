package redis_test

import (
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

// begin makes the queue, with as many fans as lets a sequence reach what only many do.
func (p *pair) begin() {
	p.now, p.seqs = beginning, make(map[string]uint64)
	settings := queue.DefaultSettings()
	settings.Capacity = pick(p, "capacity", 2, 1, 5, 400)
	settings.HoldSeconds = pick(p, "hold", 4, 1, 20)
	settings.ClaimSeconds = pick(p, "claim time", 3, 1, 8)
	settings.PurchaseWindowSeconds = pick(p, "window", 5, 1, 15)
	settings.MaxMissedOffers = pick(p, "missed offers", 2, 1, 3)
	p.settings = []queue.Settings{settings}
	p.create()
	crowd := store.JoinBatch{Edge: "edge-0", Seq: 1, FloorOf: p.inc}
	switch p.upTo("crowd", 39) {
	default:
		return
	case 20, 21, 22, 23, 24, 25:
		crowd.Users = make([]store.Key, p.upTo("fans", 20))
	case 26, 27, 28, 29:
		crowd.Users = make([]store.Key, 1024+p.upTo("fans", 3000))
	case 38:
		crowd.Users, crowd.Floor = make([]store.Key, p.upTo("fans", 200)), 65_400
	}
	p.seqs[crowd.Edge] = crowd.Seq
	p.batches = append(p.batches, crowd)
	p.joinBatch(crowd)
}

// finish compares all, and what is left when the queue is closed and deleted.
func (p *pair) finish() {
	p.read()
	if !p.rarely("to the end", 3) {
		return
	}
	p.closeQueue()
	p.delete()
}

// create makes the queue if it was deleted; otherwise it is there already, or another is.
func (p *pair) create() {
	inc := p.inc
	gone := inc == ""
	if !gone {
		_, err := both(p, "Get", func(s store.Store) (store.Meta, error) { return s.Get(p.ctx, p.id) })
		gone = err != nil
	}
	if gone || p.rarely("another incarnation", 2) {
		p.named++
		inc = fmt.Sprint("incarnation-", p.named)
	}
	settings, now := p.settings[0], p.moment()
	meta, err := change(p, "Create", func(s store.Store) (store.Meta, store.Ack, error) {
		return s.Create(p.ctx, p.id, inc, "g1", settings, now)
	})
	if err == nil && gone {
		p.inc, p.version, p.settings = inc, meta.Version, p.settings[:1]
		p.issued, p.met, p.sessions, p.views, p.entry = 0, nil, nil, nil, 0
		p.owners, p.pages = make(map[uint64]store.Key), nil
		p.startLog()
	}
}

// update replaces the settings, or tries to.
func (p *pair) update() {
	next, version, now := p.settings[len(p.settings)-1], p.version, p.moment()
	switch p.upTo("change", 12) {
	case 0:
		next.Capacity = pick(p, "capacity", 1, 0, 2, 5, 50, 400)
	case 1:
		next.State, next.Notes.Unopened = queue.Paused, p.rarely("before the opening", 4)
	case 2, 3:
		next.State = queue.Open
	case 4:
		next.State = queue.SoldOut
	case 5:
		next.State, next.OpensAt = queue.Scheduled, now.Add(pick(p, "opening", 0, time.Second, 7*time.Second, 30*time.Second))
		next.Notes.FirstOpensAt = next.OpensAt
	case 6:
		next.HoldSeconds = pick(p, "hold", 1, 2, 4, 7, 20, 70)
	case 7:
		next.MaxMissedOffers = 1 + p.upTo("missed offers", 2)
	case 8:
		next.ClaimSeconds, next.PurchaseWindowSeconds = 1+p.upTo("claim time", 9), 1+p.upTo("window", 20)
	case 9:
		if next.Remaining = new(p.upTo("remaining", 50)); *next.Remaining == 50 {
			next.Remaining = nil
		}
		next.Notes.Measure.Fallen = p.upTo("fallen", 2)
	case 10: // what time alone would change
		next, _ = next.At(now)
	case 11:
		next.Identity = pick(p, "identity", queue.IdentityOptional, queue.IdentityRequired)
	case 12: // a repetition, or one that others came before
		next, version = rapid.SampledFrom(p.settings).Draw(p.t, "settings again"), version-1
	}
	p.replace(version, next, now)
}

func (p *pair) replace(version uint64, next queue.Settings, now time.Time) {
	meta, err := change(p, "Update", func(s store.Store) (store.Meta, store.Ack, error) {
		return s.Update(p.ctx, p.id, version, next, now)
	})
	if err == nil {
		p.version, p.settings = meta.Version, append(p.settings, meta.Settings)
	}
}

// closeQueue closes the queue, and waits until the windows of its sessions are over.
func (p *pair) closeQueue() {
	closed := p.settings[len(p.settings)-1]
	closed.State = queue.Closed
	p.replace(p.version, closed, p.moment())
	snapshot, err := p.memory.Snapshot(p.ctx, p.id)
	if err != nil {
		return
	}
	for _, session := range snapshot.Sessions {
		if session.ExpiresAt.After(p.now) {
			p.now = session.ExpiresAt
		}
	}
	p.tickOnce()
}

// delete deletes the queue, if it is closed and no session runs; then nothing may be left.
func (p *pair) delete() {
	if p.rarely("closed before", 12) {
		p.closeQueue()
	}
	inc := p.incarnation()
	_, err := both(p, "Delete", func(s store.Store) (struct{}, error) { return struct{}{}, s.Delete(p.ctx, p.id, inc) })
	if err != nil {
		return
	}
	left, err := p.keys.Keys(p.ctx, fmt.Sprintf("wr:{%s}:*", p.id)).Result()
	if err != nil {
		p.t.Fatalf("read keys: %v", err)
	}
	if len(left) > 0 {
		slices.Sort(left)
		p.t.Fatalf("deleted, but there are still %v", p.plain(fmt.Sprint(left)))
	}
	for _, name := range []string{inc, "another"} {
		_, _ = both(p, "Deleted", func(s store.Store) (bool, error) { return s.Deleted(p.ctx, p.id, name) })
	}
}

// renew tells the stores what somebody has read: what they told at some time, or changes that they
// never had.
func (p *pair) renew() {
	if _, err := both(p, "Get", func(s store.Store) (store.Meta, error) { return s.Get(p.ctx, p.id) }); err == nil {
		p.readLog()
	}
	seen := p.views[len(p.views)-1-p.upTo("views ago", min(len(p.views)-1, 5))]
	if p.rarely("entries were lost", 2) {
		seen = p.lost(seen)
		p.views = append(p.views, seen)
	}
	now := p.moment()
	p.named++
	generation := fmt.Sprint("g", p.named)
	meta, err := change(p, "Renew", func(s store.Store) (store.Meta, store.Ack, error) {
		view := *seen.view
		view.Chain = seen.chain[p.index(s)]
		return s.Renew(p.ctx, &view, generation, now)
	})
	if err != nil {
		return
	}
	p.version = meta.Version
	p.settings = append(p.settings, meta.Settings)
	if slices.Contains(meta.Generations, generation) {
		p.startLog()
	}
}

// lost is a view with changes that the stores do not know.
func (p *pair) lost(seen reading) reading {
	s := seen.view.Snapshot()
	s.Number += 1 + uint64(p.upTo("entries lost", 9))
	s.Issued += uint64(pick(p, "joins lost", 0, 1, 20, 1100))
	for uint64(len(s.Fates))*2 < s.Issued {
		s.Fates = append(s.Fates, 0)
	}
	if s.Issued == 0 {
		return reading{view: queue.NewView(s), chain: each[string]{"lost", "lost"}}
	}
	changed := make(map[uint64]bool)
	for range p.upTo("changes lost", 5) {
		position := rapid.Uint64Range(1, s.Issued).Draw(p.t, "position lost")
		_, offered := seen.view.Offer(position)
		if changed[position] || offered || seen.view.Fate(position) != queue.Waiting {
			continue
		}
		changed[position] = true
		until := p.now.Add(pick(p, "until", time.Second, 0, 10*time.Second)).Truncate(time.Millisecond)
		fate := pick(p, "fate lost", queue.Left, queue.Waiting, queue.Claimed, queue.Ended, queue.Missed, queue.Expired)
		switch fate {
		case queue.Waiting:
			s.Offers = append(s.Offers, queue.Offer{Position: position, ClaimBy: until})
		case queue.Claimed:
			s.Sessions = append(s.Sessions, queue.Session{Position: position, ID: p.name("session"), StartsAt: p.now, ExpiresAt: until})
			p.sessions = append(p.sessions, s.Sessions[len(s.Sessions)-1].ID)
		}
		p.meet(position)
		s.Fates[(position-1)/2] |= byte(fate) << (4 * (position % 2)) // the first is in the high half
	}
	if p.rarely("settings lost", 3) {
		s.Version++
		s.Settings.State = pick(p, "state lost", queue.Open, queue.SoldOut, queue.Paused)
		s.Settings.Capacity = p.upTo("capacity lost", 5)
	}
	if p.rarely("a generation lost", 6) {
		s.Generations = append(slices.Clone(s.Generations), "lost")
	}
	return reading{view: queue.NewView(s), chain: each[string]{"lost", "lost"}}
}

// revoke puts a session on the tenant's list, or reads on in it.
func (p *pair) revoke() {
	tenant, now := p.id.Tenant(), p.moment()
	if p.rarely("read", 2) {
		var cursor, next each[string]
		if len(p.cursors) > 0 && !p.rarely("from the beginning", 4) {
			cursor = p.cursors[p.upTo("cursor", len(p.cursors)-1)]
		}
		if p.rarely("an unknown cursor", 8) {
			cursor = each[string]{"unknown-1", "unknown-1"}
		}
		type answer struct {
			List  []store.Revocation
			Reset bool
		}
		_, _ = both(p, "Revoked", func(s store.Store) (a answer, err error) {
			a.List, next[p.index(s)], a.Reset, err = s.Revoked(p.ctx, tenant, cursor[p.index(s)], now)
			return a, err
		})
		p.cursors = append(p.cursors, next)
		return
	}
	revocation := store.Revocation{ID: pick(p, "session", p.session(), p.session(), p.session(), ""), ExpiresAt: now.Add(pick(p, "expires", 0, 5*time.Second, -store.RevocationLeeway))}
	_, _ = both(p, "Revoke", func(s store.Store) (struct{}, error) {
		return struct{}{}, s.Revoke(p.ctx, tenant, revocation, now)
	})
}

// schedule reminds, asks who is due, or settles.
func (p *pair) schedule() {
	id, now := p.id, p.moment()
	if p.rarely("another queue", 3) {
		id = queue.MakeID(p.id.Tenant(), "another")
	}
	switch p.upTo("kind", 2) {
	case 0:
		at := now.Add(pick(p, "in", 0, time.Second, -time.Second, 10*time.Second))
		_, _ = both(p, "Remind", func(s store.Store) (struct{}, error) { return struct{}{}, s.Remind(p.ctx, id, at) })
	case 1:
		_, _ = both(p, "Settle", func(s store.Store) (struct{}, error) { return struct{}{}, s.Settle(p.ctx, id, now) })
	}
	limit := pick(p, "limit", 10, 1, 0)
	_, _ = both(p, "Due", func(s store.Store) ([]queue.ID, error) { return s.Due(p.ctx, now, limit) })
}
