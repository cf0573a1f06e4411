package edge

import (
	"bytes"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"waitingroom/edge/hub"
	"waitingroom/origin/queue"
	"waitingroom/origin/wire"
	"waitingroom/tokens"
)

// snapshot is what an edge knows, as handlers read it: immutable, one atomic load away. What
// changes often lies one pointer deeper, in the lines' views and the tenants' revocations.
type snapshot struct {
	keys *keys // nil before the first Tenants frame
	// users is how each tenant's user tokens are verified; a tenant without is not in it.
	users   map[string]*userTokens
	tenants map[string]*revocations
	lines   map[queue.ID]*line
	// gone are the queues that were deleted and when that was heard, so that their tickets can
	// be told apart from those of queues that this edge has not heard of yet.
	gone map[queue.ID]time.Time
	// returnOrigins are those of all lines.
	returnOrigins map[string]struct{}
	// synced says that an origin has once told everything that it knew.
	synced bool
}

// keys are what verifies: they are replaced as a whole, and with them what was verified by them.
type keys struct {
	from     wire.Tenants // without what users is made of
	tickets  *tokens.Tickets
	sessions *tokens.PublicKeys
	jwks     []byte
	api      map[string]apiKey // by hex SHA-256

	knownTickets  *remembered[*ticket]
	knownSessions *remembered[tokens.Session]
}

type apiKey struct {
	sha256 string
	tenant string
	secret bool
	joins  *bucket
}

// newKeys reads a Tenants frame; errors never hold key material.
func newKeys(frame wire.Tenants, remember int) (*keys, error) {
	k := &keys{
		from:    frame,
		tickets: &tokens.Tickets{Issuer: frame.Issuer, Rings: make(map[string]*tokens.KeyRing, len(frame.Tenants))},
		jwks:    bytes.Clone(frame.JWKS),
		api:     make(map[string]apiKey),
	}
	var err error
	if k.sessions, err = tokens.ParsePublicKeys(frame.JWKS); err != nil {
		return nil, fmt.Errorf("read session keys: %w", err)
	}
	for _, t := range frame.Tenants {
		if k.tickets.Rings[t.ID], err = tokens.ParseKeyRing(t.TicketKeys); err != nil {
			return nil, fmt.Errorf("read ticket keys of %s: %w", t.ID, err)
		}
		for _, key := range t.APIKeys {
			k.api[key.SHA256] = apiKey{key.SHA256, t.ID, key.Secret, new(bucket)}
		}
	}
	if k.knownTickets, err = newRemembered[*ticket](remember); err != nil {
		return nil, err
	}
	if k.knownSessions, err = newRemembered[tokens.Session](remember); err != nil {
		return nil, err
	}
	return k, nil
}

// apiKey finds a presented key. The map is asked for a hash, whose bits a guesser cannot steer;
// the comparison that decides takes constant time.
func (k *keys) apiKey(presented string) (apiKey, bool) {
	hash := tokens.HashAPIKey(presented)
	known, ok := k.api[hash]
	return known, ok && subtle.ConstantTimeCompare([]byte(known.sha256), []byte(hash)) == 1
}

// line is one incarnation of a queue.
type line struct {
	id          queue.ID
	incarnation string
	view        atomic.Pointer[lineView]
	// high is the highest position of this incarnation seen in an answer or a verified ticket:
	// a floor for those that are issued next.
	high atomic.Uint64
	seen *sightings
	// live are the live connections; nil for a line that only answers one request.
	live *hub.Line
	// watched is the turn for which those who are connected were seen; watchLive's alone.
	watched uint64
}

// lineView is a view with what is computed from it once and read often.
type lineView struct {
	*queue.View
	// turnSince is when this edge heard of the running turn.
	turnSince time.Time
	returnTo  map[string]struct{}
	// shared is what live events have in common at the moment.
	shared atomic.Pointer[sharedMembers]
	// doc is the last public state document made of this view.
	doc atomic.Pointer[stateDocument]
}

func newLine(v *queue.View, now time.Time) *line {
	l := &line{id: v.ID, incarnation: v.Incarnation, seen: newSightings()}
	l.seen.lapse = v.Number
	l.show(v, now)
	return l
}

// show publishes the next view. One goroutine calls it.
func (l *line) show(v *queue.View, now time.Time) {
	next := &lineView{View: v, turnSince: now}
	if old := l.view.Load(); old != nil {
		if old.Turn == v.Turn {
			next.turnSince = old.turnSince
		}
		if slices.Equal(old.Settings.ReturnOrigins, v.Settings.ReturnOrigins) {
			next.returnTo = old.returnTo
		}
	}
	if next.returnTo == nil {
		next.returnTo = make(map[string]struct{}, len(v.Settings.ReturnOrigins))
		for _, origin := range v.Settings.ReturnOrigins {
			next.returnTo[origin] = struct{}{}
		}
	}
	l.view.Store(next)
	l.raise(v.Issued)
}

// raise notes that a position of this incarnation was issued.
func (l *line) raise(position uint64) {
	for {
		high := l.high.Load()
		if position <= high || l.high.CompareAndSwap(high, position) {
			return
		}
	}
}

// turn is the turn that runs now as far as this edge can know. Out of contact it is counted on
// by the clock, so that sightings are still taken once per turn; the origin never credits one
// to a later turn than really runs.
func (v *lineView) turn(now time.Time, stale bool) uint64 {
	if !stale {
		return v.Turn
	}
	return v.Turn + uint64(max(now.Sub(v.turnSince), 0)/v.Settings.TurnLength())
}

// errGap says that entries did not follow on what the edge has, or that frames contradict each
// other: a new connection brings fresh snapshots.
var errGap = errors.New("the feed has a gap")

// behindFor is for how long after the last word from an origin nobody is believed who tells of a
// generation before the running one.
const behindFor = 3 * staleAfter

// knowledge applies the feed to the snapshot. Handlers load current; all else is the feed's
// goroutine's alone.
type knowledge struct {
	clock    *clock
	hub      *hub.Hub
	current  atomic.Pointer[snapshot]
	remember int

	// told are the queues that this connection has told of; whoever is missing when it has told
	// everything was deleted while no connection stood. nil afterwards.
	told map[queue.ID]struct{}
}

func newKnowledge(remember int, live *hub.Hub) *knowledge {
	k := &knowledge{clock: newClock(), hub: live, remember: remember}
	k.current.Store(&snapshot{})
	return k
}

// connected starts a new connection's account.
func (k *knowledge) connected() { k.told = make(map[queue.ID]struct{}) }

// apply takes in one frame; after an error the connection is of no more use.
func (k *knowledge) apply(f wire.Frame) error {
	switch {
	case f.Tenants != nil:
		return k.applyTenants(*f.Tenants)
	case f.Snapshot != nil:
		return k.applySnapshot(f.Snapshot.Queue)
	case f.Entries != nil:
		return k.applyEntries(*f.Entries)
	case f.Removed != nil:
		k.remove(f.Removed.Queue)
	case f.Revocations != nil:
		r := k.current.Load().tenants[f.Revocations.Tenant]
		if r == nil {
			return fmt.Errorf("%w: revocations of an unknown tenant", errGap)
		}
		r.apply(*f.Revocations, k.clock.now())
	case f.Heartbeat != nil:
		k.applyHeartbeat(*f.Heartbeat)
	}
	return nil
}

func (k *knowledge) applyTenants(frame wire.Tenants) error {
	old := k.current.Load()
	next := *old
	var err error
	if next.users, err = newUserTokens(frame, old.users); err != nil {
		return err
	}
	// An identity provider's new key is no reason to forget every ticket that was verified.
	frame.Tenants = slices.Clone(frame.Tenants)
	for i := range frame.Tenants {
		frame.Tenants[i].UserTokens = nil
	}
	if old.keys != nil && sameJSON(old.keys.from, frame) {
		k.current.Store(&next)
		return nil
	}
	if next.keys, err = newKeys(frame, k.remember); err != nil {
		return err
	}
	next.tenants = make(map[string]*revocations, len(frame.Tenants))
	for _, t := range frame.Tenants {
		if next.tenants[t.ID] = old.tenants[t.ID]; next.tenants[t.ID] == nil {
			next.tenants[t.ID] = newRevocations()
		}
	}
	k.current.Store(&next)
	// Now that nobody is verified by the old keys any more.
	for id, l := range old.lines {
		ring := next.keys.tickets.Rings[id.Tenant()]
		l.live.Refuse(func(f hub.Fan) bool { return ring == nil || !ring.Has(f.Key) })
	}
	return nil
}

func sameJSON(a, b wire.Tenants) bool {
	left, err1 := json.Marshal(a)
	right, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && bytes.Equal(left, right)
}

func (k *knowledge) applySnapshot(s queue.Snapshot) error {
	if _, err := queue.ParseID(string(s.ID)); err != nil || len(s.Generations) == 0 {
		return fmt.Errorf("%w: a snapshot lacks its id or generations", errGap)
	}
	if k.told != nil {
		k.told[s.ID] = struct{}{}
	}
	v := queue.NewView(s)
	old := k.current.Load()
	if l := old.lines[s.ID]; l != nil && l.incarnation == s.Incarnation {
		switch had := l.view.Load(); {
		case had.Generation() == v.Generation():
			if had.Number > v.Number {
				return nil // the origin reads behind the one that we had; its entries will pass over
			}
		case had.Knows(v.Generation()):
			// It has not heard of the running generation, or nobody remembers that any more, as where
			// the store was put back to what it was before and all origins started anew.
			if age, _ := k.clock.age(); age < behindFor {
				return fmt.Errorf("%w: the origin reads behind, at an earlier generation", errGap)
			}
		}
		// Lapses may lie between the views, and a lapse makes the next sighting count again.
		l.show(v, time.Now())
		l.seen.forgetAll(v.Number)
		k.seeConnected(l, k.clock.read())
		l.live.TellAll(true)
		k.setReturnOrigins()
		return nil
	}
	if l := old.lines[s.ID]; l != nil && s.CreatedAt.Before(l.view.Load().CreatedAt) {
		return fmt.Errorf("%w: the origin reads behind, at an earlier queue of this name", errGap)
	}
	next := *old
	next.lines = maps.Clone(old.lines)
	if next.lines == nil {
		next.lines = make(map[queue.ID]*line)
	}
	if l := old.lines[s.ID]; l != nil {
		defer l.live.Close() // once nobody finds the line any more
	}
	l := newLine(v, time.Now())
	l.live = k.hub.NewLine(teller{l, k.clock})
	next.lines[s.ID] = l
	next.gone = maps.Clone(old.gone)
	delete(next.gone, s.ID)
	k.current.Store(&next)
	k.setReturnOrigins()
	return nil
}

func (k *knowledge) applyEntries(e wire.Entries) error {
	l := k.current.Load().lines[e.Queue]
	if l == nil {
		return fmt.Errorf("%w: entries of an unknown queue", errGap)
	}
	had := l.view.Load()
	v, ok := had.Apply(e.Entries)
	if !ok {
		return fmt.Errorf("%w: after entry %d", errGap, had.Number)
	}
	l.show(v, time.Now())
	for _, entry := range e.Entries {
		switch entry.Kind {
		case queue.EntryLapsed, queue.EntryWithdrawn:
			l.seen.forget(entry.Positions, entry.Number)
		}
	}
	k.tellEntries(l, had.View, e.Entries)
	if !slices.Equal(had.Settings.ReturnOrigins, v.Settings.ReturnOrigins) {
		k.setReturnOrigins()
	}
	return nil
}

func (k *knowledge) remove(id queue.ID) {
	old := k.current.Load()
	l := old.lines[id]
	if l == nil {
		return
	}
	defer l.live.Close() // once nobody finds the line any more
	next := *old
	next.lines = maps.Clone(old.lines)
	delete(next.lines, id)
	next.gone = make(map[queue.ID]time.Time, len(old.gone)+1)
	for other, at := range old.gone {
		if k.clock.now().Sub(at) < tokens.TicketLifetime {
			next.gone[other] = at
		}
	}
	next.gone[id] = k.clock.now()
	k.current.Store(&next)
	k.setReturnOrigins()
}

func (k *knowledge) applyHeartbeat(h wire.Heartbeat) {
	k.clock.heartbeat(h.Now, h.Ready)
	old := k.current.Load()
	if !h.Ready || old.keys == nil || k.told == nil {
		return
	}
	for id := range old.lines {
		if _, told := k.told[id]; !told {
			k.remove(id)
		}
	}
	k.told = nil
	if !old.synced {
		next := *k.current.Load()
		next.synced = true
		k.current.Store(&next)
	}
}

func (k *knowledge) setReturnOrigins() {
	next := *k.current.Load()
	next.returnOrigins = make(map[string]struct{})
	for _, l := range next.lines {
		maps.Copy(next.returnOrigins, l.view.Load().returnTo)
	}
	k.current.Store(&next)
}
