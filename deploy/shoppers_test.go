package deploy_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	shopperCount  = 24
	shopCapacity  = 8
	goesOnWithin  = 45 * time.Second
	answersWithin = 15 * time.Second
)

// What shoppers do, as far as it is counted.
const (
	deedJoin = iota
	deedPoll
	deedClaim
	deedRelease
	deeds
)

var deedNames = [deeds]string{"joins", "polls", "claims", "releases"}

// shoppers are fans who join, wait, shop and go, one after the other, through both edges, and note
// every answer that is neither right nor a 503 with Retry-After. They count by what they were
// answered alone.
type shoppers struct {
	in     *installation
	t      *testing.T
	queue  string
	client *http.Client
	stop   context.CancelFunc
	work   sync.WaitGroup

	done [deeds]atomic.Int64
	busy atomic.Int64 // answers 503

	mu       sync.Mutex
	given    map[int]bool // positions
	line     map[*fan]bool
	held     map[int]bool // positions that hold a slot for sure: true with a session, false with an offer
	entered  int          // sessions that were started
	ended    int          // sessions that were ended
	doubtful bool         // an offer that was only seen does not count any more
	wrongs   []string
}

// goShopping makes a queue and lets shoppers come, until end is called.
func (in *installation) goShopping() *shoppers {
	in.t.Helper()
	s := &shoppers{
		in: in, t: in.t,
		queue: in.createQueue("match", fmt.Sprintf(`"capacity":%d,"claimSeconds":3600,"purchaseWindowSeconds":3600`, shopCapacity)),
		client: &http.Client{
			Timeout:   answersWithin,
			Transport: &http.Transport{MaxIdleConnsPerHost: 2 * shopperCount},
		},
		given: make(map[int]bool), line: make(map[*fan]bool), held: make(map[int]bool),
	}
	ctx, stop := context.WithCancel(in.t.Context())
	s.stop = stop
	in.t.Cleanup(func() {
		s.stop()
		s.work.Wait()
		s.client.CloseIdleConnections()
	})
	for n := range shopperCount {
		s.work.Go(func() {
			for round := 0; ctx.Err() == nil; round++ {
				user := ""
				if round%3 == 0 {
					user = fmt.Sprintf("user-%d-%d", n, round)
				}
				s.shop(ctx, user)
			}
		})
	}
	s.goesOn("at first")
	return s
}

// goesOn waits until all that shoppers do succeeds again, several times.
func (s *shoppers) goesOn(after string) {
	s.t.Helper()
	begin, busy := time.Now(), s.busy.Load()
	var before [deeds]int64
	for i := range before {
		before[i] = s.done[i].Load()
	}
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for i := range before {
		for s.done[i].Load() < before[i]+10 {
			if <-again.C; time.Since(begin) > goesOnWithin {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.t.Fatalf("%s: too few %s for %v; wrong so far: %.2000q", after, deedNames[i], goesOnWithin, s.wrongs)
			}
		}
	}
	s.t.Logf("%s: all goes on within %v, after %d times 503", after, time.Since(begin).Round(time.Millisecond), s.busy.Load()-busy)
}

// feel waits until shoppers have met a fault: until some were answered 503.
func (s *shoppers) feel(fault string) {
	s.t.Helper()
	before := s.busy.Load()
	s.in.eventually(goesOnWithin, "somebody notices: "+fault, func() bool { return s.busy.Load() > before })
}

func (s *shoppers) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wrongs = append(s.wrongs, fmt.Sprintf(format, args...))
}

func (s *shoppers) edge() string { return s.in.url.edges[rand.IntN(len(s.in.edges))] }

// insist sends a request to one edge or the other for as long as the answer is 503 with
// Retry-After, and notes any other that is not right.
func (s *shoppers) insist(ctx context.Context, method, path, body string, headers []string, right ...int) (a answer, ok bool) {
	pause := time.NewTicker(30 * time.Millisecond)
	defer pause.Stop()
	for {
		a = s.in.requestBy(s.client, method, s.edge()+path, body, headers)
		if slices.Contains(right, a.status) {
			return a, true
		}
		if seconds, err := strconv.Atoi(a.header.Get("Retry-After")); a.status != http.StatusServiceUnavailable || err != nil || seconds < 1 {
			s.note("%s %s: got %d %s, Retry-After %q", method, path, a.status, a.raw, a.header.Get("Retry-After"))
			return a, false
		}
		s.busy.Add(1)
		select {
		case <-ctx.Done():
			return a, false
		case <-pause.C:
		}
	}
}

// shop is one place in line from the join to the end of the session. A user has two devices, which
// do everything at once.
func (s *shoppers) shop(ctx context.Context, user string) {
	devices := make([]*fan, 1)
	if user != "" {
		devices = make([]*fan, 2)
	}
	var both sync.WaitGroup
	for i := range devices {
		both.Go(func() { devices[i] = s.join(ctx, user) })
	}
	both.Wait()
	if slices.Contains(devices, nil) {
		return
	}
	f := devices[0]
	if other := devices[len(devices)-1]; other.position != f.position || other.id != f.id {
		s.note("the same user has the positions %d and %d", f.position, other.position)
		return
	}
	s.mu.Lock()
	s.line[f] = true
	s.mu.Unlock()
	sessions := make([]string, len(devices))
	for i, device := range devices {
		both.Go(func() { sessions[i] = s.enter(ctx, device) })
	}
	both.Wait()
	if slices.Contains(sessions, "") {
		return
	}
	if sessions[0] != sessions[len(sessions)-1] {
		s.note("two devices of a user have the sessions %q", sessions)
	}
	s.release(ctx, f, sessions[0])
}

// join joins, with the position entered in the book.
func (s *shoppers) join(ctx context.Context, user string) *fan {
	body, key, right := `{}`, s.in.publishableKey, []int{http.StatusCreated}
	if user != "" { // the other device may have been first, or an attempt that was answered 503
		body, key, right = `{"userId":"`+user+`"}`, s.in.secretKey, append(right, http.StatusOK)
	}
	got, ok := s.insist(ctx, "POST", "/queues/"+s.queue+"/tickets", body, []string{"X-API-Key: " + key}, right...)
	if !ok {
		return nil
	}
	s.done[deedJoin].Add(1)
	position := got.number("position")
	s.mu.Lock()
	defer s.mu.Unlock()
	if got.status == http.StatusCreated {
		if position < 1 || s.given[position] {
			s.wrongs = append(s.wrongs, fmt.Sprintf("position %d was given twice", position))
		}
		s.given[position] = true
	}
	return &fan{in: s.in, ticket: got.text("ticket"), id: got.text("ticketId"), position: position}
}

// enter polls until it is the fan's turn, claims, and opens the shop's door with the session.
func (s *shoppers) enter(ctx context.Context, f *fan) (session string) {
	for {
		if !s.awaitTurn(ctx, f) {
			return ""
		}
		got, ok := s.insist(ctx, "POST", "/tickets/"+f.id+"/session", "", bearer(f.ticket), http.StatusOK, http.StatusConflict)
		if !ok {
			return ""
		}
		if got.status == http.StatusConflict {
			s.mu.Lock()
			doubtful := s.doubtful
			s.mu.Unlock()
			if !doubtful || got.text("code") != "not_your_turn" {
				s.note("claim of position %d, which was admitted: got %s", f.position, got.raw)
			}
			continue
		}
		s.done[deedClaim].Add(1)
		s.hold(f, true)
		token := got.text("sessionToken")
		if _, ok := s.insist(ctx, "GET", "/access?queue="+s.queue, "", bearer(token), http.StatusOK); !ok {
			return ""
		}
		return jti(s.t, token)
	}
}

// awaitTurn polls until the ticket is admitted, or a session was claimed with the other device.
func (s *shoppers) awaitTurn(ctx context.Context, f *fan) bool {
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		got, ok := s.insist(ctx, "GET", "/tickets/"+f.id, "", bearer(f.ticket), http.StatusOK)
		if !ok {
			return false
		}
		s.done[deedPoll].Add(1)
		state := got.text("state")
		if got.number("position") != f.position || !slices.Contains([]string{"waiting", "admitted", "active"}, state) {
			s.note("poll of position %d: got %s, want it in line", f.position, got.raw)
			return false
		}
		if state != "waiting" {
			s.hold(f, false)
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-again.C:
		}
	}
}

// hold enters that a fan holds a slot, with an offer or a session, and counts.
func (s *shoppers) hold(f *fan, session bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !session && s.doubtful {
		return
	}
	if session && !s.held[f.position] {
		s.entered++
	}
	s.held[f.position] = s.held[f.position] || session
	if len(s.held) > shopCapacity {
		s.wrongs = append(s.wrongs, fmt.Sprintf("%d slots are held, the capacity is %d", len(s.held), shopCapacity))
	}
}

// masterDies says that offers which were only seen in the log may be gone with a master. Until here
// they counted; from here on only what was acknowledged does.
func (s *shoppers) masterDies() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.doubtful = true
	for position, session := range s.held {
		if !session {
			delete(s.held, position)
		}
	}
}

// release ends a session through whichever origin answers.
func (s *shoppers) release(ctx context.Context, f *fan, session string) {
	s.mu.Lock()
	delete(s.held, f.position) // from the moment of asking
	delete(s.line, f)
	s.mu.Unlock()
	pause := time.NewTicker(30 * time.Millisecond)
	defer pause.Stop()
	for {
		origin := s.in.url.origins[rand.IntN(len(s.in.origins))]
		got := s.in.requestBy(s.client, "DELETE", origin+"/sessions/"+session, "", []string{"X-API-Key: " + s.in.secretKey})
		switch {
		case got.status == http.StatusNoContent:
			s.done[deedRelease].Add(1)
			s.mu.Lock()
			s.ended++
			s.mu.Unlock()
			return
		case got.status == http.StatusServiceUnavailable && got.header.Get("Retry-After") != "":
			s.busy.Add(1)
		case got.status != 0: // 0 when the origin was killed
			s.note("release: got %d %s", got.status, got.raw)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
	}
}

// end stops the shoppers and looks for everybody's place.
func (s *shoppers) end() {
	s.t.Helper()
	s.stop()
	s.work.Wait()
	for f := range s.line {
		got, ok := s.insist(s.t.Context(), "GET", "/tickets/"+f.id, "", bearer(f.ticket), http.StatusOK)
		if ok && (got.number("position") != f.position || !slices.Contains([]string{"waiting", "admitted", "active"}, got.text("state"))) {
			s.note("position %d lost its place: %s", f.position, got.raw)
		}
	}
	for _, wrong := range s.wrongs[:min(len(s.wrongs), 30)] {
		s.t.Error(wrong)
	}
	s.t.Logf("%d positions, %d sessions, %d ended, %d in line in the end, %d times 503; %d answers wrong",
		len(s.given), s.entered, s.ended, len(s.line), s.busy.Load(), len(s.wrongs))
}
