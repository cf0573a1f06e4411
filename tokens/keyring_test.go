package tokens

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwa"
)

func oct(id string, fill byte, more string) string {
	k := base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat(string(fill), 32)))
	return fmt.Sprintf(`{"kty":"oct","kid":%q,"alg":"HS256","k":%q%s}`, id, k, more)
}

func ringOf(t *testing.T, keys ...string) *KeyRing {
	t.Helper()
	ring, err := ParseKeyRing([]byte(`{"keys":[` + strings.Join(keys, ",") + `]}`))
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

func ticketsWith(ring *KeyRing) *Tickets {
	return &Tickets{Issuer: testIssuer, Rings: map[string]*KeyRing{testTenant: ring}}
}

var someTicket = Ticket{
	Queue: testQueue, Subject: "fan-7", Position: 42, Incarnation: "Inc1", Generation: "Gen1",
	IssuedAt: testNow, ExpiresAt: testNow.Add(TicketLifetime),
}

func TestKeySetsRefused(t *testing.T) {
	const marker = "c2VjcmV0LXNlY3JldA" // stands for key material
	valid := oct("a", 'a', "")
	cases := []struct{ name, text, want string }{
		{"not JSON", marker, "not a JWK set"},
		{"no keys", `{"keys":[]}`, "no key"},
		{"a single key", valid, "no key"},
		{"keys no array", `{"keys":{}}`, "not a JWK set"},
		{"duplicate member", `{"keys":[{"kty":"oct","kid":"a","k":"` + marker + `","k":"` + marker + `"}]}`, "not a JWK set"},
		{"no kid", `{"keys":[{"kty":"oct","k":"` + marker + `"}]}`, "no kid"},
		{"kid no string", `{"keys":[{"kty":"oct","kid":1,"k":"` + marker + `"}]}`, "not a JWK"},
		{"kid with a quote", `{"keys":[{"kty":"oct","kid":"\"","k":"` + marker + `"}]}`, "printable ASCII"},
		{"kid twice", `{"keys":[` + valid + `,` + oct("a", 'b', "") + `]}`, "kid of another"},
		{"wrong kty", `{"keys":[{"kty":"RSA","kid":"a","n":"` + marker + `"}]}`, "kty oct and alg HS256"},
		{"public key as secret", `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"` + marker + `"}]}`, "kty oct and alg HS256"},
		{"wrong alg", `{"keys":[{"kty":"oct","kid":"a","alg":"HS512","k":"` + marker + `"}]}`, "kty oct and alg HS256"},
		{"for encryption", `{"keys":[{"kty":"oct","kid":"a","use":"enc","k":"` + marker + `"}]}`, "not for signatures"},
		{"too short", `{"keys":[{"kty":"oct","kid":"a","k":"` + marker + `"}]}`, "shorter than 32 bytes"},
		{"no secret", `{"keys":[{"kty":"oct","kid":"a"}]}`, "do not fit"},
		{"secret no base64", `{"keys":[{"kty":"oct","kid":"a","k":"!` + marker + `!"}]}`, "do not fit"},
		{"nbf a string", `{"keys":[{"kty":"oct","kid":"a","nbf":"` + marker + `"}]}`, "not a JWK"},
		{"exp negative", `{"keys":[` + oct("a", 'a', `,"exp":-1`) + `]}`, "not a time"},
		{"exp beyond all times", `{"keys":[` + oct("a", 'a', `,"exp":99999999999999`) + `]}`, "not a time"},
		{"exp before nbf", `{"keys":[` + oct("a", 'a', `,"nbf":20,"exp":10`) + `]}`, "never used"},
		{"too long", `{"keys":[` + valid + strings.Repeat(" ", maxKeySet) + `]}`, "longer than"},
		{"too many", `{"keys":[` + strings.Repeat(valid+",", 64) + valid + `]}`, "more than 64"},
	}
	for _, c := range cases {
		_, err := ParseKeyRing([]byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		} else if strings.Contains(err.Error(), marker) {
			t.Errorf("%s: the error holds key material: %v", c.name, err)
		}
	}
}

// TestTicketKeysRotateWithOverlap follows a rotation: the new key is known before it signs, the
// old one verifies after it has stopped signing, and in the end is not used at all.
func TestTicketKeysRotateWithOverlap(t *testing.T) {
	turn, end := testNow.Add(time.Hour), testNow.Add(2*time.Hour)
	ring := ringOf(t,
		oct("old", 'a', `,"exp":`+seconds(end)),
		oct("new", 'b', `,"nbf":`+seconds(turn)),
	)
	tickets := ticketsWith(ring)
	signedBy := func(now time.Time) ([]byte, string) {
		t.Helper()
		token, err := tickets.Sign(nil, someTicket, now)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range ring.keys {
			if strings.HasPrefix(string(token), k.header) {
				return token, k.id
			}
		}
		return token, ""
	}
	old, by := signedBy(turn.Add(-time.Second))
	if by != "old" {
		t.Errorf("before the turn: signed by %q, want old", by)
	}
	fresh, by := signedBy(turn)
	if by != "new" {
		t.Errorf("from the turn on: signed by %q, want new", by)
	}
	for _, c := range []struct {
		name  string
		token []byte
		now   time.Time
		want  error
	}{
		{"old ticket after the turn", old, end.Add(-time.Second), nil},
		{"old ticket after the old key's end", old, end, errKeyID},
		{"new ticket where it is seen early", fresh, turn.Add(-time.Minute), nil},
		{"new ticket after the old key's end", fresh, end, nil},
	} {
		if _, err := tickets.Verify(c.token, c.now); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

func TestSigningKey(t *testing.T) {
	at := func(d time.Duration) string { return seconds(testNow.Add(d)) }
	for _, c := range []struct {
		name string
		keys []string
		want string
	}{
		{"the first of those without nbf", []string{oct("a", 'a', ""), oct("b", 'b', "")}, "a"},
		{"the latest nbf that has come", []string{
			oct("a", 'a', ""), oct("b", 'b', `,"nbf":`+at(-2*time.Hour)), oct("c", 'c', `,"nbf":`+at(-time.Hour)),
			oct("d", 'd', `,"nbf":`+at(time.Second)),
		}, "c"},
		{"the first of equal nbf", []string{oct("a", 'a', `,"nbf":`+at(0)), oct("b", 'b', `,"nbf":`+at(0))}, "a"},
		{"not an expired one", []string{oct("a", 'a', ""), oct("b", 'b', `,"nbf":`+at(-time.Hour)+`,"exp":`+at(0))}, "a"},
		{"none", []string{oct("a", 'a', `,"nbf":`+at(time.Second))}, ""},
	} {
		key := ringOf(t, c.keys...).signer(testNow)
		got := ""
		if key != nil {
			got = key.id
		}
		if got != c.want {
			t.Errorf("%s: got key %q, want %q", c.name, got, c.want)
		}
	}
}

func TestSessionKeySetsRefused(t *testing.T) {
	private := string(mustGenerate(t, GenerateSessionKeys))
	operatorPrivate, public, err := GenerateOperatorKeys()
	if err != nil {
		t.Fatal(err)
	}
	// The private half of one key beside the public half of another.
	mixed := strings.Replace(private, `"x":"`, `"x":"`+member1(string(public), "x")+`","old":"`, 1)
	parseSession := func(b []byte) error { _, err := ParseSessionKeys(b); return err }
	parsePublic := func(b []byte) error { _, err := ParsePublicKeys(b); return err }
	parseOperator := func(b []byte) error { _, err := ParseOperatorKeys(b); return err }
	signOperator := func(b []byte) error {
		_, err := SignOperator(b, Operator{Tenant: testTenant, Subject: "a", Role: RoleViewer, IssuedAt: testNow, ExpiresAt: testNow.Add(time.Hour)}, testOrigin)
		return err
	}
	for _, c := range []struct {
		name, text, want string
		parse            func([]byte) error
	}{
		{"session: public key", string(public), "cannot sign", parseSession},
		{"session: halves of two keys", mixed, "do not fit", parseSession},
		{"session: oct", string(mustGenerate(t, GenerateTicketKeys)), "kty OKP", parseSession},
		{"session: other curve", strings.Replace(private, "Ed25519", "X25519", 1), "crv Ed25519", parseSession},
		{"public: private key", private, "a secret where only public", parsePublic},
		{"public: ticket key", string(mustGenerate(t, GenerateTicketKeys)), "a secret where only public", parsePublic},
		{"public: short", `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"AAAA"}]}`, "do not fit", parsePublic},
		{"public: only keys of other kinds", `{"keys":[{"kty":"RSA","kid":"a","n":"AAAA","e":"AQAB"}]}`, "no Ed25519 key", parsePublic},
		{"operator: private key", string(operatorPrivate), "private key where only public", parseOperator},
		{"operator: oct", string(mustGenerate(t, GenerateTicketKeys)), "kty OKP for EdDSA or kty EC", parseOperator},
		{"operator: point off the curve", `{"keys":[{"kty":"EC","crv":"P-256","kid":"a","x":"AQ","y":"AQ"}]}`, "curve", parseOperator},
		{"operator: P-384", `{"keys":[{"kty":"EC","crv":"P-384","kid":"a","x":"AQ","y":"AQ"}]}`, "crv P-256", parseOperator},
		{"sign operator: public key", string(public), "cannot sign", signOperator},
		{"sign operator: key of tomorrow", string(withLife(t, operatorPrivate, testNow.Add(time.Hour), time.Time{})), "no key is in use", signOperator},
	} {
		err := c.parse([]byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
		if d := member1(c.text, "d"); err != nil && d != "" && strings.Contains(err.Error(), d) {
			t.Errorf("%s: the error holds key material", c.name)
		}
	}
}

// member1 finds the text of the first member of a name.
func member1(text, name string) string {
	_, after, found := strings.Cut(text, `"`+name+`":"`)
	if !found {
		return ""
	}
	content, _, _ := strings.Cut(after, `"`)
	return content
}

func TestPublishedKeys(t *testing.T) {
	past, present, future := mustGenerate(t, GenerateSessionKeys), mustGenerate(t, GenerateSessionKeys), mustGenerate(t, GenerateSessionKeys)
	end := testNow.Add(time.Hour)
	keys, err := ParseSessionKeys(join(t,
		withLife(t, past, time.Time{}, testNow), withLife(t, present, time.Time{}, end), withLife(t, future, end, time.Time{})))
	if err != nil {
		t.Fatal(err)
	}
	text, err := keys.Public(testNow)
	if err != nil {
		t.Fatal(err)
	}
	for _, set := range [][]byte{past, present, future} {
		if d := member1(string(set), "d"); d == "" || strings.Contains(string(text), d) {
			t.Errorf("a private half is published")
		}
	}
	if strings.Contains(string(text), `"d"`) || strings.Contains(string(text), `"nbf"`) {
		t.Errorf("published: %s, want neither d nor nbf", text)
	}
	public, err := ParsePublicKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	id := func(set []byte) string { return member1(string(set), "kid") }
	for _, c := range []struct {
		name string
		id   string
		now  time.Time
		want bool
	}{
		{"past", id(past), testNow, false},
		{"present", id(present), testNow, true},
		{"present after its end, by the exp that was published", id(present), end, false},
		{"future, before it signs", id(future), testNow, true},
	} {
		if got := public.usable(c.id, c.now) != nil; got != c.want {
			t.Errorf("key of the %s: usable %v, want %v", c.name, got, c.want)
		}
	}
	if _, err := ParsePublicKeys(join(t, text, []byte(`{"keys":[{"kty":"RSA","kid":"rsa","n":"AAAA","e":"AQAB"}]}`))); err != nil {
		t.Errorf("a key of another kind beside ours: got %v, want it passed over", err)
	}
	late, err := ParseSessionKeys(withLife(t, past, time.Time{}, testNow))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := late.Public(testNow); err == nil {
		t.Error("publish expired keys only: got no error")
	}
	if _, err := late.Sign(someSession, testNow); err == nil {
		t.Error("sign with an expired key: got no error")
	}
}

func TestGeneratedKeysDiffer(t *testing.T) {
	for name, generate := range map[string]func() ([]byte, error){"ticket": GenerateTicketKeys, "session": GenerateSessionKeys} {
		a, b := mustGenerate(t, generate), mustGenerate(t, generate)
		for _, m := range []string{"kid", "k", "d"} {
			if x := member1(string(a), m); x != "" && x == member1(string(b), m) {
				t.Errorf("two %s key sets have the same %s", name, m)
			}
		}
	}
	set, err := parseKeySet(mustGenerate(t, GenerateTicketKeys))
	if err != nil || set[0].Alg != jwa.HS256.String() || set[0].Use != "sig" {
		t.Errorf("generated ticket keys: got %v, alg and use of %+v, want HS256 and sig", err, set)
	}
}
