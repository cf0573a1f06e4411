package redis_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

// pair is one queue in both stores, and what a caller would remember of it.
type pair struct {
	t      *rapid.T
	ctx    context.Context
	redis  store.Store
	memory store.Store
	keys   *goredis.Client // looks at the keys of the store on Redis
	// lose makes the next reply of Redis get lost, if it is not nil.
	lose  func()
	calls map[string]int // how often each was answered and refused

	id  queue.ID
	now time.Time
	inc string // of the queue, or of the one that was deleted
	// named counts the names that were given, so that none comes twice.
	named    int
	issued   uint64
	entry    uint64               // of the log, the last that was told
	lapse    uint64               // the same, as of the last lapse
	owners   map[uint64]store.Key // whose a position is, where users joined
	met      []uint64             // positions that had an offer or a session lately
	sessions []string             // their ids, also of sessions that ended
	batches  []store.JoinBatch
	seqs     map[string]uint64

	version   uint64
	settings  []queue.Settings // all that were in force
	leases    []each[uint64]   // the epochs; stores choose them by themselves
	pace      queue.Pace
	tick      queue.Tick // the last one that was committed, under tickLease
	tickLease each[uint64]
	cursors   []each[string]   // into the revocations
	pages     []each[followed] // of the journal, those that were to be written
	next      each[[]followed] // those that follow on what is written
	log       reading
	// views are earlier ones, and some that tell of changes which the stores never had.
	views []reading
}

// each is what the two stores chose by themselves: the one on Redis, the one in memory.
type each[V any] [2]V

func (p *pair) index(s store.Store) int {
	if s == p.memory {
		return 1
	}
	return 0
}

// reading is how far both logs were read, and what they told from an entry on.
type reading struct {
	view    *queue.View
	chain   each[string] // of the view's last entry
	first   uint64
	entries []queue.Entry
}

// both does the same to both stores and compares the answers; refusals by their sentinel.
func both[A any](p *pair, call string, do func(store.Store) (A, error)) (A, error) {
	answer, err := change(p, call, func(s store.Store) (A, store.Ack, error) {
		a, err := do(s)
		return a, store.Ack{}, err
	})
	return answer, err
}

// change is both for a call that is answered with an Ack.
func change[A any](p *pair, call string, do func(store.Store) (A, store.Ack, error)) (A, error) {
	p.t.Helper()
	if p.lose != nil && p.rarely("lose the reply", 3) {
		p.lose()
	}
	got, ack, err := do(p.redis)
	want, wantAck, wantErr := do(p.memory)
	outcome := "answer"
	if wantErr != nil {
		outcome = sentinelOf(wantErr)
	}
	p.calls[call+" "+outcome]++
	p.t.Logf("%s at %v: %s", call, p.now.Sub(beginning), outcome)
	if (err == nil) != (wantErr == nil) || err != nil && sentinelOf(err) != sentinelOf(wantErr) {
		p.t.Fatalf("%s: on Redis %s, in memory %s", call, p.plain(fmt.Sprint(err)), p.plain(fmt.Sprint(wantErr)))
	}
	if err == nil {
		if path, gotThere, wantThere := difference(call, reflect.ValueOf(got), reflect.ValueOf(want)); path != "" {
			p.t.Fatalf("%s: on Redis %s, in memory %s", path, p.plain(gotThere), p.plain(wantThere))
		}
		if ack != wantAck {
			p.t.Fatalf("%s: %+v on Redis, %+v in memory", call, ack, wantAck)
		}
		p.entry = max(p.entry, ack.Entry)
	}
	return want, wantErr
}

// acked is change for a call that answers nothing else.
func (p *pair) acked(call string, do func(store.Store) (store.Ack, error)) {
	p.t.Helper()
	_, _ = change(p, call, func(s store.Store) (struct{}, store.Ack, error) {
		ack, err := do(s)
		return struct{}{}, ack, err
	})
}

// plain is a text without what is another each time that a sequence is repeated.
func (p *pair) plain(text string) string { return strings.ReplaceAll(text, string(p.id), "QUEUE") }

var sentinels = []error{
	store.ErrInvalid, store.ErrNotFound, store.ErrExists, store.ErrConflict, store.ErrClosed, store.ErrNotClosed, store.ErrRunning,
	store.ErrNotOffered, store.ErrTaken, store.ErrOut, store.ErrNotIssued, store.ErrLeaseLost, store.ErrLeaseHeld,
	store.ErrNoSession, store.ErrTrimmed, store.ErrRewritten, store.ErrBatchExpired, store.ErrAnonymous,
}

func sentinelOf(err error) string {
	for _, sentinel := range sentinels {
		if errors.Is(err, sentinel) {
			return sentinel.Error()
		}
	}
	return "another error"
}

// difference finds the first place in which two answers differ, "" if there is none, and what stands
// there; an empty list is like none.
func difference(path string, a, b reflect.Value) (where, ofA, ofB string) {
	if reflect.DeepEqual(a.Interface(), b.Interface()) {
		return "", "", ""
	}
	switch {
	case a.Kind() == reflect.Struct && a.Type() != reflect.TypeFor[time.Time]():
		for i := range a.NumField() {
			if where, ofA, ofB = difference(path+"."+a.Type().Field(i).Name, a.Field(i), b.Field(i)); where != "" {
				break
			}
		}
		return where, ofA, ofB
	case a.Kind() == reflect.Slice && a.Len() == b.Len():
		for i := range a.Len() {
			if where, ofA, ofB = difference(fmt.Sprintf("%s[%d]", path, i), a.Index(i), b.Index(i)); where != "" {
				break
			}
		}
		return where, ofA, ofB
	case a.Kind() == reflect.Pointer && !a.IsNil() && !b.IsNil():
		return difference(path, a.Elem(), b.Elem())
	}
	return path, shortened(a), shortened(b)
}

func shortened(v reflect.Value) string {
	text := fmt.Sprintf("%+v", v.Interface())
	if len(text) > 400 {
		return text[:400] + " …"
	}
	return text
}

var beginning = time.UnixMilli(1_800_000_000_000).UTC()
