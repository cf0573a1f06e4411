package hub

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"time"
)

// TestNobodyIsLeftByAStop: a connection that opens while the hub ends is not left behind, for which
// Run would wait as long as the client likes.
func TestNobodyIsLeftByAStop(t *testing.T) {
	for range 300 {
		h := New(10, 10*time.Second, slog.New(slog.DiscardHandler))
		l := h.NewLine(&counting{})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { _ = h.Run(ctx); close(done) }()
		opened := make(chan struct{})
		server, client := tcpPair(t)
		go func() { l.open(server, webSocket, Fan{Position: 1}, nil, ""); close(opened) }()
		cancel()
		<-opened
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Errorf("the hub has not ended, with %d connections open", h.Open())
			_ = client.Close()
			<-done
			return
		}
		if got := h.Open(); got != 0 {
			t.Fatalf("open: got %d, want 0", got)
		}
		_ = client.Close()
	}
}

func tcpPair(t *testing.T) (server, client net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if client, err = net.Dial("tcp", listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = listener.Accept(); err != nil {
		t.Fatal(err)
	}
	return server, client
}
