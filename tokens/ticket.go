package tokens

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// TicketLifetime is how long a ticket is valid after its issue, or after its queue's opening if
// that is later. It is a bound on keeping keys; places end by fate and incarnation long before.
const TicketLifetime = 30 * 24 * time.Hour

// MaxSubject bounds a subject, the tenant's user id or a random name, in bytes.
const MaxSubject = 128

const (
	ticketType = "wr-ticket+jwt"
	// clockSkew is how far clocks may differ: allowed on "issued at" and "not before", never on
	// an expiry.
	clockSkew = 30 * time.Second
)

// Ticket is the signed proof of a position.
type Ticket struct {
	Issuer      string
	Queue       string // aud
	ID          string // jti, TicketID(Incarnation, Position)
	IssuedAt    time.Time
	ExpiresAt   time.Time
	Subject     string
	Position    uint64
	Incarnation string
	Generation  string
}

// TicketID derives a ticket's id: every device of a fan has the same one.
func TicketID(incarnation string, position uint64) string {
	var room [96]byte
	return string(appendTicketID(room[:0], incarnation, position))
}

func appendTicketID(dst []byte, incarnation string, position uint64) []byte {
	dst = append(dst, incarnation...)
	dst = append(dst, '-')
	return strconv.AppendUint(dst, position, 10)
}

// Tickets signs and verifies the tickets of the tenants that it has keys of. Immutable; safe for
// concurrent use.
type Tickets struct {
	Issuer string
	Rings  map[string]*KeyRing // by tenant
}

// Sign appends the signed ticket to dst. t.Issuer and t.ID are filled in, and so is t.IssuedAt
// with now where it is zero; times are cut to whole seconds.
func (s *Tickets) Sign(dst []byte, t Ticket, now time.Time) ([]byte, error) {
	tenant, slug, _ := strings.Cut(t.Queue, ".")
	if !validName(tenant) || !validName(slug) {
		return dst, errors.New("sign ticket: the queue is not tenant.slug")
	}
	ring := s.Rings[tenant]
	if ring == nil {
		return dst, errors.New("sign ticket: no keys of the tenant")
	}
	key := ring.signer(now)
	if key == nil {
		return dst, errors.New("sign ticket: the tenant has no key in use now")
	}
	if t.IssuedAt.IsZero() {
		t.IssuedAt = now
	}
	issued, expires := t.IssuedAt.Unix(), t.ExpiresAt.Unix()
	switch {
	case s.Issuer == "" || !utf8.ValidString(s.Issuer):
		return dst, errors.New("sign ticket: no issuer")
	case t.Position == 0:
		return dst, errors.New("sign ticket: positions begin at 1")
	case !validWord(t.Incarnation) || !validWord(t.Generation):
		return dst, errors.New("sign ticket: incarnation and generation are 1 to 64 of A-Z, a-z, 0-9, _ and -")
	case !validSubject(t.Subject):
		return dst, fmt.Errorf("sign ticket: a subject is 1 to %d bytes of UTF-8", MaxSubject)
	case issued <= 0 || expires <= issued || expires > maxTime:
		return dst, errors.New("sign ticket: the expiry is not after the issue")
	}

	var room [1024]byte
	text := appendMember(room[:0], `{"iss":`, s.Issuer)
	text = appendMember(text, `,"aud":`, t.Queue)
	text = append(text, `,"jti":"`...)
	text = appendTicketID(text, t.Incarnation, t.Position)
	text = appendNumber(text, `","iat":`, uint64(issued))
	text = appendNumber(text, `,"exp":`, uint64(expires))
	text = appendMember(text, `,"sub":`, t.Subject)
	text = appendNumber(text, `,"pos":`, t.Position)
	text = appendMember(text, `,"inc":`, t.Incarnation)
	text = appendMember(text, `,"gen":`, t.Generation)
	text = append(text, '}')

	length := len(key.header) + encoding.EncodedLen(len(text)) + 1 + 43
	if length > maxToken {
		return dst, errors.New("sign ticket: it would be longer than 2048 bytes")
	}
	start := len(dst)
	if cap(dst)-start < length {
		grown := make([]byte, start, start+length)
		copy(grown, dst)
		dst = grown
	}
	dst = append(dst, key.header...)
	dst = encoding.AppendEncode(dst, text)
	m := key.mac(dst[start:])
	dst = append(dst, '.')
	dst = append(dst, m.text[:]...)
	key.macs.Put(m)
	return dst, nil
}

// The claims of a ticket, by their place in values.
const (
	ticketIss = iota
	ticketAud
	ticketJti
	ticketIat
	ticketExp
	ticketSub
	ticketPos
	ticketInc
	ticketGen
	ticketClaims
)

var ticketMembers = []member{
	ticketIss: {name: "iss"},
	ticketAud: {name: "aud"},
	ticketJti: {name: "jti"},
	ticketIat: {name: "iat", number: true},
	ticketExp: {name: "exp", number: true},
	ticketSub: {name: "sub"},
	ticketPos: {name: "pos", number: true},
	ticketInc: {name: "inc"},
	ticketGen: {name: "gen"},
}

// Verify checks a ticket and returns a copy of its claims. The error wraps ErrExpired when the
// expiry alone is wrong, else ErrInvalid. Which queue and incarnation the ticket is presented to
// is for the caller to compare. iat is not judged: a clock that was put back must not turn away
// fans whose tickets then seem to come from the future.
func (s *Tickets) Verify(token []byte, now time.Time) (Ticket, error) {
	p, err := split(token)
	if err != nil {
		return Ticket{}, err
	}
	var room [maxToken * 3 / 4]byte
	text, err := decodePart(room[:0], p.payload)
	if err != nil {
		return Ticket{}, err
	}
	// The audience says whose key to take. Nothing else is believed before the MAC is right.
	var values [ticketClaims]value
	if err := parseClaims(text, ticketMembers, values[:]); err != nil {
		return Ticket{}, err
	}
	ring := s.ring(values[ticketAud].raw(text))
	if ring == nil {
		return Ticket{}, errTenantKeys
	}
	key, err := ring.byHeader(p.header, now)
	if err != nil {
		return Ticket{}, err
	}
	if !key.authentic(p.signed, p.signature) {
		return Ticket{}, errSignature
	}
	return s.read(string(text), &values, now)
}

// ring finds the keys of the tenant that an audience names.
func (s *Tickets) ring(audience []byte) *KeyRing {
	for i, c := range audience {
		if c == '.' {
			if !validName(string(audience[:i])) || !validName(string(audience[i+1:])) {
				return nil
			}
			return s.Rings[string(audience[:i])]
		}
	}
	return nil
}

// read checks the claims of an authentic ticket; the strings of the result share text.
func (s *Tickets) read(text string, values *[ticketClaims]value, now time.Time) (Ticket, error) {
	if values[ticketIss].in(text) != s.Issuer {
		return Ticket{}, errIssuer
	}
	t := Ticket{
		Issuer:      s.Issuer,
		Queue:       values[ticketAud].in(text),
		ID:          values[ticketJti].in(text),
		Subject:     values[ticketSub].in(text),
		Position:    values[ticketPos].number,
		Incarnation: values[ticketInc].in(text),
		Generation:  values[ticketGen].in(text),
	}
	issued, expires := values[ticketIat].number, values[ticketExp].number
	var room [96]byte
	switch {
	case t.Position == 0:
		return Ticket{}, errPosition
	case !validWord(t.Incarnation) || !validWord(t.Generation):
		return Ticket{}, errName
	case t.ID != string(appendTicketID(room[:0], t.Incarnation, t.Position)):
		return Ticket{}, errID
	case !validSubject(t.Subject):
		return Ticket{}, errSubject
	case expires <= issued || expires > maxTime:
		return Ticket{}, errTimes
	}
	t.IssuedAt, t.ExpiresAt = time.Unix(int64(issued), 0).UTC(), time.Unix(int64(expires), 0).UTC()
	if !now.Before(t.ExpiresAt) {
		return Ticket{}, errExpiredToken
	}
	return t, nil
}

// validName is the rule for both parts of a queue id: [a-z0-9-]{1,63}.
func validName(s string) bool {
	if len(s) < 1 || len(s) > 63 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// validWord is the rule for incarnations and generations: [A-Za-z0-9_-]{1,64}.
func validWord(s string) bool {
	if len(s) < 1 || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

func validSubject(s string) bool {
	return len(s) >= 1 && len(s) <= MaxSubject && utf8.ValidString(s)
}
