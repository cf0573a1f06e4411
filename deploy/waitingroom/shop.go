package main

import (
	"bytes"
	"crypto/rand"
	_ "embed"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"strings"
	"time"

	"waitingroom/tokens"
)

// Shop is the demo shop: one page of match tickets behind the Gate, and a button that buys them.
// A sale ends the session at the origin, so that the place goes to the next fan at once.
type Shop struct {
	Name      string
	Origin    string // the origin's base URL
	SecretKey string // ends sessions
	Gate      *tokens.Gate
	Client    *http.Client
	// Users tells the waiting room who is signed in, which the cookie of that name tells the shop.
	Users  *tokens.UserSigner
	Cookie string
}

//go:embed shop.html
var shopHTML string

//go:embed shop.css
var shopCSS []byte

var shopPage = template.Must(template.New("shop").Parse(shopHTML))

// shopView is what the page's template needs.
type shopView struct {
	Page, Title, Shop, Order string
	User                     string
	Ends                     time.Time
}

// Handler serves the shop. Only what a fan needs a place for stands behind the Gate.
func (s *Shop) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", s.Gate.Handler(http.HandlerFunc(s.showTickets)))
	mux.Handle("POST /buy", s.Gate.Handler(http.HandlerFunc(s.buy)))
	mux.HandleFunc("GET /thanks", s.showThanks)
	mux.HandleFunc("GET /sign-in", s.showSignIn)
	mux.HandleFunc("POST /sign-in", s.signIn)
	mux.HandleFunc("GET /shop.css", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/css; charset=utf-8")
		_, _ = w.Write(shopCSS)
	})
	return http.NewCrossOriginProtection().Handler(mux)
}

func (s *Shop) showTickets(w http.ResponseWriter, r *http.Request) {
	session, _ := tokens.SessionFrom(r.Context())
	// When the window is over the page asks again, and the Gate leads back to the waiting room.
	w.Header().Set("Refresh", fmt.Sprint(max(int(time.Until(session.ExpiresAt)/time.Second), 0)+1))
	user, _ := s.user(r)
	s.render(w, http.StatusOK, shopView{Page: "inside", Title: "Match tickets", Ends: session.ExpiresAt.UTC(), User: user})
}

// buy places an order and gives the place in the shop back. The app, which comes with a bearer
// token, gets JSON; a browser gets a page.
func (s *Shop) buy(w http.ResponseWriter, r *http.Request) {
	session, _ := tokens.SessionFrom(r.Context())
	app := r.Header.Get("Authorization") != ""
	if err := s.endSession(r, session.ID); err != nil {
		if app {
			w.Header().Set("Retry-After", "1")
			http.Error(w, "the order could not be placed now", http.StatusServiceUnavailable)
			return
		}
		s.render(w, http.StatusServiceUnavailable, shopView{Page: "trouble", Title: "That did not work"})
		return
	}
	order := strings.ToUpper(rand.Text()[:8])
	if app {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, "{\"order\":%q}\n", order)
		return
	}
	s.Gate.ClearCookie(w, r)
	http.Redirect(w, r, "/thanks?order="+order, http.StatusSeeOther)
}

func (s *Shop) endSession(r *http.Request, id string) error {
	request, err := http.NewRequestWithContext(r.Context(), http.MethodDelete, s.Origin+"/sessions/"+url.PathEscape(id), nil)
	if err != nil {
		return fmt.Errorf("end session: %w", err)
	}
	request.Header.Set("X-API-Key", s.SecretKey)
	response, err := s.Client.Do(request)
	if err != nil {
		return fmt.Errorf("end session: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusNoContent {
		return fmt.Errorf("end session: the origin answers %s", response.Status)
	}
	return nil
}

func (s *Shop) showThanks(w http.ResponseWriter, r *http.Request) {
	s.render(w, http.StatusOK, shopView{Page: "thanks", Title: "Thank you", Order: r.URL.Query().Get("order")})
}

func (s *Shop) render(w http.ResponseWriter, status int, view shopView) {
	view.Shop = s.Name
	var b bytes.Buffer
	if err := shopPage.Execute(&b, view); err != nil {
		http.Error(w, "the page could not be made", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes())
}
