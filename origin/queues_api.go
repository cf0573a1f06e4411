package origin

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"reflect"
	"strings"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
	"waitingroom/tokens"
)

const (
	// patchTries is how often a change is tried again that met another one: shops report what remains
	// with every purchase.
	patchTries = 20
	// patchPause bounds the pause before each further try, so that many that meet part again.
	patchPause = 20 * time.Millisecond
)

// queueDocument is a queue as operators see it.
type queueDocument struct {
	ID          queue.ID  `json:"id"`
	Incarnation string    `json:"incarnation"`
	CreatedAt   time.Time `json:"createdAt"`
	Version     uint64    `json:"version"`
	queue.Settings
}

func documentOf(m store.Meta) queueDocument {
	m.Settings.Notes = queue.Notes{} // the queue's own
	return queueDocument{ID: m.ID, Incarnation: m.Incarnation, CreatedAt: m.CreatedAt.UTC(), Version: m.Version, Settings: m.Settings}
}

// ownQueue reads the id in the path. Another tenant's queue is as unknown as one that does not exist.
func ownQueue(r *http.Request, operator tokens.Operator) (queue.ID, error) {
	id, err := queue.ParseID(r.PathValue("queue"))
	if err != nil || id.Tenant() != operator.Tenant {
		return "", errNoQueue
	}
	return id, nil
}

// ownMeta reads the description of the queue in the path.
func (s *Server) ownMeta(r *http.Request, operator tokens.Operator) (store.Meta, error) {
	id, err := ownQueue(r, operator)
	if err != nil {
		return store.Meta{}, err
	}
	meta, err := s.Store.Get(r.Context(), id)
	if err != nil {
		return store.Meta{}, fmt.Errorf("get queue: %w", err)
	}
	return meta, nil
}

func (s *Server) createQueue(w http.ResponseWriter, r *http.Request, operator tokens.Operator) error {
	body, err := readDocument(w, r)
	if err != nil {
		return err
	}
	slug, rest, err := splitSlug(body)
	if err != nil {
		return err
	}
	settings, err := queue.DecodeSettings(rest, s.clock.Now())
	if err != nil {
		return err
	}
	id := queue.MakeID(operator.Tenant, slug)
	if err := s.remind(r.Context(), id, settings); err != nil {
		return err
	}
	incarnation, generation := randomName(), randomName()
	meta, ack, err := s.Store.Create(r.Context(), id, incarnation, generation, settings, s.clock.Now())
	if err != nil && !errors.Is(err, store.ErrExists) {
		// Whether it happened is unknown; the same incarnation makes the repetition safe.
		meta, ack, err = s.Store.Create(r.Context(), id, incarnation, generation, settings, s.clock.Now())
	}
	if err != nil {
		return fmt.Errorf("create queue: %w", err)
	}
	// Again, because the deletion of an earlier queue of that id may have taken the first one away. It
	// hardly ever has, so the queue that was made is told of even where this fails.
	if err := s.remind(r.Context(), id, meta.Settings); err != nil {
		s.logInner(r, err, false)
	}
	s.acted(id, ack)
	w.Header().Set("Location", "/queues/"+string(meta.ID))
	writeJSON(w, http.StatusCreated, documentOf(meta))
	return nil
}

func (s *Server) listQueues(w http.ResponseWriter, r *http.Request, operator tokens.Operator) error {
	metas, err := s.Store.List(r.Context(), operator.Tenant)
	if err != nil {
		return fmt.Errorf("list queues: %w", err)
	}
	documents := make([]queueDocument, 0, len(metas))
	for _, m := range metas {
		documents = append(documents, documentOf(m))
	}
	writeJSON(w, http.StatusOK, map[string][]queueDocument{"queues": documents})
	return nil
}

func (s *Server) getQueue(w http.ResponseWriter, r *http.Request, operator tokens.Operator) error {
	meta, err := s.ownMeta(r, operator)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, documentOf(meta))
	return nil
}

func (s *Server) patchQueue(w http.ResponseWriter, r *http.Request, operator tokens.Operator) error {
	id, err := ownQueue(r, operator)
	if err != nil {
		return err
	}
	patch, err := readDocument(w, r, "application/merge-patch+json", "application/json")
	if err != nil {
		return err
	}
	for range patchTries {
		var meta store.Meta
		if meta, err = s.Store.Get(r.Context(), id); err != nil {
			return fmt.Errorf("get queue: %w", err)
		}
		settings, err := meta.Settings.Patch(patch, s.clock.Now())
		if err != nil {
			return err
		}
		view := s.feed.View(id)
		if view != nil && view.Incarnation != meta.Incarnation {
			view = nil
		}
		settings = settings.Measured(meta.Settings, view)
		if reflect.DeepEqual(settings, meta.Settings) {
			writeJSON(w, http.StatusOK, documentOf(meta))
			return nil
		}
		if err := s.remind(r.Context(), id, settings); err != nil {
			return err
		}
		changed, ack, err := s.Store.Update(r.Context(), id, meta.Version, settings, s.clock.Now())
		if errors.Is(err, store.ErrConflict) {
			pause := time.NewTimer(mathrand.N(patchPause))
			select {
			case <-pause.C:
				continue
			case <-r.Context().Done():
				pause.Stop()
				return errUnavailable
			}
		}
		if err != nil {
			return fmt.Errorf("update queue: %w", err)
		}
		s.acted(id, ack)
		s.coordinators.Kick(id)
		writeJSON(w, http.StatusOK, documentOf(changed))
		return nil
	}
	return fmt.Errorf("update queue: %w", store.ErrConflict)
}

func (s *Server) deleteQueue(w http.ResponseWriter, r *http.Request, operator tokens.Operator) error {
	meta, err := s.ownMeta(r, operator)
	if err != nil {
		return err
	}
	if err := s.Store.Delete(r.Context(), meta.ID, meta.Incarnation); err != nil {
		return fmt.Errorf("delete queue: %w", err)
	}
	s.feed.Hint(meta.ID)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// remind writes down when somebody has to look after a queue that gets these settings: before it
// gets them, so that no crash in between can leave it forgotten.
func (s *Server) remind(ctx context.Context, id queue.ID, settings queue.Settings) error {
	at := settings.NextDue(s.clock.Now())
	if at.IsZero() {
		return nil
	}
	if err := s.Store.Remind(ctx, id, at); err != nil {
		return fmt.Errorf("write reminder: %w", err)
	}
	return nil
}

// statsDocument is what operators and viewers watch a sale by.
type statsDocument struct {
	ID            queue.ID    `json:"id"`
	State         queue.State `json:"state"`
	Capacity      int         `json:"capacity"`
	Remaining     *int        `json:"remaining"` // null while nothing is reported
	Issued        uint64      `json:"issued"`
	Watermark     uint64      `json:"watermark"`
	Waiting       int         `json:"waiting"` // without an offer
	Present       int         `json:"present"` // of waiting
	Owed          int         `json:"owed"`    // of waiting
	Offers        int         `json:"offers"`
	Sessions      int         `json:"sessions"`
	RatePerMinute int         `json:"ratePerMinute"` // offers in the last minute
	// Totals since the queue was created.
	Admitted     int       `json:"admitted"`
	MissedOffers int       `json:"missedOffers"`
	Claimed      int       `json:"claimed"`
	Ended        int       `json:"ended"`
	Expired      int       `json:"expired"`
	Missed       int       `json:"missed"`
	Left         int       `json:"left"`
	Now          time.Time `json:"now"`
	// Series are the last minutes in which something happened, Journal the moves of the watermark with
	// the reasons for which slots were free; both oldest first.
	Series  []queue.Minute `json:"series"`
	Journal []queue.Move   `json:"journal"`
	// JournalLost is how many entries of the log, at most, neither of them knows of.
	JournalLost uint64 `json:"journalLost"`
}

func (s *Server) queueStats(w http.ResponseWriter, r *http.Request, operator tokens.Operator) error {
	id, err := ownQueue(r, operator)
	if err != nil {
		return err
	}
	query, err := parseJournalQuery(r)
	if err != nil {
		return err
	}
	counts, err := s.Store.Counts(r.Context(), id)
	if err != nil {
		return fmt.Errorf("count queue: %w", err)
	}
	view, err := s.feed.Current(r.Context(), id)
	if err != nil {
		return fmt.Errorf("read queue: %w", err)
	}
	journal, err := s.journalist.Read(r.Context(), view, query.minutes, query.moves, query.after, query.last)
	if err != nil {
		return err
	}
	now := s.clock.Now()
	writeJSON(w, http.StatusOK, statsDocument{
		ID: id, State: view.Settings.State, Capacity: view.Settings.Capacity, Remaining: view.Settings.Remaining,
		Issued: counts.Issued, Watermark: counts.Watermark,
		Waiting: counts.Waiting, Present: counts.Present, Owed: view.Owed,
		Offers: counts.Offers, Sessions: counts.Sessions, RatePerMinute: view.RatePerMinute(now),
		Admitted: counts.Admitted, MissedOffers: counts.MissedOffers, Claimed: counts.Claimed,
		Ended: counts.Ended, Expired: counts.Expired, Missed: counts.Missed, Left: counts.Left,
		Now: now, Series: journal.series, Journal: journal.moves, JournalLost: journal.lost,
	})
	return nil
}

// acted does what every change of a queue is followed by.
func (s *Server) acted(id queue.ID, ack store.Ack) {
	if ack.Leaderless {
		s.coordinators.Wake(id)
	}
	s.feed.Hint(id)
}

// randomName is a name that nobody guesses and that nothing had before: 80 random bits.
func randomName() string { return strings.ToLower(rand.Text()[:16]) }
