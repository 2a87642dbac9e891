package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// asLockstep makes the test binary behave as lockstep itself, so that tests see
// real exit codes, signals and child processes. The value "stubborn" makes it a
// command that never finishes its clean-up.
const asLockstep = "LOCKSTEP_TEST_AS_LOCKSTEP"

func TestMain(m *testing.M) {
	switch os.Getenv(asLockstep) {
	case "":
		os.Exit(m.Run())
	case "stubborn":
		stubborn()
	default:
		main()
	}
}

// lockstepCommand prepares a real lockstep process with these arguments.
func lockstepCommand(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, args...)
	cmd.Env = append(os.Environ(), asLockstep+"=1")
	return cmd
}

func TestExitCodes(t *testing.T) {
	for _, tc := range []struct {
		name   string
		args   []string
		code   int
		stderr string
	}{
		{"done", []string{"version"}, exitOK, ""},
		{"help", []string{"--help"}, exitOK, ""},
		{"no command", nil, exitMisuse, "(see lockstep --help)"},
		{"unknown command", []string{"mirror"}, exitMisuse, "(see lockstep --help)"},
		{"unknown flag", []string{"version", "--yaml"}, exitMisuse, "(see lockstep version --help)"},
		{"replica without a port", []string{"serve", "--store=x", "--size=1MiB", "--nbd=unix:x", "--replica=host"}, exitMisuse, "use HOST:PORT"},
		{"replica twice", []string{"serve", "--store=x", "--size=1MiB", "--nbd=unix:x", "--replica=h:1", "--replica=h:1"}, exitMisuse, "given twice"},
		{"nbd address of no kind", []string{"serve", "--store=x", "--size=1MiB", "--nbd=/tmp/x"}, exitMisuse, "unix:PATH, tcp:HOST:PORT or stdio"},
		{"odd size", []string{"replica", "--store=x", "--size=1000", "--listen=127.0.0.1:0"}, exitMisuse, "multiple of 512"},
		{"negative timeout", []string{"serve", "--store=x", "--size=1MiB", "--nbd=unix:x", "--timeout=-5s"}, exitMisuse, "--timeout"},
		{"nothing to resume", []string{"sweep", "--resume", "--out=/nonexistent/sweep"}, exitMisuse, "nothing to go on with"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var stderr strings.Builder
			cmd := lockstepCommand(t, tc.args...)
			cmd.Stderr = &stderr
			err := cmd.Run()
			if code := cmd.ProcessState.ExitCode(); code != tc.code {
				t.Errorf("exit code %d (%v), want %d", code, err, tc.code)
			}
			if got := stderr.String(); !strings.Contains(got, tc.stderr) || strings.Count(got, "\n") > 1 {
				t.Errorf("stderr %q, want at most one line with %q", got, tc.stderr)
			}
		})
	}
}

func TestReportTellsMisuseFromFailure(t *testing.T) {
	failed := errors.New("disk is full")
	for _, tc := range []struct {
		err  error
		code int
	}{
		{nil, exitOK},
		{failed, exitFailure},
		{misuse{failed}, exitMisuse},
		{fmt.Errorf("serve: %w", misuse{failed}), exitMisuse},
	} {
		if code := report(tc.err, "lockstep"); code != tc.code {
			t.Errorf("%v: exit code %d, want %d", tc.err, code, tc.code)
		}
	}
}

func TestSecondSignalKills(t *testing.T) {
	cmd := lockstepCommand(t)
	cmd.Env = append(cmd.Env, asLockstep+"=stubborn")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	for lines.Scan() && lines.Text() != "cleaning up" {
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	// The handler is removed a moment after the context ended, so "the second
	// signal" may have to be said again.
	again, deadline := time.NewTicker(10*time.Millisecond), time.After(10*time.Second)
	defer again.Stop()
	for err = nil; err == nil; {
		select {
		case <-again.C:
			_ = cmd.Process.Signal(syscall.SIGINT)
		case err = <-ended:
		case <-deadline:
			_ = cmd.Process.Kill()
			t.Fatalf("still alive after 10 s of signals: %v", <-ended)
		}
	}
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() || status.Signal() != syscall.SIGINT {
		t.Fatalf("ended with %v, want death by the second SIGINT", err)
	}
}

func stubborn() {
	ctx, stop := interruptible()
	defer stop()
	fmt.Println("ready")
	<-ctx.Done()
	fmt.Println("cleaning up")
	select {}
}
