package redis_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
	"waitingroom/origin/store/storetest"
)

// read compares all that can be read.
func (p *pair) read() {
	_, err := both(p, "Get", func(s store.Store) (store.Meta, error) { return s.Get(p.ctx, p.id) })
	_, _ = both(p, "List", func(s store.Store) ([]store.Meta, error) { return s.List(p.ctx, p.id.Tenant()) })
	_, _ = both(p, "Counts", func(s store.Store) (store.Counts, error) { return s.Counts(p.ctx, p.id) })
	_, _ = p.look(p.moment())
	position, inc, name := p.position("whose session"), p.incarnation(), p.session()
	_, _ = both(p, "SessionAt", func(s store.Store) (queue.Session, error) { return s.SessionAt(p.ctx, p.id, inc, position) })
	_, _ = both(p, "Session", func(s store.Store) (queue.Session, error) { return s.Session(p.ctx, p.id, name) })
	if err != nil {
		return // there is no queue
	}
	p.readLog()
	after := p.log.first - 1 + uint64(p.upTo("entries after", int(p.log.view.Number-p.log.first)+3))
	var chain each[string]
	if p.rarely("with a chain of another history", 2) {
		chain = each[string]{"another history", "another history"}
	}
	_, _, _ = p.entries(p.incarnation(), after, chain, pick(p, "limit", 5, 1, 0))
}

// readLog reads both logs to their end; the view that they tell must be that of the snapshots.
func (p *pair) readLog() {
	for {
		entries, chain, err := p.entries(p.inc, p.log.view.Number, p.log.chain, pick(p, "limit", 1000, 7, 1))
		if err != nil {
			p.t.Fatalf("read log after %d: %v", p.log.view.Number, err)
		}
		if len(entries) == 0 {
			break
		}
		if slices.ContainsFunc(entries, func(e queue.Entry) bool { return e.Kind == queue.EntryGeneration }) {
			p.startLog()
			return
		}
		for _, e := range entries {
			p.calls[strings.TrimSpace(fmt.Sprintf("entry %s %s", e.Kind, e.Reason))]++
		}
		next, follows := p.log.view.Apply(entries)
		if !follows {
			p.t.Fatalf("entry %d does not follow on %d", entries[0].Number, p.log.view.Number)
		}
		p.log = reading{next, chain, p.log.first, append(p.log.entries, entries...)}
	}
	snapshot, _ := p.snapshot()
	got, want := p.log.view.Snapshot(), queue.NewView(snapshot).Snapshot()
	got.Admitted, want.Admitted = nil, nil
	if path, logged, stored := difference("Snapshot", reflect.ValueOf(got), reflect.ValueOf(want)); path != "" {
		p.t.Fatalf("%s: by the log %s, by the store %s", path, p.plain(logged), p.plain(stored))
	}
	if p.log.first == 1 {
		if err := storetest.CheckHistory(p.log.entries); err != nil {
			p.t.Fatalf("the log is unlawful: %s", p.plain(err.Error()))
		}
	}
	p.views = append(p.views, p.log)
}

// startLog begins to read the log with a snapshot. At the creation, the log tells all of it.
func (p *pair) startLog() {
	snapshot, chain := p.snapshot()
	p.log = reading{view: queue.NewView(snapshot), chain: chain, first: snapshot.Number + 1}
	if snapshot.Number == 1 {
		p.log.entries, _, _ = p.entries(p.inc, 0, each[string]{}, 1)
		p.log.first = 1
	}
	p.views = append(p.views, p.log)
}

// snapshot compares the snapshots, but for the chains, which each store has for itself.
func (p *pair) snapshot() (queue.Snapshot, each[string]) {
	var chain each[string]
	snapshot, err := both(p, "Snapshot", func(s store.Store) (queue.Snapshot, error) {
		snapshot, err := s.Snapshot(p.ctx, p.id)
		chain[p.index(s)], snapshot.Chain = snapshot.Chain, ""
		return snapshot, err
	})
	if err != nil {
		p.t.Fatalf("take snapshot: %v", err)
	}
	p.issued = snapshot.Issued
	return snapshot, chain
}

// entries compares the entries after a number, and tells the chain of the last one.
func (p *pair) entries(inc string, after uint64, chain each[string], limit int) ([]queue.Entry, each[string], error) {
	last := chain
	entries, err := both(p, "Entries", func(s store.Store) ([]queue.Entry, error) {
		entries, err := s.Entries(p.ctx, p.id, inc, after, chain[p.index(s)], limit)
		for i := range entries {
			last[p.index(s)], entries[i].Chain = entries[i].Chain, ""
		}
		return entries, err
	})
	return entries, last, err
}
