package queue_test

import (
	"cmp"
	"container/heap"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"waitingroom/origin/queue"
)

// sale plays a sale second by second, without a store: fans join, go away for good or for a while,
// are offered slots, buy or miss their offer. All chance comes from the seed.
type sale struct {
	seed     uint64
	settings queue.Settings
	joins    []time.Duration // when each position is issued, ascending
	goes     float64         // how many of the present go away for good, per minute
	sleeps   float64         // and for a while
	nap      time.Duration   // how long that is in the mean
	until    time.Duration
	patches  map[time.Duration]func(*queue.Settings)
	each     func(now time.Duration, v *queue.View) // is called every second
}

// told is what a fan was told, and what came.
type told struct {
	position uint64
	at       time.Duration
	place    float64 // in the line, from 0 to 1
	wait     *queue.Wait
	came     time.Duration
}

type saleFan struct {
	away     bool // its sightings have stopped
	forGood  bool
	backAt   time.Duration
	present  bool // by the sightings
	absentAt time.Duration
	offered  bool
	lapsed   bool
	done     bool
	admitted time.Duration
}

type saleEvent struct {
	at       time.Duration
	position uint64
	kind     int
}
type saleEvents []saleEvent

func (q saleEvents) Len() int           { return len(q) }
func (q saleEvents) Less(i, j int) bool { return q[i].at < q[j].at }
func (q saleEvents) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *saleEvents) Push(x any)        { *q = append(*q, x.(saleEvent)) }
func (q *saleEvents) Pop() any          { o := *q; x := o[len(o)-1]; *q = o[:len(o)-1]; return x }

const (
	evGone   = iota // its sightings stop
	evAbsent        // it is no longer present
	evBack
	evExpire
	evClaim
	evLapse
	evEnd
)

type positionHeap []uint64

func (q positionHeap) Len() int           { return len(q) }
func (q positionHeap) Less(i, j int) bool { return q[i] < q[j] }
func (q positionHeap) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *positionHeap) Push(x any)        { *q = append(*q, x.(uint64)) }
func (q *positionHeap) Pop() any          { o := *q; x := o[len(o)-1]; *q = o[:len(o)-1]; return x }

// run returns what those who stayed until their turn were told each minute, for every third fan.
func (s sale) run() []told {
	r := rand.New(rand.NewPCG(s.seed, 7))
	var all []told
	fans := make([]saleFan, len(s.joins)+1)
	var events saleEvents
	push := func(at time.Duration, p uint64, kind int) { heap.Push(&events, saleEvent{at, p, kind}) }
	exp := func(perMinute float64) time.Duration {
		if perMinute <= 0 {
			return math.MaxInt64 / 4
		}
		return time.Duration(r.ExpFloat64() / perMinute * float64(time.Minute))
	}
	turn := s.settings.TurnLength()
	v := queue.NewView(queue.Snapshot{ID: "t.q", Incarnation: "i", Generations: []string{"g"}, CreatedAt: noon, Settings: s.settings, Turn: 1})
	var number, issued, watermark uint64
	var entries []queue.Entry
	now := time.Duration(0)
	add := func(e queue.Entry) {
		number++
		e.Number, e.At = number, noon.Add(now)
		entries = append(entries, e)
	}
	present, taken := 0, 0
	var owed positionHeap
	var estimator queue.Estimator
	pace := queue.Pace{}
	schedule := func(p uint64) { // what becomes of a fan who is there
		f := &fans[p]
		gone, nap := exp(s.goes), exp(s.sleeps)
		if gone < nap {
			push(now+gone, p, evGone)
			f.forGood = true
		} else if s.sleeps > 0 {
			push(now+nap, p, evGone)
		}
	}
	for ; now < s.until; now += time.Second {
		second := int(now / time.Second)
		if patch := s.patches[now]; patch != nil {
			patch(&s.settings)
			settings := s.settings
			add(queue.Entry{Kind: queue.EntrySettings, Settings: &settings})
		}
		was := issued
		for issued < uint64(len(s.joins)) && s.joins[issued] <= now {
			issued++
			f := &fans[issued]
			f.present = true
			present++
			schedule(issued)
		}
		if issued > was {
			add(queue.Entry{Kind: queue.EntryJoined, Issued: issued})
		}
		var ended, lapsed, missed, expired queue.Positions
		for len(events) > 0 && events[0].at <= now {
			e := heap.Pop(&events).(saleEvent)
			f := &fans[e.position]
			switch e.kind {
			case evGone:
				if f.done || f.offered {
					break
				}
				f.away = true
				if !f.forGood {
					push(now+time.Duration(r.ExpFloat64()*float64(s.nap)), e.position, evBack)
				}
				push(now+turn+time.Duration(r.Float64()*float64(turn)), e.position, evAbsent)
			case evAbsent:
				if f.done || f.offered || !f.present || !f.away {
					break
				}
				f.present, f.absentAt = false, now
				present--
				push(now+s.settings.Hold()-turn/2, e.position, evExpire)
			case evBack:
				if f.done {
					break
				}
				f.away, f.backAt = false, now
				schedule(e.position)
				if f.offered {
					// finds the offer
					push(now+claimDelay, e.position, evClaim)
					break
				}
				if !f.present {
					f.present = true
					present++
					if e.position <= watermark {
						heap.Push(&owed, e.position)
					}
				}
			case evExpire:
				if !f.done && !f.offered && !f.present && now-f.absentAt >= s.settings.Hold()-turn {
					f.done = true
					expired = append(expired, e.position)
				}
			case evClaim:
				if !f.offered || f.done {
					break
				}
				f.done = true
				f.offered = false
				// Four minutes in the mean.
				l := min(time.Duration(math.Exp(0.5*r.NormFloat64()-0.125)*float64(4*time.Minute)), s.settings.PurchaseWindow())
				add(queue.Entry{Kind: queue.EntryClaimed, Positions: queue.Positions{e.position}, Session: "x", Since: noon.Add(now), Until: noon.Add(now + s.settings.PurchaseWindow())})
				push(now+l, e.position, evEnd)
			case evLapse:
				if !f.offered || f.done {
					break
				}
				f.offered = false
				taken--
				if f.lapsed {
					f.done = true
					missed = append(missed, e.position)
				} else {
					f.lapsed = true
					f.absentAt = now
					lapsed = append(lapsed, e.position)
					push(now+s.settings.Hold(), e.position, evExpire)
				}
			case evEnd:
				taken--
				ended = append(ended, e.position)
			}
		}
		done := func(list queue.Positions, fate queue.Fate) {
			if len(list) > 0 {
				slices.Sort(list)
				add(queue.Entry{Kind: queue.EntryDone, Positions: list, Fate: fate})
			}
		}
		done(ended, queue.Ended)
		if len(lapsed) > 0 {
			slices.Sort(lapsed)
			add(queue.Entry{Kind: queue.EntryLapsed, Positions: lapsed})
		}
		done(missed, queue.Missed)
		done(expired, queue.Expired)
		pace = pace.Refill(s.settings.MaxPerMinute, noon.Add(now))
		v, _ = v.Apply(entries)
		entries = nil
		if estimator.Due(v, noon.Add(now)) {
			if est := estimator.Observe(v, present, noon.Add(now)); est != nil {
				add(queue.Entry{Kind: queue.EntryEstimate, Estimate: est})
			}
		}
		if s.settings.State == queue.Open {
			free := min(pace.Cut(max(s.settings.Capacity-taken, 0)), 40_000)
			var offers queue.Positions
			offer := func(p uint64) {
				f := &fans[p]
				f.offered = true
				f.present = false
				present--
				taken++
				free--
				if f.admitted == 0 {
					f.admitted = now
				}
				offers = append(offers, p)
				if !f.away {
					push(now+time.Duration(r.Float64()*2*float64(claimDelay)), p, evClaim)
				}
				push(now+s.settings.Claim()+queue.ClaimGrace, p, evLapse)
			}
			for free > 0 && len(owed) > 0 {
				p := heap.Pop(&owed).(uint64)
				if f := &fans[p]; !f.done && f.present && !f.offered {
					offer(p)
				}
			}
			for free > 0 && watermark < issued {
				watermark++
				if f := &fans[watermark]; f.present && !f.done {
					offer(watermark)
				}
			}
			if len(offers) > 0 {
				pace = pace.Spend(len(offers))
				slices.SortFunc(offers, cmp.Compare)
				add(queue.Entry{Kind: queue.EntryOffered, Positions: offers, Until: noon.Add(now + s.settings.Claim()), Watermark: offers[len(offers)-1], Issued: issued})
			}
		}
		v, _ = v.Apply(entries)
		entries = nil
		watermark = max(watermark, v.Watermark)
		if s.each != nil {
			s.each(now, v)
		}
		if second%60 != 30 {
			continue
		}
		for p := uint64(1); p <= issued; p += 3 {
			if f := &fans[p]; f.done || f.offered || f.admitted > 0 || f.away {
				continue
			}
			status := v.Status(p, noon.Add(now))
			all = append(all, told{position: p, at: now, place: float64(*status.Ahead) / float64(v.Waiting), wait: status.WaitSeconds})
		}
	}
	stayed := all[:0]
	for _, t := range all {
		if f := &fans[t.position]; f.admitted > 0 && f.backAt <= t.at && !(f.away && f.offered) {
			t.came = f.admitted - t.at
			stayed = append(stayed, t)
		}
	}
	return stayed
}

// claimDelay is how long a fan who is there needs to claim an offer.
const claimDelay = 3 * time.Second
