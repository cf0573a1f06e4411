package main

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

// patience is how long the operator waits for the worst moment to change the settings.
const patience = second

// patch changes the settings by a merge patch, as the operator's API does; it reports whether the
// store took it.
func (w *world) patch(body string) bool {
	o, now := w.origins[0], timeAt(w.now)
	if w.away {
		return false
	}
	for {
		meta, err := o.link.Get(w.ctx, w.queue)
		if err != nil {
			w.failed = fmt.Errorf("patch settings: %w", err)
			return false
		}
		settings, err := meta.Settings.Patch([]byte(body), now)
		if err != nil {
			w.failed = fmt.Errorf("patch settings: %s: %w", body, err)
			return false
		}
		settings = settings.Measured(meta.Settings, w.feed.view)
		if reflect.DeepEqual(settings, meta.Settings) {
			return true
		}
		if at := settings.NextDue(now); !at.IsZero() {
			_ = o.link.Remind(w.ctx, w.queue, at)
		}
		_, ack, err := o.link.Update(w.ctx, w.queue, meta.Version, settings, now)
		switch {
		case errors.Is(err, store.ErrConflict):
			continue
		case err != nil:
			w.failed = fmt.Errorf("patch settings: %w", err)
			return false
		}
		o.acted(ack)
		for _, o := range w.origins {
			o.kick()
		}
		return true
	}
}

// retune takes the operator's next step if that has been due for a time.
func (w *world) retune(since int32) {
	for len(w.patches) > 0 && w.patches[0].at+since <= w.now && w.patch(w.patches[0].patch) {
		w.patches = w.patches[1:]
	}
}

const (
	// remainsEvery is how often the shop reports what remains; at once when that is nothing.
	remainsEvery = 10 * second
	// sellsOutAfter is about how long after the opening the shop has sold everything, ticketsEach
	// how many tickets a fan buys in the mean.
	sellsOutAfter = 45 * time.Minute
	ticketsEach   = 2.5
)

// shop is the tenant's shop as far as it sells out: each fan buys one to four tickets, and what
// remains is reported now and then. Some time after nothing remained, a few tickets come back for
// a moment, and later enough for everybody.
type shop struct {
	left, told int
	soldOut    int32 // when nothing was left first, 0 before
	back       int32 // when a few come back
	bought     int32 // when those are bought at the latest
	restock    int32 // when enough for everybody comes
}

// stock is what the shop has at the beginning.
func (w *world) stock() int {
	served := float64(w.about.slots) * sellsOutAfter.Minutes() / w.purchase.Minutes()
	return max(int(served*ticketsEach*0.95), 1)
}

// sell sells tickets to a fan.
func (w *world) sell() {
	s := &w.shop
	s.left = max(s.left-1-int(w.upTo(4)), 0)
	if s.left == 0 && s.soldOut == 0 {
		s.soldOut = w.now
		s.back = w.now + minute + w.upTo(minute)
		s.restock = w.now + 4*minute + w.upTo(4*minute)
	}
}

// report tells the queue what remains.
func (w *world) reportRemaining() {
	s := &w.shop
	if s.soldOut > 0 {
		switch {
		case s.back > 0 && w.now >= s.back:
			s.left, s.back, s.bought = 3, 0, w.now+5*second
		case s.bought > 0 && w.now >= s.bought:
			s.left, s.bought = 0, 0
		case s.restock > 0 && w.now >= s.restock:
			s.left, s.restock = w.about.fans*10, 0
		}
	}
	urgent := s.left == 0 || s.told == 0
	if s.left != s.told && (urgent || w.now%remainsEvery == 0) && w.patch(fmt.Sprintf(`{"remaining": %d}`, s.left)) {
		s.told = s.left
	}
}

// settings of the queue at the beginning, as its creator writes them.
func (w *world) settings() (queue.Settings, error) {
	members := []string{fmt.Sprintf(`"capacity": %d`, w.about.slots)}
	if w.has(early) {
		members = append(members, fmt.Sprintf(`"opensAt": %q`, timeAt(opening-minute).Format(time.RFC3339)))
	}
	if w.has(soldout) {
		w.shop.left = w.stock()
		w.shop.told = w.shop.left
		members = append(members, fmt.Sprintf(`"remaining": %d`, w.shop.left))
	}
	return queue.DecodeSettings([]byte("{"+strings.Join(members, ", ")+"}"), began)
}
