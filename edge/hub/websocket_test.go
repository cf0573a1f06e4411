package hub

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestWhatClientsSend: nothing that a client says matters, but it is answered as the protocol
// (RFC 6455) asks.
func TestWhatClientsSend(t *testing.T) {
	const fin = 0x80
	teller := &counting{}
	r := startRig(t, teller, nil)
	long := strings.Repeat("x", longestMessage)
	for name, test := range map[string]struct {
		send  [][]byte
		pongs []string
		code  string // of the close frame; none where the connection goes on
	}{
		"text":                      {send: [][]byte{frame(fin|1, "hello")}},
		"empty text":                {send: [][]byte{frame(fin|1, "")}},
		"as long as allowed":        {send: [][]byte{frame(fin|1, long)}},
		"ping":                      {send: [][]byte{frame(fin|9, "are you there")}, pongs: []string{"are you there"}},
		"ping without payload":      {send: [][]byte{frame(fin|9, "")}, pongs: []string{""}},
		"longest ping":              {send: [][]byte{frame(fin|9, long[:125])}, pongs: []string{long[:125]}},
		"pong nobody asked for":     {send: [][]byte{frame(fin|10, "x")}},
		"fragments":                 {send: [][]byte{frame(1, "a"), frame(0, "b"), frame(fin, "c")}},
		"ping between fragments":    {send: [][]byte{frame(1, "a"), frame(fin|9, "p"), frame(fin, "c")}, pongs: []string{"p"}},
		"byte by byte":              {send: bytewise(frame(fin|9, "slow")), pongs: []string{"slow"}},
		"close":                     {send: [][]byte{frame(fin|8, "\x03\xe8bye")}, code: "\x03\xe8"},
		"close without a code":      {send: [][]byte{frame(fin|8, "")}, code: ""},
		"binary":                    {send: [][]byte{frame(fin|2, "x")}, code: "\x03\xeb"},
		"not UTF-8":                 {send: [][]byte{frame(fin|1, "\xff")}, code: "\x03\xef"},
		"not UTF-8 in fragments":    {send: [][]byte{frame(1, "\xe2\x82"), frame(fin, "x")}, code: "\x03\xef"},
		"too long":                  {send: [][]byte{frame(fin|1, long+"x")}, code: "\x03\xf1"},
		"too long in fragments":     {send: [][]byte{frame(1, long), frame(fin, "x")}, code: "\x03\xf1"},
		"longer than can be":        {send: [][]byte{append([]byte{fin | 1, 0xff}, bytes.Repeat([]byte{0xff}, 12)...)}, code: "\x03\xf1"},
		"longer in sum than can be": {send: [][]byte{frame(1, "a"), append([]byte{fin, 0xff, 0x7f}, bytes.Repeat([]byte{0xff}, 11)...)}, code: "\x03\xf1"},
		"unmasked":                  {send: [][]byte{{fin | 1, 1, 'x'}}, code: "\x03\xea"},
		"reserved bit":              {send: [][]byte{frame(fin|0x40|1, "x")}, code: "\x03\xea"},
		"unknown opcode":            {send: [][]byte{frame(fin|3, "x")}, code: "\x03\xea"},
		"fragmented ping":           {send: [][]byte{frame(9, "x")}, code: "\x03\xea"},
		"ping too long":             {send: [][]byte{frame(fin|9, long[:126])}, code: "\x03\xea"},
		"continuation of nothing":   {send: [][]byte{frame(fin, "x")}, code: "\x03\xea"},
		"message within a message":  {send: [][]byte{frame(1, "a"), frame(fin|1, "b")}, code: "\x03\xea"},
		"close with half a code":    {send: [][]byte{frame(fin|8, "\x03")}, code: "\x03\xea"},
		"close with a wrong code":   {send: [][]byte{frame(fin|8, "\x03\xed")}, code: "\x03\xea"},
		"rubbish after the refusal": {send: [][]byte{frame(fin|2, "x"), bytes.Repeat([]byte{0xff}, 5000)}, code: "\x03\xeb"},
	} {
		c := r.dial("ws", 1)
		c.number()
		for _, b := range test.send {
			c.send(b)
		}
		for _, want := range test.pongs {
			if opcode, got, err := c.readFrame(); opcode != 0xA || string(got) != want {
				t.Errorf("%s: got frame %x %q %v, want a pong with %q", name, opcode, got, err, want)
			}
		}
		if _, ends := endings[name]; ends || test.code != "" {
			opcode, payload, err := c.readFrame()
			if opcode != 8 || !bytes.HasPrefix(payload, []byte(test.code)) || test.code == "" && len(payload) > 0 {
				t.Errorf("%s: got frame %x %q %v, want a close frame with code %x", name, opcode, payload, err, test.code)
			}
			if opcode, _, err := c.readFrame(); !errors.Is(err, io.EOF) {
				t.Errorf("%s: after the close frame: got frame %x %v, want the end", name, opcode, err)
			}
			_ = c.Close()
			continue
		}
		n := teller.number.Add(1)
		r.line.Tell([]uint64{1}, nil)
		if got := c.number(); got != n {
			t.Errorf("%s: then got event %d, want %d", name, got, n)
		}
		_ = c.Close()
	}
	waitFor(t, "all to be gone", func() bool { return r.hub.Open() == 0 })
}

// endings are the cases whose close frame has no code.
var endings = map[string]struct{}{"close without a code": {}}

func bytewise(b []byte) (list [][]byte) {
	for i := range b {
		list = append(list, b[i:i+1])
	}
	return list
}

// TestFramesSentWithTheHandshake: a client need not wait for the answer.
func TestFramesSentWithTheHandshake(t *testing.T) {
	r := startRig(t, &counting{}, nil)
	c, err := r.connectWith("ws", 1, frame(0x89, "early"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for {
		opcode, payload, err := c.readFrame()
		if err != nil {
			t.Fatal(err)
		}
		if opcode == 0xA {
			if string(payload) != "early" {
				t.Errorf("pong: got %q, want early", payload)
			}
			return
		}
	}
}

func TestStreamsIgnoreWhatClientsSend(t *testing.T) {
	teller := &counting{}
	r := startRig(t, teller, nil)
	c := r.dial("events", 1)
	c.number()
	c.send(bytes.Repeat([]byte("GET / HTTP/1.1\r\n\r\n"), 1000))
	teller.number.Store(1)
	r.line.TellAll(false)
	if got := c.number(); got != 1 {
		t.Errorf("got event %d, want 1", got)
	}
}

func TestFramingKnowsWhereMessagesEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var f framing
		open := false
		for range rapid.IntRange(1, 20).Draw(t, "frames") {
			var first byte
			switch rapid.IntRange(0, 2).Draw(t, "kind") {
			case 0:
				first = 0x89
			case 1:
				first, open = 0x80, false
			default:
				first, open = 0x01, true
			}
			payload := strings.Repeat("x", rapid.SampledFrom([]int{0, 1, 125, 126, 300}).Draw(t, "length"))
			b := frame(first, payload)
			for i := range b {
				f.follow(b[i : i+1])
				if i < len(b)-1 && f.between() {
					t.Fatalf("between messages after %d of %d bytes", i+1, len(b))
				}
			}
			if f.between() == open {
				t.Fatalf("after a whole frame: between is %v, want %v", f.between(), !open)
			}
		}
	})
}
