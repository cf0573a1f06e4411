package hub

import (
	"encoding/binary"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"
)

// judgement is what RFC 6455 and the limits here make of what a client sent.
type judgement struct {
	code  int      // of the close frame that it gets; 0 where there is none, 1005 where it has no code
	pings []string // those before that
	ends  []int    // how many bytes it had sent when it was between two messages, 0 included
}

// judge reads a client's frames from the beginning, in the plainest way.
func judge(b []byte) (j judgement) {
	var message []byte
	inMessage := false
	rest := b
	take := func(n uint64) (p []byte, ok bool) {
		if uint64(len(rest)) < n {
			return nil, false
		}
		p, rest = rest[:n], rest[n:]
		return p, true
	}
	for {
		if !inMessage {
			j.ends = append(j.ends, len(b)-len(rest))
		}
		head, ok := take(2)
		if !ok {
			return j
		}
		final, opcode, length := head[0]&0x80 != 0, head[0]&0xf, uint64(head[1]&0x7f)
		control := opcode >= 8
		known := opcode <= 2 || opcode >= 8 && opcode <= 10
		if !known || head[0]&0x70 != 0 || head[1]&0x80 == 0 || control && (!final || length > 125) ||
			opcode == 0 && !inMessage || !control && opcode != 0 && inMessage {
			j.code = CloseProtocol
			return j
		}
		switch length {
		case 126:
			var more []byte
			if more, ok = take(2); ok {
				length = uint64(binary.BigEndian.Uint16(more))
			}
		case 127:
			var more []byte
			if more, ok = take(8); ok {
				length = binary.BigEndian.Uint64(more)
			}
		}
		if ok && length >= 1<<63 {
			j.code = CloseTooBig
			return j
		}
		var key []byte
		if ok {
			key, ok = take(4)
		}
		if !ok {
			return j
		}
		switch {
		case !control && uint64(len(message))+length > longestMessage:
			j.code = CloseTooBig
			return j
		case opcode == 2:
			j.code = CloseData
			return j
		}
		payload, ok := take(length)
		if !ok {
			return j
		}
		clear := make([]byte, length)
		for i := range payload {
			clear[i] = payload[i] ^ key[i%4]
		}
		switch opcode {
		case 8:
			j.code = closeAnswer(clear)
			return j
		case 9:
			j.pings = append(j.pings, string(clear))
		case 0, 1:
			message = append(message, clear...)
			inMessage = !final
			if final && !utf8.Valid(message) {
				j.code = CloseText
				return j
			}
			if final {
				message = nil
			}
		}
	}
}

// closeAnswer is the code that answers a close frame with this payload.
func closeAnswer(payload []byte) int {
	if len(payload) == 0 {
		return 1005
	}
	if len(payload) == 1 || !utf8.Valid(payload[2:]) {
		return CloseProtocol
	}
	switch code := int(binary.BigEndian.Uint16(payload)); {
	case code >= 1000 && code <= 1003, code >= 1007 && code <= 1013, code >= 3000 && code <= 4999:
		return code
	}
	return CloseProtocol
}

// FuzzClientFrames: whatever a client sends, the reader answers it as the RFC says; in one go after it
// has served somebody else, and in two with another reader for the second.
func FuzzClientFrames(f *testing.F) {
	long := strings.Repeat("x", longestMessage)
	for _, frames := range []string{
		"", "GET / HTTP/1.1\r\n\r\n", string(frame(0x81, "hello")), string(frame(0x81, long)), string(frame(0x81, long+"x")),
		string(frame(0x01, "\xe2")) + string(frame(0x89, "p")) + string(frame(0x80, "\x82\xac")) + string(frame(0x81, "\xff")),
		string(frame(0x89, "")) + string(frame(0x8a, "x")) + string(frame(0x88, "\x03\xe8bye")), string(frame(0x88, "\x03")), string(frame(0x88, "")),
		string(frame(0x82, "x")), string(frame(0xc1, "x")), string(frame(0x83, "x")), "\x81\x01x", "\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00",
		"\x01\x81\x00\x00\x00\x00x\x80\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00", "\x81\xfe\x00\x01\x01\x02\x03\x04x",
	} {
		f.Add([]byte(frames), uint8(3), uint16(5))
	}
	h := New(1, time.Second, slog.New(slog.DiscardHandler)) // not run: marks stay
	line := h.NewLine(nil)
	// piece says between which messages there is a pause, early how much came with the request.
	f.Fuzz(func(t *testing.T, sent []byte, piece uint8, early uint16) {
		if len(sent) > 32<<10 {
			return // more than a socket takes at once
		}
		want := judge(sent)
		pause := want.ends[int(piece)%len(want.ends)]
		with := min(int(early), pause)
		used := newReader()
		inTwo := openPair(t, line)
		inTwo.send(sent[with:pause])
		if !used.read(inTwo.Conn, sent[:with]) || inTwo.reason != dropNone || inTwo.gone.Load() {
			t.Fatalf("%x: after %d bytes, between messages: the reader has given up", sent, pause)
		}
		inTwo.send(sent[pause:])
		inTwo.check(t, newReader(), want)
		inOne := openPair(t, line)
		inOne.send(sent)
		inOne.check(t, used, want)
	})
}

// paired is a connection with the client's end of it.
type paired struct {
	*Conn
	client *net.UnixConn
}

func openPair(t *testing.T, l *Line) paired {
	t.Helper()
	server, client := socketPair(t)
	raw, err := server.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	c := &Conn{Fan: Fan{Position: 1}, line: l, conn: server, raw: raw}
	l.hub.open.Add(1)
	l.add(c)
	return paired{c, client}
}

func (p paired) send(b []byte) { _, _ = p.client.Write(b) }

// check ends the client, reads what it sent, and compares what it is answered. A pong for an earlier
// ping may be left out.
func (p paired) check(t *testing.T, r *reader, want judgement) {
	t.Helper()
	_ = p.client.CloseWrite()
	if r.read(p.Conn, nil) {
		t.Error("the reader goes on after the end")
	}
	got, pong := 0, ""
	if p.seldom != nil {
		if frame := p.seldom.pong; frame != nil {
			pong = string(frame[2:])
		}
		switch frame := p.seldom.farewell; {
		case len(frame) == 2:
			got = 1005
		case len(frame) > 2:
			got = int(binary.BigEndian.Uint16(frame[2:]))
		}
	}
	if got != want.code {
		t.Errorf("close code: got %d, want %d", got, want.code)
	}
	if last := len(want.pings) - 1; last >= 0 && pong != want.pings[last] || last < 0 && pong != "" {
		t.Errorf("pong: got %q, want one for the last of %q", pong, want.pings)
	}
	if want.code == 0 && !p.gone.Load() {
		t.Error("the client has ended, its connection has not")
	}
	p.drop(DropGone)
	_ = p.client.Close()
	for p.line.hub.queue.urgent.pop() != nil || p.line.hub.queue.routine.pop() != nil {
	}
}

// socketPair are two ends of a connection within the kernel.
func socketPair(t *testing.T) (server, client *net.UnixConn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "socket pair")
		conn, err := net.FileConn(file)
		if err != nil {
			t.Fatal(err)
		}
		_ = file.Close()
		ends[i] = conn.(*net.UnixConn)
	}
	return ends[0], ends[1]
}
