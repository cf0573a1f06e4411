package tokens

import (
	"bytes"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	strict "github.com/go-json-experiment/json"
	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jws"
)

// UserKeys are the public keys of a tenant's identity provider. Immutable; safe for concurrent use.
type UserKeys struct {
	keys []userKey
}

type userKey struct {
	pinnedKey
	// verifier is jwx's check of a bare signature; see PublicKeys.
	verifier jws.Verifier
}

// ParseUserKeys reads the public keys of an identity provider: a JWK set as it publishes it, or PEM
// blocks "PUBLIC KEY". Taken are EdDSA (Ed25519), ES256, and RS256 with 2048 to 4096 bits and the
// exponent 65537, which is what nearly all providers sign with. Each key is for that one algorithm,
// whatever its tokens say. In PEM a key has no name; the kid of its tokens is its thumbprint (RFC
// 7638, SHA-256, base64url).
//
// Keys of a set that are of no use here (for encryption, of another algorithm, without a kid, too
// short) are passed over, as RFC 7517 wants of readers: providers publish them beside the others. A
// private key among them, one kid for two keys, or no usable key at all is an error.
func ParseUserKeys(data []byte) (*UserKeys, error) {
	var keys []pinnedKey
	var err error
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("-----BEGIN")) {
		keys, err = parsePEM(data, userAlgorithm)
	} else {
		keys, err = parseProviderSet(data)
	}
	if err != nil {
		return nil, fmt.Errorf("parse user keys: %w", err)
	}
	k := &UserKeys{}
	for _, key := range keys {
		verifier, err := jws.NewVerifier(key.algorithm)
		if err != nil {
			return nil, fmt.Errorf("parse user keys: %w", err)
		}
		k.keys = append(k.keys, userKey{key, verifier})
	}
	return k, nil
}

// Has reports whether there is a key of that name that has not expired.
func (k *UserKeys) Has(id string, now time.Time) bool { return k.usable(id, now) != nil }

func (k *UserKeys) usable(id string, now time.Time) *userKey {
	for i := range k.keys {
		if key := &k.keys[i]; key.id == id && !key.expired(now) {
			return key
		}
	}
	return nil
}

// Public is a JWK set of the keys, which ParseUserKeys reads: public parts only, whatever stood
// beside them. The same keys give the same text.
func (k *UserKeys) Public() ([]byte, error) {
	set := jwk.NewSet()
	for i := range k.keys {
		key := &k.keys[i]
		public, err := newKey(key.raw, key.algorithm, key.id, key.lifetime)
		if err != nil {
			return nil, fmt.Errorf("publish user keys: %w", err)
		}
		if err := set.AddKey(public); err != nil {
			return nil, fmt.Errorf("publish user keys: %w", err)
		}
	}
	text, err := json.Marshal(set)
	if err != nil {
		return nil, fmt.Errorf("publish user keys: %w", err)
	}
	return text, nil
}

// userAlgorithm is what a public key verifies.
func userAlgorithm(public any) (jwa.SignatureAlgorithm, error) {
	if k, isRSA := public.(*rsa.PublicKey); isRSA {
		return jwa.RS256, checkRSA(k)
	}
	if algorithm, err := operatorAlgorithm(public); algorithm != "" {
		return algorithm, err
	}
	return "", errors.New("it must be an Ed25519, a P-256 or an RSA key")
}

// parseProviderSet reads the usable keys of a published set.
func parseProviderSet(data []byte) ([]pinnedKey, error) {
	texts, err := keyTexts(data)
	if err != nil {
		return nil, err
	}
	var keys []pinnedKey
	known := make(map[string]bool)
	for i, text := range texts {
		k := webKey{text: text}
		// One member of a wrong type makes a key unusable, and no reader of the others.
		if err := strict.Unmarshal(text, &k); err != nil {
			continue
		}
		if k.private() || k.Kty == "oct" {
			return nil, fmt.Errorf("key %d: a secret where only public keys belong", i+1)
		}
		key, usable := providerKey(&k)
		if !usable {
			continue
		}
		if known[key.id] {
			return nil, fmt.Errorf("key %d has the kid of another key", i+1)
		}
		known[key.id] = true
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("no key among them that verifies EdDSA, ES256 or RS256 and has a kid")
	}
	return keys, nil
}

func providerKey(k *webKey) (key pinnedKey, usable bool) {
	if !validKeyID(k.Kid) || k.Use != "" && k.Use != "sig" {
		return pinnedKey{}, false
	}
	if k.readLifetime() != nil {
		return pinnedKey{}, false
	}
	key = pinnedKey{lifetime: k.lifetime, id: k.Kid}
	var err error
	switch k.Kty {
	case "OKP":
		key.algorithm = jwa.EdDSA
		key.raw, err = k.ed25519Public()
	case "EC":
		key.algorithm = jwa.ES256
		key.raw, err = k.ecdsaPublic()
	case "RSA":
		key.algorithm = jwa.RS256
		key.raw, err = k.rsaPublic()
	default:
		return pinnedKey{}, false
	}
	return key, err == nil
}
