package tokens

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/lestrrat-go/jwx/v2/jwk"
)

// Bounds of a key set.
const (
	maxKeySet = 256 << 10 // bytes
	maxKeys   = 64
)

// lifetime says when a key is used: for signing from notBefore on, for nothing at all from
// notAfter on. Zero times are no bounds. In a JWK set they are the members nbf and exp, in unix
// seconds, which let a key be published well before it signs and verify long after.
type lifetime struct {
	notBefore, notAfter time.Time
}

func (l lifetime) expired(now time.Time) bool {
	return !l.notAfter.IsZero() && !now.Before(l.notAfter)
}

// signing chooses the key that signs at a time: of those in use the one with the latest
// notBefore, and the first of equals. It returns -1 when there is none.
func signing(now time.Time, n int, life func(int) lifetime) int {
	best := -1
	for i := range n {
		l := life(i)
		if l.expired(now) || l.notBefore.After(now) {
			continue
		}
		if best < 0 || l.notBefore.After(life(best).notBefore) {
			best = i
		}
	}
	return best
}

// webKey is one key of a set. Its errors name the key by its place, never by its content.
type webKey struct {
	Kty string  `json:"kty"`
	Kid string  `json:"kid"`
	Alg string  `json:"alg"`
	Use string  `json:"use"`
	Crv string  `json:"crv"`
	Nbf *int64  `json:"nbf"`
	Exp *int64  `json:"exp"`
	D   *string `json:"d"`

	lifetime `json:"-"`
	text     []byte
}

// parseKeySet reads a JWK set (RFC 7517), strictly: no member twice, every key with a kid of its
// own. The kinds of the keys are the caller's business.
func parseKeySet(data []byte) ([]webKey, error) {
	texts, err := keyTexts(data)
	if err != nil {
		return nil, err
	}
	keys := make([]webKey, 0, len(texts))
	known := make(map[string]bool, len(texts))
	for i, text := range texts {
		k := webKey{text: text}
		if err := json.Unmarshal(text, &k); err != nil {
			return nil, fmt.Errorf("key %d is not a JWK: kty, kid, alg, use and crv must be strings, nbf and exp unix seconds", i+1)
		}
		switch {
		case k.Kid == "":
			return nil, fmt.Errorf("key %d has no kid", i+1)
		case !validKeyID(k.Kid):
			return nil, fmt.Errorf("key %d: a kid is up to 128 printable ASCII characters without quotes and backslashes", i+1)
		case known[k.Kid]:
			return nil, fmt.Errorf("key %d has the kid of another key", i+1)
		case k.Use != "" && k.Use != "sig":
			return nil, fmt.Errorf("key %d is not for signatures: its use must be sig", i+1)
		}
		known[k.Kid] = true
		if err := k.readLifetime(); err != nil {
			return nil, fmt.Errorf("key %d%w", i+1, err)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// keyTexts takes a JWK set apart into at most maxKeys keys, and at least one.
func keyTexts(data []byte) ([]jsontext.Value, error) {
	if len(data) > maxKeySet {
		return nil, fmt.Errorf("the key set is longer than %d bytes", maxKeySet)
	}
	var set struct {
		Keys []jsontext.Value `json:"keys"`
	}
	// What the decoder says of an error may quote the text, and the text is secret.
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, errors.New("not a JWK set: it must be a JSON object with an array of keys, and name no member twice")
	}
	if len(set.Keys) == 0 {
		return nil, errors.New("the JWK set holds no key")
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("the JWK set holds more than %d keys", maxKeys)
	}
	return set.Keys, nil
}

// readLifetime takes nbf and exp; its error goes on after the name of the key.
func (k *webKey) readLifetime() (err error) {
	if k.notBefore, err = keyTime(k.Nbf); err != nil {
		return fmt.Errorf(": nbf %w", err)
	}
	if k.notAfter, err = keyTime(k.Exp); err != nil {
		return fmt.Errorf(": exp %w", err)
	}
	if !k.notAfter.IsZero() && !k.notAfter.After(k.notBefore) {
		return errors.New(" is never used: its exp is not after its nbf")
	}
	return nil
}

// maxTime is the last second of the year 9999, beyond which times have no RFC 3339 form.
const maxTime = 253402300799

func keyTime(seconds *int64) (time.Time, error) {
	switch {
	case seconds == nil:
		return time.Time{}, nil
	case *seconds <= 0 || *seconds > maxTime:
		return time.Time{}, errors.New("is not a time in unix seconds")
	}
	return time.Unix(*seconds, 0).UTC(), nil
}

// MaxKeyID bounds a kid, in bytes.
const MaxKeyID = 128

// validKeyID reports whether a kid stands in JSON as it is.
func validKeyID(kid string) bool {
	if len(kid) < 1 || len(kid) > MaxKeyID {
		return false
	}
	for i := range len(kid) {
		if c := kid[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// keyType is a kind of keys, with its curve where it has one, and the algorithm that they are for here.
type keyType struct{ kty, crv, alg string }

var (
	secretType  = keyType{"oct", "", "HS256"}
	ed25519Type = keyType{"OKP", "Ed25519", "EdDSA"}
	p256Type    = keyType{"EC", "P-256", "ES256"}
	rsaType     = keyType{"RSA", "", "RS256"}
)

// is reports whether the key is of a type; alg may be left out.
func (k *webKey) is(t keyType) bool {
	return k.Kty == t.kty && k.Crv == t.crv && (k.Alg == "" || k.Alg == t.alg)
}

// errParameters stands for whatever jwx has to say, which may quote what it could not read.
var errParameters = errors.New("its parameters are missing, malformed or do not fit together")

func (k *webKey) private() bool { return k.D != nil }

// parse hands a key of a type to jwx.
func (k *webKey) parse(t keyType, raw any) error {
	if !k.is(t) {
		if t.crv == "" {
			return fmt.Errorf("it must have kty %s and alg %s", t.kty, t.alg)
		}
		return fmt.Errorf("it must have kty %s, crv %s and alg %s", t.kty, t.crv, t.alg)
	}
	key, err := jwk.ParseKey(k.text)
	if err == nil {
		err = key.Raw(raw)
	}
	if err != nil {
		return errParameters
	}
	return nil
}

func (k *webKey) parsePublic(t keyType, raw any) error {
	if k.is(t) && k.private() {
		return errors.New("it is a private key where only public ones belong")
	}
	return k.parse(t, raw)
}

func (k *webKey) parsePrivate(t keyType, raw any) error {
	if k.is(t) && !k.private() {
		return errors.New("it is a public key, and cannot sign")
	}
	return k.parse(t, raw)
}

func (k *webKey) secret() ([]byte, error) {
	var secret []byte
	if err := k.parse(secretType, &secret); err != nil {
		return nil, err
	}
	if len(secret) < 32 {
		return nil, errors.New("its secret is shorter than 32 bytes")
	}
	return secret, nil
}

func (k *webKey) ed25519Public() (ed25519.PublicKey, error) {
	var key ed25519.PublicKey
	if err := k.parsePublic(ed25519Type, &key); err != nil {
		return nil, err
	}
	if len(key) != ed25519.PublicKeySize {
		return nil, errParameters
	}
	return key, nil
}

func (k *webKey) ed25519Private() (ed25519.PrivateKey, error) {
	var key ed25519.PrivateKey
	if err := k.parsePrivate(ed25519Type, &key); err != nil {
		return nil, err
	}
	if len(key) != ed25519.PrivateKeySize || !bytes.Equal(ed25519.NewKeyFromSeed(key.Seed()), key) {
		return nil, errParameters
	}
	return key, nil
}

func (k *webKey) ecdsaPublic() (*ecdsa.PublicKey, error) {
	var key ecdsa.PublicKey
	if err := k.parsePublic(p256Type, &key); err != nil {
		return nil, err
	}
	return &key, checkCurve(&key)
}

func (k *webKey) ecdsaPrivate() (*ecdsa.PrivateKey, error) {
	var key ecdsa.PrivateKey
	if err := k.parsePrivate(p256Type, &key); err != nil {
		return nil, err
	}
	if err := checkCurve(&key.PublicKey); err != nil {
		return nil, err
	}
	if exchange, err := key.ECDH(); err != nil {
		return nil, errParameters
	} else if public, err := key.PublicKey.ECDH(); err != nil || !exchange.PublicKey().Equal(public) {
		return nil, errParameters
	}
	return &key, nil
}

func (k *webKey) rsaPublic() (*rsa.PublicKey, error) {
	var key rsa.PublicKey
	if err := k.parsePublic(rsaType, &key); err != nil {
		return nil, err
	}
	return &key, checkRSA(&key)
}

// checkRSA refuses keys that are too weak, or that would make a verification dear.
func checkRSA(key *rsa.PublicKey) error {
	if bits := key.N.BitLen(); bits < 2048 || bits > 4096 {
		return errors.New("an RSA key must have 2048 to 4096 bits")
	}
	if key.E != 65537 {
		return errors.New("an RSA key must have the public exponent 65537")
	}
	return nil
}

// checkCurve refuses other curves and points that are on none.
func checkCurve(key *ecdsa.PublicKey) error {
	if key.Curve != elliptic.P256() {
		return errors.New("its curve is not P-256")
	}
	if _, err := key.ECDH(); err != nil {
		return errors.New("its point is not on the curve")
	}
	return nil
}
