package queue

import "slices"

// pageEntries bounds how many entries of the log one page takes in, and with them its moves.
const pageEntries = 500

// Fold takes in the entries that follow on j, without a gap, up to and with the one of which v is the
// view. ok is false when they are others, or begin a generation: then only Lose helps.
//
// The view says who was done beyond the watermark, so that the journal needs no memory of positions
// of its own: whoever is done in the view, and came to that before one of these entries, was so
// already when it was made.
func (j Journal) Fold(entries []Entry, v *View) (pages []Page, ok bool) {
	number := j.Entry
	for _, e := range entries {
		if number++; e.Number != number || e.Kind == EntryGeneration {
			return nil, false
		}
	}
	if number != v.Number {
		return nil, false
	}
	f := folder{view: v, doneBy: make(map[uint64]uint64)}
	for _, e := range slices.Backward(entries) {
		if e.Kind != EntryClaimed && e.Kind != EntryDone {
			continue
		}
		for _, position := range e.Positions {
			if position > j.Watermark {
				f.doneBy[position] = e.Number
			}
		}
	}
	for some := range slices.Chunk(entries, pageEntries) {
		f.Page = Page{Journal: j.clone()}
		for _, e := range some {
			f.take(e)
		}
		j = f.Journal
		pages = append(pages, f.Page)
	}
	return pages, true
}

// folder takes entries into a page.
type folder struct {
	Page
	view *View
	// doneBy names, of the positions that come to their fate in the entries, the first that says so.
	doneBy map[uint64]uint64
}

func (f *folder) take(e Entry) {
	j := &f.Journal
	j.Cursor = Cursor{e.Number, e.Chain}
	if e.At.After(j.At) {
		j.At = e.At
	}
	n := len(e.Positions)
	switch e.Kind {
	case EntryJoined:
		f.joined(e.Issued)
	case EntryOffered:
		f.joined(e.Issued)
		f.offered(e)
	case EntryClaimed:
		f.minute(j.At).Claimed += n
		j.Offers -= n
		j.Sessions += n
	case EntryLapsed:
		f.minute(j.At).MissedOffers += n
		f.takenBack(n, SlotMissedOffer)
	case EntryWithdrawn:
		f.minute(j.At)
		f.takenBack(n, SlotReopening) // nothing is offered before that
	case EntryDone:
		f.done(e)
	case EntrySettings:
		if e.Settings != nil {
			f.minute(j.At)
			f.retuned(*e.Settings)
		}
	}
}

func (f *folder) joined(issued uint64) {
	j := &f.Journal
	if issued <= j.Issued {
		return
	}
	n := int(issued - j.Issued)
	f.minute(j.At).Joined += n
	j.Arrivals.join(j.Issued, issued, j.At, j.At)
	j.Issued = issued
	j.Waiting += n
}

func (f *folder) offered(e Entry) {
	j := &f.Journal
	n := len(e.Positions)
	if n == 0 {
		return
	}
	from, to := j.Watermark, max(j.Watermark, e.Watermark, e.Positions[n-1])
	ofOwed, _ := slices.BinarySearch(e.Positions, from+1)
	reached := e.Positions[ofOwed:]
	absent := f.inLine(from, to, e.Number) - len(reached)

	minute := f.minute(j.At)
	minute.Admitted += n
	minute.Absent += absent
	for _, seconds := range j.Arrivals.since(reached, j.At) {
		j.Waits.add(seconds)
	}
	j.Watermark = to
	j.Arrivals.pass(to)
	j.Waiting -= n
	j.Owed += absent - ofOwed
	j.Offers += n

	reasons := j.Slots.take(n)
	known := 0
	for _, count := range reasons {
		known += count
	}
	if known < n {
		reasons[SlotUnknown] += n - known
	}
	j.LastMove++
	f.Moves = append(f.Moves, Move{
		Number: j.LastMove, At: j.At, From: from, To: to, Offered: n, OfOwed: ofOwed, Reasons: reasons,
	})
	f.settle(SlotUnknown)
}

// inLine counts the positions beyond from, up to to, that were not done before an entry.
func (f *folder) inLine(from, to, entry uint64) int {
	n := 0
	for position := from + 1; position <= to; position++ {
		if f.view.Fate(position).Done() {
			if by, later := f.doneBy[position]; !later || by < entry {
				continue
			}
		}
		n++
	}
	return n
}

// takenBack is what becomes of n offers that end without a session and leave their positions owed.
func (f *folder) takenBack(n int, reason SlotReason) {
	j := &f.Journal
	j.Offers -= n
	j.Waiting += n
	j.Owed += n
	f.settle(reason)
}

func (f *folder) done(e Entry) {
	j := &f.Journal
	n := len(e.Positions)
	minute := f.minute(j.At)
	switch e.Fate {
	case Ended:
		minute.Ended += n
		j.Sessions -= n
		switch e.Reason {
		case ReasonWindow:
			f.settle(SlotExpiry)
		case ReasonReleased:
			f.settle(SlotPurchase)
		case ReasonRevoked:
			f.settle(SlotRevoked)
		default:
			f.settle(SlotUnknown)
		}
	case Expired:
		minute.Expired += n
		f.outOfLine(e.Positions)
	case Missed:
		minute.Missed += n
		minute.MissedOffers += n
		j.Offers -= n
		f.settle(SlotMissedOffer)
	case Left:
		minute.Left += n
		switch e.Reason {
		case ReasonLeft:
			j.Sessions -= n
		case ReasonDeclined:
			j.Offers -= n
		default:
			f.outOfLine(e.Positions)
		}
		f.settle(SlotLeft)
	}
}

// outOfLine takes positions that waited without an offer out of the line.
func (f *folder) outOfLine(positions Positions) {
	owed, _ := slices.BinarySearch(positions, f.Journal.Watermark+1)
	f.Journal.Waiting -= len(positions)
	f.Journal.Owed -= owed
}

func (f *folder) retuned(settings Settings) {
	j := &f.Journal
	was := j.State
	j.State, j.Capacity = settings.State, settings.Capacity
	if was == "" {
		f.settle(SlotOpening)
	} else {
		f.settle(SlotRetune)
	}
	if settings.State != Open {
		return
	}
	switch was {
	case Scheduled:
		j.Slots.relabel(SlotOpening)
	case Paused, SoldOut:
		j.Slots.relabel(SlotReopening)
	}
}

// settle brings the empty slots to the number that there is now. More have become empty for the
// reason given; fewer are there because the capacity was lowered.
func (f *folder) settle(reason SlotReason) {
	j := &f.Journal
	more := FreeSlots(j.Capacity, j.Sessions, j.Offers) - j.Slots.count()
	j.Slots.add(reason, more)
	j.Slots.drop(-more)
}
