package origin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
	"waitingroom/origin/wire"
)

const (
	// gatherFor is the least time between two readings of a queue's log: under load the
	// entries of several changes are read and sent at once.
	gatherFor = 10 * time.Millisecond
	// Whoever listens gets every hint, and everything is read again when listening begins anew, or
	// when a queue can be read again that could not. For what is lost all the same, a queue in which
	// something happens is read after livePoll, every other one after about idlePoll, and the names of
	// the queues after registryPoll: idle queues are many.
	livePoll     = time.Second
	idlePoll     = 5 * time.Minute
	registryPoll = 30 * time.Second
	// longestRetry is the longest wait before a store that failed is asked again.
	longestRetry = 5 * time.Second
	// readEntries bounds one reading of a log.
	readEntries = 1000
	// readAtOnce bounds how many queues are read at the same time.
	readAtOnce = 8
	// deadAfter is how long the store may be silent before edges are told that their state ages.
	deadAfter = 3 * time.Second
)

// feed keeps a view of every queue of the configured tenants, and the lists of revocations, and
// passes on every change to the edges that read along. For each queue, frames go out in the order
// of the log and without gaps, because the view and the outboxes change under the same lock.
type feed struct {
	store   store.Store
	clock   *storeClock
	tenants []string
	gone    func(queue.ID) // tells that a queue was deleted
	wake    func(queue.ID) // tells that a queue has no coordinator
	metrics *metrics
	logger  *slog.Logger
	reading chan struct{} // a token for each reader, readAtOnce of them
	sweep   chan struct{} // holds one: queues may have come or gone unheard

	mu       sync.Mutex
	ctx      context.Context // guarded by mu; nil unless Run runs
	group    sync.WaitGroup  // the goroutines that follow
	mirrors  map[queue.ID]*mirror
	revoked  map[string]*revoked
	outboxes map[*outbox]struct{}
	keys     []byte    // the tenants frame
	loaded   bool      // everything has been read once
	alive    time.Time // when the store answered last, by the own clock
	// interruptions counts the times that the store was silent for long, or this process stopped;
	// read are those of them after which everything has been read again.
	interruptions, read uint64
	interrupted         chan struct{} // holds one: interruptions has grown
}

// Run follows the store until ctx ends.
func (f *feed) Run(ctx context.Context) error {
	f.mu.Lock()
	f.ctx = ctx
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.ctx = nil // nobody follows anything new from here on
		f.mu.Unlock()
		f.group.Wait()
	}()
	for pause := livePoll / 4; ; pause = min(2*pause, longestRetry) {
		err := f.load(ctx)
		if err == nil {
			break
		}
		if ctx.Err() == nil {
			f.failed("load", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
	f.group.Go(func() { f.followHints(ctx) })
	f.group.Go(func() { f.catchUp(ctx) })
	heartbeat := time.NewTicker(wire.HeartbeatEvery)
	defer heartbeat.Stop()
	registry := time.NewTicker(registryPoll)
	defer registry.Stop()
	measured := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.sweep:
			f.sweepAgain(ctx)
		case <-registry.C:
			f.sweepAgain(ctx)
		case <-heartbeat.C:
			f.ask(ctx, &measured)
			f.beat()
		}
	}
}

func (f *feed) sweepAgain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, wire.HeartbeatEvery)
	defer cancel()
	if err := f.sweepRegistry(ctx); err != nil && !errors.Is(err, context.Canceled) {
		f.failed("list", err)
	}
}

// load reads everything once and starts to follow it.
func (f *feed) load(ctx context.Context) error {
	if err := f.readAll(ctx); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.loaded, f.alive = true, time.Now()
	f.metrics.storeUp.Set(1)
	for _, m := range f.mirrors {
		f.group.Go(func() { f.follow(ctx, m) })
	}
	for tenant, r := range f.revoked {
		f.group.Go(func() { f.followRevoked(ctx, tenant, r) })
	}
	return nil
}

// readAll reads the registry, every queue and every list of revocations to its end.
func (f *feed) readAll(ctx context.Context) error {
	if err := f.sweepRegistry(ctx); err != nil {
		return err
	}
	f.mu.Lock()
	mirrors := make([]*mirror, 0, len(f.mirrors))
	for _, m := range f.mirrors {
		mirrors = append(mirrors, m)
	}
	f.mu.Unlock()
	group, readCtx := errgroup.WithContext(ctx)
	group.SetLimit(readAtOnce)
	for _, m := range mirrors {
		group.Go(func() error {
			_, err := f.refresh(readCtx, m)
			if errors.Is(err, errLostQueue) {
				return nil // the other queues go on; this one is counted as behind
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, tenant := range f.tenants {
		if err := f.refreshRevoked(ctx, tenant); err != nil {
			return err
		}
	}
	return nil
}

// heardLocked notes that the store has answered. After a long silence much may have happened of
// which no hint came, while edges have heard of it from another origin: none may take this one's
// word before it has caught up.
func (f *feed) heardLocked() {
	if f.loaded && time.Since(f.alive) > deadAfter {
		f.interruptions++
		kick(f.interrupted)
	}
	f.alive = time.Now()
}

// catchUp reads everything again after each interruption.
func (f *feed) catchUp(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.interrupted:
		}
		f.mu.Lock()
		until := f.interruptions
		f.mu.Unlock()
		for err := f.readAll(ctx); err != nil; err = f.readAll(ctx) {
			if ctx.Err() == nil {
				f.failed("catch up", err)
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(livePoll):
			}
		}
		f.mu.Lock()
		f.read = until
		f.mu.Unlock()
	}
}

// Queues are the ids of all queues that the feed knows.
func (f *feed) Queues() []queue.ID {
	f.mu.Lock()
	defer f.mu.Unlock()
	ids := make([]queue.ID, 0, len(f.mirrors))
	for id := range f.mirrors {
		ids = append(ids, id)
	}
	return ids
}

// Ready reports whether everything has been read and the store answers, for the revocations of
// each tenant too: by this word edges go on trusting the lists that they have. A single queue that
// cannot be read does not count against all others.
func (f *feed) Ready() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.readyLocked()
}

func (f *feed) readyLocked() bool {
	if !f.loaded || time.Since(f.alive) > deadAfter || f.read != f.interruptions {
		return false
	}
	for _, r := range f.revoked {
		if time.Since(r.read) > deadAfter {
			return false
		}
	}
	return true
}

// View is what is known of a queue, possibly a moment old; nil when nothing is.
func (f *feed) View(id queue.ID) *queue.View {
	f.mu.Lock()
	defer f.mu.Unlock()
	if m := f.mirrors[id]; m != nil {
		return m.view
	}
	return nil
}

// Current reads a queue's log to its end and returns the view. store.ErrNotFound when there is
// no such queue.
func (f *feed) Current(ctx context.Context, id queue.ID) (*queue.View, error) {
	f.mu.Lock()
	m := f.mirrors[id]
	if m == nil {
		m = f.addLocked(id)
	}
	f.mu.Unlock()
	if m == nil {
		return nil, store.ErrNotFound
	}
	exists, err := f.refresh(ctx, m)
	if err != nil {
		return nil, err
	}
	if !exists {
		return nil, store.ErrNotFound
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if m.view == nil { // deleted in this very moment
		return nil, store.ErrNotFound
	}
	return m.view, nil
}

// Hint says that a queue, or a tenant's list of revocations, has changed, or that anything may have.
func (f *feed) Hint(id queue.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if id == store.Listening {
		f.kickAllLocked()
		return
	}
	if r := f.revoked[string(id)]; r != nil {
		kick(r.kick)
		return
	}
	m := f.mirrors[id]
	if m == nil {
		m = f.addLocked(id)
	}
	if m != nil {
		kick(m.kick)
	}
}

func kick(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // one is waiting already
	}
}

// addLocked begins to follow a queue; nil when it is none of the configured tenants'.
func (f *feed) addLocked(id queue.ID) *mirror {
	if _, err := queue.ParseID(string(id)); err != nil || f.revoked[id.Tenant()] == nil || f.ctx == nil {
		return nil
	}
	m := &mirror{id: id, kick: make(chan struct{}, 1)}
	kick(m.kick)
	f.mirrors[id] = m
	if f.loaded {
		ctx := f.ctx
		f.group.Go(func() { f.follow(ctx, m) })
	}
	return m
}

// kickAllLocked has everything read again, the names of the queues first.
func (f *feed) kickAllLocked() {
	kick(f.sweep)
	for _, m := range f.mirrors {
		kick(m.kick)
	}
	for _, r := range f.revoked {
		kick(r.kick)
	}
}

// sweepRegistry finds the queues of which no hint told: those that other origins created or deleted
// while nobody listened.
func (f *feed) sweepRegistry(ctx context.Context) error {
	listed := make(map[queue.ID]struct{})
	for _, tenant := range f.tenants {
		ids, err := f.store.Names(ctx, tenant)
		if err != nil {
			return fmt.Errorf("list queues: %w", err)
		}
		for _, id := range ids {
			listed[id] = struct{}{}
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for id := range listed {
		if f.mirrors[id] == nil {
			f.addLocked(id)
		}
	}
	for id, m := range f.mirrors {
		if _, there := listed[id]; !there {
			kick(m.kick)
		}
	}
	return nil
}

// followHints passes on what the store says, for as long as it can be heard.
func (f *feed) followHints(ctx context.Context) {
	for pause := livePoll / 4; ; pause = min(2*pause, longestRetry) {
		started := time.Now()
		err := f.store.Hints(ctx, f.Hint)
		if ctx.Err() != nil {
			return
		}
		f.failed("hints", err)
		if time.Since(started) > longestRetry {
			pause = livePoll / 4
		}
		// Until it is heard again, everything is read now and then.
		f.mu.Lock()
		f.kickAllLocked()
		f.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// ask finds out whether the store is there, and from time to time what its clock says.
func (f *feed) ask(ctx context.Context, measured *time.Time) {
	ctx, cancel := context.WithTimeout(ctx, wire.HeartbeatEvery)
	defer cancel()
	var err error
	if time.Since(*measured) >= measureEvery {
		if err = f.clock.Measure(ctx, f.store); err == nil {
			*measured = time.Now()
		}
	} else {
		_, err = f.store.Now(ctx)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		f.heardLocked()
	}
}

// beat tells all edges that they are up to date, or that they are not.
func (f *feed) beat() {
	f.mu.Lock()
	defer f.mu.Unlock()
	ready := f.readyLocked()
	f.metrics.storeUp.Set(0)
	if ready {
		f.metrics.storeUp.Set(1)
	}
	if frame, err := encodeFrame(wire.Frame{Heartbeat: &wire.Heartbeat{Now: f.clock.Now(), Ready: ready}}); err == nil {
		f.sendLocked("heartbeat", item{line: frame})
	}
}

func (f *feed) failed(what string, err error) {
	f.metrics.storeErrors.WithLabelValues(what).Inc()
	f.logger.Warn("feed lacks an answer of the store", "operation", what, "error", err)
}

// encodeFrame makes one line of the feed.
func encodeFrame(frame wire.Frame) ([]byte, error) {
	line, err := json.Marshal(frame)
	if err != nil {
		return nil, fmt.Errorf("encode frame: %w", err)
	}
	return append(line, '\n'), nil
}
