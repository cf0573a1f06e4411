package edge

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// TestSlowClientsAreCutOff: a client that sends, or reads, byte by byte loses its connection when
// the time for the whole is over, however busy it looks.
func TestSlowClientsAreCutOff(t *testing.T) {
	o := newScripted(t)
	e := startEdge(t, o, func(c *Config) {
		c.Limits.ReadSeconds, c.Limits.WriteSeconds, c.Limits.IdleSeconds = 1, 1, 2
	})
	const whole = "GET /healthz HTTP/1.1\r\nHost: wait.example\r\n\r\n"
	const post = "POST " + joinPath + " HTTP/1.1\r\nHost: wait.example\r\nContent-Type: application/json\r\nContent-Length: 8000\r\n\r\n"
	for name, test := range map[string]struct {
		start string // sent at once
		drip  string // sent again and again
		least time.Duration
		most  time.Duration
	}{
		"slow headers":             {"GET /healthz HTTP/1.1\r\nHost: wait.example\r\n", "X-A: b\r\n", 500 * time.Millisecond, 4 * time.Second},
		"slow body":                {post, " ", 500 * time.Millisecond, 4 * time.Second},
		"nothing":                  {"", "", 500 * time.Millisecond, 4 * time.Second},
		"slow after a request":     {whole, "G", 500 * time.Millisecond, 4 * time.Second},
		"nothing after a request":  {whole, "", 1500 * time.Millisecond, 6 * time.Second},
		"requests without reading": {strings.Repeat("GET /wait/acme.sale HTTP/1.1\r\nHost: wait.example\r\n\r\n", 2000), "\r\n", 500 * time.Millisecond, 8 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", e.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			reads := name != "requests without reading"
			if !reads {
				_ = conn.(*net.TCPConn).SetReadBuffer(4096)
			}
			since := time.Now()
			if err := conn.SetDeadline(since.Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() {
				if reads {
					_, err := io.Copy(io.Discard, bufio.NewReader(conn))
					ended <- err
				}
			}()
			go func() {
				_, err := io.WriteString(conn, test.start)
				drip := time.NewTicker(50 * time.Millisecond)
				defer drip.Stop()
				for err == nil && test.drip != "" {
					<-drip.C
					_, err = io.WriteString(conn, test.drip) // fails once the edge has closed it
				}
				if !reads {
					ended <- err
				}
			}()
			err = <-ended
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal("the connection was kept")
			}
			if took := time.Since(since); took < test.least || took > test.most {
				t.Errorf("cut off after %v, want %v to %v", took, test.least, test.most)
			}
		})
	}
}
