package fans

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Opcodes of frames (RFC 6455, section 5.2) and close codes (7.4).
const (
	opText  = 0x1
	opClose = 0x8
	opPing  = 0x9
	opPong  = 0xa

	closeNormal   = 1000
	closeAbnormal = 1006 // no close frame came
	closePolicy   = 1008
	closeRestart  = 1012
	closeAgain    = 1013
)

// longestFrame is far above any status.
const longestFrame = 16 << 10

var (
	errMasked     = errors.New("a frame of the server is masked")
	errReserved   = errors.New("a frame has reserved bits")
	errFragment   = errors.New("a message comes in pieces, which no edge sends")
	errLongFrame  = errors.New("a frame is too long")
	errBadControl = errors.New("a control frame is too long")
)

// frame is one that the server sent.
type frame struct {
	opcode  byte
	payload []byte // of the data that it was read from
	size    int    // with its header; 0 while data does not hold all of it
}

// parseFrame reads the frame with which data begins.
func parseFrame(data []byte) (frame, error) {
	if len(data) < 2 {
		return frame{}, nil
	}
	f := frame{opcode: data[0] & 0xf}
	switch {
	case data[0]&0x70 != 0:
		return f, errReserved
	case data[1]&0x80 != 0:
		return f, errMasked
	case data[0]&0x80 == 0 || f.opcode == 0:
		return f, errFragment
	case f.opcode != opText && f.opcode != opClose && f.opcode != opPing && f.opcode != opPong:
		return f, fmt.Errorf("a frame has opcode %d, which no edge sends", f.opcode)
	}
	head, length := 2, int(data[1])
	switch {
	case length > 125 && f.opcode >= opClose:
		return f, errBadControl
	case length == 127:
		return f, errLongFrame
	case length == 126:
		if len(data) < 4 {
			return frame{}, nil
		}
		head, length = 4, int(binary.BigEndian.Uint16(data[2:]))
	}
	if length > longestFrame {
		return f, errLongFrame
	}
	if len(data) < head+length {
		return frame{}, nil
	}
	f.payload, f.size = data[head:head+length], head+length
	return f, nil
}

// closeCode is the code of a close frame's payload; a close frame without one means 1005, and
// counts here as a normal end.
func closeCode(payload []byte) int {
	if len(payload) < 2 {
		return closeNormal
	}
	return int(binary.BigEndian.Uint16(payload))
}

// appendControl appends a control frame as a client sends it: masked.
func appendControl(b []byte, opcode byte, payload []byte, mask uint32) []byte {
	var key [4]byte
	binary.BigEndian.PutUint32(key[:], mask)
	b = append(b, 0x80|opcode, 0x80|byte(len(payload)))
	b = append(b, key[:]...)
	for i, c := range payload {
		b = append(b, c^key[i%4])
	}
	return b
}
