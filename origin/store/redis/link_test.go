package redis_test

import (
	"net"
	"sync"
	"testing"
)

// link stands before a server as a stretch of network: it can stall, so that both ends keep their
// connections and hear no more of each other, and it can lead to another server.
type link struct {
	addr string

	done sync.WaitGroup

	mu      sync.Mutex // guards what follows
	moved   *sync.Cond // of mu; stalled or closed has changed
	stalled bool       // nothing gets through
	target  string
	conns   []net.Conn
	closed  bool
}

func startLink(t *testing.T, target string) *link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	l := &link{addr: listener.Addr().String(), target: target}
	l.moved = sync.NewCond(&l.mu)
	l.done.Go(func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			l.done.Go(func() { l.carry(near) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		l.mu.Lock()
		l.closed = true
		l.moved.Broadcast()
		l.mu.Unlock()
		l.lead("")
		l.done.Wait()
	})
	return l
}

func (l *link) carry(near net.Conn) {
	defer near.Close()
	l.mu.Lock()
	target := l.target
	l.mu.Unlock()
	far, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer far.Close()
	l.mu.Lock()
	if l.closed || l.target != target {
		l.mu.Unlock()
		return
	}
	l.conns = append(l.conns, near, far)
	l.mu.Unlock()
	var back sync.WaitGroup
	back.Go(func() { l.pump(far, near) })
	l.pump(near, far)
	back.Wait()
}

func (l *link) pump(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buffer := make([]byte, 1<<16)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			l.wait()
			if _, failed := to.Write(buffer[:n]); failed != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// wait returns when the link is not stalled.
func (l *link) wait() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.stalled && !l.closed {
		l.moved.Wait()
	}
}

// stall lets nothing through any more, until flow is called.
func (l *link) stall() { l.set(true) }

func (l *link) flow() { l.set(false) }

func (l *link) set(stalled bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stalled = stalled
	l.moved.Broadcast()
}

// lead breaks all connections and leads new ones elsewhere.
func (l *link) lead(target string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.target = target
	for _, conn := range l.conns {
		conn.Close()
	}
	l.conns = nil
}
