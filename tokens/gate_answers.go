package tokens

import (
	"encoding/json"
	"errors"
	"html/template"
	"net/http"
	"net/url"
)

// answer is what the Gate says instead of letting a request through.
type answer struct {
	status int
	code   string
	title  string
	// text is for people.
	text string
	// waits: a navigation is sent to the waiting page instead of getting this answer.
	waits bool
	// ended: the session was good once, so that its cookie is of no more use.
	ended bool
	// click: the waiting page is to hand over only on a click, so that nobody is sent in circles.
	click bool
}

// All answers. answerNone lets the request through.
var (
	answerNone     *answer
	answerRequired = &answer{
		status: http.StatusUnauthorized, code: "session_required", waits: true,
		title: "A session of the waiting room is required",
		text:  "In the waiting room you get one when it is your turn.",
	}
	answerInvalid = &answer{
		status: http.StatusUnauthorized, code: "invalid_session", waits: true,
		title: "The session is not valid here",
		text:  "In the waiting room you see where you stand.",
	}
	answerExpired = &answer{
		status: http.StatusGone, code: "session_ended", waits: true, ended: true,
		title: "The session has expired",
		text:  "The time to buy is over. In the waiting room you can stand in line again.",
	}
	answerRevoked = &answer{
		status: http.StatusGone, code: "session_ended", waits: true, ended: true,
		title: "The session was ended",
		text:  "In the waiting room you can stand in line again.",
	}
	answerRefused = &answer{
		status: http.StatusForbidden, code: "session_refused", click: true,
		title: "The session that you came with is not valid",
		text:  "It may have ended, or it belongs to another sale. In the waiting room you see where you stand.",
	}
	answerOtherUser = &answer{
		status: http.StatusForbidden, code: "session_of_other_user", click: true,
		title: "This session belongs to another user",
		text:  "Sign in as the user who stood in line, or go to the waiting room to stand in line yourself.",
	}
	answerStale = &answer{
		status: http.StatusServiceUnavailable, code: "revocations_stale",
		title: "Sessions cannot be checked at the moment",
		text:  "Please try again in a few seconds.",
	}
	answerDuplicate = &answer{
		status: http.StatusBadRequest, code: "duplicate_credentials",
		title: "More than one Authorization header",
	}
	answerNoQueue = &answer{
		status: http.StatusNotFound, code: "queue_unknown",
		title: "There is no queue for this address",
	}
	answerMisconfigured = &answer{
		status: http.StatusInternalServerError, code: "gate_misconfigured",
		title: "The gate of the shop is not configured",
	}
)

// answerTo is what a refusal of the Validator means to whoever presented the token.
func answerTo(err error) *answer {
	switch {
	case errors.Is(err, ErrExpired):
		return answerExpired
	case errors.Is(err, ErrRevoked):
		return answerRevoked
	case errors.Is(err, ErrStale):
		return answerStale
	}
	return answerInvalid
}

// problem is the body of an answer to an API client (RFC 9457).
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Code   string `json:"code"`
	// WaitURL is where to stand in line.
	WaitURL string `json:"waitUrl,omitempty"`
}

var refusalPage = template.Must(template.New("refusal").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{{.Title}}</title>
<h1>{{.Title}}</h1>
{{with .Text}}<p>{{.}}</p>
{{end}}{{with .Link}}<p><a href="{{.}}">Go to the waiting room</a></p>
{{end}}</html>
`))

// refuse writes an answer: a page to a browser, problem+json to anyone else.
func (g *Gate) refuse(w http.ResponseWriter, r *http.Request, queue string, a *answer) {
	keepPrivate(w)
	if a == answerStale {
		w.Header().Set("Retry-After", "2")
	}
	if a.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="waitingroom"`)
	}
	if wantsPage(r) {
		g.refuseBrowser(w, r, queue, a)
		return
	}
	body := problem{Type: "about:blank", Title: a.title, Status: a.status, Code: a.code}
	if queue != "" && (a.waits || a.click) {
		body.WaitURL = g.waitPage(r, queue, nil)
	}
	text, err := json.Marshal(body)
	if err != nil {
		text = []byte("{}")
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(a.status)
	_, _ = w.Write(append(text, '\n')) // who has gone needs no answer
}

func (g *Gate) refuseBrowser(w http.ResponseWriter, r *http.Request, queue string, a *answer) {
	var link string
	if queue != "" && (a.waits || a.click) {
		fragment := url.Values{}
		if a.click {
			fragment.Set("wr_click", "1")
		}
		g.addUser(fragment, r)
		link = g.waitPage(r, queue, fragment)
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	w.WriteHeader(a.status)
	_ = refusalPage.Execute(w, struct{ Title, Text, Link string }{a.title, a.text, link})
}
