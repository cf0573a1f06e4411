package edge

import (
	"fmt"
	"hash/maphash"
	"unsafe"

	lru "github.com/hashicorp/golang-lru/v2"
)

// shards spreads the lock of an LRU.
const shards = 16

// remembered keeps what verified tokens said, by the whole token, so that a token is verified
// once and not at every request. Expiry is not its business.
type remembered[V any] struct {
	seed   maphash.Seed
	caches [shards]*lru.Cache[string, V]
}

func newRemembered[V any](size int) (*remembered[V], error) {
	r := &remembered[V]{seed: maphash.MakeSeed()}
	for i := range r.caches {
		var err error
		if r.caches[i], err = lru.New[string, V](max(size/shards, 1)); err != nil {
			return nil, fmt.Errorf("make cache of tokens: %w", err)
		}
	}
	return r, nil
}

func (r *remembered[V]) shard(token []byte) *lru.Cache[string, V] {
	return r.caches[maphash.Bytes(r.seed, token)%shards]
}

// get looks a token up. The cache does not keep the key that it is asked for, so the token's
// bytes need not be copied.
func (r *remembered[V]) get(token []byte) (V, bool) {
	return r.shard(token).Get(unsafe.String(unsafe.SliceData(token), len(token)))
}

func (r *remembered[V]) add(token []byte, value V) {
	r.shard(token).Add(string(token), value)
}
