package hub

import (
	"errors"
	"io"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// attempt is one read or write of a socket that does not wait. Its functions are bound once, so
// that an attempt allocates nothing.
type attempt struct {
	p   []byte
	n   int
	err error

	readFunc, writeFunc func(fd uintptr) bool
}

func (a *attempt) bind() {
	a.readFunc = func(fd uintptr) bool { a.n, a.err = syscall.Read(int(fd), a.p); return true }
	a.writeFunc = func(fd uintptr) bool { a.n, a.err = syscall.Write(int(fd), a.p); return true }
}

// write writes what the kernel takes at once.
func (a *attempt) write(raw syscall.RawConn, p []byte) (n int, err error) {
	a.p = p
	err = raw.Write(a.writeFunc)
	a.p = nil
	switch {
	case err != nil:
		return 0, err
	case a.err == syscall.EAGAIN || a.err == syscall.EINTR:
		return 0, nil
	case a.err != nil:
		return 0, a.err
	}
	return a.n, nil
}

// errNothing says that there is nothing to read at the moment.
var errNothing = errors.New("nothing to read")

// read reads what has arrived already: errNothing when nothing has.
func (a *attempt) read(raw syscall.RawConn, p []byte) (n int, err error) {
	a.p = p
	err = raw.Read(a.readFunc)
	a.p = nil
	switch {
	case err != nil:
		return 0, err
	case a.err == syscall.EAGAIN || a.err == syscall.EINTR:
		return 0, errNothing
	case a.err != nil:
		return 0, a.err
	case a.n <= 0:
		return 0, io.EOF
	}
	return a.n, nil
}

// readable is for RawConn.Read: it waits until there is something to read, or the end. It only looks:
// reading, even to peek, would take away the error by which lost tells how a connection ended.
func readable(fd uintptr) bool {
	p := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(p[:], 0)
	return n > 0 || err != nil
}

// bufferedBytes bounds what the kernel holds of a connection that does not read; it doubles it.
const bufferedBytes = 8 << 10

// tune prepares a socket; raw is nil where conn is not a plain one.
func tune(conn net.Conn) (raw syscall.RawConn) {
	under := conn
	if over, ok := conn.(interface{ NetConn() net.Conn }); ok {
		under = over.NetConn() // of TLS
	}
	tcp, ok := under.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil
	}
	_ = tcp.SetWriteBuffer(bufferedBytes)
	_ = raw.Control(setUserTimeout)
	if under != conn {
		return nil
	}
	return raw
}
