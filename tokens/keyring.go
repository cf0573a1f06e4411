package tokens

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"hash"
	"slices"
	"sync"
	"time"
)

// KeyRing holds a tenant's ticket keys. It is immutable.
type KeyRing struct {
	keys []*ticketKey
}

// ticketKey is a secret and what is computed of it once.
type ticketKey struct {
	lifetime
	id     string
	header string    // the encoded header of what this key signs, with the dot
	macs   sync.Pool // of *macState
}

// macState is an HMAC keyed with its key's secret, and room for what it computes: in pools, since
// a state would cost a poll four hashes and half a kilobyte to make.
type macState struct {
	hash hash.Hash
	sum  [sha256.Size]byte
	text [43]byte // the sum as it stands in a token
}

// ParseKeyRing reads a JWK set of oct keys with at least 32 bytes, for HS256. Beside the usual
// members a key may have nbf and exp in unix seconds: it signs from nbf on, and is not used at
// all from exp on. Errors never hold key material.
func ParseKeyRing(jwks []byte) (*KeyRing, error) {
	set, err := parseKeySet(jwks)
	if err != nil {
		return nil, fmt.Errorf("parse ticket keys: %w", err)
	}
	ring := &KeyRing{}
	for i := range set {
		k := &set[i]
		secret, err := k.secret()
		if err != nil {
			return nil, fmt.Errorf("parse ticket keys: key %d: %w", i+1, err)
		}
		key := &ticketKey{lifetime: k.lifetime, id: k.Kid, header: encodeHeader("HS256", k.Kid, ticketType)}
		key.macs.New = func() any { return &macState{hash: hmac.New(sha256.New, secret)} }
		ring.keys = append(ring.keys, key)
	}
	return ring, nil
}

// encodeHeader makes the header of a token with the dot behind it.
func encodeHeader(algorithm, keyID, kind string) string {
	text := appendMember(nil, `{"alg":`, algorithm)
	text = appendMember(text, `,"kid":`, keyID)
	text = appendMember(text, `,"typ":`, kind)
	return encoding.EncodeToString(append(text, '}')) + "."
}

// Has reports whether the ring holds the key with this id.
func (r *KeyRing) Has(id string) bool {
	return slices.ContainsFunc(r.keys, func(k *ticketKey) bool { return k.id == id })
}

// KeyID is the id of the key that a verified token names; empty where the ring has it no more.
func (r *KeyRing) KeyID(token []byte, now time.Time) string {
	header, _, _ := bytes.Cut(token, []byte{'.'})
	key, err := r.byHeader(header, now)
	if err != nil {
		return ""
	}
	return key.id
}

// signer is the key that signs at a time, or nil.
func (r *KeyRing) signer(now time.Time) *ticketKey {
	i := signing(now, len(r.keys), func(i int) lifetime { return r.keys[i].lifetime })
	if i < 0 {
		return nil
	}
	return r.keys[i]
}

// byHeader finds the usable key that an encoded header names.
func (r *KeyRing) byHeader(encoded []byte, now time.Time) (*ticketKey, error) {
	for _, k := range r.keys {
		if string(encoded) == k.header[:len(k.header)-1] {
			if k.expired(now) {
				return nil, errKeyID
			}
			return k, nil
		}
	}
	// Not as we write it: read it.
	var room [512]byte
	text, err := decodePart(room[:0], encoded)
	if err != nil {
		return nil, err
	}
	h, err := parseHeader(text)
	if err != nil {
		return nil, err
	}
	if err := h.expect("HS256", ticketType); err != nil {
		return nil, err
	}
	for _, k := range r.keys {
		if string(h.keyID) == k.id && !k.expired(now) {
			return k, nil
		}
	}
	return nil, errKeyID
}

// mac computes the encoded MAC of signed. The caller gives the state back to k.macs.
func (k *ticketKey) mac(signed []byte) *macState {
	m := k.macs.Get().(*macState)
	m.hash.Reset()
	m.hash.Write(signed)
	encoding.Encode(m.text[:], m.hash.Sum(m.sum[:0]))
	return m
}

// authentic compares a token's third part with what it must be. Since the encoded forms are
// compared, padding, other alphabets and spare bits do not match.
func (k *ticketKey) authentic(signed, signature []byte) bool {
	m := k.mac(signed)
	same := hmac.Equal(m.text[:], signature)
	k.macs.Put(m)
	return same
}
