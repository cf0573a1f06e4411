package queue

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"slices"
	"time"
)

// BlockSize is the number of positions that are counted together.
const BlockSize = 1024

const (
	rateSlice  = 10 * time.Second
	rateSlices = 6 // one minute
)

// View is a queue as its log tells it, up to one entry. It is immutable: Apply returns the next
// one, which shares what did not change, so readers need no lock.
type View struct {
	ID          ID
	Incarnation string
	Generations []string
	CreatedAt   time.Time
	Settings    Settings
	Number      uint64 // the last entry that was applied
	Chain       string // of that entry; only where the log itself is read
	Version     uint64 // of the settings; likewise
	Issued      uint64
	Watermark   uint64
	Turn        uint64

	// Offers and Sessions are those that run; Waiting are the positions that wait without an
	// offer, and Owed the part of them at or below the watermark.
	Offers, Sessions int
	Waiting, Owed    int
	// Ended counts the positions whose session ended.
	Ended int

	// Estimate is the last one that the coordinator has logged since the settings changed; nil
	// while it has no measure.
	Estimate *Estimate

	flow     flow
	since    uint64 // the entry from which flow counts
	seq      string // of Number
	blocks   []*block
	ahead    []uint64   // for each block: who is not done beyond the watermark, before this block
	admitted []Admitted // oldest first
}

// flow counts what became of offers in the entries that were applied.
type flow struct {
	offered, claimed, lapsed uint64
	toOwed                   uint64        // the part of offered that went to owed positions
	delay                    time.Duration // from offer to claim, of all that were claimed
}

// block holds positions index*BlockSize+1 … (index+1)*BlockSize.
type block struct {
	fates    [BlockSize / 2]byte // 4 bits each, high half first
	done     int
	ended    int        // of done
	offers   []Offer    // in ascending order of position
	sessions []*Session // likewise; each is shared between the copies of a block and never changed
}

// NewView builds the view of a snapshot.
func NewView(s Snapshot) *View {
	v := &View{
		ID: s.ID, Incarnation: s.Incarnation, Generations: s.Generations, CreatedAt: s.CreatedAt,
		Settings: s.Settings, Number: s.Number, Issued: s.Issued, Watermark: s.Watermark, Turn: s.Turn,
		Chain: s.Chain, Version: s.Version,
		admitted: slices.Clone(s.Admitted), Estimate: s.Estimate, since: s.Number,
	}
	e := editor{View: v}
	e.grow(s.Issued)
	for i, b := range v.blocks {
		fates := s.Fates[min(i*len(b.fates), len(s.Fates)):]
		copy(b.fates[:], fates)
		for n := range uint64(BlockSize) {
			fate := b.fate(n)
			if fate.Done() {
				b.done++
			}
			if fate == Ended {
				b.ended++
			}
		}
	}
	for _, o := range s.Offers {
		e.offer(o.Position, o.ClaimBy)
	}
	for _, session := range s.Sessions {
		e.start(session)
	}
	v.count()
	return v
}

// Snapshot is the inverse of NewView.
func (v *View) Snapshot() Snapshot {
	s := Snapshot{
		ID: v.ID, Incarnation: v.Incarnation, Generations: v.Generations, CreatedAt: v.CreatedAt,
		Settings: v.Settings, Number: v.Number, Issued: v.Issued, Watermark: v.Watermark, Turn: v.Turn,
		Chain: v.Chain, Version: v.Version,
		Fates:    make([]byte, 0, len(v.blocks)*BlockSize/2),
		Admitted: v.admitted, Estimate: v.Estimate,
	}
	for _, b := range v.blocks {
		s.Fates = append(s.Fates, b.fates[:]...)
		s.Offers = append(s.Offers, b.offers...)
		for _, session := range b.sessions {
			s.Sessions = append(s.Sessions, *session)
		}
	}
	return s
}

// Generation is the name of the running memory of the queue.
func (v *View) Generation() string { return v.Generations[len(v.Generations)-1] }

// Knows reports whether tickets of this generation are valid.
func (v *View) Knows(generation string) bool { return slices.Contains(v.Generations, generation) }

// Apply returns the view after the entries, which follow on v.Number without a gap; ok is false
// when they do not, and a snapshot is needed. Entries that v already has are passed over.
func (v *View) Apply(entries []Entry) (next *View, ok bool) {
	next = &View{}
	*next = *v
	e := editor{View: next, old: v.blocks}
	next.blocks = slices.Clone(v.blocks)
	next.admitted = slices.Clone(v.admitted)
	for _, entry := range entries {
		if entry.Number <= next.Number {
			continue
		}
		if entry.Number != next.Number+1 || entry.Kind == EntryGeneration {
			return nil, false
		}
		e.apply(entry)
		next.Number, next.Chain = entry.Number, entry.Chain
	}
	next.count()
	return next, true
}

// count brings the totals, the prefix sums and the name of the last entry up to date.
func (v *View) count() {
	v.seq = Seq(v.Generation(), v.Number)
	v.ahead = make([]uint64, len(v.blocks)+1)
	first := int(v.Watermark / BlockSize)
	done, owedDone := 0, 0
	v.Ended = 0
	owedOffers := 0
	for i, b := range v.blocks {
		done += b.done
		v.Ended += b.ended
		if i < first {
			owedDone += b.done
			owedOffers += len(b.offers)
			continue
		}
		if i == first {
			within := b.doneBefore(v.Watermark % BlockSize)
			owedDone += within
			owedOffers += len(b.offers) // offers are never beyond the watermark
			v.ahead[i+1] = BlockSize - v.Watermark%BlockSize - uint64(b.done-within)
			continue
		}
		v.ahead[i+1] = v.ahead[i] + uint64(BlockSize-b.done)
	}
	v.Waiting = int(v.Issued) - done - v.Offers
	v.Owed = int(v.Watermark) - owedDone - owedOffers
}

// Fate is what became of a position; a position that the view does not know yet waits.
func (v *View) Fate(position uint64) Fate {
	if b := v.block(position); b != nil {
		return b.fate((position - 1) % BlockSize)
	}
	return Waiting
}

// Offer returns until when the position's running offer can be claimed.
func (v *View) Offer(position uint64) (claimBy time.Time, running bool) {
	if b := v.block(position); b != nil {
		if at, running := b.offerAt(position); running {
			return b.offers[at].ClaimBy, true
		}
	}
	return time.Time{}, false
}

// Session returns the position's running session.
func (v *View) Session(position uint64) (s Session, running bool) {
	if b := v.block(position); b != nil {
		if at, running := b.sessionAt(position); running {
			return *b.sessions[at], true
		}
	}
	return Session{}, false
}

// Ahead is an upper bound of how many positions strictly between the watermark and this one are
// not done: exact in the watermark's block, elsewhere the count of the earlier blocks plus the
// smaller of the offset in the own block and that block's count less one. Positions that were
// not issued count as not done, so it never rises.
func (v *View) Ahead(position uint64) uint64 {
	if position <= v.Watermark+1 {
		return 0
	}
	index, offset := (position-1)/BlockSize, (position-1)%BlockSize
	first := v.Watermark / BlockSize
	if index == first {
		between := position - 1 - v.Watermark
		if b := v.block(position); b != nil {
			between -= uint64(b.doneBefore(offset) - b.doneBefore(v.Watermark%BlockSize))
		}
		return between
	}
	if index >= uint64(len(v.blocks)) {
		// The join is newer than this view: nobody beyond its blocks is known to be done.
		known := uint64(len(v.blocks))
		if known <= first {
			return position - 1 - v.Watermark
		}
		return v.ahead[known] + position - 1 - known*BlockSize
	}
	open := uint64(BlockSize - v.blocks[index].done)
	return v.ahead[index] + min(offset, max(open, 1)-1)
}

// OpenThrough is how many positions beyond the watermark are not done, up to the end of the block
// with this index, from 0. Ahead nowhere in the block can fall by more than this does, except where
// it becomes exact.
func (v *View) OpenThrough(index uint64) uint64 {
	if known := uint64(len(v.blocks)); index >= known {
		through := (index + 1) * BlockSize
		return v.ahead[known] + through - max(known*BlockSize, min(v.Watermark, through))
	}
	return v.ahead[index+1]
}

// Blocks returns the counts that let anybody compute Ahead: firstBlock is the first position of
// the block of the watermark, counts[i] the positions not done in block i from there, those at
// or below the watermark not counted, and bitmap the first block, low bit first, 1 = not done.
func (v *View) Blocks() (firstBlock uint64, counts []int, bitmap []byte) {
	first := v.Watermark / BlockSize
	firstBlock = first*BlockSize + 1
	counts = []int{}
	for i := first; i < uint64(len(v.blocks)); i++ {
		counts = append(counts, int(v.ahead[i+1]-v.ahead[i]))
	}
	bitmap = make([]byte, BlockSize/8)
	for n := v.Watermark % BlockSize; n < BlockSize; n++ {
		if first >= uint64(len(v.blocks)) || !v.blocks[first].fate(n).Done() {
			bitmap[n/8] |= 1 << (n % 8)
		}
	}
	return firstBlock, counts, bitmap
}

// RatePerMinute is the number of offers made in the last minute.
func (v *View) RatePerMinute(now time.Time) int {
	n, minuteAgo := 0, now.Add(-rateSlices*rateSlice)
	for _, a := range v.admitted {
		if a.At.After(minuteAgo) {
			n += a.Count
		}
	}
	return n
}

func (v *View) block(position uint64) *block {
	if index := (position - 1) / BlockSize; position > 0 && index < uint64(len(v.blocks)) {
		return v.blocks[index]
	}
	return nil
}

// fate returns the fate of the n-th position of the block, from 0.
func (b *block) fate(n uint64) Fate {
	pair := b.fates[n/2]
	if n%2 == 0 {
		return Fate(pair >> 4)
	}
	return Fate(pair & 0x0f)
}

// offerAt finds where the position's offer stands, or would stand.
func (b *block) offerAt(position uint64) (index int, running bool) {
	return slices.BinarySearchFunc(b.offers, position, func(o Offer, p uint64) int { return cmp.Compare(o.Position, p) })
}

// sessionAt finds where the position's session stands, or would stand.
func (b *block) sessionAt(position uint64) (index int, running bool) {
	return slices.BinarySearchFunc(b.sessions, position, func(s *Session, p uint64) int { return cmp.Compare(s.Position, p) })
}

// doneBefore counts the done among the first n positions of the block, sixteen at a time.
func (b *block) doneBefore(n uint64) int {
	n = min(n, BlockSize)
	done := 0
	whole := n / 16
	for i := range whole {
		done += notWaiting(binary.BigEndian.Uint64(b.fates[8*i:]))
	}
	if rest := n % 16; rest > 0 {
		done += notWaiting(binary.BigEndian.Uint64(b.fates[8*whole:]) >> (64 - 4*rest))
	}
	return done
}

// notWaiting counts the fates in a word, 4 bits each, that are not Waiting, which is 0.
func notWaiting(fates uint64) int {
	fates |= fates >> 2
	fates |= fates >> 1
	return bits.OnesCount64(fates & 0x1111_1111_1111_1111)
}
