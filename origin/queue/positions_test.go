package queue_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"waitingroom/origin/queue"
)

func TestPositionsText(t *testing.T) {
	for _, c := range []struct {
		positions queue.Positions
		text      string
	}{
		{nil, ""},
		{queue.Positions{1}, "1"},
		{queue.Positions{1, 2}, "1-2"},
		{queue.Positions{1, 3, 4, 5, 9}, "1,3-5,9"},
		{queue.Positions{1 << 62, 1<<62 + 1}, "4611686018427387904-4611686018427387905"},
	} {
		text, err := c.positions.MarshalText()
		if err != nil || string(text) != c.text {
			t.Errorf("%v as text: %q, error %v, want %q", c.positions, text, err, c.text)
		}
		got := queue.Positions{77}
		if err := got.UnmarshalText([]byte(c.text)); err != nil || !slices.Equal(got, c.positions) {
			t.Errorf("%q parsed: %v, error %v, want %v", c.text, got, err, c.positions)
		}
	}
}

func TestPositionsTextRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		var want queue.Positions
		for p := uint64(1); len(want) < 100; p += 1 + r.Uint64N(3)*r.Uint64N(3) {
			want = append(want, p)
		}
		text, err := want.MarshalText()
		if err != nil {
			t.Fatalf("marshal: %v", err)
		}
		var got queue.Positions
		if err := got.UnmarshalText(text); err != nil || !slices.Equal(got, want) {
			t.Fatalf("%s parsed: %v, error %v, want %v", text, got, err, want)
		}
	}
}

func TestPositionsTextRefused(t *testing.T) {
	for _, text := range []string{
		"0", "0-3", "x", "-", "1-", "-1", "1,", ",1", "1,,2", "2,1", "1,1", "1-3,3", "3-1", "1 ", " 1",
		"+1", "1-2-3", "1.5", "0x1", "9223372036854775808", "99999999999999999999999",
		"1-9223372036854775807", fmt.Sprintf("1-%d", 10_000_001),
	} {
		got := queue.Positions{}
		if err := got.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was parsed as %d positions, want an error", text, len(got))
		}
	}
}

func FuzzPositionsText(f *testing.F) {
	f.Add("1-5,9")
	f.Add("18446744073709551615")
	f.Fuzz(func(t *testing.T, text string) {
		var p queue.Positions
		if p.UnmarshalText([]byte(text)) != nil {
			return
		}
		for i := range p {
			if p[i] == 0 || i > 0 && p[i] <= p[i-1] {
				t.Fatalf("%q parsed as %v, which does not ascend from 1", text, p)
			}
		}
		again, err := p.MarshalText()
		if err != nil {
			t.Fatalf("marshal: %v", err)
		}
		var q queue.Positions
		if err := q.UnmarshalText(again); err != nil || !slices.Equal(p, q) {
			t.Fatalf("%q became %q: %v, error %v", text, again, q, err)
		}
	})
}

func TestParseID(t *testing.T) {
	long := "a123456789-123456789-123456789-123456789-123456789-123456789-12" // 63
	for _, id := range []string{"a.b", "shop-1.final-2026", "0.-", long + "." + long} {
		got, err := queue.ParseID(id)
		if err != nil || string(got) != id || queue.MakeID(got.Tenant(), got.Slug()) != got {
			t.Errorf("ParseID(%q): %q of %q and %q, error %v", id, got, got.Tenant(), got.Slug(), err)
		}
	}
	for _, id := range []string{"", ".", "a", "a.", ".b", "a.b.c", "A.b", "a_b.c", "a.b ", "a.ž", "a/b.c", long + "1.b", "a." + long + "1", "a.{b}"} {
		if got, err := queue.ParseID(id); err == nil {
			t.Errorf("ParseID(%q): %q, want an error", id, got)
		}
	}
}
