package deploy_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

var programs [3]struct { // by kind
	once sync.Once
	dir  string
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	for i := range programs {
		if dir := programs[i].dir; dir != "" {
			_ = os.RemoveAll(dir)
		}
	}
	os.Exit(code)
}

// kind is how programs are built.
type kind int

const (
	// checked programs have the race detector, like the tests.
	checked kind = iota
	// shipped programs are as people run them, for tests that measure time and memory.
	shipped
	// datable programs have a wall clock that the test puts right and wrong.
	datable
)

// build builds the programs once for all tests.
func build(t *testing.T, as kind) string {
	t.Helper()
	programs := &programs[as]
	programs.once.Do(func() {
		if programs.dir, programs.err = os.MkdirTemp("", "waitingroom-programs-"); programs.err != nil {
			return
		}
		args := []string{"build", fmt.Sprintf("-race=%t", as == checked), "-o", programs.dir}
		if as == datable {
			overlay, err := datableTime(programs.dir)
			if err != nil {
				programs.err = err
				return
			}
			// The whole library is compiled again: without what only debuggers read.
			args = append(args, "-overlay", overlay, "-gcflags=all=-dwarf=false", "-ldflags=-s -w")
		}
		args = append(args, "waitingroom/origin/cmd/waitingroom-origin", "waitingroom/edge/cmd/waitingroom-edge")
		out, err := exec.Command("go", args...).CombinedOutput()
		if err != nil {
			programs.err = fmt.Errorf("%w\n%s", err, out)
		}
	})
	if programs.err != nil {
		t.Fatalf("build the programs: %v", programs.err)
	}
	return programs.dir
}

// program is one running process and what it logged.
type program struct {
	t    *testing.T
	path string
	args []string
	cmd  *exec.Cmd
	done chan struct{}
	log  *lockedBuffer
	wall *wallClock // of a datable program
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// name is that of its configuration file.
func (p *program) name() string { return filepath.Base(p.args[len(p.args)-1]) }

func (p *program) start() {
	p.t.Helper()
	if p.cmd != nil {
		p.t.Fatalf("start %s: it runs already", p.name())
	}
	p.cmd = exec.Command(p.path, p.args...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if p.wall != nil {
		p.cmd.Env = append(os.Environ(), wallClockFile+"="+p.wall.path)
	}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatalf("start %s: %v", p.name(), err)
	}
	p.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) {
		_ = cmd.Wait()
		close(done)
	}(p.cmd, p.done)
}

// suspend stops the program where it stands, as if its machine slept, until resume.
func (p *program) suspend() { p.signal(syscall.SIGSTOP) }
func (p *program) resume()  { p.signal(syscall.SIGCONT) }

func (p *program) signal(signal syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil {
		p.t.Fatalf("send %s: %v: %v", p.name(), signal, err)
	}
}

// stop asks the program to end and waits until it has; kill does not ask.
func (p *program) stop() { p.end(syscall.SIGTERM) }
func (p *program) kill() { p.end(syscall.SIGKILL) }

func (p *program) end(signal syscall.Signal) {
	p.t.Helper()
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(signal)
	_ = p.cmd.Process.Signal(syscall.SIGCONT) // one that is suspended could not follow
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
		p.t.Errorf("%s did not end within 20 s of a signal", p.name())
	}
	p.cmd = nil
}
