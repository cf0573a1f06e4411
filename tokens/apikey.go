package tokens

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
)

// NewAPIKey makes an API key: "wr_sec_…" or "wr_pub_…", 256 random bits.
func NewAPIKey(secret bool) (string, error) {
	bits := make([]byte, 32)
	rand.Read(bits) // never fails, see its documentation
	if secret {
		return "wr_sec_" + encoding.EncodeToString(bits), nil
	}
	return "wr_pub_" + encoding.EncodeToString(bits), nil
}

// HashAPIKey is the hex SHA-256 under which a key is stored. A plain hash is enough, since the
// key is 256 random bits and not a password.
func HashAPIKey(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}
