package fans

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// poller is what the loop needs of the system: sockets that never block, and epoll, so that a crowd
// costs the two cores as little as it can beside the edges that are measured.
type poller struct {
	epoll, wake int
	source      unix.SockaddrInet4
	edges       []unix.SockaddrInet4
	buffer      []byte
	request     []byte
	body        []byte // of a chunked stream
}

// wakeIndex stands for the descriptor by which others wake the loop.
const wakeIndex = -1

func newPoller(config Config) (poller, error) {
	p := poller{buffer: make([]byte, 64<<10)}
	var err error
	if p.source, err = socketAddress(config.Source + ":0"); err != nil {
		return p, err
	}
	for _, edge := range config.Edges {
		address, err := socketAddress(edge)
		if err != nil {
			return p, err
		}
		p.edges = append(p.edges, address)
	}
	if p.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return p, fmt.Errorf("create epoll: %w", err)
	}
	if p.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return p, fmt.Errorf("create eventfd: %w", err)
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: wakeIndex}
	if err := unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, p.wake, &event); err != nil {
		return p, fmt.Errorf("watch eventfd: %w", err)
	}
	return p, nil
}

func socketAddress(address string) (unix.SockaddrInet4, error) {
	a, err := netip.ParseAddrPort(address)
	if err != nil || !a.Addr().Is4() {
		return unix.SockaddrInet4{}, fmt.Errorf("read address %q: an IPv4 address and a port are needed: %w", address, err)
	}
	return unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}, nil
}

// post has the loop do something. Any goroutine but the loop's may call it.
func (c *crowd) post(call func()) {
	select {
	case c.calls <- call:
	case <-c.ended:
		return
	}
	one := [8]byte{1}
	_, _ = unix.Write(c.wake, one[:]) // it fails only when the loop is to wake anyway
}

// run is the loop; it ends when stop is closed.
func (c *crowd) run(stop <-chan struct{}) error {
	defer close(c.ended)
	defer c.closeAll()
	events := make([]unix.EpollEvent, 1024)
	for {
		now := time.Now()
		wait := min(c.runTimers(now), c.runPace(now), time.Second)
		c.sweep(now)
		n, err := unix.EpollWait(c.epoll, events, int((wait+time.Millisecond-1)/time.Millisecond))
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for sockets: %w", err)
		}
		for _, event := range events[:max(n, 0)] {
			if event.Fd == wakeIndex {
				var count [8]byte
				_, _ = unix.Read(c.wake, count[:])
				continue
			}
			c.ready(event.Fd, event.Pad, event.Events)
		}
		for more := true; more; {
			select {
			case call := <-c.calls:
				call()
			case <-stop:
				return nil
			default:
				more = false
			}
		}
	}
}

func (c *crowd) closeAll() {
	for i := range c.fans {
		if c.fans[i].fd >= 0 {
			_ = unix.Close(int(c.fans[i].fd))
		}
	}
	_ = unix.Close(c.wake)
	_ = unix.Close(c.epoll)
}

const (
	wantsConnected = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP
	wantsInput     = unix.EPOLLIN | unix.EPOLLRDHUP
	wantsNothing   = unix.EPOLLRDHUP // but to know of the end
	// smallBuffer is what the system keeps for a bad reader, the least that it can, so that the edge
	// soon notices it.
	smallBuffer = 1
)

// connect begins a live connection.
func (c *crowd) connect(i int32) {
	f := &c.fans[i]
	f.serial++
	f.phase, f.heard, f.first, f.chunked = connecting, time.Now(), true, false
	f.rest, f.line, f.retry, f.chunks = nil, nil, 0, chunks{}
	fd, err := c.open(f)
	if err != nil {
		c.tally.wrong("position %d: %v", f.position, err)
		c.finish(i, "no socket", ending{code: closeAbnormal})
		return
	}
	f.fd = int32(fd)
	event := unix.EpollEvent{Events: wantsConnected, Fd: i, Pad: f.serial}
	if err := unix.EpollCtl(c.epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		c.tally.wrong("position %d: watch socket: %v", f.position, err)
		c.finish(i, "no socket", ending{code: closeAbnormal})
		return
	}
	if err := unix.Connect(fd, &c.edges[f.edge]); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		c.finish(i, "not connected", ending{code: closeAbnormal})
	}
}

// open makes a socket that sends from the crowd's own address. Its port is chosen when it connects,
// so that the ports are used up for each edge apart.
func (c *crowd) open(f *fan) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open socket: %w", err)
	}
	err = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	if err == nil && f.reading != well {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, smallBuffer)
	}
	if err == nil {
		err = unix.Bind(fd, &c.source)
	}
	if err != nil {
		_ = unix.Close(fd)
		return 0, fmt.Errorf("set up socket: %w", err)
	}
	return fd, nil
}

// wants tells the system what to wait for on a fan's socket.
func (c *crowd) wants(i int32, events uint32) {
	f := &c.fans[i]
	event := unix.EpollEvent{Events: events, Fd: i, Pad: f.serial}
	if err := unix.EpollCtl(c.epoll, unix.EPOLL_CTL_MOD, int(f.fd), &event); err != nil {
		c.tally.wrong("position %d: watch socket: %v", f.position, err)
	}
}

// ready does what can be done on a fan's socket.
func (c *crowd) ready(i, serial int32, events uint32) {
	f := &c.fans[i]
	if f.serial != serial || f.fd < 0 {
		return
	}
	const over = unix.EPOLLERR | unix.EPOLLHUP
	switch {
	case f.phase == connecting && events&over != 0:
		c.finish(i, "not connected", ending{code: closeAbnormal})
	case f.phase == connecting && events&unix.EPOLLOUT != 0:
		f.phase = greeting
		c.ask(i)
	case f.phase == connecting:
	case f.reading != well && f.phase == live && !f.first:
		if events&(over|unix.EPOLLRDHUP) != 0 {
			c.finish(i, "cut off", ending{code: closeAbnormal})
		}
	case events&(unix.EPOLLIN|unix.EPOLLRDHUP|over) != 0:
		c.read(i, c.buffer)
	}
}

// ask sends the request for a live connection.
func (c *crowd) ask(i int32) {
	f := &c.fans[i]
	c.request = f.appendRequest(c.request[:0], c.config.Edges[f.edge])
	n, err := unix.Write(int(f.fd), c.request)
	if err != nil || n < len(c.request) {
		c.finish(i, "not asked", ending{code: closeAbnormal})
		return
	}
	c.wants(i, wantsInput)
}

// settle is after the first status: a bad reader reads badly from now on.
func (c *crowd) settle(i int32) {
	switch c.fans[i].reading {
	case slowly:
		c.wants(i, wantsNothing)
		c.after(i, toSip, c.spread(sipEvery))
	case never:
		c.wants(i, wantsNothing)
	}
}

// sip lets a slow reader read a little.
func (c *crowd) sip(i int32) {
	serial := c.fans[i].serial
	c.read(i, c.buffer[:sipBytes])
	if f := &c.fans[i]; f.phase == live && f.serial == serial {
		c.after(i, toSip, sipEvery)
	}
}

// read reads what has come, at most one buffer of it; the system says when there is more.
func (c *crowd) read(i int32, buffer []byte) {
	f := &c.fans[i]
	n, err := unix.Read(int(f.fd), buffer)
	switch {
	case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
	case err != nil:
		c.finish(i, "reset", ending{code: closeAbnormal, retry: f.retry})
	case n == 0:
		c.finish(i, "end of stream", ending{code: closeAbnormal, retry: f.retry})
	default:
		c.tally.report.Bytes += uint64(n)
		c.heard(i, buffer[:n], time.Now())
	}
}

// write sends a control frame. A fan whose socket takes nothing does without.
func (c *crowd) write(f *fan, data []byte) { _, _ = unix.Write(int(f.fd), data) }

// hangUp closes a fan's socket.
func (c *crowd) hangUp(f *fan) {
	if f.fd >= 0 {
		_ = unix.Close(int(f.fd)) // and epoll forgets it
		f.fd = -1
	}
}
