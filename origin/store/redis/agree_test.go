package redis_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"waitingroom/origin/queue"
	"waitingroom/origin/store/memory"
	"waitingroom/origin/store/redis/redistest"
)

var (
	agreeSequences = flag.Int("agree.sequences", 200, "how many sequences TestAgreesWithMemory plays")
	agreeSeed      = flag.Uint64("agree.seed", 1, "which ones; 0 chooses a seed and prints it")
)

// TestAgreesWithMemory plays random sequences of calls on Redis and on the embedded store, and wants
// every answer, every refusal and every entry of the log alike. The first difference is shrunk to a
// sequence from which nothing can be left out, and printed call by call.
func TestAgreesWithMemory(t *testing.T) {
	server := redistest.Start(t)
	seed := *agreeSeed
	for seed == 0 {
		seed = uint64(rand.Uint32())
	}
	t.Logf("-agree.seed %d", seed)
	agree(t, pair{redis: open(t, server), keys: connect(t, server)}, *agreeSequences, seed)
}

// TestLostReplies plays the same with a connection that breaks now and then after Redis has run a
// script and before its answer arrives, so that the script runs twice.
func TestLostReplies(t *testing.T) {
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server)
	agree(t, pair{redis: openAt(t, proxy.Addr), keys: connect(t, server), lose: proxy.LoseReply}, 10, 1)
	if proxy.Lost.Load() < 50 {
		t.Errorf("only %d replies were lost", proxy.Lost.Load())
	}
}

// agree plays sequences on a queue each, in both stores.
func agree(t *testing.T, template pair, sequences int, seed uint64) {
	// The library takes these from the command line only; a seed from there, which is what it prints of a
	// failure, goes before. It would keep failures among the sources; the seed repeats them as well.
	for name, value := range map[string]string{
		"rapid.checks": strconv.Itoa(sequences), "rapid.seed": strconv.FormatUint(seed, 10),
		"rapid.steps": "40", "rapid.nofailfile": "true",
	} {
		was := flag.Lookup(name).Value.String()
		if name == "rapid.seed" && was != "0" {
			continue
		}
		if err := flag.Set(name, value); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = flag.Set(name, was) })
	}
	played, begun := 0, 0
	calls := make(map[string]int)
	rapid.Check(t, func(rt *rapid.T) {
		begun++
		p := template
		p.t, p.ctx, p.memory, p.calls = rt, t.Context(), &memory.Store{}, calls
		p.id = queue.MakeID(fmt.Sprint("agree-", begun), "match")
		if err := p.keys.FlushDB(p.ctx).Err(); err != nil {
			rt.Fatalf("empty Redis: %v", err)
		}
		p.begin()
		rt.Repeat(p.moves())
		p.finish()
		played++
	})
	// Near the deadline of the test the library ends early and is content.
	if played < sequences && !testing.Short() {
		t.Errorf("only %d of %d sequences were played", played, sequences)
	}
	t.Logf("%d sequences, answers by call: %v", played, calls)
}

// moves are the steps of which sequences consist; one that is named more often comes more often.
func (p *pair) moves() map[string]func(*rapid.T) {
	moves := map[string]func(*rapid.T){"": func(*rapid.T) {}}
	for _, move := range []struct {
		name  string
		often int
		do    func()
	}{
		{"acquire", 1, p.acquireLease}, {"claim", 4, p.claim}, {"close turns", 1, p.closeTurns}, {"commit", 2, p.commitAnything},
		{"create", 1, p.create}, {"delete", 1, p.delete}, {"end", 1, p.end}, {"join", 3, p.join}, {"journal", 1, p.journal}, {"leave", 1, p.leave},
		{"read", 1, p.read}, {"release", 1, p.release}, {"renew", 1, p.renew}, {"revoke", 1, p.revoke},
		{"schedule", 1, p.schedule}, {"see", 3, p.see}, {"silence", 1, p.silence}, {"tick", 6, p.tickOnce}, {"update", 2, p.update},
	} {
		for n := range move.often {
			moves[fmt.Sprint(move.name, " ", n)] = func(*rapid.T) { move.do() }
		}
	}
	return moves
}
