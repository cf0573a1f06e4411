package memory

import (
	"context"
	"reflect"
	"slices"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

// Renew implements store.Queues. This store loses nothing while its process lives, but it keeps the
// contract for whoever remembers another history.
func (s *Store) Renew(ctx context.Context, remembered *queue.View, generation string, now time.Time) (store.Meta, store.Ack, error) {
	if err := store.CheckNames(remembered.Incarnation, generation); err != nil {
		return store.Meta{}, store.Ack{}, err
	}
	snapshot, err := s.Snapshot(ctx, remembered.ID)
	if err != nil {
		return store.Meta{}, store.Ack{}, err
	}
	lost := store.FindLost(remembered, queue.NewView(snapshot), now)
	var meta store.Meta
	ack, err := s.changeOf(ctx, remembered.ID, remembered.Incarnation, now, func(q *state) error {
		q.renew(remembered, lost, generation)
		meta = q.meta
		return nil
	})
	return meta, ack, err
}

func (q *state) renew(remembered *queue.View, lost store.Lost, generation string) {
	generations := slices.Clone(q.meta.Generations)
	running := generations[len(generations)-1]
	if remembered.Generation() == running && !q.log.lost(remembered.Number, remembered.Chain) {
		return
	}
	first := remembered.Generation() == running || !slices.Contains(generations, remembered.Generation())
	changed := first
	floor := remembered.Issued
	if first {
		for _, name := range remembered.Generations {
			if !slices.Contains(generations, name) {
				generations = append(generations, name)
			}
		}
		q.meta.Generations = append(generations, generation)
		q.log.begin(remembered.Number)
		q.joinSlots, q.afresh = 0, q.turn
		q.lease.giveUp(false)
		floor += store.RenewalMargin
	}
	if floor > q.issued {
		q.passOver(floor)
		changed = true
	}
	if remembered.Watermark > q.watermark {
		q.watermark = remembered.Watermark
		changed = true
	}
	changed = q.putBack(lost, first) || changed
	if remembered.Version > q.meta.Version {
		if !reflect.DeepEqual(remembered.Settings.WithoutRemaining(), q.meta.Settings.WithoutRemaining()) {
			q.estimate = nil
		}
		q.meta.Version, q.meta.Settings = remembered.Version, remembered.Settings
		q.joinSlots, q.afresh, changed = 0, q.turn, true
		if !q.meta.Settings.State.KeepsOffers() {
			for position := range q.offers {
				q.takeOffer(position)
				q.wait(position)
			}
		}
	}
	if changed {
		q.append(queue.Entry{Kind: queue.EntryGeneration})
	}
}

// putBack puts back what was lost, where the position still waits.
func (q *state) putBack(lost store.Lost, offers bool) (changed bool) {
	for fate, positions := range lost.Done {
		for _, position := range positions {
			if q.fate(position) == queue.Waiting {
				q.finish(position, fate)
				changed = true
			}
		}
	}
	for _, running := range lost.Sessions {
		p := running.Position
		if _, known := q.sessionIDs[running.ID]; known || q.fate(p) != queue.Waiting {
			continue
		}
		q.takeOffer(p)
		q.unwait(p)
		delete(q.misses, p)
		q.setFate(p, queue.Claimed)
		q.sessions[p] = &session{Session: running, unclaimed: true}
		q.sessionIDs[running.ID] = p
		q.dueSessions.add(running.ExpiresAt, p)
		q.totals.Claimed++
		changed = true
	}
	for _, o := range lost.Offers {
		if _, runs := q.offers[o.Position]; offers && !runs && q.fate(o.Position) == queue.Waiting {
			q.unwait(o.Position)
			q.offers[o.Position] = o.ClaimBy
			q.dueOffers.add(o.ClaimBy, o.Position)
		}
	}
	return changed
}
