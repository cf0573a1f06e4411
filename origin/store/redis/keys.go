package redis

import (
	"strconv"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

// Every key of this package is named here.
//
// All keys of one queue carry the hash tag {tenant.slug}, so that a script works on one slot of a
// cluster:
//
//	meta            hash: description, counters, lease, turn; see the scripts
//	log             stream: entry n of the log has the id n-0
//	offers          zset: position -> claimBy
//	expiries        zset: position of a session -> expiry
//	sessions        hash: position -> subject, start, expiry, id
//	sessionids      hash: session id -> position
//	edges           hash: edge -> time of its last complete report
//	joiners         zset: edge -> time of its last batch of joins
//	batches:EDGE    hash: sequence number -> answer, last -> highest sequence number
//	users:B         hash: user key -> position, in 4,096 buckets small enough for a listpack
//	fates:P         bitmap of 4 bits a position: what became of it; absent while all wait
//	named:P         bitmap: whose position a user has in the map; absent while nobody's is
//	waiting:P       bitmap: who waits without an offer
//	lapsed:P        bitmap: whose offer lapsed after the last sighting; absent while nobody's did
//	missed:P        hash: position -> missed offers
//	seen:T:P        bitmap: who was seen in turn T
//	journal         hash: how far the operator's journal has come, and what it goes on from
//	minutes         stream: the journal's minute m since 1970 has the id m-0
//	moves           stream: the journal's move n has the id n-0
//	scratch:1, 2    exist only while a script runs
//
// P counts pages of positions. waiting, lapsed, missed and seen exist for live pages only: those
// in which somebody waits or has an offer, listed in meta. A page's bitmaps are made at once at
// their full size.
//
// Keys of a tenant carry {tenant}: the set of its slugs, those of them that were deleted with their
// last incarnation, and its revocations. The schedule is one
// for all.
const prefix = "wr:"

// pageSize is how many positions a page has. A bitmap of that size is a string of 8,184 bytes,
// and one of fates of 32,736, which with the header that Redis puts before a string and the zero
// after it just fit into the allocator's classes of 8 and 32 KiB; 65,536 would waste a quarter.
const (
	pageSize  = 65_472
	pageBytes = pageSize / 8
	fateBytes = pageSize / 2
)

// userBuckets is how many hashes the users of a queue are spread over. Up to 512 entries each,
// Redis keeps them as listpacks, at about 25 bytes a user.
const userBuckets = 4096

const (
	// batchesKept and batchesKeptFor say which batches of an edge are remembered.
	batchesKept    = 256
	batchesKeptFor = time.Minute
	// batchesTTL ends the memory of an edge that sends no more; longer than batchesKeptFor so that
	// clocks that differ a little do no harm.
	batchesTTL = 2 * time.Minute
	// joinersKeptFor is how long an edge's batches can be found to be deleted.
	joinersKeptFor = 24 * time.Hour
	// DefaultLogEntries is how many entries of a queue's log are kept, at least.
	DefaultLogEntries = 20_000
)

// hintChannel is where scripts publish the ids of queues whose log has grown.
const hintChannel = prefix + "hints"

// scheduleKey holds the reminders of all queues.
const scheduleKey = prefix + "schedule"

// registryKey is the set of a tenant's slugs. It may name queues that do not exist.
func registryKey(tenant string) string { return prefix + "{" + tenant + "}:queues" }

// deletedKey is the hash of a tenant's slugs that were deleted, with the last incarnation of each.
func deletedKey(tenant string) string { return prefix + "{" + tenant + "}:deleted" }

// revocationKeys are the stream of a tenant's revocations, the set of those on it, and its
// counters.
func revocationKeys(tenant string) []string {
	base := prefix + "{" + tenant + "}:revo"
	return []string{base + "cations", base + "ked", base + "cations:meta"}
}

// queueKeys names the keys of one queue.
type queueKeys string

func keysOf(id queue.ID) queueKeys { return queueKeys(prefix + "{" + string(id) + "}:") }

func (k queueKeys) meta() string       { return string(k) + "meta" }
func (k queueKeys) log() string        { return string(k) + "log" }
func (k queueKeys) offers() string     { return string(k) + "offers" }
func (k queueKeys) expiries() string   { return string(k) + "expiries" }
func (k queueKeys) sessions() string   { return string(k) + "sessions" }
func (k queueKeys) sessionIDs() string { return string(k) + "sessionids" }
func (k queueKeys) edges() string      { return string(k) + "edges" }
func (k queueKeys) joiners() string    { return string(k) + "joiners" }
func (k queueKeys) journal() string    { return string(k) + "journal" }
func (k queueKeys) minutes() string    { return string(k) + "minutes" }
func (k queueKeys) moves() string      { return string(k) + "moves" }

func (k queueKeys) scratch(n int) string       { return k.numbered("scratch:", uint64(n)) }
func (k queueKeys) batches(edge string) string { return string(k) + "batches:" + edge }
func (k queueKeys) users(bucket uint64) string { return k.numbered("users:", bucket) }
func (k queueKeys) fates(page uint64) string   { return k.numbered("fates:", page) }
func (k queueKeys) named(page uint64) string   { return k.numbered("named:", page) }
func (k queueKeys) waiting(page uint64) string { return k.numbered("waiting:", page) }
func (k queueKeys) lapsed(page uint64) string  { return k.numbered("lapsed:", page) }
func (k queueKeys) missed(page uint64) string  { return k.numbered("missed:", page) }
func (k queueKeys) seen(turn, page uint64) string {
	return k.numbered("seen:", turn) + ":" + strconv.FormatUint(page, 10)
}

func (k queueKeys) numbered(name string, n uint64) string {
	return string(strconv.AppendUint(append([]byte(k), name...), n, 10))
}

// pageOf is the page of a position, which counts from 1.
func pageOf(position uint64) uint64 { return (position - 1) / pageSize }

// bucketOf is the bucket of a user; the script computes it in the same way.
func bucketOf(user store.Key) uint64 { return uint64(user[0])<<4 | uint64(user[1])>>4 }
