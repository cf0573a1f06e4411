package edge

import (
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/valyala/fasthttp"
)

// cells is the generic cell rate algorithm (ITU-T I.371, appendix A), a token bucket that is one
// number: the theoretical arrival time, at which the bucket will be full again. Times are progress
// since some start; a bucket whose time is zero, or has passed, is full.
type cells struct {
	// every is the time in which one token grows back; 0 limits nothing.
	every time.Duration
	// tolerance is how far the theoretical arrival time may lie ahead: the burst less one token.
	tolerance time.Duration
}

func newCells(r JoinRate) cells {
	if r.Off {
		return cells{}
	}
	every := time.Second / time.Duration(r.PerSecond)
	return cells{every: every, tolerance: every * time.Duration(r.Burst-1)}
}

// take takes a token at a time from the bucket whose theoretical arrival time is tat. It returns
// the next one; or, where there is no token, how long it takes until there is one.
func (c cells) take(tat, now time.Duration) (next, wait time.Duration) {
	tat = max(tat, now)
	if early := tat - now - c.tolerance; early > 0 {
		return tat, early
	}
	return tat + c.every, 0
}

// bucket is a token bucket that goroutines share.
type bucket struct{ tat atomic.Int64 }

// take takes a token, or returns how long it takes until there is one.
func (b *bucket) take(c cells, now time.Duration) (wait time.Duration) {
	for {
		tat := b.tat.Load()
		next, wait := c.take(time.Duration(tat), now)
		if wait > 0 || b.tat.CompareAndSwap(tat, int64(next)) {
			return wait
		}
	}
}

// addressBuckets are the token buckets of client address prefixes. It remembers a fixed number of
// them, those that were used last, so that an attacker with many addresses gains no memory; one
// that is forgotten is full when it comes back, which errs on the fan's side.
type addressBuckets struct {
	seed   maphash.Seed
	shards [shards]addressShard
}

type addressShard struct {
	mu   sync.Mutex
	tats *simplelru.LRU[netip.Prefix, time.Duration]
}

func newAddressBuckets(size int) (*addressBuckets, error) {
	b := &addressBuckets{seed: maphash.MakeSeed()}
	for i := range b.shards {
		var err error
		if b.shards[i].tats, err = simplelru.NewLRU[netip.Prefix, time.Duration](max(size/shards, 1), nil); err != nil {
			return nil, fmt.Errorf("make cache of addresses: %w", err)
		}
	}
	return b, nil
}

// take takes a token from the bucket of a prefix.
func (b *addressBuckets) take(c cells, prefix netip.Prefix, now time.Duration) (wait time.Duration) {
	shard := &b.shards[maphash.Comparable(b.seed, prefix)%shards]
	shard.mu.Lock()
	defer shard.mu.Unlock()
	tat, _ := shard.tats.Get(prefix)
	next, wait := c.take(tat, now)
	shard.tats.Add(prefix, next)
	return wait
}

// joinLimits are what a fan meets who has no place yet and asks for one.
type joinLimits struct {
	start                           time.Time // of all buckets' time
	perAddress, publishable, secret cells
	ipv4Bits, ipv6Bits              int
	addresses                       *addressBuckets
	clients                         clientAddresses
	// mostConnections is the number of open connections beyond which joins are shed, so that
	// what is left serves those who have a place.
	mostConnections int32
}

func newJoinLimits(c *Config) (*joinLimits, error) {
	limits := &c.Limits
	j := &joinLimits{
		start:           time.Now(),
		perAddress:      newCells(limits.JoinsPerAddress),
		publishable:     newCells(limits.JoinsPerPublishableKey),
		secret:          newCells(limits.JoinsPerSecretKey),
		ipv4Bits:        limits.AddressBitsIPv4,
		ipv6Bits:        limits.AddressBitsIPv6,
		clients:         newClientAddresses(c.TrustedProxies),
		mostConnections: int32(limits.Connections - limits.Connections/8),
	}
	if !c.knowsClients() {
		j.perAddress = cells{}
	}
	var err error
	j.addresses, err = newAddressBuckets(limits.RememberedAddresses)
	return j, err
}

// prefix is the part of an address that one client is taken to have for itself. An address that
// cannot be known is the zero prefix, and whoever has none shares it.
func (j *joinLimits) prefix(address netip.Addr) netip.Prefix {
	bits := j.ipv6Bits
	if address.Is4() {
		bits = j.ipv4Bits
	}
	p, _ := address.Prefix(bits)
	return p
}

// limitJoin turns away whoever joins too often: by the client's address, and by the API key. Its
// callers have found out before that this fan holds no place here. A join with the secret key
// comes from the shop's backend, for any number of fans, some of whom may be in line already: no
// address limits it. The address goes first, so that one client cannot use up the key that the
// tenant's app shares.
func (s *Server) limitJoin(ctx *fasthttp.RequestCtx, key *apiKey) error {
	j := s.limits
	now := time.Since(j.start)
	if key == nil || !key.secret {
		if j.perAddress.every > 0 {
			if wait := j.addresses.take(j.perAddress, j.prefix(j.clients.of(ctx)), now); wait > 0 {
				s.metrics.turnedAway(turnedAwayAddress)
				return errAddressLimit.after(wait)
			}
		}
	}
	if key == nil {
		return nil
	}
	rate, reason := j.publishable, turnedAwayPublishableKey
	if key.secret {
		rate, reason = j.secret, turnedAwaySecretKey
	}
	if rate.every > 0 {
		if wait := key.joins.take(rate, now); wait > 0 {
			s.metrics.turnedAway(reason)
			return errKeyLimit.after(wait)
		}
	}
	return nil
}

// shedJoin turns away a join while this edge has more to do than it can: before it touches
// anybody who has a place, and those last who may have one.
func (s *Server) shedJoin(ctx *fasthttp.RequestCtx, g *gatherer, who *joiner) error {
	if s.http.GetOpenConnectionsCount() > s.limits.mostConnections && !who.named() {
		s.metrics.turnedAway(turnedAwayConnections)
		ctx.SetConnectionClose() // somebody who has a place may need it
		return errTooManyJoins
	}
	if reason := g.overloaded(who.named()); reason != "" {
		s.metrics.turnedAway(reason)
		return errTooManyJoins
	}
	return nil
}

// retryAfter is what a Retry-After says, in seconds: at least the wait, and up to five more, so
// that those who were turned away together do not come back together.
func retryAfter(wait time.Duration) int {
	return max(1, int((wait+time.Second-1)/time.Second)) + rand.IntN(5)
}
