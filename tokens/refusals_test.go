package tokens

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

const (
	isTicket = 1 << iota
	isSession
	isOperator
	isAny = isTicket | isSession | isOperator
)

func (k *kind) is(mask int) bool {
	switch k.name {
	case "ticket":
		return mask&isTicket != 0
	case "session":
		return mask&isSession != 0
	}
	return mask&isOperator != 0
}

func TestGoodTokensAreAccepted(t *testing.T) {
	for _, k := range kinds(t) {
		token := k.sign(k.header, k.claims)
		for _, now := range []time.Time{testNow, testNow.Add(-30 * time.Second), testNow.Add(19 * time.Minute)} {
			if err := k.verify(token, now); err != nil {
				t.Errorf("%s at %v: got %v, want it accepted", k.name, now, err)
			}
		}
		// The order of members is nobody's business.
		turned := append(object{k.claims[len(k.claims)-1]}, k.claims[:len(k.claims)-1]...)
		if err := k.verify(k.sign(object{k.header[2], k.header[0], k.header[1]}, turned), testNow); err != nil {
			t.Errorf("%s with members in another order: got %v, want it accepted", k.name, err)
		}
	}
}

// TestRefusals says of every way to get a token wrong why it is refused. All of them are signed
// with the right key, unless the name says otherwise, so that no refusal hides behind another.
func TestRefusals(t *testing.T) {
	type refusalCase struct {
		name  string
		kinds int
		why   error
		make  func(k *kind) string
	}
	header := func(name string, kinds int, why error, change func(object) object) refusalCase {
		return refusalCase{name, kinds, why, func(k *kind) string { return k.sign(change(k.header), k.claims) }}
	}
	claims := func(name string, kinds int, why error, change func(object) object) refusalCase {
		return refusalCase{name, kinds, why, func(k *kind) string { return k.sign(k.header, change(k.claims)) }}
	}
	set := func(name, text string) func(object) object {
		return func(o object) object { return o.set(name, text) }
	}
	without := func(name string) func(object) object { return func(o object) object { return o.without(name) } }
	add := func(name, text string) func(object) object {
		return func(o object) object { return o.add(name, text) }
	}
	long := quote(strings.Repeat("x", 129))

	cases := []refusalCase{
		// The algorithm is ours to say, never the token's.
		{"alg none without signature", isAny, errThreeParts, func(k *kind) string {
			return raw64(k.header.set("alg", `"none"`).String()) + "." + raw64(k.claims.String()) + "."
		}},
		{"alg none with a signature", isAny, errAlgorithm, func(k *kind) string {
			return raw64(k.header.set("alg", `"none"`).String()) + "." + raw64(k.claims.String()) + "." +
				raw64(strings.Repeat("x", 64))
		}},
		{"HS256 signed with the public key", isSession | isOperator, errAlgorithm, func(k *kind) string {
			signed := raw64(k.header.set("alg", `"HS256"`).String()) + "." + raw64(k.claims.String())
			h := hmac.New(sha256.New, k.public)
			h.Write([]byte(signed))
			return signed + "." + base64.RawURLEncoding.EncodeToString(h.Sum(nil))
		}},
		header("alg of another kind of token", isTicket, errAlgorithm, set("alg", `"EdDSA"`)),
		header("alg HS512", isAny, errAlgorithm, set("alg", `"HS512"`)),
		header("alg in other letters", isAny, errAlgorithm, set("alg", `"hs256"`)),
		{"alg of the tenant's other kind of key", isOperator, errAlgorithm, func(k *kind) string {
			other := `"ES256"`
			if k.name == "operator with ES256" {
				other = `"EdDSA"`
			}
			return k.sign(k.header.set("alg", other), k.claims)
		}},
		header("no alg", isAny, errHeaderLacks, without("alg")),

		// One kind of token is not taken for another.
		header("typ of a ticket", isSession|isOperator, errType, set("typ", `"wr-ticket+jwt"`)),
		header("typ of a session", isTicket|isOperator, errType, set("typ", `"wr-session+jwt"`)),
		header("typ of an operator", isTicket|isSession, errType, set("typ", `"wr-operator+jwt"`)),
		header("typ JWT", isAny, errType, set("typ", `"JWT"`)),
		header("no typ", isAny, errHeaderLacks, without("typ")),

		header("kid unknown", isAny, errKeyID, set("kid", `"k-other"`)),
		header("kid empty", isAny, errKeyID, set("kid", `""`)),
		header("no kid", isAny, errHeaderLacks, without("kid")),
		header("kid a number", isAny, errHeaderJSON, set("kid", `1`)),
		header("kid with an escape", isAny, errHeaderJSON, func(o object) object {
			return o.set("kid", strings.Replace(o[1].text, "k", `\u006b`, 1))
		}),
		header("unknown crit", isAny, errHeaderName, add("crit", `["exp"]`)),
		header("jwk", isAny, errHeaderName, add("jwk", `{"kty":"oct","k":"AA"}`)),
		header("jku", isAny, errHeaderName, add("jku", `"https://evil.example/keys"`)),
		header("x5u", isAny, errHeaderName, add("x5u", `"https://evil.example/cert"`)),
		header("b64", isAny, errHeaderName, add("b64", `false`)),
		header("header member twice", isAny, errHeaderTwice, func(o object) object { return append(append(object(nil), o...), o[0]) }),
		{"header is no object", isAny, errHeaderJSON, func(k *kind) string { return k.signText(`[]`, k.claims.String()) }},
		{"header with white space", isAny, errHeaderJSON, func(k *kind) string {
			return k.signText(strings.Replace(k.header.String(), ":", ": ", 1), k.claims.String())
		}},
		{"header with something behind it", isAny, errHeaderJSON, func(k *kind) string {
			return k.signText(k.header.String()+"{}", k.claims.String())
		}},

		// Who issued it, and for whom.
		claims("another issuer", isAny, errIssuer, set("iss", `"https://evil.example"`)),
		claims("issuer with a slash behind it", isTicket|isSession, errIssuer, set("iss", quote(testIssuer+"/"))),
		claims("no issuer", isAny, errClaimLacks, without("iss")),
		claims("audience of a tenant that is not here", isTicket, errTenantKeys, set("aud", `"nobody.final"`)),
		claims("audience of another tenant", isTicket, errKeyID, set("aud", `"rival.final"`)),
		claims("audience without a queue", isTicket, errTenantKeys, set("aud", `"club"`)),
		claims("audience with a path", isTicket, errTenantKeys, set("aud", `"club.final/x"`)),
		claims("audience of another tenant", isSession, errAudience, set("aud", `"rival"`)),
		claims("audience of another origin", isOperator, errAudience, set("aud", `"https://other.example.org"`)),
		claims("several audiences", isOperator, errAudience, set("aud", `["`+testOrigin+`","x"]`)),
		claims("no audience", isAny, errClaimLacks, without("aud")),
		claims("audience in an array", isTicket|isSession, errClaimsJSON, func(o object) object {
			return o.set("aud", "["+o[1].text+"]")
		}),
		claims("no id", isAny, errClaimLacks, without("jti")),
		claims("id of another position", isTicket, errID, set("jti", `"Inc1-43"`)),
		claims("id with a zero before the position", isTicket, errID, set("jti", `"Inc1-042"`)),
		claims("id of another queue", isSession, errID, set("jti", `"club.other~R1"`)),
		claims("id without a random part", isSession, errID, set("jti", quote(testQueue+"~"))),
		claims("queue of another tenant", isSession, errQueue, func(o object) object {
			return o.set("queue", `"rival.final"`).set("jti", `"rival.final~R1"`)
		}),
		claims("queue without a tenant", isSession, errQueue, set("queue", `"final"`)),
		claims("position 0", isTicket, errPosition, func(o object) object { return o.set("pos", "0").set("jti", `"Inc1-0"`) }),
		claims("position negative", isTicket, errClaimsJSON, set("pos", "-1")),
		claims("position with a fraction", isTicket, errClaimsJSON, set("pos", "42.0")),
		claims("position with an exponent", isTicket, errClaimsJSON, set("pos", "42e0")),
		claims("position with a leading zero", isTicket, errClaimsJSON, set("pos", "042")),
		claims("position beyond 64 bits", isTicket, errClaimsJSON, set("pos", "18446744073709551616")),
		claims("position a string", isTicket, errClaimsJSON, set("pos", `"42"`)),
		claims("incarnation not a name", isTicket, errName, func(o object) object {
			return o.set("inc", `"In c"`).set("jti", `"In c-42"`)
		}),
		claims("generation empty", isTicket, errName, set("gen", `""`)),
		claims("no subject", isAny, errClaimLacks, without("sub")),
		claims("subject empty", isAny, errSubject, set("sub", `""`)),
		claims("subject too long", isAny, errSubject, set("sub", long)),
		claims("role unknown", isOperator, errRole, set("role", `"admin"`)),
		claims("no role", isOperator, errClaimLacks, without("role")),

		// Times.
		claims("missing exp", isAny, errClaimLacks, without("exp")),
		claims("missing iat", isAny, errClaimLacks, without("iat")),
		claims("missing nbf", isSession, errClaimLacks, without("nbf")),
		claims("expired this second", isTicket|isOperator, errExpiredToken, func(o object) object {
			return o.set("iat", seconds(testNow.Add(-time.Hour))).set("exp", seconds(testNow))
		}),
		claims("expired this second", isSession, errExpiredToken, func(o object) object {
			start := seconds(testNow.Add(-time.Hour))
			return o.set("iat", start).set("nbf", start).set("exp", seconds(testNow))
		}),
		claims("expiry a float", isTicket|isSession, errClaimsJSON, func(o object) object {
			return o.set("exp", seconds(testNow.Add(time.Hour))+".5")
		}),
		claims("expiry a string", isAny, errClaimsJSON, set("exp", quote(seconds(testNow.Add(time.Hour))))),
		claims("expiry before the issue", isAny, errTimes, set("exp", seconds(testNow.Add(-time.Hour)))),
		claims("expiry beyond all times", isAny, errTimes, set("exp", "253402300800")),
		claims("not yet valid", isSession, errNotYet, func(o object) object {
			return o.set("nbf", seconds(testNow.Add(31*time.Second)))
		}),
		claims("not yet valid", isOperator, errNotYet, set("nbf", seconds(testNow.Add(31*time.Second)))),
		claims("issued in the future", isOperator, errFuture, func(o object) object {
			return o.set("iat", seconds(testNow.Add(31*time.Second)))
		}),
		claims("valid for longer than a day", isOperator, errLife, set("exp", seconds(testNow.Add(24*time.Hour+time.Second)))),

		// The shape of the claims.
		claims("claim twice, alike", isTicket|isSession, errClaimTwice, func(o object) object { return append(append(object(nil), o...), o[0]) }),
		claims("claim twice, alike", isOperator, errClaimsJSON, func(o object) object { return append(append(object(nil), o...), o[0]) }),
		claims("claim twice, differing", isTicket|isSession, errClaimTwice, add("sub", `"another"`)),
		claims("claim twice, differing", isOperator, errClaimsJSON, add("sub", `"another"`)),
		claims("claim twice, once with an escape", isTicket|isSession, errClaimName, add(`\u0073ub`, `"another"`)),
		claims("claim twice, once with an escape", isOperator, errClaimsJSON, add(`\u0073ub`, `"another"`)),
		claims("unknown claim", isTicket|isSession, errClaimName, add("vip", "true")),
		claims("claim in other letters", isTicket|isSession, errClaimName, func(o object) object {
			return o.without("sub").add("Sub", `"fan-7"`)
		}),
		claims("claim null", isTicket|isSession, errClaimsJSON, set("sub", "null")),
		claims("claim null", isOperator, errClaimLacks, set("sub", "null")),
		claims("first half of a surrogate pair", isAny, errClaimsJSON, set("sub", `"\ud800"`)),
		claims("first half of a surrogate pair before another escape", isAny, errClaimsJSON, set("sub", `"\ud800\u0041"`)),
		claims("second half of a surrogate pair", isAny, errClaimsJSON, set("sub", `"\udc00"`)),
		claims("invalid UTF-8", isAny, errClaimsJSON, set("sub", "\"\xff\"")),
		claims("control character", isAny, errClaimsJSON, set("sub", "\"\x01\"")),
		{"claims are no object", isAny, errClaimsJSON, func(k *kind) string { return k.signText(k.header.String(), `"club"`) }},
		{"claims are empty", isAny, errThreeParts, func(k *kind) string { return k.signText(k.header.String(), ``) }},
		{"claims with something behind them", isAny, errClaimsJSON, func(k *kind) string {
			return k.signText(k.header.String(), k.claims.String()+"x")
		}},

		// The signature.
		{"signature of other claims", isAny, errSignature, func(k *kind) string {
			other := k.sign(k.header, k.claims.set("sub", `"another"`))
			good := k.sign(k.header, k.claims)
			return good[:strings.LastIndexByte(good, '.')] + other[strings.LastIndexByte(other, '.'):]
		}},
		{"signature of zeros", isAny, errSignature, func(k *kind) string {
			good := k.sign(k.header, k.claims)
			i := strings.LastIndexByte(good, '.') + 1
			return good[:i] + strings.Repeat("A", len(good)-i)
		}},
		{"signature too long", isAny, errSignature, func(k *kind) string { return k.sign(k.header, k.claims) + "AAAA" }},

		// The serialization.
		{"empty", isAny, errThreeParts, func(*kind) string { return "" }},
		{"two parts", isAny, errThreeParts, func(k *kind) string {
			good := k.sign(k.header, k.claims)
			return good[:strings.LastIndexByte(good, '.')]
		}},
		{"four parts", isAny, errThreeParts, func(k *kind) string { return k.sign(k.header, k.claims) + ".AAAA" }},
		{"five parts", isAny, errThreeParts, func(k *kind) string { return k.sign(k.header, k.claims) + ".AAAA.AAAA" }},
		{"longer than 2048 bytes", isAny, errTooLong, func(k *kind) string {
			return k.sign(k.header, k.claims.set("sub", quote(strings.Repeat("x", 2000))))
		}},
		{"JSON serialization", isAny, errThreeParts, func(k *kind) string {
			p := strings.Split(k.sign(k.header, k.claims), ".")
			return fmt.Sprintf(`{"protected":%q,"payload":%q,"signature":%q}`, p[0], p[1], p[2])
		}},
	}
	for _, k := range kinds(t) {
		for _, c := range cases {
			if !k.is(c.kinds) {
				continue
			}
			err := k.verify(c.make(k), testNow)
			if !errors.Is(err, c.why) {
				t.Errorf("%s, %s: got %v, want %v", k.name, c.name, err, c.why)
			}
			if kindOf := ErrInvalid; c.why != errExpiredToken && !errors.Is(err, kindOf) {
				t.Errorf("%s, %s: got %v, want it to be %v", k.name, c.name, err, kindOf)
			}
		}
	}
}

// TestExpiredTokenThatIsAlsoWrongIsInvalid: only what would be good but for its expiry is expired.
func TestExpiredTokenThatIsAlsoWrongIsInvalid(t *testing.T) {
	for _, k := range allKinds(t) {
		late := testNow.Add(TicketLifetime)
		token := k.sign(k.header, k.claims)
		if err := k.verify(token, late); !errors.Is(err, ErrExpired) {
			t.Errorf("%s after its time: got %v, want %v", k.name, err, ErrExpired)
		}
		if err := k.verify(k.sign(k.header, k.claims.set("iss", `"evil"`)), late); !errors.Is(err, errIssuer) {
			t.Errorf("%s of another issuer after its time: got %v, want %v", k.name, err, errIssuer)
		}
		if err := k.verify(token[:len(token)-4]+"AAAA", late); !errors.Is(err, errSignature) {
			t.Errorf("%s forged after its time: got %v, want %v", k.name, err, errSignature)
		}
	}
}

func TestEveryTruncationIsRefused(t *testing.T) {
	for _, k := range allKinds(t) {
		token := k.sign(k.header, k.claims)
		for i := range len(token) {
			if err := k.verify(token[:i], testNow); !errors.Is(err, ErrInvalid) {
				t.Errorf("%s cut to %d of %d bytes: got %v, want %v", k.name, i, len(token), err, ErrInvalid)
			}
		}
	}
}

func TestEveryFlippedBitIsRefused(t *testing.T) {
	for _, k := range allKinds(t) {
		token := []byte(k.sign(k.header, k.claims))
		for i := range len(token) * 8 {
			token[i/8] ^= 1 << (i % 8)
			if err := k.verify(string(token), testNow); !errors.Is(err, ErrInvalid) {
				t.Errorf("%s with bit %d of byte %d flipped: got %v, want %v", k.name, i%8, i/8, err, ErrInvalid)
			}
			token[i/8] ^= 1 << (i % 8)
		}
	}
}

// TestOtherEncodingsOfTheSameBytesAreRefused: there is one text of a token, whichever part somebody
// writes differently.
func TestOtherEncodingsOfTheSameBytesAreRefused(t *testing.T) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	for _, k := range allKinds(t) {
		tried := map[string]bool{}
		check := func(name, bad string, part int) {
			tried[name] = true
			if err := k.verify(bad, testNow); !errors.Is(err, ErrInvalid) {
				t.Errorf("%s, %s in part %d: got %v, want %v", k.name, name, part, err, ErrInvalid)
			}
		}
		// Subjects of several lengths and letters, so that every part ends with spare bits once, and
		// uses both letters in which the alphabets differ.
		for i := range 64 {
			claims := k.claims.set("sub", quote(strings.Repeat("ÿ", i%6+1)+fmt.Sprint(i)))
			good := k.sign(k.header, claims)
			if err := k.verify(good, testNow); err != nil {
				t.Fatalf("%s as it is: got %v, want it accepted", k.name, err)
			}
			parts := strings.Split(good, ".")
			for p := range parts {
				with := func(text string) string {
					changed := append([]string(nil), parts...)
					changed[p] = text
					return strings.Join(changed, ".")
				}
				text := parts[p]
				check("padding", with(text+pad(text)), p)
				check("newline behind", with(text+"\n"), p)
				check("newline inside", with(text[:4]+"\n"+text[4:]), p)
				check("carriage return inside", with(text[:4]+"\r"+text[4:]), p)
				check("blank before", with(" "+text), p)
				check("tab behind", with(text+"\t"), p)
				check("NUL behind", with(text+"\x00"), p)
				if std := strings.NewReplacer("-", "+", "_", "/").Replace(text); std != text {
					check("standard alphabet", with(std), p)
				}
				spare := 0
				switch len(text) % 4 {
				case 2:
					spare = 16
				case 3:
					spare = 4
				}
				last := strings.IndexByte(alphabet, text[len(text)-1])
				for bits := 1; bits < spare; bits++ {
					check("spare bits", with(text[:len(text)-1]+string(alphabet[last|bits])), p)
				}
			}
		}
		for _, name := range []string{"padding", "standard alphabet", "spare bits"} {
			if !tried[name] {
				t.Errorf("%s: no token came up on which to try %s", k.name, name)
			}
		}
	}
}

// pad is the padding that an encoder with padding would add, and one more where that is none.
func pad(text string) string {
	if n := (4 - len(text)%4) % 4; n > 0 {
		return strings.Repeat("=", n)
	}
	return "="
}

// TestRefusalsNameNoPartOfTheToken: errors end up in logs.
func TestRefusalsNameNoPartOfTheToken(t *testing.T) {
	for _, k := range kinds(t) {
		const mark = "zzmarkzz"
		for _, token := range []string{
			k.sign(k.header.set("kid", quote(mark)), k.claims), k.sign(k.header.set("alg", quote(mark)), k.claims),
			k.sign(k.header.add(mark, "1"), k.claims), k.sign(k.header, k.claims.set("iss", quote(mark))),
			k.sign(k.header, k.claims.set("aud", quote(mark))), k.sign(k.header, k.claims.add(mark, "1").set("sub", "1")),
			k.sign(k.header, k.claims.set("jti", quote(mark)).set("role", quote(mark))), mark + ".a.b", mark,
		} {
			err := k.verify(token, testNow)
			if err == nil {
				// jti and added claims of an operator are free.
				if k.is(isOperator) {
					continue
				}
				t.Errorf("%s: a marked token was accepted", k.name)
				continue
			}
			if strings.Contains(err.Error(), mark) || strings.Contains(err.Error(), raw64(mark)) {
				t.Errorf("%s: the error holds a part of the token: %v", k.name, err)
			}
		}
	}
}
