package edge

import (
	"strconv"

	"waitingroom/edge/hub"
	"waitingroom/origin/queue"
)

// told is what a live connection was told last: the state of its ticket, and whether it was stale;
// 0 before the first event.
type told uint8

const toldStale told = 0x80

var ticketStates = [...]queue.TicketState{
	1: queue.TicketScheduled, 2: queue.TicketWaiting, 3: queue.TicketAdmitted, 4: queue.TicketActive,
	5: queue.TicketEnded, 6: queue.TicketExpired, 7: queue.TicketLeft, 8: queue.TicketClosed,
}

func toldOf(s *queue.Status) told {
	var t told
	for i, state := range ticketStates {
		if state == s.State {
			t = told(i)
		}
	}
	if s.Stale {
		t |= toldStale
	}
	return t
}

func (t told) state() queue.TicketState { return ticketStates[t&^toldStale] }

// inLine reports whether a connection that was told this keeps a place by being there.
func (t told) inLine() bool {
	switch t.state() {
	case queue.TicketScheduled, queue.TicketWaiting, queue.TicketAdmitted:
		return true
	}
	return false
}

// The names of live events.
const (
	eventStatus          = "status" // the first on a connection
	eventPositionChanged = "position_changed"
	eventAdmitted        = "admitted"
	eventExpired         = "expired"
	eventSessionExpired  = "session_expired"
	eventQueueClosed     = "queue_closed"
)

// eventName is the name of the event that tells a state after another one.
func eventName(before told, now queue.TicketState) string {
	if before == 0 {
		return eventStatus
	}
	if before.state() != now {
		switch now {
		case queue.TicketAdmitted:
			return eventAdmitted
		case queue.TicketExpired:
			return eventExpired
		case queue.TicketEnded:
			return eventSessionExpired
		case queue.TicketClosed:
			return eventQueueClosed
		}
	}
	return eventPositionChanged
}

// standing is a view as the hub asks it.
type standing struct{ *queue.View }

func (s standing) Mark() uint64 { return s.Watermark }

// tellEntries marks the live connections that entries concern, after the line shows the view
// with them. Nobody in front misses a change; others hear that the line moved when they can see it.
func (k *knowledge) tellEntries(l *line, had *queue.View, entries []queue.Entry) {
	if l.live == nil || l.live.Len() == 0 {
		return
	}
	view, at := l.view.Load(), k.clock.read()
	turn := view.turn(at.own, at.stale)
	front := false
	for _, entry := range entries {
		switch entry.Kind {
		case queue.EntryOffered, queue.EntryClaimed, queue.EntryDone:
			l.live.Tell(entry.Positions, nil)
		case queue.EntryLapsed, queue.EntryWithdrawn:
			// Who is connected is here, so the next offer need not wait for another sighting.
			l.live.Tell(entry.Positions, func(c *hub.Conn) {
				l.seen.note(turn, view.Number, c.Position, at.own)
			})
		case queue.EntryProlonged:
			l.live.TellUpTo(view.Watermark)
		case queue.EntrySettings, queue.EntryEstimate:
			front = true
		}
	}
	if had.Settings.State != view.Settings.State || !had.Settings.OpensAt.Equal(view.Settings.OpensAt) {
		l.live.TellAll(true)
	}
	l.live.TellLater()
	l.live.Advance(standing{view.View}, front)
}

// seeConnected notes a sighting of everyone who is connected and in line.
func (k *knowledge) seeConnected(l *line, at reading) {
	if l.live == nil || l.live.Len() == 0 {
		return
	}
	view := l.view.Load()
	positions := make([]uint64, 0, l.live.Len())
	l.live.Each(func(c *hub.Conn) {
		if told(c.Told()).inLine() {
			positions = append(positions, c.Position)
		}
	})
	turn := view.turn(at.own, at.stale)
	for _, position := range positions {
		l.seen.note(turn, view.Number, position, at.own)
	}
}

// parseEntry reads the number of an entry as a seq has it.
func parseEntry(number string) (uint64, error) { return strconv.ParseUint(number, 10, 64) }
