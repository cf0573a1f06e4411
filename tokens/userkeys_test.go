package tokens

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwa"
)

func keyNames(k *UserKeys) []string {
	var names []string
	for _, key := range k.keys {
		names = append(names, key.id)
	}
	return names
}

// keyText is the one key of a set with members replaced or added.
func keyText(t *testing.T, set []byte, members ...string) string {
	t.Helper()
	text := strings.TrimSuffix(strings.TrimPrefix(string(set), `{"keys":[`), `]}`)
	for i := 0; i < len(members); i += 2 {
		from := strings.Index(text, quote(members[i])+":")
		if from >= 0 {
			to := from + strings.IndexAny(text[from:], ",}")
			text = text[:from] + quote(members[i]) + ":" + members[i+1] + text[to:]
		} else {
			text = strings.TrimSuffix(text, "}") + "," + quote(members[i]) + ":" + members[i+1] + "}"
		}
	}
	return text
}

// TestProvidersKeys: of what a provider publishes the usable keys are taken, and nothing that is
// published beside them spoils these.
func TestProvidersKeys(t *testing.T) {
	ed, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	ec, rs := newP256(t), testRSA()
	edSet, ecSet := mustKeySet(t, ed, jwa.EdDSA, "ed"), mustKeySet(t, &ec.PublicKey, jwa.ES256, "ec")
	rsSet := mustKeySet(t, &rs.PublicKey, jwa.RS256, "rs")
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	threeKey := rsa.PublicKey{N: rs.N, E: 3}
	large := rsa.PublicKey{N: new(big.Int).SetBit(new(big.Int).Lsh(rs.N, 2100), 0, 1), E: 65537}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	wrong := base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{1}, 32))
	all := []string{
		keyText(t, edSet), keyText(t, ecSet), keyText(t, rsSet, "x5t", `"abc"`, "x5c", `["AAAA"]`),
		keyText(t, rsSet, "kid", `"for encryption"`, "use", `"enc"`, "alg", `"RSA-OAEP"`),
		keyText(t, rsSet, "kid", `"other algorithm"`, "alg", `"PS256"`),
		keyText(t, rsSet, "kid", `""`), keyText(t, rsSet, "kid", `7`), keyText(t, rsSet, "kid", `"a\"b"`),
		keyText(t, mustKeySet(t, &small.PublicKey, jwa.RS256, "too short")),
		keyText(t, mustKeySet(t, &threeKey, jwa.RS256, "exponent 3")),
		keyText(t, mustKeySet(t, &large, jwa.RS256, "too long")),
		keyText(t, mustKeySet(t, &p384.PublicKey, jwa.ES384, "other curve")),
		keyText(t, ecSet, "kid", `"not on the curve"`, "x", quote(wrong)),
		keyText(t, edSet, "kid", `"too short"`, "x", `"AAAA"`),
		keyText(t, edSet, "kid", `"never used"`, "nbf", "200", "exp", "100"),
		`{"kty":"new","kid":"a kind to come"}`, `{}`, `7`, `"x"`,
	}
	set := []byte(`{"keys":[` + strings.Join(all, ",") + `],"more":1}`)
	keys, err := ParseUserKeys(set)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := keyNames(keys), []string{"ed", "ec", "rs"}; !slices.Equal(got, want) {
		t.Errorf("got keys %q, want %q", got, want)
	}
	// Azure and others leave alg out.
	keys, err = ParseUserKeys([]byte(`{"keys":[` + strings.Replace(keyText(t, rsSet), `"alg":"RS256",`, "", 1) + `]}`))
	if err != nil || len(keys.keys) != 1 || keys.keys[0].algorithm != jwa.RS256 {
		t.Errorf("RSA key without alg: got %v, want it for RS256", err)
	}

	private := mustGenerate(t, GenerateSessionKeys)
	for _, c := range []struct{ name, text, want string }{
		{"not a set", `[]`, "not a JWK set"},
		{"PEM without keys", "-----BEGIN X-----\n", "malformed"},
		{"empty", `{"keys":[]}`, "no key"},
		{"no usable key", `{"keys":[` + all[3] + `]}`, "no key among them"},
		{"a kid twice", `{"keys":[` + all[0] + "," + keyText(t, rsSet, "kid", `"ed"`) + `]}`, "kid of another key"},
		{"private Ed25519 key", string(private), "secret"},
		{"private RSA key beside others", `{"keys":[` + all[0] + "," + keyText(t, rsSet, "d", `"AAAA"`) + `]}`, "secret"},
		{"shared secret", `{"keys":[` + all[0] + `,{"kty":"oct","kid":"s","k":"AAAA"}]}`, "secret"},
		{"too many keys", `{"keys":[` + strings.Repeat(`{},`, maxKeys) + `{}]}`, "more than"},
		{"too long", `{"keys":["` + strings.Repeat("x", maxKeySet) + `"]}`, "longer than"},
		{"member twice", `{"keys":[],"keys":[]}`, "not a JWK set"},
	} {
		if _, err := ParseUserKeys([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
	}
}

func TestUserKeysInPEM(t *testing.T) {
	ed, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	rs := testRSA()
	keys, err := ParseUserKeys([]byte(pemOf(t, ed) + pemOf(t, &newP256(t).PublicKey) + pemOf(t, &rs.PublicKey)))
	if err != nil {
		t.Fatal(err)
	}
	name, err := thumbprint(&rs.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	if names := keyNames(keys); len(names) != 3 || names[2] != name {
		t.Errorf("got keys %q, want three, of which the last is the RSA key's thumbprint %s", names, name)
	}
	for what, public := range map[string]any{"RSA with exponent 3": &rsa.PublicKey{N: rs.N, E: 3}} {
		if _, err := ParseUserKeys([]byte(pemOf(t, public))); err == nil {
			t.Errorf("%s: got no error, want one", what)
		}
	}
}

// TestPublicUserKeys: what an origin hands on is what it read, and only the public parts of it.
func TestPublicUserKeys(t *testing.T) {
	rs := testRSA()
	set := join(t, mustKeySet(t, &newP256(t).PublicKey, jwa.ES256, "ec"),
		withLife(t, mustKeySet(t, &rs.PublicKey, jwa.RS256, "rs"), time.Time{}, testNow.Add(time.Hour)))
	keys, err := ParseUserKeys([]byte(strings.Replace(string(set), `"use":"sig"`, `"use":"sig","secretive":"x"`, 1)))
	if err != nil {
		t.Fatal(err)
	}
	public, err := keys.Public()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(public), "secretive") {
		t.Errorf("got %s, want nothing but the key", public)
	}
	again, err := ParseUserKeys(public)
	if err != nil {
		t.Fatal(err)
	}
	for i := range keys.keys {
		if got, want := again.keys[i].pinnedKey, keys.keys[i].pinnedKey; !reflect.DeepEqual(got, want) {
			t.Errorf("key %d: read again it is %v, want %v", i+1, got, want)
		}
	}
	if !keys.Has("rs", testNow) || keys.Has("rs", testNow.Add(time.Hour)) || !keys.Has("ec", testNow.Add(time.Hour)) || keys.Has("x", testNow) {
		t.Error("Has: want ec for good and rs until its exp, and nothing else")
	}
	second, err := again.Public()
	if err != nil || !bytes.Equal(second, public) {
		t.Errorf("published again: got %s, %v; want %s", second, err, public)
	}
}
