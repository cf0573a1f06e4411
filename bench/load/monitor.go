package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
)

// monitor counts the commands that Redis is sent by all clients together: those of joins, ticks,
// sightings and the feed. What scripts call inside of the server is not sent, and is told apart.
type monitor struct {
	connection net.Conn
	counted    chan monitored
}

type monitored struct {
	commands int
	err      error
}

// monitorBuffer is large, so that Redis never has to wait for us.
const monitorBuffer = 1 << 20

func startMonitor(ctx context.Context, address string) (*monitor, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("monitor redis: %w", err)
	}
	reader := bufio.NewReaderSize(c, monitorBuffer)
	if _, err = c.Write([]byte("MONITOR\r\n")); err == nil {
		_, err = reader.ReadSlice('\n') // +OK
	}
	if err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("monitor redis: %w", err)
	}
	m := &monitor{connection: c, counted: make(chan monitored, 1)}
	go func() {
		n, err := countSent(reader)
		m.counted <- monitored{n, err}
	}()
	return m, nil
}

// stop ends the monitor and returns the count.
func (m *monitor) stop() (int, error) {
	if err := m.connection.Close(); err != nil {
		return 0, fmt.Errorf("stop monitor: %w", err)
	}
	counted := <-m.counted
	if counted.err != nil && !errors.Is(counted.err, net.ErrClosed) {
		return 0, fmt.Errorf("monitor redis: %w", counted.err)
	}
	return counted.commands, nil
}

// countSent counts the lines of a monitor until it ends, but not those of scripts' inner calls:
// +TIME [DB CLIENT] "COMMAND" … where CLIENT is lua for these.
func countSent(lines *bufio.Reader) (int, error) {
	count, begins := 0, true
	for {
		line, err := lines.ReadSlice('\n')
		if begins && len(line) > 0 {
			head, _, _ := bytes.Cut(line, []byte("]"))
			if !bytes.HasSuffix(head, []byte(" lua")) {
				count++
			}
		}
		switch {
		case err == nil:
			begins = true
		case errors.Is(err, bufio.ErrBufferFull):
			begins = false // the rest of a long line follows
		case errors.Is(err, io.EOF):
			return count, nil
		default:
			return count, err
		}
	}
}
