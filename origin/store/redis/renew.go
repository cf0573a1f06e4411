package redis

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

// Renew implements store.Queues. What the caller remembers and the store has lost is found by
// comparing its view with a snapshot; the script looks again at each position.
func (s *Store) Renew(ctx context.Context, remembered *queue.View, generation string, now time.Time) (store.Meta, store.Ack, error) {
	meta, ack, err := s.renew(ctx, remembered, generation, now)
	if err != nil {
		return store.Meta{}, store.Ack{}, fmt.Errorf("renew queue: %w", err)
	}
	return meta, ack, nil
}

func (s *Store) renew(ctx context.Context, remembered *queue.View, generation string, now time.Time) (store.Meta, store.Ack, error) {
	if err := store.CheckNames(remembered.Incarnation, generation); err != nil {
		return store.Meta{}, store.Ack{}, err
	}
	snapshot, err := s.Snapshot(ctx, remembered.ID)
	if err != nil {
		return store.Meta{}, store.Ack{}, err
	}
	lost := store.FindLost(remembered, queue.NewView(snapshot), now)
	settings, err := settingsArgs(remembered.Settings)
	if err != nil {
		return store.Meta{}, store.Ack{}, err
	}
	keepsOffers := 0
	if remembered.Settings.State.KeepsOffers() {
		keepsOffers = 1
	}
	r, err := s.run(ctx, renewScript, remembered.ID, remembered.Incarnation, now, func(c *call) error {
		c.key(c.sessions(), c.sessionIDs())
		c.arg(c.shape.kept, remembered.Generation(), strings.Join(remembered.Generations, ","), generation)
		c.arg(remembered.Number, remembered.Chain)
		c.arg(remembered.Issued, remembered.Watermark, remembered.Version, keepsOffers)
		pages := c.renewalPages(remembered.Issued, lost)
		c.arg(len(pages))
		for _, page := range pages {
			c.arg(page)
			c.key(c.waiting(page), c.fates(page), c.lapsed(page), c.missed(page))
		}
		for _, fate := range []queue.Fate{queue.Ended, queue.Expired, queue.Missed, queue.Left} {
			text, err := lost.Done[fate].MarshalText()
			if err != nil {
				return err
			}
			c.arg(text)
		}
		c.arg(len(lost.Sessions))
		for _, session := range lost.Sessions {
			c.arg(session.Position, session.ID, millis(session.StartsAt), millis(session.ExpiresAt))
		}
		c.arg(len(lost.Offers))
		for _, offer := range lost.Offers {
			c.arg(offer.Position, millis(offer.ClaimBy))
		}
		c.arg(settings...)
		return nil
	})
	if err != nil {
		return store.Meta{}, store.Ack{}, err
	}
	meta, err := readMeta(remembered.ID, r)
	return meta, r.ack, err
}

// renewalPages are the live pages, those in which positions are passed over, and those of what is
// put back.
func (c *call) renewalPages(issued uint64, lost store.Lost) []uint64 {
	pages := slices.Clone(c.shape.live)
	for page := pageOf(c.shape.issued + 1); page <= pageOf(max(issued, c.shape.issued)+store.RenewalMargin); page++ {
		pages = append(pages, page)
	}
	for _, positions := range lost.Done {
		for _, position := range positions {
			if page := pageOf(position); page != pages[len(pages)-1] {
				pages = append(pages, page)
			}
		}
	}
	for _, session := range lost.Sessions {
		pages = append(pages, pageOf(session.Position))
	}
	for _, offer := range lost.Offers {
		pages = append(pages, pageOf(offer.Position))
	}
	slices.Sort(pages)
	return slices.Compact(pages)
}
