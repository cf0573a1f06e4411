package hub

import (
	"net"
	"testing"
	"time"
)

// deadlines tells what read deadlines are set.
type deadlines struct {
	*net.TCPConn
	set chan time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error {
	if !t.IsZero() {
		d.set <- t
	}
	return d.TCPConn.SetReadDeadline(t)
}

// TestPatienceIsForTheWhole: a message that comes byte by byte, or in pieces without end, has no more
// time than one that does not come, while what it takes to read it is held.
func TestPatienceIsForTheWhole(t *testing.T) {
	r := startRig(t, &counting{}, nil)
	server, client := tcpPair(t)
	defer client.Close()
	over := &deadlines{server.(*net.TCPConn), make(chan time.Time, 100)}
	c := &Conn{Fan: Fan{Position: 1}, line: r.line, conn: over, raw: tune(server)}
	c.ahead.Store(NoAhead)
	r.line.add(c)
	r.hub.open.Add(1)
	done := make(chan struct{})
	go func() { c.receive(); close(done) }()
	var first time.Time
	for i, b := range [][]byte{{0x01}, {0x80}, {0, 0, 0, 0}, {0x00}, {0x80}, {0, 0, 0, 0}, {0x00, 0x80}} {
		if _, err := client.Write(b); err != nil {
			t.Fatal(err)
		}
		select {
		case at := <-over.set:
			if first.IsZero() {
				first = at
			} else if !at.Equal(first) {
				t.Errorf("after piece %d: got until %v later than at first", i+1, at.Sub(first))
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("after piece %d: nobody waits for more", i+1)
		}
	}
	_ = client.Close()
	<-done
	waitFor(t, "its end", func() bool { return r.hub.Open() == 0 })
}
