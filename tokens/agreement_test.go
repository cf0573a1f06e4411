package tokens

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	strict "github.com/go-json-experiment/json"
	"github.com/lestrrat-go/jwx/v2/jwt"
)

// agreed is how many tokens both parsers are shown.
const agreed = 12_000

// stricter are all the reasons for which we refuse what jwx accepts, and why we do. There is one
// the other way round: a ticket that seems to come from the future, because a clock that was put
// back must not turn away fans in line.
var stricter = map[error]string{
	errEncoding:    "jwx strips padding and blanks, so one signature would have many texts (RFC 7515, section 2, wants base64url without padding)",
	errSignature:   "a signature of another length in base64, padded or with spare bits, is another text of the same one",
	errHeaderJSON:  "jwx reads the header by encoding/json's rules: blanks, escapes and half surrogates are read differently elsewhere",
	errHeaderName:  "a header tells a verifier nothing but alg, kid and typ: jwk, jku, x5u, crit and b64 have led verifiers astray (RFC 8725, section 3.10)",
	errHeaderTwice: "of two members of one name parsers take the one or the other (RFC 7515, section 4)",
	errHeaderLacks: "jwx asks for neither kid nor typ",
	errAlgorithm:   "jwx goes by the algorithm that it was given with the key and does not compare the header's (RFC 8725, section 3.1)",
	errAudience:    "jwx wants ours among several audiences; a token is for one here",
	errType:        "jwx looks at no typ, so one kind of token could pass for another (RFC 8725, section 3.11)",
	errKeyID:       "jwx was given the key and does not ask for its name",
	errClaimsJSON:  "jwx reads numbers with a fraction as times, audiences in arrays, duplicates, and half surrogates",
	errClaimName:   "tickets and sessions are ours alone and hold nothing that we did not write",
	errClaimTwice:  "of two claims of one name parsers take the one or the other (RFC 7519, section 4)",
	errClaimLacks:  "jwx does not miss a claim that it was not told to want",
	errID:          "the id must be the one that belongs to the other claims",
	errQueue:       "a session's queue must be its tenant's",
	errSubject:     "a subject is 1 to 128 bytes",
	errName:        "incarnation and generation are names",
	errPosition:    "positions begin at 1",
	errRole:        "jwx knows no roles",
	errTimes:       "jwx compares an expiry with the present only, and knows no bound of time",
	errLife:        "jwx does not bound a lifetime",
	errTooLong:     "jwx has no bound of length",
}

// TestTheStrictParserAndJwxAgree shows both the same tokens: good ones, ones with odd headers and
// claims under the right signature, and damaged ones.
func TestTheStrictParserAndJwxAgree(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 9))
	all := kinds(t)
	differed := make(map[error]int)
	both, neither, fromTheFuture := 0, 0, 0
	for range agreed {
		k := all[r.IntN(len(all))]
		token := k.anyToken(r)
		ours := k.verify(token, testNow)
		parsed, theirs := k.jwx(token)
		switch {
		case ours == nil && k.name == "ticket" && errors.Is(theirs, jwt.ErrInvalidIssuedAt()):
			fromTheFuture++
		case ours == nil && theirs != nil:
			t.Errorf("%s: we accept %q, jwx says %v", k.name, token, theirs)
		case ours == nil:
			both++
			if err := k.sameClaims(token, parsed); err != nil {
				t.Errorf("%s: %q: %v", k.name, token, err)
			}
		case theirs == nil:
			var reason *refusal
			if !errors.As(ours, &reason) || stricter[reason] == "" {
				t.Errorf("%s: jwx accepts %q, we say %v, which nothing explains", k.name, token, ours)
				continue
			}
			differed[reason]++
		default:
			neither++
		}
	}
	if fromTheFuture == 0 {
		t.Error("no ticket came up that was issued in the future")
	}
	if both < agreed/10 || neither < agreed/10 {
		t.Errorf("got %d that both accept and %d that both refuse of %d, want a tenth of each at least", both, neither, agreed)
	}
	for reason, why := range stricter {
		if differed[reason] == 0 {
			t.Errorf("no token came up that we refuse as %q and jwx accepts; it was said that %s", reason, why)
		}
	}
	t.Logf("of %d tokens both accept %d, both refuse %d; we alone refuse the rest, for %d reasons", agreed, both, neither, len(differed))
}

// jwx verifies a token as most backends would: the key, the issuer, the audience and the times.
func (k *kind) jwx(token string) (jwt.Token, error) {
	issuer, audience := k.claims[0].text, k.claims[1].text
	return jwt.Parse([]byte(token), jwt.WithKey(k.algorithm, k.key), jwt.WithIssuer(strings.Trim(issuer, `"`)), jwt.WithAudience(strings.Trim(audience, `"`)),
		jwt.WithAcceptableSkew(0), jwt.WithClock(jwt.ClockFunc(func() time.Time { return testNow })))
}

// sameClaims compares what jwx read with what stands in the payload, and the header with the one
// that there is for the kind.
func (k *kind) sameClaims(token string, parsed jwt.Token) error {
	parts := strings.Split(token, ".")
	header, err := decodePart(nil, []byte(parts[0]))
	if err != nil {
		return err
	}
	var members, want map[string]string
	if err := errors.Join(strict.Unmarshal(header, &members), strict.Unmarshal([]byte(k.header.String()), &want)); err != nil || !maps.Equal(members, want) {
		return fmt.Errorf("accepted with the header %s, want %s", header, k.header)
	}
	payload, err := decodePart(nil, []byte(parts[1]))
	if err != nil {
		return err
	}
	var c struct {
		Iss string `json:"iss"`
		Sub string `json:"sub"`
		Jti string `json:"jti"`
		Exp int64  `json:"exp"`
	}
	// Not encoding/json, which takes SUB for sub.
	if err := strict.Unmarshal(payload, &c); err != nil {
		return err
	}
	if parsed.Issuer() != c.Iss || parsed.Subject() != c.Sub || parsed.JwtID() != c.Jti || parsed.Expiration().Unix() != c.Exp {
		return fmt.Errorf("jwx reads %v, want %s", parsed, payload)
	}
	return nil
}

// anyToken makes a token: a fifth of them as they should be.
func (k *kind) anyToken(r *rand.Rand) string {
	subject, err := json.Marshal(randomSubject(r))
	if err != nil {
		panic(err)
	}
	header, claims := slices.Clone(k.header), k.claims.set("sub", string(subject))
	r.Shuffle(len(claims), func(i, j int) { claims[i], claims[j] = claims[j], claims[i] })
	r.Shuffle(len(header), func(i, j int) { header[i], header[j] = header[j], header[i] })
	headerText, claimsText := header.String(), claims.String()
	switch r.IntN(5) {
	case 0:
	case 1:
		return damaged(r, k.signText(headerText, claimsText))
	case 2:
		headerText = oddHeader(r, header)
	default:
		claimsText = oddClaims(r, claims)
	}
	return k.signText(headerText, claimsText)
}

// damaged changes the text of a signed token.
func damaged(r *rand.Rand, token string) string {
	i := r.IntN(len(token))
	last := strings.LastIndexByte(token, '.') + 1
	switch r.IntN(8) {
	case 0:
		return token[:i] + string(nextLetter(token[i])) + token[i+1:]
	case 1:
		return token[:i] + token[i+1:]
	case 2:
		return token[:i] + "\n" + token[i:]
	case 3:
		return token + "="
	case 4:
		return " " + token + "\n"
	case 5:
		return token + strings.Repeat("=", 4-(len(token)-last)%4)
	case 6:
		return token[:last] + "A" + token[last+1:]
	default: // other spare bits of the signature
		return token[:len(token)-1] + string(nextLetter(token[len(token)-1]))
	}
}

func pick[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

// oddHeader is a header that is odd and signed all the same.
func oddHeader(r *rand.Rand, header object) string {
	switch r.IntN(8) {
	case 0:
		return header.without(pick(r, "kid", "typ", "alg")).String()
	case 1:
		return header.set("kid", pick(r, `"k-other"`, `""`, `"k"`)).String()
	case 2:
		return header.set("typ", pick(r, `"JWT"`, `"wr-ticket+jwt"`, `"wr-session+jwt"`, `"wr-operator+jwt"`)).String()
	case 3:
		return header.add(pick(r, "jku", "x5u", "cty", "extra"), `"https://evil.example/"`).String()
	case 4:
		return header.add("kid", pick(r, `"k-other"`, header[0].text)).String()
	case 5:
		return strings.Replace(header.String(), ",", ", ", 1)
	case 6:
		return header.set("alg", pick(r, `"none"`, `"HS256"`, `"HS512"`, `"ES256"`, `"EdDSA"`)).String()
	default:
		return header.add("crit", `["exp"]`).String()
	}
}

// oddClaims are claims that are odd and signed all the same.
func oddClaims(r *rand.Rand, claims object) string {
	claim := claims[r.IntN(len(claims))]
	switch r.IntN(12) {
	case 0:
		return claims.without(claim.name).String()
	case 1:
		return claims.add(claim.name, claim.text).String()
	case 2:
		return claims.add(pick(r, "vip", "name", "Sub", "EXP"), `"x"`).String()
	case 3:
		return claims.set("exp", pick(r, seconds(testNow.Add(-time.Hour)), seconds(testNow), seconds(testNow.Add(25*time.Hour)), "253402300800", "1e400", "0", "-1")).String()
	case 4:
		return claims.set(pick(r, "iat", "nbf"), pick(r, seconds(testNow.Add(time.Hour)), seconds(testNow.Add(-25*time.Hour)), "0", "1.5", `"1"`)).String()
	case 5:
		return claims.set("sub", pick(r, `""`, quote(strings.Repeat("x", 129)), quote(strings.Repeat("x", 1800)), `"\ud800"`, `"a\u0000"`, "\"\xff\"", "1")).String()
	case 6:
		return claims.set("aud", pick(r, `"rival"`, `["`+testOrigin+`"]`, `["`+testQueue+`"]`, `["`+testTenant+`","`+testOrigin+`","`+testQueue+`"]`, `[]`)).String()
	case 7:
		return claims.set("jti", pick(r, `""`, `"Inc1-43"`, `"club.final~"`, `"club.other~R1"`, `"Inc1-042"`)).String()
	case 8:
		return claims.set(pick(r, "pos", "inc", "gen", "queue", "role"), pick(r, "0", `""`, `"x y"`, `"rival.final"`, `"admin"`, "42.0", "-0")).String()
	case 9:
		return strings.Replace(claims.String(), ":", pick(r, ": ", " :", "::"), 1)
	case 10:
		return claims.String() + pick(r, " ", "{}", "\n", "x")
	default:
		return claims.set("iss", pick(r, `"https://evil.example"`, quote(testIssuer+"/"), `null`)).String()
	}
}
