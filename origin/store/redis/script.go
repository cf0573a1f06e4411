package redis

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

//go:embed prelude.lua
var prelude string

//go:embed revocations.lua
var revocationsPrelude string

var (
	//go:embed create.lua
	createSource string
	//go:embed update.lua
	updateSource string
	//go:embed delete.lua
	deleteSource string
	//go:embed join.lua
	joinSource string
	//go:embed see.lua
	seeSource string
	//go:embed claim.lua
	claimSource string
	//go:embed leave.lua
	leaveSource string
	//go:embed session.lua
	sessionSource string
	//go:embed end.lua
	endSource string
	//go:embed acquire.lua
	acquireSource string
	//go:embed release.lua
	releaseSource string
	//go:embed look.lua
	lookSource string
	//go:embed commit.lua
	commitSource string
	//go:embed turn.lua
	turnSource string
	//go:embed sweep.lua
	sweepSource string
	//go:embed revoke.lua
	revokeSource string
	//go:embed revoked.lua
	revokedSource string
	//go:embed renew.lua
	renewSource string
	//go:embed bury.lua
	burySource string
	//go:embed list.lua
	listSource string
	//go:embed journal.lua
	journalSource string
	//go:embed remind.lua
	remindSource string
	//go:embed settle.lua
	settleSource string
)

// The scripts. They hold no state, and none of them is changed after the start.
var (
	createScript  = queueScript(createSource)
	updateScript  = queueScript(updateSource)
	deleteScript  = queueScript(deleteSource)
	joinScript    = queueScript(joinSource)
	seeScript     = queueScript(seeSource)
	claimScript   = queueScript(claimSource)
	leaveScript   = queueScript(leaveSource)
	sessionScript = passingScript(constants() + prelude + sessionSource)
	endScript     = queueScript(endSource)
	acquireScript = queueScript(acquireSource)
	releaseScript = passingScript(constants() + prelude + releaseSource)
	lookScript    = passingScript(constants() + prelude + lookSource)
	commitScript  = queueScript(commitSource)
	turnScript    = queueScript(turnSource)
	sweepScript   = passingScript(constants() + prelude + sweepSource)
	renewScript   = queueScript(renewSource)
	revokeScript  = lastingScript(constants() + revocationsPrelude + revokeSource)
	revokedScript = passingScript(constants() + revocationsPrelude + revokedSource)
	buryScript    = lastingScript(burySource)
	listScript    = lastingScript(listSource)
	journalScript = passingScript(constants() + journalSource)
	remindScript  = lastingScript(remindSource)
	settleScript  = passingScript(settleSource)
)

// script is a script and whether replicas must have what it does before it is answered.
type script struct {
	*goredis.Script
	lasting bool
}

func queueScript(source string) *script { return lastingScript(constants() + prelude + source) }

func lastingScript(source string) *script { return &script{goredis.NewScript(source), true} }

// passingScript is one that reads, or whose effect may be lost.
func passingScript(source string) *script { return &script{goredis.NewScript(source), false} }

// constants tells the scripts what Go decides.
func constants() string {
	var b strings.Builder
	number := func(name string, value int64) { fmt.Fprintf(&b, "local %s = %d\n", name, value) }
	number("PAGE", pageSize)
	number("PAGE_BYTES", pageBytes)
	number("FATE_BYTES", fateBytes)
	number("GRACE_MS", queue.ClaimGrace.Milliseconds())
	number("PROMPT_MS", queue.PromptClose.Milliseconds())
	number("VANISHED_MS", queue.VanishedEdge.Milliseconds())
	number("LEEWAY_MS", store.RevocationLeeway.Milliseconds())
	number("BATCHES_KEPT", batchesKept)
	number("BATCHES_KEPT_MS", batchesKeptFor.Milliseconds())
	number("BATCHES_TTL_MS", batchesTTL.Milliseconds())
	number("JOINERS_KEPT_MS", joinersKeptFor.Milliseconds())
	number("CHAIN_LENGTH", chainLength)
	number("RENEWAL_MARGIN", store.RenewalMargin)
	number("MINUTES_KEPT", store.MinutesKept)
	number("MOVES_KEPT", store.MovesKept)
	number("MAX_FLOOR_RISE", store.MaxFloorRise)
	number("FATE_WAITING", int64(queue.Waiting))
	number("FATE_CLAIMED", int64(queue.Claimed))
	number("FATE_ENDED", int64(queue.Ended))
	number("FATE_EXPIRED", int64(queue.Expired))
	number("FATE_MISSED", int64(queue.Missed))
	number("FATE_LEFT", int64(queue.Left))
	fmt.Fprintf(&b, "local REASON_WINDOW, REASON_MISSED, REASON_ABSENT, REASON_DECLINED = %q, %q, %q, %q\n",
		queue.ReasonWindow, queue.ReasonMissed, queue.ReasonAbsent, queue.ReasonDeclined)
	fmt.Fprintf(&b, "local HINTS = %q\n", hintChannel)
	return b.String()
}

// refusals are the codes with which scripts say why they did nothing.
var refusals = map[string]error{
	"NOTFOUND":     store.ErrNotFound,
	"EXISTS":       store.ErrExists,
	"CONFLICT":     store.ErrConflict,
	"CLOSED":       store.ErrClosed,
	"ANONYMOUS":    store.ErrAnonymous,
	"NOTCLOSED":    store.ErrNotClosed,
	"RUNNING":      store.ErrRunning,
	"NOTOFFERED":   store.ErrNotOffered,
	"TAKEN":        store.ErrTaken,
	"OUT":          store.ErrOut,
	"NOTISSUED":    store.ErrNotIssued,
	"LEASELOST":    store.ErrLeaseLost,
	"LEASEHELD":    store.ErrLeaseHeld,
	"NOSESSION":    store.ErrNoSession,
	"BATCHEXPIRED": store.ErrBatchExpired,
	"SESSIONID":    fmt.Errorf("%w: the session id is in use", store.ErrInvalid),
}

// maxAttempts bounds how often a script is called again because the shape of the queue has changed
// meanwhile. Pages and turns change seldom, so that a second attempt nearly always succeeds.
const maxAttempts = 20

const (
	// nonceArg is which argument is the name of one run.
	nonceArg = 4
	// chainLength is how many hex digits of the hash are kept: two histories look alike once in 2^48.
	chainLength = 12
)

// call collects the keys and arguments of one run of a script.
type call struct {
	queueKeys
	keys []string
	args []any
	// shape is the queue's as far as it is known; need are the further pages that a batch of joins
	// or a claim asked for.
	shape shape
	need  []uint64
}

func (c *call) key(keys ...string) { c.keys = append(c.keys, keys...) }
func (c *call) arg(args ...any)    { c.args = append(c.args, args...) }

// runOf is run for a method that names an incarnation; run takes an empty one as any.
func (s *Store) runOf(ctx context.Context, script *script, id queue.ID, incarnation string, now time.Time, build func(*call) error) (*reply, error) {
	if incarnation == "" {
		return nil, store.ErrNotFound
	}
	return s.run(ctx, script, id, incarnation, now, build)
}

// run runs a script on a queue. build adds the script's own keys and arguments, and is called
// again, with the queue's shape in force, whenever the script asks for it.
func (s *Store) run(ctx context.Context, script *script, id queue.ID, incarnation string, now time.Time, build func(*call) error) (*reply, error) {
	known, _ := s.shapes.Get(id)
	var need []uint64
	for range maxAttempts {
		c := call{queueKeys: keysOf(id), shape: known, need: need}
		c.key(c.meta(), c.log(), c.offers(), c.expiries())
		c.arg(string(id), s.keep, millis(now), incarnation, "")
		if build != nil {
			if err := build(&c); err != nil {
				return nil, err
			}
		}
		var raw []any
		err := s.try(ctx, func(ctx context.Context) (err error) {
			c.args[nonceArg] = strconv.FormatUint(rand.Uint64(), 36)
			raw, err = s.eval(ctx, script, c.keys, c.args)
			return err
		})
		if err != nil {
			return nil, err
		}
		r := &reply{rest: raw}
		code := r.text()
		if refusal := refusals[code]; refusal != nil {
			if errors.Is(refusal, store.ErrNotFound) && incarnation == "" {
				s.shapes.Remove(id)
			}
			return nil, refusal
		}
		if code == "ok" {
			r.ack.Entry = r.uint()
			r.ack.Leaderless = r.int() == 1
		}
		if known, err = parseShape(r.text()); err != nil {
			return nil, err
		}
		s.shapes.Add(id, known)
		if code == "ok" {
			r.shape = known
			return r, r.err
		}
		if need, err = parsePages(r.text()); err == nil {
			err = r.err
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, errors.New("the queue changes too quickly")
}
