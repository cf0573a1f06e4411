package hub

import (
	"crypto/tls"
	"net"
	"syscall"
	"testing"
)

// TestAVanishedPeerIsFound by the kernel, since a stream cannot be asked for a sign of life; also where
// the edge itself serves TLS.
func TestAVanishedPeerIsFound(t *testing.T) {
	for name, wrap := range map[string]func(net.Conn) net.Conn{
		"plain": func(c net.Conn) net.Conn { return c },
		"TLS":   func(c net.Conn) net.Conn { return tls.Server(c, &tls.Config{}) },
	} {
		t.Run(name, func(t *testing.T) {
			server, client := tcpPair(t)
			defer client.Close()
			defer server.Close()
			tune(wrap(server))
			raw, err := server.(*net.TCPConn).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			got := 0
			_ = raw.Control(func(fd uintptr) {
				got, err = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout)
			})
			if err != nil || got != unacknowledged {
				t.Errorf("unacknowledged data: got %d ms, %v; want %d ms", got, err, unacknowledged)
			}
		})
	}
}
