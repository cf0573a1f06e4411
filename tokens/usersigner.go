package tokens

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// UserSigner mints user tokens, for a shop that is its own identity provider. It is immutable; safe
// for concurrent use.
type UserSigner struct {
	issuer, audience string
	keys             []pinnedKey
}

// NewUserSigner reads a private JWK set (EdDSA or ES256; GenerateUserKeys makes one), which may have
// nbf and exp as in ParseKeyRing. Issuer and audience are those of the origin's configuration.
func NewUserSigner(privateJWKS []byte, issuer, audience string) (*UserSigner, error) {
	if issuer == "" || audience == "" {
		return nil, errors.New("make user signer: issuer and audience are required")
	}
	keys, err := parseOperatorSet(privateJWKS, (*webKey).ed25519Private, (*webKey).ecdsaPrivate)
	if err != nil {
		return nil, fmt.Errorf("make user signer: %w", err)
	}
	return &UserSigner{issuer, audience, keys}, nil
}

// Sign mints a token of the user who is signed in: a short life is enough, for it is used once, at
// joining. Times are cut to whole seconds.
func (s *UserSigner) Sign(subject string, now, expires time.Time) (string, error) {
	i := signing(now, len(s.keys), func(i int) lifetime { return s.keys[i].lifetime })
	if i < 0 {
		return "", errors.New("sign user: no key is in use now")
	}
	if !validSubject(subject) {
		return "", fmt.Errorf("sign user: %w", errSubject)
	}
	issued, until := now.Unix(), expires.Unix()
	if issued <= 0 || until <= issued || until > maxTime {
		return "", fmt.Errorf("sign user: %w", errTimes)
	}
	payload, err := json.Marshal(struct {
		Issuer   string `json:"iss"`
		Audience string `json:"aud"`
		Subject  string `json:"sub"`
		IssuedAt int64  `json:"iat"`
		Expires  int64  `json:"exp"`
	}{s.issuer, s.audience, subject, issued, until})
	if err != nil {
		return "", fmt.Errorf("sign user: %w", err)
	}
	token, err := signWith(s.keys[i].algorithm, s.keys[i].raw, s.keys[i].id, "JWT", payload)
	if err != nil {
		return "", fmt.Errorf("sign user: %w", err)
	}
	return token, nil
}
