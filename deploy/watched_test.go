package deploy_test

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
)

// watched is a running program, seen through its admin listener.
type watched struct {
	in   *installation
	name string
	url  string
}

func (in *installation) watchedEdge(i int) watched {
	return watched{in, fmt.Sprintf("edge %d", i+1), in.admin.edges[i]}
}

func (in *installation) watchedOrigin(i int) watched {
	return watched{in, fmt.Sprintf("origin %d", i+1), in.admin.origins[i]}
}

// metric reads a gauge or counter without labels.
func (w watched) metric(name string) float64 {
	w.in.t.Helper()
	got := w.in.request("GET", w.url+"/metrics", "", nil)
	_, after, found := strings.Cut("\n"+got.raw, "\n"+name+" ")
	text, _, _ := strings.Cut(after, "\n")
	value, err := strconv.ParseFloat(text, 64)
	if !found || err != nil {
		w.in.t.Fatalf("%s: got no metric %s", w.name, name)
	}
	return value
}

// resident is the resident memory in MiB.
func (w watched) resident() float64 { return w.metric("process_resident_memory_bytes") / (1 << 20) }

func (w watched) connections() int { return int(w.metric("waitingroom_edge_connections")) }

// goroutines counts them as pprof does, without those that serve the question.
func (w watched) goroutines() int {
	w.in.t.Helper()
	got := w.in.request("GET", w.url+"/debug/pprof/goroutine?debug=1", "", nil)
	var n int
	if _, err := fmt.Sscanf(got.raw, "goroutine profile: total %d", &n); err != nil {
		w.in.t.Fatalf("%s: read the count of goroutines: %v", w.name, err)
	}
	return n
}

// rawClient is one connection on which requests are sent as bytes, so that the measuring costs
// little beside what is measured.
type rawClient struct {
	conn net.Conn
	in   *bufio.Reader
	got  fasthttp.Response
}

func dialRaw(url string) (*rawClient, error) {
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return &rawClient{conn: conn, in: bufio.NewReader(conn)}, nil
}

// ask sends a request and reads the answer, which is valid until the next one.
func (c *rawClient) ask(request []byte) (status int, body []byte, err error) {
	if err := c.conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return 0, nil, err
	}
	if _, err := c.conn.Write(request); err != nil {
		return 0, nil, err
	}
	if err := c.got.Read(c.in); err != nil {
		return 0, nil, err
	}
	return c.got.StatusCode(), c.got.Body(), nil
}

func (c *rawClient) close() { _ = c.conn.Close() }

// rawRequest writes a request; headers are given as "Name: value".
func rawRequest(method, path, body string, headers ...string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: wait.example.com\r\n", method, path)
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	if body != "" {
		fmt.Fprintf(&b, "Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	}
	b.WriteString("\r\n" + body)
	return b.Bytes()
}

// quantile is the value below which a share of the values lies; it sorts them.
func quantile[V time.Duration | float64](values []V, share float64) V {
	slices.Sort(values)
	return values[min(int(share*float64(len(values))), len(values)-1)]
}
