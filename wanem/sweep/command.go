package sweep

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// groupCommand is a program in a process group of its own, which is killed whole when
// ctx ends: no worker of it goes on writing.
func groupCommand(ctx context.Context, name string, args ...string) *exec.Cmd {
	const output = 2 * time.Second // from the kill to the end of its output
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return killGroup(cmd) }
	cmd.WaitDelay = output
	return cmd
}

func killGroup(cmd *exec.Cmd) error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }

// runToEnd runs a command and returns what it wrote to standard output. An error holds
// the last of what it said.
func runToEnd(cmd *exec.Cmd) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if cmd.Process != nil {
		_ = killGroup(cmd) // whatever it left behind; mostly there is nothing
	}
	if errors.Is(err, exec.ErrNotFound) {
		return nil, fmt.Errorf("run %s: %w", cmd.Args[0], err)
	}
	if err != nil {
		return nil, fmt.Errorf("run %s: %w: %s", cmd, err, lastLines(stderr.String()+stdout.String()))
	}
	return stdout.Bytes(), nil
}

func lastLines(text string) string {
	const most = 600
	text = strings.TrimSpace(text)
	return text[max(0, len(text)-most):]
}
