package hub

import "encoding/binary"

// A server's frames are not masked (RFC 6455, section 5.1).
const (
	finText  = 0x80 | 0x1
	finClose = 0x80 | 0x8
	finPing  = 0x80 | 0x9
	opClose  = 0x8
	opPong   = 0xA
)

var pingFrame = []byte{finPing, 0}

// comment is a line that clients of Server-Sent Events pass over.
var comment = []byte(":\n\n")

// appendFrame appends a text frame with an event: an object whose type is the event's name, and
// whose other members are the status's.
func appendFrame(b []byte, name string, members []byte) []byte {
	const before, between, after = `{"type":"`, `",`, `}`
	n := len(before) + len(name) + len(between) + len(members) + len(after)
	switch {
	case n < 126:
		b = append(b, finText, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, finText, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, finText, 127), uint64(n))
	}
	b = append(b, before...)
	b = append(b, name...)
	b = append(b, between...)
	b = append(b, members...)
	return append(b, after...)
}

// appendClose appends a close frame.
func appendClose(b []byte, code int) []byte {
	return binary.BigEndian.AppendUint16(append(b, finClose, 2), uint16(code))
}

// appendServerSent appends an event as the HTML standard's section 9.2 has it.
func appendServerSent(b []byte, seq, name string, members []byte) []byte {
	b = append(b, "id: "...)
	b = append(b, seq...)
	b = append(b, "\nevent: "...)
	b = append(b, name...)
	b = append(b, "\ndata: {"...)
	b = append(b, members...)
	return append(b, "}\n\n"...)
}
