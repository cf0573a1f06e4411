package queue_test

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"waitingroom/origin/queue"
)

// newSale is a sale with a spike at the opening, a wave later on, and a trickle throughout.
func newSale(seed uint64, fans int) sale {
	s := sale{seed: seed, settings: queue.DefaultSettings(), nap: 5 * time.Minute, until: 2 * time.Hour}
	s.settings.Capacity = fans / 20
	r := rand.New(rand.NewPCG(seed, 1))
	for range fans {
		var at float64 // minutes
		switch u := r.Float64(); {
		case u < 0.6:
			at = 2.5 * r.ExpFloat64()
		case u < 0.84:
			at = 20 + 3*r.ExpFloat64()
		default:
			at = 60 * r.Float64()
		}
		s.joins = append(s.joins, time.Duration(at*float64(time.Minute)))
	}
	slices.Sort(s.joins)
	return s
}

// Of those who are told an estimate half wait that long and few much longer, over sales in which none to four in ten lose patience within the hour.
func TestEstimateQuality(t *testing.T) {
	const soon = 2 * time.Minute
	var early, had, some, held50, held90 int
	var spread []float64
	for seed, goes := range []float64{0, 0.004, 0.0085} {
		s := newSale(uint64(seed), 5000)
		s.goes, s.sleeps = goes, goes/2
		for _, said := range s.run() {
			if said.at >= soon && said.at < soon+time.Minute {
				early++
				if said.wait != nil {
					had++
				}
			}
			if said.wait == nil {
				continue
			}
			some++
			if said.came <= time.Duration(said.wait.P50)*time.Second {
				held50++
			}
			if said.came <= time.Duration(said.wait.P90)*time.Second {
				held90++
			}
			spread = append(spread, float64(said.wait.P90)/float64(said.wait.P50))
		}
	}
	if early == 0 || some == 0 {
		t.Fatalf("%d fans waited two minutes after the first admissions, %d were told an estimate", early, some)
	}
	slices.Sort(spread)
	percent := func(n, of int) float64 { return 100 * float64(n) / float64(of) }
	t.Logf("%d estimates: had one %.1f %%, P50 held %.1f %%, P90 %.1f %%, P90/P50 %.2f", some,
		percent(had, early), percent(held50, some), percent(held90, some), spread[len(spread)/2])
	if got := percent(had, early); got < 90 {
		t.Errorf("%.1f %% of those who stayed had an estimate after two minutes, want 90", got)
	}
	if got := percent(held50, some); got < 40 || got > 60 {
		t.Errorf("P50 held for %.1f %%, want 40 to 60", got)
	}
	// Nothing goes wrong in these sales, no edge is cut off and no phone sleeps past the hold, so that P90 may
	// hold for more than the simulation's budget allows; it has to be close for that.
	if got := percent(held90, some); got < 85 {
		t.Errorf("P90 held for %.1f %%, want 85", got)
	}
	if got := spread[len(spread)/2]; got > 1.2 {
		t.Errorf("P90 is %.2f times P50 in the median, want at most 1.2", got)
	}
}

// Whoever stands further back is never told a shorter wait, and what is told is a sensible time.
func TestEstimateRisesAlongTheLine(t *testing.T) {
	s := newSale(5, 3000)
	s.goes, s.sleeps, s.until = 0.01, 0.01, 30*time.Minute
	s.patches = map[time.Duration]func(*queue.Settings){
		8 * time.Minute:  func(s *queue.Settings) { s.Capacity = 10 },
		12 * time.Minute: func(s *queue.Settings) { s.Capacity, s.MaxPerMinute = 300, 30 },
		20 * time.Minute: func(s *queue.Settings) { s.MaxPerMinute = 0 },
		25 * time.Minute: func(s *queue.Settings) { s.Capacity = 0 },
	}
	checked := 0
	s.each = func(now time.Duration, v *queue.View) {
		if now%(7*time.Second) != 0 {
			return
		}
		last, silent := queue.Wait{}, false
		for p := v.Watermark + 1; p <= v.Issued+2000; p += 17 {
			w := v.Status(p, noon.Add(now)).WaitSeconds
			if w == nil {
				silent = true
				continue
			}
			if checked++; silent || w.P50 < last.P50 || w.P90 < last.P90 || w.P50 < 1 || w.P90 < w.P50 || w.P90 > 10*24*3600 {
				t.Fatalf("after %v position %d is told %+v, those before it %+v, or nothing: %v", now, p, *w, last, silent)
			}
			last = *w
		}
	}
	s.run()
	if checked < 1000 {
		t.Errorf("only %d estimates were made", checked)
	}
}

// line is a queue under an estimator, moved by hand.
type line struct {
	*history
	v         *queue.View
	estimator queue.Estimator
	present   int
}

func newLine(t *testing.T) *line {
	h := newHistory(3)
	h.settings.Capacity, h.settings.ClaimSeconds = 100, 60 // as h.offer has it
	l := &line{history: h, v: h.view()}
	h.issued = 5000
	l.present = 4900
	l.apply(t, h.entry(queue.Entry{Kind: queue.EntryJoined, Issued: h.issued}))
	return l
}

func (l *line) apply(t *testing.T, entries ...queue.Entry) {
	t.Helper()
	next, ok := l.v.Apply(entries)
	if !ok {
		t.Fatal("entries were refused")
	}
	l.v = next
}

func (l *line) patch(t *testing.T, change func(*queue.Settings)) {
	change(&l.settings)
	settings := l.settings
	l.apply(t, l.entry(queue.Entry{Kind: queue.EntrySettings, Settings: &settings}))
}

// run has sessions of exactly `purchase` for as long as `lasts`, and observes where it is due.
func (l *line) run(t *testing.T, lasts, purchase time.Duration) {
	t.Helper()
	for end := l.now.Add(lasts); l.now.Before(end); {
		l.now = l.now.Add(time.Second)
		var ended queue.Positions
		for p, s := range l.sessions {
			if l.now.Sub(s.StartsAt) >= purchase+time.Duration(p%60)*time.Second {
				ended = append(ended, p)
			}
		}
		slices.Sort(ended)
		l.apply(t, l.finish(ended, queue.Ended))
		if l.settings.State == queue.Open {
			var offered queue.Positions
			for p := l.watermark + 1; p <= l.issued && len(l.sessions)+len(offered) < l.settings.Capacity; p++ {
				if l.done[p] == queue.Waiting {
					offered = append(offered, p)
				}
			}
			l.apply(t, l.offer(offered)...)
			l.present -= len(offered)
			for _, p := range offered {
				delete(l.offers, p)
				s := queue.Session{Position: p, ID: "t.q~x", StartsAt: l.now, ExpiresAt: l.now.Add(20 * time.Minute)}
				l.sessions[p], l.done[p] = s, queue.Claimed
				l.apply(t, l.entry(queue.Entry{Kind: queue.EntryClaimed, Positions: queue.Positions{p}, Session: s.ID, Since: s.StartsAt, Until: s.ExpiresAt}))
			}
		}
		l.observe(t)
	}
}

func (l *line) observe(t *testing.T) {
	t.Helper()
	if !l.estimator.Due(l.v, l.now) {
		return
	}
	if estimate := l.estimator.Observe(l.v, l.present, l.now); estimate != nil {
		l.apply(t, l.entry(queue.Entry{Kind: queue.EntryEstimate, Estimate: estimate}))
	}
}

func (l *line) wait(position uint64) *queue.Wait { return l.v.Status(position, l.now).WaitSeconds }

func TestEstimateIsSilent(t *testing.T) {
	l := newLine(t)
	l.run(t, 90*time.Second, 2*time.Minute)
	if w := l.wait(500); w != nil {
		t.Fatalf("before any session has ended a fan is told %+v, want nothing", w)
	}
	l.run(t, 2*time.Minute, 2*time.Minute)
	if l.wait(500) == nil {
		t.Fatal("nothing is told although sessions have ended")
	}
	for _, state := range []queue.State{queue.Paused, queue.SoldOut, queue.Scheduled} {
		l.patch(t, func(s *queue.Settings) { s.State = state })
		l.observe(t)
		if w := l.wait(500); w != nil {
			t.Errorf("while %s a fan is told %+v, want nothing", state, w)
		}
		l.run(t, 40*time.Second, 2*time.Minute)
		if w, curve := l.wait(500), l.v.Summary(l.now).Estimate; w != nil || curve != nil {
			t.Errorf("while %s a fan is told %+v, the public state %+v, want nothing", state, w, curve)
		}
		l.patch(t, func(s *queue.Settings) { s.State = queue.Open })
		if w := l.wait(500); w != nil {
			t.Errorf("right after %s a fan is told %+v, which was made before", state, w)
		}
		l.observe(t)
		if l.wait(500) == nil {
			t.Errorf("nothing is told at the tick after %s, although there is a measure", state)
		}
	}
	l.patch(t, func(s *queue.Settings) { s.State = queue.Closed })
	l.observe(t)
	if w := l.wait(500); w != nil {
		t.Errorf("while closed a fan is told %+v, want nothing", w)
	}
}

// The estimate follows a retune with the next tick, not after the next purchases.
func TestEstimateFollowsRetunes(t *testing.T) {
	l := newLine(t)
	l.run(t, 10*time.Minute, 2*time.Minute)
	position := l.watermark + 1000
	before := l.wait(position)
	// A hundred slots, two and a half minutes each, 98 % present.
	if before == nil || before.P50 < 1300 || before.P50 > 1600 {
		t.Fatalf("with a thousand ahead a fan is told %+v, want about 1470 s", before)
	}
	for _, c := range []struct {
		name      string
		change    func(*queue.Settings)
		low, high float64 // times the wait before
	}{
		{"half the slots", func(s *queue.Settings) { s.Capacity = 50 }, 1.8, 2.4},
		{"twice the slots", func(s *queue.Settings) { s.Capacity = 200 }, 0.35, 0.5},
		{"ten a minute", func(s *queue.Settings) { s.Capacity, s.MaxPerMinute = 100, 10 }, 3.5, 4.5},
		{"as before", func(s *queue.Settings) { s.MaxPerMinute = 0 }, 0.95, 1.05},
	} {
		l.patch(t, c.change)
		l.observe(t)
		w := l.wait(position)
		if w == nil {
			t.Fatalf("%s: nothing is told", c.name)
		}
		if times := float64(w.P50) / float64(before.P50); times < c.low || times > c.high {
			t.Errorf("%s: P50 is %d s, %.2f times what it was, want %.2f to %.2f", c.name, w.P50, times, c.low, c.high)
		}
	}
}

// Owed fans who are there and wait for a slot come first, and others wait longer by that.
func TestEstimateCountsTheOwed(t *testing.T) {
	l := newLine(t)
	l.run(t, 10*time.Minute, 2*time.Minute)
	position := l.watermark + 300
	before := l.wait(position)
	// The shop sells out and reopens; meanwhile 400 fans have missed the watermark.
	passed := l.watermark + 400
	l.apply(t, l.offer(queue.Positions{passed})...)
	delete(l.offers, passed)
	l.apply(t, l.entry(queue.Entry{Kind: queue.EntryWithdrawn, Positions: queue.Positions{passed}}))
	for range 3 {
		for end := l.now.Add(10 * time.Second); l.now.Before(end); {
			l.now = l.now.Add(time.Second)
			if l.now.Unix()%2 > 0 {
				continue
			}
			// One goes, one of the owed comes.
			for p := range l.sessions {
				l.apply(t, l.finish(queue.Positions{p}, queue.Ended))
				break
			}
			p := l.waiting(passed-399, 1)[0]
			l.apply(t, l.offer(queue.Positions{p})...)
			l.apply(t, l.finish(queue.Positions{p}, queue.Claimed))
		}
		l.observe(t)
	}
	owed, beyond := l.wait(position), l.wait(passed+1)
	if before == nil || owed == nil || beyond == nil {
		t.Fatalf("told %+v, then an owed fan %+v and one beyond the watermark %+v; want an estimate each", before, owed, beyond)
	}
	if beyond.P50 < 200 || owed.P50 >= beyond.P50 {
		t.Errorf("with %d owed, and nobody else ahead, P50 is %d s, and %d s for an owed fan; want minutes, and less", l.v.Owed, beyond.P50, owed.P50)
	}
}

// A reader that starts from a snapshot tells the same, and so does a coordinator that takes over,
// until it has a measure of its own.
func TestEstimateOutlivesReadersAndCoordinators(t *testing.T) {
	l := newLine(t)
	l.run(t, 10*time.Minute, 2*time.Minute)
	text, err := json.Marshal(l.v.Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	var snapshot queue.Snapshot
	if err := json.Unmarshal(text, &snapshot); err != nil {
		t.Fatal(err)
	}
	again := queue.NewView(snapshot)
	for p := l.watermark; p < l.issued+3000; p += 10 {
		if got, want := again.Status(p, l.now).WaitSeconds, l.wait(p); !reflect.DeepEqual(got, want) {
			t.Fatalf("after a snapshot position %d is told %+v, want %+v", p, got, want)
		}
	}
	before, learned := l.wait(l.watermark+500), l.v.Estimate.Learned
	l.estimator, l.v = queue.Estimator{}, again
	l.observe(t)
	if after := l.wait(l.watermark + 500); !reflect.DeepEqual(after, before) {
		t.Errorf("when another coordinator takes over a fan is told %+v, want %+v as before", after, before)
	}
	l.run(t, 41*time.Second, 2*time.Minute)
	if l.v.Estimate == snapshot.Estimate {
		t.Fatal("another coordinator has made no estimate of its own after 40 s")
	}
	kept := len(learned.P90) > 5
	for i := 5; kept && i < len(learned.P90); i++ { // horizons too long for errors of its own
		kept = math.Abs(l.v.Estimate.Learned.P90[i]-learned.P90[i]) < 0.01
	}
	if !kept {
		t.Errorf("another coordinator has learned %+v, want to go on from %+v", l.v.Estimate.Learned, learned)
	}
}

func BenchmarkObserve(b *testing.B) {
	const fans, slots = 1_000_000, 50_000
	settings := queue.DefaultSettings()
	settings.Capacity = slots
	s := queue.Snapshot{ID: "t.q", Incarnation: "i", Generations: []string{"g"}, Settings: settings, Issued: fans, Watermark: slots, Turn: 1, Fates: make([]byte, slots/2)}
	for i := range s.Fates {
		s.Fates[i] = byte(queue.Claimed)<<4 | byte(queue.Claimed)
	}
	for p := range uint64(slots) {
		start := noon.Add(-time.Duration(p) * time.Second / 200)
		s.Sessions = append(s.Sessions, queue.Session{Position: p + 1, ID: "t.q~x", StartsAt: start, ExpiresAt: start.Add(20 * time.Minute)})
	}
	v := queue.NewView(s)
	var ended queue.Positions
	for p := range uint64(1000) {
		ended = append(ended, 1+p*50)
	}
	next, _ := v.Apply([]queue.Entry{{Number: 1, At: noon, Kind: queue.EntryDone, Positions: ended, Fate: queue.Ended}})
	var e queue.Estimator
	e.Observe(v, fans-slots, noon)
	now := noon
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(10 * time.Second)
		if e.Observe(next, fans-slots, now) == nil {
			b.Fatal("there is no estimate")
		}
	}
}
