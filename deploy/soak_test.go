package deploy_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// What make soak sets to more.
var (
	soakFans = flag.Int("soak.fans", 20_000, "fans of the soak, each of whom joins and polls on a connection of its own")
	soakSeed = flag.Uint64("soak.seed", 0, "seed of what the fans do; 0 takes a random one")
)

const (
	soakCrowd  = 16 // fans at the same time
	soakParts  = 20 // after each of which memory is measured
	soakWarmUp = 1  // of them, after which goroutines are counted for the first time
)

// soaker is the endless coming and going of fans, each of them somebody new: another connection,
// another address, another ticket.
type soaker struct {
	in    *installation
	queue string

	joins, polls, claims, leaves atomic.Int64
}

// TestSoak lets many fans come and go, and looks at what stays behind in edge and origin: memory
// levels off, and goroutines return to where they were.
func TestSoak(t *testing.T) {
	seed := *soakSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d, %d fans", seed, *soakFans)
	// A cache that is not full yet grows, as it should: in a short soak the caches are as small.
	remembered := max(1024, min(131_072, *soakFans/10))
	in := setup{kind: shipped, edgeConfig: fmt.Sprintf(`
trustedProxies: [127.0.0.0/8]
limits: {rememberedTokens: %d, rememberedAddresses: %d}
`, remembered, remembered)}.install(t)
	s := &soaker{in: in, queue: in.createQueue("match", `"capacity":200,"purchaseWindowSeconds":2,"claimSeconds":2`)}
	programs := []watched{in.watchedEdge(0), in.watchedOrigin(0)}
	resident := make([][]float64, len(programs))
	before := make([]int, len(programs))
	for part := range soakParts {
		s.run(rand.New(rand.NewPCG(seed, uint64(part))), part, *soakFans/soakParts)
		if part == soakWarmUp {
			s.settled()
			for i, p := range programs {
				before[i] = p.goroutines()
			}
		}
		for i, p := range programs {
			resident[i] = append(resident[i], p.resident())
		}
	}
	t.Logf("%d joins, %d polls, %d claims, %d leaves", s.joins.Load(), s.polls.Load(), s.claims.Load(), s.leaves.Load())
	s.settled()
	for i, p := range programs {
		after := 0
		in.eventually(30*time.Second, p.name+": goroutines return to where they were", func() bool {
			after = p.goroutines()
			return after <= before[i]+2 // a connection to a neighbour more or less
		})
		t.Logf("%s: %d goroutines before, %d after; resident MiB %.0f", p.name, before[i], after, resident[i])
		// Levelled off: the last quarter stays where the second one was. The collector lets the heap
		// breathe by some MiB.
		early, late := quantile(resident[i][soakParts/4:soakParts/2], 0.5), quantile(resident[i][soakParts*3/4:], 0.5)
		if most := 1.15*early + 4; late > most {
			t.Errorf("%s: resident memory %.0f MiB in the last quarter and %.0f in the second, want at most %.0f", p.name, late, early, most)
		}
	}
}

// settled waits until all fans' connections are gone.
func (s *soaker) settled() {
	s.in.t.Helper()
	http.DefaultClient.CloseIdleConnections() // the test's own
	s.in.eventually(30*time.Second, "the fans' connections are closed", func() bool {
		return s.in.watchedEdge(0).connections() == 0
	})
}

// run plays so many fans, some at a time; the dice decide what each does.
func (s *soaker) run(dice *rand.Rand, part, fans int) {
	s.in.t.Helper()
	type turn struct {
		fan            uint32
		polls          int
		claims, leaves bool
	}
	turns := make(chan turn)
	var failed atomic.Pointer[string]
	var crowd sync.WaitGroup
	for range soakCrowd {
		crowd.Go(func() {
			for next := range turns {
				if failed.Load() != nil {
					continue
				}
				if err := s.visit(next.fan, next.polls, next.claims, next.leaves); err != nil {
					text := err.Error()
					failed.Store(&text)
				}
			}
		})
	}
	for i := range fans {
		turns <- turn{
			fan: uint32(part)<<20 | uint32(i), polls: 1 + dice.IntN(10)/9,
			claims: dice.IntN(2) == 0, leaves: dice.IntN(4) == 0,
		}
	}
	close(turns)
	crowd.Wait()
	if text := failed.Load(); text != nil {
		s.in.t.Fatal(*text)
	}
}

// visit is one fan: joins from an address of its own, polls, and claims or leaves.
func (s *soaker) visit(fan uint32, polls int, claims, leaves bool) error {
	client, err := dialRaw(s.in.url.edges[0])
	if err != nil {
		return err
	}
	defer client.close()
	from := fmt.Sprintf("X-Forwarded-For: 2001:db8:%x:%x::1", fan>>16, fan&0xffff)
	status, body, err := client.ask(rawRequest("POST", "/queues/"+s.queue+"/tickets", `{}`, "X-API-Key: "+s.in.publishableKey, from))
	if err != nil || status != http.StatusCreated {
		return fmt.Errorf("join of fan %d: got %d %s (%v), want 201", fan, status, body, err)
	}
	s.joins.Add(1)
	var got struct{ Ticket, TicketID, State string }
	if err := json.Unmarshal(body, &got); err != nil {
		return fmt.Errorf("join of fan %d: %w", fan, err)
	}
	holder := []string{"Authorization: Bearer " + got.Ticket, from}
	for range polls {
		if status, body, err = client.ask(rawRequest("GET", "/tickets/"+got.TicketID, "", holder...)); err != nil || status != http.StatusOK {
			return fmt.Errorf("poll of fan %d: got %d %s (%v), want 200", fan, status, body, err)
		}
		if err := json.Unmarshal(body, &got); err != nil {
			return fmt.Errorf("poll of fan %d: %w", fan, err)
		}
		s.polls.Add(1)
	}
	if claims && got.State == "admitted" {
		// The offer can have run out on a slow machine.
		if status, body, err = client.ask(rawRequest("POST", "/tickets/"+got.TicketID+"/session", "", holder...)); err != nil ||
			status != http.StatusOK && status != http.StatusConflict {
			return fmt.Errorf("claim of fan %d: got %d %s (%v), want 200", fan, status, body, err)
		}
		s.claims.Add(1)
	}
	if leaves {
		if status, body, err = client.ask(rawRequest("DELETE", "/tickets/"+got.TicketID, "", holder...)); err != nil || status != http.StatusNoContent {
			return fmt.Errorf("leave of fan %d: got %d %s (%v), want 204", fan, status, body, err)
		}
		s.leaves.Add(1)
	}
	return nil
}
