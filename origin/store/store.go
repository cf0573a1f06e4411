// Package store holds the interfaces through which the origin keeps its queues, and their
// contract. There are two implementations, memory for one process and redis, and one conformance
// suite, storetest, that both pass.
//
// What holds for every method:
//
//   - Each method that changes a queue is atomic, appends to the queue's log in the same step,
//     and can be called again with the same arguments without changing anything twice.
//   - All methods may be called from any number of goroutines and, on Redis, processes.
//   - The time is an argument, taken from Clock; a store never goes below the latest time that
//     it has seen for a queue in a call that it did not refuse, so a caller whose clock lags changes
//     nothing early. Times are cut to milliseconds. What runs until a time (a session, a lease, an offer with its grace) runs
//     no more at that time.
//   - Arguments that no caller can mean are refused before anything else with ErrInvalid: an empty name of
//     an edge in a batch of joins, of an owner, a generation or a session that is to be started or revoked,
//     and what else the checks in arguments.go say.
//   - A method that names an incarnation fails with ErrNotFound when the queue has another one (none is named by the
//     empty string), and every method does when there is no queue of that id.
//   - A returned Ack with Leaderless set asks the caller to take the queue's lease and tick. It is
//     set whenever no lease is live, except for a queue that has nothing to do: a closed one without
//     sessions, and a scheduled one that is asleep (queue.Settings.Asleep).
//   - A session whose expiry has come counts as ended for Join, Claim, Leave and EndSession, which
//     leave it alone; its slot is free once a tick has ended it. Until then it is in snapshots and
//     counts, and Session and SessionAt, which know no time, find it.
//   - A change that fails, or that changes nothing, appends no entry.
//   - Errors that a caller decides upon are the sentinels below, found with errors.Is; any other
//     error says that the outcome is unknown and that the call may be repeated.
package store

import (
	"context"
	"errors"
	"time"

	"waitingroom/origin/queue"
)

var (
	ErrInvalid      = errors.New("no valid argument")       // see the checks in arguments.go
	ErrNotFound     = errors.New("no such queue")           // also: another incarnation
	ErrExists       = errors.New("queue exists")            //
	ErrConflict     = errors.New("changed meanwhile")       // read again and retry
	ErrClosed       = errors.New("queue is closed")         // no joins any more
	ErrAnonymous    = errors.New("queue takes users only")  // Join: somebody in the batch is anonymous
	ErrNotClosed    = errors.New("queue is not closed")     // DELETE needs closed
	ErrRunning      = errors.New("a session runs")          // DELETE, Leave: end the session first
	ErrNotOffered   = errors.New("no offer runs")           // claim: not this fan's turn
	ErrTaken        = errors.New("claimed by another")      // claim: the position is another's
	ErrOut          = errors.New("position is done")        // claim: ended, expired, missed, left, or the queue is closed
	ErrNotIssued    = errors.New("position was not issued") //
	ErrLeaseLost    = errors.New("another holds the lease") // Commit, CloseTurn: the epoch is not the running one
	ErrLeaseHeld    = errors.New("lease is held")           // Acquire
	ErrNoSession    = errors.New("no such session")         //
	ErrTrimmed      = errors.New("entries are trimmed")     // Entries: take a snapshot
	ErrRewritten    = errors.New("log was rewritten")       // Entries: what was read before is lost; Renew
	ErrBatchExpired = errors.New("batch is too old")        // Join: a sequence number below those that are remembered
)

// Store is everything that the origin needs of a store.
type Store interface {
	Clock
	Queues
	Line
	Coordination
	Log
	Journal
	Revocations
	Schedule
	Close() error
}

// Clock tells the store's time, which all that share the store agree on.
type Clock interface {
	Now(ctx context.Context) (time.Time, error)
}

// Key is a 128-bit keyed hash of a user id or of a ticket's subject; the zero Key stands for an
// anonymous fan.
type Key [16]byte

// Meta describes a queue.
type Meta struct {
	ID          queue.ID
	Incarnation string
	Generations []string // the running one last
	CreatedAt   time.Time
	// Version counts the changes of the settings.
	Version  uint64
	Settings queue.Settings
}

// Ack is the part that the answers of all changes share.
type Ack struct {
	// Entry is the number of the log's last entry after the change.
	Entry uint64
	// Leaderless says that no live lease was found: whoever called takes the lease and ticks.
	Leaderless bool
}

// Counts is what stats tell of a queue.
type Counts struct {
	Issued, Watermark uint64
	Waiting           int // without an offer
	Present           int // of Waiting, as of the last tick
	Offers, Sessions  int
	// Totals since the queue was created, as the log has them: Admitted are the offers made, those
	// by joins included; MissedOffers those that lapsed, the last one of a position included;
	// Claimed the sessions started; the others the positions that came to that fate.
	Admitted, MissedOffers, Claimed, Ended, Expired, Missed, Left int
}

// Queues is the registry.
type Queues interface {
	// Create makes a queue with a given incarnation and generation. The log begins with its
	// settings entry (number 1); turn 1 runs, the version is 1, and the queue is idle. ErrExists
	// when the id is taken, unless by the same incarnation: then nothing changes and the
	// description comes as it stands.
	Create(ctx context.Context, id queue.ID, incarnation, generation string, settings queue.Settings, now time.Time) (Meta, Ack, error)
	// Get reads a queue's description.
	Get(ctx context.Context, id queue.ID) (Meta, error)
	// Names lists the ids of a tenant's queues, in their order, for a fraction of what List costs.
	// There may be some among them that do not exist.
	Names(ctx context.Context, tenant string) ([]queue.ID, error)
	// List reads the descriptions of a tenant's queues, in the order of their ids.
	List(ctx context.Context, tenant string) ([]Meta, error)
	// Update replaces the settings if Version is still the given one, else ErrConflict. In the
	// same step: the slots that joins may take fall to zero, unless nothing but what remains is
	// reported (queue.Settings.WithoutRemaining stays the same), which no slot depends on and which a
	// shop reports with each purchase; a state that does not keep offers
	// withdraws them (the positions are owed, nothing counts as missed), in an entry after the one
	// of the settings; the last estimate is dropped; a changed HoldSeconds, or a hold that begins to run
	// (queue.Settings.HoldRuns), starts everybody's absence afresh, as if all had been seen in the running turn, which makes nobody present.
	// When Version is the next one and the settings are the given ones, this is a repetition
	// and succeeds.
	Update(ctx context.Context, id queue.ID, version uint64, settings queue.Settings, now time.Time) (Meta, Ack, error)
	// Renew begins a new generation of a queue that has lost entries which the caller has read: the
	// caller's view of it names the last of them. Nothing changes when the store has that entry, with
	// its Chain, or cannot tell because it was trimmed. In one step:
	//
	//   - the generation is added to the list as the running one; earlier ones of the view that the
	//     store has lost are put back before it, so that their tickets stay valid;
	//   - the numbers of the log's entries go on above all that the store and the view have;
	//   - the counter rises RenewalMargin above the view's, and the watermark to the view's; numbers
	//     passed over count as issued and waiting, but not as seen: most of them nobody holds;
	//   - the slots that joins may take fall to zero, everybody's absence starts afresh, and the
	//     lease ends, so that no tick that was planned before is taken;
	//   - what the view has and FindLost misses is put back: fates, running sessions, offers, and
	//     the settings if the view's Version is higher, with which an estimate that was made for others goes. Totals count only what is still known.
	//     A session that is put back has no subject: the first that claims it by a ticket of the
	//     position keeps it, if the map of users allows it as for a new session; everybody else gets
	//     ErrTaken. All tickets of that position are of earlier generations, since the
	//     counter has passed it.
	//
	// Of several callers that remember the same generation the first begins the new one; the others
	// get its description, and raise the counter and the watermark to what they remember, and put
	// back what they remember but for offers. The log tells it all in one entry, EntryGeneration,
	// after which readers take a snapshot; one that asks Entries for what follows an entry from
	// before it is told ErrTrimmed or ErrRewritten. Should the store lose the renewal too, the view
	// of whoever took that snapshot has what was put back, and puts it back again.
	Renew(ctx context.Context, remembered *queue.View, generation string, now time.Time) (Meta, Ack, error)
	// Delete removes all that the store has of a closed queue, its reminder included.
	// ErrNotClosed, ErrRunning.
	Delete(ctx context.Context, id queue.ID, incarnation string) error
	// Deleted reports whether Delete was called for this incarnation, where the store has the queue
	// no more: otherwise it was lost.
	Deleted(ctx context.Context, id queue.ID, incarnation string) (bool, error)
	// Counts reads the numbers for stats.
	Counts(ctx context.Context, id queue.ID) (Counts, error)
}

// Line is what edges do for fans.
type Line interface {
	// Join gives positions to a batch in the order of its Joins. Of an edge, the batches whose number
	// is less than 256 below its highest are remembered for 60 s: a replay gets the same answer (but
	// for the Ack), later or with a lower number ErrBatchExpired. ErrClosed when the queue is closed,
	// except for a replay; and in the same way ErrAnonymous when it requires an identity and a fan of
	// the batch has none: nobody of the batch gets a position then, since a batch is done as a whole or
	// not at all.
	//
	// New positions are logged as one joined entry, followed by one offered entry for those that
	// spent JoinSlots: a slot is spent only while the queue is open and sessions + offers are
	// below the capacity, and the first fan who waits without an offer after the join, new or
	// not, takes away what is left of them. A join is a sighting in the running turn, also that
	// of a user who has a position already.
	Join(ctx context.Context, batch JoinBatch) (JoinResult, error)
	// See records sightings; the log does not tell of them. Positions that are done or were not
	// issued are passed over.
	See(ctx context.Context, batch SightingBatch) (Ack, error)
	// Claim turns the position's offer into a session, until claimBy + queue.ClaimGrace. When
	// a session runs already, its own subject gets the same session again, also when the queue
	// is closed, and whatever SessionID it brings. A session ends as queue.Settings.SessionEnd
	// says. ErrNotIssued, ErrNotOffered, ErrTaken, ErrOut;
	// ErrInvalid also where another session has the SessionID.
	//
	// A position that was given to a user starts a session only for that user, and a user who has a
	// place starts none at another (else ErrTaken): so nobody who can forge tickets takes a user's
	// place, or gives a user's name to another one. Where the map of users has nobody, the first who
	// claims is believed, whatever the queue's identity: an anonymous fan's subject is written down
	// nowhere, and a number that was passed over may be the place of a user whom a failover has taken
	// from the map. A session that another call finds expired counts as ended.
	Claim(ctx context.Context, claim Claim) (queue.Session, Ack, error)
	// Leave takes a waiting or offered position out of the line. Nothing changes when it is done
	// already. ErrRunning while its session runs, ErrNotIssued. The reason in its entry is
	// queue.ReasonDeclined where an offer ran, so that the log tells of every slot, and else empty.
	Leave(ctx context.Context, id queue.ID, incarnation string, position uint64, now time.Time) (Ack, error)
	// Session finds a running session by its id. ErrNoSession when none runs under that id.
	Session(ctx context.Context, id queue.ID, session string) (queue.Session, error)
	// SessionAt finds the running session of a position. ErrNoSession when none runs.
	SessionAt(ctx context.Context, id queue.ID, incarnation string, position uint64) (queue.Session, error)
	// EndSession frees the slot of a running session, with queue.Ended or queue.Left as the
	// position's fate and the reason for the log. Nothing changes when it does not run, and that
	// is no error.
	EndSession(ctx context.Context, id queue.ID, session string, fate queue.Fate, reason string, now time.Time) (Ack, error)
}

// JoinBatch is a batch of joins of one queue.
type JoinBatch struct {
	Queue queue.ID
	// Edge is 128 random bits in hex, made anew at each start of an edge; Seq counts the edge's
	// batches for this queue from 1.
	Edge string
	Seq  uint64
	// Floor is the highest number known to have been issued; the batch is issued above it and
	// above the counter. Numbers passed over count as issued in the running turn and wait: a fan
	// may hold them. A floor more than MaxFloorRise above the counter is not believed and has
	// no effect; neither has one of a batch that issues nothing, or of another incarnation than
	// the queue's.
	Floor uint64
	// FloorOf is the incarnation that issued Floor.
	FloorOf string
	// Users has one element for each join, in order of arrival; zero for an anonymous fan.
	Users []Key
	Now   time.Time
}

// MaxFloorRise is how far a floor may lie above the counter.
const MaxFloorRise = 10_000_000

// JoinResult is the answer to a batch.
type JoinResult struct {
	Ack
	Incarnation, Generation string
	Joins                   []Joined
}

// Joined is the answer to one join.
type Joined struct {
	Position uint64
	// New is false for a user who has this position already: it waits, or has an offer or a
	// running session.
	New bool
	// ClaimBy is set while an offer runs.
	ClaimBy time.Time
	// Session is set while a session runs.
	Session queue.Session
}

// SightingBatch is what an edge saw in one queue.
type SightingBatch struct {
	Queue       queue.ID
	Incarnation string
	Edge        string
	// Turn is the one in which the positions were seen, as the edge knew it; a batch that
	// comes late is credited to its own turn as long as that is kept, never to a later one
	// than runs. A number that no kept turn has is taken as the nearest kept one. Kept are the
	// running turn and the HoldTurns before it. Only a sighting of the running turn makes a
	// position whose offer lapsed a candidate again.
	Turn      uint64
	Positions queue.Positions
	// AsOf is a log entry that the edge knew when it noted all of these sightings. Only a
	// sighting that was made later than a position's lapse, by an AsOf of at least the lapse's
	// entry, makes it a candidate again.
	AsOf uint64
	// Complete says that the edge has handed in all that it had seen until At; this lets turns
	// close, and it alone makes an edge known. Leaving says that at that time the edge held no fans of
	// this queue any more, and turns need not wait for it.
	Complete, Leaving bool
	// At is the store's time as the edge knew it when it wrote the report, for that may lie in a
	// stopped origin's socket for long. A later time than Now counts as Now. A report from before
	// the edge's latest one changes nothing: an edge that came back does not leave by an old word.
	At  time.Time
	Now time.Time
}

// Claim asks for the session of a position.
type Claim struct {
	Queue       queue.ID
	Incarnation string
	Position    uint64
	Subject     Key
	// SessionID is used if the claim starts a session.
	SessionID string
	Now       time.Time
}

// Coordination is what the coordinator needs.
type Coordination interface {
	// Acquire takes the queue's lease for a while, with a new epoch, unless another owner's
	// lease is live (ErrLeaseHeld). The owner of a live lease gets it again, extended, under the
	// same epoch. Epochs of an id never repeat, also when the queue was deleted and created again;
	// none is 0. Coming out of idleness (the lease was given up, not lost), the last tick counts as
	// now and a new turn begins at now, numbered one higher and logged.
	Acquire(ctx context.Context, id queue.ID, owner string, ttl time.Duration, now time.Time) (epoch uint64, err error)
	// Look reads what one tick needs, with at most limit candidates.
	Look(ctx context.Context, id queue.ID, limit int, now time.Time) (queue.Look, error)
	// Commit applies a tick under its epoch (ErrLeaseLost) and extends the lease; a lease that
	// merely ran out, and that nobody took since, still counts. It checks
	// again: a session ends only if its expiry has come, an offer lapses only if claimBy plus
	// queue.ClaimGrace has passed, a position is offered only if it waits without an offer, the
	// queue is open, and sessions + offers are below the capacity under the settings in force;
	// JoinSlots are cut to what is then free, and to none when TurnedAway is not the tick's (a
	// batch of joins left somebody waiting without an offer since the look). A lapse counts as missed: the maxMissedOffers-th
	// gives the fate queue.Missed, an earlier one makes the position owed, and not a candidate
	// until it is seen again. The entries come in the order prolonged (if an offer runs), done
	// (ended), lapsed, done (missed), offered, estimate. An estimate is in the queue's snapshots until
	// the next one, or until the settings change.
	//
	// A Commit whose Now is not after that of the last one under the same epoch is a repetition:
	// it changes nothing, JoinSlots and Prolong included, and the lists of its result may be empty;
	// Idle says again whether the lease was given up.
	//
	// A queue that is idle after it (no offer runs and nobody waits, or it is closed, or scheduled
	// and asleep) gives up the lease in the same step; JoinSlots stay.
	Commit(ctx context.Context, id queue.ID, owner string, ttl time.Duration, tick queue.Tick) (TickResult, error)
	// CloseTurn closes the given turn if it still runs, under the epoch: waiting positions
	// (offered ones not) that no turn from turn - HoldTurns on has seen get the fate
	// queue.Expired, and the next turn begins at queue.NextTurn (when the closed one was due to end,
	// if that is at most queue.PromptClose ago, else at now). Nobody expires while no hold
	// runs (queue.Settings.HoldRuns), or until HoldTurns turns after the one in which absence started afresh have
	// been closed. Edges silent for queue.VanishedEdge may be forgotten. It reports how many expired.
	CloseTurn(ctx context.Context, id queue.ID, epoch, turn uint64, now time.Time) (expired int, ack Ack, err error)
	// Release gives the lease up before its time, so that another origin can take it at once; the
	// queue does not count as idle by it. Nothing changes when owner and epoch are not the running
	// ones.
	Release(ctx context.Context, id queue.ID, owner string, epoch uint64) error
}

// TickResult is what a tick came to.
type TickResult struct {
	Entry   uint64
	Idle    bool // the lease was given up
	Offered queue.Positions
	Lapsed  queue.Positions // owed again
	Missed  queue.Positions // out of the line
	Ended   queue.Positions
	// Sessions and Offers that run after it.
	Sessions, Offers int
}

// Log is how a queue's changes are read.
type Log interface {
	// Snapshot reads a queue as of its last entry.
	Snapshot(ctx context.Context, id queue.ID) (queue.Snapshot, error)
	// Entries reads at most limit entries after a number; none is no error, also beyond the end.
	// ErrTrimmed when the next one is no longer kept.
	//
	// A reader names the Chain of the last entry that it has, and is told ErrRewritten when that
	// entry is another one now, or the log ends before it: a store that lost its latest entries has
	// put others in their place. ErrTrimmed when that entry is no longer kept. An empty chain
	// compares nothing.
	Entries(ctx context.Context, id queue.ID, incarnation string, after uint64, chain string, limit int) ([]queue.Entry, error)
	// Hints calls hint with the id of each queue whose log or registry entry changed, until
	// ctx ends (then nil) or the connection breaks (then an error). A hint may be lost or come twice:
	// it only says that reading is worthwhile. For a changed revocation list the id is
	// RevocationHint of the tenant. The first hint is Listening: from then on hints come, and
	// whatever changed earlier has to be found by reading.
	Hints(ctx context.Context, hint func(id queue.ID)) error
}

// Listening is the hint that says that hints come from now on.
const Listening queue.ID = ""

// Journal keeps what the log has told, for as long as the queue exists: the log itself is trimmed. It
// never waits for replicas, since whatever a failover loses of it can be read from the log again.
type Journal interface {
	// ReadJournal reads how far the journal of a queue has come, and at most so many of its last
	// minutes, oldest first, both as of one moment. The journal of which nothing was written is the
	// zero value.
	ReadJournal(ctx context.Context, id queue.ID, incarnation string, minutes int) (queue.Journal, []queue.Minute, error)
	// ReadMoves reads at most limit moves after a number, oldest first; none is no error. They
	// begin later where the next ones are no longer kept.
	ReadMoves(ctx context.Context, id queue.ID, incarnation string, after uint64, limit int) ([]queue.Move, error)
	// WriteJournal appends a page that was computed from the journal as of a cursor. When the journal
	// stands elsewhere nothing changes, so that of several that write at once none counts anything
	// again: that is ErrConflict, unless it stands where the page ends, which makes this a
	// repetition. At least the last MinutesKept minutes and MovesKept moves are kept.
	WriteJournal(ctx context.Context, id queue.ID, incarnation string, from queue.Cursor, page queue.Page) error
}

// What is kept of a journal, at least.
const (
	MinutesKept = 7 * 24 * 60 // minutes in which nothing happened take no place
	MovesKept   = 100_000
)

// RevocationHint is the hint that a tenant's revocations have changed.
func RevocationHint(tenant string) queue.ID { return queue.ID(tenant) }

// Revocation is a session that was ended before its time.
type Revocation struct {
	ID        string    `json:"id"`
	ExpiresAt time.Time `json:"expiresAt"`
}

// Revocations is a tenant's list of sessions that were ended early.
type Revocations interface {
	// Revoke puts a session on the list, until its expiry plus the leeway of verifiers. It
	// is acknowledged before it returns, and nothing happens when the id is on it already or its
	// time on the list is over.
	Revoke(ctx context.Context, tenant string, revocation Revocation, now time.Time) error
	// Revoked reads the list after a cursor, oldest first. The empty cursor is the beginning; for
	// a cursor that the list does not reach back to, or that lies beyond its end, the whole
	// list comes with reset set. The returned cursor is the same on every origin.
	Revoked(ctx context.Context, tenant, cursor string, now time.Time) (list []Revocation, next string, reset bool, err error)
}

// RevocationLeeway is how long a revocation outlives its session.
const RevocationLeeway = time.Minute

// Schedule holds one time for each queue at which somebody has to look after it although
// nobody may call: written before the change that makes it needed; an entry too many is harmless.
type Schedule interface {
	// Remind makes the queue due at a time, if it is not due earlier already. The queue need not
	// exist yet.
	Remind(ctx context.Context, id queue.ID, at time.Time) error
	// Due returns at most limit queues that are due.
	Due(ctx context.Context, now time.Time, limit int) ([]queue.ID, error)
	// Settle removes the reminders that are due by now, once somebody looks after the queue.
	Settle(ctx context.Context, id queue.ID, now time.Time) error
}
