package edge

import (
	"cmp"
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/wire"
)

const (
	// handInEvery is the pace at which sightings go to the origin.
	handInEvery = 250 * time.Millisecond
	// reportEvery is how often an edge that holds fans of a queue says that it has handed in all.
	reportEvery = time.Second
	// handInSize bounds the positions of one request.
	handInSize = 50_000
	// slowestHandIn bounds the growing pause while no origin takes them.
	slowestHandIn = 4 * time.Second
	// leaveAfterTurns is how many turns without a sighting make an edge tell that it holds no
	// fans of a queue any more.
	leaveAfterTurns = 2
)

// sightings are those of one line that this edge has not handed in yet, and what it needs to
// forward no more than one per ticket and turn.
type sightings struct {
	mu    sync.Mutex
	turn  uint64
	noted map[uint64]*notedBlock // by position / BlockSize: seen in turn
	// kept are the sightings to hand in.
	kept  map[occasion]queue.Positions
	count int
	// lapse is the latest log entry after which a sighting may be a fan's return from a lapse:
	// that of a lapse, or of a snapshot before which some may lie.
	lapse uint64
	// last is when a sighting was noted last, zero once the edge has told that it left;
	// reported is when the origin last took a complete account.
	last, reported time.Time
}

// occasion says when sightings were made: in which turn, and as of which lapse. A sighting noted by
// somebody who did not know the latest lapse yet counts as made before all of them.
type occasion struct{ turn, asOf uint64 }

type notedBlock [queue.BlockSize / 64]uint64

func newSightings() *sightings {
	return &sightings{noted: make(map[uint64]*notedBlock), kept: make(map[occasion]queue.Positions)}
}

// note takes down that a position was seen in a turn, once. entry is the last log entry that
// whoever saw it knew.
func (s *sightings) note(turn, entry, position uint64, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if turn != s.turn {
		s.turn = turn
		clear(s.noted)
	}
	block := s.noted[position/queue.BlockSize]
	if block == nil {
		block = new(notedBlock)
		s.noted[position/queue.BlockSize] = block
	}
	word, bit := &block[position%queue.BlockSize/64], uint64(1)<<(position%64)
	s.last = now
	if *word&bit != 0 {
		return
	}
	*word |= bit
	when := occasion{turn: turn}
	if entry >= s.lapse {
		when.asOf = s.lapse
	}
	s.kept[when] = append(s.kept[when], position)
	s.count++
}

// forget makes the next sightings of positions count again in the same turn: after a lapse only a
// new sighting brings a fan another offer.
func (s *sightings) forget(positions queue.Positions, entry uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lapse = max(s.lapse, entry)
	for _, position := range positions {
		if block := s.noted[position/queue.BlockSize]; block != nil {
			block[position%queue.BlockSize/64] &^= 1 << (position % 64)
		}
	}
}

// forgetAll does the same for every position, as of a snapshot.
func (s *sightings) forgetAll(entry uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lapse = entry
	clear(s.noted)
}

// account is what one line hands in at once: parts in the order of their turns, the last of which
// says that it was all.
type account struct {
	line  *line
	parts []wire.Sightings
	taken int // how many parts the origin has taken
	sent  int // how many are taken or under way
}

// take removes what is to be handed in; ok is false when there is nothing to say. at is from before
// the call, so that what it takes is all that was noted until then.
func (s *sightings) take(l *line, turn uint64, turnLength time.Duration, at reading, stopping bool) (a account, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last.IsZero() || len(s.kept) == 0 && !stopping && at.own.Sub(s.reported) < reportEvery {
		return account{}, false
	}
	a.line = l
	for _, when := range sortedKeys(s.kept) {
		positions := s.kept[when]
		slices.Sort(positions)
		for chunk := range slices.Chunk(slices.Compact(positions), handInSize) {
			a.parts = append(a.parts, wire.Sightings{
				Queue: l.id, Incarnation: l.incarnation, Turn: when.turn, AsOf: when.asOf, Positions: chunk,
			})
		}
	}
	clear(s.kept)
	s.count = 0
	if len(a.parts) == 0 {
		a.parts = []wire.Sightings{{Queue: l.id, Incarnation: l.incarnation, Turn: turn}}
	}
	final := &a.parts[len(a.parts)-1]
	final.Complete, final.At = true, at.now
	final.Leaving = stopping || at.own.Sub(s.last) > leaveAfterTurns*turnLength
	return a, true
}

func sortedKeys(kept map[occasion]queue.Positions) []occasion {
	return slices.SortedFunc(maps.Keys(kept), func(a, b occasion) int {
		return cmp.Or(cmp.Compare(a.turn, b.turn), cmp.Compare(a.asOf, b.asOf))
	})
}

// settle notes what became of an account: parts that were not taken are kept for the next one.
func (a *account) settle(now time.Time) {
	s := a.line.seen
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.taken == len(a.parts) {
		s.reported = now
		if a.parts[len(a.parts)-1].Leaving && len(s.kept) == 0 {
			s.last = time.Time{}
		}
		return
	}
	for _, part := range a.parts[a.taken:] {
		when := occasion{part.Turn, part.AsOf}
		s.kept[when] = append(s.kept[when], part.Positions...)
		s.count += len(part.Positions)
	}
}

// dropOldest forgets the earliest sightings and returns how many they were. Those
// are the ones that later sightings of the same fans make up for.
func (s *sightings) dropOldest() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	earliest := sortedKeys(s.kept)
	if len(earliest) == 0 {
		return 0
	}
	n := len(s.kept[earliest[0]])
	delete(s.kept, earliest[0])
	s.count -= n
	return n
}

func (s *sightings) size() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

// see notes that a fan in line was here now, by somebody who knew the log up to entry.
func (s *Server) see(l *line, turn, entry, position uint64, now time.Time) {
	s.metrics.sightings.Inc()
	l.seen.note(turn, entry, position, now)
}

// handInSightings hands in what was seen until ctx ends, then once more for good.
func (s *Server) handInSightings(ctx context.Context) {
	wait := handInEvery
	for {
		if pause(ctx, wait/2+rand.N(wait)); ctx.Err() != nil {
			break
		}
		if s.handIn(ctx, false) {
			wait = handInEvery
		} else {
			wait = min(2*wait, slowestHandIn)
			s.boundSightings()
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), originDeadline)
	defer cancel()
	s.handIn(last, true)
}

// handIn makes one round over all lines and reports whether the origin took everything.
func (s *Server) handIn(ctx context.Context, stopping bool) bool {
	at := s.known.clock.read()
	var accounts []*account
	for _, l := range s.known.current.Load().lines {
		view := l.view.Load()
		if view.Settings.Asleep(at.now) && l.seen.size() == 0 && !stopping {
			continue // no turn waits for a report
		}
		if a, ok := l.seen.take(l, view.turn(at.own, at.stale), view.Settings.TurnLength(), at, stopping); ok {
			accounts = append(accounts, &a)
		}
	}
	err := s.sendAccounts(ctx, slices.Clone(accounts))
	for _, a := range accounts {
		a.settle(time.Now())
	}
	return err == nil
}

// sendAccounts sends accounts in requests of bounded size, in order, and counts what was taken. A
// line of which something was not taken sends no more, for its later parts would claim to be all.
func (s *Server) sendAccounts(ctx context.Context, accounts []*account) error {
	for len(accounts) > 0 {
		request := wire.SightingsRequest{Edge: s.edgeID}
		size := 0
		for _, a := range accounts {
			a.sent = a.taken
			for a.sent < len(a.parts) && (size == 0 || size+len(a.parts[a.sent].Positions) <= handInSize) {
				request.Queues = append(request.Queues, a.parts[a.sent])
				size += len(a.parts[a.sent].Positions)
				a.sent++
			}
		}
		attempt, cancel := context.WithTimeout(ctx, originDeadline)
		response, err := s.Origin.See(attempt, request)
		cancel()
		if err != nil {
			s.metrics.handIns.WithLabelValues("failed").Inc()
			if ctx.Err() == nil { // else a stop interrupts it, and the last round follows
				s.Logger.Warn("sightings were not taken and are kept", "error", err)
			}
			return err
		}
		s.metrics.handIns.WithLabelValues("taken").Inc()
		var rest []*account
		for _, a := range accounts {
			if slices.Contains(response.Again, a.line.id) {
				continue
			}
			if a.taken = a.sent; a.taken < len(a.parts) {
				rest = append(rest, a)
			}
		}
		accounts = rest
	}
	return nil
}

// boundSightings drops the oldest sightings while there are more than may be kept.
func (s *Server) boundSightings() {
	lines := s.known.current.Load().lines
	total := 0
	for _, l := range lines {
		total += l.seen.size()
	}
	for total > s.Config.Limits.KeptSightings {
		dropped := 0
		for _, l := range lines {
			dropped += l.seen.dropOldest()
		}
		if dropped == 0 {
			return
		}
		total -= dropped
		s.metrics.sightingsDropped.WithLabelValues("origin_away").Add(float64(dropped))
	}
}
