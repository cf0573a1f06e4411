package main

import (
	"bufio"
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestResponsesAreReadWhole(t *testing.T) {
	for name, test := range map[string]struct {
		data     string
		status   int
		body     string
		complete bool
		err      error
	}{
		"whole":                {"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 2\r\n\r\n{}", 200, "{}", true, nil},
		"length in small type": {"HTTP/1.1 201 Created\r\ncontent-length:  3\r\nX: y\r\n\r\nabc", 201, "abc", true, nil},
		"first header":         {"HTTP/1.1 503 S\r\nContent-Length: 0\r\n\r\n", 503, "", true, nil},
		"no body at 204":       {"HTTP/1.1 204 No Content\r\nServer: x\r\n\r\n", 204, "", true, nil},
		"no body at 304":       {"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, "", true, nil},
		"body to come":         {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", 200, "", false, nil},
		"head to come":         {"HTTP/1.1 200 OK\r\nContent-Le", 0, "", false, nil},
		"nothing yet":          {"", 0, "", false, nil},
		"no length":            {"HTTP/1.1 200 OK\r\nServer: x\r\n\r\nabc", 0, "", false, errNoLength},
		"odd length":           {"HTTP/1.1 200 OK\r\nContent-Length: 1x\r\n\r\nabc", 0, "", false, errNoLength},
		"negative length":      {"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", 0, "", false, errNoLength},
		"other protocol":       {"+PONG\r\n", 0, "", false, errNotHTTP},
		"odd status":           {"HTTP/1.1 2x0 OK\r\nContent-Length: 0\r\n\r\n", 0, "", false, errNotHTTP},
	} {
		r, complete, err := parseResponse([]byte(test.data))
		if !errors.Is(err, test.err) || complete != test.complete {
			t.Errorf("%s: got complete %v, %v, want %v, %v", name, complete, err, test.complete, test.err)
			continue
		}
		if complete && (r.status != test.status || test.data[r.head:r.size] != test.body) {
			t.Errorf("%s: got %d %q, want %d %q", name, r.status, test.data[r.head:r.size], test.status, test.body)
		}
	}
}

// bytewise gives one byte at each reading.
type bytewise struct{ data []byte }

func (b *bytewise) Read(p []byte) (int, error) {
	n := copy(p[:min(len(p), 1)], b.data)
	b.data = b.data[n:]
	return n, nil
}

func TestResponsesArriveInPieces(t *testing.T) {
	const text = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
	buffer := make([]byte, 256)
	r, err := readResponse(&bytewise{[]byte(text)}, buffer)
	if err != nil || string(buffer[r.head:r.size]) != "hello" {
		t.Errorf("in single bytes: got %q, %v, want hello", buffer[r.head:r.size], err)
	}
	if _, err := readResponse(strings.NewReader(text+"HTTP"), buffer); err == nil {
		t.Error("more than one answer: got no error, want one")
	}
	if _, err := readResponse(strings.NewReader(text), buffer[:20]); !errors.Is(err, errLongMessage) {
		t.Errorf("a small buffer: got %v, want %v", err, errLongMessage)
	}
	if _, err := readResponse(strings.NewReader(text[:20]), buffer); err == nil {
		t.Error("a connection that ends: got no error, want one")
	}
}

func TestRequestsKeepTheirBounds(t *testing.T) {
	var r requests
	r.add("a", "bc")
	r.add("d")
	for i, want := range []string{"abc", "d"} {
		if got := string(r.at(i)); got != want {
			t.Errorf("request %d: got %q, want %q", i, got, want)
		}
	}
}

func TestMonitorTellsWhatWasSent(t *testing.T) {
	long := strings.Repeat("x", 100)
	text := "+1.2 [0 127.0.0.1:5] \"evalsha\" \"" + long + "\"\r\n" +
		"+1.2 [0 lua] \"hset\" \"[0 127.0.0.1:5]\"\r\n" +
		"+1.2 [0 127.0.0.1:5] \"get\" \"[0 lua]\"\r\n"
	got, err := countSent(bufio.NewReaderSize(strings.NewReader(text), 32))
	if err != nil || got != 2 {
		t.Errorf("got %d, %v, want 2", got, err)
	}
}

func TestInfoIsRead(t *testing.T) {
	text := []byte("# Memory\r\nused_memory:123\r\nused_memory_human:1K\r\n")
	if got, err := parseInfo(text, "used_memory"); err != nil || got != 123 {
		t.Errorf("used_memory: got %d, %v, want 123", got, err)
	}
	for _, name := range []string{"used_memory_human", "used"} {
		if _, err := parseInfo(text, name); err == nil {
			t.Errorf("%s: got no error, want one", name)
		}
	}
}

func TestReferencesOfAPage(t *testing.T) {
	for name, test := range map[string]struct {
		document string
		want     []string
	}{
		"links and scripts": {`<link rel="stylesheet" href="/a.css"><script type="module" src="b.mjs"></script><img src='c.png'>`, []string{"/a.css", "b.mjs", "c.png"}},
		"what is clicked":   {`<a href="https://elsewhere.example/">x</a>`, nil},
		"modules":           {"import {\n x,\n} from './x.mjs';\nimport './y.mjs';\nconst z = await import(\"./z.mjs\");", []string{"./x.mjs", "./y.mjs", "./z.mjs"}},
		"style sheets":      {`@import "a.css"; p { background: url(b.svg) } q { background: url("c.svg") }`, []string{"a.css", "b.svg", "c.svg"}},
		"comments":          {"/* from './no.mjs' */\n// import './no.mjs'\n<!-- <img src=\"no\"> -->", nil},
	} {
		if got := references([]byte(test.document)); !slices.Equal(got, test.want) {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
}

func TestTableSaysWhatMissed(t *testing.T) {
	met, missed := true, false
	value := 0.5
	table := table{
		Machine: machine{Cores: 2, CPU: "cpu", Kernel: "kernel", Go: "go", Redis: "7"},
		Results: []result{
			{Scenario: "good", Value: &value, Met: &met, PerSecond: 50, YardstickPerSecond: 100, Figures: []figure{{"ratio", 0.5, "×", atLeast, 0.4, true}}},
			{Scenario: "bad", Value: &value, Met: &missed, Figures: []figure{{"ratio", 0.5, "×", atLeast, 0.6, false}}},
			{Scenario: "later", Unit: "KiB", Bound: atMost, Budget: 6},
		},
	}
	if got := table.missed(); !slices.Equal(got, []string{"bad"}) {
		t.Errorf("missed: got %q, want bad alone", got)
	}
	text := table.text()
	for _, want := range []string{"cpu, 2 cores", "not built yet", "MISSED", "≥ 0.6"} {
		if !strings.Contains(text, want) {
			t.Errorf("the table lacks %q:\n%s", want, text)
		}
	}
	line, err := table.Results[2].line()
	if err != nil || !bytes.Contains(line, []byte(`"met":null`)) || !bytes.Contains(line, []byte(`"value":null`)) {
		t.Errorf("a part that does not exist: got %s, %v, want met and value null", line, err)
	}
}
