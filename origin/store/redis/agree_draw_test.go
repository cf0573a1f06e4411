package redis_test

import (
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

// pick draws one of some values. It shrinks to the first of them, as all draws to what is least.
func pick[V any](p *pair, label string, values ...V) V {
	return rapid.SampledFrom(values).Draw(p.t, label)
}

// rarely is true once in so many times, or somewhat more often.
func (p *pair) rarely(label string, n int) bool { return p.upTo(label, n-1) == n-1 }

func (p *pair) upTo(label string, most int) int { return rapid.IntRange(0, most).Draw(p.t, label) }

// moment is the time at which a call is made: it moves on, but some callers' clocks lag.
func (p *pair) moment() time.Time {
	p.now = p.now.Add(pick(p, "later", 0, 50*time.Millisecond, 250*time.Millisecond, 300*time.Millisecond, time.Second, 2*time.Second))
	return p.now.Add(-pick(p, "lag", 0, 0, 0, 0, 0, 0, 300*time.Millisecond, 7*time.Second))
}

// silence lets time pass in which nobody calls.
func (p *pair) silence() {
	p.now = p.now.Add(pick(p, "silence", time.Second, 3*time.Second, 6*time.Second, 11*time.Second, 25*time.Second, 61*time.Second, queue.VanishedEdge))
}

// incarnation is the queue's, as a rule.
func (p *pair) incarnation() string {
	if p.rarely("another incarnation", 25) {
		return pick(p, "named", "another", "")
	}
	return p.inc
}

// position is one about which there may be something to say.
func (p *pair) position(label string) uint64 {
	issued := p.issued
	switch kind := p.upTo(label+" from", 7); {
	case kind < 4 && len(p.met) > 0:
		return p.met[len(p.met)-1-p.upTo(label+" met", len(p.met)-1)]
	case kind < 6:
		return rapid.Uint64Range(1, max(min(issued, 12), 1)).Draw(p.t, label)
	default:
		return rapid.Uint64Range(0, issued+2).Draw(p.t, label)
	}
}

// meet remembers positions that have an offer or a session, the last twenty.
func (p *pair) meet(positions ...uint64) {
	p.met = append(p.met, positions...)
	p.met = p.met[max(len(p.met)-20, 0):]
}

// someOf draws an ascending list of positions.
func (p *pair) someOf(label string) queue.Positions {
	issued := p.issued
	var list queue.Positions
	switch p.upTo(label+" are", 5) {
	case 0, 1, 2:
		for range p.upTo(label+" number", 6) {
			list = append(list, p.position(label))
		}
	case 3, 4: // a run, perhaps with gaps
		from := rapid.Uint64Range(1, issued+1).Draw(p.t, label+" begin")
		step := uint64(1 + p.upTo(label+" step", 4))
		for n := range uint64(p.upTo(label+" number", 3000)) {
			if position := from + n*step; position <= issued+3 {
				list = append(list, position)
			}
		}
	default: // everybody
		for position := uint64(1); position <= issued; position++ {
			list = append(list, position)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// user draws who joins or claims: nobody that is known, or one of a few users.
func (p *pair) user(label string) store.Key {
	n := p.upTo(label, 12)
	if n == 0 {
		return store.Key{}
	}
	return store.Key{byte(n), byte(n * 31), 7}
}

func (p *pair) runs(session string) bool {
	_, err := p.memory.Session(p.ctx, p.id, session)
	return err == nil
}

// name is one that did not come yet in this sequence.
func (p *pair) name(of string) string {
	p.named++
	return fmt.Sprintf("%s~%s-%d", p.id, of, p.named)
}

// session is the id of a session that runs or ran, or of none.
func (p *pair) session() string {
	if len(p.sessions) == 0 || p.rarely("an unknown session", 10) {
		return string(p.id) + "~none"
	}
	return rapid.SampledFrom(p.sessions).Draw(p.t, "session")
}
