package origin

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
	"waitingroom/origin/wire"
	"waitingroom/tokens"
)

// What one message of an edge may hold.
const (
	maxJoins        = 4096
	maxUserID       = 128 // bytes
	maxJoinBody     = 4 << 20
	maxSightingBody = 32 << 20
	maxTicketBody   = 8 << 10
)

// join gives positions to a batch of fans.
func (s *Server) join(w http.ResponseWriter, r *http.Request) error {
	var in wire.JoinRequest
	if err := readMessage(w, r, maxJoinBody, &in); err != nil {
		return err
	}
	id, err := queue.ParseID(string(in.Queue))
	if err != nil || in.Seq == 0 || !queue.ValidName(in.Edge) || len(in.Users) == 0 || len(in.Users) > maxJoins {
		return errBadBody
	}
	k := s.keys.Load()
	if _, served := k.tenants[id.Tenant()]; !served {
		return errNoQueue
	}
	batch := store.JoinBatch{
		Queue: id, Edge: in.Edge, Seq: in.Seq, Floor: in.Floor, FloorOf: in.FloorOf,
		Users: make([]store.Key, len(in.Users)), Now: s.clock.Now(),
	}
	// What this origin has read of the log was issued too, whatever the store has lost since.
	if view := s.feed.View(id); view != nil && (batch.FloorOf == "" || batch.FloorOf == view.Incarnation) {
		batch.Floor, batch.FloorOf = max(batch.Floor, view.Issued), view.Incarnation
	}
	for i, user := range in.Users {
		if len(user) > maxUserID {
			return errBadBody
		}
		if user != "" {
			batch.Users[i] = k.hashUser(id.Tenant(), user)
		}
	}
	result, err := s.Store.Join(r.Context(), batch)
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	s.acted(id, result.Ack)
	s.metrics.joins.Add(float64(len(result.Joins)))
	out := wire.JoinResponse{
		Incarnation: result.Incarnation, Generation: result.Generation, Entry: result.Entry,
		Now: batch.Now, Joins: make([]wire.Joined, len(result.Joins)),
	}
	for i, j := range result.Joins {
		out.Joins[i] = wire.Joined{Position: j.Position, New: j.New, ClaimBy: j.ClaimBy, ExpiresAt: j.Session.ExpiresAt}
	}
	writeJSON(w, http.StatusOK, out)
	return nil
}

// see takes sightings. A queue whose sightings could not be taken is named in the answer; one
// that does not exist any more has no use for them.
func (s *Server) see(w http.ResponseWriter, r *http.Request) error {
	var in wire.SightingsRequest
	if err := readMessage(w, r, maxSightingBody, &in); err != nil {
		return err
	}
	if !queue.ValidName(in.Edge) {
		return errBadBody
	}
	for _, q := range in.Queues {
		if _, err := queue.ParseID(string(q.Queue)); err != nil {
			return errBadBody
		}
	}
	var out wire.SightingsResponse
	for _, q := range in.Queues {
		ack, err := s.Store.See(r.Context(), store.SightingBatch{
			Queue: q.Queue, Incarnation: q.Incarnation, Edge: in.Edge, Turn: q.Turn,
			Positions: q.Positions, AsOf: q.AsOf, Complete: q.Complete, Leaving: q.Leaving,
			At: q.At, Now: s.clock.Now(),
		})
		switch {
		case err == nil:
			s.metrics.sightings.Add(float64(len(q.Positions)))
			if ack.Leaderless {
				s.coordinators.Wake(q.Queue)
			}
		case errors.Is(err, store.ErrNotFound):
		default:
			s.logInner(r, fmt.Errorf("take sightings: %w", err), false)
			out.Again = append(out.Again, q.Queue)
		}
	}
	writeJSON(w, http.StatusOK, out)
	return nil
}

// claim turns an offer into a session and signs its token.
func (s *Server) claim(w http.ResponseWriter, r *http.Request) error {
	var in wire.ClaimRequest
	if err := readMessage(w, r, maxTicketBody, &in); err != nil {
		return err
	}
	out, err := s.claimTicket(r, in.Ticket)
	if err != nil {
		return err
	}
	result := "ok"
	if out.Error != "" {
		result = out.Error
	}
	s.metrics.claims.WithLabelValues(result).Inc()
	writeJSON(w, http.StatusOK, out)
	return nil
}

func (s *Server) claimTicket(r *http.Request, text string) (wire.ClaimResponse, error) {
	ticket, err := s.verifyTicket(r, text)
	if err != nil {
		if _, code, known := asProblem(err); known && (code == wire.CodeBadTicket || code == wire.CodeNotFound) {
			return wire.ClaimResponse{Error: code}, nil
		}
		return wire.ClaimResponse{}, err
	}
	id := queue.ID(ticket.Queue)
	k := s.keys.Load()
	session, ack, err := s.Store.Claim(r.Context(), store.Claim{
		Queue: id, Incarnation: ticket.Incarnation, Position: ticket.Position,
		Subject: k.hashUser(id.Tenant(), ticket.Subject), SessionID: newSessionID(id), Now: s.clock.Now(),
	})
	switch {
	case err == nil:
	case errors.Is(err, store.ErrOut):
		return s.outOfLine(r, id, ticket.Position)
	case errors.Is(err, store.ErrNotOffered):
		return wire.ClaimResponse{Error: wire.CodeNotYourTurn}, nil
	case errors.Is(err, store.ErrTaken):
		return wire.ClaimResponse{Error: wire.CodeTaken}, nil
	case errors.Is(err, store.ErrNotIssued), errors.Is(err, store.ErrNotFound):
		return wire.ClaimResponse{Error: wire.CodeBadTicket}, nil
	default:
		return wire.ClaimResponse{}, fmt.Errorf("claim: %w", err)
	}
	s.acted(id, ack)
	// The same session signed again is the same token: a second device or a retry shares it.
	token, err := k.sessions.Sign(tokens.Session{
		Issuer: s.Config.Issuer, Tenant: id.Tenant(), ID: session.ID, Subject: ticket.Subject,
		Queue: ticket.Queue, StartsAt: session.StartsAt, ExpiresAt: session.ExpiresAt,
	}, s.clock.Now())
	if err != nil {
		return wire.ClaimResponse{}, fmt.Errorf("sign session: %w", err)
	}
	return wire.ClaimResponse{SessionToken: token, ExpiresAt: session.ExpiresAt}, nil
}

// outOfLine says why a position can have no session: its fate, or that the queue is closed.
func (s *Server) outOfLine(r *http.Request, id queue.ID, position uint64) (wire.ClaimResponse, error) {
	view, err := s.feed.Current(r.Context(), id)
	if err != nil {
		return wire.ClaimResponse{}, fmt.Errorf("read queue: %w", err)
	}
	fate := view.Fate(position)
	switch {
	case fate == queue.Claimed:
		// The window is over, and the tick that says so is still to come.
		fate = queue.Ended
	case !fate.Done() && view.Settings.State == queue.Closed:
		return wire.ClaimResponse{Error: wire.CodeClosed}, nil
	}
	return wire.ClaimResponse{Error: wire.CodeOut, Fate: fate}, nil
}

// verifyTicket checks a ticket here too: an edge's word is not enough. The queue must still be
// the one that issued it.
func (s *Server) verifyTicket(r *http.Request, text string) (tokens.Ticket, error) {
	ticket, err := s.keys.Load().tickets.Verify([]byte(text), s.clock.Now())
	if err != nil {
		return tokens.Ticket{}, fmt.Errorf("verify ticket: %w", err)
	}
	id := queue.ID(ticket.Queue)
	if view := s.feed.View(id); view != nil && view.Incarnation == ticket.Incarnation && view.Knows(ticket.Generation) {
		return ticket, nil
	}
	// The view may lag behind; the store knows.
	meta, err := s.Store.Get(r.Context(), id)
	if err != nil {
		return tokens.Ticket{}, fmt.Errorf("get queue: %w", err)
	}
	for _, generation := range meta.Generations {
		if meta.Incarnation == ticket.Incarnation && generation == ticket.Generation {
			return ticket, nil
		}
	}
	return tokens.Ticket{}, fmt.Errorf("verify ticket: %w: of an earlier queue", tokens.ErrInvalid)
}

// leave takes a ticket out of the line; where a session runs, that is ended.
func (s *Server) leave(w http.ResponseWriter, r *http.Request) error {
	var in wire.LeaveRequest
	if err := readMessage(w, r, maxTicketBody, &in); err != nil {
		return err
	}
	ticket, err := s.verifyTicket(r, in.Ticket)
	if err != nil {
		return err
	}
	id := queue.ID(ticket.Queue)
	// A claim or the end of a session may come between the look and the leap; each try begins anew.
	for range patchTries {
		ack, err := s.Store.Leave(r.Context(), id, ticket.Incarnation, ticket.Position, s.clock.Now())
		if err == nil {
			s.acted(id, ack)
			s.coordinators.Kick(id)
			w.WriteHeader(http.StatusNoContent)
			return nil
		}
		if errors.Is(err, store.ErrNotFound) { // the view by which the ticket was checked lagged behind
			return fmt.Errorf("leave: %w: of an earlier queue", tokens.ErrInvalid)
		}
		if !errors.Is(err, store.ErrRunning) {
			return fmt.Errorf("leave: %w", err)
		}
		session, err := s.Store.SessionAt(r.Context(), id, ticket.Incarnation, ticket.Position)
		if errors.Is(err, store.ErrNoSession) {
			continue
		}
		if err != nil {
			return fmt.Errorf("find session: %w", err)
		}
		if err := s.endEarly(r.Context(), id, session, queue.Left, queue.ReasonLeft); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return errUnavailable
}

// newSessionID is the queue's id and 128 random bits.
func newSessionID(id queue.ID) string {
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails
	return string(id) + "~" + base64.RawURLEncoding.EncodeToString(random[:])
}
