package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// process is a child whose output goes to a file. One goroutine owns the wait.
type process struct {
	name, log string
	cmd       *exec.Cmd
	logFrom   int64 // where in the log this run begins
	done      chan struct{}
	err       error // of the wait; valid once done is closed
}

// startProcess appends the child's output to the log, so that one file holds
// all runs of it.
func startProcess(name, log string, cmd *exec.Cmd) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("start %s: open its log: %w", name, err)
	}
	defer out.Close() // the child has its own
	info, err := out.Stat()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{name: name, log: log, cmd: cmd, logFrom: info.Size(), done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

func (p *process) exited() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// stop asks the child to end and waits; after the timeout, or when ctx ends, it
// is killed, which is an error.
func (p *process) stop(ctx context.Context, timeout time.Duration) error {
	if p.exited() {
		return p.quote(fmt.Errorf("%s ended by itself", p.name))
	}
	// It may end at this moment; the wait below then says how.
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-p.done:
		if p.err != nil {
			return p.quote(fmt.Errorf("stop %s: %w", p.name, p.err))
		}
		return nil
	case <-ctx.Done():
		p.kill()
		return context.Cause(ctx)
	case <-timer.C:
		p.kill()
		return p.quote(fmt.Errorf("stop %s: it did not end within %v and was killed", p.name, timeout))
	}
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill() // fails only if it has ended
	<-p.done
}

// quote adds what the child said last.
func (p *process) quote(err error) error {
	const lines = 4
	tail := p.output()
	all := strings.Split(strings.TrimSpace(string(tail)), "\n")
	said := strings.Join(all[max(0, len(all)-lines):], " | ")
	if said == "" {
		said = "nothing"
	}
	return fmt.Errorf("%w; %s (log %s) said: %s", err, p.name, p.log, said)
}

// output is what this run has written to the log.
func (p *process) output() []byte {
	text, err := os.ReadFile(p.log)
	if err != nil || int64(len(text)) < p.logFrom {
		return nil
	}
	return text[p.logFrom:]
}

// awaitOutput waits until the child has written some words.
func (p *process) awaitOutput(ctx context.Context, words string) error {
	const interval = 2 * time.Millisecond
	for !bytes.Contains(p.output(), []byte(words)) {
		if err := p.pause(ctx, interval); err != nil {
			return err
		}
	}
	return nil
}

// pause waits; that the child ends meanwhile is an error.
func (p *process) pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-p.done:
		return p.quote(fmt.Errorf("%s ended too early: %w", p.name, exitReason(p.err)))
	case <-ctx.Done():
		return p.quote(context.Cause(ctx))
	}
}

func exitReason(err error) error {
	if err == nil {
		return fmt.Errorf("exit status 0")
	}
	return err
}
