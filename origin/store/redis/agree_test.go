package redis_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"regexp"
	"slices"
	"testing"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
	"waitingroom/origin/store/memory"
	"waitingroom/origin/store/redis/redistest"
)

// TestAgreesWithMemory plays long random histories, with batches that cross pages, on Redis and on
// the embedded store, and wants every answer, and in the end every entry of the log, alike.
func TestAgreesWithMemory(t *testing.T) {
	server := redistest.Start(t)
	for seed := range uint64(8) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			newPair(t, open(t, server), seed, nil).play(250)
		})
	}
}

// TestLostReplies plays the same with a connection that breaks now and then after Redis has run a
// script and before its answer arrives, so that the script runs twice.
func TestLostReplies(t *testing.T) {
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server)
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			newPair(t, openAt(t, proxy.Addr), 100+seed, proxy.LoseReply).play(80)
		})
	}
	if proxy.Lost.Load() < 50 {
		t.Errorf("only %d replies were lost", proxy.Lost.Load())
	}
}

// pair is one queue in both stores.
type pair struct {
	t      *testing.T
	random *rand.Rand
	redis  store.Store
	memory store.Store
	id     queue.ID
	now    time.Time
	seq    uint64
	// lose makes the next reply get lost, if it is not nil.
	lose func()

	settings queue.Settings
	version  uint64
	// epochs of the two stores differ, as they should.
	redisEpoch, memoryEpoch uint64
	issued, entry           uint64
	joined                  []store.JoinBatch
	sessions                []string
	at                      []uint64 // positions of the sessions
}

func newPair(t *testing.T, redis store.Store, seed uint64, lose func()) *pair {
	p := &pair{
		t: t, random: rand.New(rand.NewPCG(seed, 1)),
		redis: redis, lose: lose, memory: &memory.Store{},
		id: queue.MakeID("agree", fmt.Sprint("seed-", seed)), now: time.UnixMilli(1_800_000_000_000).UTC(),
		settings: queue.DefaultSettings(), version: 1,
	}
	p.settings.Capacity = 400
	p.settings.HoldSeconds = 20
	p.settings.ClaimSeconds = 6
	p.settings.PurchaseWindowSeconds = 15
	both(p, "Create", func(s store.Store) (store.Meta, store.Ack, error) {
		return s.Create(t.Context(), p.id, "inc", "g1", p.settings, p.now)
	})
	return p
}

// both does the same to both stores and compares the answers; errors by their sentinel.
func both[A, B any](p *pair, what string, do func(store.Store) (A, B, error)) (A, B) {
	p.t.Helper()
	if p.lose != nil && p.random.IntN(3) == 0 {
		p.lose()
	}
	a, b, err := do(p.redis)
	wantA, wantB, wantErr := do(p.memory)
	if (err == nil) != (wantErr == nil) || wantErr != nil && !errors.Is(err, sentinel(p.t, wantErr)) {
		p.t.Fatalf("%s: error %v on Redis, %v in memory", what, err, wantErr)
	}
	if err == nil && (!alike(a, wantA) || !alike(b, wantB)) {
		p.t.Fatalf("%s:\nRedis:  %s\nmemory: %s", what, short(a, b), short(wantA, wantB))
	}
	return a, b
}

// written is a value as text. What remains is a pointer, whose address says nothing.
func written(a any) string { return address.ReplaceAllString(fmt.Sprintf("%+v", a), "…") }

var address = regexp.MustCompile(`0x[0-9a-f]{6,}`)

func short(a, b any) string {
	text := written(a) + " " + written(b)
	return text[:min(len(text), 3000)]
}

func sentinel(t *testing.T, err error) error {
	t.Helper()
	for _, s := range []error{
		store.ErrNotFound, store.ErrConflict, store.ErrClosed, store.ErrRunning, store.ErrNotOffered, store.ErrTaken,
		store.ErrOut, store.ErrNotIssued, store.ErrLeaseLost, store.ErrLeaseHeld, store.ErrNoSession, store.ErrBatchExpired,
	} {
		if errors.Is(err, s) {
			return s
		}
	}
	t.Fatalf("the embedded store fails: %v", err)
	return nil
}

// alike compares, with an empty list like none.
func alike(a, b any) bool {
	return reflect.DeepEqual(a, b) || written(a) == written(b)
}

func (p *pair) position() uint64 { return p.random.Uint64N(p.issued + 2) }

func (p *pair) user() store.Key {
	if p.random.IntN(2) == 0 {
		return store.Key{}
	}
	return store.Key{byte(p.random.IntN(8)), byte(p.random.IntN(40)), 7}
}

func (p *pair) play(steps int) {
	for range steps {
		p.now = p.now.Add(time.Duration(p.random.IntN(400)) * time.Millisecond)
		switch n := p.random.IntN(100); {
		case n < 18:
			p.join()
		case n < 36:
			p.see()
		case n < 66:
			p.tick()
		case n < 76:
			p.claim()
		case n < 82:
			p.leave()
		case n < 88:
			p.end()
		case n < 91:
			p.update()
		case n < 93: // silence
			p.now = p.now.Add(time.Duration(p.random.IntN(8000)) * time.Millisecond)
		case n < 95:
			p.closeTurns()
		default:
			p.check()
		}
	}
	p.check()
	after := uint64(0)
	for {
		entries, _ := both(p, "Entries", func(s store.Store) ([]queue.Entry, int, error) {
			entries, err := s.Entries(p.t.Context(), p.id, "inc", after, "", 37)
			for i := range entries { // settings are a pointer
				entries[i].Chain = "" // each store has its own
				if entries[i].Settings != nil {
					settings, _ := json.Marshal(entries[i].Settings)
					entries[i].Reason = string(settings)
					entries[i].Settings = nil
				}
			}
			return entries, 0, err
		})
		if len(entries) == 0 {
			return
		}
		after = entries[len(entries)-1].Number
	}
}

func (p *pair) join() {
	n := p.random.IntN(20)
	switch p.random.IntN(12) {
	case 0:
		n = p.random.IntN(30_000)
	case 1:
		n = 0
	}
	users := make([]store.Key, n)
	if n < 100 {
		for i := range users {
			users[i] = p.user()
		}
	}
	p.seq++
	batch := store.JoinBatch{Queue: p.id, Edge: "edge", Seq: p.seq, FloorOf: "inc", Users: users, Now: p.now}
	switch p.random.IntN(30) {
	case 0:
		batch.Floor = p.issued + p.random.Uint64N(150_000)
	case 1:
		if p.joined != nil { // a replay, perhaps too late
			batch = p.joined[p.random.IntN(len(p.joined))]
			batch.Now = p.now
		}
	case 2:
		batch.Floor = p.issued + store.MaxFloorRise + 1
	}
	p.joined = append(p.joined, batch)
	result, _ := both(p, "Join", func(s store.Store) (store.JoinResult, int, error) {
		r, err := s.Join(p.t.Context(), batch)
		return r, 0, err
	})
	for _, j := range result.Joins {
		p.issued = max(p.issued, j.Position)
	}
}

func (p *pair) see() {
	look := p.look()
	turn := look.Turn + uint64(p.random.IntN(2))
	if p.random.IntN(4) == 0 {
		turn -= min(turn, uint64(p.random.IntN(40)))
	}
	var positions queue.Positions
	switch p.random.IntN(4) {
	case 0: // dense
		from, step := p.position(), 1+p.random.Uint64N(5)
		for position := from; position < from+p.random.Uint64N(200_000) && position <= p.issued+10; position += step {
			positions = append(positions, position)
		}
	case 1: // everybody
		for position := uint64(1); position <= p.issued; position++ {
			positions = append(positions, position)
		}
	default:
		for range p.random.IntN(300) {
			positions = append(positions, p.position())
		}
		slices.Sort(positions)
		positions = slices.Compact(positions)
	}
	batch := store.SightingBatch{
		Queue: p.id, Incarnation: "inc", Edge: fmt.Sprint("edge-", p.random.IntN(3)), Turn: turn, Positions: positions,
		AsOf:     p.entry - min(p.entry, p.random.Uint64N(6)),
		Complete: p.random.IntN(2) == 0, Leaving: p.random.IntN(4) == 0, Now: p.now,
	}
	both(p, "See", func(s store.Store) (store.Ack, int, error) {
		ack, err := s.See(p.t.Context(), batch)
		p.entry = max(p.entry, ack.Entry)
		return ack, 0, err
	})
}

func (p *pair) look() queue.Look {
	look, _ := both(p, "Look", func(s store.Store) (queue.Look, int, error) {
		look, err := s.Look(p.t.Context(), p.id, 500, p.now)
		look.Epoch = 0
		return look, 0, err
	})
	return look
}

func (p *pair) acquire() bool {
	var err error
	both(p, "Acquire", func(s store.Store) (int, int, error) {
		epoch := &p.memoryEpoch
		if s == p.redis {
			epoch = &p.redisEpoch
		}
		var got uint64
		if got, err = s.Acquire(p.t.Context(), p.id, "owner", 4*time.Second, p.now); err == nil {
			*epoch = got
		}
		return 0, 0, err
	})
	return err == nil
}

func (p *pair) epochOf(s store.Store) uint64 {
	if s == p.redis {
		return p.redisEpoch
	}
	return p.memoryEpoch
}

func (p *pair) tick() {
	if !p.acquire() {
		return
	}
	look := p.look()
	tick, _ := queue.Plan(look, queue.Pace{}, p.now)
	if p.random.IntN(5) == 0 { // a plan that is out of date
		for range 5 {
			tick.Offer = append(tick.Offer, p.position())
			tick.Lapse = append(tick.Lapse, p.position())
			tick.EndSessions = append(tick.EndSessions, p.position())
		}
		for _, list := range []*queue.Positions{&tick.Offer, &tick.Lapse, &tick.EndSessions} {
			slices.Sort(*list)
			*list = slices.Compact(*list)
		}
		tick.JoinSlots = p.random.IntN(50)
	}
	commit := func(s store.Store) (store.TickResult, int, error) {
		tick.Epoch = p.epochOf(s)
		r, err := s.Commit(p.t.Context(), p.id, "owner", 4*time.Second, tick)
		return r, 0, err
	}
	result, _ := both(p, "Commit", commit)
	if p.random.IntN(2) == 0 {
		again, _, err := commit(p.redis)
		if err != nil || !alike(again, result) {
			p.t.Fatalf("the same tick again: %+v, %v, want %+v", again, err, result)
		}
	}
	if queue.TurnDue(look, p.now) {
		p.closeTurn(look.Turn)
	}
}

func (p *pair) closeTurn(turn uint64) {
	for range 1 + p.random.IntN(2) {
		both(p, "CloseTurn", func(s store.Store) (int, store.Ack, error) {
			expired, ack, err := s.CloseTurn(p.t.Context(), p.id, p.epochOf(s), turn, p.now)
			if p.lose != nil {
				expired = 0 // a repetition does not know it any more
			}
			return expired, ack, err
		})
	}
}

// closeTurns lets so many turns pass that many expire at once.
func (p *pair) closeTurns() {
	for range p.random.IntN(14) {
		p.now = p.now.Add(2 * time.Second)
		if !p.acquire() {
			return
		}
		p.closeTurn(p.look().Turn)
	}
}

func (p *pair) claim() {
	snapshot, err := p.memory.Snapshot(p.t.Context(), p.id)
	if err != nil {
		p.t.Fatal(err)
	}
	for range 5 {
		position := p.position()
		if len(snapshot.Offers) > 0 && p.random.IntN(6) > 0 {
			position = snapshot.Offers[p.random.IntN(len(snapshot.Offers))].Position
		} else if len(p.at) > 0 {
			position = p.at[p.random.IntN(len(p.at))]
		}
		claim := store.Claim{
			Queue: p.id, Incarnation: "inc", Position: position, Subject: store.Key{byte(p.random.IntN(2))},
			SessionID: fmt.Sprintf("%s~%d", p.id, p.random.Uint64()), Now: p.now,
		}
		session, _ := both(p, "Claim", func(s store.Store) (queue.Session, store.Ack, error) {
			return s.Claim(p.t.Context(), claim)
		})
		if session.ID != "" {
			p.sessions, p.at = append(p.sessions, session.ID), append(p.at, position)
		}
	}
}

func (p *pair) leave() {
	position := p.position()
	both(p, "Leave", func(s store.Store) (store.Ack, int, error) {
		ack, err := s.Leave(p.t.Context(), p.id, "inc", position, p.now)
		return ack, 0, err
	})
}

func (p *pair) end() {
	session := "unknown"
	if len(p.sessions) > 0 {
		session = p.sessions[p.random.IntN(len(p.sessions))]
	}
	fate := []queue.Fate{queue.Ended, queue.Left}[p.random.IntN(2)]
	both(p, "Session", func(s store.Store) (queue.Session, int, error) {
		session, err := s.Session(p.t.Context(), p.id, session)
		return session, 0, err
	})
	both(p, "EndSession", func(s store.Store) (store.Ack, int, error) {
		ack, err := s.EndSession(p.t.Context(), p.id, session, fate, queue.ReasonReleased, p.now)
		return ack, 0, err
	})
}

func (p *pair) update() {
	next := p.settings
	switch p.random.IntN(9) {
	case 6:
		next.Remaining = new(p.random.IntN(1000))
		next.Notes.Measure.Fallen = p.random.IntN(3)
	case 7:
		next.Remaining, next.State, next.Notes.SoldOut = new(0), queue.SoldOut, true
	case 8:
		next.State, next.OpensAt = queue.Scheduled, p.now.Add(time.Duration(p.random.IntN(20))*time.Second)
		next.Notes.FirstOpensAt = next.OpensAt
	case 0:
		next.Capacity = p.random.IntN(1000)
	case 1:
		next.HoldSeconds = 2 + p.random.IntN(70)
	case 2:
		next.MaxMissedOffers = 1 + p.random.IntN(3)
	case 3:
		next.State = queue.SoldOut
	case 4:
		next.State = queue.Paused
	default:
		next.State = queue.Open
	}
	version := p.version
	if p.random.IntN(8) == 0 {
		version--
	}
	meta, _ := both(p, "Update", func(s store.Store) (store.Meta, store.Ack, error) {
		return s.Update(p.t.Context(), p.id, version, next, p.now)
	})
	if meta.Version > 0 {
		p.version, p.settings = meta.Version, meta.Settings
	}
}

func (p *pair) check() {
	p.look()
	both(p, "Counts", func(s store.Store) (store.Counts, int, error) {
		counts, err := s.Counts(p.t.Context(), p.id)
		return counts, 0, err
	})
	both(p, "Snapshot", func(s store.Store) (queue.Snapshot, int, error) {
		snapshot, err := s.Snapshot(p.t.Context(), p.id)
		p.issued = snapshot.Issued
		snapshot.Chain = ""
		return snapshot, 0, err
	})
}
