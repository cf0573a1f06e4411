package tokens

import (
	"bytes"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/lestrrat-go/jwx/v2/jwa"
)

// leastMutations is how many different mutations of each kind of token are tried.
const leastMutations = 2000

// TestNoMutationIsAccepted: of each kind of token thousands of variants are made, the same in each
// run. None is accepted, since none was issued.
func TestNoMutationIsAccepted(t *testing.T) {
	for _, k := range allKinds(t) {
		token := k.sign(k.header, k.claims)
		if err := k.verify(token, testNow); err != nil {
			t.Fatalf("%s as it was issued: got %v, want it accepted", k.name, err)
		}
		variants := mutations(k, token)
		if len(variants) < leastMutations {
			t.Errorf("%s: got %d mutations, want at least %d", k.name, len(variants), leastMutations)
		}
		for _, v := range variants {
			if err := k.verify(v.token, testNow); err == nil {
				t.Errorf("%s, %s: %q was accepted, which nobody issued", k.name, v.name, v.token)
			}
		}
		t.Logf("%s: %d mutations were refused", k.name, len(variants))
	}
}

type variant struct{ name, token string }

// mutations makes all variants of a token; none occurs twice, and none is the token.
func mutations(k *kind, token string) []variant {
	var list []variant
	known := map[string]bool{token: true}
	add := func(name, mutated string) {
		if !known[mutated] {
			known[mutated] = true
			list = append(list, variant{name, mutated})
		}
	}
	parts := strings.Split(token, ".")
	with := func(part int, text string) string {
		changed := slices.Clone(parts)
		changed[part] = text
		return strings.Join(changed, ".")
	}
	for i := range len(token) {
		at := fmt.Sprintf(" at byte %d", i)
		add("cut"+at, token[:i])
		add("cut before"+at, token[i+1:])
		add("a byte less"+at, token[:i]+token[i+1:])
		add("a byte twice"+at, token[:i+1]+token[i:])
		add("another letter"+at, token[:i]+string(nextLetter(token[i]))+token[i+1:])
		for _, c := range []string{"\x00", "\n", " ", "=", ".", "é", "\xff"} {
			add(fmt.Sprintf("%q put in", c)+at, token[:i]+c+token[i:])
		}
		if i > 0 {
			add("two bytes changed round"+at, token[:i-1]+string(token[i])+string(token[i-1])+token[i+1:])
		}
	}
	// Other parts, and other orders of them.
	for _, order := range [][]int{{0, 0, 2}, {1, 1, 2}, {2, 1, 0}, {1, 0, 2}, {0, 2, 1}, {2, 2, 2}, {1, 2, 0}, {2, 0, 1}} {
		add(fmt.Sprint("parts ", order), parts[order[0]]+"."+parts[order[1]]+"."+parts[order[2]])
	}
	// Claims and headers that say something else, under the old signature, under none, and under those
	// that an attacker can make without the key.
	for name, claims := range forgedClaims(k) {
		payload := raw64(claims)
		add("forged "+name, with(1, payload))
		for _, signature := range forgedSignatures(k, parts[0]+"."+payload) {
			add("forged "+name+" and signed with "+signature.name, parts[0]+"."+payload+"."+signature.token)
		}
	}
	for name, header := range forgedHeaders(k) {
		encoded := raw64(header)
		add("header "+name, with(0, encoded))
		for _, signature := range forgedSignatures(k, encoded+"."+parts[1]) {
			add("header "+name+" and signed with "+signature.name, encoded+"."+parts[1]+"."+signature.token)
		}
	}
	// Several changes at once.
	r := rand.New(rand.NewPCG(7, uint64(len(k.name))))
	for len(list) < 2*leastMutations {
		mutated := []byte(token)
		for range 2 + r.IntN(4) {
			i := r.IntN(len(mutated))
			switch r.IntN(4) {
			case 0:
				mutated[i] = byte(r.Uint32())
			case 1:
				mutated = slices.Delete(mutated, i, min(len(mutated), i+1+r.IntN(8)))
			case 2:
				mutated = slices.Insert(mutated, i, bytes.Repeat([]byte{token[r.IntN(len(token))]}, 1+r.IntN(8))...)
			case 3:
				j := r.IntN(len(mutated))
				mutated[i], mutated[j] = mutated[j], mutated[i]
			}
			if len(mutated) == 0 {
				break
			}
		}
		add("several changes", string(mutated))
	}
	return list
}

// nextLetter is another letter of the alphabet, or one that is none in it.
func nextLetter(c byte) byte {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return alphabet[(strings.IndexByte(alphabet, c)+1)%len(alphabet)]
}

// forgedClaims are what an attacker would like to say.
func forgedClaims(k *kind) map[string]string {
	forged := make(map[string]string)
	for _, claim := range k.claims {
		forged["without "+claim.name] = k.claims.without(claim.name).String()
		forged[claim.name+" twice"] = k.claims.add(claim.name, claim.text).String()
		for i, value := range []string{
			`""`, `null`, `0`, `-0`, `1`, `-1`, `1.5`, `1e400`, `9223372036854775808`, `18446744073709551615`, `18446744073709551616`, `253402300800`,
			`"1"`, `true`, `[]`, `{}`, `["x"]`, `"\ud800"`, `"\u0000"`, `"admin"`, `"operator"`, quote("rival"), quote("rival.final"), quote("Inc1-1"), `"*"`,
		} {
			forged[fmt.Sprint(claim.name, " ", i)] = k.claims.set(claim.name, value).String()
		}
	}
	forged["an added member"] = k.claims.add("vip", "true").String()
	forged["nothing"], forged["null"], forged["an array"] = "{}", "null", "[]"
	return forged
}

// forgedHeaders are those with which other libraries were once led astray.
func forgedHeaders(k *kind) map[string]string {
	forged := make(map[string]string)
	for i, algorithm := range []string{
		"none", "None", "NONE", "nOnE", "HS256", "HS384", "HS512", "RS256", "PS256", "ES256", "ES256K", "ES384", "EdDSA", "Ed25519", "", "null", "dir", "A128KW",
	} {
		forged[fmt.Sprint("alg ", i)] = k.header.set("alg", quote(algorithm)).String()
	}
	for i, id := range []string{"", "k-other", "../../dev/null", "k-ticket' OR '1'='1", `\u0000`, "k-session", "k-operator", "k-ticket"} {
		forged[fmt.Sprint("kid ", i)] = k.header.set("kid", quote(id)).String()
	}
	for i, kind := range []string{"", "JWT", "jwt", "wr-ticket+jwt", "wr-session+jwt", "wr-operator+jwt", "WR-TICKET+JWT", "application/wr-ticket+jwt"} {
		forged[fmt.Sprint("typ ", i)] = k.header.set("typ", quote(kind)).String()
	}
	for name, value := range map[string]string{
		"jwk": `{"kty":"oct","k":"AA"}`, "jku": `"https://evil.example/"`, "x5u": `"https://evil.example/"`, "x5c": `["AA"]`, "crit": `["exp"]`,
		"b64": "false", "zip": `"DEF"`, "enc": `"A128GCM"`, "cty": `"JWT"`, "alg2": `"none"`,
	} {
		forged["with "+name] = k.header.add(name, value).String()
	}
	return forged
}

// forgedSignatures are those that nobody needs a key for.
func forgedSignatures(k *kind, signed string) []variant {
	length := len(k.mac([]byte("x")))
	sum := sha256.Sum256([]byte(signed))
	encode := base64.RawURLEncoding.EncodeToString
	list := []variant{
		{"nothing", ""}, {"zeros", encode(make([]byte, length))}, {"ones", encode(bytes.Repeat([]byte{0xff}, length))},
		{"a hash", encode(sum[:])}, {"an empty key", encode(hmacOf(nil, signed))}, {"a key of zeros", encode(hmacOf(make([]byte, 32), signed))},
		{"the key's name", encode(hmacOf([]byte(k.header[1].text), signed))},
	}
	if k.public != nil {
		list = append(list, variant{"the public key", encode(hmacOf(k.public, signed))})
	}
	return list
}

func hmacOf(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// TestTheOtherSignatureOfES256: whoever holds an ES256 token can make a second signature of it, with
// n - s for s (SEC 1, section 4.1.4). RFC 7518 lets a signer choose either, so neither can be refused.
// The token that it makes says what was issued, and what is revoked goes by the id in it.
func TestTheOtherSignatureOfES256(t *testing.T) {
	for _, k := range kinds(t) {
		if k.algorithm != jwa.ES256 {
			continue
		}
		parts := strings.Split(k.sign(k.header, k.claims), ".")
		signature, err := base64.RawURLEncoding.DecodeString(parts[2])
		if err != nil {
			t.Fatal(err)
		}
		s := new(big.Int).SetBytes(signature[32:])
		s.Sub(elliptic.P256().Params().N, s).FillBytes(signature[32:])
		other := parts[0] + "." + parts[1] + "." + base64.RawURLEncoding.EncodeToString(signature)
		if err := k.verify(other, testNow); err != nil {
			t.Errorf("the other signature of the same claims: got %v, want it accepted", err)
		}
		changed := parts[0] + "." + raw64(k.claims.set("role", `"viewer"`).String()) + "." + base64.RawURLEncoding.EncodeToString(signature)
		if err := k.verify(changed, testNow); err == nil {
			t.Error("the other signature with other claims was accepted")
		}
	}
}
