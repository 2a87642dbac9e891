package main

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"lockstep/cmd/lockstep/child"
	"lockstep/wanem/sweep"
)

// loopbackRig is a cluster without a WAN between its sites.
func loopbackRig(t *testing.T) *rig {
	t.Helper()
	dir := t.TempDir()
	c := &rig{dir: filepath.Join(dir, "volume"), logs: filepath.Join(dir, "logs"), short: filepath.Join(dir, "d"), size: 8 << 20, ack: "written"}
	for _, name := range []string{"a", "b", witness} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c.places = append(c.places, place{name, ln.Addr().String(), func(args ...string) *exec.Cmd {
			cmd := lockstepCommand(t, args...)
			// The race detector's own pause of a second before each exit.
			cmd.Env = append(cmd.Env, "GORACE=atexit_sleep_ms=0")
			return cmd
		}})
		ln.Close() // the node takes the port that was free
	}
	// For tests that end early: the processes of the others are gone by then.
	t.Cleanup(func() { _ = c.stop(context.Background()) })
	return c
}

func TestRigMirrorsAndIsCompared(t *testing.T) {
	c, ctx := loopbackRig(t), t.Context()
	want := strings.Repeat("lockstep", 512)
	for round := range int64(2) { // each on a volume of its own
		if err := c.remove(ctx); err != nil {
			t.Fatal(err)
		}
		if err := c.start(ctx); err != nil {
			t.Fatal(c.explain(err))
		}
		if _, err := (device{c.client}).WriteAt([]byte(want), round<<20); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.disconnect(); err != nil {
		t.Fatal(err)
	}
	a, b, err := c.copies()
	if err != nil {
		t.Fatal(err)
	}
	if err := compareFiles(a, b, int64(c.size)); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(b)
	if err != nil || string(got[1<<20:][:len(want)]) != want {
		t.Errorf("the replica does not hold what was written (error %v)", err)
	}
	if err := c.stop(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestRigQuotesWhatCanNeverBe(t *testing.T) {
	c := loopbackRig(t)
	c.ack = "never" // no such contract
	if err := c.start(t.Context()); err == nil || !strings.Contains(err.Error(), `"durable"`) {
		t.Errorf("error %v, want what the node answered", err)
	}
}

func TestRigQuotesAProcessThatDies(t *testing.T) {
	c := loopbackRig(t)
	c.congestion = "nonsense"
	err := c.start(t.Context())
	if err == nil || !strings.Contains(err.Error(), "ended too early") || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("error %v, want what the node said", err)
	}
}

func TestRigStartsNotForEver(t *testing.T) {
	c := loopbackRig(t)
	for i := range c.places {
		c.places[i].command = func(...string) *exec.Cmd { return exec.Command("sleep", "60") }
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := c.start(ctx); err == nil {
		t.Error("started without nodes")
	}
	if err := c.stop(t.Context()); err == nil || !strings.Contains(err.Error(), "signal: terminated") {
		t.Errorf("stop: %v", err)
	}
}

func TestProcessThatIgnoresSIGTERMIsKilled(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	p, err := child.Start("stubborn", log, exec.Command("sh", "-c", `trap "" TERM; echo ready; while :; do sleep 0.01; done`))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.AwaitOutput(t.Context(), "ready"); err != nil {
		t.Fatal(err)
	}
	err = p.Stop(t.Context(), 20*time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "was killed") || !strings.Contains(err.Error(), "ready") {
		t.Errorf("error %v", err)
	}
	if err := p.Cmd.Process.Signal(syscall.Signal(0)); err == nil {
		t.Error("it lives on")
	}
}

func TestCompareFiles(t *testing.T) {
	const size = 5 << 20
	for _, tc := range []struct {
		name  string
		a, b  int64 // where a byte is set; -1: nowhere
		first int64
	}{
		{"both empty", -1, -1, -1},
		{"the same byte", 3 << 20, 3 << 20, -1},
		{"a byte in one only", 3<<20 + 7, -1, 3<<20 + 7},
		{"the last byte", -1, size - 1, size - 1},
		{"different bytes", 12345, 4 << 20, 12345},
	} {
		a, b := sparseFile(t, size, tc.a), sparseFile(t, size, tc.b)
		err := compareFiles(a, b, size)
		if tc.first < 0 {
			if err != nil {
				t.Errorf("%s: %v", tc.name, err)
			}
			continue
		}
		var differ *sweep.DifferenceError
		if !errors.As(err, &differ) || differ.Offset != tc.first {
			t.Errorf("%s: error %v, want a difference at %d", tc.name, err, tc.first)
		}
	}
	short := sparseFile(t, 1000, 0)
	if err := compareFiles(short, sparseFile(t, size, 0), size); err == nil || !strings.Contains(err.Error(), "shorter than the volume") {
		t.Errorf("a short file: error %v", err)
	}
}

func sparseFile(t *testing.T, size, set int64) string {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if set >= 0 {
		if _, err := f.WriteAt([]byte{1}, set); err != nil {
			t.Fatal(err)
		}
	}
	return f.Name()
}
