package main

import (
	"math/bits"
	"slices"
	"time"

	"waitingroom/origin/queue"
)

// read takes in an entry of the log, in the call that made it, and checks what it tells.
func (b *books) read(e queue.Entry) {
	if !b.ok(sameTold, e.Number == b.entry+1) {
		b.breaks(sameTold, 0, "entry %d follows %d", e.Number, b.entry)
	}
	b.entry, b.chain = e.Number, e.Chain
	switch e.Kind {
	case queue.EntryJoined:
		b.issue(e.Issued)
	case queue.EntryOffered:
		b.readOffered(e)
	case queue.EntryClaimed:
		b.readClaimed(e)
	case queue.EntryLapsed:
		for _, position := range e.Positions {
			b.readLapsed(position, e.Number)
		}
	case queue.EntryWithdrawn:
		for _, position := range e.Positions {
			p := &b.places[position]
			if !b.ok(timesKept, p.standing == isOffered && !b.settings.State.KeepsOffers()) {
				b.breaks(timesKept, position, "an offer is withdrawn: %s, queue %s", standingNames[p.standing], b.settings.State)
			}
			b.move(p, isWaiting)
			b.qualify(position)
		}
	case queue.EntryProlonged:
		b.readProlonged(e)
	case queue.EntryDone:
		for _, position := range e.Positions {
			b.readDone(position, e)
		}
	case queue.EntrySettings:
		b.readSettings(*e.Settings)
	case queue.EntryTurn:
		b.readTurn(uint32(e.Turn))
	}
	sum := 0
	for _, n := range b.tally {
		sum += n
	}
	if !b.ok(fatesAddUp, sum == len(b.places)-1) {
		b.breaks(fatesAddUp, 0, "%d in all standings, %d issued", sum, len(b.places)-1)
	}
}

// issue makes positions up to the highest one, seen by their joining.
func (b *books) issue(highest uint64) {
	if !b.ok(positionsOnce, highest > b.issued()) {
		b.breaks(positionsOnce, highest, "joins end at a position that was issued before; %d are", b.issued())
		return
	}
	for position := b.issued() + 1; position <= highest; position++ {
		b.places = append(b.places, place{seenTurn: b.turn, seenAt: b.now, joined: b.now, ahead: uint32(position)})
		b.tally[isWaiting]++
		if int(position/64) >= len(b.eligible) {
			b.eligible = append(b.eligible, 0)
		}
		b.qualify(position)
	}
}

func (b *books) readOffered(e queue.Entry) {
	if !b.ok(capacityKept, b.settings.State == queue.Open) {
		b.breaks(capacityKept, e.Positions[0], "an offer while the queue is %s", b.settings.State)
	}
	look := b.looks
	if b.joining {
		look = b.tickLook
	}
	claimBy := sinceBegan(e.Until)
	if want := b.now + milliseconds(b.settings.Claim()); !b.ok(timesKept, claimBy == want) {
		b.breaks(timesKept, e.Positions[0], "claimBy is %d ms after %d", claimBy, want)
	}
	for _, position := range e.Positions {
		p := &b.places[position]
		if p.standing != isWaiting {
			b.breaks(timesKept, position, "an offer to a position that is %s", standingNames[p.standing])
		}
		if !b.ok(presentOnly, b.isEligible(position) && (b.joining || p.since < look)) {
			b.breaks(presentOnly, position, "offered although not present: seen in turn %d of %d, lapsed %v", p.seenTurn, b.turn, p.lapsed)
		}
		b.move(p, isOffered)
		p.until = claimBy
		b.qualify(position)
		if p.told == 0 {
			p.told = b.now
			b.onOffer(position)
		}
	}
	b.offered = append(b.offered, e.Positions...)
	if used := b.tally[isActive] + b.tally[isOffered]; !b.ok(capacityKept, used <= b.settings.Capacity) {
		b.breaks(capacityKept, e.Positions[len(e.Positions)-1], "%d sessions and offers, capacity %d", used, b.settings.Capacity)
	}
	last := e.Positions[len(e.Positions)-1]
	if first := b.firstBefore(look); !b.ok(orderKept, first == 0 || first > last) {
		b.breaks(orderKept, first, "passed over for %d", last)
	}
	if !b.ok(orderKept, !b.joining || !b.turnedAway) {
		b.breaks(orderKept, last, "a join takes a slot after another was turned away")
	}
	if !b.joining && b.retunes != b.retunesAtLook { // it was planned at the rate before
		return
	}
	if !b.ok(rateKept, b.pace.spend(len(e.Positions), b.now)) {
		b.breaks(rateKept, last, "%.1f offers at once at %d a minute", b.pace.level, b.pace.perMinute)
	}
}

func (b *books) readClaimed(e queue.Entry) {
	position := e.Positions[0]
	p := &b.places[position]
	if !b.ok(claimsKept, p.standing == isOffered && b.now < p.until+milliseconds(queue.ClaimGrace)) {
		b.breaks(claimsKept, position, "claimed while %s, %d ms after claimBy", standingNames[p.standing], b.now-p.until)
	}
	b.move(p, isActive)
	p.until = sinceBegan(e.Until)
	window := milliseconds(b.settings.PurchaseWindow())
	if length := p.until - b.now; !b.ok(timesKept, length >= window && length < window+1000 && p.until%1000 == 0) {
		b.breaks(timesKept, position, "a session of %d ms, window %d", length, window)
	}
	b.ends[p.until/1000] = append(b.ends[p.until/1000], position)
}

func (b *books) readLapsed(position uint64, number uint64) {
	p := &b.places[position]
	if !b.ok(timesKept, p.standing == isOffered && b.now >= p.until+milliseconds(queue.ClaimGrace)) {
		b.breaks(timesKept, position, "lapsed while %s, %d ms before its end", standingNames[p.standing], p.until-b.now)
	}
	b.move(p, isWaiting)
	p.misses++
	p.lapsed, p.lapse = true, uint32(number)
	if !b.ok(timesKept, int(p.misses) < b.settings.MaxMissedOffers) {
		b.breaks(timesKept, position, "still in line after %d missed offers", p.misses)
	}
	b.qualify(position)
}

func (b *books) readProlonged(e queue.Entry) {
	by := milliseconds(e.Until.Sub(e.Since))
	if !b.ok(timesKept, time.Duration(b.now-b.ticked)*time.Millisecond >= queue.Interruption) {
		b.breaks(timesKept, 0, "offers are prolonged by %d ms, %d ms after the last tick", by, b.now-b.ticked)
	}
	for i := range b.places {
		if b.places[i].standing == isOffered && i > 0 {
			b.places[i].until += by
		}
	}
}

func (b *books) readDone(position uint64, e queue.Entry) {
	p := &b.places[position]
	was := p.standing
	switch e.Fate {
	case queue.Ended:
		due := e.Reason != queue.ReasonWindow || b.now >= p.until
		if !b.ok(timesKept, was == isActive && due) {
			b.breaks(timesKept, position, "ended by %s while %s, %d ms before its end", e.Reason, standingNames[was], p.until-b.now)
		}
		b.move(p, isEnded)
	case queue.Expired:
		absent, hold := b.now-max(p.seenAt, b.afreshAt), milliseconds(b.settings.Hold())
		turns := b.turn - max(p.seenTurn, b.afresh)
		if !b.ok(holdKept, was == isWaiting && absent >= hold && turns > uint32(holdTurns(b.settings))) {
			b.breaks(holdKept, position, "expired while %s, at the end of turn %d and %d ms after it was seen last, in turn %d; hold %d ms",
				standingNames[was], b.turn, absent, p.seenTurn, hold)
		}
		b.move(p, isExpired)
	case queue.Missed:
		over := b.now >= p.until+milliseconds(queue.ClaimGrace) && int(p.misses)+1 >= b.settings.MaxMissedOffers
		if !b.ok(timesKept, was == isOffered && over) {
			b.breaks(timesKept, position, "missed while %s, after %d misses", standingNames[was], p.misses)
		}
		b.move(p, isMissed)
	case queue.Left:
		if !b.ok(timesKept, was == isWaiting || was == isOffered || was == isActive) {
			b.breaks(timesKept, position, "left while %s", standingNames[was])
		}
		b.move(p, isLeft)
	default:
		b.breaks(sameTold, position, "done with the fate %s", e.Fate)
	}
	b.qualify(position)
}

func (b *books) readSettings(s queue.Settings) {
	was := b.settings
	b.settings = s
	b.retunes++
	if s.State != was.State {
		b.states = append(b.states, s.State)
	}
	if s.HoldSeconds != was.HoldSeconds || !holds(was) && holds(s) {
		b.afresh, b.afreshAt = b.turn, b.now
	}
	if s.MaxPerMinute != was.MaxPerMinute || s.State != was.State {
		b.pace.restart(s.MaxPerMinute, b.now)
	}
}

// readTurn begins a turn: whoever was not seen in the one before is absent now.
func (b *books) readTurn(turn uint32) {
	if !b.ok(sameTold, turn == b.turn+1) {
		b.breaks(sameTold, 0, "turn %d follows %d", turn, b.turn)
	}
	b.turn = turn
	for i, word := range b.eligible {
		for ; word != 0; word &= word - 1 {
			p := uint64(i*64) + uint64(bits.TrailingZeros64(word))
			if b.places[p].seenTurn+1 < turn {
				b.qualify(p)
			}
		}
	}
}

// looksNow notes that a tick reads the sightings.
func (b *books) looksNow() {
	b.looks++
	b.looked = b.now
	b.retunesAtLook = b.retunes
	b.turnedAwaySinceLook = false
}

// committed judges a tick after its entries were read. freeAtLook is how many slots it could find
// empty, most how many it may offer. Settings that changed since its look bind the next one.
func (b *books) committed(freeAtLook, most int) {
	if b.now-b.ticked > 1000 { // what an interruption cost, no tick makes up for
		b.pace.wanted, b.pace.made = b.now, 0
	}
	b.tickLook, b.ticked = b.looks, b.now
	for second := b.swept; second*1000 <= b.looked; second++ {
		for _, position := range b.ends[second] {
			p := &b.places[position]
			if !b.ok(timesKept, p.standing != isActive || p.until/1000 != second) {
				b.breaks(timesKept, position, "a session runs %d ms beyond its end", b.now-p.until)
			}
		}
		delete(b.ends, second)
		b.swept = second + 1
	}
	made := len(b.offered)
	wanted := b.settings.State == queue.Open && b.retunes == b.retunesAtLook &&
		made < min(freeAtLook, most) && b.free() > 0 && b.firstBefore(b.looks) != 0
	b.checks[slotsOffered]++
	if !wanted {
		b.pace.wanted, b.pace.made = b.now, 0
		return
	}
	if !b.pace.explains(b.now) {
		b.breaks(slotsOffered, b.firstBefore(b.looks), "present and not offered one of %d free slots; %d were", freeAtLook, made)
	}
}

// holds reports whether the absent lose their place: from the opening to the closing.
func holds(s queue.Settings) bool {
	return s.State != queue.Scheduled && s.State != queue.Closed && !s.Notes.Unopened
}

// closed judges the closing of a turn after its entries were read.
func (b *books) closed(turn uint32) {
	held := uint32(holdTurns(b.settings))
	runs := holds(b.settings) && turn > b.afresh+held
	for i := 1; i < len(b.places) && runs; i++ {
		if p := &b.places[i]; p.standing == isWaiting {
			if !b.ok(absentExpire, p.seenTurn+held >= turn) {
				b.breaks(absentExpire, uint64(i), "waits after turn %d, seen last in turn %d", turn, p.seenTurn)
				return
			}
		}
	}
}

// sameList reports a difference between what an answer lists and what the log told.
func (b *books) sameList(what string, answered, logged queue.Positions) {
	if !b.ok(sameTold, slices.Equal(answered, logged)) {
		b.breaks(sameTold, 0, "the answer lists %d %s, the log %d", len(answered), what, len(logged))
	}
}
