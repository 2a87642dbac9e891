package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"lockstep/wanem/sweep"
)

func TestSweepMisuse(t *testing.T) {
	for _, tc := range []struct{ flag, why string }{
		{"--km=100", "at least two"},
		{"--km=0,far", "no length"},
		{"--repeats=2", "at least 3"},
		{"--bs=1000", "multiple of 512"},
		{"--bs=4KB", "not a size"},
		{"--qd=0", "1 to 1024"},
		{"--rate=-1", "rate"},
		{"--duration=1ms", "at least 100ms"},
		{"--budget=-1ms", "no latency"},
		{"--profile=copper", "unknown"},
		{"--backend=magic", "must be one of"},
		{"--ack=maybe", "must be one of"},
		{"--target=floppy", "use some of lockstep"},
		{"--target=lockstep,lockstep", "named twice"},
		{"--workload=nowhere.fio", "fio job file"},
		{"--fs=ntfs", "must be one of"},
		{"--workload=pgbench", "pgbench"}, // without root or PostgreSQL that, else a block device is missing
		{"--resume", "--out"},
	} {
		var stderr strings.Builder
		cmd := lockstepCommand(t, "sweep", tc.flag)
		cmd.Dir, cmd.Stderr = t.TempDir(), &stderr
		_ = cmd.Run() // its exit code is checked
		if code := cmd.ProcessState.ExitCode(); code != exitMisuse || !strings.Contains(stderr.String(), tc.why) {
			t.Errorf("%s: exit code %d, %q; want 2 and %q", tc.flag, code, &stderr, tc.why)
		}
		if left, err := os.ReadDir(cmd.Dir); err != nil || len(left) > 0 {
			t.Errorf("%s: left %v behind", tc.flag, left)
		}
	}
}

func TestSweepDefaultsAreValid(t *testing.T) {
	for _, quick := range []bool{false, true} {
		c := sweepCmd{Workload: sweep.Builtin, BS: 4096, QD: 1, Repeats: 3, Budget: []time.Duration{2e6, 1e6}, Out: "x", Quick: quick}
		conf := c.config()
		if err := conf.Validate(); err != nil {
			t.Errorf("quick %v: %v", quick, err)
		}
		if conf.Budgets[0] != time.Millisecond {
			t.Errorf("budgets %v are not in order", conf.Budgets)
		}
	}
}
