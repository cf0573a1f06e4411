package queue_test

import (
	"testing"
	"time"

	"waitingroom/origin/queue"
)

func withHold(seconds int) queue.Settings {
	s := queue.DefaultSettings()
	s.HoldSeconds = seconds
	return s
}

func TestTurnLength(t *testing.T) {
	for hold, want := range map[int]time.Duration{
		1: 2 * time.Second, 30: 2 * time.Second, 60: 2 * time.Second, 61: 2033 * time.Millisecond,
		90: 3 * time.Second, 1800: time.Minute, queue.MaxWindowSeconds: 20160 * time.Second,
	} {
		if got := withHold(hold).TurnLength(); got != want {
			t.Errorf("the turn of a hold of %d s is %v, want %v", hold, got, want)
		}
	}
	if got := withHold(1800).HoldTurns(); got != 30 {
		t.Errorf("half an hour is %d turns, want 30", got)
	}
}

// The arithmetic of a hold: a position last seen in turn S expires at the close of the first T with
// T - S > HoldTurns. It was then unseen since some moment of S.
func TestHoldTurnsKeepTheHold(t *testing.T) {
	for hold := 1; hold <= queue.MaxWindowSeconds; hold += 1 + hold/100 {
		s := withHold(hold)
		turn := s.TurnLength()
		after := time.Duration(s.HoldTurns() + 1)
		least, most := after*turn, (after+1)*turn
		// Ticks come late, by up to PromptClose; the hold is kept all the same.
		if least-queue.PromptClose <= s.Hold() {
			t.Errorf("hold %d s: expired after %v already", hold, least-queue.PromptClose)
		}
		if latest := max(s.Hold(), turn) + 2*turn; most > latest {
			t.Errorf("hold %d s: expired only after %v, want at most %v", hold, most, latest)
		}
	}
}

func TestNextTurn(t *testing.T) {
	const turn = 2 * time.Second
	for _, c := range []struct {
		name        string
		late, begin time.Duration
	}{
		{"on time", 0, 0},
		{"a tick late", 249 * time.Millisecond, 0},
		{"as late as may be", queue.PromptClose, 0},
		{"later", queue.PromptClose + time.Millisecond, queue.PromptClose + time.Millisecond},
		{"held open", time.Hour, time.Hour},
		{"closed before its end", -time.Second, -time.Second},
	} {
		end := noon.Add(turn)
		if got, want := queue.NextTurn(noon, turn, end.Add(c.late)), end.Add(c.begin); !got.Equal(want) {
			t.Errorf("%s: the next turn begins %v after the end, want %v", c.name, got.Sub(end), c.begin)
		}
	}
}

func TestTurnDue(t *testing.T) {
	for _, c := range []struct {
		name  string
		now   time.Duration            // since the turn began
		edges map[string]time.Duration // their last reports, since the turn began
		want  bool
	}{
		{"not over", 59 * time.Second, nil, false},
		{"over", time.Minute, nil, true},
		{"all have reported after the end", 61 * time.Second, map[string]time.Duration{"a": time.Minute, "b": 61 * time.Second}, true},
		{"one has not reported since the end", 61 * time.Second, map[string]time.Duration{"a": time.Minute, "b": 59 * time.Second}, false},
		{"silent for less than five minutes", 4 * time.Minute, map[string]time.Duration{"a": -30 * time.Second}, false},
		{"silent for five minutes", 4*time.Minute + 30*time.Second, map[string]time.Duration{"a": -30 * time.Second}, true},
		{"one is silent for five minutes, one for less", 5 * time.Minute, map[string]time.Duration{"a": -time.Minute, "b": 30 * time.Second}, false},
	} {
		l := queue.Look{Settings: withHold(1800), TurnStarted: noon, Edges: map[string]time.Time{}}
		for edge, at := range c.edges {
			l.Edges[edge] = noon.Add(at)
		}
		if got := queue.TurnDue(l, noon.Add(c.now)); got != c.want {
			t.Errorf("%s: due is %v, want %v", c.name, got, c.want)
		}
	}
}

func TestPollAfter(t *testing.T) {
	states := []queue.TicketState{
		queue.TicketScheduled, queue.TicketWaiting, queue.TicketAdmitted, queue.TicketActive,
		queue.TicketEnded, queue.TicketExpired, queue.TicketLeft, queue.TicketClosed,
	}
	for _, hold := range []int{1, 60, 75, 300, 1800, 86400} {
		turn := withHold(hold).TurnLength()
		for _, state := range states {
			for _, ahead := range []uint64{0, 1, 20, 500, 10_000, 5_000_000, 1 << 63} {
				for _, rate := range []int{0, 1, 60, 100_000} {
					got := queue.PollAfter(state, ahead, rate, turn)
					if got < time.Second || got > turn*8/10 || got%time.Second != 0 {
						t.Errorf("%s, %d ahead, %d a minute, turn %v: poll after %v, want whole seconds from 1 to 0.8 of a turn",
							state, ahead, rate, turn, got)
					}
				}
			}
		}
	}
	next := queue.PollAfter(queue.TicketWaiting, 0, 60, time.Minute)
	far := queue.PollAfter(queue.TicketWaiting, 5000, 60, time.Minute)
	if next > 2*time.Second || far < 10*time.Second {
		t.Errorf("the next in line polls after %v, one far back after %v; want soon and late", next, far)
	}
}
