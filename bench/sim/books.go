package main

import (
	"math/bits"
	"time"

	"waitingroom/origin/queue"
)

// began is the virtual time at which every simulation begins.
var began = time.Date(2026, time.May, 30, 9, 55, 0, 0, time.UTC)

// sinceBegan is a virtual time in milliseconds, timeAt the inverse.
func sinceBegan(t time.Time) int32 { return int32(t.Sub(began) / time.Millisecond) }
func timeAt(ms int32) time.Time    { return began.Add(time.Duration(ms) * time.Millisecond) }

func milliseconds(d time.Duration) int32 { return int32(d / time.Millisecond) }

// standing is what the books know of a position.
type standing uint8

const (
	isWaiting standing = iota
	isOffered
	isActive
	isEnded
	isExpired
	isMissed
	isLeft
	standings
)

var standingNames = [standings]string{"waiting", "offered", "active", "ended", "expired", "missed", "left"}

// place is a position in the books.
type place struct {
	standing standing
	misses   uint8
	lapsed   bool   // an offer lapsed, and nobody was seen since
	seenTurn uint32 // the latest turn that a sighting was credited to
	seenAt   int32  // when that sighting was made
	until    int32  // claimBy, or the session's end
	lapse    uint32 // the log entry of the last lapse
	// since is the look before which the position has been eligible all the time.
	since  uint32
	ahead  uint32 // as of the last audit
	joined int32
	told   int32 // when the first offer was made, 0 before
}

// books is what the simulation itself knows of the queue: from what it sent and what it was
// answered, the log's entries among it. They never ask the store for a count.
type books struct {
	referee
	now      int32
	settings queue.Settings
	states   []queue.State // the queue was in, in order
	places   []place       // by position; the first is nobody's
	tally    [standings]int
	turn     uint32
	// afresh is the turn in which everybody counted as seen, afreshAt when that was.
	afresh   uint32
	afreshAt int32
	entry    uint64 // the last entry that was read
	chain    string // of that entry

	// eligible are the positions that wait, are present, and were seen after their last lapse.
	eligible []uint64
	lowest   int // no word before it has one
	looks    uint32
	looked   int32 // when the last look was
	// retunes counts the changes of the settings, retunesAtLook those before the last look.
	retunes, retunesAtLook int
	tickLook               uint32 // the look of the last tick that was committed
	turnedAway             bool   // a join was turned away since that look
	// turnedAwaySinceLook is the same since the last look.
	turnedAwaySinceLook bool
	ticked              int32 // when the last tick was committed

	ends  map[int32]queue.Positions // sessions by the second in which their window ends
	swept int32                     // the second up to which ends is settled

	pace rate

	joining bool            // a call of Join is being read
	offered queue.Positions // by the call that is being read
	onOffer func(position uint64)
}

func newBooks(settings queue.Settings) *books {
	return &books{
		settings: settings, states: []queue.State{settings.State}, places: make([]place, 1), turn: 1, entry: 1,
		ends: make(map[int32]queue.Positions), onOffer: func(uint64) {},
	}
}

func (b *books) issued() uint64 { return uint64(len(b.places) - 1) }

func (b *books) breaks(i invariant, position uint64, what string, args ...any) {
	b.fail(i, b.now, position, what, args...)
}

// move gives a position another standing.
func (b *books) move(p *place, to standing) {
	b.tally[p.standing]--
	b.tally[to]++
	p.standing = to
}

// qualify brings up to date whether a position may be offered a slot.
func (b *books) qualify(position uint64) {
	p := &b.places[position]
	word, bit := &b.eligible[position/64], uint64(1)<<(position%64)
	if p.standing == isWaiting && !p.lapsed && p.seenTurn+1 >= b.turn {
		if *word&bit == 0 {
			*word |= bit
			p.since = b.looks
			b.lowest = min(b.lowest, int(position/64))
		}
		return
	}
	*word &^= bit
}

func (b *books) isEligible(position uint64) bool {
	return b.eligible[position/64]&(1<<(position%64)) != 0
}

// firstBefore is the lowest position that has been eligible since before a look; 0 when there is
// none.
func (b *books) firstBefore(look uint32) uint64 {
	for b.lowest < len(b.eligible) && b.eligible[b.lowest] == 0 {
		b.lowest++
	}
	for i := b.lowest; i < len(b.eligible); i++ {
		for word := b.eligible[i]; word != 0; word &= word - 1 {
			if p := uint64(i*64 + bits.TrailingZeros64(word)); b.places[p].since < look {
				return p
			}
		}
	}
	return 0
}

// free is how many slots stand empty.
func (b *books) free() int { return b.settings.Capacity - b.tally[isActive] - b.tally[isOffered] }

// saw notes that a sighting was accepted.
func (b *books) saw(position uint64, turn uint32, at int32, asOf uint64) {
	p := &b.places[position]
	kept := uint32(holdTurns(b.settings))
	credited := min(turn, b.turn)
	if b.turn > kept {
		credited = max(credited, b.turn-kept)
	}
	p.seenTurn = max(p.seenTurn, credited)
	p.seenAt = max(p.seenAt, at)
	if p.lapsed && credited == b.turn && asOf >= uint64(p.lapse) {
		p.lapsed = false
	}
	if p.standing == isWaiting {
		b.qualify(position)
	}
}

// turnLength and holdTurns are the contract's arithmetic again, so that the simulation does not
// judge the domain by itself.
func turnLength(s queue.Settings) int32 { return max(int32(s.HoldSeconds)*1000/30, 2000) }

func holdTurns(s queue.Settings) int { return max(s.HoldSeconds*1000/int(turnLength(s)), 1) }

// rate judges maxPerMinute: what flows out of the queue must fit a bucket that holds one second's
// worth, at least one, and drains with the rate.
type rate struct {
	perMinute int
	level     float64
	at        int32
	// wanted is since when slots were free and fans present without a pause, made what was
	// offered since.
	wanted int32
	made   int
}

// latestTick is how long after the last one a tick comes that made up for nothing.
const latestTick = tickEvery + frame

func (r *rate) most() float64 { return max(float64(r.perMinute)/60, 1) }

// restart begins anew under another rate, or after an interruption.
func (r *rate) restart(perMinute int, now int32) {
	*r = rate{perMinute: perMinute, at: now, wanted: now}
}

// spend notes offers, and reports whether they were allowed: a full bucket, what came into it until
// the tick that made or left them, and another bucket for the joins between a tick's look and its
// commit, which the next tick pays for.
func (r *rate) spend(n int, now int32) bool {
	passed := float64(now-r.at) / 60_000 * float64(r.perMinute)
	r.level = max(r.level-passed, 0) + float64(n)
	r.at = now
	r.made += n
	return r.perMinute == 0 || r.level <= 2*r.most()+float64(r.perMinute)*latestTick/60_000+1.001
}

// explains reports whether the rate is why offers were not made, although they were wanted.
func (r *rate) explains(now int32) bool {
	due := float64(now-r.wanted) / 60_000 * float64(r.perMinute)
	return r.perMinute > 0 && float64(r.made) >= due-r.most()-1
}
