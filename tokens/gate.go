package tokens

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// Gate is net/http middleware that lets only sessions of the waiting room through to a shop. A
// browser without one is redirected to the waiting page, which sends it back with a session token
// in the query; the Gate moves the token into a cookie before any handler sees it. Anyone else
// presents the token as "Authorization: Bearer", and without one is answered 401.
//
// What it answers, as problem+json to an API client and as a page to a browser that cannot be
// redirected, with the codes of the edge's /access where the meaning is the same:
//
//	401 session_required       no session token in the request
//	401 invalid_session        a token that was never valid here
//	410 session_ended          expired, released or revoked
//	403 session_refused        a token handed over in the query is not good
//	403 session_of_other_user  the session belongs to somebody else than the signed-in user
//	503 revocations_stale      it cannot be told now, see Validator.WhenStale
//	400 duplicate_credentials  more than one Authorization header
//	404 queue_unknown          Queue names no queue for the request
//	500 gate_misconfigured     see Check
type Gate struct {
	// Validator checks the sessions; its Run is the caller's business.
	Validator *Validator
	// WaitURL is the public base of the edge, https://wait.example.org, as browsers reach it.
	WaitURL string
	// Queue names the queue whose sessions open what is asked for. "" refuses the request: what
	// needs no session does not go through the Gate.
	Queue func(*http.Request) string
	// PublicURL is the base of the shop as browsers reach it. Without it scheme and host are taken
	// from the request, which behind a proxy that ends TLS are wrong.
	PublicURL string
	// User tells whom the shop has signed in, by the user id that it joined the queue with. When
	// known, only a session of that user is accepted. Say known only for queues that fans join
	// with their user ids: an anonymous session belongs to nobody by name. Optional.
	User func(*http.Request) (sub string, known bool)
	// UserToken mints the token that proves the signed-in user to the waiting page; "" for none.
	// It is passed in the fragment, which no server sees. Optional.
	UserToken func(*http.Request) string
}

// sessionContext is the key under which the session stands in a request's context.
type sessionContext struct{}

// SessionFrom returns the session with which a request passed the Gate.
func SessionFrom(ctx context.Context) (Session, bool) {
	s, found := ctx.Value(sessionContext{}).(Session)
	return s, found
}

// Check reports fields that are missing or wrong. Call it at start; a Gate that fails it answers
// every request with 500, since one that redirected anywhere would send fans in circles.
func (g *Gate) Check() error {
	var problems []error
	if g.Validator == nil {
		problems = append(problems, errors.New("no Validator"))
	} else if err := g.Validator.check(); err != nil {
		problems = append(problems, fmt.Errorf("the Validator's: %w", err))
	}
	if g.Queue == nil {
		problems = append(problems, errors.New("no Queue"))
	}
	// Whether the browser's way to the edge is encrypted is seen in the browser; what matters here
	// is that it is an address.
	if err := checkBaseURL(g.WaitURL, true); err != nil {
		problems = append(problems, fmt.Errorf("WaitURL %w", err))
	}
	if g.PublicURL != "" {
		// Off loopback no browser keeps the cookie on plain http.
		if err := checkBaseURL(g.PublicURL, false); err != nil {
			problems = append(problems, fmt.Errorf("PublicURL %w", err))
		}
	}
	if err := errors.Join(problems...); err != nil {
		return fmt.Errorf("check gate: %w", err)
	}
	return nil
}

// Handler guards next.
func (g *Gate) Handler(next http.Handler) http.Handler {
	fault := g.Check()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handedOver, found := takeToken(r)
		if fault != nil {
			g.refuse(w, r, "", answerMisconfigured)
			return
		}
		queue := g.Queue(r)
		tenant, slug, _ := strings.Cut(queue, ".")
		if !validName(tenant) || !validName(slug) {
			g.refuse(w, r, "", answerNoQueue)
			return
		}
		// Only a navigation hands over: another method could not be redirected without loss.
		if found && isNavigation(r) {
			g.handOver(w, r, queue, handedOver)
			return
		}
		session, a := g.admit(r, queue)
		switch {
		case a == answerNone:
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), sessionContext{}, session)))
		case a.waits && wantsPage(r) && isNavigation(r):
			g.redirectToWait(w, r, queue, a)
		default:
			if a.ended && wantsPage(r) {
				g.clearCookie(w, r, queue)
			}
			g.refuse(w, r, queue, a)
		}
	})
}

// admit looks for a good session in the request: first in the cookie, then in the bearer, which a
// shop may also use for tokens of its own. Without one, the answer says why.
func (g *Gate) admit(r *http.Request, queue string) (Session, *answer) {
	authorization := r.Header.Values("Authorization")
	if len(authorization) > 1 {
		return Session{}, answerDuplicate
	}
	why := answerRequired
	// Several cookies of one name can come only where the __Host- prefix does not forbid it.
	for _, cookie := range r.CookiesNamed(g.cookieName(r, queue)) {
		session, a := g.judge(r, queue, cookie.Value)
		if a == answerNone {
			return session, answerNone
		}
		why = a
	}
	if len(authorization) == 1 {
		if scheme, token, _ := strings.Cut(authorization[0], " "); strings.EqualFold(scheme, "Bearer") {
			session, a := g.judge(r, queue, strings.TrimLeft(token, " "))
			if a == answerNone {
				return session, answerNone
			}
			if why == answerRequired {
				why = a
			}
		}
	}
	return Session{}, why
}

// judge checks one session token, and whose it is.
func (g *Gate) judge(r *http.Request, queue, token string) (Session, *answer) {
	session, err := g.Validator.Validate(token, queue)
	if err != nil {
		return Session{}, answerTo(err)
	}
	if g.User != nil {
		if sub, known := g.User(r); known && sub != session.Subject {
			return Session{}, answerOtherUser
		}
	}
	return session, answerNone
}

// redirectToWait sends a browser to stand in line.
func (g *Gate) redirectToWait(w http.ResponseWriter, r *http.Request, queue string, a *answer) {
	if a.ended {
		g.clearCookie(w, r, queue)
	}
	fragment := url.Values{}
	g.addUser(fragment, r)
	redirect(w, g.waitPage(r, queue, fragment))
}

// addUser puts the shop's proof of its signed-in user into a fragment.
func (g *Gate) addUser(fragment url.Values, r *http.Request) {
	if g.UserToken == nil {
		return
	}
	if token := g.UserToken(r); token != "" {
		fragment.Set("wr_user", token)
	}
}

// waitPage is the waiting page's address, with the way back to what was asked for: to the shop's
// front where that was no page but an order or the like.
func (g *Gate) waitPage(r *http.Request, queue string, fragment url.Values) string {
	back := g.origin(r) + g.target(r)
	if !isNavigation(r) {
		back = g.origin(r) + g.basePath() + "/"
	}
	page := strings.TrimSuffix(g.WaitURL, "/") + "/wait/" + queue + "?return=" + url.QueryEscape(back)
	if len(fragment) > 0 {
		page += "#" + fragment.Encode()
	}
	return page
}

// origin is scheme and host of the shop as browsers see them.
func (g *Gate) origin(r *http.Request) string {
	if u := g.public(); u != nil {
		return u.Scheme + "://" + u.Host
	}
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

// target is path and query of the request as browsers see them, without the session token.
func (g *Gate) target(r *http.Request) string {
	// What was asked for, even where a handler around us has cut a prefix from r.URL.
	u, err := url.ParseRequestURI(r.RequestURI)
	if err != nil {
		u = r.URL
	}
	path := g.basePath() + u.EscapedPath()
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	if u.RawQuery != "" {
		path += "?" + u.RawQuery
	}
	return path
}

// basePath is what browsers see before the paths that the shop sees, without a slash at the end.
func (g *Gate) basePath() string {
	if u := g.public(); u != nil {
		return strings.TrimSuffix(u.EscapedPath(), "/")
	}
	return ""
}

func (g *Gate) public() *url.URL {
	if g.PublicURL == "" {
		return nil
	}
	u, err := url.Parse(g.PublicURL)
	if err != nil {
		return nil // Check has refused it
	}
	return u
}

// isNavigation reports whether a request can be redirected without losing what it carries.
func isNavigation(r *http.Request) bool {
	return r.Method == http.MethodGet || r.Method == http.MethodHead
}

// wantsPage reports whether a person looks at the answer, and not an API client.
func wantsPage(r *http.Request) bool {
	return len(r.Header.Values("Authorization")) == 0 && acceptsHTML(r)
}

func acceptsHTML(r *http.Request) bool {
	for _, line := range r.Header.Values("Accept") {
		for kind := range strings.SplitSeq(line, ",") {
			name, parameters, _ := strings.Cut(kind, ";")
			if strings.EqualFold(strings.TrimSpace(name), "text/html") {
				quality := strings.ReplaceAll(strings.ToLower(parameters), " ", "")
				return strings.Trim(strings.TrimPrefix(quality, "q="), "0.") != "" || quality == ""
			}
		}
	}
	return false
}
