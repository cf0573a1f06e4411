package origin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"sync"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/wire"
)

const (
	// An outbox that holds more than this belongs to an edge that is too slow; it is cut off
	// and reconnects.
	maxOutboxBytes = 32 << 20
	maxOutboxItems = 100_000
	// writeWithin bounds one write to an edge.
	writeWithin = 10 * time.Second
)

// item is one frame for one edge: a line, or a view to be encoded as a snapshot when its turn
// comes, so that subscribing costs nothing under the feed's lock.
type item struct {
	line    []byte
	view    *queue.View
	revoked *wire.Revocations
}

// encode is the item's line.
func (i item) encode() ([]byte, error) {
	switch {
	case i.view != nil:
		return encodeFrame(wire.Frame{Snapshot: &wire.Snapshot{Queue: i.view.Snapshot()}})
	case i.revoked != nil:
		return encodeFrame(wire.Frame{Revocations: i.revoked})
	}
	return i.line, nil
}

// outbox holds what one edge has not been sent yet. Bounded.
type outbox struct {
	filled chan struct{} // holds one: there are items, or the outbox overflowed

	mu         sync.Mutex
	items      []item
	bytes      int
	overflowed bool
}

// put never blocks.
func (o *outbox) put(items ...item) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.overflowed {
		return
	}
	for _, i := range items {
		o.bytes += len(i.line)
	}
	o.items = append(o.items, items...)
	if o.bytes > maxOutboxBytes || len(o.items) > maxOutboxItems {
		o.items, o.overflowed = nil, true
	}
	kick(o.filled)
}

// take empties the outbox.
func (o *outbox) take() (items []item, overflowed bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	items, o.items, o.bytes = o.items, nil, 0
	return items, o.overflowed
}

// sendLocked puts a frame into every outbox.
func (f *feed) sendLocked(kind string, i item) {
	f.metrics.feedFrames.WithLabelValues(kind).Inc()
	for o := range f.outboxes {
		o.put(i)
	}
}

// SetKeys replaces the tenants frame and tells the edges.
func (f *feed) SetKeys(tenants *wire.Tenants) error {
	frame, err := encodeFrame(wire.Frame{Tenants: tenants})
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keys = frame
	f.sendLocked("tenants", item{line: frame})
	return nil
}

// subscribe makes an outbox that holds the whole state, and that every later change goes to. While
// that state may be older than what an edge has from another origin, there is none.
func (f *feed) subscribe() (*outbox, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.keys == nil || !f.readyLocked() {
		return nil, errUnavailable
	}
	o := &outbox{filled: make(chan struct{}, 1)}
	all := []item{{line: f.keys}}
	for _, id := range slices.Sorted(maps.Keys(f.mirrors)) {
		if view := f.mirrors[id].view; view != nil {
			all = append(all, item{view: view})
		}
	}
	for _, tenant := range f.tenants {
		r := f.revoked[tenant]
		all = append(all, item{revoked: &wire.Revocations{Tenant: tenant, List: slices.Clip(r.list), Cursor: r.cursor, Reset: true}})
	}
	beat, err := encodeFrame(wire.Frame{Heartbeat: &wire.Heartbeat{Now: f.clock.Now(), Ready: f.readyLocked()}})
	if err != nil {
		return nil, err
	}
	o.put(append(all, item{line: beat})...)
	f.outboxes[o] = struct{}{}
	f.metrics.feeds.Set(float64(len(f.outboxes)))
	return o, nil
}

func (f *feed) unsubscribe(o *outbox) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.outboxes, o)
	f.metrics.feeds.Set(float64(len(f.outboxes)))
}

// serveFeed streams the feed to one edge until either end has enough.
func (s *Server) serveFeed(w http.ResponseWriter, r *http.Request) error {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil || len(query["edge"]) != 1 || !queue.ValidName(query["edge"][0]) {
		return errBadBody
	}
	o, err := s.feed.subscribe()
	if err != nil {
		return err
	}
	defer s.feed.unsubscribe(o)
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // a proxy must not hold frames back
	reason := dropStopping
	if err := stream(r.Context(), s.stopping, w, o); err != nil {
		reason = dropGone
		if errors.Is(err, errSlow) || errors.Is(err, os.ErrDeadlineExceeded) {
			reason = dropSlow
			s.log.Warn("feed cut off an edge that is too slow")
		}
	}
	s.metrics.feedDrops.WithLabelValues(reason).Inc()
	return nil
}

var errSlow = errors.New("outbox overflowed")

// stream writes what comes into the outbox; nil means that the origin stops.
func stream(ctx context.Context, stopping <-chan struct{}, w http.ResponseWriter, o *outbox) error {
	control := http.NewResponseController(w)
	if err := control.SetReadDeadline(time.Time{}); err != nil { // the one of the request
		return fmt.Errorf("clear read deadline: %w", err)
	}
	lines := bufio.NewWriterSize(w, 64<<10)
	for {
		select {
		case <-stopping:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-o.filled:
		}
		items, overflowed := o.take()
		if overflowed {
			return errSlow
		}
		for _, i := range items {
			line, err := i.encode()
			if err != nil {
				return err
			}
			if err := control.SetWriteDeadline(time.Now().Add(writeWithin)); err != nil {
				return fmt.Errorf("set write deadline: %w", err)
			}
			if _, err := lines.Write(line); err != nil {
				return fmt.Errorf("write feed: %w", err)
			}
		}
		if err := lines.Flush(); err != nil {
			return fmt.Errorf("write feed: %w", err)
		}
		if err := control.Flush(); err != nil {
			return fmt.Errorf("write feed: %w", err)
		}
	}
}
