package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"golang.org/x/sys/unix"

	"lockstep/wanem/netem"
)

// TestWanScripts runs real lockstep processes: what people and programs read
// is golden. Re-bless with go test ./cmd/lockstep -run WanScripts -rewrite.
func TestWanScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/wan", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd != "lockstep" {
				t.Fatalf("%s: unknown verb %q", d.Pos, d.Cmd)
			}
			return runLockstep(t, strings.Fields(d.Input))
		})
	})
}

// runLockstep returns what the process wrote, and its exit code unless that is 0.
func runLockstep(t *testing.T, args []string) string {
	t.Helper()
	cmd := lockstepCommand(t, args...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	if code := cmd.ProcessState.ExitCode(); code != exitOK {
		return fmt.Sprintf("%sexit %d\n", out, code)
	}
	return string(out)
}

// TestWanApply applies, shows and clears in a network namespace of its own, or
// learns that this kernel has no netem and how to get it.
func TestWanApply(t *testing.T) {
	runtime.LockOSThread() // for good: the thread and its namespace end with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("needs root for a network namespace: %v", err)
	}
	out := runLockstep(t, []string{"wan", "apply", "--dev", "lo", "--km", "100"})
	if err := netem.Available(); err != nil {
		if !errors.Is(err, netem.ErrUnavailable) {
			t.Fatal(err)
		}
		if !strings.Contains(out, "modprobe sch_netem") || !strings.Contains(out, "exit 1") {
			t.Errorf("without sch_netem, wan apply says %q", out)
		}
		return
	}
	if !strings.Contains(out, "what arrives is not") {
		t.Errorf("wan apply says %q: not that it is one direction only", out)
	}
	var shown []shownLink
	if err := json.Unmarshal([]byte(runLockstep(t, []string{"wan", "show", "--json"})), &shown); err != nil {
		t.Fatal(err)
	}
	if len(shown) != 1 || shown[0].Dev != "lo" || !shown[0].Lockstep || shown[0].OneWayUS != 489.739 {
		t.Errorf("wan show: %+v, want lo with 489.739 us", shown)
	}
	for _, want := range []string{"link removed", "no link was on it"} {
		if out := runLockstep(t, []string{"wan", "clear", "--dev", "lo"}); !strings.Contains(out, want) {
			t.Errorf("wan clear says %q, want %q", out, want)
		}
	}
}

// TestWanCheckSaysWhereItCanBeDone: without sch_netem there is nothing to prove, and
// the lab's virtual machine has it.
func TestWanCheckSaysWhereItCanBeDone(t *testing.T) {
	if netem.Available() == nil {
		t.Skip("this kernel has netem; the test of package check proves it")
	}
	out := runLockstep(t, []string{"wan", "check", "--km", "0"})
	for _, want := range []string{"scripts/vm.sh run --clock instructions -- lockstep wan check", "exit 1"} {
		if !strings.Contains(out, want) {
			t.Errorf("wan check says %q, want %q", out, want)
		}
	}
}
