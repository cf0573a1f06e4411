package hub

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/fasthttp/websocket"
)

// reader reads the frames of one WebSocket after the other: a websocket.Conn over a connection
// that is exchanged. There is one for each connection that has just sent something, and none for
// those that are silent, which are nearly all.
//
// To the websocket.Conn it is the network. Where nothing more has arrived and no message is under
// way, it lets it read an empty message, so that it returns in a state in which it can go on with
// another connection.
type reader struct {
	ws      *websocket.Conn
	c       *Conn
	early   []byte // read with the request already
	framing framing
	due     time.Time // when the message that is waited for must have ended; zero while none is
	idle    bool      // ws was given the empty message
	answers bool      // a close frame of ws is on its way
	network error     // why nothing more can be read; ws tells it in words of its own
	message [longestMessage + 1]byte
	try     attempt
}

var readers = sync.Pool{New: func() any { return newReader() }}

// emptyMessage is an empty text message from a client.
var emptyMessage = []byte{finText, 0x80, 0, 0, 0, 0}

// newReader makes a reader. The library makes a websocket.Conn by a handshake only, so here is one
// with nobody, whose answer goes nowhere.
func newReader() *reader {
	r := &reader{}
	r.try.bind()
	upgrader := websocket.Upgrader{
		ReadBufferSize: 256, WriteBufferSize: 256, WriteBufferPool: &sync.Pool{},
		CheckOrigin: func(*http.Request) bool { return true },
	}
	ws, err := upgrader.Upgrade(&nobody{r}, &http.Request{Method: http.MethodGet, Header: http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"},
		"Sec-Websocket-Key": {"AAAAAAAAAAAAAAAAAAAAAA=="},
	}}, nil)
	if err != nil {
		panic(err) // the handshake is the one above
	}
	ws.SetReadLimit(longestMessage)
	r.ws = ws
	return r
}

// read reads what the client sent until nothing more is there, or the connection has ended. ok
// reports whether the reader can go on with another one.
func (r *reader) read(c *Conn, early []byte) (ok bool) {
	r.c, r.early, r.framing, r.answers = c, early, framing{}, false
	defer func() { r.c, r.early = nil, nil }()
	for {
		r.due = time.Time{}
		kind, body, err := r.ws.NextReader()
		if r.idle {
			r.idle = false
			return true
		}
		if err != nil {
			r.failed(err)
			return false
		}
		if kind == websocket.BinaryMessage {
			c.close(CloseData, DropUnwelcome)
			c.deaf = true
			return false
		}
		n, err := io.ReadFull(body, r.message[:])
		switch {
		case err != io.EOF && err != io.ErrUnexpectedEOF:
			r.failed(err)
			return false
		case !utf8.Valid(r.message[:n]):
			c.close(CloseText, DropUnwelcome)
			c.deaf = true
			return false
		}
	}
}

// failed ends the connection after the websocket.Conn gave up; where a close frame of its is on its
// way, after that was written.
func (r *reader) failed(err error) {
	r.c.deaf = true
	switch {
	case r.answers:
	case errors.Is(err, websocket.ErrReadLimit): // of this length it does not tell the client
		r.c.close(CloseTooBig, DropUnwelcome)
	case errors.Is(r.network, os.ErrDeadlineExceeded):
		r.c.drop(DropProtocol) // a message that does not end
	default:
		r.c.drop(lost(r.network)) // or it has answered our own close frame
	}
}

// Read is for the websocket.Conn.
func (r *reader) Read(p []byte) (n int, err error) {
	switch {
	case len(r.early) > 0:
		n = copy(p, r.early)
		r.early = r.early[n:]
	case r.c.raw == nil:
		n, err = r.wait(p)
	default:
		n, err = r.try.read(r.c.raw, p)
		if err == errNothing && r.framing.between() {
			r.idle = true
			return copy(p, emptyMessage), nil
		}
		if err == errNothing {
			n, err = r.wait(p)
		}
	}
	r.framing.follow(p[:n])
	if r.framing.between() {
		r.due = time.Time{}
	}
	if n > 0 {
		r.c.hear()
	}
	r.network = err
	return n, err
}

// wait waits for the client to send more; not for long where a message is under way, however slowly
// it comes.
func (r *reader) wait(p []byte) (int, error) {
	if !r.framing.between() {
		if r.due.IsZero() {
			r.due = time.Now().Add(framePatience)
		}
		_ = r.c.conn.SetReadDeadline(r.due)
		defer func() { _ = r.c.conn.SetReadDeadline(time.Time{}) }()
	}
	return r.c.conn.Read(p)
}

// Write is for the websocket.Conn, which writes nothing but pongs and close frames, each in one
// piece. They go the way of everything that is written.
func (r *reader) Write(frame []byte) (int, error) {
	if r.c == nil || len(frame) == 0 {
		return len(frame), nil // the answer to the handshake with nobody
	}
	switch frame[0] & 0xf {
	case opPong:
		r.c.answerPing(frame)
	case opClose:
		if len(frame) == 2 && r.framing.halfCode { // which ws takes for none
			frame = appendClose(nil, CloseProtocol)
		}
		r.answers = r.c.closeWith(append([]byte(nil), frame...), closeReason(frame))
	}
	return len(frame), nil
}

// closeReason tells what the client did to be sent this close frame.
func closeReason(frame []byte) Drop {
	if len(frame) >= 4 {
		switch int(frame[2])<<8 | int(frame[3]) {
		case CloseProtocol:
			return DropProtocol
		case CloseTooBig:
			return DropUnwelcome
		}
	}
	return DropGone // an answer to its own
}

// Close does nothing: connections end by way of drop.
func (r *reader) Close() error { return nil }

// LocalAddr and the rest are there for net.Conn; nobody asks.
func (r *reader) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (r *reader) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (r *reader) SetDeadline(time.Time) error      { return nil }
func (r *reader) SetReadDeadline(time.Time) error  { return nil }
func (r *reader) SetWriteDeadline(time.Time) error { return nil }

// nobody is the client of the handshake by which a reader's websocket.Conn is made.
type nobody struct{ conn *reader }

func (n *nobody) Header() http.Header         { return http.Header{} }
func (n *nobody) Write(p []byte) (int, error) { return len(p), nil }
func (n *nobody) WriteHeader(int)             {}
func (n *nobody) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return n.conn, bufio.NewReadWriter(bufio.NewReaderSize(n.conn, 16), bufio.NewWriterSize(n.conn, 16)), nil
}
