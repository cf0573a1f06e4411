// Package redistest starts real Redis servers for tests.
package redistest

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// readyWithin bounds how long a server may take to answer, and to end.
const readyWithin = 20 * time.Second

// Server is a running redis-server of a test's own, on a loopback port, with its data in a
// temporary directory. Its methods end the test when something fails.
type Server struct {
	// Addr is host:port; it stays the same over restarts.
	Addr string

	t       testing.TB
	program string
	config  string   // a file that the server may rewrite, if it needs one
	args    []string // without the port
	paused  bool
	output  *bytes.Buffer // of the process that runs
	process *os.Process   // nil while it is stopped
	ended   chan struct{} // closed when the process has ended
}

// Start starts a server and waits until it answers. options are further options of redis-server,
// such as "--appendonly", "yes"; without any, the server keeps nothing over a restart. It is ended
// when the test ends.
func Start(t testing.TB, options ...string) *Server {
	t.Helper()
	return start(t, func(*Server, string) []string { return options })
}

// start is Start with options that are made for each attempt, knowing the server's data folder.
func start(t testing.TB, options func(s *Server, dir string) []string) *Server {
	t.Helper()
	program, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatal("redis-server is missing: this test needs a real Redis; `make test` installs it")
	}
	s := &Server{t: t, program: program}
	dir := t.TempDir()
	t.Cleanup(s.Stop)
	// Somebody else may take a free port first, hence more than one attempt.
	for range 5 {
		s.Addr = freeAddr(t)
		s.args = append([]string{
			"--bind", "127.0.0.1", "--dir", dir, "--save", "", "--daemonize", "no", "--loglevel", "warning",
		}, options(s, dir)...)
		if err = s.run(); err == nil {
			return s
		}
	}
	t.Fatalf("start redis-server: %v", err)
	return nil
}

func freeAddr(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("find a free port: %v", err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// run starts the process and waits until it answers. The answer must be that of this process, and
// not of another one that has taken the port.
func (s *Server) run() error {
	_, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		return err
	}
	s.output = new(bytes.Buffer)
	arguments := append([]string{"--port", port}, s.args...)
	if s.config != "" { // has to come first
		arguments = append([]string{s.config}, arguments...)
	}
	command := exec.Command(s.program, arguments...)
	command.Stdout, command.Stderr = s.output, s.output
	command.SysProcAttr = endWithParent()
	if err := command.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		_ = command.Wait()
		close(ended)
	}()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	deadline := time.NewTimer(readyWithin)
	defer deadline.Stop()
	for {
		select {
		case <-ended:
			return fmt.Errorf("it ended at once: %s", strings.TrimSpace(s.output.String()))
		case <-deadline.C:
			_ = command.Process.Kill()
			<-ended
			return fmt.Errorf("it did not answer within %v: %s", readyWithin, strings.TrimSpace(s.output.String()))
		case <-poll.C:
			if s.answers(command.Process.Pid) {
				s.process, s.ended, s.paused = command.Process, ended, false
				return nil
			}
		}
	}
}

// answers reports whether the process with this id answers at the address; while it loads its data
// it does not.
func (s *Server) answers(pid int) bool {
	connection, err := net.DialTimeout("tcp", s.Addr, time.Second)
	if err != nil {
		return false
	}
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(time.Second))
	if _, err := fmt.Fprint(connection, "PING\r\nINFO server\r\nQUIT\r\n"); err != nil {
		return false
	}
	lines := bufio.NewScanner(connection)
	if !lines.Scan() || lines.Text() != "+PONG" {
		return false
	}
	for lines.Scan() {
		if id, found := strings.CutPrefix(lines.Text(), "process_id:"); found {
			return strings.TrimSpace(id) == strconv.Itoa(pid)
		}
	}
	return false
}

// Stop ends the server as an operator would, if it runs. With "--appendonly", "yes" it keeps what
// it was told.
func (s *Server) Stop() { s.end(syscall.SIGTERM) }

// Kill ends the server at once, as a crash would.
func (s *Server) Kill() { s.end(syscall.SIGKILL) }

// Pause stops the server's process without closing its connections, until Resume.
func (s *Server) Pause() {
	s.t.Helper()
	s.signal(syscall.SIGSTOP)
	s.paused = true
}

// Resume lets a paused server go on.
func (s *Server) Resume() {
	s.t.Helper()
	s.signal(syscall.SIGCONT)
	s.paused = false
}

// runs reports whether the server can be expected to answer.
func (s *Server) runs() bool { return s.process != nil && !s.paused }

func (s *Server) signal(signal os.Signal) {
	s.t.Helper()
	if s.process == nil {
		s.t.Fatal("signal redis-server: it does not run")
	}
	if err := s.process.Signal(signal); err != nil {
		s.t.Fatalf("signal redis-server: %v", err)
	}
}

func (s *Server) end(signal syscall.Signal) {
	if s.process == nil {
		return
	}
	process := s.process
	s.process = nil
	_ = process.Signal(syscall.SIGCONT) // a paused one hears nothing else
	_ = process.Signal(signal)
	deadline := time.NewTimer(readyWithin)
	defer deadline.Stop()
	select {
	case <-s.ended:
	case <-deadline.C:
		_ = process.Kill()
		<-s.ended
		s.t.Errorf("redis-server did not end within %v", readyWithin)
	}
}

// Restart ends the server, if it runs, and starts it again at the same address.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	if err := s.run(); err != nil {
		s.t.Fatalf("restart redis-server: %v", err)
	}
}
