package storetest

import (
	"reflect"
	"testing"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

var registryCases = []testCase{
	{"create and read", createAndRead},
	{"create twice", createTwice},
	{"list by tenant", listByTenant},
	{"update", update},
	{"update conflict", updateConflict},
	{"unknown queue", unknownQueue},
	{"invalid arguments", invalidArguments},
	{"delete", deleteQueue},
	{"old incarnation is refused", oldIncarnation},
}

func createAndRead(t *testing.T, s store.Store) {
	sc := newScene(t, s, func(s *queue.Settings) {
		s.ReturnOrigins = []string{"https://shop.example"}
		s.Branding.Name = "Shop"
		s.MaxPerMinute = 7
	})
	meta := sc.meta()
	if meta.ID != sc.id || meta.Incarnation != sc.inc || meta.Version != 1 || !meta.CreatedAt.Equal(sc.now) {
		t.Errorf("Get: %+v, want id %s, incarnation %s, version 1, created at %v", meta, sc.id, sc.inc, sc.now)
	}
	if want := []string{"g1"}; !reflect.DeepEqual(meta.Generations, want) {
		t.Errorf("generations are %v, want %v", meta.Generations, want)
	}
	want := queue.DefaultSettings()
	want.Capacity, want.HoldSeconds, want.ClaimSeconds, want.PurchaseWindowSeconds = 2, 60, 20, 100
	want.ReturnOrigins, want.Branding.Name, want.MaxPerMinute = []string{"https://shop.example"}, "Shop", 7
	if !reflect.DeepEqual(meta.Settings, want) {
		t.Errorf("settings are %+v, want %+v", meta.Settings, want)
	}
	first := sc.first
	if first.Number != 1 || first.Issued != 0 || first.Watermark != 0 || first.Turn != 1 ||
		first.ID != sc.id || first.Incarnation != sc.inc || !first.CreatedAt.Equal(sc.now) ||
		!reflect.DeepEqual(first.Settings, want) || !reflect.DeepEqual(first.Generations, []string{"g1"}) {
		t.Errorf("first snapshot is %+v", first)
	}
	entries, err := s.Entries(t.Context(), sc.id, sc.inc, 0, "", 10)
	if err != nil || len(entries) != 1 {
		t.Fatalf("Entries: %+v, error %v, want the settings entry alone", entries, err)
	}
	if e := entries[0]; e.Kind != queue.EntrySettings || e.Number != 1 || !e.At.Equal(sc.now) || !reflect.DeepEqual(*e.Settings, want) {
		t.Errorf("first entry is %+v", e)
	}
}

func createTwice(t *testing.T, s store.Store) {
	sc := newScene(t, s, nil)
	sc.joinAnonymous(1)
	version := sc.update(func(s *queue.Settings) { s.Capacity = 9 }).Version
	other := queue.DefaultSettings()
	other.Capacity = 1
	sc.unchanged("Create again", func() {
		meta, ack, err := s.Create(t.Context(), sc.id, sc.inc, "g1", other, sc.now.Add(time.Second))
		if err != nil {
			t.Fatalf("Create by the same incarnation: %v", err)
		}
		if meta.Version != version || meta.Settings.Capacity != 9 || !meta.CreatedAt.Equal(sc.now) {
			t.Errorf("Create by the same incarnation returned %+v, want the description as it stands", meta)
		}
		if want := sc.snapshot().Number; ack.Entry != want {
			t.Errorf("Create again acknowledged entry %d, want %d", ack.Entry, want)
		}
		_, _, err = s.Create(t.Context(), sc.id, "another", "g1", other, sc.now)
		sc.wantErr("Create by another incarnation", err, store.ErrExists)
	})
}

func listByTenant(t *testing.T, s store.Store) {
	tenant := randomName()
	settings := queue.DefaultSettings()
	settings.Capacity = 1
	now, err := s.Now(t.Context())
	if err != nil {
		t.Fatalf("Now: %v", err)
	}
	for _, id := range []queue.ID{
		queue.MakeID(tenant, "b"), queue.MakeID(tenant, "a"), queue.MakeID(tenant, "c"),
		queue.MakeID(tenant+"x", "a"), // a tenant whose name begins alike
	} {
		if _, _, err := s.Create(t.Context(), id, randomName(), "g1", settings, now); err != nil {
			t.Fatalf("Create %s: %v", id, err)
		}
	}
	list, err := s.List(t.Context(), tenant)
	if err != nil {
		t.Fatalf("List: %v", err)
	}
	var got []string
	for _, meta := range list {
		got = append(got, meta.ID.Slug())
		if meta.ID.Tenant() != tenant || meta.Settings.Capacity != 1 {
			t.Errorf("List returned %+v", meta)
		}
	}
	if want := []string{"a", "b", "c"}; !reflect.DeepEqual(got, want) {
		t.Errorf("List: %v, want %v", got, want)
	}
	list, err = s.List(t.Context(), randomName())
	if err != nil || len(list) != 0 {
		t.Errorf("List of a tenant without queues: %v, error %v", list, err)
	}
}

func update(t *testing.T, s store.Store) {
	sc := newScene(t, s, nil)
	sc.advance(time.Second)
	meta := sc.meta()
	next := meta.Settings
	next.Capacity = 50
	next.ReturnOrigins = []string{"https://a.example", "https://b.example"}
	got, ack, err := s.Update(t.Context(), sc.id, meta.Version, next, sc.now)
	if err != nil {
		t.Fatalf("Update: %v", err)
	}
	if got.Version != meta.Version+1 || !reflect.DeepEqual(got.Settings, next) {
		t.Errorf("Update returned %+v, want version %d and %+v", got, meta.Version+1, next)
	}
	if ack.Entry != 2 {
		t.Errorf("Update acknowledged entry %d, want 2", ack.Entry)
	}
	if again := sc.meta(); !reflect.DeepEqual(again, got) {
		t.Errorf("Get after Update: %+v, want %+v", again, got)
	}
	sc.unchanged("the same Update again", func() {
		repeated, _, err := s.Update(t.Context(), sc.id, meta.Version, next, sc.now)
		if err != nil || repeated.Version != got.Version {
			t.Errorf("the same Update again: version %d, error %v, want %d and none", repeated.Version, err, got.Version)
		}
	})
}

func updateConflict(t *testing.T, s store.Store) {
	sc := newScene(t, s, nil)
	meta := sc.meta()
	one, other := meta.Settings, meta.Settings
	one.Capacity, other.Capacity = 10, 20
	if _, _, err := s.Update(t.Context(), sc.id, meta.Version, one, sc.now); err != nil {
		t.Fatalf("Update: %v", err)
	}
	sc.unchanged("an Update of an old version", func() {
		_, _, err := s.Update(t.Context(), sc.id, meta.Version, other, sc.now)
		sc.wantErr("Update of an old version", err, store.ErrConflict)
		_, _, err = s.Update(t.Context(), sc.id, meta.Version+5, other, sc.now)
		sc.wantErr("Update of a future version", err, store.ErrConflict)
	})
	if got := sc.meta().Settings.Capacity; got != 10 {
		t.Errorf("capacity is %d, want 10", got)
	}
}

func unknownQueue(t *testing.T, s store.Store) {
	sc := newScene(t, s, nil)
	missing := *sc
	missing.id = queue.MakeID(randomName(), "match")
	missing.wantRefused(store.ErrNotFound)
	_, err := s.Get(t.Context(), missing.id)
	sc.wantErr("Get", err, store.ErrNotFound)
	_, err = s.Counts(t.Context(), missing.id)
	sc.wantErr("Counts", err, store.ErrNotFound)
	_, err = s.Snapshot(t.Context(), missing.id)
	sc.wantErr("Snapshot", err, store.ErrNotFound)
	_, _, err = s.Update(t.Context(), missing.id, 1, sc.meta().Settings, sc.now)
	sc.wantErr("Update", err, store.ErrNotFound)
	_, err = s.Join(t.Context(), missing.batch(store.Key{}))
	sc.wantErr("Join", err, store.ErrNotFound)
	_, err = s.Session(t.Context(), missing.id, "x~y")
	sc.wantErr("Session", err, store.ErrNotFound)
	_, err = s.EndSession(t.Context(), missing.id, "x~y", queue.Ended, "", sc.now)
	sc.wantErr("EndSession", err, store.ErrNotFound)
	_, err = s.Acquire(t.Context(), missing.id, sc.owner, leaseTTL, sc.now)
	sc.wantErr("Acquire", err, store.ErrNotFound)
	_, err = s.Look(t.Context(), missing.id, 1, sc.now)
	sc.wantErr("Look", err, store.ErrNotFound)
}

// wantRefused calls every method that names an incarnation.
func (sc *scene) wantRefused(want error) {
	sc.t.Helper()
	ctx := sc.t.Context()
	_, err := sc.s.See(ctx, store.SightingBatch{
		Queue: sc.id, Incarnation: sc.inc, Edge: sc.edge, Turn: 1,
		Positions: queue.Positions{1}, Complete: true, At: sc.now, Now: sc.now,
	})
	sc.wantErr("See", err, want)
	_, _, err = sc.s.Claim(ctx, sc.claimRequest(1))
	sc.wantErr("Claim", err, want)
	_, err = sc.s.Leave(ctx, sc.id, sc.inc, 1, sc.now)
	sc.wantErr("Leave", err, want)
	_, err = sc.s.SessionAt(ctx, sc.id, sc.inc, 1)
	sc.wantErr("SessionAt", err, want)
	_, err = sc.s.Entries(ctx, sc.id, sc.inc, 0, "", 10)
	sc.wantErr("Entries", err, want)
	sc.wantErr("Delete", sc.s.Delete(ctx, sc.id, sc.inc), want)
	_, _, err = sc.s.ReadJournal(ctx, sc.id, sc.inc, 1)
	sc.wantErr("ReadJournal", err, want)
	_, err = sc.s.ReadMoves(ctx, sc.id, sc.inc, 0, 1)
	sc.wantErr("ReadMoves", err, want)
	sc.wantErr("WriteJournal", sc.s.WriteJournal(ctx, sc.id, sc.inc, queue.Cursor{}, queue.Page{}), want)
	if deleted, err := sc.s.Deleted(ctx, queue.MakeID(randomName(), "match"), sc.inc); err != nil || deleted {
		sc.t.Errorf("Deleted where nothing ever was: %v, %v, want false", deleted, err)
	}
}

func deleteQueue(t *testing.T, s store.Store) {
	sc := newScene(t, s, nil)
	position := sc.joinAnonymous(1)
	sc.tick()
	session := sc.claim(position)
	sc.wantDeleted(false)
	sc.wantErr("Delete of an open queue", s.Delete(t.Context(), sc.id, sc.inc), store.ErrNotClosed)
	sc.setState(queue.Closed)
	sc.wantErr("Delete while a session runs", s.Delete(t.Context(), sc.id, sc.inc), store.ErrRunning)
	sc.endSession(session.ID)
	if err := s.Remind(t.Context(), sc.id, sc.now); err != nil {
		t.Fatalf("Remind: %v", err)
	}
	if err := s.Delete(t.Context(), sc.id, sc.inc); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	sc.gone = true
	_, err := s.Get(t.Context(), sc.id)
	sc.wantErr("Get after Delete", err, store.ErrNotFound)
	sc.wantErr("Delete again", s.Delete(t.Context(), sc.id, sc.inc), store.ErrNotFound)
	sc.wantDeleted(true)
	if deleted, err := s.Deleted(t.Context(), sc.id, "another"); err != nil || deleted {
		t.Errorf("Deleted of another incarnation: %v, %v, want false", deleted, err)
	}
	list, err := s.List(t.Context(), sc.id.Tenant())
	if err != nil || len(list) != 0 {
		t.Errorf("List after Delete: %v, error %v", list, err)
	}
	if sc.isDue(sc.now.Add(time.Hour)) {
		t.Error("a deleted queue is still due")
	}
}

func oldIncarnation(t *testing.T, s store.Store) {
	sc := newScene(t, s, func(s *queue.Settings) { s.Capacity = 5 })
	user := key(1)
	position := sc.join(user, store.Key{}, store.Key{})[0].Position
	sc.tick()
	session := sc.claim(position)
	sc.report(sc.edge, false)
	oldEpoch, oldBatch := sc.epoch, sc.batch(user)
	sc.joinBatch(oldBatch)
	sc.endSession(session.ID)
	sc.setState(queue.Closed)
	if err := s.Delete(t.Context(), sc.id, sc.inc); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	old := *sc
	sc.inc = randomName()
	settings := queue.DefaultSettings()
	settings.Capacity = 1
	sc.create(settings)

	old.wantRefused(store.ErrNotFound)
	_, err := s.Session(t.Context(), sc.id, session.ID)
	sc.wantErr("the old session", err, store.ErrNoSession)
	if sc.first.Issued != 0 || sc.first.Number != 1 || len(sc.first.Sessions)+len(sc.first.Offers) != 0 {
		t.Errorf("the new queue begins with %+v, want nothing of the old one", sc.first)
	}
	if edges := sc.look().Edges; len(edges) != 0 {
		t.Errorf("the new queue knows the edges %v, want none", edges)
	}
	sc.acquire()
	_, err = s.Commit(t.Context(), sc.id, sc.owner, leaseTTL, queue.Tick{Epoch: oldEpoch, Now: sc.now})
	sc.wantErr("Commit under the old incarnation's epoch", err, store.ErrLeaseLost)
	// A batch number that the old queue has answered is a new batch here, and its user is new.
	result := sc.joinBatch(oldBatch)
	if j := result.Joins[0]; result.Incarnation != sc.inc || !j.New || j.Position != 1 {
		t.Errorf("join in the new queue: %+v of incarnation %s, want position 1, new, of %s", j, result.Incarnation, sc.inc)
	}
}

func (sc *scene) wantDeleted(want bool) {
	sc.t.Helper()
	if deleted, err := sc.s.Deleted(sc.t.Context(), sc.id, sc.inc); err != nil || deleted != want {
		sc.t.Errorf("Deleted: %v, %v, want %v", deleted, err, want)
	}
}
