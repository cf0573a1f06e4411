package storetest

import (
	"fmt"

	"waitingroom/origin/queue"
)

// CheckHistory checks a queue's log from its first entry on, whoever wrote it: its numbers have no
// gap, every position goes through lawful changes only (offered again only after the offer
// before was missed or withdrawn, claimed once, each session once), no offer is made at
// capacity, and the watermark never falls.
func CheckHistory(entries []queue.Entry) error {
	teller := newTeller(queue.Snapshot{})
	var capacity int
	var watermark uint64
	for i, e := range entries {
		if e.Number != uint64(i)+1 {
			return fmt.Errorf("entry %d stands in the place of %d", e.Number, i+1)
		}
		if err := teller.tell(e); err != nil {
			return fmt.Errorf("entry %d (%s): %w", e.Number, e.Kind, err)
		}
		switch e.Kind {
		case queue.EntrySettings:
			capacity = e.Settings.Capacity
		case queue.EntryOffered:
			if taken := len(teller.offered) + len(teller.active); taken > capacity {
				return fmt.Errorf("entry %d offers at capacity: %d sessions and offers, capacity %d", e.Number, taken, capacity)
			}
			if e.Watermark < watermark {
				return fmt.Errorf("entry %d: the watermark falls from %d to %d", e.Number, watermark, e.Watermark)
			}
			watermark = e.Watermark
		}
	}
	return nil
}
