package tokens

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestTicketID(t *testing.T) {
	for _, c := range []struct {
		incarnation string
		position    uint64
		want        string
	}{
		{"Inc1", 1, "Inc1-1"},
		{"a-b_c", 18446744073709551615, "a-b_c-18446744073709551615"},
	} {
		if got := TicketID(c.incarnation, c.position); got != c.want {
			t.Errorf("TicketID(%q, %d) = %q, want %q", c.incarnation, c.position, got, c.want)
		}
	}
}

func TestSignTicketRefuses(t *testing.T) {
	tickets := ticketsWith(ringOf(t, oct("a", 'a', "")))
	for _, c := range []struct {
		name   string
		change func(*Ticket)
	}{
		{"queue without tenant", func(t *Ticket) { t.Queue = "final" }},
		{"queue of a tenant without keys", func(t *Ticket) { t.Queue = "other.final" }},
		{"queue with a dot too many", func(t *Ticket) { t.Queue = "club.final.x" }},
		{"position 0", func(t *Ticket) { t.Position = 0 }},
		{"no subject", func(t *Ticket) { t.Subject = "" }},
		{"subject too long", func(t *Ticket) { t.Subject = strings.Repeat("x", 129) }},
		{"subject not UTF-8", func(t *Ticket) { t.Subject = "\xff" }},
		{"no incarnation", func(t *Ticket) { t.Incarnation = "" }},
		{"generation with a quote", func(t *Ticket) { t.Generation = `"` }},
		{"no expiry", func(t *Ticket) { t.ExpiresAt = time.Time{} }},
		{"expiry at the issue", func(t *Ticket) { t.ExpiresAt = t.IssuedAt }},
	} {
		ticket := someTicket
		c.change(&ticket)
		got, err := tickets.Sign([]byte("before"), ticket, testNow)
		if err == nil {
			t.Errorf("%s: got a ticket, want an error", c.name)
		}
		if string(got) != "before" {
			t.Errorf("%s: dst became %q", c.name, got)
		}
	}
	if _, err := (&Tickets{Rings: tickets.Rings}).Sign(nil, someTicket, testNow); err == nil {
		t.Error("no issuer: got a ticket, want an error")
	}
}

// TestTicketsAppendAndCopy: Sign appends, and what Verify returns survives its input.
func TestTicketsAppendAndCopy(t *testing.T) {
	tickets := ticketsWith(ringOf(t, oct("a", 'a', "")))
	ticket := someTicket
	ticket.IssuedAt = time.Time{}
	out, err := tickets.Sign([]byte("before:"), ticket, testNow.Add(300*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	token, found := strings.CutPrefix(string(out), "before:")
	if !found {
		t.Fatalf("got %q, want it appended to what was there", out)
	}
	buffer := []byte(token)
	got, err := tickets.Verify(buffer, testNow.Add(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	for i := range buffer {
		buffer[i] = 'x'
	}
	want := someTicket
	want.Issuer, want.ID = testIssuer, "Inc1-42"
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestTicketsConcurrently(t *testing.T) {
	tickets := ticketsWith(ringOf(t, oct("a", 'a', "")))
	var all sync.WaitGroup
	for worker := range 8 {
		all.Go(func() {
			for i := range 200 {
				ticket := someTicket
				ticket.Position = uint64(worker*1000 + i + 1)
				token, err := tickets.Sign(nil, ticket, testNow)
				if err != nil {
					t.Error(err)
					return
				}
				got, err := tickets.Verify(token, testNow)
				if err != nil || got.Position != ticket.Position {
					t.Errorf("got position %d, %v; want %d", got.Position, err, ticket.Position)
				}
				token[len(token)-2] ^= 1
				if _, err := tickets.Verify(token, testNow); !errors.Is(err, errSignature) {
					t.Errorf("forged: got %v, want %v", err, errSignature)
				}
			}
		})
	}
	all.Wait()
}
