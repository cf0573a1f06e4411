package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

const (
	// readyWithin bounds how long a program may take until it serves, and until it has ended.
	readyWithin = 20 * time.Second
	askEvery    = 20 * time.Millisecond
	logTail     = 2000 // bytes of a program's log that an error repeats
)

// process is a program that this one started and ends.
type process struct {
	name  string
	cmd   *exec.Cmd
	log   string // file
	ended chan struct{}
}

// start starts a program with its output in a file, and waits until ready says so.
func start(ctx context.Context, dir, name string, ready func(context.Context) bool, path string, args ...string) (*process, error) {
	log, err := os.CreateTemp(dir, name+"-*.log")
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer log.Close()
	p := &process{name: name, cmd: exec.Command(path, args...), log: log.Name(), ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = endWithParent()
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.ended)
	}()
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	for !ready(ctx) {
		select {
		case <-p.ended:
			return nil, fmt.Errorf("start %s: it ended at once: %s", name, p.tail())
		case <-ctx.Done():
			p.stop()
			return nil, fmt.Errorf("start %s: %w: %s", name, ctx.Err(), p.tail())
		case <-time.After(askEvery):
		}
	}
	return p, nil
}

// stop asks the program to end, and ends it when it does not.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(readyWithin):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}

func (p *process) tail() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(text[max(len(text)-logTail, 0):]))
}

// programs are the ones that are measured, built once.
type programs struct{ origin, edge, hello, redis string }

func build(ctx context.Context, dir string) (programs, error) {
	packages := []string{
		"waitingroom/origin/cmd/waitingroom-origin", "waitingroom/edge/cmd/waitingroom-edge", "waitingroom/bench/hello",
	}
	out, err := exec.CommandContext(ctx, "go", append([]string{"build", "-o", dir}, packages...)...).CombinedOutput()
	if err != nil {
		return programs{}, fmt.Errorf("build programs: %w: %s", err, out)
	}
	redis, err := exec.LookPath("redis-server")
	if err != nil {
		return programs{}, fmt.Errorf("find redis-server, which the benchmarks need: %w", err)
	}
	name := func(i int) string { return filepath.Join(dir, filepath.Base(packages[i])) }
	return programs{name(0), name(1), name(2), redis}, nil
}

// freeAddresses finds loopback addresses on which nobody listens.
func freeAddresses(n int) ([]string, error) {
	addresses := make([]string, n)
	for i := range addresses {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		defer listener.Close()
		addresses[i] = listener.Addr().String()
	}
	return addresses, nil
}

// accepts is the readiness of a server of which nothing but a connection is asked.
func accepts(address string) func(context.Context) bool {
	return func(ctx context.Context) bool {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", address)
		if err != nil {
			return false
		}
		_ = c.Close()
		return true
	}
}
