package tokens

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwa"
)

var someOperator = Operator{
	Tenant: testTenant, Subject: "ana", Role: RoleOperator, IssuedAt: testNow, ExpiresAt: testNow.Add(MaxOperatorLife),
}

func pemOf(t testing.TB, public any) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func newP256(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestOperatorsSignAndAreKnown signs with generated and foreign keys, and gives the public halves
// as JWK sets and as PEM.
func TestOperatorsSignAndAreKnown(t *testing.T) {
	private, public, err := GenerateOperatorKeys()
	if err != nil {
		t.Fatal(err)
	}
	edPublic, edPrivate, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	ec := newP256(t)
	edID, err := thumbprint(edPublic)
	if err != nil {
		t.Fatal(err)
	}
	ecID, err := thumbprint(&ec.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	bothPEM := "\n" + pemOf(t, edPublic) + "\n" + pemOf(t, &ec.PublicKey)
	for _, c := range []struct {
		name            string
		private, public []byte
		want            error
	}{
		{"generated", private, public, nil},
		{"Ed25519 from PEM", mustKeySet(t, edPrivate, jwa.EdDSA, edID), []byte(pemOf(t, edPublic)), nil},
		{"P-256 from PEM", mustKeySet(t, ec, jwa.ES256, ecID), []byte(pemOf(t, &ec.PublicKey)), nil},
		{"P-256 as JWK", mustKeySet(t, ec, jwa.ES256, "any name"), mustKeySet(t, &ec.PublicKey, jwa.ES256, "any name"), nil},
		{"second of two in PEM", mustKeySet(t, ec, jwa.ES256, ecID), []byte(bothPEM), nil},
		{"PEM key under another name", mustKeySet(t, ec, jwa.ES256, "any name"), []byte(bothPEM), errKeyID},
		{"PEM key under the other key's name", mustKeySet(t, ec, jwa.ES256, edID), []byte(bothPEM), errAlgorithm},
		{"another key under the same name", mustKeySet(t, newP256(t), jwa.ES256, ecID), []byte(bothPEM), errSignature},
	} {
		keys, err := ParseOperatorKeys(c.public)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		token, err := SignOperator(c.private, someOperator, testOrigin)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if issuer, err := PeekIssuer(token); err != nil || issuer != testTenant {
			t.Errorf("%s: peek: got %q, %v; want %q", c.name, issuer, err, testTenant)
		}
		got, err := keys.Verify(token, testTenant, testOrigin, testNow)
		if !errors.Is(err, c.want) || err == nil && got != someOperator {
			t.Errorf("%s: got %+v, %v; want %+v, %v", c.name, got, err, someOperator, c.want)
		}
	}
}

// TestOperatorClaimsOfOtherLibraries: what a tenant's own library may add is passed over.
func TestOperatorClaimsOfOtherLibraries(t *testing.T) {
	for _, k := range kinds(t) {
		if !k.is(isOperator) {
			continue
		}
		for name, claims := range map[string]object{
			"audience in an array": k.claims.set("aud", `["`+testOrigin+`"]`),
			"nbf":                  k.claims.set("nbf", seconds(testNow.Add(30*time.Second))),
			"another claim":        k.claims.add("name", `{"first":"Ana"}`),
		} {
			if err := k.verify(k.sign(k.header, claims), testNow); err != nil {
				t.Errorf("%s, %s: got %v, want it accepted", k.name, name, err)
			}
		}
	}
}

func TestPEMRefused(t *testing.T) {
	ed, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	ec := newP256(t)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	private := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	good := pemOf(t, ed)
	for _, c := range []struct{ name, text, want string }{
		{"private key", private, "block 1 is not a PUBLIC KEY"},
		{"private key behind a public one", good + private, "block 2 is not a PUBLIC KEY"},
		{"RSA", pemOf(t, &rsaKey.PublicKey), "Ed25519 or a P-256"},
		{"P-384", pemOf(t, &p384.PublicKey), "not P-256"},
		{"the same key twice", good + good, "same key"},
		{"cut off", good[:len(good)-10], "malformed"},
		{"text between", good + "x\n" + good, "other text"},
		{"text behind", good + "x", "other text"},
		{"no key in it", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "not a public key"},
		{"neither PEM nor JWK", "hello", "not a JWK set"},
		{"empty", "", "not a JWK set"},
	} {
		_, err := ParseOperatorKeys([]byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
	}
}

func TestSignOperatorRefuses(t *testing.T) {
	private, _, err := GenerateOperatorKeys()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name     string
		audience string
		change   func(*Operator)
	}{
		{"tenant no name", testOrigin, func(o *Operator) { o.Tenant = "Club" }},
		{"no subject", testOrigin, func(o *Operator) { o.Subject = "" }},
		{"unknown role", testOrigin, func(o *Operator) { o.Role = "admin" }},
		{"longer than a day", testOrigin, func(o *Operator) { o.ExpiresAt = o.IssuedAt.Add(MaxOperatorLife + time.Second) }},
		{"no expiry", testOrigin, func(o *Operator) { o.ExpiresAt = time.Time{} }},
		{"no audience", "", func(*Operator) {}},
	} {
		o := someOperator
		c.change(&o)
		if token, err := SignOperator(private, o, c.audience); err == nil {
			t.Errorf("%s: got %q, want an error", c.name, token)
		}
	}
}

func TestPeekIssuerRefuses(t *testing.T) {
	for _, token := range []string{
		"", "a.b", "a." + raw64(`{"iss":1}`) + ".c", "a." + raw64(`{}`) + ".c", "a." + raw64(`{"iss":""}`) + ".c",
		"a." + raw64(`{"iss":"x","iss":"y"}`) + ".c", "a." + raw64(`{"iss":"x"}`) + "=.c", strings.Repeat("a", 3000),
	} {
		if got, err := PeekIssuer(token); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: got %q, %v; want %v", token, got, err, ErrInvalid)
		}
	}
}
