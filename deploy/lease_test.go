package deploy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
	"waitingroom/origin/store/redis"
	"waitingroom/origin/store/storetest"
)

// TestOriginsThatBothBelieveToCoordinate has two origins on one Redis, and stops the one that
// coordinates a busy queue for longer than its lease, so that the other takes over; then it has the
// first go on, and in the same moment stops the second. Each of them comes back again and again
// to a queue that went on without it. Nobody may notice: by what both edges and both origins
// answer, and by the queue's log in Redis, the watermark never falls, nobody is offered twice, no offer
// is made at capacity, every session has one owner, and everybody gets in, in order.
func TestOriginsThatBothBelieveToCoordinate(t *testing.T) {
	t.Parallel()
	in := setup{origins: 2}.install(t)
	s := newStandoff(in)
	stopWatching := s.watch()
	awaitFans := s.arrive()

	coordinator := s.coordinator()
	other := 1 - coordinator
	s.suspend(coordinator)
	s.endThings(other)
	s.awaitTakeover(other)
	in.origins[coordinator].resume()
	for range 2 {
		// Stop the one that took over in the moment in which the other one goes on.
		coordinator, other = other, coordinator
		s.suspend(coordinator)
		s.awaitTakeover(other)
		in.origins[coordinator].resume()
	}
	// Stopped and continued at random, for shorter than the lease, in the midst of everything.
	for range 20 {
		for _, p := range in.origins {
			if rand.IntN(3) > 0 {
				p.suspend()
			}
			s.pause(time.Duration(rand.IntN(100)) * time.Millisecond)
			p.resume()
		}
	}
	// The edges of the one that is killed turn to one that has just slept through all that happened.
	other = s.coordinator()
	coordinator = 1 - other
	s.suspend(other)
	s.awaitTakeover(coordinator)
	in.origins[other].resume()
	in.origins[coordinator].kill()

	awaitFans()
	stopWatching()
	s.checkLog()
	s.checkSessions()
	if polls, n := s.polls, len(s.polls); n == 0 || quantile(polls, 0.9) > time.Second {
		t.Errorf("polls: nine of ten of %d took at most %v, want a second: they wait for no origin", n, quantile(polls, 0.9))
	} else {
		t.Logf("%d polls, p50 %v, p99 %v", n, quantile(polls, 0.5), quantile(polls, 0.99))
	}
	t.Logf("%d joins, p50 %v, p99 %v; %d answered 503", len(s.joins), quantile(s.joins, 0.5), quantile(s.joins, 0.99), s.turnedAway)
	if lost := strings.Count(in.origins[0].log.String()+in.origins[1].log.String(), "lost the lease"); lost == 0 {
		t.Error("no origin lost its lease: what this test is about did not happen")
	}
}

const standoffCapacity = 8

// standoff is a busy queue, and what its fans and its observers saw.
type standoff struct {
	in     *installation
	client *http.Client
	store  *redis.Store
	queue  string
	others struct { // queues to which something final happens while an origin is stopped
		closing, made string
		session       string // released meanwhile
	}
	incarnation string
	fans        int
	epoch       uint64 // when an origin was suspended last

	mu         sync.Mutex
	joins      []time.Duration // of each request that was answered
	polls      []time.Duration
	turnedAway int
	positions  map[int]string // user by position
	sessions   map[string]int // position by session id
	seen       map[string]seen
}

// seen is what one observer was told last.
type seen struct {
	seq       uint64
	watermark int
	ahead     int
	final     string // a state that does not change any more
}

func newStandoff(in *installation) *standoff {
	in.t.Helper()
	s := &standoff{
		in: in, positions: make(map[int]string), sessions: make(map[string]int), seen: make(map[string]seen),
		client: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 100}},
	}
	in.t.Cleanup(s.client.CloseIdleConnections)
	s.queue = in.createQueue("match", fmt.Sprintf(
		`"capacity":%d,"purchaseWindowSeconds":1,"claimSeconds":1,"holdSeconds":600,"maxMissedOffers":5`, standoffCapacity))
	s.others.closing = in.createQueue("closing", `"capacity":1,"purchaseWindowSeconds":3600`)
	holder := in.join(0, s.others.closing)
	holder.awaitState(0, 20*time.Second, "admitted")
	s.others.session = holder.enter(0)
	var err error
	if s.store, err = redis.Open(redis.Config{Addresses: []string{in.redis.Addr}, Timeout: 20 * time.Second}); err != nil {
		in.t.Fatalf("open the store: %v", err)
	}
	in.t.Cleanup(func() { _ = s.store.Close() })
	meta, err := s.store.Get(in.t.Context(), queue.ID(s.queue))
	if err != nil {
		in.t.Fatalf("read the queue: %v", err)
	}
	s.incarnation = meta.Incarnation
	return s
}

// ask sends a request and says how long the answer took.
func (s *standoff) ask(ctx context.Context, method, url, body string, headers ...string) (answer, time.Duration) {
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		s.in.t.Errorf("make a request: %v", err)
		return answer{}, 0
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	started := time.Now()
	response, err := s.client.Do(r)
	if err != nil {
		return answer{raw: err.Error()}, time.Since(started)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return answer{raw: err.Error()}, time.Since(started)
	}
	a := answer{status: response.StatusCode, header: response.Header, raw: string(data)}
	_ = json.Unmarshal(data, &a.body)
	return a, time.Since(started)
}

// pause lasts so long, or until the test ends.
func (s *standoff) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-s.in.t.Context().Done():
	}
}

// coordinator is the origin that holds the lease of the busy queue.
func (s *standoff) coordinator() int {
	s.in.t.Helper()
	at := -1
	s.in.eventually(20*time.Second, "one origin coordinates", func() bool {
		one, other := watched{s.in, "origin 1", s.in.admin.origins[0]}, watched{s.in, "origin 2", s.in.admin.origins[1]}
		at = slices.Index([]bool{one.metric("waitingroom_origin_leases") > 0, other.metric("waitingroom_origin_leases") > 0}, true)
		return at >= 0
	})
	return at
}

func (s *standoff) log() []queue.Entry {
	s.in.t.Helper()
	entries, err := s.store.Entries(context.WithoutCancel(s.in.t.Context()), queue.ID(s.queue), s.incarnation, 0, "", 1_000_000)
	if err != nil {
		s.in.t.Fatalf("read the log: %v", err)
	}
	return entries
}

// suspend stops an origin, and remembers under which epoch the queue stood then.
func (s *standoff) suspend(origin int) {
	s.in.t.Helper()
	s.in.origins[origin].suspend()
	s.epoch = s.look().Epoch
}

func (s *standoff) look() queue.Look {
	s.in.t.Helper()
	look, err := s.store.Look(s.in.t.Context(), queue.ID(s.queue), 1, time.Time{})
	if err != nil {
		s.in.t.Fatalf("look at the queue: %v", err)
	}
	return look
}

// awaitTakeover waits until the origin, which is alone, has taken the lease and made offers.
func (s *standoff) awaitTakeover(origin int) {
	s.in.t.Helper()
	started := time.Now()
	defer func() { s.in.t.Logf("origin %d took over and made offers within %v", origin+1, time.Since(started)) }()
	s.in.eventually(40*time.Second, fmt.Sprintf("origin %d takes the lease", origin+1), func() bool {
		return s.look().Epoch != s.epoch
	})
	from := len(s.log())
	s.in.eventually(40*time.Second, fmt.Sprintf("origin %d makes offers", origin+1), func() bool {
		return slices.ContainsFunc(s.log()[from:], func(e queue.Entry) bool { return e.Kind == queue.EntryOffered })
	})
}

// endThings has something final happen through one origin while the other is stopped.
func (s *standoff) endThings(origin int) {
	s.in.t.Helper()
	url, operator := s.in.url.origins[origin], bearer(s.in.operatorToken)
	if got := s.in.request("DELETE", url+"/sessions/"+jti(s.in.t, s.others.session), "", operator); got.status != http.StatusNoContent {
		s.in.t.Errorf("end a session: got %d %s, want 204", got.status, got.raw)
	}
	if got := s.in.request("PATCH", url+"/queues/"+s.others.closing, `{"state":"closed"}`, operator); got.status != http.StatusOK {
		s.in.t.Errorf("close a queue: got %d %s, want 200", got.status, got.raw)
	}
	got := s.in.request("POST", url+"/queues", `{"slug":"made","capacity":1}`, operator)
	if got.status != http.StatusCreated {
		s.in.t.Errorf("create a queue: got %d %s, want 201", got.status, got.raw)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.others.made = got.text("id")
}

// arrive has fans come as long as the test goes on, so that there is always a line. The returned
// function lets no more come, and waits until all have been in and are out again.
func (s *standoff) arrive() (await func()) {
	ctx, cancel := context.WithTimeout(s.in.t.Context(), 3*time.Minute)
	s.in.t.Cleanup(cancel)
	enough := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		for {
			s.mu.Lock()
			i := s.fans
			room := i < len(s.sessions)+2*standoffCapacity
			if room {
				s.fans++
			}
			s.mu.Unlock()
			if room {
				group.Go(func() { s.visit(ctx, i) })
			}
			select {
			case <-enough:
				return
			case <-ctx.Done():
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	return func() {
		close(enough)
		group.Wait()
	}
}

// visit is one fan: joins, polls both edges in turn, claims on both at once when admitted, and
// goes on looking for a while once the session is over. Two of the first miss their first offer.
func (s *standoff) visit(ctx context.Context, i int) {
	user := fmt.Sprintf("user-%d", i)
	f, ok := s.join(ctx, i%2, user)
	if !ok {
		return
	}
	misses, offered := i < 20 && i%10 == 5, false
	for n, over := 0, 0; over < 4; n++ {
		edge := n % 2
		got, took := s.ask(ctx, "GET", s.in.url.edges[edge]+"/tickets/"+f.id, "", "Authorization: Bearer "+f.ticket)
		if ctx.Err() != nil {
			s.in.t.Errorf("position %d is not through within three minutes", f.position)
			return
		}
		if got.status != http.StatusOK {
			s.in.t.Errorf("poll of position %d: got %d %s, want 200", f.position, got.status, got.raw)
			return
		}
		s.mu.Lock()
		s.polls = append(s.polls, took)
		s.mu.Unlock()
		s.observe(fmt.Sprintf("position %d on edge %d", f.position, edge+1), got)
		switch got.text("state") {
		case "admitted":
			if !misses {
				s.claim(ctx, f)
			}
			offered = true
		case "waiting":
			misses = misses && !offered
		case "ended":
			over++
		case "active":
		default:
			s.in.t.Errorf("position %d is %s, want it to be admitted, and its session to end", f.position, got.raw)
			return
		}
		s.pause(150 * time.Millisecond)
	}
}

// join joins until there is a place: an origin that does not answer costs a few seconds, and a
// 503 says when to come again.
func (s *standoff) join(ctx context.Context, edge int, user string) (*fan, bool) {
	for {
		got, took := s.ask(ctx, "POST", s.in.url.edges[edge]+"/queues/"+s.queue+"/tickets", `{"userId":"`+user+`"}`, "X-API-Key: "+s.in.secretKey)
		if ctx.Err() != nil {
			s.in.t.Errorf("%s has no place within three minutes", user)
			return nil, false
		}
		s.mu.Lock()
		s.joins = append(s.joins, took)
		s.mu.Unlock()
		switch {
		case took > 15*time.Second:
			s.in.t.Errorf("a join was answered after %v, want a few seconds", took)
		case got.status == http.StatusServiceUnavailable && got.header.Get("Retry-After") != "":
			s.mu.Lock()
			s.turnedAway++
			s.mu.Unlock()
			s.pause(500 * time.Millisecond)
			continue
		case got.status != http.StatusCreated && got.status != http.StatusOK:
			s.in.t.Errorf("join: got %d %s, want 201, or 503 with Retry-After", got.status, got.raw)
			return nil, false
		}
		f := &fan{in: s.in, ticket: got.text("ticket"), id: got.text("ticketId"), position: got.number("position")}
		s.mu.Lock()
		defer s.mu.Unlock()
		if other, taken := s.positions[f.position]; taken {
			s.in.t.Errorf("%s and %s have the same position, %d", user, other, f.position)
		}
		s.positions[f.position] = user
		return f, true
	}
}

// claim claims on both edges at once, as a fan with two devices does.
func (s *standoff) claim(ctx context.Context, f *fan) {
	var both sync.WaitGroup
	for _, url := range s.in.url.edges {
		both.Go(func() {
			got, _ := s.ask(ctx, "POST", url+"/tickets/"+f.id+"/session", "", "Authorization: Bearer "+f.ticket)
			switch got.status {
			case http.StatusOK:
				session := jti(s.in.t, got.text("sessionToken"))
				s.mu.Lock()
				defer s.mu.Unlock()
				if other, known := s.sessions[session]; known && other != f.position {
					s.in.t.Errorf("positions %d and %d have the same session", f.position, other)
				}
				s.sessions[session] = f.position
			case http.StatusServiceUnavailable, http.StatusConflict, http.StatusGone:
				// No origin answered; or the offer, or the session, is over meanwhile.
			default:
				if ctx.Err() == nil {
					s.in.t.Errorf("claim of position %d: got %d %s", f.position, got.status, got.raw)
				}
			}
		})
	}
	both.Wait()
}

// observe compares what somebody is told with what the same place told before.
func (s *standoff) observe(who string, got answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last, known := s.seen[who]
	next := last
	if _, number, found := strings.Cut(got.text("seq"), "."); found {
		var err error
		if next.seq, err = strconv.ParseUint(number, 10, 64); err != nil {
			s.in.t.Errorf("%s: seq is %q", who, got.text("seq"))
		}
	}
	if _, told := got.body["watermark"]; told {
		next.watermark = got.number("watermark")
	}
	state := got.text("state")
	if state == "waiting" && last.ahead != offeredOnce {
		next.ahead = got.number("ahead")
	} else if state == "admitted" {
		next.ahead = offeredOnce
	}
	if state == "ended" || state == "closed" || state == "revoked" || state == "known" {
		next.final = state
	} else if last.final != "" {
		next.final = state
	}
	if known && (next.seq < last.seq || next.watermark < last.watermark || next.ahead > last.ahead || last.final != "" && next.final != last.final) {
		s.in.t.Errorf("%s is told what is older: %+v after %+v", who, next, last)
	}
	s.seen[who] = next
}

// offeredOnce stands for the ahead of somebody who has been admitted.
const offeredOnce = -1

// watch observes what edges and origins tell everybody, until the returned function is called.
func (s *standoff) watch() (stop func()) {
	ctx, cancel := context.WithCancel(s.in.t.Context())
	var group sync.WaitGroup
	repeat := func(look func()) {
		group.Go(func() {
			for ctx.Err() == nil {
				look()
				select {
				case <-time.After(50 * time.Millisecond):
				case <-ctx.Done():
				}
			}
		})
	}
	for i, url := range s.in.url.edges {
		for _, id := range []string{s.queue, s.others.closing} {
			repeat(func() {
				if got, _ := s.ask(ctx, "GET", url+"/queues/"+id+"/state", ""); got.status == http.StatusOK {
					got.body["state"] = got.body["queueState"]
					s.observe(fmt.Sprintf("the state of %s on edge %d", id, i+1), got)
				} else if ctx.Err() == nil {
					s.in.t.Errorf("state on edge %d: got %d %s, want 200", i+1, got.status, got.raw)
				}
			})
		}
		repeat(func() {
			got, _ := s.ask(ctx, "GET", url+"/access", "", "Authorization: Bearer "+s.others.session)
			state := map[int]string{http.StatusOK: "running", http.StatusGone: "revoked"}[got.status]
			if ctx.Err() == nil {
				s.observe(fmt.Sprintf("a session on edge %d", i+1), answer{body: map[string]any{"state": state}})
			}
		})
		repeat(func() {
			s.mu.Lock()
			id := s.others.made
			s.mu.Unlock()
			if id == "" {
				return
			}
			got, _ := s.ask(ctx, "GET", url+"/queues/"+id, "")
			state := map[int]string{http.StatusOK: "known"}[got.status]
			if ctx.Err() == nil {
				s.observe(fmt.Sprintf("the new queue on edge %d", i+1), answer{body: map[string]any{"state": state}})
			}
		})
	}
	for i, url := range s.in.url.origins {
		repeat(func() {
			got, _ := s.ask(ctx, "GET", url+"/queues/"+s.queue+"/stats", "", bearer(s.in.operatorToken)...)
			if got.status != http.StatusOK {
				return // it is gone
			}
			s.observe(fmt.Sprintf("stats on origin %d", i+1), answer{body: map[string]any{"watermark": got.body["watermark"]}})
			if taken := got.number("sessions") + got.number("offers"); taken > standoffCapacity {
				s.in.t.Errorf("origin %d: %d sessions and offers, capacity %d", i+1, taken, standoffCapacity)
			}
		})
	}
	return func() {
		s.in.t.Helper()
		s.in.eventually(20*time.Second, "both edges know what happened while an origin was stopped", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			for i := range s.in.url.edges {
				for who, want := range map[string]string{
					"the state of " + s.others.closing: "closed", "a session": "revoked", "the new queue": "known",
				} {
					if s.seen[fmt.Sprintf("%s on edge %d", who, i+1)].final != want {
						return false
					}
				}
			}
			return true
		})
		cancel()
		group.Wait()
	}
}

// checkLog reads the queue's log from its beginning: a lawful history, in which everybody was
// offered a slot for the first time in order of arrival, for all were present all the time.
func (s *standoff) checkLog() {
	s.in.t.Helper()
	entries := s.log()
	if err := storetest.CheckHistory(entries); err != nil {
		s.in.t.Errorf("the queue's log: %v", err)
	}
	offered := make(map[uint64]bool)
	var highest uint64
	for _, e := range entries {
		for _, position := range e.Positions {
			switch {
			case e.Kind != queue.EntryOffered || offered[position]:
			case position < highest:
				s.in.t.Errorf("entry %d: position %d is offered a slot for the first time after %d", e.Number, position, highest)
			default:
				highest, offered[position] = position, true
			}
			if e.Kind != queue.EntryClaimed {
				continue
			}
			s.mu.Lock()
			if at, told := s.sessions[e.Session]; told && at != int(position) {
				s.in.t.Errorf("the session of position %d was given to %d", position, at)
			}
			s.mu.Unlock()
		}
	}
	if len(offered) != s.fans || len(s.positions) != s.fans {
		s.in.t.Errorf("%d fans have %d positions, of which %d were offered a slot", s.fans, len(s.positions), len(offered))
	}
	s.in.t.Logf("%d entries", len(entries))
}

// checkSessions wants one session for each fan.
func (s *standoff) checkSessions() {
	s.in.t.Helper()
	has := make(map[int]int)
	for _, position := range s.sessions {
		has[position]++
	}
	for position := range s.positions {
		if has[position] > 1 {
			s.in.t.Errorf("position %d has %d sessions, want one", position, has[position])
		}
	}
	counts, err := s.store.Counts(s.in.t.Context(), queue.ID(s.queue))
	if want := (store.Counts{Issued: uint64(s.fans), Claimed: s.fans, Ended: s.fans}); err != nil ||
		counts.Issued != want.Issued || counts.Claimed != want.Claimed || counts.Ended != want.Ended {
		s.in.t.Errorf("the queue counts %+v (%v), want everybody to have had one session", counts, err)
	}
}
