package tokens

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
)

// GenerateTicketKeys makes a JWK set with one new ticket key, of 256 random bits. Its name is
// random too: a thumbprint would be a hash of the secret.
func GenerateTicketKeys() ([]byte, error) {
	secret := make([]byte, 32)
	rand.Read(secret) // never fails, see its documentation
	set, err := keySet(secret, jwa.HS256, rand.Text())
	if err != nil {
		return nil, fmt.Errorf("generate ticket keys: %w", err)
	}
	return set, nil
}

// GenerateSessionKeys makes a JWK set with one new private session key, named by its thumbprint.
func GenerateSessionKeys() ([]byte, error) {
	private, _, err := generateEd25519()
	if err != nil {
		return nil, fmt.Errorf("generate session keys: %w", err)
	}
	return private, nil
}

// GenerateOperatorKeys makes the private JWK set of a tenant, for SignOperator, and its public
// half for the origin's configuration.
func GenerateOperatorKeys() (private, public []byte, err error) {
	if private, public, err = generateEd25519(); err != nil {
		return nil, nil, fmt.Errorf("generate operator keys: %w", err)
	}
	return private, public, nil
}

// GenerateUserKeys makes the private JWK set of a shop that is its own identity provider, for
// UserSigner, and its public half for the origin's configuration.
func GenerateUserKeys() (private, public []byte, err error) {
	if private, public, err = generateEd25519(); err != nil {
		return nil, nil, fmt.Errorf("generate user keys: %w", err)
	}
	return private, public, nil
}

func generateEd25519() (private, public []byte, err error) {
	publicKey, privateKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	id, err := thumbprint(publicKey)
	if err != nil {
		return nil, nil, err
	}
	if private, err = keySet(privateKey, jwa.EdDSA, id); err != nil {
		return nil, nil, err
	}
	public, err = keySet(publicKey, jwa.EdDSA, id)
	return private, public, err
}

// keySet is a JWK set of one key.
func keySet(raw any, algorithm jwa.SignatureAlgorithm, id string) ([]byte, error) {
	key, err := newKey(raw, algorithm, id, lifetime{})
	if err != nil {
		return nil, err
	}
	set := jwk.NewSet()
	if err := set.AddKey(key); err != nil {
		return nil, err
	}
	return json.Marshal(set)
}
