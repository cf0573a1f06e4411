package tokens

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwa"
)

const (
	testIssuer = "https://wait.example.org"
	testTenant = "club"
	testQueue  = "club.final"
	testOrigin = "https://origin.example.org"
)

// testNow is the time of most tests; nothing depends on the wall clock.
var testNow = time.Date(2026, 5, 2, 10, 0, 0, 0, time.UTC)

// seconds is a time as it stands in a token.
func seconds(t time.Time) string { return fmt.Sprint(t.Unix()) }

// pair is a member of a JSON object as text, so that tests can write what no encoder would.
type pair struct{ name, text string }

type object []pair

func (o object) String() string {
	var b strings.Builder
	b.WriteByte('{')
	for i, p := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `"%s":%s`, p.name, p.text)
	}
	b.WriteByte('}')
	return b.String()
}

// set replaces a member, and without removes one; the receiver stays as it is.
func (o object) set(name, text string) object {
	changed := append(object(nil), o...)
	for i := range changed {
		if changed[i].name == name {
			changed[i].text = text
			return changed
		}
	}
	return append(changed, pair{name, text})
}

func (o object) without(name string) object {
	var changed object
	for _, p := range o {
		if p.name != name {
			changed = append(changed, p)
		}
	}
	return changed
}

func (o object) add(name, text string) object {
	return append(append(object(nil), o...), pair{name, text})
}

// kind is one of the kinds of token with everything to forge and to check one.
type kind struct {
	name           string
	header, claims object
	// mac signs any bytes with the right key.
	mac func(signed []byte) []byte
	// public is what an attacker knows of the key; nil where all of it is secret.
	public []byte
	verify func(token string, now time.Time) error
	// algorithm and key are what jwx needs to verify.
	algorithm jwa.SignatureAlgorithm
	key       any
}

// sign makes a token of any two texts.
func (k *kind) sign(header, claims fmt.Stringer) string {
	return k.signText(header.String(), claims.String())
}

func (k *kind) signText(header, claims string) string {
	signed := raw64(header) + "." + raw64(claims)
	return signed + "." + raw64(string(k.mac([]byte(signed))))
}

func raw64(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

func quote(s string) string { return `"` + s + `"` }

// kinds makes one of every kind, valid at testNow, with keys that are the same in every run.
func kinds(t testing.TB) []*kind {
	t.Helper()
	secret := bytes.Repeat([]byte("s"), 32)
	sessionPrivate := ed25519.NewKeyFromSeed(bytes.Repeat([]byte("e"), ed25519.SeedSize))
	operatorPrivate := ed25519.NewKeyFromSeed(bytes.Repeat([]byte("o"), ed25519.SeedSize))
	sessionPublic, operatorPublic := sessionPrivate.Public().(ed25519.PublicKey), operatorPrivate.Public().(ed25519.PublicKey)
	p256, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), bytes.Repeat([]byte("p"), 32))
	if err != nil {
		t.Fatal(err)
	}

	ring, err := ParseKeyRing(mustKeySet(t, secret, jwa.HS256, "k-ticket"))
	if err != nil {
		t.Fatal(err)
	}
	otherRing, err := ParseKeyRing(mustGenerate(t, GenerateTicketKeys))
	if err != nil {
		t.Fatal(err)
	}
	tickets := &Tickets{Issuer: testIssuer, Rings: map[string]*KeyRing{testTenant: ring, "rival": otherRing}}
	sessions, err := ParsePublicKeys(mustKeySet(t, sessionPublic, jwa.EdDSA, "k-session"))
	if err != nil {
		t.Fatal(err)
	}
	edOperators, err := ParseOperatorKeys(mustKeySet(t, operatorPublic, jwa.EdDSA, "k-operator"))
	if err != nil {
		t.Fatal(err)
	}
	ecOperators, err := ParseOperatorKeys(mustKeySet(t, &p256.PublicKey, jwa.ES256, "k-operator"))
	if err != nil {
		t.Fatal(err)
	}

	header := func(alg, kid, typ string) object {
		return object{{"alg", quote(alg)}, {"kid", quote(kid)}, {"typ", quote(typ)}}
	}
	operatorClaims := object{
		{"iss", quote(testTenant)}, {"aud", quote(testOrigin)}, {"jti", `"J1"`},
		{"iat", seconds(testNow)}, {"exp", seconds(testNow.Add(time.Hour))},
		{"sub", `"ana"`}, {"role", `"operator"`},
	}
	checkOperator := func(keys *OperatorKeys) func(string, time.Time) error {
		return func(token string, now time.Time) error {
			_, err := keys.Verify(token, testTenant, testOrigin, now)
			return err
		}
	}
	return []*kind{
		{
			name:   "ticket",
			header: header("HS256", "k-ticket", "wr-ticket+jwt"),
			claims: object{
				{"iss", quote(testIssuer)}, {"aud", quote(testQueue)}, {"jti", `"Inc1-42"`},
				{"iat", seconds(testNow)}, {"exp", seconds(testNow.Add(TicketLifetime))},
				{"sub", `"fan-7"`}, {"pos", "42"}, {"inc", `"Inc1"`}, {"gen", `"Gen1"`},
			},
			mac: func(signed []byte) []byte {
				h := hmac.New(sha256.New, secret)
				h.Write(signed)
				return h.Sum(nil)
			},
			verify: func(token string, now time.Time) error {
				_, err := tickets.Verify([]byte(token), now)
				return err
			},
			algorithm: jwa.HS256, key: secret,
		},
		{
			name:   "session",
			header: header("EdDSA", "k-session", "wr-session+jwt"),
			claims: object{
				{"iss", quote(testIssuer)}, {"aud", quote(testTenant)}, {"jti", quote(testQueue + "~R1")},
				{"iat", seconds(testNow)}, {"nbf", seconds(testNow)}, {"exp", seconds(testNow.Add(20 * time.Minute))},
				{"sub", `"fan-7"`}, {"queue", quote(testQueue)},
			},
			mac:    func(signed []byte) []byte { return ed25519.Sign(sessionPrivate, signed) },
			public: sessionPublic,
			verify: func(token string, now time.Time) error {
				_, err := sessions.Verify(token, testIssuer, testTenant, now)
				return err
			},
			algorithm: jwa.EdDSA, key: sessionPublic,
		},
		{
			name:      "operator with EdDSA",
			header:    header("EdDSA", "k-operator", "wr-operator+jwt"),
			claims:    operatorClaims,
			mac:       func(signed []byte) []byte { return ed25519.Sign(operatorPrivate, signed) },
			public:    operatorPublic,
			verify:    checkOperator(edOperators),
			algorithm: jwa.EdDSA, key: operatorPublic,
		},
		{
			name:   "operator with ES256",
			header: header("ES256", "k-operator", "wr-operator+jwt"),
			claims: operatorClaims,
			mac: func(signed []byte) []byte {
				sum := sha256.Sum256(signed)
				r, s, err := ecdsa.Sign(nil, p256, sum[:])
				if err != nil {
					panic(err)
				}
				return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
			},
			public:    elliptic.MarshalCompressed(elliptic.P256(), p256.X, p256.Y),
			verify:    checkOperator(ecOperators),
			algorithm: jwa.ES256, key: &p256.PublicKey,
		},
	}
}

func mustKeySet(t testing.TB, raw any, algorithm jwa.SignatureAlgorithm, id string) []byte {
	t.Helper()
	set, err := keySet(raw, algorithm, id)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func mustGenerate(t testing.TB, generate func() ([]byte, error)) []byte {
	t.Helper()
	set, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// join makes one JWK set of several.
func join(t testing.TB, sets ...[]byte) []byte {
	t.Helper()
	var keys []string
	for _, set := range sets {
		parsed, err := parseKeySet(set)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range parsed {
			keys = append(keys, string(k.text))
		}
	}
	return []byte(`{"keys":[` + strings.Join(keys, ",") + `]}`)
}

// withLife gives all keys of a set nbf and exp; zero times are left out.
func withLife(t testing.TB, set []byte, notBefore, notAfter time.Time) []byte {
	t.Helper()
	parsed, err := parseKeySet(set)
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, k := range parsed {
		text := strings.TrimSuffix(strings.TrimSpace(string(k.text)), "}")
		if !notBefore.IsZero() {
			text += `,"nbf":` + seconds(notBefore)
		}
		if !notAfter.IsZero() {
			text += `,"exp":` + seconds(notAfter)
		}
		keys = append(keys, text+"}")
	}
	return []byte(`{"keys":[` + strings.Join(keys, ",") + `]}`)
}
