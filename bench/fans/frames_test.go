package fans

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
	"time"
)

func TestFramesAreRead(t *testing.T) {
	long := strings.Repeat("x", 300)
	for _, c := range []struct {
		name, bytes string
		opcode      byte
		payload     string
	}{
		{"text", "8105" + hex.EncodeToString([]byte("Hello")), opText, "Hello"}, // RFC 6455, section 5.7
		{"ping", "8905" + hex.EncodeToString([]byte("Hello")), opPing, "Hello"},
		{"close", "880203e8", opClose, "\x03\xe8"},
		{"medium", "817e012c" + hex.EncodeToString([]byte(long)), opText, long},
	} {
		data, err := hex.DecodeString(c.bytes)
		if err != nil {
			t.Fatal(err)
		}
		f, err := parseFrame(append(data, 0x81))
		if err != nil || f.opcode != c.opcode || string(f.payload) != c.payload || f.size != len(data) {
			t.Errorf("%s: got %+v, %v", c.name, f, err)
		}
		for n := range data {
			if f, err := parseFrame(data[:n]); err != nil || f.size != 0 {
				t.Errorf("%s, first %d bytes: got %+v, %v, want that more is needed", c.name, n, f, err)
			}
		}
	}
	if code := closeCode([]byte{0x03, 0xf4, 'x'}); code != closeRestart {
		t.Errorf("got close code %d, want %d", code, closeRestart)
	}
}

func TestBadFramesAreRefused(t *testing.T) {
	for name, text := range map[string]string{
		"masked": "8180", "reserved bit": "c100", "not final": "0100", "continuation": "8000", "binary": "8200",
		"reserved opcode": "8b00", "long ping": "897e", "64-bit length": "817f", "over the limit": "817effff",
	} {
		data, _ := hex.DecodeString(text)
		data = append(data, make([]byte, 8)...)
		if _, err := parseFrame(data); name == "over the limit" {
			if err == nil {
				t.Errorf("%s: got no error, want one", name)
			}
		} else if err == nil {
			t.Errorf("%s: got no error, want one", name)
		}
	}
}

func TestControlFramesAreMasked(t *testing.T) {
	got := appendControl(nil, opPong, []byte("Hello"), 0x37fa213d)
	// The masked example of RFC 6455, section 5.7, as a pong.
	if want, _ := hex.DecodeString("8a8537fa213d7f9f4d5158"); !bytes.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
}

func TestEventsAreRead(t *testing.T) {
	text := "retry: 2500\n\nid: g.7\nevent: admitted\ndata: {\"a\":1}\n\n: still here\n\r\nid:g.8\r\ndata:x\r\n\r\n"
	data := []byte(text)
	var got []event
	for len(data) > 0 {
		e, err := parseEvent(data)
		if err != nil || e.size == 0 {
			t.Fatalf("got %+v, %v before %q", e, err, data)
		}
		for n := range e.size - 1 {
			if part, err := parseEvent(data[:n]); err != nil || part.size != 0 {
				t.Fatalf("%q: got %+v, %v, want that more is needed", data[:n], part, err)
			}
		}
		got, data = append(got, e), data[e.size:]
	}
	if len(got) != 4 {
		t.Fatalf("got %d events, want 4", len(got))
	}
	if got[0].retry != 2500*time.Millisecond || got[0].data != nil {
		t.Errorf("got %+v, want the pause before coming back alone", got[0])
	}
	if e := got[1]; string(e.id) != "g.7" || string(e.name) != "admitted" || string(e.data) != `{"a":1}` {
		t.Errorf("got %q %q %q", e.id, e.name, e.data)
	}
	if !got[2].comment || got[2].data != nil {
		t.Errorf("got %+v, want a comment", got[2])
	}
	if e := got[3]; string(e.id) != "g.8" || e.name != nil || string(e.data) != "x" {
		t.Errorf("got %q %q %q", e.id, e.name, e.data)
	}
	if _, err := parseEvent([]byte("data: a\ndata: b\n\n")); err == nil {
		t.Error("two lines of data: got no error, want one")
	}
	if _, err := parseEvent(bytes.Repeat([]byte("x"), longestEvent+1)); err == nil {
		t.Error("an endless event: got no error, want one")
	}
}

func TestChunksAreTakenApart(t *testing.T) {
	whole := []byte("5\r\nHello\r\n7;name=v\r\n, world\r\n0\r\n\r\n")
	for step := 1; step <= len(whole); step++ {
		var c crumbs
		for at := 0; at < len(whole); at += step {
			if err := c.take(whole[at:min(at+step, len(whole))]); err != nil {
				t.Fatalf("in steps of %d: %v", step, err)
			}
		}
		if string(c.body) != "Hello, world" || !c.chunks.last || c.chunks.left != 0 {
			t.Errorf("in steps of %d: got %q and %+v", step, c.body, c.chunks)
		}
	}
	var c chunks
	if _, _, err := c.next([]byte("zz\r\n")); err == nil {
		t.Error("no number: got no error, want one")
	}
}

// crumbs takes chunks that come in pieces.
type crumbs struct {
	chunks     chunks
	line, body []byte
}

func (c *crumbs) take(data []byte) error {
	data = append(c.line, data...)
	c.line = nil
	for len(data) > 0 {
		content, size, err := c.chunks.next(data)
		if err != nil {
			return err
		}
		if size == 0 {
			c.line = data
			break
		}
		c.body, data = append(c.body, content...), data[size:]
	}
	return nil
}

func TestHeadsAreRead(t *testing.T) {
	text := "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nretry-after: 7\r\nTransfer-Encoding: chunked\r\n\r\n"
	h, err := parseHead([]byte(text + "body"))
	if err != nil || h.status != 503 || h.retryAfter != 7*time.Second || !h.chunked || h.size != len(text) {
		t.Errorf("got %+v, %v", h, err)
	}
	if h, err := parseHead([]byte(text[:len(text)-1])); err != nil || h.size != 0 {
		t.Errorf("a part: got %+v, %v, want that more is needed", h, err)
	}
	for _, bad := range []string{"HTTP/1.0 200 OK\r\n\r\n", "nothing\r\n\r\n", "HTTP/1.1 200 OK\r\nRetry-After: soon\r\n\r\n", "HTTP/1.1 2x0 OK\r\n\r\n"} {
		if _, err := parseHead([]byte(bad)); err == nil {
			t.Errorf("%q: got no error, want one", bad)
		}
	}
}

func TestPauses(t *testing.T) {
	second := time.Second
	for _, c := range []struct {
		name        string
		ending      ending
		failures    int
		least, most time.Duration
	}{
		{"the edge stops", ending{code: closeRestart}, 0, 0, second},
		{"overloaded", ending{code: closeAgain}, 0, 10 * second, 30 * second},
		{"cut off", ending{code: closeAbnormal}, 0, 0, 10 * second},
		{"cut off again", ending{code: closeAbnormal}, 1, 0, 20 * second},
		{"cut off for long", ending{code: closeAbnormal}, 50, 0, 30 * second},
		{"a stream of events", ending{code: closeAbnormal, retry: 3 * second}, 0, 3 * second, 3 * second},
		{"turned away", ending{refused: true, retryAfter: 4 * second}, 2, 4 * second, 8 * second},
	} {
		least, most := c.ending.pause(c.failures, 0), c.ending.pause(c.failures, 0.9999999)
		if least != c.least || most > c.most || most < c.most-second/100 {
			t.Errorf("%s: got %v to %v, want %v to %v", c.name, least, most, c.least, c.most)
		}
	}
}
