package fans

import (
	"bytes"
	"fmt"
	"time"
)

// phase is where a fan's live connection stands.
type phase uint8

const (
	away       phase = iota // has none and wants none
	queued                  // is to connect as soon as the pace allows
	connecting              // the socket is being connected
	greeting                // the request is sent
	live                    // events come
	pausing                 // waits to come back
	done                    // the ticket is out of the line
)

// reading is how well a fan reads.
type reading uint8

const (
	well reading = iota
	slowly
	never
)

// fan is somebody with a ticket. The crowd's loop owns it.
type fan struct {
	ticket, id string
	session    string // id of the running session, once claimed

	// What the fan was told last.
	position   uint64
	ahead      uint64
	entry      uint64
	generation string
	state      state
	hasAhead   bool
	claimBy    int64 // of the offer told last, in milliseconds since 1970

	// The live connection.
	rest     []byte // what was read of something that is not complete
	line     []byte // what was read of the line before a chunk
	heard    time.Time
	retry    time.Duration // that the stream of events said
	chunks   chunks
	fd       int32
	serial   int32 // of the connection, so that what the system says of an earlier one is not taken for it
	edge     int16
	failures uint8
	phase    phase
	reading  reading
	socket   bool // WebSocket
	chunked  bool
	first    bool   // no status has come on this connection
	returns  bool   // had a connection before, which ended otherwise than it should
	person   uint16 // rises when somebody new takes the seat
}

// eventName is the name under which a fan is told a status after another one.
func eventName(before, after state) string {
	switch {
	case before == after:
		return "position_changed"
	case after == admitted:
		return "admitted"
	case after == expired:
		return "expired"
	case after == closed:
		return "queue_closed"
	case after == ended:
		return "session_expired"
	}
	return "position_changed"
}

// ignored reports whether a status is older than what the fan knows. That is right only at the
// beginning of a connection, to an edge that is behind the one before.
func (f *fan) ignored(s *status) bool {
	return f.generation != "" && string(s.generation) == f.generation && s.entry < f.entry
}

// take checks a status and makes it the one that the fan knows. The error tells what is wrong with
// it; a status that is older is refused only where an older one must not come.
func (f *fan) take(s *status, name []byte) error {
	if s.position != f.position {
		return fmt.Errorf("position %d is told the status of %d", f.position, s.position)
	}
	if f.ignored(s) {
		if f.first && f.returns {
			return nil
		}
		return fmt.Errorf("position %d is told entry %d after %d", f.position, s.entry, f.entry)
	}
	want := eventName(f.state, s.state)
	if f.first {
		want = "status"
	}
	// Whoever was let in, bought and was gone between two events is told under either name.
	either := s.state == ended && f.state != active && string(name) == "position_changed" && !f.first
	var err error
	switch {
	case string(name) != want && !either:
		err = fmt.Errorf("position %d goes from %v to %v in an event %q, want %q", f.position, f.state, s.state, name, want)
	case f.state.out() && s.state != f.state:
		err = fmt.Errorf("position %d goes from %v to %v", f.position, f.state, s.state)
	case string(s.generation) == f.generation && f.hasAhead && s.hasAhead && s.ahead > f.ahead:
		err = fmt.Errorf("position %d has %d ahead after %d", f.position, s.ahead, f.ahead)
	}
	if !bytes.Equal(s.generation, []byte(f.generation)) {
		f.generation = string(s.generation)
	}
	f.state, f.entry = s.state, s.entry
	f.ahead, f.hasAhead = s.ahead, s.hasAhead
	return err
}
