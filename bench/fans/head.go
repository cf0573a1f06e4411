package fans

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
	"time"
)

// A crowd asks for every WebSocket with the same key, so that the answer to it is the same too; the
// key is against caches, and guards nothing else (RFC 6455, section 10.3).
const (
	socketKey    = "dGhlIHNhbXBsZSBub25jZQ=="
	socketAccept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
)

// longestHead is the longest head of an answer.
const longestHead = 8 << 10

// head is that of an answer.
type head struct {
	status     int
	accept     string // Sec-WebSocket-Accept
	content    string // Content-Type
	retryAfter time.Duration
	chunked    bool
	size       int // 0 while data does not hold all of it
}

var errBadHead = errors.New("the head of the answer is malformed")

// parseHead reads the head with which data begins.
func parseHead(data []byte) (head, error) {
	end := bytes.Index(data, []byte("\r\n\r\n"))
	if end < 0 {
		if len(data) > longestHead {
			return head{}, errBadHead
		}
		return head{}, nil
	}
	h := head{size: end + 4}
	first, fields, _ := strings.Cut(string(data[:end]), "\r\n")
	protocol, code, found := strings.Cut(first, " ")
	if !found || protocol != "HTTP/1.1" || len(code) < 3 {
		return head{}, errBadHead
	}
	var err error
	if h.status, err = strconv.Atoi(code[:3]); err != nil {
		return head{}, errBadHead
	}
	for line := range strings.SplitSeq(fields, "\r\n") {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch strings.ToLower(name) {
		case "sec-websocket-accept":
			h.accept = value
		case "content-type":
			h.content = value
		case "transfer-encoding":
			h.chunked = strings.EqualFold(value, "chunked")
		case "retry-after":
			seconds, err := strconv.ParseUint(value, 10, 20)
			if err != nil {
				return head{}, errBadHead
			}
			h.retryAfter = time.Duration(seconds) * time.Second
		}
	}
	return h, nil
}
