package main

import (
	"bytes"
	"errors"
	"strconv"
)

var (
	errNotHTTP     = errors.New("the answer is not HTTP/1.1")
	errNoLength    = errors.New("the answer has no Content-Length")
	errLongMessage = errors.New("the answer does not fit into the buffer")
)

// response is where an answer lies in what was read from a connection.
type response struct {
	status int
	head   int // bytes up to the body
	size   int // bytes altogether
}

var (
	protocol   = []byte("HTTP/1.1 ")
	headEnd    = []byte("\r\n\r\n")
	lengthName = []byte("\r\ncontent-length:")
)

// parseResponse reads the head of an answer; complete is false while data does not hold all of the
// answer. It knows as much of HTTP (RFC 9112) as servers that are measured speak: a length, or a
// status that has no body.
func parseResponse(data []byte) (r response, complete bool, err error) {
	end := bytes.Index(data, headEnd)
	if end < 0 {
		if !bytes.HasPrefix(data, protocol[:min(len(protocol), len(data))]) {
			return response{}, false, errNotHTTP
		}
		return response{}, false, nil
	}
	if !bytes.HasPrefix(data, protocol) || end < len(protocol)+3 {
		return response{}, false, errNotHTTP
	}
	r.status, err = strconv.Atoi(string(data[len(protocol) : len(protocol)+3]))
	if err != nil {
		return response{}, false, errNotHTTP
	}
	r.head = end + len(headEnd)
	length := 0
	if r.status != 204 && r.status != 304 {
		if length, err = contentLength(data[:end+2]); err != nil {
			return response{}, false, err
		}
	}
	r.size = r.head + length
	return r, len(data) >= r.size, nil
}

// contentLength finds the header in a head that ends with a line's end.
func contentLength(head []byte) (int, error) {
	for line := head; ; {
		i := bytes.IndexByte(line, '\r')
		if i < 0 || len(line)-i < len(lengthName) {
			return 0, errNoLength
		}
		line = line[i:]
		if bytes.EqualFold(line[:len(lengthName)], lengthName) {
			value := line[len(lengthName):]
			n, err := strconv.Atoi(string(bytes.TrimSpace(value[:bytes.IndexByte(value, '\r')])))
			if err != nil || n < 0 {
				return 0, errNoLength
			}
			return n, nil
		}
		line = line[1:]
	}
}
