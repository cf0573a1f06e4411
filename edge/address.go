package edge

import (
	"bytes"
	"net"
	"net/netip"

	"github.com/valyala/fasthttp"
)

// clientAddresses finds out who a client is behind the proxies that the configuration trusts.
type clientAddresses struct {
	trusted []netip.Prefix
}

// newClientAddresses takes networks that the configuration's check has parsed before.
func newClientAddresses(networks []string) clientAddresses {
	var c clientAddresses
	for _, network := range networks {
		if prefix, err := netip.ParsePrefix(network); err == nil {
			c.trusted = append(c.trusted, prefix.Masked())
		}
	}
	return c
}

func (c clientAddresses) trusts(address netip.Addr) bool {
	for _, prefix := range c.trusted {
		if prefix.Contains(address) {
			return true
		}
	}
	return false
}

// of is the client's address. Each proxy appends to X-Forwarded-For whom it heard, so the list is
// read from the right, past every proxy that is trusted: the first address that is not was
// written by one that is, and what stands to its left is only claimed. Where all are trusted, the
// leftmost is the client; where there is no list, or an element on the way cannot be read, the
// peer's own address counts. Invalid where the peer has none.
func (c clientAddresses) of(ctx *fasthttp.RequestCtx) netip.Addr {
	peer := peerAddress(ctx.RemoteAddr())
	if !peer.IsValid() || !c.trusts(peer) {
		return peer
	}
	client := peer
	lines := ctx.Request.Header.PeekAll(fasthttp.HeaderXForwardedFor)
	for i := len(lines) - 1; i >= 0; i-- {
		for rest, more := lines[i], true; more; {
			var hop []byte
			if comma := bytes.LastIndexByte(rest, ','); comma >= 0 {
				rest, hop = rest[:comma], rest[comma+1:]
			} else {
				hop, more = rest, false
			}
			address, ok := parseHop(hop)
			if !ok {
				return peer
			}
			if !c.trusts(address) {
				return address
			}
			client = address
		}
	}
	return client
}

// longestHop is the longest way to write an address: an IPv6 one in brackets, with a port.
const longestHop = len("[ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255]:65535")

// parseHop reads one element of X-Forwarded-For. Some proxies add the port; a zone means nothing
// to anybody but the machine that wrote it.
func parseHop(hop []byte) (netip.Addr, bool) {
	if hop = bytes.Trim(hop, " \t"); len(hop) > longestHop {
		return netip.Addr{}, false
	}
	if n := len(hop); n > 2 && hop[0] == '[' && hop[n-1] == ']' {
		hop = hop[1 : n-1]
	}
	text := string(hop)
	address, err := netip.ParseAddr(text)
	if err != nil {
		var withPort netip.AddrPort
		if withPort, err = netip.ParseAddrPort(text); err != nil {
			return netip.Addr{}, false
		}
		address = withPort.Addr()
	}
	return address.Unmap().WithZone(""), true
}

func peerAddress(peer net.Addr) netip.Addr {
	tcp, ok := peer.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return tcp.AddrPort().Addr().Unmap().WithZone("")
}
