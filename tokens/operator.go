package tokens

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	strict "github.com/go-json-experiment/json"
	"github.com/lestrrat-go/jwx/v2/jws"
)

const (
	operatorType = "wr-operator+jwt"
	// MaxOperatorLife bounds what an operator JWT is valid for.
	MaxOperatorLife = 24 * time.Hour
)

// Role is what an operator may do.
type Role string

// The roles.
const (
	RoleOperator Role = "operator"
	RoleViewer   Role = "viewer"
)

// Operator is what an operator JWT says; iss is the tenant.
type Operator struct {
	Tenant    string
	Subject   string
	Role      Role
	IssuedAt  time.Time
	ExpiresAt time.Time
}

// check looks at what must be true of every operator.
func (o *Operator) check() error {
	switch {
	case !validName(o.Tenant):
		return errIssuer
	case !validSubject(o.Subject):
		return errSubject
	case o.Role != RoleOperator && o.Role != RoleViewer:
		return errRole
	case !o.ExpiresAt.After(o.IssuedAt) || o.ExpiresAt.Unix() > maxTime || o.IssuedAt.Unix() <= 0:
		return errTimes
	case o.ExpiresAt.Sub(o.IssuedAt) > MaxOperatorLife:
		return errLife
	}
	return nil
}

// operatorClaims is the payload. A tenant signs with a library of its own choice, so other claims
// are passed over, and aud may be an array with one element.
type operatorClaims struct {
	Issuer    *string        `json:"iss"`
	Audience  singleAudience `json:"aud"`
	ID        *string        `json:"jti"`
	IssuedAt  *int64         `json:"iat"`
	NotBefore *int64         `json:"nbf,omitempty"`
	Expires   *int64         `json:"exp"`
	Subject   *string        `json:"sub"`
	Role      *Role          `json:"role"`
}

type singleAudience string

// UnmarshalJSON reads a string or an array of one string (RFC 7519, section 4.1.3).
func (a *singleAudience) UnmarshalJSON(text []byte) error {
	var one string
	if strict.Unmarshal(text, &one) == nil {
		*a = singleAudience(one)
		return nil
	}
	var list []string
	if err := strict.Unmarshal(text, &list); err != nil || len(list) != 1 {
		return errAudience
	}
	*a = singleAudience(list[0])
	return nil
}

// Verify checks an operator JWT: typ wr-operator+jwt, EdDSA or ES256 as its key says, iss = tenant,
// aud = audience, valid for at most 24 hours. The error wraps ErrExpired when the expiry alone is
// wrong, else ErrInvalid.
func (k *OperatorKeys) Verify(token, tenant, audience string, now time.Time) (Operator, error) {
	if len(token) > maxToken {
		return Operator{}, errTooLong
	}
	whole := []byte(token)
	p, err := split(whole)
	if err != nil {
		return Operator{}, err
	}
	text, err := decodePart(nil, p.header)
	if err != nil {
		return Operator{}, err
	}
	h, err := parseHeader(text)
	if err != nil {
		return Operator{}, err
	}
	if algorithm := string(h.algorithm); algorithm != "EdDSA" && algorithm != "ES256" {
		return Operator{}, errAlgorithm
	}
	if string(h.kind) != operatorType {
		return Operator{}, errType
	}
	payload, err := decodePart(nil, p.payload)
	if err != nil {
		return Operator{}, err
	}
	// jwx would read one with spare bits or padding, too.
	if _, err := decodeSignature(nil, p.signature); err != nil {
		return Operator{}, err
	}
	key := k.usable(string(h.keyID), now)
	if key == nil {
		return Operator{}, errKeyID
	}
	if string(h.algorithm) != key.algorithm.String() {
		return Operator{}, errAlgorithm
	}
	if _, err := jws.Verify(whole, jws.WithKey(key.algorithm, key.raw)); err != nil {
		return Operator{}, errSignature
	}
	return readOperator(payload, tenant, audience, now)
}

// readOperator checks the claims of an authentic token.
func readOperator(payload []byte, tenant, audience string, now time.Time) (Operator, error) {
	var c operatorClaims
	if err := strict.Unmarshal(payload, &c); err != nil {
		if errors.Is(err, errAudience) {
			return Operator{}, errAudience
		}
		return Operator{}, errClaimsJSON
	}
	if c.Issuer == nil || c.Audience == "" || c.ID == nil || *c.ID == "" || c.IssuedAt == nil || c.Expires == nil ||
		c.Subject == nil || c.Role == nil {
		return Operator{}, errClaimLacks
	}
	if *c.Issuer != tenant {
		return Operator{}, errIssuer
	}
	if audience == "" || string(c.Audience) != audience {
		return Operator{}, errAudience
	}
	if *c.IssuedAt > maxTime || *c.Expires > maxTime || *c.IssuedAt <= 0 {
		return Operator{}, errTimes
	}
	o := Operator{
		Tenant:    *c.Issuer,
		Subject:   *c.Subject,
		Role:      *c.Role,
		IssuedAt:  time.Unix(*c.IssuedAt, 0).UTC(),
		ExpiresAt: time.Unix(*c.Expires, 0).UTC(),
	}
	if err := o.check(); err != nil {
		return Operator{}, err
	}
	if o.IssuedAt.After(now.Add(clockSkew)) {
		return Operator{}, errFuture
	}
	if c.NotBefore != nil && *c.NotBefore > now.Add(clockSkew).Unix() {
		return Operator{}, errNotYet
	}
	if !now.Before(o.ExpiresAt) {
		return Operator{}, errExpiredToken
	}
	return o, nil
}

// PeekIssuer reads iss of a well-formed token without checking it, to choose the keys. Nothing
// may be believed because of it.
func PeekIssuer(token string) (string, error) {
	if len(token) > maxToken {
		return "", errTooLong
	}
	p, err := split([]byte(token))
	if err != nil {
		return "", err
	}
	payload, err := decodePart(nil, p.payload)
	if err != nil {
		return "", err
	}
	var c struct {
		Issuer *string `json:"iss"`
	}
	if err := strict.Unmarshal(payload, &c); err != nil {
		return "", errClaimsJSON
	}
	if c.Issuer == nil || *c.Issuer == "" {
		return "", errClaimLacks
	}
	return *c.Issuer, nil
}

// SignOperator signs an operator JWT with a private JWK set (its signing key); for at most 24 h.
// The key is the one in use at o.IssuedAt, which is the present where it is zero.
func SignOperator(privateJWKS []byte, o Operator, audience string) (string, error) {
	if o.IssuedAt.IsZero() {
		o.IssuedAt = time.Now()
	}
	// As they will stand in the token.
	o.IssuedAt, o.ExpiresAt = o.IssuedAt.Truncate(time.Second), o.ExpiresAt.Truncate(time.Second)
	if err := o.check(); err != nil {
		return "", fmt.Errorf("sign operator: %w", err)
	}
	if audience == "" || !utf8.ValidString(audience) {
		return "", errors.New("sign operator: no audience")
	}
	key, err := operatorSigner(privateJWKS, o.IssuedAt)
	if err != nil {
		return "", fmt.Errorf("sign operator: %w", err)
	}
	id, issued, expires := rand.Text(), o.IssuedAt.Unix(), o.ExpiresAt.Unix()
	payload, err := json.Marshal(operatorClaims{
		Issuer: &o.Tenant, Audience: singleAudience(audience), ID: &id,
		IssuedAt: &issued, Expires: &expires, Subject: &o.Subject, Role: &o.Role,
	})
	if err != nil {
		return "", fmt.Errorf("sign operator: %w", err)
	}
	token, err := signWith(key.algorithm, key.raw, key.id, operatorType, payload)
	if err != nil {
		return "", fmt.Errorf("sign operator: %w", err)
	}
	if len(token) > maxToken {
		return "", errors.New("sign operator: it would be longer than 2048 bytes")
	}
	return token, nil
}
