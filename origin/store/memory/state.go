package memory

import (
	"math/bits"
	"reflect"
	"slices"
	"sync"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

// state is one queue. Its methods want the mutex held, and q.now set by advance.
type state struct {
	mu      sync.Mutex
	deleted bool
	meta    store.Meta
	now     time.Time // the latest time that was seen
	log     tail
	totals  store.Counts // the totals and Present; the rest is counted when asked for
	journal journal

	issued, watermark uint64
	fates             [][]byte          // 4 bits a position, in pages like those of bitset
	inLine            bitset            // positions that wait without an offer, from 0
	waiting           int               // how many that are
	waitingOn         []int             // how many on each page
	present           int               // how many of them were seen in this turn or the one before
	lapsed            bitset            // those whose offer lapsed after their last sighting
	lapses            map[uint64]uint64 // for each of these, the log entry of the lapse

	offers      map[uint64]time.Time // claimBy
	dueOffers   due                  // by claimBy
	misses      map[uint64]int       // missed offers of positions that missed one
	sessions    map[uint64]*session
	sessionIDs  map[string]uint64
	dueSessions due
	users       map[store.Key]uint64
	named       bitset // the positions in users, those of earlier places included, from 0
	batches     map[string]*batches

	turn        uint64
	turnStarted time.Time
	// seen holds the sightings of the last turns, the running one last; the turns before it have
	// consecutive numbers. It may go further back than the hold asks for, until the turn ends in which
	// that was made shorter.
	seen []bitset
	// afresh is the turn in which everybody counts as seen, as far as the hold goes.
	afresh uint64
	edges  map[string]time.Time

	lease     lease
	joinSlots int
	// estimate is the last one since the settings changed.
	estimate *queue.Estimate
	// turnedAway counts the batches of joins that left somebody waiting.
	turnedAway uint64
	lastTick   time.Time
}

type session struct {
	queue.Session
	subject store.Key
	// unclaimed says that the subject is not known, because the session was put back after a loss.
	unclaimed bool
}

func newState(meta store.Meta, keep int) *state {
	q := &state{
		meta: meta, now: meta.CreatedAt, log: tail{keep: keep},
		offers: make(map[uint64]time.Time), misses: make(map[uint64]int), lapses: make(map[uint64]uint64),
		sessions: make(map[uint64]*session), sessionIDs: make(map[string]uint64),
		users: make(map[store.Key]uint64), batches: make(map[string]*batches),
		turn: 1, turnStarted: meta.CreatedAt, seen: make([]bitset, 1),
		edges: make(map[string]time.Time), lastTick: meta.CreatedAt,
		lease: lease{idle: true},
	}
	q.dueOffers.until = func(position uint64) (time.Time, bool) {
		claimBy, running := q.offers[position]
		return claimBy, running
	}
	q.dueSessions.until = func(position uint64) (time.Time, bool) {
		if s := q.sessions[position]; s != nil {
			return s.ExpiresAt, true
		}
		return time.Time{}, false
	}
	q.append(queue.Entry{Kind: queue.EntrySettings, Settings: q.settings()})
	return q
}

// advance moves the queue's time on, never back.
func (q *state) advance(now time.Time) {
	if now = moment(now); now.After(q.now) {
		q.now = now
	}
}

// settings returns a copy of the settings for the log.
func (q *state) settings() *queue.Settings {
	settings := q.meta.Settings
	return &settings
}

func (q *state) ack() store.Ack {
	settings := &q.meta.Settings
	nothingToDo := settings.State == queue.Closed && len(q.sessions) == 0 || settings.Asleep(q.now)
	return store.Ack{Entry: q.log.last, Leaderless: !q.lease.live(q.now) && !nothingToDo}
}

func (q *state) append(e queue.Entry) {
	e.At = q.now
	q.log.append(e)
}

func (q *state) update(version uint64, settings queue.Settings) error {
	was := q.meta.Settings
	settings.ReturnOrigins = slices.Clone(settings.ReturnOrigins)
	if version+1 == q.meta.Version && reflect.DeepEqual(settings, was) {
		return nil // repeated
	}
	if version != q.meta.Version {
		return store.ErrConflict
	}
	q.meta.Version++
	q.meta.Settings = settings
	if !reflect.DeepEqual(settings.WithoutRemaining(), was.WithoutRemaining()) {
		q.joinSlots = 0
		q.estimate = nil // it was made for the settings before
	}
	q.append(queue.Entry{Kind: queue.EntrySettings, Settings: q.settings()})
	if !settings.State.KeepsOffers() && len(q.offers) > 0 {
		withdrawn := make(queue.Positions, 0, len(q.offers))
		for position := range q.offers {
			withdrawn = append(withdrawn, position)
		}
		for _, position := range withdrawn {
			q.takeOffer(position)
			q.wait(position)
		}
		slices.Sort(withdrawn)
		q.append(queue.Entry{Kind: queue.EntryWithdrawn, Positions: withdrawn})
	}
	if settings.HoldSeconds != was.HoldSeconds || !was.HoldRuns() && settings.HoldRuns() {
		q.afresh = q.turn
	}
	return nil
}

// fate returns what became of a position that was issued.
func (q *state) fate(position uint64) queue.Fate {
	page, n := (position-1)/pageSize, (position-1)%pageSize
	if page >= uint64(len(q.fates)) || q.fates[page] == nil {
		return queue.Waiting
	}
	if n%2 == 0 {
		return queue.Fate(q.fates[page][n/2] >> 4)
	}
	return queue.Fate(q.fates[page][n/2] & 0x0f)
}

func (q *state) setFate(position uint64, fate queue.Fate) {
	page, n := int((position-1)/pageSize), (position-1)%pageSize
	for len(q.fates) <= page {
		q.fates = append(q.fates, nil)
	}
	if q.fates[page] == nil {
		q.fates[page] = make([]byte, pageSize/2)
	}
	cell := &q.fates[page][n/2]
	if n%2 == 0 {
		*cell = *cell&0x0f | byte(fate)<<4
	} else {
		*cell = *cell&0xf0 | byte(fate)
	}
}

// wait puts a position among those that wait without an offer.
func (q *state) wait(position uint64) {
	if !q.inLine.set(position - 1) {
		return
	}
	q.waiting++
	q.waitingOn[(position-1)/pageSize]++
	if q.isPresent(position) {
		q.present++
	}
}

// unwait takes a position from among those that wait without an offer.
func (q *state) unwait(position uint64) {
	if !q.inLine.unset(position - 1) {
		return
	}
	q.waiting--
	q.waitingOn[(position-1)/pageSize]--
	if q.isPresent(position) {
		q.present--
	}
	q.unlapse(position)
}

// unlapse makes a position a candidate again, or drops what is known of its lapse.
func (q *state) unlapse(position uint64) {
	if q.lapsed.unset(position - 1) {
		delete(q.lapses, position)
	}
}

func (q *state) isPresent(position uint64) bool {
	now, before := q.recent()
	return now.has(position-1) || before.has(position-1)
}

// recent returns the sightings of the running turn and the one before.
func (q *state) recent() (running, before bitset) {
	last := len(q.seen) - 1
	if last > 0 {
		before = q.seen[last-1]
	}
	return q.seen[last], before
}

// issue makes the positions up to and with last exist, all of them waiting and seen in this turn.
func (q *state) issue(last uint64) {
	q.seen[len(q.seen)-1].setRange(q.issued, last)
	q.present += int(last - q.issued)
	q.passOver(last)
}

// passOver makes them exist and wait, without a sighting.
func (q *state) passOver(last uint64) {
	n := int(last - q.issued)
	q.inLine.setRange(q.issued, last)
	for position := q.issued; position < last; {
		page := int(position / pageSize)
		for len(q.waitingOn) <= page {
			q.waitingOn = append(q.waitingOn, 0)
		}
		end := min(uint64(page+1)*pageSize, last)
		q.waitingOn[page] += int(end - position)
		position = end
	}
	q.waiting += n
	q.issued = last
}

// offer gives a waiting position an offer.
func (q *state) offer(position uint64, claimBy time.Time) {
	q.unwait(position)
	q.offers[position] = claimBy
	q.dueOffers.add(claimBy, position)
	q.watermark = max(q.watermark, position)
	q.totals.Admitted++
}

func (q *state) takeOffer(position uint64) { delete(q.offers, position) }

// finish gives a position that waits, has an offer or a session its last fate.
func (q *state) finish(position uint64, fate queue.Fate) {
	q.takeOffer(position)
	q.unwait(position)
	if s := q.sessions[position]; s != nil {
		delete(q.sessionIDs, s.ID)
		delete(q.sessions, position)
	}
	delete(q.misses, position)
	q.setFate(position, fate)
	switch fate {
	case queue.Ended:
		q.totals.Ended++
	case queue.Expired:
		q.totals.Expired++
	case queue.Missed:
		q.totals.Missed++
	case queue.Left:
		q.totals.Left++
	}
}

// free is how many slots stand empty.
func (q *state) free() int {
	return queue.FreeSlots(q.meta.Settings.Capacity, len(q.sessions), len(q.offers))
}

// see credits a sighting of an issued position to a kept turn, counted back from the running one.
// Whoever saw it knew the log up to asOf.
func (q *state) see(position uint64, back int, asOf uint64) {
	if q.fate(position).Done() {
		return
	}
	wasPresent := q.isPresent(position)
	q.seen[len(q.seen)-1-back].set(position - 1)
	if back < 2 && !wasPresent && q.inLine.has(position-1) {
		q.present++
	}
	if back == 0 && q.lapses[position] <= asOf {
		q.unlapse(position)
	}
}

// beginTurn starts the turn after the running one.
func (q *state) beginTurn(started time.Time) {
	q.turn++
	q.turnStarted = started
	q.seen = append(q.seen, nil)
	q.seen = slices.Clone(q.kept())
	q.present = 0
	running, before := q.recent()
	for index, waiting := range q.waitingOn {
		if waiting == 0 {
			continue
		}
		line, a, b := q.inLine.page(index), running.page(index), before.page(index)
		for i, word := range line {
			q.present += bits.OnesCount64(word & (at(a, i) | at(b, i)))
		}
	}
	q.append(queue.Entry{Kind: queue.EntryTurn, Turn: q.turn})
}

// kept are the sightings of the turns that the hold asks for: the running one and HoldTurns before it.
func (q *state) kept() []bitset {
	extra := len(q.seen) - 1 - int(q.meta.Settings.HoldTurns())
	return q.seen[max(extra, 0):]
}

// candidates returns the lowest positions that wait, are present and did not lapse since they
// were last seen.
func (q *state) candidates(limit int) queue.Positions {
	limit = max(limit, 0)
	var list queue.Positions
	running, before := q.recent()
	for index, waiting := range q.waitingOn {
		if waiting == 0 {
			continue
		}
		line, a, b, c := q.inLine.page(index), running.page(index), before.page(index), q.lapsed.page(index)
		for i, word := range line {
			if len(list) >= limit {
				return list[:limit]
			}
			if word &= (at(a, i) | at(b, i)) &^ at(c, i); word != 0 {
				list = appendBits(list, index, i, word)
			}
		}
	}
	return list[:min(len(list), limit)]
}

// absent returns the positions that wait and that no kept turn has seen.
func (q *state) absent() queue.Positions {
	var list queue.Positions
	for index, waiting := range q.waitingOn {
		if waiting == 0 {
			continue
		}
		pages := make([]*[pageWords]uint64, 0, len(q.kept()))
		for _, turn := range q.kept() {
			if page := turn.page(index); page != nil {
				pages = append(pages, page)
			}
		}
		for i, word := range q.inLine.page(index) {
			for p := 0; p < len(pages) && word != 0; p++ {
				word &^= pages[p][i]
			}
			if word != 0 {
				list = appendBits(list, index, i, word)
			}
		}
	}
	return list
}
