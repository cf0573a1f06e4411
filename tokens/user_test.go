package tokens

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwa"
)

const (
	testProvider = "https://id.club.example/"
	testAudience = "waitingroom"
)

// testRSA is made once: its making takes longer than any test with it.
var testRSA = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

// userKinds are user tokens of each algorithm, valid at testNow.
func userKinds(t testing.TB) []*kind {
	t.Helper()
	ed := ed25519.NewKeyFromSeed(bytes.Repeat([]byte("u"), ed25519.SeedSize))
	p256, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), bytes.Repeat([]byte("u"), 32))
	if err != nil {
		t.Fatal(err)
	}
	rs := testRSA()
	sum := func(signed []byte) []byte {
		s := sha256.Sum256(signed)
		return s[:]
	}
	claims := object{
		{"iss", quote(testProvider)}, {"aud", quote(testAudience)}, {"sub", `"fan-7"`},
		{"iat", seconds(testNow)}, {"exp", seconds(testNow.Add(time.Hour))},
	}
	make := func(algorithm jwa.SignatureAlgorithm, public any, known []byte, mac func([]byte) []byte) *kind {
		keys, err := ParseUserKeys(mustKeySet(t, public, algorithm, "k-user"))
		if err != nil {
			t.Fatal(err)
		}
		tokens := &UserTokens{Issuer: testProvider, Audience: testAudience, Keys: keys}
		return &kind{
			name:   "user with " + algorithm.String(),
			header: object{{"alg", quote(algorithm.String())}, {"kid", `"k-user"`}, {"typ", `"JWT"`}},
			claims: claims, mac: mac, public: known, algorithm: algorithm, key: public,
			verify: func(token string, now time.Time) error {
				user, err := tokens.Verify([]byte(token), now)
				if err == nil && (user.Subject == "" || user.KeyID != "k-user" || !user.ExpiresAt.After(now)) {
					t.Errorf("accepted as %+v", user)
				}
				return err
			},
		}
	}
	return []*kind{
		make(jwa.EdDSA, ed.Public(), ed.Public().(ed25519.PublicKey), func(signed []byte) []byte { return ed25519.Sign(ed, signed) }),
		make(jwa.ES256, &p256.PublicKey, elliptic.MarshalCompressed(elliptic.P256(), p256.X, p256.Y), func(signed []byte) []byte {
			r, s, err := ecdsa.Sign(nil, p256, sum(signed))
			if err != nil {
				panic(err)
			}
			return append(r.FillBytes(bytes.Repeat([]byte{0}, 32)), s.FillBytes(bytes.Repeat([]byte{0}, 32))...)
		}),
		make(jwa.RS256, &rs.PublicKey, rs.N.Bytes(), func(signed []byte) []byte {
			signature, err := rsa.SignPKCS1v15(nil, rs, crypto.SHA256, sum(signed))
			if err != nil {
				panic(err)
			}
			return signature
		}),
	}
}

// allKinds are those of our own and those of identity providers.
func allKinds(t testing.TB) []*kind { return append(kinds(t), userKinds(t)...) }

// TestUserTokensOfAllProviders: what providers write beside the claims that count is passed over.
func TestUserTokensOfAllProviders(t *testing.T) {
	for _, k := range userKinds(t) {
		for name, token := range map[string]string{
			"as it is":              k.sign(k.header, k.claims),
			"without typ":           k.sign(k.header.without("typ"), k.claims),
			"typ in small letters":  k.sign(k.header.set("typ", `"jwt"`), k.claims),
			"an access token":       k.sign(k.header.set("typ", `"at+jwt"`), k.claims),
			"header that describes": k.sign(k.header.add("x5t", `"abc"`).add("cty", `"x"`), k.claims),
			"header with blanks":    k.signText(strings.ReplaceAll(k.header.String(), ":", ": "), k.claims.String()),
			"claims with blanks":    k.signText(k.header.String(), strings.ReplaceAll(k.claims.String(), ",", ",\n ")),
			"further claims": k.sign(k.header, k.claims.add("name", `{"first":"Ana"}`).add("roles", `["a","b"]`).
				add("jti", `"1"`).add("nonce", `null`)),
			"audience in an array":       k.sign(k.header, k.claims.set("aud", `["`+testAudience+`"]`)),
			"audience beside another":    k.sign(k.header, k.claims.set("aud", `["https://id.club.example/userinfo","`+testAudience+`"]`)),
			"no iat":                     k.sign(k.header, k.claims.without("iat")),
			"iat and nbf 30 s ahead":     k.sign(k.header, k.claims.set("iat", seconds(testNow.Add(30*time.Second))).add("nbf", seconds(testNow.Add(30*time.Second)))),
			"longest subject":            k.sign(k.header, k.claims.set("sub", quote(strings.Repeat("ä", 64)))),
			"subject of other alphabets": k.sign(k.header, k.claims.set("sub", `"\ud83c\udfab|7"`)),
			"8192 bytes":                 ofLength(t, k, MaxUserToken),
		} {
			if err := k.verify(token, testNow); err != nil {
				t.Errorf("%s, %s: got %v, want it accepted", k.name, name, err)
			}
		}
	}
}

// ofLength makes a good token of about that length, and not above it.
func ofLength(t *testing.T, k *kind, n int) string {
	t.Helper()
	bare := len(k.sign(k.header, k.claims.add("pad", `""`)))
	token := k.sign(k.header, k.claims.add("pad", quote(strings.Repeat("x", (n-bare)*3/4))))
	if len(token) > n || len(token) < n-4 {
		t.Fatalf("made a token of %d bytes, want %d", len(token), n)
	}
	return token
}

// TestUserTokenRefusals says of every way to get a user token wrong why it is refused. All are signed
// with the right key, unless the name says otherwise.
func TestUserTokenRefusals(t *testing.T) {
	type refused struct {
		name string
		why  error
		make func(k *kind) string
	}
	header := func(name string, why error, change func(object) object) refused {
		return refused{"header: " + name, why, func(k *kind) string { return k.sign(change(k.header), k.claims) }}
	}
	claims := func(name string, why error, change func(object) object) refused {
		return refused{"claims: " + name, why, func(k *kind) string { return k.sign(k.header, change(k.claims)) }}
	}
	set := func(name, text string) func(object) object {
		return func(o object) object { return o.set(name, text) }
	}
	without := func(name string) func(object) object { return func(o object) object { return o.without(name) } }
	add := func(name, text string) func(object) object {
		return func(o object) object { return o.add(name, text) }
	}
	ahead := seconds(testNow.Add(31 * time.Second))
	cases := []refused{
		// The algorithm is the key's, never the token's.
		header("alg none", errAlgorithm, set("alg", `"none"`)),
		header("alg HS256", errAlgorithm, set("alg", `"HS256"`)),
		header("alg PS256", errAlgorithm, set("alg", `"PS256"`)),
		header("alg RS512", errAlgorithm, set("alg", `"RS512"`)),
		header("alg ES384", errAlgorithm, set("alg", `"ES384"`)),
		header("alg in other letters", errAlgorithm, func(o object) object { return o.set("alg", strings.ToLower(o[0].text)) }),
		header("alg of another key", errAlgorithm, func(o object) object {
			if o[0].text == `"ES256"` {
				return o.set("alg", `"EdDSA"`)
			}
			return o.set("alg", `"ES256"`)
		}),
		header("no alg", errUserLacks, without("alg")),
		header("alg null", errUserLacks, set("alg", "null")),
		header("alg a number", errHeaderJSON, set("alg", "1")),
		{"HS256 signed with the public key", errAlgorithm, func(k *kind) string {
			signed := raw64(k.header.set("alg", `"HS256"`).String()) + "." + raw64(k.claims.String())
			h := hmac.New(sha256.New, k.public)
			h.Write([]byte(signed))
			return signed + "." + raw64(string(h.Sum(nil)))
		}},
		{"alg none without a signature", errThreeParts, func(k *kind) string {
			return raw64(k.header.set("alg", `"none"`).String()) + "." + raw64(k.claims.String()) + "."
		}},

		// Our own kinds of token, and those of other protocols, are no user tokens.
		header("typ of a ticket", errType, set("typ", `"wr-ticket+jwt"`)),
		header("typ of a session", errType, set("typ", `"wr-session+jwt"`)),
		header("typ of an operator", errType, set("typ", `"wr-operator+jwt"`)),
		header("typ of a logout token", errType, set("typ", `"logout+jwt"`)),
		header("typ of a DPoP proof", errType, set("typ", `"dpop+jwt"`)),

		header("kid unknown", ErrUnknownKey, set("kid", `"k-other"`)),
		header("kid in other letters", ErrUnknownKey, set("kid", `"K-user"`)),
		header("kid that no key can have", errNoSuchKey, set("kid", `"k\nuser"`)),
		header("kid too long", errNoSuchKey, set("kid", quote(strings.Repeat("k", 129)))),
		header("kid empty", errUserLacks, set("kid", `""`)),
		header("no kid", errUserLacks, without("kid")),
		header("kid an array", errHeaderJSON, set("kid", `["k-user"]`)),

		header("unknown crit", errUserHeader, add("crit", `["exp"]`)),
		header("empty crit", errUserHeader, add("crit", `[]`)),
		header("crit null", errUserHeader, add("crit", `null`)),
		header("jku", errUserHeader, add("jku", `"https://evil.example/keys"`)),
		header("jwk", errUserHeader, add("jwk", `{"kty":"oct","k":"AA"}`)),
		header("x5u", errUserHeader, add("x5u", `"https://evil.example/cert"`)),
		header("x5c", errUserHeader, add("x5c", `["AA"]`)),
		header("b64", errUserHeader, add("b64", `false`)),
		header("zip", errUserHeader, add("zip", `"DEF"`)),
		header("enc", errUserHeader, add("enc", `"A128GCM"`)),
		header("member twice", errHeaderJSON, func(o object) object { return o.add("kid", `"k-user"`) }),
		header("member twice, once with an escape", errHeaderJSON, add(`\u006bid`, `"k-other"`)),
		{"header is an array", errHeaderJSON, func(k *kind) string { return k.signText(`[]`, k.claims.String()) }},
		{"header is null", errHeaderJSON, func(k *kind) string { return k.signText(`null`, k.claims.String()) }},
		{"header with something behind it", errHeaderJSON, func(k *kind) string {
			return k.signText(k.header.String()+"{}", k.claims.String())
		}},

		claims("another issuer", errIssuer, set("iss", `"https://evil.example/"`)),
		claims("issuer without its slash", errIssuer, set("iss", quote(strings.TrimSuffix(testProvider, "/")))),
		claims("no issuer", errClaimLacks, without("iss")),
		claims("another audience", errAudience, set("aud", `"other-app"`)),
		claims("other audiences", errAudience, set("aud", `["other-app","x"]`)),
		claims("no audience", errClaimLacks, without("aud")),
		claims("no audience in the array", errAudience, set("aud", `[]`)),
		claims("audience in an array in an array", errClaimsJSON, set("aud", `[["`+testAudience+`"]]`)),
		claims("audience null", errClaimsJSON, set("aud", `null`)),
		claims("too many audiences", errClaimsJSON, set("aud", `["`+testAudience+`"`+strings.Repeat(`,"x"`, maxAudiences)+`]`)),
		claims("no subject", errClaimLacks, without("sub")),
		claims("subject null", errClaimLacks, set("sub", "null")),
		claims("subject empty", errSubject, set("sub", `""`)),
		claims("subject too long", errSubject, set("sub", quote(strings.Repeat("x", 129)))),
		claims("subject too long in bytes", errSubject, set("sub", quote(strings.Repeat("ä", 65)))),
		claims("subject a number", errClaimsJSON, set("sub", "7")),
		claims("subject with half a surrogate pair", errClaimsJSON, set("sub", `"\ud800"`)),
		claims("subject not UTF-8", errClaimsJSON, set("sub", "\"\xff\"")),

		claims("no exp", errClaimLacks, without("exp")),
		claims("exp this second", errExpiredToken, func(o object) object {
			return o.set("iat", seconds(testNow.Add(-time.Hour))).set("exp", seconds(testNow))
		}),
		claims("exp before iat", errTimes, set("exp", seconds(testNow.Add(-time.Hour)))),
		claims("exp beyond all times", errTimes, set("exp", "253402300800")),
		claims("exp zero", errTimes, set("exp", "0")),
		claims("exp with a fraction", errClaimsJSON, set("exp", seconds(testNow.Add(time.Hour))+".5")),
		claims("exp a string", errClaimsJSON, set("exp", quote(seconds(testNow.Add(time.Hour))))),
		claims("issued in the future", errFuture, set("iat", ahead)),
		claims("not yet valid", errNotYet, add("nbf", ahead)),

		claims("claim twice, alike", errClaimsJSON, add("sub", `"fan-7"`)),
		claims("claim twice, differing", errClaimsJSON, add("sub", `"fan-8"`)),
		claims("claim twice, once with an escape", errClaimsJSON, add(`\u0073ub`, `"fan-8"`)),
		claims("claim in other letters", errClaimLacks, func(o object) object { return o.without("sub").add("Sub", `"fan-7"`) }),
		claims("member twice inside another", errClaimsJSON, add("name", `{"a":1,"a":2}`)),
		{"claims are a string", errClaimsJSON, func(k *kind) string { return k.signText(k.header.String(), `"x"`) }},
		{"claims are null", errClaimLacks, func(k *kind) string { return k.signText(k.header.String(), `null`) }},

		{"signature of other claims", errSignature, func(k *kind) string {
			other, good := k.sign(k.header, k.claims.set("sub", `"another"`)), k.sign(k.header, k.claims)
			return good[:strings.LastIndexByte(good, '.')] + other[strings.LastIndexByte(other, '.'):]
		}},
		{"signature in ASN.1", errSignature, func(k *kind) string {
			good := k.sign(k.header, k.claims)
			return good[:strings.LastIndexByte(good, '.')+1] + raw64("0"+strings.Repeat("x", 70))
		}},
		{"signature with bytes behind it", errSignature, func(k *kind) string {
			good := k.sign(k.header, k.claims)
			i := strings.LastIndexByte(good, '.') + 1
			return good[:i] + raw64(string(k.mac([]byte(good[:i-1])))+"x")
		}},
		{"longer than 8192 bytes", errUserTooLong, func(k *kind) string {
			return k.sign(k.header, k.claims.add("pad", quote(strings.Repeat("x", 7000))))
		}},
		{"empty", errThreeParts, func(*kind) string { return "" }},
		{"five parts", errThreeParts, func(k *kind) string { return k.sign(k.header, k.claims) + ".AAAA.AAAA" }},
	}
	for _, k := range userKinds(t) {
		for _, c := range cases {
			err := k.verify(c.make(k), testNow)
			if !errors.Is(err, c.why) || c.why != errExpiredToken && !errors.Is(err, ErrInvalid) {
				t.Errorf("%s, %s: got %v, want %v", k.name, c.name, err, c.why)
			}
		}
	}
}

// TestOnlyAGoodTokenAsksForANewKey: what no new key could make good is no reason to fetch one.
func TestOnlyAGoodTokenAsksForANewKey(t *testing.T) {
	k := userKinds(t)[0]
	unknown := k.header.set("kid", `"k-new"`)
	for name, claims := range map[string]object{
		"another issuer":   k.claims.set("iss", `"https://evil.example/"`),
		"another audience": k.claims.set("aud", `"other-app"`),
		"no subject":       k.claims.set("sub", `""`),
		"expired":          k.claims.set("iat", "1").set("exp", seconds(testNow)),
	} {
		if err := k.verify(k.sign(unknown, claims), testNow); errors.Is(err, ErrUnknownKey) || !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v, want it refused for good", name, err)
		}
	}
	if err := k.verify(k.sign(unknown, k.claims), testNow); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("good but for its key: got %v, want %v", err, ErrUnknownKey)
	}
}

func TestPeekSubject(t *testing.T) {
	k := userKinds(t)[0]
	if got, err := PeekSubject([]byte(k.sign(k.header, k.claims))); err != nil || got != "fan-7" {
		t.Errorf("got %q, %v; want fan-7", got, err)
	}
	for _, token := range []string{"", "a.b", "a.b.c", k.sign(k.header, k.claims.without("sub")), strings.Repeat("x", MaxUserToken+1)} {
		if got, err := PeekSubject([]byte(token)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%.40q: got %q, %v; want %v", token, got, err, ErrInvalid)
		}
	}
}

func TestUsersSignedByTheShopItself(t *testing.T) {
	private, public, err := GenerateUserKeys()
	if err != nil {
		t.Fatal(err)
	}
	ec := newP256(t)
	for name, keys := range map[string][2][]byte{
		"generated": {private, public}, "P-256": {mustKeySet(t, ec, jwa.ES256, "ec"), mustKeySet(t, &ec.PublicKey, jwa.ES256, "ec")},
	} {
		signer, err := NewUserSigner(keys[0], testProvider, testAudience)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		known, err := ParseUserKeys(keys[1])
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		token, err := signer.Sign("fan-ü\"7", testNow, testNow.Add(time.Minute))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		tokens := &UserTokens{Issuer: testProvider, Audience: testAudience, Keys: known}
		user, err := tokens.Verify([]byte(token), testNow)
		if want := testNow.Add(time.Minute); err != nil || user.Subject != "fan-ü\"7" || !user.ExpiresAt.Equal(want) {
			t.Errorf("%s: got %+v, %v; want the fan until %v", name, user, err, want)
		}
	}
	signer, err := NewUserSigner(private, testProvider, testAudience)
	if err != nil {
		t.Fatal(err)
	}
	for name, sign := range map[string]func() (string, error){
		"no subject": func() (string, error) { return signer.Sign("", testNow, testNow.Add(time.Minute)) },
		"subject's size": func() (string, error) {
			return signer.Sign(strings.Repeat("x", 129), testNow, testNow.Add(time.Minute))
		},
		"no life": func() (string, error) { return signer.Sign("u", testNow, testNow) },
	} {
		if token, err := sign(); err == nil {
			t.Errorf("%s: got %q, want an error", name, token)
		}
	}
	for name, args := range map[string][3]string{
		"public keys": {string(public), testProvider, testAudience}, "no issuer": {string(private), "", testAudience}, "no audience": {string(private), testProvider, ""},
	} {
		if _, err := NewUserSigner([]byte(args[0]), args[1], args[2]); err == nil {
			t.Errorf("%s: got no error, want one", name)
		}
	}
}
