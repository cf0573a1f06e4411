package redis_test

import (
	"bufio"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	goredis "github.com/redis/go-redis/v9"

	"waitingroom/origin/store/redis/redistest"
)

// keyWatch reads what a server runs, from its MONITOR.
type keyWatch struct {
	t      *testing.T
	client *goredis.Client
	lines  sync.WaitGroup

	scripts  int
	problems []string
}

func watchKeys(t *testing.T, server *redistest.Server) *keyWatch {
	t.Helper()
	connection, err := net.Dial("tcp", server.Addr)
	if err != nil {
		t.Fatalf("dial Redis: %v", err)
	}
	t.Cleanup(func() { connection.Close() })
	if _, err := fmt.Fprint(connection, "MONITOR\r\n"); err != nil {
		t.Fatalf("watch Redis: %v", err)
	}
	reader := bufio.NewReaderSize(connection, 1<<20)
	if line, err := reader.ReadString('\n'); err != nil || line != "+OK\r\n" {
		t.Fatalf("watch Redis: got %q, %v", line, err)
	}
	w := &keyWatch{t: t, client: goredis.NewClient(&goredis.Options{Addr: server.Addr})}
	t.Cleanup(func() { w.client.Close() })
	w.lines.Go(func() { w.read(reader) })
	return w
}

// lastCommand marks the end of what is watched.
const lastCommand = "that was all"

func (w *keyWatch) end() {
	w.t.Helper()
	if err := w.client.Echo(w.t.Context(), lastCommand).Err(); err != nil {
		w.t.Fatalf("end watching: %v", err)
	}
	w.lines.Wait()
	if w.scripts == 0 {
		w.t.Error("no script was seen")
	}
	slices.Sort(w.problems)
	for _, problem := range slices.Compact(w.problems) {
		w.t.Error(problem)
	}
}

// keysIn finds the words of a line of MONITOR that are keys.
func keysIn(line string) []string {
	var keys []string
	for {
		_, rest, found := strings.Cut(line, `"wr:`)
		if !found {
			return keys
		}
		var key string
		key, line, _ = strings.Cut(rest, `"`)
		if strings.TrimSuffix(key, `\`) != "hints" { // a channel, also in the text of scripts
			keys = append(keys, "wr:"+key)
		}
	}
}

// tagOf is the part of a key that decides upon its slot.
func tagOf(key string) string {
	_, rest, _ := strings.Cut(key, "{")
	if tag, _, found := strings.Cut(rest, "}"); found {
		return tag
	}
	return key
}

func (w *keyWatch) read(reader *bufio.Reader) {
	var given []string
	for {
		line, err := reader.ReadString('\n')
		if err != nil || strings.Contains(line, lastCommand) {
			return
		}
		_, command, _ := strings.Cut(line, "] ")
		switch {
		case strings.Contains(line[:min(len(line), 40)], " lua] "):
			for _, key := range keysIn(command) {
				if !slices.Contains(given, key) {
					w.problems = append(w.problems, "a script uses a key that it was not given: "+generic(key))
				}
			}
		case strings.HasPrefix(command, `"eval`):
			w.scripts++
			given = keysIn(command)
			for _, key := range given {
				if tagOf(key) != tagOf(given[0]) {
					w.problems = append(w.problems, "a script was given keys of several hash tags: "+generic(key))
				}
			}
		}
	}
}

var digits = regexp.MustCompile(`\d+`)

// generic is a key without what differs from queue to queue.
func generic(key string) string {
	return digits.ReplaceAllString(strings.Replace(key, tagOf(key), "…", 1), "N")
}
