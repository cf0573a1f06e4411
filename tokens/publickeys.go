package tokens

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"
)

// PublicKeys verifies session tokens. It is immutable; safe for concurrent use.
type PublicKeys struct {
	keys map[string]*publicHalf // by kid
	// verifier is jwx's check of a bare signature. Its jws.Verify would take the token apart once
	// more, more leniently than has been done before, and with 70 allocations.
	verifier jws.Verifier
}

type publicHalf struct {
	lifetime
	id  string
	key ed25519.PublicKey
}

// ParsePublicKeys reads a published JWK set. Keys of other kinds are passed over, as RFC 7517
// wants of readers; a private key in it is an alarm and an error.
func ParsePublicKeys(jwks []byte) (*PublicKeys, error) {
	set, err := parseKeySet(jwks)
	if err != nil {
		return nil, fmt.Errorf("parse public keys: %w", err)
	}
	verifier, err := jws.NewVerifier(jwa.EdDSA)
	if err != nil {
		return nil, fmt.Errorf("parse public keys: %w", err)
	}
	keys := &PublicKeys{keys: make(map[string]*publicHalf, len(set)), verifier: verifier}
	for i := range set {
		k := &set[i]
		if k.private() || k.Kty == "oct" {
			return nil, fmt.Errorf("parse public keys: key %d: a secret where only public keys belong", i+1)
		}
		if !k.is(ed25519Type) {
			continue
		}
		key, err := k.ed25519Public()
		if err != nil {
			return nil, fmt.Errorf("parse public keys: key %d: %w", i+1, err)
		}
		keys.keys[k.Kid] = &publicHalf{k.lifetime, k.Kid, key}
	}
	if len(keys.keys) == 0 {
		return nil, errors.New("parse public keys: no Ed25519 key among them")
	}
	return keys, nil
}

// usable finds a key that has not expired.
func (k *PublicKeys) usable(id string, now time.Time) *publicHalf {
	if key := k.keys[id]; key != nil && !key.expired(now) {
		return key
	}
	return nil
}

// The claims of a session token, by their place in values.
const (
	sessionIss = iota
	sessionAud
	sessionJti
	sessionIat
	sessionNbf
	sessionExp
	sessionSub
	sessionQueue
	sessionClaimCount
)

var sessionMembers = []member{
	sessionIss:   {name: "iss"},
	sessionAud:   {name: "aud"},
	sessionJti:   {name: "jti"},
	sessionIat:   {name: "iat", number: true},
	sessionNbf:   {name: "nbf", number: true},
	sessionExp:   {name: "exp", number: true},
	sessionSub:   {name: "sub"},
	sessionQueue: {name: "queue"},
}

// Verify checks a session token; tenant "" accepts every tenant whose queue the token names. When
// the expiry alone is wrong, the error wraps ErrExpired and the session is returned all the same,
// so that a caller who expects a certain queue can look; every other error wraps ErrInvalid.
// Whether the session was ended early is not in the token.
func (k *PublicKeys) Verify(token, issuer, tenant string, now time.Time) (Session, error) {
	v, err := k.verify(token, issuer, tenant, now)
	return v.session, err
}

// verification is what came out of verifying a session token: with errKeyID only keyID, with
// errExpiredToken the session, without an error all of it.
type verification struct {
	session Session
	key     *publicHalf
	keyID   string
}

func (k *PublicKeys) verify(token, issuer, tenant string, now time.Time) (verification, error) {
	if len(token) > maxToken {
		return verification{}, errTooLong
	}
	whole := []byte(token)
	p, err := split(whole)
	if err != nil {
		return verification{}, err
	}
	h, err := decodeHeader(p, "EdDSA", sessionType)
	if err != nil {
		return verification{}, err
	}
	payload, err := decodePart(make([]byte, 0, len(p.payload)), p.payload)
	if err != nil {
		return verification{}, err
	}
	var values [sessionClaimCount]value
	if err := parseClaims(payload, sessionMembers, values[:]); err != nil {
		return verification{}, err
	}
	var room [ed25519.SignatureSize]byte
	signature, err := decodeSignature(room[:0], p.signature)
	if err != nil {
		return verification{}, err
	}
	key := k.usable(string(h.keyID), now)
	if key == nil {
		return verification{keyID: string(h.keyID)}, errKeyID
	}
	if err := k.verifier.Verify(p.signed, signature, key.key); err != nil {
		return verification{}, errSignature
	}
	s, err := readSession(string(payload), &values, issuer, tenant, now)
	return verification{session: s, key: key}, err
}

// decodeHeader reads a token's header and refuses another algorithm or type.
func decodeHeader(p parts, algorithm, kind string) (header, error) {
	text, err := decodePart(make([]byte, 0, len(p.header)), p.header)
	if err != nil {
		return header{}, err
	}
	h, err := parseHeader(text)
	if err != nil {
		return header{}, err
	}
	return h, h.expect(algorithm, kind)
}

// decodeSignature appends a signature, which for EdDSA and ES256 has 64 bytes, to dst.
func decodeSignature(dst, part []byte) ([]byte, error) {
	if len(part) != encoding.EncodedLen(ed25519.SignatureSize) {
		return nil, errSignature
	}
	return decodePart(dst, part)
}

// readSession checks the claims of an authentic token; the strings of the result share text.
func readSession(text string, values *[sessionClaimCount]value, issuer, tenant string, now time.Time) (Session, error) {
	if issuer == "" || values[sessionIss].in(text) != issuer {
		return Session{}, errIssuer
	}
	s := Session{
		Issuer:  issuer,
		Tenant:  values[sessionAud].in(text),
		ID:      values[sessionJti].in(text),
		Subject: values[sessionSub].in(text),
		Queue:   values[sessionQueue].in(text),
	}
	if tenant != "" && s.Tenant != tenant {
		return Session{}, errAudience
	}
	if err := s.check(); err != nil {
		return Session{}, err
	}
	issued, starts, expires := values[sessionIat].number, values[sessionNbf].number, values[sessionExp].number
	if starts < issued || expires <= starts || expires > maxTime {
		return Session{}, errTimes
	}
	s.StartsAt, s.ExpiresAt = time.Unix(int64(starts), 0).UTC(), time.Unix(int64(expires), 0).UTC()
	if s.StartsAt.After(now.Add(clockSkew)) {
		return Session{}, errNotYet
	}
	if !now.Before(s.ExpiresAt) {
		return s, errExpiredToken
	}
	return s, nil
}
