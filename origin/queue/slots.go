package queue

import "slices"

// SlotReason says since when, and why, a slot stands empty.
type SlotReason string

// The reasons.
const (
	SlotOpening     SlotReason = "opening"      // since the queue was created, or opened
	SlotPurchase    SlotReason = "purchase"     // the shop released the session
	SlotExpiry      SlotReason = "expiry"       // the purchase window ended
	SlotRevoked     SlotReason = "revoked"      // the operator ended the session
	SlotLeft        SlotReason = "left"         // the fan left, with a session or an offer
	SlotMissedOffer SlotReason = "missed_offer" // an offer was not claimed in time
	SlotRetune      SlotReason = "retune"       // the capacity was raised
	SlotReopening   SlotReason = "reopening"    // the queue was paused or sold out, and opened again
	SlotUnknown     SlotReason = "unknown"      // the entry that freed it was lost to the journal
)

// Slots are the empty slots of a queue, those that have been empty for longest first, in runs of
// one reason. There are as many as FreeSlots says.
type Slots []SlotRun

// SlotRun is some slots in a row with one reason.
type SlotRun struct {
	Reason SlotReason `json:"reason"`
	Count  int        `json:"count"`
}

// mostSlotRuns bounds the runs: when there are more, the half that has been empty for longest is
// put in order by reason. No reason is lost by it, only which of those slots goes first.
const mostSlotRuns = 64

func (s Slots) count() int {
	n := 0
	for _, run := range s {
		n += run.Count
	}
	return n
}

// add puts n slots at the end; nothing happens when n is not above 0.
func (s *Slots) add(reason SlotReason, n int) {
	if n <= 0 {
		return
	}
	list := *s
	if last := len(list) - 1; last >= 0 && list[last].Reason == reason {
		list[last].Count += n
		return
	}
	if list = append(list, SlotRun{reason, n}); len(list) > mostSlotRuns {
		list = list.sorted(mostSlotRuns / 2)
	}
	*s = list
}

// sorted merges the first n runs by reason, in the order in which the reasons appear.
func (s Slots) sorted(n int) Slots {
	var merged Slots
	for _, run := range s[:n] {
		at := slices.IndexFunc(merged, func(m SlotRun) bool { return m.Reason == run.Reason })
		if at < 0 {
			merged = append(merged, run)
		} else {
			merged[at].Count += run.Count
		}
	}
	for _, run := range s[n:] {
		merged.add(run.Reason, run.Count)
	}
	return merged
}

// take takes up to n slots from the front and says why they were empty.
func (s *Slots) take(n int) map[SlotReason]int {
	taken := make(map[SlotReason]int)
	for n > 0 && len(*s) > 0 {
		run := &(*s)[0]
		some := min(n, run.Count)
		taken[run.Reason] += some
		run.Count -= some
		n -= some
		if run.Count == 0 {
			*s = (*s)[1:]
		}
	}
	return taken
}

// drop removes up to n slots from the end: those that a lower capacity takes away.
func (s *Slots) drop(n int) {
	for n > 0 && len(*s) > 0 {
		last := len(*s) - 1
		run := &(*s)[last]
		some := min(n, run.Count)
		run.Count -= some
		n -= some
		if run.Count == 0 {
			*s = (*s)[:last]
		}
	}
}

// relabel gives all of them one reason.
func (s *Slots) relabel(reason SlotReason) {
	if n := s.count(); n > 0 {
		*s = Slots{{reason, n}}
	}
}
