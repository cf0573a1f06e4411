package redis_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
	"waitingroom/origin/store/redis"
	"waitingroom/origin/store/storetest"
)

// goesOnWithin bounds how long everything may stand still after a fault, on a busy machine.
const goesOnWithin = 30 * time.Second

// kinds of what a crowd does.
const (
	joins = iota
	sightings
	ticks
	claims
	ends
	reads
	kinds
)

var kindNames = [kinds]string{"joins", "sightings", "ticks", "claims", "ends", "reads"}

// crowd does to one queue what two origins and their edges do, all at once and without a pause,
// and keeps its own book of what it was answered. What no fault excuses is noted as wrong.
type crowd struct {
	t       *testing.T
	id      queue.ID
	origins [2]store.Store
	first   queue.Snapshot
	stop    context.CancelFunc
	work    sync.WaitGroup
	view    *queue.View // by the log; the reader's alone

	done [kinds]progress
	// mayLose says that entries of the log that were never acknowledged may get lost, although
	// somebody has read them; rewritten counts how often the reader was told so.
	mayLose   bool
	rewritten atomic.Int64
	// unknown counts the calls whose outcome nobody could tell.
	unknown atomic.Int64

	mu       sync.Mutex
	places   map[store.Key]uint64 // of users
	fans     map[uint64]store.Key // by position; what they claim with
	highest  uint64               // position that was answered
	offered  []uint64             // positions that the log says were offered, and nobody claimed yet
	sessions map[uint64]string    // ids
	held     []uint64             // positions of sessions
	ending   map[uint64]bool      // whose session's end was asked for
	retired  map[store.Key]bool   // users whose session's end was asked for
	wrongs   []string
}

// progress counts what succeeded, and the longest time during which nothing did.
type progress struct {
	count   atomic.Int64
	last    atomic.Int64 // nanoseconds since 1970
	longest atomic.Int64 // nanoseconds
}

func (p *progress) step() {
	now := time.Now().UnixNano()
	if before := p.last.Swap(now); before != 0 {
		p.longest.Store(max(p.longest.Load(), now-before))
	}
	p.count.Add(1)
}

const (
	// crowdUsers is how many users join at a time; after a while others do.
	crowdUsers    = 200
	crowdCapacity = 30
	crowdEdges    = 4
)

// startCrowd makes a queue and sets a crowd on it, until end is called. config says where Redis is.
// See crowd.mayLose.
func startCrowd(t *testing.T, config redis.Config, id queue.ID, mayLose bool) *crowd {
	t.Helper()
	c := &crowd{
		t: t, id: id, mayLose: mayLose, places: make(map[store.Key]uint64), fans: make(map[uint64]store.Key),
		sessions: make(map[uint64]string), ending: make(map[uint64]bool), retired: make(map[store.Key]bool),
	}
	settings := queue.DefaultSettings()
	settings.Capacity = crowdCapacity
	settings.ClaimSeconds = 3600 // nobody misses an offer
	config.Timeout = 2 * time.Second
	config.LogEntries = 1_000_000 // the whole log is checked in the end
	for i := range c.origins {
		c.origins[i] = openWith(t, config)
	}
	if _, _, err := c.origins[0].Create(t.Context(), id, "inc", "g1", settings, time.Now()); err != nil {
		t.Fatalf("Create: %v", err)
	}
	var err error
	if c.first, err = c.origins[0].Snapshot(t.Context(), id); err != nil {
		t.Fatalf("Snapshot: %v", err)
	}
	c.view = queue.NewView(c.first)
	ctx, stop := context.WithCancel(t.Context())
	c.stop = stop
	t.Cleanup(func() {
		c.stop()
		c.work.Wait()
	})
	for n := range crowdEdges {
		c.work.Go(func() { c.joinAll(ctx, n) })
	}
	for n, origin := range c.origins {
		c.work.Go(func() { c.coordinate(ctx, origin, fmt.Sprint("origin-", n)) })
		c.work.Go(func() { c.shop(ctx, origin, uint64(n)) })
	}
	c.work.Go(func() { c.see(ctx) })
	c.work.Go(func() { c.read(ctx) })
	c.goesOn("at first")
	return c
}

// goesOn waits until everything that the crowd does has succeeded again several times, and tells
// for how long it stood still since the last call.
func (c *crowd) goesOn(after string) {
	c.t.Helper()
	var before [kinds]int64
	for i := range before {
		before[i] = c.done[i].count.Load()
	}
	for i := range before {
		c.wait(after+": "+kindNames[i], func() bool { return c.done[i].count.Load() >= before[i]+10 })
	}
	text := after + ": the longest pause was"
	for i := range c.done {
		longest := time.Duration(c.done[i].longest.Swap(0))
		text += fmt.Sprintf(" %v of %s,", longest.Round(time.Millisecond), kindNames[i])
	}
	c.t.Log(text[:len(text)-1])
}

// joinsOn waits until some more batches of joins were answered.
func (c *crowd) joinsOn(batches int) {
	c.t.Helper()
	want := c.done[joins].count.Load() + int64(batches)
	c.wait("joins", func() bool { return c.done[joins].count.Load() >= want })
}

// feels waits until the crowd has met a fault: until the outcome of several calls was unknown.
func (c *crowd) feels(fault string) {
	c.t.Helper()
	before := c.unknown.Load()
	c.wait("notice that "+fault, func() bool { return c.unknown.Load() >= before+3 })
}

// wait waits for what the crowd does.
func (c *crowd) wait(what string, holds func() bool) {
	c.t.Helper()
	limit := time.NewTimer(goesOnWithin)
	defer limit.Stop()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for !holds() {
		select {
		case <-again.C:
		case <-limit.C:
			c.mu.Lock()
			defer c.mu.Unlock()
			c.t.Fatalf("not within %v: %s; %d answers are wrong so far: %.2000q", goesOnWithin, what, len(c.wrongs), c.wrongs)
		}
	}
}

// note notes what is wrong.
func (c *crowd) note(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wrongs = append(c.wrongs, fmt.Sprintf(format, args...))
}

// every does something every so often until ctx ends.
func every(ctx context.Context, pause time.Duration, do func()) {
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			do()
		}
	}
}

// refusal is the sentinel that an error is, nil for one that says that the outcome is unknown.
func refusal(err error) error {
	for _, s := range []error{
		store.ErrNotFound, store.ErrExists, store.ErrConflict, store.ErrClosed, store.ErrNotClosed, store.ErrRunning,
		store.ErrNotOffered, store.ErrTaken, store.ErrOut, store.ErrNotIssued, store.ErrLeaseLost, store.ErrLeaseHeld,
		store.ErrNoSession, store.ErrTrimmed, store.ErrRewritten, store.ErrBatchExpired,
	} {
		if errors.Is(err, s) {
			return s
		}
	}
	return nil
}

// insist repeats a call for as long as its outcome is unknown, as edges do. It returns the refusal,
// if it was refused, and false when ctx ended first.
func (c *crowd) insist(ctx context.Context, call func(context.Context) error) (refused error, answered bool) {
	pause := time.NewTicker(20 * time.Millisecond)
	defer pause.Stop()
	for {
		limited, cancel := context.WithTimeout(ctx, 3*time.Second)
		err := call(limited)
		cancel()
		if err == nil {
			return nil, true
		}
		if refused = refusal(err); refused != nil {
			return refused, true
		}
		c.unknown.Add(1)
		select {
		case <-ctx.Done():
			return nil, false
		case <-pause.C:
		}
	}
}

// joinAll is an edge whose fans join, a third of them with user ids that repeat. The edge speaks
// now to the one origin and now to the other, also when it repeats a batch.
func (c *crowd) joinAll(ctx context.Context, n int) {
	random := rand.New(rand.NewPCG(uint64(n), 1))
	edge := fmt.Sprint("edge-", n)
	seq := uint64(0)
	every(ctx, 5*time.Millisecond, func() {
		seq++
		users := make([]store.Key, 1+random.IntN(8))
		for i := range users {
			if random.IntN(3) == 0 {
				users[i] = userKey(int(seq)/2 + random.IntN(crowdUsers))
			}
		}
		c.mu.Lock()
		highest := c.highest
		c.mu.Unlock()
		var got store.JoinResult
		send := func(ctx context.Context) (err error) {
			got, err = c.origins[random.IntN(2)].Join(ctx, store.JoinBatch{
				Queue: c.id, Edge: edge, Seq: seq, Floor: highest, FloorOf: "inc", Users: users, Now: time.Now(),
			})
			return err
		}
		refused, answered := c.insist(ctx, send)
		if !answered {
			return
		}
		if refused != nil || len(got.Joins) != len(users) {
			c.note("a batch of %d joins: %d answers, %v", len(users), len(got.Joins), refused)
			return
		}
		c.done[joins].step()
		c.enter(edge, seq, users, got.Joins, highest)
		if random.IntN(4) == 0 {
			first := got.Joins
			if refused, answered := c.insist(ctx, send); answered && (refused != nil || !reflect.DeepEqual(got.Joins, first)) {
				c.note("batch %d of %s repeated: %v %v, before: %v", seq, edge, got.Joins, refused, first)
			}
		}
	})
}

// enter enters what a batch was answered in the book.
func (c *crowd) enter(edge string, seq uint64, users []store.Key, joined []store.Joined, highest uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wrong := func(format string, args ...any) {
		c.wrongs = append(c.wrongs, fmt.Sprintf("batch %d of %s: ", seq, edge)+fmt.Sprintf(format, args...))
	}
	for i, j := range joined {
		user := users[i]
		place, known := c.places[user]
		switch {
		case user == (store.Key{}):
			if !j.New {
				wrong("an anonymous fan got position %d, which is not new", j.Position)
			}
		case c.retired[user]: // may get another one
		case known && place != j.Position:
			wrong("a user got position %d, and had %d before", j.Position, place)
		default:
			c.places[user] = j.Position
		}
		if !j.New {
			continue
		}
		if j.Position <= highest {
			wrong("position %d is not above %d, which was answered before it was asked for", j.Position, highest)
		}
		// A user's two joins on their way at once are answered in any order, but one of them only is new.
		if _, taken := c.fans[j.Position]; taken {
			wrong("position %d was given twice", j.Position)
		}
		if user == (store.Key{}) {
			user = userKey(1_000_000 + int(j.Position)) // a random subject
		}
		c.fans[j.Position] = user
		c.highest = max(c.highest, j.Position)
	}
}

// coordinate is an origin that ticks whenever it can get the lease.
func (c *crowd) coordinate(ctx context.Context, s store.Store, owner string) {
	const ttl = time.Second
	last := time.Time{}
	every(ctx, 50*time.Millisecond, func() {
		limited, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		now := time.Now()
		epoch, err := s.Acquire(limited, c.id, owner, ttl, now)
		if errors.Is(err, store.ErrLeaseHeld) {
			return
		}
		if c.failed("Acquire", err) {
			return
		}
		look, err := s.Look(limited, c.id, 1000, now)
		if c.failed("Look", err) || look.Epoch != epoch {
			return
		}
		if queue.TurnDue(look, now) {
			_, _, err := s.CloseTurn(limited, c.id, epoch, look.Turn, now)
			c.failed("CloseTurn", err)
			return
		}
		if look.Sessions+look.Offers > crowdCapacity {
			c.note("%d sessions and %d offers run, the capacity is %d", look.Sessions, look.Offers, crowdCapacity)
		}
		if !now.After(last) {
			return
		}
		last = now
		tick, _ := queue.Plan(look, queue.Pace{}, now)
		result, err := s.Commit(limited, c.id, owner, ttl, tick)
		if c.failed("Commit", err) {
			return
		}
		if result.Sessions+result.Offers > crowdCapacity {
			c.note("a tick left %d sessions and %d offers, the capacity is %d", result.Sessions, result.Offers, crowdCapacity)
		}
		c.done[ticks].step()
	})
}

// failed notes an error that no fault excuses, and reports whether there was any.
func (c *crowd) failed(what string, err error) bool {
	if refused := refusal(err); refused != nil && refused != store.ErrLeaseLost {
		c.note("%s: %v", what, err)
	}
	return err != nil
}

// see hands in sightings of some who are in line.
func (c *crowd) see(ctx context.Context) {
	every(ctx, 20*time.Millisecond, func() {
		c.mu.Lock()
		highest := c.highest
		c.mu.Unlock()
		if highest == 0 {
			return
		}
		refused, answered := c.insist(ctx, func(ctx context.Context) error {
			_, err := c.origins[0].See(ctx, store.SightingBatch{
				Queue: c.id, Incarnation: "inc", Edge: "edge-0", Turn: 1, Positions: queue.Positions{1 + highest/2, 1 + highest},
				Complete: true, Now: time.Now(),
			})
			return err
		})
		if answered && refused == nil {
			c.done[sightings].step()
		} else if answered {
			c.note("See: %v", refused)
		}
	})
}

// shop claims what is offered, again and again, and ends sessions of anonymous fans, so that the
// line moves on.
func (c *crowd) shop(ctx context.Context, s store.Store, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 2))
	attempt := 0
	every(ctx, 10*time.Millisecond, func() {
		position, fan, before := c.pick(random)
		if position == 0 {
			return
		}
		var session queue.Session
		refused, answered := c.insist(ctx, func(ctx context.Context) (err error) {
			attempt++
			session, _, err = s.Claim(ctx, store.Claim{
				Queue: c.id, Incarnation: "inc", Position: position, Subject: fan,
				SessionID: fmt.Sprintf("%s~%d-%d", c.id, seed, attempt), Now: time.Now(),
			})
			return err
		})
		if !answered {
			return
		}
		c.mu.Lock()
		ending := c.ending[position]
		c.mu.Unlock()
		switch {
		case refused != nil && ending && errors.Is(refused, store.ErrOut):
			return
		case c.mayLose && before == "" && errors.Is(refused, store.ErrNotOffered):
			return // the offer was lost; another one will be in the log
		case refused != nil:
			c.note("Claim of position %d, which was offered: %v", position, refused)
			return
		case session.Position != position || before != "" && session.ID != before:
			c.note("Claim of position %d: %+v, the session was %q before", position, session, before)
			return
		}
		c.done[claims].step()
		if !c.enterShop(position, session.ID, random.IntN(4) > 0) {
			return
		}
		refused, answered = c.insist(ctx, func(ctx context.Context) error {
			_, err := s.EndSession(ctx, c.id, session.ID, queue.Ended, queue.ReasonReleased, time.Now())
			return err
		})
		if answered && refused == nil {
			c.done[ends].step()
		} else if answered {
			c.note("EndSession of position %d: %v", position, refused)
		}
	})
}

func sameState(a, b queue.Snapshot) bool {
	a.Admitted, b.Admitted = nil, nil // a snapshot from the store has none
	return reflect.DeepEqual(a, b)
}

// pick picks a position to claim: one that was offered, or one that has a session already, whose
// id comes with it. 0 when there is none.
func (c *crowd) pick(random *rand.Rand) (position uint64, fan store.Key, session string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := &c.offered
	if len(c.held) > 0 && (len(c.offered) == 0 || random.IntN(2) == 0) {
		list = &c.held
	}
	if len(*list) == 0 {
		return 0, fan, ""
	}
	n := random.IntN(len(*list))
	position = (*list)[n]
	fan, known := c.fans[position]
	if !known { // the join is not answered yet
		return 0, fan, ""
	}
	(*list)[n] = (*list)[len(*list)-1]
	*list = (*list)[:len(*list)-1]
	return position, fan, c.sessions[position]
}

// enterShop enters a session in the book, and reports whether it is to be ended now.
func (c *crowd) enterShop(position uint64, session string, end bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sessions[position] = session
	if !end {
		c.held = append(c.held, position)
		return false
	}
	c.ending[position] = true
	c.retired[c.fans[position]] = true
	return true
}

// read follows the log, as the feed does.
func (c *crowd) read(ctx context.Context) {
	every(ctx, 10*time.Millisecond, func() {
		limited, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		if c.readOn(limited) {
			c.done[reads].step()
		}
	})
}

// readOn reads the next entries of the log, and reports whether there were any. Entries that it has
// may have been lost with a master: then it hands them back, as origins do.
func (c *crowd) readOn(ctx context.Context) bool {
	s := c.origins[1]
	entries, err := s.Entries(ctx, c.id, "inc", c.view.Number, c.view.Chain, 1000)
	if c.mayLose && errors.Is(err, store.ErrRewritten) {
		generation := fmt.Sprint("g", 2+c.rewritten.Load())
		if _, _, err := s.Renew(ctx, c.view, generation, time.Now()); c.failed("Renew", err) {
			return false
		}
		return c.readAnew(ctx)
	}
	if c.mayLose && errors.Is(err, store.ErrTrimmed) {
		// It was handed back, and the answer to that is not known: numbers go on higher up.
		return c.readAnew(ctx)
	}
	if c.failed("Entries", err) || len(entries) == 0 {
		return false
	}
	next, ok := c.view.Apply(entries)
	if !ok {
		c.note("the log goes on with entry %d (%s) after %d", entries[0].Number, entries[0].Kind, c.view.Number)
		return false
	}
	c.view = next
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, entry := range entries {
		if entry.Kind == queue.EntryOffered {
			c.offered = append(c.offered, entry.Positions...)
		}
	}
	return true
}

// readAnew begins with a snapshot.
func (c *crowd) readAnew(ctx context.Context) bool {
	snapshot, err := c.origins[1].Snapshot(ctx, c.id)
	if c.failed("Snapshot", err) {
		return false
	}
	c.view = queue.NewView(snapshot)
	c.rewritten.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, offer := range snapshot.Offers { // some may be there twice, which does no harm
		c.offered = append(c.offered, offer.Position)
	}
	return true
}

// end ends the crowd, and compares its book with what the store says.
func (c *crowd) end() {
	c.t.Helper()
	c.stop()
	c.work.Wait()
	s := c.origins[0]
	if c.rewritten.Load() == 0 { // the log of a new generation does not tell how it came to be
		entries, err := s.Entries(c.t.Context(), c.id, "inc", 0, "", 1_000_000)
		if err == nil {
			err = storetest.CheckHistory(entries)
		}
		if err != nil {
			c.t.Errorf("the log: %v", err)
		}
	}
	snapshot, err := s.Snapshot(c.t.Context(), c.id)
	if err != nil {
		c.t.Fatalf("Snapshot: %v", err)
	}
	view := queue.NewView(snapshot)
	for c.readOn(c.t.Context()) {
	}
	if followed, read := c.view.Snapshot(), view.Snapshot(); !sameState(followed, read) {
		c.note("who followed the log sees another queue than who reads a snapshot: entry %d, %d issued, %d offers, %d sessions, and entry %d, %d issued, %d offers, %d sessions",
			followed.Number, followed.Issued, len(followed.Offers), len(followed.Sessions), read.Number, read.Issued, len(read.Offers), len(read.Sessions))
	}
	for position := range c.fans {
		fate := view.Fate(position)
		session, runs := view.Session(position)
		id, claimed := c.sessions[position]
		switch {
		case position > view.Issued:
			c.note("position %d was answered, and the store has issued only %d", position, view.Issued)
		case c.ending[position]:
		case claimed && (!runs || session.ID != id):
			c.note("position %d has session %q (%v), and was told %q", position, session.ID, fate, id)
		case fate.Done() && fate != queue.Claimed:
			c.note("position %d lost its place: %v", position, fate)
		}
	}
	var users []store.Key
	for user := range c.places {
		if !c.retired[user] {
			users = append(users, user)
		}
	}
	again, err := s.Join(c.t.Context(), store.JoinBatch{Queue: c.id, Edge: "audit", Seq: 1, Users: users, Now: time.Now()})
	if err != nil {
		c.t.Fatalf("Join: %v", err)
	}
	for i, j := range again.Joins {
		if j.New || j.Position != c.places[users[i]] {
			c.note("in the end a user has position %d (new: %v), and was told %d", j.Position, j.New, c.places[users[i]])
		}
	}
	for _, wrong := range c.wrongs[:min(len(c.wrongs), 30)] {
		c.t.Error(wrong)
	}
	c.t.Logf("%d fans, %d sessions, %d users in line, %d entries, rewritten %d times; %d answers wrong",
		len(c.fans), len(c.sessions), len(users), view.Number, c.rewritten.Load(), len(c.wrongs))
}
