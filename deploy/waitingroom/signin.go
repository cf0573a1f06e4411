package main

import (
	"net/http"
	"net/url"
	"time"
	"unicode/utf8"

	"waitingroom/tokens"
)

// user tells whom the shop has signed in. In a demo everybody is believed who they say they are; a
// shop asks for a password and keeps a session of its own.
func (s *Shop) user(r *http.Request) (name string, known bool) {
	cookie, err := r.Cookie(s.Cookie)
	if err != nil {
		return "", false
	}
	name, err = url.QueryUnescape(cookie.Value)
	return name, err == nil && name != ""
}

// userToken proves the signed-in user to the waiting page. It is used at once, so a minute is enough.
func (s *Shop) userToken(r *http.Request) string {
	name, known := s.user(r)
	if !known {
		return ""
	}
	now := time.Now()
	token, err := s.Users.Sign(name, now, now.Add(time.Minute))
	if err != nil {
		return "" // a name that cannot be one: anonymous then
	}
	return token
}

func (s *Shop) showSignIn(w http.ResponseWriter, r *http.Request) {
	user, _ := s.user(r)
	s.render(w, http.StatusOK, shopView{Page: "signIn", Title: "Sign in", User: user})
}

// signIn signs in under any name, or out under none.
func (s *Shop) signIn(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 4096)
	name := r.PostFormValue("user")
	if len(name) > tokens.MaxSubject || !utf8.ValidString(name) {
		http.Error(w, "the name is too long, or no text", http.StatusBadRequest)
		return
	}
	cookie := &http.Cookie{Name: s.Cookie, Value: url.QueryEscape(name), Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode}
	if name == "" {
		cookie.MaxAge = -1
	}
	http.SetCookie(w, cookie)
	// Not a redirect: form-action, in the page's policy, would forbid the one from there to the
	// waiting page.
	w.Header().Set("Refresh", "0; url=/")
	s.render(w, http.StatusOK, shopView{Page: "signedIn", Title: "Signed in", User: name})
}
