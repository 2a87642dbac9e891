// Package child runs programs as children of this one: what they say goes to a log,
// and an error about one of them quotes the last of it.
package child

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

// Process is a child whose output goes to a file. One goroutine owns the wait; the
// methods may be called concurrently.
type Process struct {
	// Cmd is started; only its Process may be used, to signal it.
	Cmd *exec.Cmd

	name, log string
	logFrom   int64 // where in the log this run begins
	done      chan struct{}
	err       error // of the wait; valid once done is closed
}

// Start starts a command, which errors call by name, and appends the child's output to the log, so that one file holds
// all runs of it.
func Start(name, log string, cmd *exec.Cmd) (*Process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("start %s: open its log: %w", name, err)
	}
	defer out.Close() // the child has its own
	info, err := out.Stat()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &Process{name: name, log: log, Cmd: cmd, logFrom: info.Size(), done: make(chan struct{})}
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

// Exited tells whether the child has ended.
func (p *Process) Exited() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Stop asks the child to end and waits; after the timeout, or when ctx ends, it
// is killed, which is an error.
func (p *Process) Stop(ctx context.Context, timeout time.Duration) error {
	if p.Exited() {
		return p.Quote(fmt.Errorf("%s ended by itself", p.name))
	}
	// It may end at this moment; the wait below then says how.
	_ = p.Cmd.Process.Signal(syscall.SIGTERM)
	return p.AwaitEnd(ctx, timeout)
}

// AwaitEnd waits for the end of a child that was told, in its own way, to end. After
// the timeout, or when ctx ends, it is killed, which is an error.
func (p *Process) AwaitEnd(ctx context.Context, timeout time.Duration) error {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-p.done:
		if p.err != nil {
			return p.Quote(fmt.Errorf("stop %s: %w", p.name, p.err))
		}
		return nil
	case <-ctx.Done():
		p.Kill()
		return context.Cause(ctx)
	case <-timer.C:
		p.Kill()
		return p.Quote(fmt.Errorf("stop %s: it did not end within %v and was killed", p.name, timeout))
	}
}

// Kill ends the child at once and waits until it has.
func (p *Process) Kill() {
	_ = p.Cmd.Process.Kill() // fails only if it has ended
	<-p.done
}

// Quote adds what the child said last.
func (p *Process) Quote(err error) error {
	const lines = 4
	tail := p.Output()
	all := strings.Split(strings.TrimSpace(string(tail)), "\n")
	said := strings.Join(all[max(0, len(all)-lines):], " | ")
	if said == "" {
		said = "nothing"
	}
	return fmt.Errorf("%w; %s (log %s) said: %s", err, p.name, p.log, said)
}

// Output is what this run has written to the log.
func (p *Process) Output() []byte {
	text, err := os.ReadFile(p.log)
	if err != nil || int64(len(text)) < p.logFrom {
		return nil
	}
	return text[p.logFrom:]
}

// AwaitOutput waits until the child has written some words.
func (p *Process) AwaitOutput(ctx context.Context, words string) error {
	const interval = 2 * time.Millisecond
	for !bytes.Contains(p.Output(), []byte(words)) {
		if err := p.Pause(ctx, interval); err != nil {
			return err
		}
	}
	return nil
}

// Pause waits; that the child ends meanwhile is an error.
func (p *Process) Pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-p.done:
		return p.Quote(p.Ended())
	case <-ctx.Done():
		return p.Quote(context.Cause(ctx))
	}
}

// Ended says that the child has ended, and how; nil while it runs.
func (p *Process) Ended() error {
	if !p.Exited() {
		return nil
	}
	return fmt.Errorf("%s ended too early: %w", p.name, exitReason(p.err))
}

// Wait returns when the child has ended, with how it did: never nil.
func (p *Process) Wait() error {
	<-p.done
	return exitReason(p.err)
}

func exitReason(err error) error {
	if err == nil {
		return fmt.Errorf("exit status 0")
	}
	return err
}
