package hub

import "syscall"

// tcpUserTimeout is TCP_USER_TIMEOUT of tcp(7).
const tcpUserTimeout = 18

// unacknowledged is how long the peer's kernel may leave unacknowledged what was sent, in
// milliseconds. Something is sent at least every 15 s, so a peer that vanished without a word is found
// by this, also where nothing can be asked of it.
const unacknowledged = 30_000

func setUserTimeout(fd uintptr) {
	_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, unacknowledged)
}
