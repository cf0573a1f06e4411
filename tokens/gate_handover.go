package tokens

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// tokenParameter carries the session token from the waiting page to the shop.
const tokenParameter = "wr_session"

// takeToken takes the session token out of everything in a request from which a handler or a log
// could get it. It changes the request itself, and its URL in place: a log around us looks at the
// same ones. Of several tokens none is believed, and "" is returned as found.
func takeToken(r *http.Request) (token string, found bool) {
	query, taken := cutToken(r.URL.RawQuery)
	if path, query, any := strings.Cut(r.RequestURI, "?"); any {
		query, also := cutToken(query)
		if len(also) > 0 {
			r.RequestURI = withQuery(path, query)
		}
	}
	if referer := r.Header.Get("Referer"); strings.Contains(referer, tokenParameter) {
		r.Header.Del("Referer")
	}
	if len(taken) == 0 {
		return "", false
	}
	r.URL.RawQuery = query
	// A handler around us may have read the form already.
	delete(r.Form, tokenParameter)
	if len(taken) > 1 {
		return "", true
	}
	return taken[0], true
}

func withQuery(path, query string) string {
	if query == "" {
		return path
	}
	return path + "?" + query
}

// cutToken cuts the token's parameters out of a query and leaves all others as they stand.
func cutToken(query string) (rest string, taken []string) {
	if query == "" {
		return "", nil
	}
	var kept []string
	for pair := range strings.SplitSeq(query, "&") {
		name, text, _ := strings.Cut(pair, "=")
		if plain, err := url.QueryUnescape(name); err == nil && plain == tokenParameter {
			if text, err = url.QueryUnescape(text); err != nil {
				text = "" // no token either way
			}
			taken = append(taken, text)
			continue
		}
		kept = append(kept, pair)
	}
	if len(taken) == 0 {
		return query, nil
	}
	return strings.Join(kept, "&"), taken
}

// handOver puts a good token into the cookie and redirects to the clean address. A token that is
// refused changes nothing: it may be one that somebody planted on a fan with a good session.
func (g *Gate) handOver(w http.ResponseWriter, r *http.Request, queue, token string) {
	session, a := g.judge(r, queue, token)
	switch a {
	case answerNone:
		g.setCookie(w, r, queue, token, session.ExpiresAt)
		redirect(w, localAddress(g.target(r)))
	case answerStale, answerOtherUser:
		g.refuse(w, r, queue, a)
	default:
		g.refuse(w, r, queue, answerRefused)
	}
}

// localAddress makes path and query a reference that cannot lead to another host: a path that
// begins with two slashes would.
func localAddress(target string) string {
	if strings.HasPrefix(target, "//") {
		return "/." + target
	}
	return target
}

// secure reports whether the shop's cookies are kept over TLS only: always, but on plain http to a
// loopback name, where some browsers would not keep such a cookie.
func (g *Gate) secure(r *http.Request) bool {
	scheme, host, _ := strings.Cut(g.origin(r), "://")
	return scheme != "http" || !isLoopback(host)
}

// cookieName is the name of a queue's cookie; with the prefix browsers guarantee that only this
// host has set it (RFC 6265bis, section 4.1.3).
func (g *Gate) cookieName(r *http.Request, queue string) string {
	if g.secure(r) {
		return "__Host-wr_session_" + queue
	}
	return "wr_session_" + queue
}

func (g *Gate) setCookie(w http.ResponseWriter, r *http.Request, queue, token string, expires time.Time) {
	// Less than a second would be written as no bound at all.
	seconds := max(1, int(expires.Sub(g.Validator.now())/time.Second))
	http.SetCookie(w, g.cookie(r, queue, token, seconds))
}

// ClearCookie takes the session's cookie away, for a handler behind the Gate that has ended the
// session.
func (g *Gate) ClearCookie(w http.ResponseWriter, r *http.Request) {
	g.clearCookie(w, r, g.Queue(r))
}

func (g *Gate) clearCookie(w http.ResponseWriter, r *http.Request, queue string) {
	http.SetCookie(w, g.cookie(r, queue, "", -1))
}

func (g *Gate) cookie(r *http.Request, queue, token string, seconds int) *http.Cookie {
	return &http.Cookie{
		Name: g.cookieName(r, queue), Value: token, Path: "/", MaxAge: seconds,
		HttpOnly: true, Secure: g.secure(r), SameSite: http.SameSiteLaxMode,
	}
}

// keepPrivate is for every answer of the Gate itself: not to be stored, and its address, which
// may hold a token, not to be told to the next page.
func keepPrivate(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
}

// redirect answers 303, without a body: http.Redirect would write the address into one.
func redirect(w http.ResponseWriter, address string) {
	keepPrivate(w)
	w.Header().Set("Location", asciiOnly(address))
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusSeeOther)
}

// asciiOnly percent-encodes what may not stand in a header.
func asciiOnly(address string) string {
	plain := true
	for i := range len(address) {
		plain = plain && address[i] > ' ' && address[i] < 0x7f
	}
	if plain {
		return address
	}
	var b strings.Builder
	for i := range len(address) {
		if c := address[i]; c > ' ' && c < 0x7f {
			b.WriteByte(c)
		} else {
			b.WriteByte('%')
			b.WriteString(strings.ToUpper(strconv.FormatUint(uint64(c)|0x100, 16)[1:]))
		}
	}
	return b.String()
}
