package tokens

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jws"
)

const sessionType = "wr-session+jwt"

// Session is what a session token says.
type Session struct {
	Issuer    string
	Tenant    string // aud
	ID        string // jti, queue~random
	Subject   string
	Queue     string
	StartsAt  time.Time
	ExpiresAt time.Time
}

// SessionKeys signs session tokens. It is immutable; safe for concurrent use.
type SessionKeys struct {
	keys []sessionKey
}

type sessionKey struct {
	lifetime
	id  string
	key ed25519.PrivateKey
}

// ParseSessionKeys reads a JWK set of Ed25519 private keys, which may have nbf and exp as in
// ParseKeyRing. Errors never hold key material.
func ParseSessionKeys(jwks []byte) (*SessionKeys, error) {
	set, err := parseKeySet(jwks)
	if err != nil {
		return nil, fmt.Errorf("parse session keys: %w", err)
	}
	keys := &SessionKeys{}
	for i := range set {
		key, err := set[i].ed25519Private()
		if err != nil {
			return nil, fmt.Errorf("parse session keys: key %d: %w", i+1, err)
		}
		keys.keys = append(keys.keys, sessionKey{set[i].lifetime, set[i].Kid, key})
	}
	return keys, nil
}

// sessionClaims is the payload, in the order in which it is written.
type sessionClaims struct {
	Issuer    string `json:"iss"`
	Audience  string `json:"aud"`
	ID        string `json:"jti"`
	IssuedAt  int64  `json:"iat"`
	NotBefore int64  `json:"nbf"`
	Expires   int64  `json:"exp"`
	Subject   string `json:"sub"`
	Queue     string `json:"queue"`
}

// Sign signs a session with the key of now; the same session signed twice with the same key gives
// the same token. Times are cut to whole seconds, so that no token outlives its session.
func (k *SessionKeys) Sign(s Session, now time.Time) (string, error) {
	i := signing(now, len(k.keys), func(i int) lifetime { return k.keys[i].lifetime })
	if i < 0 {
		return "", errors.New("sign session: no key is in use now")
	}
	starts, expires := s.StartsAt.Unix(), s.ExpiresAt.Unix()
	if s.Issuer == "" {
		return "", errors.New("sign session: no issuer")
	}
	if starts <= 0 || expires <= starts || expires > maxTime {
		return "", errors.New("sign session: the expiry is not after the start")
	}
	if err := s.check(); err != nil {
		return "", fmt.Errorf("sign session: %w", err)
	}
	payload, err := json.Marshal(sessionClaims{s.Issuer, s.Tenant, s.ID, starts, starts, expires, s.Subject, s.Queue})
	if err != nil {
		return "", fmt.Errorf("sign session: %w", err)
	}
	token, err := signWith(jwa.EdDSA, k.keys[i].key, k.keys[i].id, sessionType, payload)
	if err != nil {
		return "", fmt.Errorf("sign session: %w", err)
	}
	if len(token) > maxToken {
		return "", errors.New("sign session: it would be longer than 2048 bytes")
	}
	return token, nil
}

// check looks at what the parts of a session owe each other.
func (s *Session) check() error {
	tenant, slug, _ := strings.Cut(s.Queue, ".")
	random, of := strings.CutPrefix(s.ID, s.Queue+"~")
	switch {
	case !validName(tenant) || !validName(slug) || tenant != s.Tenant:
		return errQueue
	case !of || !validWord(random):
		return errID
	case !validSubject(s.Subject):
		return errSubject
	}
	return nil
}

// Public is the JWK set to publish: the public halves of all keys that are not past their exp,
// those that do not sign yet included, so that everyone knows a key before its first token.
func (k *SessionKeys) Public(now time.Time) ([]byte, error) {
	set := jwk.NewSet()
	for i := range k.keys {
		key := &k.keys[i]
		if key.expired(now) {
			continue
		}
		public, err := newKey(key.key.Public(), jwa.EdDSA, key.id, key.lifetime)
		if err != nil {
			return nil, fmt.Errorf("publish session keys: %w", err)
		}
		if err := set.AddKey(public); err != nil {
			return nil, fmt.Errorf("publish session keys: %w", err)
		}
	}
	if set.Len() == 0 {
		return nil, errors.New("publish session keys: all of them have expired")
	}
	text, err := json.Marshal(set)
	if err != nil {
		return nil, fmt.Errorf("publish session keys: %w", err)
	}
	return text, nil
}

// newKey makes a JWK for signatures. It carries exp, so that who verifies with it stops in time
// even when cut off from us.
func newKey(raw any, algorithm jwa.SignatureAlgorithm, id string, life lifetime) (jwk.Key, error) {
	key, err := jwk.FromRaw(raw)
	if err != nil {
		return nil, err
	}
	members := map[string]any{jwk.KeyIDKey: id, jwk.AlgorithmKey: algorithm, jwk.KeyUsageKey: "sig"}
	if !life.notAfter.IsZero() {
		members["exp"] = life.notAfter.Unix()
	}
	for name, v := range members {
		if err := key.Set(name, v); err != nil {
			return nil, err
		}
	}
	return key, nil
}

// signWith makes a token through jwx.
func signWith(algorithm jwa.SignatureAlgorithm, key any, id, kind string, payload []byte) (string, error) {
	headers := jws.NewHeaders()
	if err := headers.Set(jws.TypeKey, kind); err != nil {
		return "", err
	}
	if err := headers.Set(jws.KeyIDKey, id); err != nil {
		return "", err
	}
	token, err := jws.Sign(payload, jws.WithKey(algorithm, key, jws.WithProtectedHeaders(headers)))
	return string(token), err
}
