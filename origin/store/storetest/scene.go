package storetest

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

// leaseTTL is how long the scenes' leases live.
const leaseTTL = 5 * time.Second

// lookLimit is how many candidates a scene's coordinator asks for.
const lookLimit = 1000

// scene is one queue, an edge that speaks to it and a coordinator that ticks it, all in one
// goroutine, at a virtual time. Its methods end the test when the store fails.
type scene struct {
	t   *testing.T
	s   store.Store
	id  queue.ID
	inc string
	now time.Time

	edge  string
	seq   uint64
	users map[uint64]store.Key // whose a position is, by the joins
	owner string
	epoch uint64
	pace  queue.Pace
	// ticked is the time of the last tick: no coordinator ticks twice at one moment.
	ticked time.Time

	first queue.Snapshot // where the log's check begins
	gone  bool           // deleted; there is no log any more
}

// newScene makes a queue. change adapts the default settings: capacity 2, hold 60 s (30 turns of
// 2 s), claim time 20 s, purchase window 100 s.
func newScene(t *testing.T, s store.Store, change func(*queue.Settings)) *scene {
	t.Helper()
	settings := queue.DefaultSettings()
	settings.Capacity = 2
	settings.HoldSeconds = 60
	settings.ClaimSeconds = 20
	settings.PurchaseWindowSeconds = 100
	if change != nil {
		change(&settings)
	}
	now, err := s.Now(t.Context())
	if err != nil {
		t.Fatalf("Now: %v", err)
	}
	// A whole second, because sessions end at one; what rounding does has a case of its own.
	now = wholeSecond(now)
	sc := &scene{
		t: t, s: s, now: now,
		id: queue.MakeID(randomName(), "match"), inc: randomName(),
		edge: randomName(), owner: randomName(), users: make(map[uint64]store.Key),
	}
	sc.create(settings)
	t.Cleanup(sc.checkLog)
	return sc
}

func randomName() string { return strings.ToLower(rand.Text()) }

func (sc *scene) create(settings queue.Settings) {
	sc.t.Helper()
	if _, _, err := sc.s.Create(sc.t.Context(), sc.id, sc.inc, "g1", settings, sc.now); err != nil {
		sc.t.Fatalf("Create: %v", err)
	}
	sc.first = sc.snapshot()
}

// key is the key of the n-th user, and also serves as the subject of a claim.
func key(n int) store.Key {
	var k store.Key
	binary.BigEndian.PutUint64(k[8:], uint64(n))
	return k
}

// subject is the one that claims an anonymous fan's position in a scene.
func subject(position uint64) store.Key { return key(1_000_000 + int(position)) }

func (sc *scene) advance(d time.Duration) { sc.now = sc.now.Add(d) }

// settings changes the settings as a PATCH does.
func (sc *scene) update(change func(*queue.Settings)) store.Meta {
	sc.t.Helper()
	meta := sc.meta()
	settings := meta.Settings
	change(&settings)
	meta, _, err := sc.s.Update(sc.t.Context(), sc.id, meta.Version, settings, sc.now)
	if err != nil {
		sc.t.Fatalf("Update: %v", err)
	}
	return meta
}

func (sc *scene) setState(state queue.State) {
	sc.t.Helper()
	sc.update(func(s *queue.Settings) {
		s.State = state
		if state == queue.Scheduled {
			s.OpensAt = sc.now.Add(time.Hour)
		}
	})
}

func (sc *scene) meta() store.Meta {
	sc.t.Helper()
	meta, err := sc.s.Get(sc.t.Context(), sc.id)
	if err != nil {
		sc.t.Fatalf("Get: %v", err)
	}
	return meta
}

func (sc *scene) counts() store.Counts {
	sc.t.Helper()
	counts, err := sc.s.Counts(sc.t.Context(), sc.id)
	if err != nil {
		sc.t.Fatalf("Counts: %v", err)
	}
	return counts
}

func (sc *scene) snapshot() queue.Snapshot {
	sc.t.Helper()
	// A test's cleanup runs after its context has ended.
	snapshot, err := sc.s.Snapshot(context.WithoutCancel(sc.t.Context()), sc.id)
	if err != nil {
		sc.t.Fatalf("Snapshot: %v", err)
	}
	return snapshot
}

func (sc *scene) view() *queue.View {
	sc.t.Helper()
	return queue.NewView(sc.snapshot())
}

// batch is the edge's next batch.
func (sc *scene) batch(users ...store.Key) store.JoinBatch {
	sc.seq++
	return store.JoinBatch{Queue: sc.id, Edge: sc.edge, Seq: sc.seq, FloorOf: sc.inc, Users: users, Now: sc.now}
}

func (sc *scene) join(users ...store.Key) []store.Joined {
	sc.t.Helper()
	return sc.joinBatch(sc.batch(users...)).Joins
}

func (sc *scene) joinBatch(batch store.JoinBatch) store.JoinResult {
	sc.t.Helper()
	result, err := sc.s.Join(sc.t.Context(), batch)
	if err != nil {
		sc.t.Fatalf("Join: %v", err)
	}
	if len(result.Joins) != len(batch.Users) {
		sc.t.Fatalf("Join: %d answers for %d fans", len(result.Joins), len(batch.Users))
	}
	for i, joined := range result.Joins {
		if user := batch.Users[i]; user != (store.Key{}) {
			sc.users[joined.Position] = user
		}
	}
	return result
}

// joinAnonymous lets n fans join and returns the first position.
func (sc *scene) joinAnonymous(n int) uint64 {
	sc.t.Helper()
	return sc.join(make([]store.Key, n)...)[0].Position
}

// see hands in sightings of the running turn.
func (sc *scene) see(positions ...uint64) {
	sc.t.Helper()
	sc.seeIn(sc.look().Turn, positions...)
}

func (sc *scene) seeIn(turn uint64, positions ...uint64) {
	sc.t.Helper()
	sc.seeAsOf(turn, sc.view().Number, positions...)
}

func (sc *scene) seeAsOf(turn, asOf uint64, positions ...uint64) {
	sc.t.Helper()
	_, err := sc.s.See(sc.t.Context(), store.SightingBatch{
		Queue: sc.id, Incarnation: sc.inc, Edge: sc.edge, Turn: turn,
		Positions: positions, AsOf: asOf, Now: sc.now,
	})
	if err != nil {
		sc.t.Fatalf("See: %v", err)
	}
}

// report says that the edge has handed in everything.
func (sc *scene) report(edge string, leaving bool) {
	sc.t.Helper()
	sc.reportAsOf(edge, leaving, sc.now)
}

func (sc *scene) reportAsOf(edge string, leaving bool, at time.Time) {
	sc.t.Helper()
	_, err := sc.s.See(sc.t.Context(), store.SightingBatch{
		Queue: sc.id, Incarnation: sc.inc, Edge: edge, Turn: sc.look().Turn,
		Complete: true, Leaving: leaving, At: at, Now: sc.now,
	})
	if err != nil {
		sc.t.Fatalf("See: %v", err)
	}
}

func (sc *scene) look() queue.Look {
	sc.t.Helper()
	look, err := sc.s.Look(sc.t.Context(), sc.id, lookLimit, sc.now)
	if err != nil {
		sc.t.Fatalf("Look: %v", err)
	}
	return look
}

func (sc *scene) acquire() {
	sc.t.Helper()
	epoch, err := sc.s.Acquire(sc.t.Context(), sc.id, sc.owner, leaseTTL, sc.now)
	if err != nil {
		sc.t.Fatalf("Acquire: %v", err)
	}
	sc.epoch = epoch
}

func (sc *scene) commit(tick queue.Tick) store.TickResult {
	sc.t.Helper()
	tick.Epoch = sc.epoch
	tick.TurnedAway = sc.look().TurnedAway
	if tick.Now.IsZero() {
		tick.Now = sc.now
	}
	result, err := sc.s.Commit(sc.t.Context(), sc.id, sc.owner, leaseTTL, tick)
	if err != nil {
		sc.t.Fatalf("Commit: %v", err)
	}
	return result
}

// tick does what a coordinator does at one moment: take the lease, look, plan, commit, and close
// the turn when it is due.
func (sc *scene) tick() store.TickResult {
	sc.t.Helper()
	if !sc.now.After(sc.ticked) {
		sc.now = sc.ticked.Add(time.Millisecond)
	}
	sc.ticked = sc.now
	sc.acquire()
	look := sc.look()
	tick, pace := queue.Plan(look, sc.pace, sc.now)
	sc.pace = pace
	result := sc.commit(tick)
	if !result.Idle && tick.Prolong == 0 && queue.TurnDue(look, sc.now) {
		sc.closeTurn(look.Turn)
	}
	return result
}

func (sc *scene) closeTurn(turn uint64) int {
	sc.t.Helper()
	expired, _, err := sc.s.CloseTurn(sc.t.Context(), sc.id, sc.epoch, turn, sc.now)
	if err != nil {
		sc.t.Fatalf("CloseTurn: %v", err)
	}
	return expired
}

// run lets time pass with a tick every second, and calls each between them, if it is not nil.
func (sc *scene) run(d time.Duration, each func()) {
	sc.t.Helper()
	for end := sc.now.Add(d); sc.now.Before(end); {
		sc.advance(min(time.Second, end.Sub(sc.now)))
		if each != nil {
			each()
		}
		sc.tick()
	}
}

// claimRequest is a claim by the fan whose the position is.
func (sc *scene) claimRequest(position uint64) store.Claim {
	by, user := sc.users[position]
	if !user {
		by = subject(position)
	}
	return store.Claim{
		Queue: sc.id, Incarnation: sc.inc, Position: position, Subject: by,
		SessionID: string(sc.id) + "~" + randomName(), Now: sc.now,
	}
}

func (sc *scene) claim(position uint64) queue.Session {
	sc.t.Helper()
	session, _, err := sc.s.Claim(sc.t.Context(), sc.claimRequest(position))
	if err != nil {
		sc.t.Fatalf("Claim %d: %v", position, err)
	}
	return session
}

func (sc *scene) leave(position uint64) {
	sc.t.Helper()
	if _, err := sc.s.Leave(sc.t.Context(), sc.id, sc.inc, position, sc.now); err != nil {
		sc.t.Fatalf("Leave %d: %v", position, err)
	}
}

func (sc *scene) endSession(id string) {
	sc.t.Helper()
	if _, err := sc.s.EndSession(sc.t.Context(), sc.id, id, queue.Ended, queue.ReasonReleased, sc.now); err != nil {
		sc.t.Fatalf("EndSession: %v", err)
	}
}

// wantFate checks what became of a position.
func (sc *scene) wantFate(position uint64, want queue.Fate) {
	sc.t.Helper()
	if got := sc.view().Fate(position); got != want {
		sc.t.Errorf("fate of %d is %v, want %v", position, got, want)
	}
}

// wantOffer checks whether an offer runs for a position, and until when; zero is none.
func (sc *scene) wantOffer(position uint64, want time.Time) {
	sc.t.Helper()
	if got, _ := sc.view().Offer(position); !got.Equal(want) {
		sc.t.Errorf("offer of %d runs until %v, want %v", position, got, want)
	}
}

func (sc *scene) claimBy() time.Time { return sc.now.Add(sc.meta().Settings.Claim()) }

func (sc *scene) wantPositions(what string, got queue.Positions, want ...uint64) {
	sc.t.Helper()
	if !slices.Equal(got, want) {
		sc.t.Errorf("%s are %v, want %v", what, got, want)
	}
}

func (sc *scene) wantErr(what string, err, want error) {
	sc.t.Helper()
	if !errors.Is(err, want) {
		sc.t.Errorf("%s: got error %v, want %v", what, err, want)
	}
}

// unchanged checks that f appends no entry to the log.
func (sc *scene) unchanged(what string, f func()) {
	sc.t.Helper()
	before := sc.snapshot().Number
	f()
	if after := sc.snapshot().Number; after != before {
		sc.t.Errorf("%s: the log grew from entry %d to %d, want no change", what, before, after)
	}
}
