package edge

import (
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/valyala/fasthttp"

	"waitingroom/origin/queue"
)

// appendStatus writes the status document, byte for byte as encoding/json writes queue.Status.
// Polls are most of what an edge does, and reflection would be most of a poll.
func appendStatus(b []byte, s *queue.Status) []byte {
	b = append(b, '{')
	b = appendStatusMembers(b, s)
	return append(b, '}')
}

// appendStatusMembers writes the members alone, to stand among others.
func appendStatusMembers(b []byte, s *queue.Status) []byte {
	return appendSharedMembers(appendOwnMembers(b, s), s)
}

// appendOwnMembers writes those that differ from fan to fan.
func appendOwnMembers(b []byte, s *queue.Status) []byte {
	b = append(b, `"state":`...)
	b = appendString(b, string(s.State))
	if s.Reason != "" {
		b = append(b, `,"reason":`...)
		b = appendString(b, s.Reason)
	}
	b = append(b, `,"queueState":`...)
	b = appendString(b, string(s.QueueState))
	b = append(b, `,"position":`...)
	b = strconv.AppendUint(b, s.Position, 10)
	b = append(b, `,"ahead":`...)
	if s.Ahead != nil {
		b = strconv.AppendUint(b, *s.Ahead, 10)
	} else {
		b = append(b, "null"...)
	}
	b = append(b, `,"waitSeconds":`...)
	if s.WaitSeconds != nil {
		b = append(b, `{"p50":`...)
		b = strconv.AppendInt(b, int64(s.WaitSeconds.P50), 10)
		b = append(b, `,"p90":`...)
		b = strconv.AppendInt(b, int64(s.WaitSeconds.P90), 10)
		b = append(b, '}')
	} else {
		b = append(b, "null"...)
	}
	b = append(b, `,"likelySoldOut":`...)
	b = strconv.AppendBool(b, s.LikelySoldOut)
	b = appendTimeMember(b, `,"opensAt":`, s.OpensAt)
	b = appendTimeMember(b, `,"claimBy":`, s.ClaimBy)
	b = appendTimeMember(b, `,"heldUntil":`, s.HeldUntil)
	b = appendTimeMember(b, `,"sessionExpiresAt":`, s.SessionExpiresAt)
	b = append(b, `,"pollAfterSeconds":`...)
	return strconv.AppendInt(b, int64(s.PollAfterSeconds), 10)
}

// appendSharedMembers writes the last ones, which are the same for everybody at one moment.
func appendSharedMembers(b []byte, s *queue.Status) []byte {
	b = append(b, `,"now":`...)
	b = appendTime(b, s.Now)
	b = append(b, `,"seq":`...)
	b = appendString(b, s.Seq)
	b = append(b, `,"stale":`...)
	return strconv.AppendBool(b, s.Stale)
}

func appendTimeMember(b []byte, name string, t time.Time) []byte {
	if t.IsZero() {
		return b
	}
	return appendTime(append(b, name...), t)
}

func appendTime(b []byte, t time.Time) []byte {
	b = append(b, '"')
	b = t.AppendFormat(b, time.RFC3339Nano)
	return append(b, '"')
}

// appendString writes a JSON string (RFC 8259); bytes that are not UTF-8 become U+FFFD.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r < ' ':
			b = append(b, '\\', 'u', '0', '0', hex[r>>4], hex[r&0xf])
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}

// status computes what the holder of a position is told now, and notes the sighting that this is.
func (s *Server) status(l *line, position uint64) queue.Status {
	view, at := l.view.Load(), s.known.clock.read()
	status := statusIn(view, position, at)
	if holdsPlace(&status) && status.State != queue.TicketActive {
		s.see(l, view.turn(at.own, at.stale), view.Number, position, at.own)
	}
	return status
}

// statusUnseen is the same without a sighting.
func (s *Server) statusUnseen(l *line, position uint64) queue.Status {
	return statusIn(l.view.Load(), position, s.known.clock.read())
}

func statusIn(view *lineView, position uint64, at reading) queue.Status {
	status := view.Status(position, at.now)
	status.Stale = at.stale
	return status
}

// holdsPlace reports whether a ticket waits, has an offer, or has a running session.
func holdsPlace(s *queue.Status) bool {
	switch s.State {
	case queue.TicketScheduled, queue.TicketWaiting, queue.TicketAdmitted, queue.TicketActive:
		return true
	}
	return false
}

// getTicket answers GET /tickets/{id}. Every answer to somebody in line is a sighting.
func (s *Server) getTicket(ctx *fasthttp.RequestCtx) error {
	holder, err := s.holder(ctx)
	if err != nil {
		return err
	}
	status := s.status(holder.line, holder.ticket.Position)
	ctx.Response.Header.Set(fasthttp.HeaderCacheControl, "no-store")
	ctx.Response.Header.SetContentType("application/json")
	// The response keeps its body's buffer between requests of a connection.
	ctx.Response.SetBody(appendStatus(ctx.Response.Body()[:0], &status))
	return nil
}
