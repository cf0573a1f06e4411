package deploy_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// wallClock is how far the wall clock of one program of the kind datable is ahead. The monotonic one
// goes on as it is, as on a machine whose clock somebody sets.
type wallClock struct {
	t    *testing.T
	path string
}

// wallClockFile is the name of the environment variable that tells such a program where its wallClock is.
const wallClockFile = "WALL_CLOCK_AHEAD"

func newWallClock(t *testing.T, path string) *wallClock {
	t.Helper()
	w := &wallClock{t, path}
	w.put(0)
	return w
}

// put puts the clock ahead, or behind, of the right time, in whole seconds.
func (w *wallClock) put(ahead time.Duration) {
	w.t.Helper()
	file, err := os.OpenFile(w.path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = file.Write(binary.NativeEndian.AppendUint64(nil, uint64(ahead/time.Second)))
	}
	if err == nil {
		err = file.Close()
	}
	if err != nil {
		w.t.Fatalf("set a wall clock: %v", err)
	}
}

// mappedWallClock is one more file of the package time.
const mappedWallClock = `package time

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

var wallClockAhead = mapWallClock()

// mapWallClock maps the file in which a test says by how many seconds the clock is ahead, so that what
// it writes is in force at once.
func mapWallClock() *int64 {
	name, found := syscall.Getenv("` + wallClockFile + `")
	if !found {
		return new(int64)
	}
	file, err := syscall.Open(name, syscall.O_RDONLY, 0)
	if err != nil {
		panic("open " + name + ": " + err.Error())
	}
	mapped, err := syscall.Mmap(file, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic("map " + name + ": " + err.Error())
	}
	return (*int64)(unsafe.Pointer(&mapped[0]))
}

func secondsAhead() int64 { return atomic.LoadInt64(wallClockAhead) }
`

// datableTime writes what go build's -overlay wants, for programs whose time.Now reads a wallClock, and
// returns its path. The library offers no way to do that from outside, so its source is changed.
func datableTime(dir string) (overlay string, err error) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("find the Go library: %w", err)
	}
	library := filepath.Join(strings.TrimSpace(string(root)), "src", "time")
	source, err := os.ReadFile(filepath.Join(library, "time.go"))
	if err != nil {
		return "", fmt.Errorf("read the package time: %w", err)
	}
	const was = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	if strings.Count(string(source), was) != 1 {
		return "", fmt.Errorf("change time.Now: %s does not have once %q: this Go reads the clock in another way, to which this test has to be adapted",
			filepath.Join(library, "time.go"), was)
	}
	changed := strings.Replace(string(source), was, was+"\tsec += secondsAhead()\n", 1)
	replace := make(map[string]string)
	for name, text := range map[string]string{"time.go": changed, "wall_clock.go": mappedWallClock} {
		replace[filepath.Join(library, name)] = filepath.Join(dir, name)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return "", fmt.Errorf("write the changed package time: %w", err)
		}
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", fmt.Errorf("encode the overlay: %w", err)
	}
	overlay = filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, text, 0o600)
}

// awaitWallClock waits until a program, by the Date of its answers, has a clock that is so far ahead.
func (in *installation) awaitWallClock(url string, ahead time.Duration) {
	in.t.Helper()
	in.eventually(20*time.Second, fmt.Sprintf("the clock behind %s is %v ahead", url, ahead), func() bool {
		date, err := http.ParseTime(in.request("GET", url+"/healthz", "", nil).header.Get("Date"))
		return err == nil && (time.Until(date)-ahead).Abs() < 30*time.Second
	})
}
