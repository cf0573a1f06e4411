package main

import (
	"slices"
	"strconv"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

const (
	gatherFor   = 2 // milliseconds that a join waits for company at the most
	batchSize   = 1024
	handInEvery = 250
	reportEvery = 1000
	handInSize  = 50_000
	// staleAfter is how long after the last word from an origin an edge counts turns by its own
	// clock.
	staleAfter = 5000
)

// edge is the model of an edge: what it knows of the queue is some log entries old, it gathers
// joins into batches, and forwards at most one sighting per position and turn.
type edge struct {
	*world
	id     string
	origin *originNode
	lag    int32 // how much later than the first edge it reads the log
	cut    bool  // off from the origins

	view      *queue.View
	step      int // of the feed, the next one to be shown
	turnSince int32
	heard     int32 // when an origin was heard last

	// joins, as edge/gather.go
	seq     uint64
	joining []join
	since   int32 // when the first of them came

	// sightings, as edge/sightings.go
	turn     uint64
	noted    []uint64 // seen in turn, by position
	kept     []occasion
	lapse    uint64
	last     int32 // when a sighting was noted last, below 0 before the first
	reported int32
	next     int32 // when it hands in next
	wait     int32
}

// occasion are sightings of one turn, made as of one lapse.
type occasion struct {
	turn, asOf uint64
	positions  queue.Positions
}

type join struct {
	ticket uint32
	user   store.Key
	again  bool // from another device of a user in line
}

func newEdge(w *world, number int, lag int32) *edge {
	id := strconv.Itoa(number)
	return &edge{
		world: w, id: "edge-" + id, origin: w.origins[number%len(w.origins)], lag: lag,
		view: w.feed.view, lapse: w.feed.view.Number, last: -1, wait: handInEvery,
	}
}

// reaches reports whether the edge can talk to its origin.
func (e *edge) reaches() bool { return !e.cut }

// ask takes a join; it goes out with the batch of its two milliseconds.
func (e *edge) ask(j join, now int32) {
	if len(e.joining) > 0 && (now-e.since >= gatherFor || len(e.joining) >= batchSize) {
		e.sendJoins()
	}
	if len(e.joining) == 0 {
		e.since = now
	}
	e.joining = append(e.joining, j)
}

// sendJoins sends one batch. Now and then the answer is lost, and the batch is sent again under
// the same number.
func (e *edge) sendJoins() {
	if len(e.joining) == 0 {
		return
	}
	joins := e.joining
	e.joining = e.joining[:0]
	batch := store.JoinBatch{
		Queue: e.queue, Edge: e.id, Seq: e.seq + 1, Floor: e.view.Issued, FloorOf: e.incarnation,
		Users: make([]store.Key, len(joins)), Now: timeAt(e.now),
	}
	for i, j := range joins {
		batch.Users[i] = j.user
	}
	if !e.reaches() {
		e.events++
		e.refuseJoins(joins)
		return
	}
	e.seq++
	result, err := e.origin.link.Join(e.ctx, batch)
	if err == nil && e.chance(lostAnswers) {
		var again store.JoinResult
		again, err = e.origin.link.Store.Join(e.ctx, batch)
		if same := slices.Equal(again.Joins, result.Joins); !e.books.ok(positionsOnce, err == nil && same) {
			e.books.breaks(positionsOnce, e.books.issued(), "a batch that is sent again gets another answer: %v", err)
		}
	}
	if err != nil {
		e.refuseJoins(joins)
		return
	}
	e.origin.acted(result.Ack)
	for i, j := range joins {
		e.joined(j, result.Joins[i])
	}
}

func (e *edge) refuseJoins(joins []join) {
	for _, j := range joins {
		if !j.again {
			e.plan(j.ticket, eventWake, e.now+2*second+e.upTo(4*second))
		}
	}
}

// turnNow is the turn that runs now as far as this edge can know.
func (e *edge) turnNow() uint64 {
	if e.now-e.heard <= staleAfter {
		return e.view.Turn
	}
	return e.view.Turn + uint64((e.now-e.turnSince)/turnLength(e.view.Settings))
}

// note takes down that a position was seen, once a turn.
func (e *edge) note(position uint64) {
	if turn := e.turnNow(); turn != e.turn {
		e.turn = turn
		clear(e.noted)
	}
	for uint64(len(e.noted)) <= position/64 {
		e.noted = append(e.noted, 0)
	}
	word, bit := &e.noted[position/64], uint64(1)<<(position%64)
	e.last = e.now
	if *word&bit != 0 {
		return
	}
	*word |= bit
	e.notedAt[position] = e.now
	i := len(e.kept) - 1
	if i < 0 || e.kept[i].turn != e.turn || e.kept[i].asOf != e.lapse {
		e.kept = append(e.kept, occasion{turn: e.turn, asOf: e.lapse})
		i++
	}
	e.kept[i].positions = append(e.kept[i].positions, position)
}

// handIn hands in what was seen, as one account of which the last part says that it was all.
func (e *edge) handIn() {
	e.next = e.now + e.wait/2 + e.upTo(e.wait)
	if e.last < 0 || len(e.kept) == 0 && e.now-e.reported < reportEvery {
		return
	}
	if len(e.kept) == 0 {
		e.kept = append(e.kept, occasion{turn: e.turnNow()})
	}
	for len(e.kept) > 0 {
		part := &e.kept[0]
		slices.Sort(part.positions)
		n := min(len(part.positions), handInSize)
		complete := len(e.kept) == 1 && n == len(part.positions)
		leaving := complete && e.now-e.last > 2*turnLength(e.view.Settings)
		ack, err := store.Ack{}, errAway
		if e.reaches() {
			ack, err = e.origin.link.See(e.ctx, store.SightingBatch{
				Queue: e.queue, Incarnation: e.incarnation, Edge: e.id, Turn: part.turn, AsOf: part.asOf,
				Positions: part.positions[:n], Complete: complete, Leaving: leaving, At: timeAt(e.now), Now: timeAt(e.now),
			})
		}
		if err != nil {
			e.wait = min(2*e.wait, 4000)
			return
		}
		e.origin.acted(ack)
		part.positions = part.positions[n:]
		if len(part.positions) == 0 {
			e.kept = slices.Delete(e.kept, 0, 1)
		}
		if complete {
			e.reported = e.now
			if leaving {
				e.last = -1
			}
		}
	}
	e.wait = handInEvery
}

// follow shows the edge what the log tells as of its lag.
func (e *edge) follow() {
	if e.cut {
		return
	}
	if !e.away {
		e.heard = e.now
	}
	for ; e.step < e.feed.end() && e.feed.at(e.step).at <= e.now-e.lag; e.step++ {
		step := e.feed.at(e.step)
		if step.view.Turn != e.view.Turn {
			e.turnSince = e.now
		}
		e.view = step.view
		for _, entry := range step.lapses {
			e.lapse = max(e.lapse, entry.Number)
			for _, p := range entry.Positions {
				if p/64 < uint64(len(e.noted)) {
					e.noted[p/64] &^= 1 << (p % 64)
				}
			}
		}
	}
}

// reconnect gives the edge a fresh snapshot, after which every next sighting counts.
func (e *edge) reconnect() {
	e.cut, e.step = false, e.feed.end()
	e.view, e.turnSince, e.heard = e.feed.view, e.now, e.now
	e.lapse = e.view.Number
	clear(e.noted)
}
