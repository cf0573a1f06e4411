package deploy_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// What make fire sets to more.
var (
	fireFans = flag.Int("fire.fans", 10_000, "joins of the test of places under fire")
	fireSeed = flag.Uint64("fire.seed", 0, "seed of what fans and operator do in it; 0 takes a random one")
)

const (
	fireClients = 64
	// Before the flood of joins and after it, fans come in ones and twos.
	fireDawn, fireDusk = 4 * time.Second, 6 * time.Second
	// flickers is how often the capacity goes up and down until it stays for a moment.
	flickers = 50

	// While little capacity is left, offers have a claim time by which they are known.
	leastClaim, longClaim, pausedClaim = 2 * time.Second, 12 * time.Second, 22 * time.Second

	claimGrace = 5 * time.Second
)

// fire is a sale into which everybody rushes at once, while everything is retuned.
type fire struct {
	in           *installation
	ctx          context.Context // ends when something failed
	queue        string
	stateRequest []byte
	users        int // among whom those who name one are taken
	began        time.Time
	busy         atomic.Int64 // answers 503

	tunings []tuning // the operator's
}

// now is the observer's clock.
func (f *fire) now() time.Duration { return time.Since(f.began) }

// TestPlacesUnderFire has many clients join one queue on two edges and two origins at the same time,
// a third of them for users who come again and again, while fans poll, claim, miss offers, leave and
// are released, and the operator retunes the queue all the time. By the answers alone: no position is
// given to two fans; a user's place stays the user's; who was answered before another one asked stands
// before that one; and no offer is made above capacity.
func TestPlacesUnderFire(t *testing.T) {
	seed := *fireSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d, %d joins", seed, *fireFans)
	in := setup{origins: 2, edgeConfig: "limits: {joinsPerPublishableKey: {off: true}}\n"}.install(t)
	f := &fire{in: in, queue: in.createQueue("match", `"capacity":20,"claimSeconds":2,"purchaseWindowSeconds":3`), users: *fireFans / 9}
	f.tunings = []tuning{{20, leastClaim, 0, never}}
	f.stateRequest = rawRequest("GET", "/queues/"+f.queue+"/state", "")
	f.check(f.play(seed))
}

// play has fans and operator do what they do, and returns the clients with all that they saw.
func (f *fire) play(seed uint64) []*fireClient {
	f.in.t.Helper()
	ctx, cancel := context.WithCancelCause(f.in.t.Context())
	defer cancel(nil)
	f.ctx = ctx
	clients := make([]*fireClient, fireClients)
	for i := range clients {
		clients[i] = &fireClient{
			fire: f, home: i % 2, edges: [2]*rawClient{f.dial(f.in.url.edges[0]), f.dial(f.in.url.edges[1])},
			origin: f.in.url.origins[i/2%2], dice: rand.New(rand.NewPCG(seed, uint64(i))), ended: make(map[string]int),
		}
	}
	origins := [2]*rawClient{f.dial(f.in.url.origins[0]), f.dial(f.in.url.origins[1])}

	flood, over := make(chan struct{}), make(chan struct{})
	var left atomic.Int64 // joins of the flood
	left.Store(int64(*fireFans))
	var all, flooding sync.WaitGroup
	do := func(what func() error) {
		all.Go(func() {
			if err := what(); err != nil {
				cancel(err)
			}
		})
	}
	f.began = time.Now()
	do(func() error { return f.retune(origins, rand.New(rand.NewPCG(seed, fireClients)), over) })
	flooding.Add(len(clients))
	for _, c := range clients {
		do(func() error {
			err := c.trickle(flood)
			for err == nil && left.Add(-1) >= 0 {
				if err = c.join(); err == nil {
					err = c.watch()
				}
			}
			flooding.Done()
			if err == nil {
				err = c.trickle(over)
			}
			return err
		})
	}
	f.wait(fireDawn)
	close(flood)
	started := f.now()
	flooding.Wait()
	f.in.t.Logf("%d joins in %v", *fireFans, (f.now() - started).Round(time.Millisecond))
	f.wait(fireDusk)
	close(over)
	all.Wait()
	for _, c := range clients {
		do(c.settle)
	}
	all.Wait()
	if err := context.Cause(ctx); err != nil {
		f.in.t.Fatal(err)
	}
	return clients
}

func (f *fire) dial(url string) *rawClient {
	f.in.t.Helper()
	client, err := dialRaw(url)
	if err != nil {
		f.in.t.Fatal(err)
	}
	f.in.t.Cleanup(client.close)
	return client
}

// wait lasts for a while, or until something failed.
func (f *fire) wait(d time.Duration) {
	select {
	case <-time.After(d):
	case <-f.ctx.Done():
	}
}

// retune changes the queue's settings until it is over: capacity up and down, the times, paused and
// open again. Mostly at a pace at which changes and ticks get into each other's way.
func (f *fire) retune(origins [2]*rawClient, dice *rand.Rand, over <-chan struct{}) error {
	var few, many int
	for turn := 0; ; turn++ {
		select {
		case <-over:
			return nil
		case <-f.ctx.Done():
			return nil
		default:
		}
		if turn%flickers == 0 {
			few, many = 2+dice.IntN(10), 40+dice.IntN(40)
		}
		var next tuning
		var lasts time.Duration
		if turn%2 == 0 {
			// A little more each time, so that there are slots to be had.
			many += 4
			next, lasts = tuning{many, leastClaim, 0, never}, time.Duration(dice.IntN(25))*time.Millisecond
		} else {
			next, lasts = tuning{few, longClaim, 0, never}, time.Duration(5+dice.IntN(25))*time.Millisecond
			if dice.IntN(4) == 0 {
				next.capacity, next.claim = 0, pausedClaim
			}
		}
		if turn%flickers == flickers-2 {
			lasts = 700 * time.Millisecond // in which all slots are taken
		}
		state, capacity := "open", next.capacity
		if next.claim == pausedClaim {
			state, capacity = "paused", many
		}
		body := fmt.Sprintf(`{"state":%q,"capacity":%d,"claimSeconds":%d,"purchaseWindowSeconds":%d}`,
			state, capacity, int(next.claim.Seconds()), 2+dice.IntN(3))
		request := rawRequest("PATCH", "/queues/"+f.queue, body, "Authorization: Bearer "+f.in.operatorToken)
		next.from = f.now()
		status, answer, err := origins[dice.IntN(2)].ask(request)
		if err != nil || status != http.StatusOK {
			return fmt.Errorf("retune: got %d %s (%v), want 200", status, answer, err)
		}
		f.tunings[len(f.tunings)-1].until = f.now()
		f.tunings = append(f.tunings, next)
		f.wait(lasts)
	}
}

// check judges by what the clients saw.
func (f *fire) check(clients []*fireClient) {
	t := f.in.t
	t.Helper()
	var joins []joined
	var holdings []holding
	var prolonged []time.Duration
	ended := make(map[string]int)
	fans := make(map[uint64]*fireFan)
	for _, c := range clients {
		joins = append(joins, c.joins...)
		prolonged = append(prolonged, c.prolonged...)
		for _, h := range c.holdings {
			holdings = append(holdings, *h)
		}
		for _, fan := range c.fans {
			fans[fan.position] = fan
		}
		for how, n := range c.ended {
			ended[how] += n
		}
	}
	few := func(wrong []string) {
		t.Helper()
		for _, text := range wrong[:min(len(wrong), 10)] {
			t.Error(text)
		}
		if len(wrong) > 10 {
			t.Errorf("and %d more like these", len(wrong)-10)
		}
	}

	wrong, changes := checkPlaces(joins, len(joins)+int(f.busy.Load()))
	few(wrong)
	for _, change := range changes {
		old := fans[change.old.position]
		switch {
		case old == nil: // the answer by which it was new was lost
		case !old.out:
			// It can have gone out since it was asked after, or on the edge that was not asked.
			holder := &fan{in: f.in, ticket: old.ticket, id: old.id, position: int(old.position)}
			f.in.eventually(10*time.Second, fmt.Sprintf("position %d of user %d, who got position %d, is out", old.position, change.user, change.new.position), func() bool {
				state := holder.poll(0).text("state")
				return state != "waiting" && state != "admitted" && state != "active"
			})
		case old.touched > change.new.received && old.state != "expired":
			t.Errorf("user %d got position %d before position %d was offered anything", change.user, change.new.position, old.position)
		}
	}
	for position, fan := range fans {
		if fan.out && fan.touched == never && fan.state != "expired" {
			t.Errorf("position %d is %s, of itself", position, fan.state)
		}
	}

	for i := range holdings {
		holdings[i].attribute(f.tunings, prolonged)
	}
	count := countSlots(holdings)
	few(count.over)
	t.Logf("%d joins, %d answered 503; %d new places, %d of users that changed; %d retunes; %d offers, %d of known capacity, %d of them the last to fit; %v",
		len(joins), f.busy.Load(), len(fans), len(changes), len(f.tunings)-1, len(holdings), count.known, count.full, ended)
	// An observer that looked away proves nothing; but after an interruption it must.
	if count.known < len(holdings)/2 && len(prolonged) == 0 {
		t.Errorf("of %d offers the capacity of %d is known, want most", len(holdings), count.known)
	}
	for _, how := range []string{"lapsed", "ended", "ended early", "left early"} {
		if ended[how] == 0 {
			t.Errorf("nothing came to its end as %q", how)
		}
	}
}
