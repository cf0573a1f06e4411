package hub

import "encoding/binary"

// framing follows a client's byte stream to know whether it is between messages: only then can the
// websocket.Conn that reads it be given back. It judges nothing, and once the stream is not
// WebSocket what it says does not matter: the websocket.Conn refuses it.
type framing struct {
	head    [14]byte // of the frame that is being read
	n       int      // bytes of head
	payload uint64   // bytes of the frame that are to come
	open    bool     // a message in several frames has begun and not ended

	closed   bool // a close frame has begun
	halfCode bool // the first one has one byte
}

// between reports whether no frame and no message is under way.
func (f *framing) between() bool { return f.n == 0 && f.payload == 0 && !f.open }

// follow takes in what was read.
func (f *framing) follow(p []byte) {
	for len(p) > 0 {
		if f.payload > 0 {
			n := min(f.payload, uint64(len(p)))
			f.payload -= n
			p = p[n:]
			continue
		}
		f.head[f.n] = p[0]
		f.n++
		p = p[1:]
		if f.n < 2 || f.n < f.length() {
			continue
		}
		switch size := f.head[1] & 0x7f; size {
		case 126:
			f.payload = uint64(binary.BigEndian.Uint16(f.head[2:]))
		case 127:
			f.payload = binary.BigEndian.Uint64(f.head[2:])
		default:
			f.payload = uint64(size)
		}
		if control := f.head[0]&0x8 != 0; !control {
			f.open = f.head[0]&0x80 == 0
		}
		if f.head[0]&0xf == opClose && !f.closed {
			f.closed, f.halfCode = true, f.payload == 1
		}
		f.n = 0
	}
}

// length is that of the head, of which two bytes are there.
func (f *framing) length() int {
	n := 2
	switch f.head[1] & 0x7f {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if f.head[1]&0x80 != 0 {
		n += 4
	}
	return n
}
