package redistest

import (
	"bytes"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// Proxy stands between a store and Redis, and can break the connection just before the answer to a
// script: Redis has run it, and who asked does not know.
type Proxy struct {
	// Addr is host:port.
	Addr string
	// Lost counts the answers that got lost.
	Lost atomic.Int64

	target string
	armed  atomic.Bool
	often  atomic.Int64 // of how many scripts one loses its answer; 0 for none

	mu    sync.Mutex
	conns []net.Conn
	done  sync.WaitGroup
}

// StartProxy starts a proxy before a server, until the test ends.
func StartProxy(t testing.TB, server *Server) *Proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	p := &Proxy{Addr: listener.Addr().String(), target: server.Addr}
	p.done.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			p.done.Go(func() { p.serve(client) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		p.mu.Lock()
		for _, c := range p.conns {
			c.Close()
		}
		p.mu.Unlock()
		p.done.Wait()
	})
	return p
}

// LoseReply makes the answer to the next script get lost.
func (p *Proxy) LoseReply() { p.armed.Store(true) }

// LoseReplies makes the answer to one of so many scripts get lost, chosen at random; 0 ends that.
func (p *Proxy) LoseReplies(often int) { p.often.Store(int64(often)) }

// loses reports whether the answer to a script is to be lost.
func (p *Proxy) loses() bool {
	often := p.often.Load()
	return p.armed.CompareAndSwap(true, false) || often > 0 && rand.Int64N(often) == 0
}

func (p *Proxy) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer server.Close()
	p.mu.Lock()
	p.conns = append(p.conns, client, server)
	p.mu.Unlock()

	var losing atomic.Bool
	p.done.Go(func() {
		defer server.Close()
		buffer := make([]byte, 1<<16)
		for {
			n, err := client.Read(buffer)
			if n > 0 {
				if bytes.Contains(buffer[:n], []byte("evalsha")) && p.loses() {
					losing.Store(true)
				}
				if _, err := server.Write(buffer[:n]); err != nil {
					return
				}
			}
			if err != nil {
				return
			}
		}
	})
	buffer := make([]byte, 1<<16)
	for {
		n, err := server.Read(buffer)
		if losing.Load() && n > 0 {
			p.Lost.Add(1)
			return
		}
		if n > 0 {
			if _, err := client.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
