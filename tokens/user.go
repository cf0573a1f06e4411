package tokens

import (
	"strings"
	"time"

	strict "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// MaxUserToken bounds a user token, in bytes: identity providers write more into theirs than we do.
const MaxUserToken = 8192

// ErrUnknownKey is returned for a user token that is right as far as can be told without its key,
// which is none of those that are known: the provider may have begun to use a new one. It wraps
// ErrInvalid.
var ErrUnknownKey = errKeyID

// User is what a user token says: who somebody is, by the tenant's identity provider.
type User struct {
	Subject   string
	ExpiresAt time.Time
	// KeyID is the kid of the token.
	KeyID string
}

// UserTokens verifies the user tokens of one tenant. Immutable; safe for concurrent use.
type UserTokens struct {
	Issuer   string // iss
	Audience string // has to be aud, or among its elements
	Keys     *UserKeys
}

// userHeader is the header (RFC 7515, section 4.1). Members that only describe are passed over, like
// the x5t of some providers; those that say where a key is, or how else to read the token, are not.
type userHeader struct {
	Algorithm string         `json:"alg"`
	KeyID     string         `json:"kid"`
	Type      string         `json:"typ"`
	Critical  jsontext.Value `json:"crit"`
	KeyURL    jsontext.Value `json:"jku"`
	Key       jsontext.Value `json:"jwk"`
	ChainURL  jsontext.Value `json:"x5u"`
	Chain     jsontext.Value `json:"x5c"`
	Plain     jsontext.Value `json:"b64"`
	Zip       jsontext.Value `json:"zip"`
	Encrypted jsontext.Value `json:"enc"`
}

func (h *userHeader) steers() bool {
	for _, v := range []jsontext.Value{h.Critical, h.KeyURL, h.Key, h.ChainURL, h.Chain, h.Plain, h.Zip, h.Encrypted} {
		if v != nil {
			return true
		}
	}
	return false
}

// check refuses headers that no good token has. Without a typ, or with the usual ones (RFC 7519,
// section 5.1; RFC 9068), a token can be for us; each of our own kinds has another.
func (h *userHeader) check() error {
	switch {
	case h.steers():
		return errUserHeader
	case h.Algorithm == "" || h.KeyID == "":
		return errUserLacks
	case h.Algorithm != "ES256" && h.Algorithm != "EdDSA" && h.Algorithm != "RS256":
		return errAlgorithm
	case h.Type != "" && !strings.EqualFold(h.Type, "JWT") && !strings.EqualFold(h.Type, "at+jwt"):
		return errType
	}
	return nil
}

// userClaims is the payload; a provider's further claims are passed over.
type userClaims struct {
	Issuer    string    `json:"iss"`
	Audience  audiences `json:"aud"`
	Subject   *string   `json:"sub"`
	IssuedAt  *int64    `json:"iat"`
	NotBefore *int64    `json:"nbf"`
	Expires   *int64    `json:"exp"`
}

// audiences is a string or an array of strings (RFC 7519, section 4.1.3). A provider may name further
// audiences beside ours.
type audiences []string

// maxAudiences bounds the array.
const maxAudiences = 16

// UnmarshalJSON implements json.Unmarshaler.
func (a *audiences) UnmarshalJSON(text []byte) error {
	if len(text) > 0 && text[0] == '"' {
		*a = make(audiences, 1)
		return strict.Unmarshal(text, &(*a)[0])
	}
	var list []string
	if err := strict.Unmarshal(text, &list); err != nil || list == nil || len(list) > maxAudiences {
		return errAudience
	}
	*a = list
	return nil
}

func (a audiences) has(one string) bool {
	for _, audience := range a {
		if audience == one {
			return true
		}
	}
	return false
}

// check looks at everything but the expiry, which counts last.
func (c *userClaims) check(issuer, audience string, now time.Time) error {
	switch {
	case c.Issuer == "" || c.Audience == nil || c.Subject == nil || c.Expires == nil:
		return errClaimLacks
	case c.Issuer != issuer:
		return errIssuer
	case audience == "" || !c.Audience.has(audience):
		return errAudience
	case !validSubject(*c.Subject):
		return errSubject
	case *c.Expires <= 0 || *c.Expires > maxTime:
		return errTimes
	case c.IssuedAt != nil && (*c.IssuedAt <= 0 || *c.IssuedAt >= *c.Expires):
		return errTimes
	}
	latest := now.Add(clockSkew).Unix()
	if c.IssuedAt != nil && *c.IssuedAt > latest {
		return errFuture
	}
	if c.NotBefore != nil && *c.NotBefore > latest {
		return errNotYet
	}
	return nil
}

// Verify checks a user token: three parts in canonical base64url, EdDSA, ES256 or RS256 as the key of
// its kid says, no header that steers the verifier, iss and aud the pinned ones, sub of 1 to 128
// bytes, and exp. A nbf and an iat are optional and may lie 30 seconds ahead. The error wraps
// ErrExpired when the expiry alone is wrong, else ErrInvalid; with ErrUnknownKey the User's KeyID is
// set.
func (t *UserTokens) Verify(token []byte, now time.Time) (User, error) {
	if len(token) > MaxUserToken {
		return User{}, errUserTooLong
	}
	p, err := cut(token)
	if err != nil {
		return User{}, err
	}
	h, err := readUserHeader(p.header)
	if err != nil {
		return User{}, err
	}
	c, err := readUserClaims(p.payload)
	if err != nil {
		return User{}, err
	}
	signature, err := decodePart(nil, p.signature)
	if err != nil {
		return User{}, err
	}
	if err := c.check(t.Issuer, t.Audience, now); err != nil {
		return User{}, err
	}
	user := User{Subject: *c.Subject, ExpiresAt: time.Unix(*c.Expires, 0).UTC(), KeyID: h.KeyID}
	expired := !now.Before(user.ExpiresAt)
	key := t.Keys.usable(h.KeyID, now)
	if key == nil {
		if expired || !validKeyID(h.KeyID) {
			return User{}, errNoSuchKey // no new key would make it good
		}
		return User{KeyID: h.KeyID}, errKeyID
	}
	if err := key.verify(h.Algorithm, p.signed, signature); err != nil {
		return User{}, err
	}
	if expired {
		return User{}, errExpiredToken
	}
	return user, nil
}

func readUserHeader(part []byte) (userHeader, error) {
	var h userHeader
	text, err := decodePart(make([]byte, 0, len(part)), part)
	if err != nil {
		return userHeader{}, err
	}
	if err := strict.Unmarshal(text, &h); err != nil || text[0] != '{' {
		return userHeader{}, errHeaderJSON
	}
	return h, h.check()
}

func readUserClaims(part []byte) (userClaims, error) {
	var c userClaims
	text, err := decodePart(make([]byte, 0, len(part)), part)
	if err != nil {
		return userClaims{}, err
	}
	if err := strict.Unmarshal(text, &c); err != nil {
		return userClaims{}, errClaimsJSON
	}
	return c, nil
}

// verify checks a signature by the algorithm of the key, which has to be the token's too.
func (k *userKey) verify(algorithm string, signed, signature []byte) error {
	if algorithm != k.algorithm.String() {
		return errAlgorithm
	}
	if k.verifier.Verify(signed, signature, k.raw) != nil {
		return errSignature
	}
	return nil
}

// PeekSubject reads sub of a well-formed user token without checking anything. Nothing may be
// believed because of it.
func PeekSubject(token []byte) (string, error) {
	if len(token) > MaxUserToken {
		return "", errUserTooLong
	}
	p, err := cut(token)
	if err != nil {
		return "", err
	}
	c, err := readUserClaims(p.payload)
	if err != nil {
		return "", err
	}
	if c.Subject == nil {
		return "", errClaimLacks
	}
	return *c.Subject, nil
}
