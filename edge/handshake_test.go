package edge

import (
	"io"
	"net/http"
	"net/textproto"
	"strings"
	"testing"

	"waitingroom/origin/queue"
)

// TestHandshakes: what RFC 6455, section 4.2 asks of a client's handshake, and what this service asks
// besides. A refusal leaves the connection usable for HTTP or closes it, and says why in a problem.
func TestHandshakes(t *testing.T) {
	o := newScripted(t)
	o.log("acme.sale", queue.Entry{Kind: queue.EntryJoined, Issued: 5})
	e := startEdge(t, o, manyLive)
	token, id := o.ticketAt(t, 3)
	_, otherID := o.ticketAt(t, 4)
	get := "GET /tickets/" + id + "/ws HTTP/1.1\r\nHost: x\r\n"
	bearer := "Authorization: Bearer " + token + "\r\n"
	cookie := "Cookie: wr_ticket_acme.sale=" + token + "\r\n"
	page := "Origin: " + e.PublicURL() + "\r\n"
	shop := "Origin: " + shopOrigin + "\r\n"
	const (
		connection = "Connection: Upgrade\r\n"
		upgrade    = "Upgrade: websocket\r\n"
		version    = "Sec-WebSocket-Version: 13\r\n"
		key        = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
		ours       = "Sec-WebSocket-Protocol: waitingroom.v1\r\n"
		stranger   = "Origin: https://evil.example\r\n"
	)
	protocols := func(offered string) string { return "Sec-WebSocket-Protocol: " + offered + "\r\n" }
	for name, test := range map[string]struct {
		request  string
		status   int
		code     string // of the problem
		protocol string // that is selected
	}{
		"all is well":                      {get + bearer + shakes, 101, "", ""},
		"with the subprotocol":             {get + bearer + shakes + ours, 101, "", "waitingroom.v1"},
		"names in other letters":           {get + bearer + "connection: UPGRADE\r\nUPGRADE: WebSocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n", 101, "", ""},
		"Connection with more":             {get + bearer + "Connection: keep-alive, Upgrade\r\n" + upgrade + version + key, 101, "", ""},
		"Upgrade with more":                {get + bearer + connection + "Upgrade: h2c, websocket\r\n" + version + key, 101, "", ""},
		"compression offered":              {get + bearer + shakes + "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n", 101, "", ""},
		"unknown extension offered":        {get + bearer + shakes + "Sec-WebSocket-Extensions: x-unheard-of\r\n", 101, "", ""},
		"no Connection":                    {get + bearer + upgrade + version + key, 426, "websocket_required", ""},
		"another Connection":               {get + bearer + "Connection: keep-alive\r\n" + upgrade + version + key, 426, "websocket_required", ""},
		"Connection that begins like it":   {get + bearer + "Connection: Upgrades\r\n" + upgrade + version + key, 426, "websocket_required", ""},
		"asks to be closed":                {get + bearer + "Connection: Upgrade, close\r\n" + upgrade + version + key, 426, "websocket_required", ""},
		"no Upgrade":                       {get + bearer + connection + version + key, 426, "websocket_required", ""},
		"another Upgrade":                  {get + bearer + connection + "Upgrade: h2c\r\n" + version + key, 426, "websocket_required", ""},
		"Upgrade that begins like it":      {get + bearer + connection + "Upgrade: websockets\r\n" + version + key, 426, "websocket_required", ""},
		"no version":                       {get + bearer + connection + upgrade + key, 426, "websocket_required", ""},
		"an earlier version":               {get + bearer + connection + upgrade + key + "Sec-WebSocket-Version: 8\r\n", 426, "websocket_required", ""},
		"a version that begins like it":    {get + bearer + connection + upgrade + key + "Sec-WebSocket-Version: 130\r\n", 426, "websocket_required", ""},
		"a version that is no number":      {get + bearer + connection + upgrade + key + "Sec-WebSocket-Version: x\r\n", 426, "websocket_required", ""},
		"two versions":                     {get + bearer + connection + upgrade + key + version + "Sec-WebSocket-Version: 8\r\n", 426, "websocket_required", ""},
		"no key":                           {get + bearer + connection + upgrade + version, 426, "websocket_required", ""},
		"an empty key":                     {get + bearer + connection + upgrade + version + "Sec-WebSocket-Key:\r\n", 426, "websocket_required", ""},
		"a short key":                      {get + bearer + connection + upgrade + version + "Sec-WebSocket-Key: AAAA\r\n", 426, "websocket_required", ""},
		"a key of 15 bytes":                {get + bearer + connection + upgrade + version + "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAA\r\n", 426, "websocket_required", ""},
		"a key of 17 bytes":                {get + bearer + connection + upgrade + version + "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAA=\r\n", 426, "websocket_required", ""},
		"a key without padding":            {get + bearer + connection + upgrade + version + "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ\r\n", 426, "websocket_required", ""},
		"a key that is not base64":         {get + bearer + connection + upgrade + version + "Sec-WebSocket-Key: ************************\r\n", 426, "websocket_required", ""},
		"a key with spare bits":            {get + bearer + connection + upgrade + version + "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZR==\r\n", 426, "websocket_required", ""},
		"two keys":                         {get + bearer + shakes + key, 426, "websocket_required", ""},
		"two keys that differ":             {get + bearer + shakes + "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n", 426, "websocket_required", ""},
		"nothing of a handshake":           {get + bearer, 426, "websocket_required", ""},
		"HTTP/1.0":                         {strings.Replace(get, "1.1", "1.0", 1) + bearer + shakes, 426, "websocket_required", ""},
		"HTTP/1.0 without Host":            {"GET /tickets/" + id + "/ws HTTP/1.0\r\n" + bearer + shakes, 426, "websocket_required", ""},
		"no Host":                          {"GET /tickets/" + id + "/ws HTTP/1.1\r\n" + bearer + shakes, 400, "", ""},
		"POST":                             {"POST" + get[3:] + bearer + shakes + "Content-Length: 0\r\n", 405, "method_not_allowed", ""},
		"HEAD":                             {"HEAD" + get[3:] + bearer + shakes, 405, "", ""},
		"OPTIONS":                          {"OPTIONS" + get[3:] + bearer + shakes, 405, "method_not_allowed", ""},
		"another path":                     {strings.Replace(get, "/ws ", "/wss ", 1) + bearer + shakes, 404, "not_found", ""},
		"no ticket":                        {get + shakes, 401, "ticket_required", ""},
		"no ticket, with the subprotocol":  {get + shakes + ours, 401, "ticket_required", ""},
		"another's ticket":                 {strings.Replace(get, id, otherID, 1) + bearer + shakes, 401, "invalid_ticket", ""},
		"the ticket of an unknown queue":   {strings.Replace(get, id, "inc9-3", 1) + bearer + shakes, 401, "invalid_ticket", ""},
		"rubbish for a ticket":             {get + shakes + "Authorization: Bearer x\r\n", 401, "invalid_ticket", ""},
		"another scheme":                   {get + shakes + "Authorization: Basic eDp5\r\n", 400, "malformed_authorization", ""},
		"a ticket twice":                   {get + bearer + bearer + shakes, 400, "duplicate_credentials", ""},
		"subprotocol and ticket":           {get + shakes + protocols("waitingroom.v1, ticket."+token), 101, "", "waitingroom.v1"},
		"ticket and subprotocol":           {get + shakes + protocols("ticket."+token+", waitingroom.v1"), 101, "", "waitingroom.v1"},
		"without blanks between":           {get + shakes + protocols("waitingroom.v1,ticket."+token), 101, "", "waitingroom.v1"},
		"with blanks between":              {get + shakes + protocols(" waitingroom.v1 \t,\t ticket."+token+" "), 101, "", "waitingroom.v1"},
		"among others":                     {get + shakes + protocols("chat, waitingroom.v2, waitingroom.v1, ticket."+token+", mqtt"), 101, "", "waitingroom.v1"},
		"in two lines":                     {get + shakes + ours + protocols("ticket."+token), 101, "", "waitingroom.v1"},
		"in two lines, the ticket first":   {get + shakes + protocols("ticket."+token) + ours, 101, "", "waitingroom.v1"},
		"the subprotocol twice":            {get + shakes + protocols("waitingroom.v1, waitingroom.v1, ticket."+token), 101, "", "waitingroom.v1"},
		"ticket without subprotocol":       {get + shakes + protocols("ticket."+token), 400, "unknown_subprotocol", ""},
		"bearer and another subprotocol":   {get + bearer + shakes + protocols("chat"), 400, "unknown_subprotocol", ""},
		"a later subprotocol":              {get + bearer + shakes + protocols("waitingroom.v2"), 400, "unknown_subprotocol", ""},
		"subprotocol in other letters":     {get + bearer + shakes + protocols("WaitingRoom.v1"), 400, "unknown_subprotocol", ""},
		"an empty subprotocol":             {get + bearer + shakes + protocols(""), 400, "unknown_subprotocol", ""},
		"two tickets as subprotocols":      {get + shakes + protocols("waitingroom.v1, ticket."+token+", ticket."+token), 400, "duplicate_credentials", ""},
		"two tickets in two lines":         {get + shakes + protocols("waitingroom.v1, ticket."+token) + protocols("ticket."+token), 400, "duplicate_credentials", ""},
		"bearer and ticket as subprotocol": {get + bearer + shakes + protocols("waitingroom.v1, ticket."+token), 400, "duplicate_credentials", ""},
		"an empty ticket as subprotocol":   {get + shakes + protocols("waitingroom.v1, ticket."), 401, "invalid_ticket", ""},
		"rubbish as ticket subprotocol":    {get + shakes + protocols("waitingroom.v1, ticket.x.y.z"), 401, "invalid_ticket", ""},

		"cookie and the page":                 {get + cookie + shakes + page, 101, "", ""},
		"cookie, page and subprotocol":        {get + cookie + shakes + page + ours, 101, "", "waitingroom.v1"},
		"cookie without Origin":               {get + cookie + shakes, 403, "origin_forbidden", ""},
		"cookie and an empty Origin":          {get + cookie + shakes + "Origin:\r\n", 403, "origin_forbidden", ""},
		"cookie and null":                     {get + cookie + shakes + "Origin: null\r\n", 403, "origin_forbidden", ""},
		"cookie and the shop":                 {get + cookie + shakes + shop, 403, "origin_forbidden", ""},
		"cookie and a stranger":               {get + cookie + shakes + stranger, 403, "origin_forbidden", ""},
		"cookie and the page twice":           {get + cookie + shakes + page + page, 403, "origin_forbidden", ""},
		"cookie, the page and a stranger":     {get + cookie + shakes + page + stranger, 403, "origin_forbidden", ""},
		"cookie, a stranger and the page":     {get + cookie + shakes + stranger + page, 403, "origin_forbidden", ""},
		"cookie and the page with a path":     {get + cookie + shakes + "Origin: " + e.PublicURL() + "/\r\n", 403, "origin_forbidden", ""},
		"cookie and a longer name":            {get + cookie + shakes + "Origin: " + e.PublicURL() + ".evil.example\r\n", 403, "origin_forbidden", ""},
		"cookie and the page over TLS":        {get + cookie + shakes + "Origin: " + strings.Replace(e.PublicURL(), "http:", "https:", 1) + "\r\n", 403, "origin_forbidden", ""},
		"cookie and Referer alone":            {get + cookie + shakes + "Referer: " + e.PublicURL() + "/wait/acme.sale\r\n", 403, "origin_forbidden", ""},
		"cookie twice":                        {get + cookie + cookie + shakes + page, 400, "duplicate_credentials", ""},
		"bearer and the page":                 {get + bearer + shakes + page, 101, "", ""},
		"bearer and the shop":                 {get + bearer + shakes + shop, 101, "", ""},
		"bearer and a stranger":               {get + bearer + shakes + stranger, 403, "origin_forbidden", ""},
		"bearer and null":                     {get + bearer + shakes + "Origin: null\r\n", 403, "origin_forbidden", ""},
		"bearer and the shop twice":           {get + bearer + shakes + shop + shop, 400, "duplicate_header", ""},
		"bearer, the shop and a stranger":     {get + bearer + shakes + shop + stranger, 400, "duplicate_header", ""},
		"bearer and the shop over plain HTTP": {get + bearer + shakes + "Origin: http://shop.example\r\n", 403, "origin_forbidden", ""},
		"bearer and the shop in other case":   {get + bearer + shakes + "Origin: https://SHOP.example\r\n", 403, "origin_forbidden", ""},
		"subprotocol and the page":            {get + shakes + page + protocols("waitingroom.v1, ticket."+token), 101, "", "waitingroom.v1"},
		"subprotocol and the shop":            {get + shakes + shop + protocols("waitingroom.v1, ticket."+token), 101, "", "waitingroom.v1"},
		"subprotocol and a stranger":          {get + shakes + stranger + protocols("waitingroom.v1, ticket."+token), 403, "origin_forbidden", ""},
		"subprotocol and the shop twice":      {get + shakes + shop + shop + protocols("waitingroom.v1, ticket."+token), 400, "duplicate_header", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := e.connect(t)
			s.send(t, test.request+"\r\n")
			response, err := http.ReadResponse(s.in, &http.Request{Method: strings.Fields(test.request)[0]})
			if err != nil {
				t.Fatal(err)
			}
			if response.StatusCode != http.StatusSwitchingProtocols {
				body, _ := io.ReadAll(response.Body)
				got := answer{response.StatusCode, response.Header, string(body)}
				if got.status != test.status {
					t.Errorf("got %d %s, want %d", got.status, got.body, test.status)
				}
				if test.code != "" && got.code(t) != test.code {
					t.Errorf("got %s, want %s", got.body, test.code)
				}
				if got.status == 426 && (got.header.Get("Upgrade") != "websocket" || got.header.Get("Sec-WebSocket-Version") != "13") {
					t.Errorf("got %v, want what to upgrade to", got.header)
				}
				return
			}
			for name, want := range map[string][]string{
				"Upgrade": {"websocket"}, "Connection": {"Upgrade"}, "Sec-Websocket-Extensions": nil,
				"Sec-Websocket-Accept": {"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="}, // as in RFC 6455, section 1.3
			} {
				if got := response.Header[textproto.CanonicalMIMEHeaderKey(name)]; strings.Join(got, "|") != strings.Join(want, "|") {
					t.Errorf("%s: got %q, want %q", name, got, want)
				}
			}
			if got := response.Header.Values("Sec-WebSocket-Protocol"); strings.Join(got, "|") != test.protocol {
				t.Errorf("subprotocol: got %q, want %q", got, test.protocol)
			}
			if test.status != http.StatusSwitchingProtocols {
				t.Errorf("got 101, want %d", test.status)
			}
			s.until(t, func(opcode byte, payload string) bool {
				return opcode == text && strings.HasPrefix(payload, `{"type":"status",`) && strings.Contains(payload, `"position":3,`)
			})
		})
	}
}

// TestHandshakeWithCompression: what is offered is not taken, so a compressed message is refused.
func TestHandshakeWithCompression(t *testing.T) {
	o := newScripted(t)
	o.log("acme.sale", queue.Entry{Kind: queue.EntryJoined, Issued: 5})
	e := startEdge(t, o, manyLive)
	token, id := o.ticketAt(t, 3)
	s := e.connect(t)
	s.send(t, "GET /tickets/"+id+"/ws HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+token+"\r\n"+shakes+
		"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n")
	if response, err := http.ReadResponse(s.in, nil); err != nil || response.StatusCode != 101 {
		t.Fatalf("got %+v %v, want 101", response, err)
	}
	s.expect(t, frameCase{send: masked(fin|0x40|text, "\xf2\x48\xcd\xc9\xc9\x07\x00"), code: 1002}) // "Hello", as in RFC 7692
}

// TestAfterARefusal the same connection can be used for another handshake.
func TestAfterARefusal(t *testing.T) {
	o := newScripted(t)
	o.log("acme.sale", queue.Entry{Kind: queue.EntryJoined, Issued: 5})
	e := startEdge(t, o, manyLive)
	token, id := o.ticketAt(t, 3)
	s := e.connect(t)
	for _, want := range []int{401, 101} {
		request := "GET /tickets/" + id + "/ws HTTP/1.1\r\nHost: x\r\n" + shakes
		if want == 101 {
			request += "Authorization: Bearer " + token + "\r\n"
		}
		s.send(t, request+"\r\n")
		response, err := http.ReadResponse(s.in, nil)
		if err != nil || response.StatusCode != want {
			t.Fatalf("got %+v %v, want %d", response, err, want)
		}
		if want != 101 {
			_, _ = io.Copy(io.Discard, response.Body)
		}
	}
	s.expect(t, frameCase{send: masked(fin|pings, "x"), pongs: []string{"x"}, code: goesOn})
}
