package target

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"lockstep/cmd/lockstep/child"
)

const (
	undoTimeout = 30 * time.Second // of all of a run
	stopTimeout = 10 * time.Second // of one process
	toolTimeout = 20 * time.Second // of one command
	lookEvery   = 5 * time.Millisecond
)

// run is what was done, each step with how to undo it, and the processes that belong to
// it. One goroutine uses it.
type run struct {
	logs, name string
	steps      []step
	children   []*child.Process
}

type step struct {
	what string
	undo func(context.Context) error
}

// did notes how to undo what was done, or what may have been done in part.
func (r *run) did(what string, undo func(context.Context) error) {
	r.steps = append(r.steps, step{what, undo})
}

// undo undoes everything in reverse order, also what comes after a failure. That ctx
// has ended does not keep it from that.
func (r *run) undo(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), undoTimeout, fmt.Errorf("not done after %v", undoTimeout))
	defer cancel()
	var errs []error
	for _, s := range slices.Backward(r.steps) {
		if err := s.undo(ctx); err != nil {
			errs = append(errs, fmt.Errorf("undo: %s: %w", s.what, err))
		}
	}
	r.steps, r.children = nil, nil
	return errors.Join(errs...)
}

// start starts a process that is asked to end when the run is undone.
func (r *run) start(what string, cmd *exec.Cmd) (*child.Process, error) {
	p, err := r.launch(what, cmd)
	if err == nil {
		r.did("run "+what, func(ctx context.Context) error { return p.Stop(ctx, stopTimeout) })
	}
	return p, err
}

// startDisposable starts a process that is killed when the run is undone.
func (r *run) startDisposable(what string, cmd *exec.Cmd) error {
	p, err := r.launch(what, cmd)
	if err == nil {
		r.did("run "+what, func(context.Context) error { p.Kill(); return nil })
	}
	return err
}

// launch starts a process that a terminal's Ctrl-C does not reach: it ends when its turn
// comes, after what needs it.
func (r *run) launch(what string, cmd *exec.Cmd) (*child.Process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	log := r.name + "-" + strings.ReplaceAll(what, " ", "-") + ".log"
	p, err := child.Start(what, filepath.Join(r.logs, log), cmd)
	if err == nil {
		r.children = append(r.children, p)
	}
	return p, err
}

// explain adds to an error what the processes said last.
func (r *run) explain(err error) error {
	for _, p := range r.children {
		err = p.Quote(err)
	}
	return err
}

// await tries again until there is no error; that a process ends is one for good. When
// ctx ends, the error says what was in the way before.
func (r *run) await(ctx context.Context, try func() error) error {
	for {
		err := try()
		if err == nil || errors.As(err, new(hopeless)) {
			return err
		}
		for _, p := range r.children {
			if ended := p.Ended(); ended != nil {
				return fmt.Errorf("%w: %w", ended, err)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-time.After(lookEvery):
		}
	}
}

// hopeless is an error that trying again does not mend.
type hopeless struct{ error }

func (h hopeless) Unwrap() error { return h.error }

// tool runs a command to its end and returns what it printed. The error has the last
// of what it said.
func tool(ctx context.Context, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, toolTimeout, fmt.Errorf("no end after %v", toolTimeout))
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.WaitDelay = time.Second
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err == nil {
		return string(out), nil
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("%w (%w)", context.Cause(ctx), err)
	}
	return string(out), fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, lastLines(stderr.String()+string(out)))
}

func lastLines(said string) string {
	const lines = 4
	all := strings.Split(strings.TrimSpace(said), "\n")
	if said = strings.Join(all[max(0, len(all)-lines):], " | "); said == "" {
		return "it said nothing"
	}
	return said
}
