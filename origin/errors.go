package origin

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
	"waitingroom/origin/wire"
	"waitingroom/tokens"
)

// This file is the one place where errors become HTTP.

// problem is an error as the API tells it (RFC 9457). Code is stable; Detail is for people and
// holds nothing secret.
type problem struct {
	Type     string   `json:"type"`
	Title    string   `json:"title"`
	Status   int      `json:"status"`
	Code     string   `json:"code"`
	Detail   string   `json:"detail,omitempty"`
	Problems []string `json:"problems,omitempty"`
}

func (p *problem) Error() string { return p.Code }

func refuse(status int, code, detail string) *problem {
	return &problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Code: code, Detail: detail}
}

// The refusals that more than one endpoint knows.
var (
	errUnauthorized  = refuse(http.StatusUnauthorized, "unauthorized", "a credential is required")
	errBadCredential = refuse(http.StatusUnauthorized, "invalid_token", "the credential is not valid here")
	errExpiredToken  = refuse(http.StatusUnauthorized, "token_expired", "the token has expired")
	errForbidden     = refuse(http.StatusForbidden, "forbidden", "the credential does not allow this")
	errTwice         = refuse(http.StatusBadRequest, "duplicate_credentials", "exactly one credential is allowed")
	errNoQueue       = refuse(http.StatusNotFound, "queue_not_found", "there is no such queue")
	errNoSession     = refuse(http.StatusNotFound, "session_not_found", "there is no such session")
	errNoPath        = refuse(http.StatusNotFound, "not_found", "there is nothing under this path")
	errNoMethod      = refuse(http.StatusMethodNotAllowed, "method_not_allowed", "this method is not offered here")
	errMediaType     = refuse(http.StatusUnsupportedMediaType, "unsupported_media_type", "the body must be JSON and say so in Content-Type")
	errRepeatedQuery = refuse(http.StatusBadRequest, "duplicate_parameter", "a query parameter is there more than once")
	errNoLength      = refuse(http.StatusLengthRequired, "length_required", "the body must come with a Content-Length")
	errTooLarge      = refuse(http.StatusRequestEntityTooLarge, "body_too_large", "the body is over the limit")
	errBadBody       = refuse(http.StatusBadRequest, "invalid_body", "the body is not a well-formed JSON object with distinct member names")
	errUnavailable   = refuse(http.StatusServiceUnavailable, "unavailable", "try again in a moment")
	errInternal      = refuse(http.StatusInternalServerError, "internal", "something went wrong here")
	errPlainHTTP     = refuse(http.StatusForbidden, "tls_required", "plain HTTP is accepted from a loopback address only")
)

// sentinels are the errors of other packages that have an answer of their own.
var sentinels = []struct {
	err    error
	answer *problem
	wire   string // the code that an edge is told
}{
	{store.ErrInvalid, errBadBody, wire.CodeBadRequest},
	{store.ErrNotFound, errNoQueue, wire.CodeNotFound},
	{store.ErrExists, refuse(http.StatusConflict, "queue_exists", "a queue with this slug exists"), wire.CodeBadRequest},
	{store.ErrConflict, refuse(http.StatusConflict, "changed_meanwhile", "the queue was changed by another request; read it again"), wire.CodeUnavailable},
	{store.ErrNotClosed, refuse(http.StatusConflict, "queue_not_closed", "close the queue before deleting it"), wire.CodeBadRequest},
	{store.ErrRunning, refuse(http.StatusConflict, "session_running", "a session still runs"), wire.CodeUnavailable},
	{store.ErrClosed, refuse(http.StatusGone, "queue_closed", "the queue is closed"), wire.CodeClosed},
	{store.ErrAnonymous, refuse(http.StatusForbidden, "identity_required", "the queue takes signed-in users only"), wire.CodeIdentity},
	{store.ErrNoSession, errNoSession, wire.CodeBadRequest},
	{store.ErrNotIssued, refuse(http.StatusBadRequest, "invalid_ticket", "the position was not issued"), wire.CodeBadTicket},
	{tokens.ErrExpired, errExpiredToken, wire.CodeBadTicket},
	{tokens.ErrInvalid, errBadCredential, wire.CodeBadTicket},
}

// asProblem finds the answer to an error; known is false where the error is an inner one, which
// is logged and not told.
func asProblem(err error) (p *problem, code string, known bool) {
	var settings *queue.SettingsError
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &p):
		return p, wireCode(p), true
	case errors.As(err, &settings):
		p = refuse(http.StatusBadRequest, "invalid_settings", settings.Error())
		p.Problems = settings.Problems
		return p, wire.CodeBadRequest, true
	case errors.As(err, &tooLarge):
		return errTooLarge, wire.CodeBadRequest, true
	}
	for _, s := range sentinels {
		if errors.Is(err, s.err) {
			return s.answer, s.wire, true
		}
	}
	return errUnavailable, wire.CodeUnavailable, false
}

func wireCode(p *problem) string {
	switch p.Status {
	case http.StatusUnauthorized:
		return wire.CodeUnauthorized
	case http.StatusNotFound:
		return wire.CodeNotFound
	case http.StatusServiceUnavailable, http.StatusInternalServerError:
		return wire.CodeUnavailable
	default:
		return wire.CodeBadRequest
	}
}

// fail answers a request of an operator or a backend with an error.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	p, _, known := asProblem(err)
	s.logInner(r, err, known)
	s.failHeader(w, p)
	writeProblem(w, p)
}

func writeProblem(w http.ResponseWriter, p *problem) {
	body, err := json.Marshal(p)
	if err != nil { // a problem holds nothing that cannot be encoded
		body = []byte("{}")
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(p.Status)
	_, _ = w.Write(body)
}

// failEdge answers an edge with an error: a problem too, whose code is one of the wire's.
func (s *Server) failEdge(w http.ResponseWriter, r *http.Request, err error) {
	p, code, known := asProblem(err)
	s.logInner(r, err, known)
	status := p.Status
	if code == wire.CodeUnavailable {
		status = http.StatusServiceUnavailable
	}
	s.failHeader(w, p)
	told := *p
	told.Title, told.Status, told.Code = http.StatusText(status), status, code
	writeProblem(w, &told)
}

func (s *Server) failHeader(w http.ResponseWriter, p *problem) {
	switch p.Status {
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", `Bearer realm="waitingroom"`)
	case http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", "1")
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
}

// logInner logs the errors that are not told. A request that was given up by its sender is none.
func (s *Server) logInner(r *http.Request, err error, known bool) {
	if known || errors.Is(err, context.Canceled) {
		return
	}
	s.metrics.storeErrors.WithLabelValues("request").Inc()
	s.log.Warn("request failed", "route", r.Pattern, "error", err)
}

// writeJSON answers with a document that is not to be cached.
func writeJSON(w http.ResponseWriter, status int, document any) {
	body, err := json.Marshal(document)
	if err != nil { // documents are plain structs; this is a bug that the recovery reports
		panic(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
