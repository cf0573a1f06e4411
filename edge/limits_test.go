package edge

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/valyala/fasthttp"
)

func TestCells(t *testing.T) {
	c := newCells(JoinRate{PerSecond: 10, Burst: 3})
	var tat time.Duration
	for i, step := range []struct {
		now, wait time.Duration
	}{
		{0, 0}, {0, 0}, {0, 0}, // the burst
		{0, 100 * time.Millisecond}, {40 * time.Millisecond, 60 * time.Millisecond}, // nothing left
		{100 * time.Millisecond, 0}, {100 * time.Millisecond, 100 * time.Millisecond}, // one grew back
		{time.Hour, 0}, {time.Hour, 0}, {time.Hour, 0}, {time.Hour, 100 * time.Millisecond}, // never more than the burst
	} {
		var wait time.Duration
		if tat, wait = c.take(tat, step.now); wait != step.wait {
			t.Errorf("step %d at %v: got a wait of %v, want %v", i, step.now, wait, step.wait)
		}
	}
}

// TestCellsHoldTheRate tries random arrivals: within any time no more are let through than the
// burst and what grows back, and whoever comes after the wait that was told is let through.
func TestCellsHoldTheRate(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		r := JoinRate{PerSecond: 1 + random.IntN(1000), Burst: 1 + random.IntN(50)}
		c := newCells(r)
		var tat, now time.Duration
		passed := 0
		for range 500 {
			now += time.Duration(random.Int64N(int64(2 * c.every)))
			next, wait := c.take(tat, now)
			if wait > 0 {
				if _, again := c.take(next, now+wait); again != 0 {
					t.Fatalf("seed %d, %+v: told to wait %v, and then %v more", seed, r, wait, again)
				}
			} else {
				passed++
			}
			tat = next
		}
		if most := r.Burst + int(now/c.every) + 1; passed > most {
			t.Errorf("seed %d, %+v: %d passed in %v, want at most %d", seed, r, passed, now, most)
		}
	}
}

func TestABucketIsSharedExactly(t *testing.T) {
	c := newCells(JoinRate{PerSecond: 1, Burst: 100})
	var b bucket
	var passed atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				if b.take(c, time.Millisecond) == 0 {
					passed.Add(1)
				}
			}
		})
	}
	all.Wait()
	if passed.Load() != 100 {
		t.Errorf("400 at once: got %d through, want the burst of 100", passed.Load())
	}
}

func TestManyAddressesDoNotGrowMemory(t *testing.T) {
	const size = 1024
	b, err := newAddressBuckets(size)
	if err != nil {
		t.Fatal(err)
	}
	c := newCells(JoinRate{PerSecond: 1, Burst: 1})
	j := &joinLimits{ipv4Bits: 32, ipv6Bits: 64}
	for i := range 20 * size {
		address := netip.AddrFrom16([16]byte{0x20, 1, 4: byte(i >> 16), 5: byte(i >> 8), 6: byte(i)})
		if wait := b.take(c, j.prefix(address), 0); wait != 0 {
			t.Fatalf("address %d: got a wait of %v, want none for the first join", i, wait)
		}
	}
	total := 0
	for i := range b.shards {
		total += b.shards[i].tats.Len()
	}
	if total > size {
		t.Errorf("after %d addresses: %d are remembered, want at most %d", 20*size, total, size)
	}
}

func TestClientAddress(t *testing.T) {
	c := newClientAddresses([]string{"10.0.0.0/8", "fd00::/8", "192.0.2.7/32"})
	for name, test := range map[string]struct {
		peer      string
		forwarded []string
		want      string
	}{
		"direct":                          {"203.0.113.5", nil, "203.0.113.5"},
		"direct with a claim":             {"203.0.113.5", []string{"198.51.100.1"}, "203.0.113.5"},
		"proxy":                           {"10.1.2.3", []string{"198.51.100.1"}, "198.51.100.1"},
		"two proxies":                     {"10.1.2.3", []string{"198.51.100.1, 10.9.9.9"}, "198.51.100.1"},
		"three proxies, two lines":        {"10.1.2.3", []string{"198.51.100.1, fd00::1", "192.0.2.7"}, "198.51.100.1"},
		"claims to the left":              {"10.1.2.3", []string{"8.8.8.8, 198.51.100.1"}, "198.51.100.1"},
		"claims to be a proxy":            {"10.1.2.3", []string{"10.0.0.1, 198.51.100.1"}, "198.51.100.1"},
		"claims in an earlier line":       {"10.1.2.3", []string{"8.8.8.8", "198.51.100.1"}, "198.51.100.1"},
		"nonsense to the left":            {"10.1.2.3", []string{"<script>,,198.51.100.1"}, "198.51.100.1"},
		"IPv6":                            {"fd00::5", []string{"2001:db8::1"}, "2001:db8::1"},
		"IPv6 with port":                  {"fd00::5", []string{"[2001:db8::1]:443"}, "2001:db8::1"},
		"IPv6 in brackets":                {"fd00::5", []string{"[2001:db8::1]"}, "2001:db8::1"},
		"IPv6 with a zone":                {"fd00::5", []string{"fe80::1%eth0"}, "fe80::1"},
		"IPv4 with port":                  {"10.1.2.3", []string{"198.51.100.1:5000"}, "198.51.100.1"},
		"IPv4 in IPv6":                    {"::ffff:10.1.2.3", []string{"::ffff:198.51.100.1"}, "198.51.100.1"},
		"no blanks":                       {"10.1.2.3", []string{"198.51.100.1,10.9.9.9"}, "198.51.100.1"},
		"tabs":                            {"10.1.2.3", []string{"\t198.51.100.1\t,\t10.9.9.9"}, "198.51.100.1"},
		"no header":                       {"10.1.2.3", nil, "10.1.2.3"},
		"empty header":                    {"10.1.2.3", []string{""}, "10.1.2.3"},
		"empty element":                   {"10.1.2.3", []string{"198.51.100.1,"}, "10.1.2.3"},
		"a name":                          {"10.1.2.3", []string{"fan.example"}, "10.1.2.3"},
		"unknown":                         {"10.1.2.3", []string{"198.51.100.1, unknown"}, "10.1.2.3"},
		"nonsense behind a trusted proxy": {"10.1.2.3", []string{"nonsense, 10.9.9.9"}, "10.1.2.3"},
		"very long":                       {"10.1.2.3", []string{strings.Repeat("1", 4000)}, "10.1.2.3"},
		"all trusted":                     {"10.1.2.3", []string{"10.5.5.5, 10.9.9.9"}, "10.5.5.5"},
	} {
		var ctx fasthttp.RequestCtx
		ctx.Init(&fasthttp.Request{}, &net.TCPAddr{IP: net.ParseIP(test.peer), Port: 1}, nil)
		for _, line := range test.forwarded {
			ctx.Request.Header.Add("X-Forwarded-For", line)
		}
		if got := c.of(&ctx); got.String() != test.want {
			t.Errorf("%s: got %v, want %s", name, got, test.want)
		}
	}
	var ctx fasthttp.RequestCtx
	ctx.Init(&fasthttp.Request{}, &net.UnixAddr{Name: "x"}, nil)
	if got := c.of(&ctx); got.IsValid() {
		t.Errorf("a peer without an address: got %v, want none", got)
	}
}

func TestPrefixes(t *testing.T) {
	j := &joinLimits{ipv4Bits: 24, ipv6Bits: 56}
	for _, test := range [][2]string{
		{"198.51.100.77", "198.51.100.0/24"}, {"2001:db8:0:12ff::1", "2001:db8:0:1200::/56"},
	} {
		if got := j.prefix(netip.MustParseAddr(test[0])).String(); got != test[1] {
			t.Errorf("%s: got %s, want %s", test[0], got, test[1])
		}
	}
	if got := j.prefix(netip.Addr{}); got != (netip.Prefix{}) {
		t.Errorf("no address: got %v, want the zero prefix", got)
	}
}

// behindProxy makes an edge believe the test to be its proxy, so that it can be any client.
func behindProxy(c *Config) { c.TrustedProxies = []string{"127.0.0.0/8"} }

// perMinute lets a token grow back in a minute, which no test waits for, however slow the machine.
func perMinute(burst int) cells {
	return cells{every: time.Minute, tolerance: time.Minute * time.Duration(burst-1)}
}

const joinPath = "/queues/acme.sale/tickets"

// joinAs joins from an address with a key, or from the page where there is none.
func (e *edgeUnderTest) joinAs(address, key, cookie, body string) answer {
	e.t.Helper()
	h := e.fromPage(cookie)
	if key != "" {
		h = headers{"X-API-Key": e.origin.apiKeys[key]}
	}
	h["X-Forwarded-For"] = address
	return e.do("POST", joinPath, h, body)
}

// turnedAway reads a counter as Prometheus does.
func (e *edgeUnderTest) turnedAway(reason string) string {
	e.t.Helper()
	response, err := http.Get("http://" + e.AdminAddr().String() + "/metrics")
	if err != nil {
		e.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		e.t.Fatal(err)
	}
	_, after, found := strings.Cut(string(text), `waitingroom_edge_joins_turned_away_total{reason="`+reason+`"} `)
	if !found {
		e.t.Fatalf("the metrics do not name the reason %s", reason)
	}
	value, _, _ := strings.Cut(after, "\n")
	return value
}

func (e *edgeUnderTest) wantLimited(name string, got answer, code string) {
	e.t.Helper()
	if got.status != http.StatusTooManyRequests || got.code(e.t) != code {
		e.t.Errorf("%s: got %d %s, want 429 %s", name, got.status, got.body, code)
		return
	}
	if after, err := strconv.Atoi(got.header.Get("Retry-After")); err != nil || after < 1 || after > 65 {
		e.t.Errorf("%s: Retry-After: got %q, want some seconds", name, got.header.Get("Retry-After"))
	}
}

func TestJoinsPerAddress(t *testing.T) {
	o := newScripted(t)
	e := startEdge(t, o, behindProxy)
	e.limits.perAddress = perMinute(2)
	farm := "198.51.100.1"
	first := e.joinAs(farm, "", "", `{}`)
	cookie := cookieOf(t, first)
	e.applied("acme.sale")
	if got := e.joinAs("8.8.8.8, "+farm, "acme publishable", "", `{}`); got.status != http.StatusCreated {
		t.Fatalf("second join: got %d %s, want 201", got.status, got.body)
	}
	e.wantLimited("third join", e.joinAs(farm, "acme publishable", "", `{}`), "address_limit")
	e.wantLimited("from the page", e.joinAs(farm, "", "", `{}`), "address_limit")
	e.wantLimited("under a claimed address", e.joinAs("8.8.4.4, "+farm, "", "", `{}`), "address_limit")
	if got := e.turnedAway("address"); got != "3" {
		t.Errorf("joins turned away by address: got %s, want 3", got)
	}

	// Whoever has a place is not touched, nor are other fans, nor the shop's backend.
	kept := e.joinAs(farm, "", cookie.Name+"="+cookie.Value, `{}`)
	if kept.status != http.StatusOK || kept.object(t)["ticketId"] != first.object(t)["ticketId"] {
		t.Errorf("page that holds a place: got %d %s, want 200 with it", kept.status, kept.body)
	}
	h := e.bearer(first.object(t)["ticket"].(string))
	h["X-Forwarded-For"] = farm
	if got := e.do("GET", "/tickets/"+first.object(t)["ticketId"].(string), h, ""); got.status != http.StatusOK {
		t.Errorf("poll: got %d %s, want 200", got.status, got.body)
	}
	if got := e.joinAs("198.51.100.2", "", "", `{}`); got.status != http.StatusCreated {
		t.Errorf("another address: got %d %s, want 201", got.status, got.body)
	}
	for _, body := range []string{`{}`, `{"userId":"u1"}`, `{"userId":"known"}`} {
		if got := e.joinAs(farm, "acme secret", "", body); got.status >= 300 {
			t.Errorf("backend with %s: got %d %s, want success", body, got.status, got.body)
		}
	}
	// A refused request does not count: it was no join.
	for range 5 {
		if got := e.joinAs("198.51.100.3", "acme publishable", "", `{"userId":"u"}`); got.status != http.StatusForbidden {
			t.Errorf("bad join: got %d %s, want 403", got.status, got.body)
		}
	}
	if got := e.joinAs("198.51.100.3", "acme publishable", "", `{}`); got.status != http.StatusCreated {
		t.Errorf("after bad ones: got %d %s, want 201", got.status, got.body)
	}
	// One customer's IPv6 network is one client.
	for i := range 3 {
		got := e.joinAs(fmt.Sprintf("2001:db8:1:2::%d", i+1), "", "", `{}`)
		if want := 201 + min(i/2, 1)*228; got.status != want {
			t.Errorf("join %d from one /64: got %d, want %d", i+1, got.status, want)
		}
	}
	if got := e.joinAs("2001:db8:1:3::1", "", "", `{}`); got.status != http.StatusCreated {
		t.Errorf("another /64: got %d, want 201", got.status)
	}
}

func TestWhoWaitsMayJoin(t *testing.T) {
	o := newScripted(t)
	e := startEdge(t, o, func(c *Config) {
		behindProxy(c)
		c.Limits.JoinsPerAddress = JoinRate{PerSecond: 1, Burst: 1}
	})
	for range 2 {
		waitFor(t, "a token to grow back", func() bool { return e.joinAs("198.51.100.1", "", "", `{}`).status == http.StatusCreated })
	}
}

func TestAddressesThatCannotBeKnownAreNotLimited(t *testing.T) {
	o := newScripted(t)
	e := startEdge(t, o, func(c *Config) {
		c.PublicURL = "https://wait.example"
		c.Limits.JoinsPerAddress = JoinRate{PerSecond: 1, Burst: 2}
	})
	for range 5 {
		if got := e.joinAs("198.51.100.1", "acme publishable", "", `{}`); got.status != http.StatusCreated {
			t.Fatalf("join through an unknown proxy: got %d %s, want 201", got.status, got.body)
		}
	}
	if !strings.Contains(e.logs.String(), "joins are not limited by address") {
		t.Error("the log does not say that there is no limit")
	}
	direct := startEdge(t, o, func(c *Config) { c.TrustedProxies = []string{"10.0.0.0/8"} })
	direct.limits.perAddress = perMinute(2)
	for i := range 3 {
		got := direct.joinAs(fmt.Sprintf("198.51.100.%d", i), "acme publishable", "", `{}`)
		if want := 201 + min(i/2, 1)*228; got.status != want {
			t.Errorf("join %d past the proxy, under a claimed address: got %d, want %d", i+1, got.status, want)
		}
	}
}

func TestJoinsPerKey(t *testing.T) {
	o := newScripted(t)
	e := startEdge(t, o, behindProxy)
	e.limits.publishable, e.limits.secret = perMinute(2), perMinute(3)
	for i := range 4 {
		got := e.joinAs(fmt.Sprintf("198.51.100.%d", i), "acme publishable", "", `{}`)
		if i < 2 && got.status != http.StatusCreated {
			t.Errorf("join %d with the publishable key: got %d %s, want 201", i+1, got.status, got.body)
		} else if i >= 2 {
			e.wantLimited("publishable key", got, "api_key_limit")
		}
	}
	for i := range 4 {
		got := e.joinAs("198.51.100.9", "acme secret", "", `{"userId":"u`+strconv.Itoa(i)+`"}`)
		if i < 3 && got.status != http.StatusCreated {
			t.Errorf("join %d with the secret key: got %d %s, want 201", i+1, got.status, got.body)
		} else if i >= 3 {
			e.wantLimited("secret key", got, "api_key_limit")
		}
	}
	if got := e.joinAs("198.51.100.9", "", "", `{}`); got.status != http.StatusCreated {
		t.Errorf("the page: got %d %s, want 201, for it has no key", got.status, got.body)
	}
	if p, s := e.turnedAway("publishable_key"), e.turnedAway("secret_key"); p != "2" || s != "1" {
		t.Errorf("turned away by key: got %s and %s, want 2 and 1", p, s)
	}

	// One address that is over its own limit uses up nothing of the key that all share.
	o = newScripted(t)
	e = startEdge(t, o, behindProxy)
	e.limits.perAddress, e.limits.publishable = perMinute(2), perMinute(3)
	for range 10 {
		e.joinAs("198.51.100.1", "acme publishable", "", `{}`)
	}
	if got := e.joinAs("198.51.100.2", "acme publishable", "", `{}`); got.status != http.StatusCreated {
		t.Errorf("another fan with the key: got %d %s, want 201", got.status, got.body)
	}
}

// TestASlowGatherShedsNewJoins holds up the origin: fans are turned away at once and not made to
// wait, those who name a user later than the others.
func TestASlowGatherShedsNewJoins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &batches{took: 4 * time.Second}
		g := newTestGatherer(b, 100)
		g.slow = time.Second
		var group, all sync.WaitGroup
		late := func(after time.Duration, user string, want error) {
			all.Go(func() {
				pause(t.Context(), after)
				since := time.Now()
				a := g.join(t.Context(), &group, user)
				if a.err != want || want != nil && time.Since(since) > 0 {
					t.Errorf("%q after %v: got %v in %v, want %v, a refusal at once", user, after, a.err, time.Since(since), want)
				}
			})
		}
		late(0, "", nil)
		late(900*time.Millisecond, "", nil)
		late(1100*time.Millisecond, "", errTooManyJoins)
		late(1100*time.Millisecond, "u", nil)
		late(2100*time.Millisecond, "u", errTooManyJoins)
		late(4100*time.Millisecond, "", errTooManyJoins) // the second batch's oldest waits since 0.9 s
		late(10*time.Second, "", nil)                    // all is well again
		all.Wait()
		group.Wait()
	})
}

func TestTheLastQuarterOfTheGatherIsForUsers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &batches{took: time.Second}
		g := newTestGatherer(b, 8)
		var group, all sync.WaitGroup
		var refused, users atomic.Int64
		all.Go(func() { g.join(t.Context(), &group, "") })
		pause(t.Context(), 10*time.Millisecond) // a batch is under way
		for range 10 {
			all.Go(func() {
				if a := g.join(t.Context(), &group, ""); a.err == errTooManyJoins {
					refused.Add(1)
				}
			})
		}
		pause(t.Context(), 10*time.Millisecond)
		for i := range 3 {
			all.Go(func() {
				if a := g.join(t.Context(), &group, fmt.Sprint(i)); a.err == nil {
					users.Add(1)
				}
			})
		}
		all.Wait()
		group.Wait()
		if refused.Load() != 4 || users.Load() != 2 {
			t.Errorf("room for 8: %d anonymous fans turned away and %d users taken, want 4 and 2", refused.Load(), users.Load())
		}
	})
}

func TestShedJoinsUseUpNoLimit(t *testing.T) {
	o := newScripted(t)
	e := startEdge(t, o, behindProxy)
	e.limits.perAddress = perMinute(2)
	g := e.gatherer("acme.sale")
	g.mu.Lock()
	g.asking = time.Now().Add(-time.Hour) // a batch that never came back
	g.mu.Unlock()
	for range 5 {
		got := e.joinAs("198.51.100.1", "", "", `{}`)
		if got.status != http.StatusServiceUnavailable || got.code(t) != "too_many_joins" || got.header.Get("Retry-After") == "" {
			t.Errorf("slow origin: got %d %s, want 503 too_many_joins with Retry-After", got.status, got.body)
		}
	}
	if got := e.turnedAway("gather_slow"); got != "5" {
		t.Errorf("turned away for slowness: got %s, want 5", got)
	}
	g.mu.Lock()
	g.asking = zeroTime
	g.mu.Unlock()
	for range 2 {
		if got := e.joinAs("198.51.100.1", "", "", `{}`); got.status != http.StatusCreated {
			t.Errorf("afterwards: got %d %s, want 201 for the whole burst", got.status, got.body)
		}
	}
}

// TestTheLastConnectionsAreForThoseWithAPlace opens connections that do nothing.
func TestTheLastConnectionsAreForThoseWithAPlace(t *testing.T) {
	o := newScripted(t)
	e := startEdge(t, o, func(c *Config) { c.Limits.Connections = 16 })
	first := e.joinAs("", "", "", `{}`)
	cookie := cookieOf(t, first)
	e.applied("acme.sale")
	for range 14 {
		c, err := net.Dial("tcp", e.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	waitFor(t, "the connections", func() bool { return e.http.GetOpenConnectionsCount() >= 15 })
	if got := e.do("GET", "/tickets/"+first.object(t)["ticketId"].(string), headers{"Cookie": cookie.Name + "=" + cookie.Value}, ""); got.status != http.StatusOK {
		t.Errorf("poll: got %d %s, want 200", got.status, got.body)
	}
	if got := e.joinAs("", "", cookie.Name+"="+cookie.Value, `{}`); got.status != http.StatusOK {
		t.Errorf("page that holds a place: got %d %s, want 200", got.status, got.body)
	}
	if got := e.joinAs("", "acme secret", "", `{"userId":"known"}`); got.status != http.StatusOK {
		t.Errorf("known user: got %d %s, want 200", got.status, got.body)
	}
	if got := e.turnedAway("connections"); got != "0" {
		t.Errorf("turned away so far: got %s, want 0", got)
	}
	got := e.joinAs("", "", "", `{}`)
	if got.status != http.StatusServiceUnavailable || got.code(t) != "too_many_joins" {
		t.Errorf("new fan: got %d %s, want 503 too_many_joins", got.status, got.body)
	}
	if got := e.turnedAway("connections"); got != "1" {
		t.Errorf("turned away for want of connections: got %s, want 1", got)
	}
}

// TestRetryAfterIsSpread: those who are turned away together must not come back together.
func TestRetryAfterIsSpread(t *testing.T) {
	seen := make(map[int]bool)
	for range 1000 {
		seconds := retryAfter(2500 * time.Millisecond)
		if seconds < 3 || seconds > 7 {
			t.Fatalf("Retry-After for 2.5 s: got %d, want 3 to 7", seconds)
		}
		seen[seconds] = true
	}
	if len(seen) != 5 {
		t.Errorf("1000 answers: got %d different ones, want all 5", len(seen))
	}
}

func BenchmarkAddressLimit(b *testing.B) {
	buckets, err := newAddressBuckets(65_536)
	if err != nil {
		b.Fatal(err)
	}
	c := newCells(JoinRate{PerSecond: 20, Burst: 60})
	j := &joinLimits{ipv4Bits: 32, ipv6Bits: 64}
	b.ReportAllocs()
	n := uint32(0)
	for b.Loop() {
		n = n*1664525 + 1013904223
		buckets.take(c, j.prefix(netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), 1})), time.Duration(n))
	}
}
