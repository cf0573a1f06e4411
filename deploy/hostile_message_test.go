package deploy_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// message is a request as text, so that it can be wrong in every way.
type message struct {
	method, target string
	headers        []string // whole lines
	body           string
	// bare leaves out Host and Content-Length.
	bare bool
}

func (m message) bytes(host string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\n", m.method, m.target)
	if !m.bare {
		fmt.Fprintf(&b, "Host: %s\r\n", host)
	}
	for _, line := range m.headers {
		b.WriteString(line + "\r\n")
	}
	if !m.bare && (m.body != "" || m.method == "POST" || m.method == "PATCH") {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(m.body))
	}
	b.WriteString("\r\n" + m.body)
	return b.Bytes()
}

// with adds header lines.
func (m message) with(lines ...string) message {
	m.headers = slices.Concat(m.headers, lines)
	return m
}

// without removes the lines of a header.
func (m message) without(name string) message {
	m.headers = slices.DeleteFunc(slices.Clone(m.headers), func(line string) bool {
		return len(line) > len(name) && line[len(name)] == ':' && strings.EqualFold(line[:len(name)], name)
	})
	return m
}

// set replaces a header.
func (m message) set(name, value string) message { return m.without(name).with(name + ": " + value) }

// exchange sends bytes over a connection of its own, and reads all answers until the server closes
// it. The sending half is closed after the first answer, since some servers give a request up whose
// sender seems to have gone; with cut it is closed at once.
func exchange(server string, request []byte, cut bool) ([]answer, error) {
	connection, err := net.DialTimeout("tcp", server, 10*time.Second)
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	if err := connection.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return nil, err
	}
	// A server may refuse before it has read everything, and close: then this end's writes fail
	// while the answer is there to be read.
	go func() {
		_, _ = connection.Write(request)
		if cut {
			_ = connection.(*net.TCPConn).CloseWrite()
		}
	}()
	method, _, _ := bytes.Cut(request, []byte{' '})
	from := bufio.NewReader(connection)
	var answers []answer
	for {
		if _, err := from.Peek(1); err != nil {
			if errors.Is(err, io.EOF) || len(answers) > 0 && !isTimeout(err) {
				return answers, nil
			}
			return answers, err
		}
		response, err := http.ReadResponse(from, &http.Request{Method: string(method)})
		if err != nil {
			return answers, fmt.Errorf("read answer %d: %w", len(answers)+1, err)
		}
		text, err := io.ReadAll(response.Body)
		if err != nil {
			return answers, fmt.Errorf("read body of answer %d: %w", len(answers)+1, err)
		}
		if response.StatusCode == http.StatusContinue {
			continue
		}
		a := answer{status: response.StatusCode, header: response.Header, raw: string(text)}
		a.header.Set("X-Test-Close", fmt.Sprint(response.Close))
		_ = json.Unmarshal(text, &a.body)
		answers = append(answers, a)
		_ = connection.(*net.TCPConn).CloseWrite()
	}
}

func isTimeout(err error) bool {
	var network net.Error
	return errors.As(err, &network) && network.Timeout()
}
