package tokens

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"
	"github.com/lestrrat-go/jwx/v2/jwt"
)

// randomSubject draws what tenants may use as user ids: any UTF-8, what JSON must escape included.
func randomSubject(r *rand.Rand) string {
	letters := []rune("aZ09-_.@:/\\\"<>&'+ \t\n\x00\x1f\x7féß€ 🎫\U0010ffff")
	var b strings.Builder
	for n := 1 + r.IntN(40); n > 0; n-- {
		c := letters[r.IntN(len(letters))]
		if b.Len()+len(string(c)) > MaxSubject {
			break
		}
		b.WriteRune(c)
	}
	return b.String()
}

func randomTicket(r *rand.Rand) Ticket {
	issued := testNow.Add(-time.Duration(r.IntN(1e6)) * time.Second)
	t := Ticket{
		Issuer: testIssuer, Queue: testQueue, Subject: randomSubject(r),
		IssuedAt: issued, ExpiresAt: testNow.Add(time.Duration(1+r.IntN(1e6)) * time.Second),
		Position: r.Uint64() >> r.IntN(64), Incarnation: fmt.Sprintf("I%x", r.Uint32()), Generation: fmt.Sprintf("g-%d", r.IntN(99)),
	}
	t.Position = max(1, t.Position)
	t.ID = TicketID(t.Incarnation, t.Position)
	return t
}

// TestTicketsAndJwxAgree: jwx accepts every ticket that we sign and reads the same in it; we
// accept every ticket that jwx signs in its own way, with other orders and escapes.
func TestTicketsAndJwxAgree(t *testing.T) {
	secret := []byte(strings.Repeat("s", 32))
	ring, err := ParseKeyRing(mustKeySet(t, secret, jwa.HS256, "k1"))
	if err != nil {
		t.Fatal(err)
	}
	tickets := &Tickets{Issuer: testIssuer, Rings: map[string]*KeyRing{testTenant: ring}}
	r := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		want := randomTicket(r)
		ours, err := tickets.Sign(nil, want, testNow)
		if err != nil {
			t.Fatalf("sign %+v: %v", want, err)
		}
		payload, err := jws.Verify(ours, jws.WithKey(jwa.HS256, secret))
		if err != nil {
			t.Fatalf("jwx refuses what we signed for %+v: %v", want, err)
		}
		parsed, err := jwt.Parse(ours, jwt.WithKey(jwa.HS256, secret), jwt.WithIssuer(testIssuer), jwt.WithAudience(testQueue),
			jwt.WithClock(jwt.ClockFunc(func() time.Time { return testNow })))
		if err != nil {
			t.Fatalf("jwx refuses the claims that we signed for %+v: %v", want, err)
		}
		if parsed.Subject() != want.Subject || parsed.JwtID() != want.ID || !parsed.Expiration().Equal(want.ExpiresAt) || !parsed.IssuedAt().Equal(want.IssuedAt) {
			t.Fatalf("jwx reads %v, want %+v", parsed, want)
		}
		var exact struct {
			Pos      uint64
			Inc, Gen string
		}
		if err := json.Unmarshal(payload, &exact); err != nil || exact.Pos != want.Position || exact.Inc != want.Incarnation || exact.Gen != want.Generation {
			t.Fatalf("a JSON parser reads %+v (%v), want %+v", exact, err, want)
		}

		claims, err := json.Marshal(map[string]any{
			"iss": want.Issuer, "aud": want.Queue, "jti": want.ID, "iat": want.IssuedAt.Unix(), "exp": want.ExpiresAt.Unix(),
			"sub": want.Subject, "pos": want.Position, "inc": want.Incarnation, "gen": want.Generation,
		})
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := signWith(jwa.HS256, secret, "k1", ticketType, claims)
		if err != nil {
			t.Fatal(err)
		}
		for _, token := range []string{string(ours), theirs} {
			if got, err := tickets.Verify([]byte(token), testNow); err != nil || got != want {
				t.Fatalf("verify: got %+v, %v; want %+v", got, err, want)
			}
		}
	}
}

// TestMutatedTicketsNeverPassUsAlone: whatever is done to a ticket, if we accept it then jwx does,
// and it is the very ticket that was issued.
func TestMutatedTicketsNeverPassUsAlone(t *testing.T) {
	secret := []byte(strings.Repeat("s", 32))
	ring, err := ParseKeyRing(mustKeySet(t, secret, jwa.HS256, "k1"))
	if err != nil {
		t.Fatal(err)
	}
	tickets := &Tickets{Issuer: testIssuer, Rings: map[string]*KeyRing{testTenant: ring}}
	r := rand.New(rand.NewPCG(3, 4))
	for range 3000 {
		good, err := tickets.Sign(nil, randomTicket(r), testNow)
		if err != nil {
			t.Fatal(err)
		}
		bad := append([]byte(nil), good...)
		switch i := r.IntN(len(bad)); r.IntN(5) {
		case 0:
			bad[i] = byte(r.Uint32())
		case 1:
			bad = append(bad[:i], bad[i+1:]...)
		case 2:
			bad = append(bad[:i], append([]byte{byte(r.Uint32())}, bad[i:]...)...)
		case 3:
			j := r.IntN(len(bad))
			bad[i], bad[j] = bad[j], bad[i]
		case 4:
			bad = append(bad, bad[i:]...)
		}
		_, err = tickets.Verify(bad, testNow)
		if string(bad) == string(good) {
			if err != nil {
				t.Fatalf("an untouched ticket: got %v, want it accepted", err)
			}
		} else if !errors.Is(err, ErrInvalid) {
			t.Fatalf("%q made of %q: got %v, want %v", bad, good, err, ErrInvalid)
		}
	}
}

// TestSessionsAndJwxAgree does for session tokens what TestTicketsAndJwxAgree does for tickets.
func TestSessionsAndJwxAgree(t *testing.T) {
	set := mustGenerate(t, GenerateSessionKeys)
	keys, err := ParseSessionKeys(set)
	if err != nil {
		t.Fatal(err)
	}
	published, err := keys.Public(testNow)
	if err != nil {
		t.Fatal(err)
	}
	public, err := ParsePublicKeys(published)
	if err != nil {
		t.Fatal(err)
	}
	raw := keys.keys[0].key
	r := rand.New(rand.NewPCG(5, 6))
	for i := range 1000 {
		want := Session{
			Issuer: testIssuer, Tenant: testTenant, Queue: testQueue, ID: fmt.Sprintf("%s~R%d", testQueue, i), Subject: randomSubject(r),
			StartsAt: testNow.Add(-time.Duration(r.IntN(1000)) * time.Second), ExpiresAt: testNow.Add(time.Duration(1+r.IntN(1000)) * time.Second),
		}
		ours, err := keys.Sign(want, testNow)
		if err != nil {
			t.Fatalf("sign %+v: %v", want, err)
		}
		parsed, err := jwt.Parse([]byte(ours), jwt.WithKey(jwa.EdDSA, raw.Public()), jwt.WithIssuer(testIssuer), jwt.WithAudience(testTenant),
			jwt.WithClock(jwt.ClockFunc(func() time.Time { return testNow })))
		if err != nil {
			t.Fatalf("jwx refuses what we signed for %+v: %v", want, err)
		}
		queue, _ := parsed.Get("queue")
		if parsed.Subject() != want.Subject || parsed.JwtID() != want.ID || queue != want.Queue || !parsed.Expiration().Equal(want.ExpiresAt) ||
			!parsed.IssuedAt().Equal(want.StartsAt) || !parsed.NotBefore().Equal(want.StartsAt) {
			t.Fatalf("jwx reads %v, want %+v", parsed, want)
		}
		claims, err := json.Marshal(map[string]any{
			"iss": want.Issuer, "aud": want.Tenant, "jti": want.ID, "iat": want.StartsAt.Unix(), "nbf": want.StartsAt.Unix(),
			"exp": want.ExpiresAt.Unix(), "sub": want.Subject, "queue": want.Queue,
		})
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := signWith(jwa.EdDSA, raw, keys.keys[0].id, sessionType, claims)
		if err != nil {
			t.Fatal(err)
		}
		for _, token := range []string{ours, theirs} {
			if got, err := public.Verify(token, testIssuer, testTenant, testNow); err != nil || got != want {
				t.Fatalf("verify: got %+v, %v; want %+v", got, err, want)
			}
		}
	}
}
