package tokens

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"net/http"
	"testing"
	"time"
)

func BenchmarkTicketSign(b *testing.B) {
	tickets := benchTickets(b)
	room := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tickets.Sign(room, someTicket, testNow); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTicketVerify(b *testing.B) {
	tickets := benchTickets(b)
	token, err := tickets.Sign(nil, someTicket, testNow)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tickets.Verify(token, testNow); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTicketVerifyForged(b *testing.B) {
	tickets := benchTickets(b)
	token, err := tickets.Sign(nil, someTicket, testNow)
	if err != nil {
		b.Fatal(err)
	}
	token[len(token)-2] ^= 1
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tickets.Verify(token, testNow); err == nil {
			b.Fatal("accepted")
		}
	}
}

func benchTickets(b *testing.B) *Tickets {
	b.Helper()
	ring, err := ParseKeyRing(mustGenerate(b, GenerateTicketKeys))
	if err != nil {
		b.Fatal(err)
	}
	return ticketsWith(ring)
}

// benchValidator is one that has loaded.
func benchValidator(b *testing.B) (*room, *Validator) {
	b.Helper()
	m := newRoom(b, mustGenerate(b, GenerateSessionKeys))
	v := m.validator(FailClosed)
	v.MaxStale = time.Hour
	v.Client = &http.Client{Transport: stripBase{m}}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = v.Run(ctx)
	}()
	b.Cleanup(func() { cancel(); <-ended })
	if err := v.Ready(ctx); err != nil {
		b.Fatal(err)
	}
	return m, v
}

// BenchmarkValidate is for sessions seen before, out of 10,000.
func BenchmarkValidate(b *testing.B) {
	m, v := benchValidator(b)
	tokens := make([]string, 10000)
	for i := range tokens {
		_, tokens[i] = m.sign(b, fmt.Sprint("R", i), time.Hour)
		if _, err := v.Validate(tokens[i], testQueue); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if _, err := v.Validate(tokens[i%len(tokens)], testQueue); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

// BenchmarkValidateNew is for sessions never seen, beside the bare signature of the same bytes.
func BenchmarkValidateNew(b *testing.B) {
	m, v := benchValidator(b)
	b.Run("validate", func(b *testing.B) {
		tokens := make([]string, 4000)
		for i := range tokens {
			_, tokens[i] = m.sign(b, fmt.Sprint("R", i), time.Hour)
		}
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			if i%len(tokens) == 0 {
				v.seen.Purge()
			}
			if _, err := v.Validate(tokens[i%len(tokens)], testQueue); err != nil {
				b.Fatal(err)
			}
			i++
		}
	})
	b.Run("ed25519", func(b *testing.B) {
		_, token := m.sign(b, "R", time.Hour)
		dot := bytes.LastIndexByte([]byte(token), '.')
		signature, err := base64.RawURLEncoding.DecodeString(token[dot+1:])
		if err != nil {
			b.Fatal(err)
		}
		signed, public := []byte(token[:dot]), m.keys.keys[0].key.Public().(ed25519.PublicKey)
		b.ReportAllocs()
		for b.Loop() {
			if !ed25519.Verify(public, signed, signature) {
				b.Fatal("refused")
			}
		}
	})
}

// BenchmarkUserVerify is for user tokens, of which an edge remembers none.
func BenchmarkUserVerify(b *testing.B) {
	for _, k := range userKinds(b) {
		token := k.sign(k.header, k.claims)
		b.Run(k.algorithm.String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := k.verify(token, testNow); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
