package queue

import (
	"reflect"
	"slices"
	"time"
)

// editor changes a view that nobody else sees yet. A block is copied before its first change
// where it is shared with the view that the editor started from.
type editor struct {
	*View
	old []*block
}

func (e *editor) apply(entry Entry) {
	switch entry.Kind {
	case EntryJoined:
		e.grow(entry.Issued)
	case EntryOffered:
		e.grow(entry.Issued)
		owed, _ := slices.BinarySearch(entry.Positions, e.Watermark+1)
		e.flow.toOwed += uint64(owed)
		e.flow.offered += uint64(len(entry.Positions))
		e.Watermark = max(e.Watermark, entry.Watermark)
		for _, position := range entry.Positions {
			e.offer(position, entry.Until)
		}
		e.record(entry.At, len(entry.Positions))
	case EntryClaimed:
		e.flow.claimed++
		for _, position := range entry.Positions {
			if claimBy, running := e.Offer(position); running {
				e.flow.delay += max(e.Settings.Claim()-claimBy.Sub(entry.At), 0)
			}
			e.take(position)
			e.setFate(position, Claimed)
			e.start(Session{position, entry.Session, entry.Since, entry.Until})
		}
	case EntryLapsed, EntryWithdrawn:
		e.flow.lapsed += uint64(len(entry.Positions))
		for _, position := range entry.Positions {
			e.take(position)
		}
	case EntryProlonged:
		e.prolong(entry.Until.Sub(entry.Since))
	case EntryDone:
		if entry.Fate == Missed {
			e.flow.lapsed += uint64(len(entry.Positions))
		}
		for _, position := range entry.Positions {
			e.take(position)
			e.stop(position)
			e.setFate(position, entry.Fate)
		}
	case EntrySettings:
		if entry.Settings != nil {
			if !reflect.DeepEqual(entry.Settings.WithoutRemaining(), e.Settings.WithoutRemaining()) {
				e.Estimate = nil // it was made for the settings before
			}
			e.Settings = *entry.Settings
			e.Version++
		}
	case EntryEstimate:
		e.Estimate = entry.Estimate
	case EntryTurn:
		e.Turn = entry.Turn
	}
}

func (e *editor) grow(issued uint64) {
	e.Issued = max(e.Issued, issued)
	for uint64(len(e.blocks))*BlockSize < e.Issued {
		e.blocks = append(e.blocks, &block{})
	}
}

// edit returns the position's block, ready to be changed.
func (e *editor) edit(position uint64) *block {
	e.grow(position)
	index := int((position - 1) / BlockSize)
	b := e.blocks[index]
	if index < len(e.old) && e.old[index] == b {
		own := *b
		own.offers, own.sessions = copyFor(b.offers), copyFor(b.sessions)
		e.blocks[index] = &own
		b = &own
	}
	return b
}

// copyFor copies a list with some room for more.
func copyFor[T any](list []T) []T { return append(make([]T, 0, len(list)+len(list)/16+4), list...) }

func (e *editor) offer(position uint64, claimBy time.Time) {
	b := e.edit(position)
	e.Watermark = max(e.Watermark, position)
	at, running := b.offerAt(position)
	if running {
		b.offers[at].ClaimBy = claimBy
		return
	}
	b.offers = slices.Insert(b.offers, at, Offer{position, claimBy})
	e.Offers++
}

// take removes the position's offer, if there is one.
func (e *editor) take(position uint64) {
	if _, running := e.Offer(position); running {
		b := e.edit(position)
		at, _ := b.offerAt(position)
		b.offers = slices.Delete(b.offers, at, at+1)
		e.Offers--
	}
}

func (e *editor) start(s Session) {
	b := e.edit(s.Position)
	at, running := b.sessionAt(s.Position)
	if running {
		b.sessions[at] = &s
		return
	}
	b.sessions = slices.Insert(b.sessions, at, &s)
	e.Sessions++
}

// stop removes the position's session, if there is one.
func (e *editor) stop(position uint64) {
	if _, running := e.Session(position); running {
		b := e.edit(position)
		at, _ := b.sessionAt(position)
		b.sessions = slices.Delete(b.sessions, at, at+1)
		e.Sessions--
	}
}

func (e *editor) setFate(position uint64, fate Fate) {
	b, n := e.edit(position), (position-1)%BlockSize
	was := b.fate(n)
	if !was.Done() && fate.Done() {
		b.done++
	} else if was.Done() && !fate.Done() {
		b.done--
	}
	if was != Ended && fate == Ended {
		b.ended++
	} else if was == Ended && fate != Ended {
		b.ended--
	}
	if n%2 == 0 {
		b.fates[n/2] = b.fates[n/2]&0x0f | byte(fate)<<4
	} else {
		b.fates[n/2] = b.fates[n/2]&0xf0 | byte(fate)
	}
}

func (e *editor) prolong(by time.Duration) {
	for i := range e.blocks {
		if len(e.blocks[i].offers) == 0 {
			continue
		}
		b := e.edit(uint64(i)*BlockSize + 1)
		for at := range b.offers {
			b.offers[at].ClaimBy = b.offers[at].ClaimBy.Add(by)
		}
	}
}

// record counts offers into slices of ten seconds and forgets those that no rate needs.
func (e *editor) record(at time.Time, n int) {
	start := at.Truncate(rateSlice)
	if last := len(e.admitted) - 1; last >= 0 && e.admitted[last].At.Equal(start) {
		e.admitted[last].Count += n
	} else {
		e.admitted = append(e.admitted, Admitted{start, n})
	}
	for len(e.admitted) > 0 && at.Sub(e.admitted[0].At) >= (rateSlices+1)*rateSlice {
		e.admitted = e.admitted[1:]
	}
}
