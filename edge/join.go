package edge

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"mime"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/valyala/fasthttp"

	"waitingroom/origin/queue"
	"waitingroom/tokens"
)

// joinBody is the body of a join: {}, {"userId"} or {"userToken"}.
type joinBody struct {
	UserID    presentString `json:"userId"`
	UserToken presentString `json:"userToken"`
}

// presentString tells a missing member from an empty one, and takes nothing but strings: null
// would silently make an anonymous join of one that was meant for a user.
type presentString struct {
	given bool
	value string
}

func (p *presentString) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	p.given = true
	if d.PeekKind() != '"' {
		return errors.New("a string is required")
	}
	return json.UnmarshalDecode(d, &p.value)
}

// decodeBody reads a request's JSON object strictly. The error tells which member is wrong, never
// its value.
func decodeBody(ctx *fasthttp.RequestCtx, into any) error {
	if !isJSON(ctx.Request.Header.ContentType()) || len(ctx.Request.Header.ContentEncoding()) > 0 {
		return errMediaType
	}
	body := jsontext.Value(ctx.PostBody())
	if body.Kind() != '{' {
		return errBody("The body must be a JSON object.")
	}
	err := json.Unmarshal(body, into, json.RejectUnknownMembers(true))
	var semantic *json.SemanticError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &semantic) && errors.Is(semantic.Err, json.ErrUnknownName):
		return errBody("The body has a member that is not known here.")
	case errors.As(err, &semantic):
		// The pointer leads to a member that is known, so it repeats nothing that was sent.
		return errBody("The body has a wrong type of value at " + string(semantic.JSONPointer) + ".")
	}
	return errBody("The body is not well-formed JSON with distinct member names.")
}

// isJSON reports whether a Content-Type is that of JSON in UTF-8, with parameters or without. Nearly all
// are written in the one way that needs no parser.
func isJSON(contentType []byte) bool {
	if string(contentType) == "application/json" {
		return true
	}
	mediaType, params, err := mime.ParseMediaType(string(contentType))
	charset, named := params["charset"]
	return err == nil && mediaType == "application/json" && (!named || strings.EqualFold(charset, "utf-8"))
}

// joiner is who asks to join.
type joiner struct {
	page bool   // the waiting page itself
	user string // "" is an anonymous fan, or one whose token is still to be verified
	// token is a userToken; verifying it costs more than all else here, and is done last.
	token string
}

// named reports whether it is a user, as far as they say.
func (j *joiner) named() bool { return j.user != "" || j.token != "" }

// postTicket answers POST /queues/{queue}/tickets.
func (s *Server) postTicket(ctx *fasthttp.RequestCtx) error {
	snap, err := s.ready()
	if err != nil {
		return err
	}
	key, withKey, err := presentedAPIKey(ctx, snap.keys)
	if err != nil {
		return err
	}
	if !withKey && !s.samePage(ctx) {
		if len(ctx.Request.Header.Peek(fasthttp.HeaderOrigin)) == 0 {
			return errAPIKeyRequired
		}
		return errOrigin
	}
	l, err := findLine(ctx, snap)
	if err != nil {
		return err
	}
	if withKey && key.tenant != l.id.Tenant() {
		return errQueueNotFound
	}
	who, err := readJoin(ctx, withKey && key.secret)
	if err != nil {
		return err
	}
	if who.page = !withKey; who.page {
		if answered, err := s.answerHeldPlace(ctx, snap, l, &who); answered || err != nil {
			return err
		}
	}
	settings := &l.view.Load().Settings
	if settings.Identity == queue.IdentityRequired && !who.named() {
		return errIdentityRequired
	}
	if settings.State == queue.Closed {
		return errQueueClosed
	}
	// Shedding goes first: a fan who was turned away by it has not used up a limit.
	g := s.gatherer(l.id)
	if err := s.shedJoin(ctx, g, &who); err != nil {
		return err
	}
	if who.page {
		if room, err := s.makeRoom(ctx, snap, l.id); err != nil {
			return err
		} else if !room {
			return errTooManyPlaces
		}
	}
	if withKey {
		err = s.limitJoin(ctx, &key)
	} else {
		err = s.limitJoin(ctx, nil)
	}
	if err != nil {
		return err
	}
	if who.token != "" {
		if who.user, err = s.verifyUser(snap, l.id.Tenant(), who.token); err != nil {
			return err
		}
	}
	return s.join(ctx, snap, l, g, who)
}

// readJoin checks a join's body and returns whom it names; a user id only where it may.
func readJoin(ctx *fasthttp.RequestCtx, mayName bool) (joiner, error) {
	var body joinBody
	if err := decodeBody(ctx, &body); err != nil {
		return joiner{}, err
	}
	id, token := &body.UserID, &body.UserToken
	switch {
	case id.given && token.given:
		return joiner{}, errBody("userId and userToken exclude each other.")
	case token.given && token.value == "":
		return joiner{}, errBody("userToken must not be empty.")
	case id.given && (id.value == "" || len(id.value) > tokens.MaxSubject):
		return joiner{}, errUserIDBad
	case id.given && !mayName:
		return joiner{}, errSecretKey
	}
	return joiner{user: id.value, token: token.value}, nil
}

// join asks the origin for a position and answers with the ticket.
func (s *Server) join(ctx *fasthttp.RequestCtx, snap *snapshot, l *line, g *gatherer, who joiner) error {
	a := g.join(s.work, &s.running, who.user)
	if a.err != nil {
		return a.err
	}
	if a.incarnation == l.incarnation {
		l.raise(a.Position)
	} else {
		l = s.strange(l, a)
	}
	subject := who.user
	if subject == "" {
		subject = randomName()
	}
	token, t, err := s.sign(snap, l, a, subject)
	if err != nil {
		return err
	}
	if who.page {
		s.setCookie(ctx, &t, token)
	}
	status := s.statusOfJoin(l, a)
	code := fasthttp.StatusOK
	if a.New {
		code = fasthttp.StatusCreated
	}
	return answerTicket(ctx, code, t.ID, token, &status)
}

// strange stands in for the line of a queue that was made anew just now, of which the feed has
// not told yet.
func (s *Server) strange(old *line, a joinAnswer) *line {
	settings := old.view.Load().Settings
	settings.State = queue.Open // a closed one would have taken no join
	v := queue.NewView(queue.Snapshot{
		ID: old.id, Incarnation: a.incarnation, Generations: []string{a.generation},
		CreatedAt: s.known.clock.now(), Settings: settings,
	})
	return newLine(v, s.known.clock.now())
}

// statusOfJoin is the status right after a join. The answer may know of an offer or a session
// that the feed has yet to tell; the log entry that it names keeps a client from believing an
// older status afterwards.
func (s *Server) statusOfJoin(l *line, a joinAnswer) queue.Status {
	view := l.view.Load()
	var status queue.Status
	if a.New {
		status = s.statusUnseen(l, a.Position) // joining counts as a sighting by itself
	} else {
		status = s.status(l, a.Position)
	}
	turn := view.Settings.TurnLength()
	switch {
	case !a.ExpiresAt.IsZero() && status.State != queue.TicketActive:
		status.State, status.SessionExpiresAt = queue.TicketActive, a.ExpiresAt.UTC()
		status.Reason, status.ClaimBy, status.HeldUntil = "", zeroTime, zeroTime
	case !a.ClaimBy.IsZero() && (status.State == queue.TicketWaiting || status.State == queue.TicketScheduled):
		status.State, status.ClaimBy = queue.TicketAdmitted, a.ClaimBy.UTC()
	default:
		return status
	}
	status.Ahead, status.WaitSeconds = nil, nil
	status.PollAfterSeconds = int(queue.PollAfter(status.State, 0, 0, turn) / time.Second)
	status.Seq = queue.Seq(a.generation, max(a.entry, view.Number))
	return status
}

// answerHeldPlace answers a page whose cookie still holds a place in the queue with that place. One
// that comes with a userToken is answered so where the place is that user's; otherwise somebody
// signed in since, or somebody else has the browser now. What the token says need not be true for
// that: the cookie alone would have got the same answer.
func (s *Server) answerHeldPlace(ctx *fasthttp.RequestCtx, snap *snapshot, l *line, who *joiner) (answered bool, err error) {
	token, err := s.cookieFor(ctx, l.id)
	if err != nil || token == nil {
		return false, err
	}
	t, held := s.heldPlace(snap, l, token)
	if !held {
		return false, nil
	}
	if who.token != "" {
		if user, err := tokens.PeekSubject([]byte(who.token)); err != nil || user != t.Subject {
			return false, nil
		}
	}
	status := s.status(l, t.Position)
	return true, answerTicket(ctx, fasthttp.StatusOK, t.ID, token, &status)
}

// heldPlace reports whether a token is a ticket that still has its place in the line.
func (s *Server) heldPlace(snap *snapshot, l *line, token []byte) (*ticket, bool) {
	t, err := s.verifyTicket(snap, token)
	if err != nil || t.queue != l.id {
		return nil, false
	}
	if in, err := s.lineOf(snap, t); err != nil || in != l {
		return nil, false
	}
	status := s.statusUnseen(l, t.Position)
	return t, holdsPlace(&status)
}

// answerTicket writes a ticket with the members of its status beside it.
func answerTicket(ctx *fasthttp.RequestCtx, code int, id string, token []byte, status *queue.Status) error {
	// The response keeps its body's buffer between requests of a connection.
	b := append(ctx.Response.Body()[:0], `{"ticket":"`...)
	b = append(b, token...) // base64url and dots
	b = append(b, `","ticketId":`...)
	b = appendString(b, id)
	b = append(b, ',')
	b = appendStatusMembers(b, status)
	b = append(b, '}')
	ctx.SetStatusCode(code)
	ctx.Response.Header.Set(fasthttp.HeaderCacheControl, "no-store")
	ctx.Response.Header.SetContentType("application/json")
	ctx.Response.SetBody(b)
	return nil
}

// randomName is 128 random bits.
func randomName() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand crashes the program first
	return hex.EncodeToString(b[:])
}
