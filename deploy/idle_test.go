package deploy_test

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// idleQueues is how many queues lie about in TestIdleQueuesCostNothing.
const idleQueues = 2000

// TestIdleQueuesCostNothing makes thousands of queues, of every kind that is idle: open and empty,
// scheduled with early fans, paused, sold out and closed. Then the whole installation asks Redis for no
// more than one with a single queue would.
func TestIdleQueuesCostNothing(t *testing.T) {
	t.Parallel()
	in := setup{kind: shipped}.install(t)
	redis := goredis.NewClient(&goredis.Options{Addr: in.redis.Addr})
	defer redis.Close()
	settings := []string{
		`"capacity":5`, `"capacity":5,"opensAt":"2100-01-01T00:00:00Z"`, `"capacity":0,"state":"paused"`,
		`"capacity":5,"remaining":0`, `"capacity":5,"state":"closed"`,
	}
	for i := range idleQueues {
		body := fmt.Sprintf(`{"slug":"idle-%d",%s}`, i, settings[i%len(settings)])
		if got := in.request(http.MethodPost, in.url.origins[0]+"/queues", body, bearer(in.operatorToken)); got.status != http.StatusCreated {
			t.Fatalf("create: got %d %s", got.status, got.raw)
		}
	}
	for i := 1; i < idleQueues; i += 100 { // early fans
		queue := fmt.Sprintf("%s.idle-%d", tenant, i)
		in.eventually(30*time.Second, "the edge to know the queue", func() bool {
			return in.request(http.MethodGet, in.url.edges[0]+"/queues/"+queue, "", nil).status == http.StatusOK
		})
		in.join(0, queue).poll(0)
	}
	// What making them has set going ends by itself.
	var before, after map[string]int
	in.eventually(time.Minute, "quiet", func() bool {
		before = in.commands(redis)
		<-time.After(time.Second)
		return sum(in.commands(redis))-sum(before) < 100
	})
	// Longer than any rhythm in which things are looked at although nothing happens, but for the rarest.
	origin, edge, server := in.cpu(in.watchedOrigin(0)), in.cpu(in.watchedEdge(0)), cpuOfRedis(t, redis)
	const window = 7 * time.Second
	<-time.After(window)
	after = in.commands(redis)
	perSecond := float64(sum(after)-sum(before)) / (window + time.Second).Seconds()
	t.Logf("with %d idle queues: %.1f commands a second, CPU of origin %.1f %%, edge %.1f %%, Redis %.1f %%", idleQueues, perSecond,
		share(in.cpu(in.watchedOrigin(0))-origin, window), share(in.cpu(in.watchedEdge(0))-edge, window), share(cpuOfRedis(t, redis)-server, window))
	if perSecond > 60 {
		for name, n := range before {
			after[name] -= n
		}
		t.Errorf("got %.0f commands a second with %d idle queues, want at most 60: %v", perSecond, idleQueues, after)
	}
}

func share(seconds float64, of time.Duration) float64 { return 100 * seconds / of.Seconds() }

// commands counts what Redis was sent and what its scripts called, by command.
func (in *installation) commands(redis *goredis.Client) map[string]int {
	in.t.Helper()
	text, err := redis.Info(in.t.Context(), "commandstats").Result()
	if err != nil {
		in.t.Fatalf("read the statistics of commands: %v", err)
	}
	counts := make(map[string]int)
	for line := range strings.Lines(text) {
		var calls int
		name, rest, found := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":calls=")
		if found && name != "info" {
			if _, err := fmt.Sscanf(rest, "%d,", &calls); err != nil {
				in.t.Fatalf("read the statistics of commands: %q: %v", line, err)
			}
			counts[name] = calls
		}
	}
	return counts
}

func sum(counts map[string]int) int {
	total := 0
	for n := range maps.Values(counts) {
		total += n
	}
	return total
}

// cpu is the processor time that a program has used, in seconds.
func (in *installation) cpu(w watched) float64 { return w.metric("process_cpu_seconds_total") }

func cpuOfRedis(t *testing.T, redis *goredis.Client) float64 {
	t.Helper()
	info, err := redis.InfoMap(t.Context(), "cpu").Result()
	if err != nil {
		t.Fatalf("read Redis's processor time: %v", err)
	}
	var system, user float64
	if _, err := fmt.Sscan(info["CPU"]["used_cpu_sys"], &system); err != nil {
		t.Fatalf("read Redis's processor time: %v", err)
	}
	if _, err := fmt.Sscan(info["CPU"]["used_cpu_user"], &user); err != nil {
		t.Fatalf("read Redis's processor time: %v", err)
	}
	return system + user
}

// TestNothingIsLeftOfAClosedQueue has everything happen in a queue that can, closes it, and looks at
// every key that Redis then has. The origin is stopped and started in between: the data goes although
// nobody remembers the queue but the schedule.
func TestNothingIsLeftOfAClosedQueue(t *testing.T) {
	t.Parallel()
	in := install(t)
	redis := goredis.NewClient(&goredis.Options{Addr: in.redis.Addr})
	defer redis.Close()
	in.createQueue("warm-up", `"capacity":1`)
	keys := func() []string {
		all, err := redis.Keys(t.Context(), "*").Result()
		if err != nil {
			t.Fatalf("list keys: %v", err)
		}
		slices.Sort(all)
		return all
	}
	queue := in.createQueue("match", `"capacity":3,"claimSeconds":1,"maxMissedOffers":5,"retentionSeconds":8`)
	buyer, leaver, idler, last := in.join(0, queue), in.join(1, queue), in.join(0, queue), in.join(1, queue)
	session := buyer.enter(0)
	_ = leaver.enter(1)
	in.request(http.MethodDelete, in.url.edges[1]+"/tickets/"+leaver.id, "", bearer(leaver.ticket))
	idler.poll(0)
	user := in.request(http.MethodPost, in.url.edges[0]+"/queues/"+queue+"/tickets", `{"userId":"fan-7"}`, []string{"X-API-Key: " + in.secretKey})
	if user.status != http.StatusCreated {
		t.Fatalf("join of a user: got %d %s", user.status, user.raw)
	}
	in.eventually(30*time.Second, "a missed offer", func() bool {
		last.poll(1)
		return in.request(http.MethodGet, in.url.origins[0]+"/queues/"+queue+"/stats", "", bearer(in.operatorToken)).number("missedOffers") > 0
	})
	closed := in.request(http.MethodPatch, in.url.origins[0]+"/queues/"+queue, `{"state":"closed","remaining":7}`, append(bearer(in.operatorToken), "Content-Type: application/json"))
	if closed.status != http.StatusOK {
		t.Fatalf("close: got %d %s", closed.status, closed.raw)
	}
	if got := in.access(0, session); got != http.StatusOK {
		t.Errorf("a session of a closed queue: access answers %d, want 200", got)
	}
	if got := in.request(http.MethodDelete, in.url.edges[0]+"/tickets/"+buyer.id, "", bearer(buyer.ticket)); got.status != http.StatusNoContent {
		t.Errorf("leave: got %d %s, want 204", got.status, got.raw)
	}
	in.origins[0].stop()
	if !slices.ContainsFunc(keys(), func(key string) bool { return strings.Contains(key, "{"+queue+"}") }) {
		t.Error("the data of a closed queue is gone before its retention was over")
	}
	in.origins[0].start()
	in.eventually(time.Minute, "the data to go", func() bool {
		return !slices.ContainsFunc(keys(), func(key string) bool { return strings.Contains(key, queue) })
	})
	// Of what is not a key of its own: the registry and the schedule, which go right after the keys.
	in.eventually(30*time.Second, "registry and schedule to forget the queue", func() bool {
		slugs, err := redis.SMembers(t.Context(), "wr:{"+tenant+"}:queues").Result()
		due, err2 := redis.ZRange(t.Context(), "wr:schedule", 0, -1).Result()
		return err == nil && err2 == nil && slices.Equal(slugs, []string{"warm-up"}) && !slices.Contains(due, queue)
	})
	in.eventually(30*time.Second, "both edges to forget the queue", func() bool {
		return in.request(http.MethodGet, in.url.edges[0]+"/queues/"+queue, "", nil).status == http.StatusNotFound &&
			in.request(http.MethodGet, in.url.edges[1]+"/queues/"+queue, "", nil).status == http.StatusNotFound
	})
	if got := last.poll(1); got.status != http.StatusGone {
		t.Errorf("poll with a ticket of it: got %d %s, want 410", got.status, got.raw)
	}
	if got := in.request(http.MethodGet, in.url.origins[0]+"/queues/"+queue, "", bearer(in.operatorToken)); got.status != http.StatusNotFound {
		t.Errorf("GET of it: got %d %s, want 404", got.status, got.raw)
	}
	// The id is free again.
	in.createQueue("match", `"capacity":3`)
}
