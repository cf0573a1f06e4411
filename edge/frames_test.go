package edge

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"waitingroom/origin/queue"
)

// The first byte of a frame (RFC 6455, section 5.2).
const (
	fin        = 0x80
	more       = 0x00
	cont       = 0x0
	text       = 0x1
	binaryData = 0x2
	closes     = 0x8
	pings      = 0x9
	pongs      = 0xA
)

// rawSocket is the client's end of a WebSocket, down to the bytes.
type rawSocket struct {
	*net.TCPConn
	in *bufio.Reader
}

// connect opens a connection.
func (e *edgeUnderTest) connect(t *testing.T) *rawSocket {
	t.Helper()
	conn, err := net.Dial("tcp", e.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	return &rawSocket{conn.(*net.TCPConn), bufio.NewReader(conn)}
}

// rawSocket opens a WebSocket with a ticket; early is sent together with the handshake.
func (e *edgeUnderTest) rawSocket(t *testing.T, token, id, early string) *rawSocket {
	t.Helper()
	s := e.connect(t)
	s.send(t, "GET /tickets/"+id+"/ws HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+token+"\r\n"+shakes+"\r\n"+early)
	response, err := http.ReadResponse(s.in, nil)
	if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("handshake: got %+v %v, want 101", response, err)
	}
	return s
}

// manyLive lets a test open as many live connections as it likes.
func manyLive(c *Config) { c.Limits.LiveUpgradesPerSecond = 10_000 }

// shakes are the header lines that every handshake needs.
const shakes = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

func (s *rawSocket) send(t *testing.T, b string) {
	t.Helper()
	if _, err := io.WriteString(s, b); err != nil {
		t.Fatalf("send: %v", err)
	}
}

// next reads a frame, which must be one that a server may send: whole, unmasked, without reserved
// bits, its length in the fewest bytes.
func (s *rawSocket) next() (opcode byte, payload string, err error) {
	var head [2]byte
	if _, err := io.ReadFull(s.in, head[:]); err != nil {
		return 0, "", err
	}
	n, least := uint64(head[1]), uint64(0)
	if head[0]&0xf0 != fin || head[1]&0x80 != 0 {
		return 0, "", fmt.Errorf("a frame that begins with %x", head)
	}
	switch n {
	case 126:
		var b [2]byte
		_, err = io.ReadFull(s.in, b[:])
		n, least = uint64(binary.BigEndian.Uint16(b[:])), 126
	case 127:
		var b [8]byte
		_, err = io.ReadFull(s.in, b[:])
		n, least = binary.BigEndian.Uint64(b[:]), 1<<16
	}
	if err != nil || n < least || n > 1<<20 || head[0]&8 != 0 && n > 125 {
		return 0, "", fmt.Errorf("a frame of %d bytes that begins with %x: %v", n, head, err)
	}
	b := make([]byte, n)
	_, err = io.ReadFull(s.in, b)
	return head[0] & 0xf, string(b), err
}

// masked is a frame as a client must send it.
func masked(first byte, payload string) string {
	n := len(payload)
	b := []byte{first, 0x80}
	switch {
	case n < 126:
		b[1] |= byte(n)
	case n < 1<<16:
		b[1] |= 126
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	default:
		b[1] |= 127
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	return string(b) + mask(payload)
}

// mask is a masking key and what it makes of a payload.
func mask(payload string) string {
	key := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	b := append([]byte(nil), key[:]...)
	for i := range len(payload) {
		b = append(b, payload[i]^key[i%4])
	}
	return string(b)
}

// closing is a close frame with a code.
func closing(code int, reason string) string {
	return masked(fin|closes, string(binary.BigEndian.AppendUint16(nil, uint16(code)))+reason)
}

// What is not in a close frame, by the names that RFC 6455, section 7.4.1 gives it.
const (
	goesOn = 0
	noCode = 1005 // a close frame without a code
	noEnd  = 1006 // the end without a close frame
)

type frameCase struct {
	name  string
	send  string
	pongs []string // that must come, in this order and no others; nil where the last ping decides
	code  int      // of the close frame
}

// frameCases are what a client may send and what it may not, with the answer.
func frameCases() []frameCase {
	long := strings.Repeat("x", 512) // as much as is read
	cases := []frameCase{
		// What is heard and not heeded.
		{"text", masked(fin|text, "hello"), nil, goesOn},
		{"empty text", masked(fin|text, ""), nil, goesOn},
		{"text as long as allowed", masked(fin|text, long), nil, goesOn},
		{"text with a masking key of zeros", "\x81\x82\x00\x00\x00\x00ok", nil, goesOn},
		{"many texts at once", strings.Repeat(masked(fin|text, long), 40), nil, goesOn},
		{"text with its length in two bytes too many", "\x81\xfe\x00\x02" + mask("ok"), nil, goesOn},
		{"text with its length in eight bytes too many", "\x81\xff\x00\x00\x00\x00\x00\x00\x00\x02" + mask("ok"), nil, goesOn},
		{"pong nobody asked for", masked(fin|pongs, "x"), nil, goesOn},
		{"pong without payload", masked(fin|pongs, ""), nil, goesOn},
		{"longest pong", masked(fin|pongs, long[:125]), nil, goesOn},
		{"many pongs", strings.Repeat(masked(fin|pongs, "x"), 100), nil, goesOn},

		// Pings.
		{"ping without payload", masked(fin|pings, ""), []string{""}, goesOn},
		{"ping of one byte", masked(fin|pings, "1"), []string{"1"}, goesOn},
		{"ping of 124 bytes", masked(fin|pings, long[:124]), []string{long[:124]}, goesOn},
		{"ping of 125 bytes", masked(fin|pings, long[:125]), []string{long[:125]}, goesOn},
		{"ping of bytes that are no text", masked(fin|pings, "\xff\x00\xfe"), []string{"\xff\x00\xfe"}, goesOn},
		{"several pings in a row", masked(fin|pings, "1") + masked(fin|pings, "2") + masked(fin|pings, "3"), nil, goesOn},
		{"ping and text", masked(fin|pings, "p") + masked(fin|text, "t"), []string{"p"}, goesOn},
		{"ping and close", masked(fin|pings, "p") + closing(1000, ""), []string{"p"}, 1000},
		{"ping and a protocol error", masked(fin|pings, "p") + masked(fin|3, ""), []string{"p"}, 1002},
		{"ping of 126 bytes", masked(fin|pings, long[:126]), nil, 1002},
		{"pong of 126 bytes", masked(fin|pongs, long[:126]), nil, 1002},
		{"close of 126 bytes", closing(1000, long[:124]), nil, 1002},
		{"ping of 65,536 bytes", "\x89\xff\x00\x00\x00\x00\x00\x01\x00\x00" + mask(""), nil, 1002},
		{"ping with its length in two bytes too many", "\x89\xfe\x00\x01" + mask("p"), nil, 1002},

		// Fragments.
		{"two fragments", masked(more|text, "a") + masked(fin|cont, "b"), nil, goesOn},
		{"many fragments", masked(more|text, "a") + strings.Repeat(masked(more|cont, "b"), 100) + masked(fin|cont, "c"), nil, goesOn},
		{"empty fragments", masked(more|text, "") + masked(more|cont, "") + masked(fin|cont, ""), nil, goesOn},
		{"thousands of empty fragments", masked(more|text, "") + strings.Repeat(masked(more|cont, ""), 5000) + masked(fin|cont, "x"), nil, goesOn},
		{"fragments as long as allowed", masked(more|text, long[:256]) + masked(fin|cont, long[:256]), nil, goesOn},
		{"ping between fragments", masked(more|text, "a") + masked(fin|pings, "p") + masked(fin|cont, "b"), []string{"p"}, goesOn},
		{"ping after the first fragment, and nothing more yet", masked(more|text, "a") + masked(fin|pings, "p"), []string{"p"}, goesOn},
		{"pong between fragments", masked(more|text, "a") + masked(fin|pongs, "p") + masked(fin|cont, "b"), nil, goesOn},
		{"close between fragments", masked(more|text, "a") + closing(1000, ""), nil, 1000},
		{"two messages in fragments", strings.Repeat(masked(more|text, "a")+masked(fin|cont, "b"), 2), nil, goesOn},
		{"ping in fragments", masked(more|pings, "a") + masked(fin|cont, "b"), nil, 1002},
		{"pong in fragments", masked(more|pongs, "a") + masked(fin|cont, "b"), nil, 1002},
		{"close in fragments", masked(more|closes, "\x03") + masked(fin|cont, "\xe8"), nil, 1002},
		{"ping in fragments between fragments", masked(more|text, "a") + masked(more|pings, "b"), nil, 1002},
		{"continuation of nothing", masked(fin|cont, "a"), nil, 1002},
		{"fragment of nothing", masked(more|cont, "a"), nil, 1002},
		{"continuation of a message that has ended", masked(fin|text, "a") + masked(fin|cont, "b"), nil, 1002},
		{"continuation after the last fragment", masked(more|text, "a") + masked(fin|cont, "b") + masked(fin|cont, "c"), nil, 1002},
		{"text within a text", masked(more|text, "a") + masked(fin|text, "b"), nil, 1002},
		{"fragment of a text within a text", masked(more|text, "a") + masked(more|text, "b"), nil, 1002},
		{"binary within a text", masked(more|text, "a") + masked(fin|binaryData, "b"), nil, 1002},

		// What is too long.
		{"text one byte too long", masked(fin|text, long+"x"), nil, 1009},
		{"text of 65,535 bytes", masked(fin|text, strings.Repeat("x", 65_535)), nil, 1009},
		{"text of 65,536 bytes", masked(fin|text, strings.Repeat("x", 65_536)), nil, 1009},
		{"text of a million bytes", masked(fin|text, strings.Repeat("x", 1_000_000)), nil, 1009},
		{"text that would be 4 GiB", "\x81\xff\x00\x00\x00\x01\x00\x00\x00\x00" + mask("x"), nil, 1009},
		{"text that would be 8 EiB less a byte", "\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff" + mask("x"), nil, 1009},
		{"text with the highest bit of its length set", "\x81\xff\x80\x00\x00\x00\x00\x00\x00\x01" + mask("x"), nil, 1009},
		{"text with all bits of its length set", "\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff" + mask("x"), nil, 1009},
		{"fragments together one byte too long", masked(more|text, long) + masked(fin|cont, "x"), nil, 1009},
		{"fragments together too long before the last", masked(more|text, long) + masked(more|cont, "x"), nil, 1009},
		{"fragments whose sum overflows", masked(more|text, "x") + "\x80\xff\x7f\xff\xff\xff\xff\xff\xff\xff" + mask("x"), nil, 1009},
		{"fragments, one with the highest bit of its length set", masked(more|text, "x") + "\x80\xff\x80\x00\x00\x00\x00\x00\x00\x01" + mask("x"), nil, 1009},
		{"binary too long", masked(fin|binaryData, long+"x"), nil, 1009},

		// What is not text.
		{"binary", masked(fin|binaryData, "x"), nil, 1003},
		{"empty binary", masked(fin|binaryData, ""), nil, 1003},
		{"binary in fragments", masked(more|binaryData, "x") + masked(fin|cont, "y"), nil, 1003},
		{"binary, then anything", masked(fin|binaryData, "x") + strings.Repeat("\xff", 5000), nil, 1003},
		{"text, then binary", masked(fin|text, "x") + masked(fin|binaryData, "x"), nil, 1003},

		// Masks.
		{"unmasked text", "\x81\x02hi", nil, 1002},
		{"unmasked empty text", "\x81\x00", nil, 1002},
		{"unmasked ping", "\x89\x02hi", nil, 1002},
		{"unmasked close", "\x88\x02\x03\xe8", nil, 1002},
		{"unmasked continuation", masked(more|text, "a") + "\x80\x01b", nil, 1002},
		{"HTTP instead of frames", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", nil, 1002},
		{"TLS instead of frames", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", nil, 1002},

		// Close.
		{"close without a code", masked(fin|closes, ""), nil, noCode},
		{"close with half a code", masked(fin|closes, "\x03"), nil, 1002},
		{"close with a reason", closing(1000, "bye"), nil, 1000},
		{"close with the longest reason", closing(1000, long[:123]), nil, 1000},
		{"close with a reason that is not UTF-8", closing(1000, "\xff"), nil, 1002},
		{"close with a reason that ends within a character", closing(1000, "bye\xe2\x82"), nil, 1002},
		{"close with a surrogate for a reason", closing(1000, "\xed\xa0\x80"), nil, 1002},
		{"text after close", closing(1000, "") + masked(fin|text, "x"), nil, 1000},
		{"ping after close", closing(1000, "") + masked(fin|pings, "x"), []string{}, 1000},
		{"close after close", closing(1000, "") + closing(1001, ""), nil, 1000},
		{"half a code after close", closing(1000, "") + masked(fin|closes, "\x03"), nil, 1000},
		{"rubbish after close", closing(1000, "") + strings.Repeat("\xff", 5000), nil, 1000},
		{"megabytes after close", closing(1000, "") + strings.Repeat("\x00", 3<<20), nil, 1000},
	}
	for _, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3999, 4000, 4999} {
		cases = append(cases, frameCase{fmt.Sprintf("close code %d", code), closing(code, ""), nil, code})
	}
	// Not in the RFC, and 1014, which came later, only a gateway may send.
	for _, code := range []int{0, 1, 999, 1004, 1005, 1006, 1014, 1015, 1016, 1999, 2000, 2999, 5000, 9999, 65535} {
		cases = append(cases, frameCase{fmt.Sprintf("close code %d", code), closing(code, "x"), nil, 1002})
	}
	for _, bits := range []byte{0x40, 0x20, 0x10, 0x70} {
		for name, first := range map[string]byte{"text": fin | text, "ping": fin | pings, "close": fin | closes, "fragment": more | text} {
			cases = append(cases, frameCase{fmt.Sprintf("%s with reserved bits %x", name, bits), masked(first|bits, "\x03\xe8"), nil, 1002})
		}
		cases = append(cases, frameCase{fmt.Sprintf("continuation with reserved bits %x", bits), masked(more|text, "a") + masked(fin|cont|bits, "b"), nil, 1002})
	}
	for _, opcode := range []byte{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		cases = append(cases,
			frameCase{fmt.Sprintf("opcode %d", opcode), masked(fin|opcode, ""), nil, 1002},
			frameCase{fmt.Sprintf("opcode %d with a payload, after a text", opcode), masked(fin|text, "a") + masked(fin|opcode, "x"), nil, 1002},
			frameCase{fmt.Sprintf("opcode %d within a text", opcode), masked(more|text, "a") + masked(fin|opcode, "x"), nil, 1002})
	}
	for name, good := range map[string]string{
		"two bytes": "\u00e9", "three bytes": "\u20ac", "four bytes": "\U0001f3ab", "the last character": "\U0010ffff", "a noncharacter": "\uffff",
		"a byte order mark": "\ufeff", "zero": "\x00", "before the surrogates": "\ud7ff", "after the surrogates": "\ue000",
	} {
		cases = append(cases, frameCase{"text with " + name, masked(fin|text, "a"+good+"z"), nil, goesOn})
		split := masked(more|text, "a"+good[:1]) + masked(fin|pings, "p") + masked(fin|cont, good[1:]+"z")
		cases = append(cases, frameCase{"text in fragments with " + name, split, []string{"p"}, goesOn})
	}
	for name, bad := range map[string]string{
		"a byte that never occurs": "\xff", "a continuation alone": "\x80", "an overlong slash of two": "\xc0\xaf", "an overlong slash of three": "\xe0\x80\xaf",
		"an overlong slash of four": "\xf0\x80\x80\xaf", "an overlong zero": "\xc0\x80", "the first surrogate": "\xed\xa0\x80", "the last surrogate": "\xed\xbf\xbf",
		"a pair of surrogates": "\xed\xa0\xbd\xed\xb8\x80", "more than U+10FFFF": "\xf4\x90\x80\x80", "a beginning of four that never occurs": "\xf5\x80\x80\x80",
		"five bytes": "\xf8\x88\x80\x80\x80", "six bytes": "\xfc\x84\x80\x80\x80\x80", "the beginning of a character": "\xe2\x82",
	} {
		cases = append(cases,
			frameCase{"text with " + name, masked(fin|text, "a"+bad+"z"), nil, 1007},
			frameCase{"text that ends with " + name, masked(fin|text, "a"+bad), nil, 1007},
			frameCase{"text in fragments with " + name, masked(more|text, "a"+bad[:1]) + masked(fin|cont, bad[1:]+"z"), nil, 1007})
	}
	return cases
}

// TestFrames: each thing that a client may send, and each that it may not, has its answer.
func TestFrames(t *testing.T) {
	o := newScripted(t)
	o.log("acme.sale", queue.Entry{Kind: queue.EntryJoined, Issued: 5})
	e := startEdge(t, o, manyLive)
	token, id := o.ticketAt(t, 3)
	for _, test := range frameCases() {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			e.rawSocket(t, token, id, "").expect(t, test)
			// The same together with the handshake.
			s := e.rawSocket(t, token, id, test.send)
			test.send = ""
			s.expect(t, test)
		})
	}
}

// expect sends what a case sends and compares the answer.
func (s *rawSocket) expect(t *testing.T, test frameCase) {
	t.Helper()
	s.send(t, test.send)
	const still = "are you still there"
	if test.code == goesOn {
		if strings.HasSuffix(test.name, "nothing more yet") {
			s.send(t, masked(fin|cont, "z"))
		}
		if strings.HasPrefix(test.name, "several pings") { // the pong for the last one answers all
			s.until(t, func(opcode byte, payload string) bool { return opcode == pongs && payload == "3" })
		}
	}
	for _, want := range test.pongs {
		got := ""
		s.until(t, func(opcode byte, payload string) bool { got = payload; return opcode == pongs })
		if got != want {
			t.Fatalf("pong: got %q, want %q", got, want)
		}
	}
	if test.code == goesOn {
		s.send(t, masked(fin|pings, still))
		s.until(t, func(opcode byte, payload string) bool { return opcode == pongs && payload == still })
		return
	}
	code := noEnd
	s.until(t, func(opcode byte, payload string) bool {
		switch {
		case opcode == closes && len(payload) == 0:
			code = noCode
		case opcode == closes && len(payload) > 1:
			code = int(payload[0])<<8 | int(payload[1])
		case opcode == pongs && test.pongs != nil && !slices.Contains(test.pongs, payload):
			t.Errorf("got a pong with %q", payload)
		}
		return opcode == closes
	})
	if code != test.code {
		t.Errorf("close code: got %d, want %d", code, test.code)
	}
	if opcode, payload, err := s.next(); !errors.Is(err, io.EOF) {
		t.Errorf("after the close frame: got %x %q %v, want the end", opcode, payload, err)
	}
}

// until reads frames until one is as wanted.
func (s *rawSocket) until(t *testing.T, wanted func(opcode byte, payload string) bool) {
	t.Helper()
	for {
		opcode, payload, err := s.next()
		if err != nil {
			t.Fatalf("read frame: %v", err)
		}
		if wanted(opcode, payload) {
			return
		}
		if opcode == closes {
			t.Fatalf("got a close frame with %q", payload)
		}
	}
}

// TestUnfinishedFrames end the connection without a close frame: at once where the client has
// ended too, else when a frame has had its time.
func TestUnfinishedFrames(t *testing.T) {
	t.Parallel()
	o := newScripted(t)
	o.log("acme.sale", queue.Entry{Kind: queue.EntryJoined, Issued: 5})
	e := startEdge(t, o, manyLive)
	token, id := o.ticketAt(t, 3)
	var gone []func()
	for name, begun := range map[string]string{
		"half a head":                  "\x81",
		"a head without its length":    "\x81\xfe\x00",
		"a head without its mask":      "\x81\x82\x01",
		"half a payload":               masked(fin|text, "hello")[:8],
		"half a ping":                  masked(fin|pings, "hello")[:8],
		"half a close":                 masked(fin|closes, "\x03\xe8")[:7],
		"a fragment":                   masked(more|text, "a"),
		"a fragment and a ping":        masked(more|text, "a") + masked(fin|pings, "p"),
		"a fragment and half of one":   masked(more|text, "a") + masked(more|cont, "bcd")[:7],
		"text and the head of another": masked(fin|text, "a") + "\x81\x85",
	} {
		for _, ends := range []bool{true, false} {
			s := e.rawSocket(t, token, id, "")
			s.send(t, begun)
			if ends {
				_ = s.CloseWrite()
			}
			gone = append(gone, func() {
				for {
					opcode, _, err := s.next()
					if err != nil && (opcode != 0 || !errors.Is(err, io.EOF)) {
						t.Errorf("%s (the client ends too: %v): got %v, want the end", name, ends, err)
					}
					if opcode == closes {
						t.Errorf("%s (the client ends too: %v): got a close frame, want the end alone", name, ends)
					}
					if err != nil {
						return
					}
				}
			})
		}
	}
	for _, f := range gone {
		f()
	}
	waitFor(t, "all to be gone", func() bool { return e.hub.Open() == 0 })
}
