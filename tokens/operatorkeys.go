package tokens

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
)

// OperatorKeys verifies operator JWTs of one tenant. It is immutable; safe for concurrent use.
type OperatorKeys struct {
	keys []pinnedKey
}

// pinnedKey is a key of a tenant's own, of the one algorithm that its tokens may name: a public
// key, or in SignOperator a private one.
type pinnedKey struct {
	lifetime
	id        string
	algorithm jwa.SignatureAlgorithm
	raw       any
}

// ParseOperatorKeys reads public keys (EdDSA or ES256): a JWK set, or PEM blocks "PUBLIC KEY". In
// PEM a key has no name; the kid of its tokens is its thumbprint (RFC 7638, SHA-256, base64url).
func ParseOperatorKeys(data []byte) (*OperatorKeys, error) {
	var keys []pinnedKey
	var err error
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("-----BEGIN")) {
		keys, err = parsePEM(data, operatorAlgorithm)
	} else {
		keys, err = parseOperatorSet(data, (*webKey).ed25519Public, (*webKey).ecdsaPublic)
	}
	if err != nil {
		return nil, fmt.Errorf("parse operator keys: %w", err)
	}
	return &OperatorKeys{keys}, nil
}

func (k *OperatorKeys) usable(id string, now time.Time) *pinnedKey {
	for i := range k.keys {
		if key := &k.keys[i]; key.id == id && !key.expired(now) {
			return key
		}
	}
	return nil
}

// parseOperatorSet reads a JWK set of keys of one half, public or private.
func parseOperatorSet[E, P any](data []byte, edwards func(*webKey) (E, error), p256 func(*webKey) (P, error)) ([]pinnedKey, error) {
	set, err := parseKeySet(data)
	if err != nil {
		return nil, err
	}
	var keys []pinnedKey
	for i := range set {
		k := &set[i]
		key := pinnedKey{lifetime: k.lifetime, id: k.Kid}
		switch k.Kty {
		case "OKP":
			key.algorithm = jwa.EdDSA
			key.raw, err = edwards(k)
		case "EC":
			key.algorithm = jwa.ES256
			key.raw, err = p256(k)
		default:
			err = errors.New("it must have kty OKP for EdDSA or kty EC for ES256")
		}
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", i+1, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// operatorSigner finds the key of a private JWK set that signs at a time.
func operatorSigner(privateJWKS []byte, now time.Time) (*pinnedKey, error) {
	keys, err := parseOperatorSet(privateJWKS, (*webKey).ed25519Private, (*webKey).ecdsaPrivate)
	if err != nil {
		return nil, err
	}
	i := signing(now, len(keys), func(i int) lifetime { return keys[i].lifetime })
	if i < 0 {
		return nil, errors.New("no key is in use at that time")
	}
	return &keys[i], nil
}

// parsePEM reads one or more public keys; choose tells the algorithm of each, or why it is none.
func parsePEM(data []byte, choose func(public any) (jwa.SignatureAlgorithm, error)) ([]pinnedKey, error) {
	if len(data) > maxKeySet {
		return nil, fmt.Errorf("the PEM text is longer than %d bytes", maxKeySet)
	}
	var keys []pinnedKey
	known := make(map[string]bool)
	for rest := bytes.TrimSpace(data); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		// pem.Decode would pass over what it does not understand, and with it over a key.
		block, after := pem.Decode(rest)
		if block == nil || !bytes.HasPrefix(rest, []byte("-----BEGIN")) {
			return nil, fmt.Errorf("PEM block %d is malformed, or other text stands around it", len(keys)+1)
		}
		rest = after
		if block.Type != "PUBLIC KEY" {
			return nil, fmt.Errorf("PEM block %d is not a PUBLIC KEY", len(keys)+1)
		}
		if len(keys) == maxKeys {
			return nil, fmt.Errorf("the PEM text holds more than %d keys", maxKeys)
		}
		key, err := parsePublicKey(block.Bytes, choose)
		if err != nil {
			return nil, fmt.Errorf("PEM block %d: %w", len(keys)+1, err)
		}
		if known[key.id] {
			return nil, fmt.Errorf("PEM block %d is the same key as another", len(keys)+1)
		}
		known[key.id] = true
		keys = append(keys, key)
	}
	return keys, nil
}

// parsePublicKey reads the DER form that PEM wraps.
func parsePublicKey(der []byte, choose func(public any) (jwa.SignatureAlgorithm, error)) (pinnedKey, error) {
	raw, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return pinnedKey{}, errors.New("it is not a public key in PKIX form")
	}
	key := pinnedKey{raw: raw}
	if key.algorithm, err = choose(raw); err != nil {
		return pinnedKey{}, err
	}
	key.id, err = thumbprint(raw)
	return key, err
}

// operatorAlgorithm is what a public key verifies.
func operatorAlgorithm(public any) (jwa.SignatureAlgorithm, error) {
	switch k := public.(type) {
	case ed25519.PublicKey:
		return jwa.EdDSA, nil
	case *ecdsa.PublicKey:
		return jwa.ES256, checkCurve(k)
	}
	return "", errors.New("it must be an Ed25519 or a P-256 key")
}

// thumbprint is the name of a public key by RFC 7638, with SHA-256.
func thumbprint(public any) (string, error) {
	key, err := jwk.FromRaw(public)
	if err != nil {
		return "", fmt.Errorf("compute thumbprint: %w", err)
	}
	sum, err := key.Thumbprint(crypto.SHA256)
	if err != nil {
		return "", fmt.Errorf("compute thumbprint: %w", err)
	}
	return encoding.EncodeToString(sum), nil
}
