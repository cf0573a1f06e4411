package origin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

// endSession ends a session before its time, for the shop or for the operator.
func (s *Server) endSession(w http.ResponseWriter, r *http.Request) error {
	tenant, reason, err := s.authSessions(r)
	if err != nil {
		return err
	}
	session := r.PathValue("id")
	name, _, found := strings.Cut(session, "~")
	id, err := queue.ParseID(name)
	if !found || err != nil || id.Tenant() != tenant {
		return errNoSession
	}
	running, err := s.Store.Session(r.Context(), id, session)
	switch {
	case err == nil:
		err = s.endEarly(r.Context(), id, running, queue.Ended, reason)
		if err != nil {
			return err
		}
	case errors.Is(err, store.ErrNoSession), errors.Is(err, store.ErrNotFound):
		// Ended early before, it stays ended early for as long as anyone could ask.
		revoked, err := s.feed.IsRevoked(r.Context(), tenant, session)
		if err != nil {
			return err
		}
		if !revoked {
			return errNoSession
		}
	default:
		return fmt.Errorf("find session: %w", err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// endEarly is the second and third of the three steps that end a running session before its
// time; finding its expiry was the first. The revocation stands before the slot is free, so that
// no two fans are ever let into the same slot, and each step may be repeated.
func (s *Server) endEarly(ctx context.Context, id queue.ID, session queue.Session, fate queue.Fate, reason string) error {
	revocation := store.Revocation{ID: session.ID, ExpiresAt: session.ExpiresAt}
	if err := s.Store.Revoke(ctx, id.Tenant(), revocation, s.clock.Now()); err != nil {
		return fmt.Errorf("revoke session: %w", err)
	}
	s.feed.Hint(store.RevocationHint(id.Tenant()))
	ack, err := s.Store.EndSession(ctx, id, session.ID, fate, reason, s.clock.Now())
	if err != nil {
		return fmt.Errorf("end session: %w", err)
	}
	s.metrics.sessionEnds.WithLabelValues(reason).Inc()
	s.acted(id, ack)
	s.coordinators.Kick(id) // somebody may be waiting for the slot
	return nil
}
