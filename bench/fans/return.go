package fans

import "time"

// ending is how a live connection ended, or why there was none.
type ending struct {
	// code is the close frame's, or closeAbnormal where none came; a stream of events has none.
	code int
	// retry is what the stream of events said at its beginning; 0 for a WebSocket.
	retry time.Duration
	// refused says that the edge answered with 503, and retryAfter what it said then.
	refused    bool
	retryAfter time.Duration
}

// Bounds of the pauses.
const (
	movePause     = time.Second      // an edge that stops spreads its closings itself
	againLeast    = 10 * time.Second // overloaded
	againMost     = 30 * time.Second
	abnormalPause = 10 * time.Second // and as much more at each further failure
	abnormalMost  = 30 * time.Second
)

// pause is how long a fan waits before coming back; random is uniform in [0, 1). All those whom one
// edge left come back spread over the time that their rule gives, so that they do not bring down the
// next edge.
func (e ending) pause(failures int, random float64) time.Duration {
	upTo := func(d time.Duration) time.Duration { return time.Duration(random * float64(d)) }
	switch {
	case e.refused:
		least := max(e.retryAfter, time.Second)
		return least + upTo(least)
	case e.retry > 0 && failures == 0:
		return e.retry // as every browser's EventSource does; the edge has drawn it at random
	case e.code == closeRestart:
		return upTo(movePause)
	case e.code == closeAgain:
		return againLeast + upTo(againMost-againLeast)
	}
	return upTo(min(abnormalPause*time.Duration(1+failures), abnormalMost))
}
