package origin

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
	"waitingroom/origin/store/memory"
)

// counting is a store that counts what is read, and whose hints can be lost.
type counting struct {
	store.Store
	entries, names, lists atomic.Int64

	ended chan struct{} // a send breaks the connection on which hints come
}

func (c *counting) Entries(ctx context.Context, id queue.ID, incarnation string, after uint64, chain string, limit int) ([]queue.Entry, error) {
	c.entries.Add(1)
	return c.Store.Entries(ctx, id, incarnation, after, chain, limit)
}

func (c *counting) Names(ctx context.Context, tenant string) ([]queue.ID, error) {
	c.names.Add(1)
	return c.Store.Names(ctx, tenant)
}

func (c *counting) List(ctx context.Context, tenant string) ([]store.Meta, error) {
	c.lists.Add(1)
	return c.Store.List(ctx, tenant)
}

func (c *counting) Hints(ctx context.Context, hint func(queue.ID)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	broken := errors.New("the connection broke")
	var lost atomic.Bool
	go func() {
		select {
		case <-c.ended:
			lost.Store(true)
			cancel()
		case <-ctx.Done():
		}
	}()
	err := c.Store.Hints(ctx, hint)
	if lost.Load() {
		return broken
	}
	return err
}

// What happened unheard is found as soon as hints are heard again, in queues that nobody would look at
// for minutes, and in those that are new.
func TestWhatHappenedUnheardIsReadWhenHintsComeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		creds := newCredentials(t)
		st := &counting{Store: &memory.Store{}, ended: make(chan struct{})}
		r := newRig(t, creds, st)
		idle := r.create("idle", `"capacity":1`)
		time.Sleep(2 * time.Second)
		st.ended <- struct{}{}
		time.Sleep(100 * time.Millisecond) // until it is listened to again, after a pause
		// Another origin retunes it, and makes another queue.
		meta, err := st.Get(t.Context(), idle)
		must(t, err)
		meta.Settings.Capacity = 7
		_, _, err = st.Update(t.Context(), idle, meta.Version, meta.Settings, time.Now())
		must(t, err)
		_, _, err = st.Create(t.Context(), "shop.new", "inc", "g1", meta.Settings, time.Now())
		must(t, err)
		time.Sleep(50 * time.Millisecond)
		if got := r.feed.View(idle).Settings.Capacity; got != 1 {
			t.Fatalf("capacity %d was heard of although nobody listens", got)
		}
		time.Sleep(3 * time.Second)
		if got := r.feed.View(idle).Settings.Capacity; got != 7 {
			t.Errorf("capacity %d after hints came again, want 7", got)
		}
		if r.feed.View("shop.new") == nil {
			t.Error("a queue that was made unheard is not known after hints came again")
		}
		r.stop()
	})
}

// Hundreds of idle queues are read no oftener than one.
func TestIdleQueuesAreReadRarely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		creds := newCredentials(t)
		st := &counting{Store: &memory.Store{}, ended: make(chan struct{})}
		r := newRig(t, creds, st)
		settings := []string{
			`"capacity":1`, `"capacity":1,"opensAt":` + in(1000*time.Hour), `"capacity":0,"state":"paused"`,
			`"capacity":1,"remaining":0`, `"capacity":1,"state":"closed"`,
		}
		const queues = 300
		for i := range queues {
			id := r.create("idle-"+string(rune('a'+i%26))+string(rune('a'+i/26)), settings[i%len(settings)])
			if i%len(settings) == 1 {
				r.joinOne(id)
			}
		}
		time.Sleep(10 * time.Second)
		entries, names := st.entries.Load(), st.names.Load()
		time.Sleep(10 * time.Minute)
		if got, most := st.entries.Load()-entries, int64(3*queues); got > most {
			t.Errorf("%d logs were read in ten minutes with %d idle queues, want at most %d", got, queues, most)
		}
		if got := st.names.Load() - names; got > 2*21 {
			t.Errorf("the names of the queues were read %d times in ten minutes, want twice a minute for each of two tenants", got)
		}
		if got := st.lists.Load(); got != 0 {
			t.Errorf("all descriptions were read %d times, want never", got)
		}
		r.stop()
	})
}
