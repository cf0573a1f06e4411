package tokens

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"
)

// fixedTokens are tokens and keys that are the same in every run, so that a corpus keeps its worth.
const (
	fuzzTicketKeys  = `{"keys":[{"kty":"oct","kid":"k1","alg":"HS256","k":"c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M"}]}`
	fuzzSessionKeys = `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k1","alg":"EdDSA",` +
		`"d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}` // RFC 8037, appendix A
	fuzzPublicKeys = `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k1","alg":"EdDSA","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`
)

// spoil seeds a fuzz test with a token and the usual ways to get it wrong.
func spoil(f *testing.F, token string) {
	parts := strings.Split(token, ".")
	f.Add(token)
	f.Add("")
	f.Add("..")
	f.Add(parts[0] + "." + parts[1])
	f.Add(token + "=")
	f.Add(token + "\n")
	f.Add(" " + token)
	f.Add(parts[0] + ".." + parts[2])
	f.Add(token[:len(token)-1] + "B")
	f.Add(raw64(`{"alg":"none"}`) + "." + parts[1] + ".")
	f.Add(raw64(`{"alg":"HS256","kid":"k1","typ":"JWT","crit":["exp"]}`) + "." + parts[1] + "." + parts[2])
	f.Add(parts[0] + "." + raw64(`{"iss":"a","iss":"b"}`) + "." + parts[2])
	f.Add(parts[0] + "." + raw64(`{"sub":"\ud800"}`) + "." + parts[2])
	f.Add(`{"protected":"` + parts[0] + `","payload":"` + parts[1] + `","signature":"` + parts[2] + `"}`)
}

// wantSame: whatever is accepted is the one token that was issued, or what the fuzzer could never
// have made without the key.
func wantSame(t *testing.T, token, issued string, err error) {
	if err == nil && token != issued {
		t.Errorf("accepted %q, which nobody issued", token)
	}
	if token == issued && err != nil {
		t.Errorf("refused what was issued: %v", err)
	}
	if err != nil && !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrExpired) {
		t.Errorf("%v wraps neither ErrInvalid nor ErrExpired", err)
	}
}

func FuzzTicket(f *testing.F) {
	ring, err := ParseKeyRing([]byte(fuzzTicketKeys))
	if err != nil {
		f.Fatal(err)
	}
	tickets := ticketsWith(ring)
	issued, err := tickets.Sign(nil, someTicket, testNow)
	if err != nil {
		f.Fatal(err)
	}
	spoil(f, string(issued))
	f.Fuzz(func(t *testing.T, token string) {
		_, err := tickets.Verify([]byte(token), testNow)
		wantSame(t, token, string(issued), err)
	})
}

// FuzzSignedTicket signs whatever header and claims come, so that the fuzzer gets behind the MAC.
func FuzzSignedTicket(f *testing.F) {
	secret := []byte(strings.Repeat("s", 32))
	ring, err := ParseKeyRing([]byte(fuzzTicketKeys))
	if err != nil {
		f.Fatal(err)
	}
	tickets := ticketsWith(ring)
	for _, k := range kinds(f) {
		if k.is(isTicket) {
			f.Add(strings.Replace(k.header.String(), "k-ticket", "k1", 1), k.claims.String())
			f.Add(strings.Replace(k.header.String(), "k-ticket", "k1", 1), k.claims.set("sub", `"\ud83c\udfab\n\u0000<"`).String())
			f.Add(k.header.add("crit", "[]").String(), k.claims.add("sub", "1").String())
		}
	}
	key := ring.keys[0]
	f.Fuzz(func(t *testing.T, header, claims string) {
		signed := raw64(header) + "." + raw64(claims)
		m := key.mac([]byte(signed))
		token := []byte(signed + "." + string(m.text[:]))
		got, err := tickets.Verify(token, testNow)
		if err != nil {
			if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrExpired) {
				t.Errorf("%v wraps neither ErrInvalid nor ErrExpired", err)
			}
			return
		}
		// What we accept, jwx accepts, and a JSON parser reads the same in it.
		payload, err := jws.Verify(token, jws.WithKey(jwa.HS256, secret))
		if err != nil {
			t.Fatalf("jwx refuses what we accept: %v", err)
		}
		var c struct {
			Iss, Aud, Jti, Sub, Inc, Gen string
			Pos                          uint64
			Iat, Exp                     int64
		}
		if err := json.Unmarshal(payload, &c); err != nil {
			t.Fatalf("not even JSON: %v", err)
		}
		want := Ticket{c.Iss, c.Aud, c.Jti, time.Unix(c.Iat, 0).UTC(), time.Unix(c.Exp, 0).UTC(), c.Sub, c.Pos, c.Inc, c.Gen}
		if got != want {
			t.Errorf("got %+v, a JSON parser reads %+v", got, want)
		}
	})
}

func FuzzSession(f *testing.F) {
	keys, err := ParseSessionKeys([]byte(fuzzSessionKeys))
	if err != nil {
		f.Fatal(err)
	}
	public, err := ParsePublicKeys([]byte(fuzzPublicKeys))
	if err != nil {
		f.Fatal(err)
	}
	issued, err := keys.Sign(someSession, testNow)
	if err != nil {
		f.Fatal(err)
	}
	spoil(f, issued)
	f.Fuzz(func(t *testing.T, token string) {
		_, err := public.Verify(token, testIssuer, testTenant, testNow)
		wantSame(t, token, issued, err)
	})
}

func FuzzOperator(f *testing.F) {
	// Not by SignOperator: its random jti would differ in each of the fuzzer's processes.
	signer, err := operatorSigner([]byte(fuzzSessionKeys), testNow)
	if err != nil {
		f.Fatal(err)
	}
	claims := object{
		{"iss", quote(testTenant)}, {"aud", quote(testOrigin)}, {"jti", `"J1"`}, {"iat", seconds(testNow)},
		{"exp", seconds(testNow.Add(time.Hour))}, {"sub", `"ana"`}, {"role", `"viewer"`},
	}
	issued, err := signWith(signer.algorithm, signer.raw, signer.id, operatorType, []byte(claims.String()))
	if err != nil {
		f.Fatal(err)
	}
	keys, err := ParseOperatorKeys([]byte(fuzzPublicKeys))
	if err != nil {
		f.Fatal(err)
	}
	spoil(f, issued)
	f.Fuzz(func(t *testing.T, token string) {
		_, err := keys.Verify(token, testTenant, testOrigin, testNow)
		wantSame(t, token, issued, err)
		if issuer, err := PeekIssuer(token); err == nil && issuer == "" {
			t.Error("peeked at nothing without an error")
		}
	})
}

// FuzzUserToken signs whatever header and claims come: what is accepted then says the same to any
// other reader, and no header in it told us what to do.
func FuzzUserToken(f *testing.F) {
	keys, err := ParseUserKeys([]byte(fuzzPublicKeys))
	if err != nil {
		f.Fatal(err)
	}
	signer, err := operatorSigner([]byte(fuzzSessionKeys), testNow)
	if err != nil {
		f.Fatal(err)
	}
	private := signer.raw.(ed25519.PrivateKey)
	tokens := &UserTokens{Issuer: testProvider, Audience: testAudience, Keys: keys}
	k := userKinds(f)[0]
	header := k.header.set("kid", `"k1"`)
	for _, claims := range []object{
		k.claims, k.claims.set("aud", `["x","`+testAudience+`"]`), k.claims.set("sub", `"\ud83c\udfab"`), k.claims.set("exp", "1e9"),
		k.claims.set("exp", "9223372036854775807"), k.claims.add("nbf", "-1"), k.claims.add("SUB", `"x"`), k.claims.add("sub", `"x"`),
	} {
		f.Add(header.String(), claims.String())
	}
	f.Add(header.add("crit", "[]").String(), k.claims.String())
	f.Add(header.set("typ", "null").add("x5t", "1").String(), k.claims.String())
	f.Fuzz(func(t *testing.T, header, claims string) {
		signed := raw64(header) + "." + raw64(claims)
		token := []byte(signed + "." + raw64(string(ed25519.Sign(private, []byte(signed)))))
		user, err := tokens.Verify(token, testNow)
		if err != nil {
			if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrExpired) {
				t.Errorf("%v wraps neither ErrInvalid nor ErrExpired", err)
			}
			return
		}
		var c, h map[string]any // by the exact names, unlike a struct
		if err := errors.Join(json.Unmarshal([]byte(header), &h), json.Unmarshal([]byte(claims), &c)); err != nil {
			t.Fatalf("not even JSON: %v", err)
		}
		if c["sub"] != user.Subject || c["exp"] != float64(user.ExpiresAt.Unix()) || c["iss"] != testProvider || h["kid"] != "k1" || h["alg"] != "EdDSA" {
			t.Errorf("got %+v, a JSON parser reads %v and %v", user, h, c)
		}
		for _, name := range []string{"crit", "jku", "jwk", "x5u", "x5c", "b64", "zip", "enc"} {
			if _, there := h[name]; there {
				t.Errorf("accepted a header with %s", name)
			}
		}
		if subject, err := PeekSubject(token); err != nil || subject != user.Subject {
			t.Errorf("peeked at %q, %v; want %q", subject, err, user.Subject)
		}
	})
}

// FuzzObject compares the strict reader with encoding/json.
func FuzzObject(f *testing.F) {
	for _, text := range []string{
		`{"a":"x","n":1}`, `{"n":0,"a":""}`, `{"a":"\u00e4\ud83c\udfab\/","n":18446744073709551615}`, `{"a":"x","n":18446744073709551616}`,
		`{"a":"x","a":"y","n":1}`, `{"a":"x","n":01}`, `{"a":"x","n":-1}`, `{"a":"x","n":1}}`, `{"a":"x","n":1,}`, `{"a":"\ud800","n":1}`,
		`{"a":"\udc00\ud800","n":1}`, `{"a":"\x","n":1}`, `{}`, `{"a"}`, `[1]`, ` {"a":"x","n":1}`, `{"A":"x","n":1}`, "{\"a\":\"\xff\",\"n\":1}",
	} {
		f.Add([]byte(text))
	}
	members := []member{{name: "a"}, {name: "n", number: true}}
	f.Fuzz(func(t *testing.T, text []byte) {
		var values [2]value
		if parseObject(text, members, values[:]) != objectFine {
			return
		}
		decoder := json.NewDecoder(bytes.NewReader(text))
		decoder.UseNumber()
		var want map[string]any
		if err := decoder.Decode(&want); err != nil {
			t.Fatalf("accepted %q, which is not JSON: %v", text, err)
		}
		a, _ := want["a"].(string)
		n, _ := want["n"].(json.Number)
		got := object{{"n", string(appendNumber(nil, "", values[1].number))}}[0].text
		if len(want) != 2 || values[0].in(string(text)) != a || got != n.String() {
			t.Errorf("%q: read %q and %s, a JSON parser reads %v", text, values[0].in(string(text)), got, want)
		}
	})
}

// FuzzString: what appendString writes, every JSON parser and our own read back.
func FuzzString(f *testing.F) {
	for _, s := range []string{"", "fan-7", `"\`, "\x00\x1f\x7f", "é🎫", "</script>", "\u2028"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !utf8.ValidString(s) {
			return
		}
		text := appendString(nil, s)
		var back string
		if err := json.Unmarshal(text, &back); err != nil || back != s {
			t.Errorf("%q is written as %s, which reads %q, %v", s, text, back, err)
		}
		var v value
		if end := scanString(text, 0, &v); end != len(text) || v.in(string(text)) != s {
			t.Errorf("%q is written as %s, which we read as %q", s, text, v.in(string(text)))
		}
	})
}

// FuzzPart: a part is accepted only if encoding what it holds gives the part again.
func FuzzPart(f *testing.F) {
	for _, s := range []string{"", "QQ", "QR", "QUI", "QUJD", "QQ==", "Q\nQ", "-_-_", "+/+/", "QQ\r\n", "Q"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, part []byte) {
		decoded, err := decodePart(nil, part)
		if again := base64.RawURLEncoding.EncodeToString(decoded); err == nil && again != string(part) {
			t.Errorf("%q is accepted, and its bytes are written %q", part, again)
		}
	})
}

// FuzzKeySet is for all readers of JWK sets, and of PEM, which share their input with an operator.
func FuzzKeySet(f *testing.F) {
	p256 := newP256(f)
	for _, text := range []string{
		fuzzTicketKeys, fuzzSessionKeys, fuzzPublicKeys, `{"keys":[]}`, `{"keys":[{}]}`, `{"keys":null}`, `[]`,
		string(mustKeySet(f, &p256.PublicKey, jwa.ES256, "ec")), string(mustKeySet(f, p256, jwa.ES256, "ec")), pemOf(f, &p256.PublicKey),
		`{"keys":[{"kty":"oct","kid":"a","k":"AA","nbf":1,"exp":2}]}`, `{"keys":[{"kty":"EC","crv":"P-256","kid":"a","x":"AQ","y":"AQ"}]}`,
		"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "-----BEGIN",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if ring, err := ParseKeyRing(text); err == nil {
			// Signing and checking with whatever was read must fit together.
			tickets := ticketsWith(ring)
			if token, err := tickets.Sign(nil, someTicket, testNow); err == nil {
				if _, err := tickets.Verify(token, testNow); err != nil {
					t.Errorf("verify what the same keys signed: %v", err)
				}
			}
		}
		if keys, err := ParseSessionKeys(text); err == nil {
			if token, err := keys.Sign(someSession, testNow); err == nil {
				published, err := keys.Public(testNow)
				if err != nil {
					t.Fatalf("publish: %v", err)
				}
				public, err := ParsePublicKeys(published)
				if err != nil {
					t.Fatalf("read what was published: %v", err)
				}
				if _, err := public.Verify(token, testIssuer, testTenant, testNow); err != nil {
					t.Errorf("verify what the published keys belong to: %v", err)
				}
			}
		}
		if keys, err := ParsePublicKeys(text); err == nil && len(keys.keys) == 0 {
			t.Error("no keys and no error")
		}
		if keys, err := ParseOperatorKeys(text); err == nil && len(keys.keys) == 0 {
			t.Error("no operator keys and no error")
		}
		if keys, err := ParseUserKeys(text); err == nil {
			wantHandedOn(t, keys)
		}
		_, _ = SignOperator(text, someOperator, testOrigin)
	})
}

// wantHandedOn: the keys of a provider that an origin read, an edge can read.
func wantHandedOn(t *testing.T, keys *UserKeys) {
	t.Helper()
	public, err := keys.Public()
	if err != nil {
		t.Fatalf("publish: %v", err)
	}
	again, err := ParseUserKeys(public)
	if err != nil || len(again.keys) != len(keys.keys) {
		t.Errorf("of %d keys %+v were read again, %v", len(keys.keys), again, err)
	}
}

// FuzzPEM keeps to texts that begin as PEM does.
func FuzzPEM(f *testing.F) {
	p256 := newP256(f)
	good := pemOf(f, &p256.PublicKey)
	f.Add(strings.TrimPrefix(good, "-----BEGIN"))
	f.Add(strings.TrimPrefix(good+good, "-----BEGIN"))
	f.Add(" PUBLIC KEY-----\nName: x\n\nAAAA\n-----END PUBLIC KEY-----\n")
	f.Fuzz(func(t *testing.T, rest string) {
		if keys, err := ParseUserKeys([]byte("-----BEGIN" + rest)); err == nil {
			wantHandedOn(t, keys)
		}
		keys, err := ParseOperatorKeys([]byte("-----BEGIN" + rest))
		if err == nil && len(keys.keys) == 0 {
			t.Error("no keys and no error")
		}
		if err == nil {
			for i := range keys.keys {
				if k := &keys.keys[i]; keys.usable(k.id, testNow) != k {
					t.Errorf("key %d is not found by its id", i)
				}
			}
		}
	})
}

func FuzzRevocations(f *testing.F) {
	for _, text := range []string{
		`{"revocations":[{"id":"club.final~R1","expiresAt":"2026-05-02T10:00:00Z"}],"cursor":"1-0","reset":false}`,
		`{"revocations":[],"cursor":"","reset":true}`, `{"revocations":null,"cursor":"1"}`, `{}`, `[]`, `{"revocations":[{}],"cursor":"1"}`,
		`{"revocations":[{"id":"x","expiresAt":"9999-12-31T23:59:59Z"}],"cursor":"1","more":[1]}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		page, err := parseRevocations(text)
		if err != nil {
			return
		}
		var r revocations
		r.add(page, testNow)
		for _, entry := range page.Revocations {
			if revoked, asOf := r.look(entry.ID); !revoked && entry.ExpiresAt.After(testNow) || !asOf.Equal(testNow) {
				t.Errorf("%q is in the list and does not count", entry.ID)
			}
		}
	})
}

// FuzzHandOver: whatever stands in a query, no token stays in it, and everything else does.
func FuzzHandOver(f *testing.F) {
	for _, q := range []string{"", "wr_session=a", "a=1&wr_session=a&b=2", "wr%5fsession=a", "wr_session", "&&wr_session=&", "a;wr_session=b", "%zz=1&wr_session=%zz"} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, query string) {
		rest, taken := cutToken(query)
		if again, more := cutToken(rest); len(more) != 0 || again != rest {
			t.Errorf("%q: %q is left, which still holds %q", query, rest, more)
		}
		if len(taken) == 0 && rest != query {
			t.Errorf("%q became %q, with no token in it", query, rest)
		}
	})
}
