package fans

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/rpc"
	"os"
	"os/exec"
)

// Environment is the variable that makes a program which calls Serve a crowd.
const Environment = "WAITINGROOM_BENCH_FANS"

// Process is a crowd in a process of its own.
type Process struct {
	cmd    *exec.Cmd
	client *rpc.Client
}

// Start starts the running program once more, as a crowd. prepare, where it is not nil, changes the
// command before it is run.
func Start(config Config, prepare func(*exec.Cmd)) (*Process, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find own program: %w", err)
	}
	p := &Process{cmd: exec.Command(program)}
	p.cmd.Env = append(os.Environ(), Environment+"=1")
	p.cmd.Stderr = os.Stderr
	if prepare != nil {
		prepare(p.cmd)
	}
	in, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start fans: %w", err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start fans: %w", err)
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start fans: %w", err)
	}
	p.client = rpc.NewClient(pipes{duplex{out, in}, in.Close})
	if err := p.client.Call("Fans.Begin", config, &struct{}{}); err != nil {
		return nil, errors.Join(fmt.Errorf("begin fans: %w", err), p.Close())
	}
	return p, nil
}

// duplex is standard input and output as one connection.
type duplex struct {
	io.Reader
	io.Writer
}

func (duplex) Close() error { return nil }

// pipes are a connection whose closing ends the crowd.
type pipes struct {
	duplex
	closing func() error
}

func (p pipes) Close() error { return p.closing() }

// Close ends the crowd and waits for the end of its process.
func (p *Process) Close() error {
	_ = p.client.Close()
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("end fans: %w", err)
	}
	return nil
}

// PID is the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Call calls a method of Service by its name and waits for its result.
func (p *Process) Call(ctx context.Context, method string, argument, reply any) error {
	call := p.client.Go("Fans."+method, argument, reply, make(chan *rpc.Call, 1))
	select {
	case <-call.Done:
		if call.Error != nil {
			return fmt.Errorf("tell fans to %s: %w", method, call.Error)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
