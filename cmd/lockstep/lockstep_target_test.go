package main

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
	"testing"
	"time"

	"lockstep/cmd/lockstep/target"
	"lockstep/wanem"
	"lockstep/wanem/sweep"
)

// loopbackWAN is a link without delay that claims to be as wanted.
type loopbackWAN struct{ link wanem.Link }

func (w *loopbackWAN) SetLink(_ context.Context, l wanem.Link) error { w.link = l; return nil }
func (w *loopbackWAN) MeasureRTT(context.Context, int) (sweep.RTT, error) {
	return sweep.RTT{Median: w.link.RTT()}, nil
}
func (w *loopbackWAN) Drops() (uint64, error) { return 0, nil }

// loopbackTarget is lockstep without a WAN between its sites.
func loopbackTarget(t *testing.T) target.Config {
	t.Helper()
	dir := t.TempDir()
	c := target.Config{Wire: &loopbackWAN{}, Dir: filepath.Join(dir, "volume"), Logs: filepath.Join(dir, "logs"), Scratch: dir,
		Size: 8 << 20, Ack: "written"}
	for _, name := range []string{"a", "b", target.Witness} {
		c.Nodes = append(c.Nodes, target.Node{Name: name, Listen: freeAddr(t), Command: func(args ...string) *exec.Cmd {
			cmd := lockstepCommand(t, args...)
			// The race detector's own pause of a second before each exit.
			cmd.Env = append(cmd.Env, "GORACE=atexit_sleep_ms=0")
			return cmd
		}})
	}
	return c
}

func openLockstep(t *testing.T, c target.Config) target.Target {
	t.Helper()
	tg, err := target.Open(t.Context(), "lockstep", c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tg.Close(false); err != nil {
			t.Error(err)
		}
	})
	return tg
}

// copyAt is the file of the volume of that number at a node.
func copyAt(t *testing.T, c target.Config, node string, number string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(c.Dir, "lockstep", node, "volumes", "sweep"+number+"-*", "data"))
	if err != nil || len(found) != 1 {
		t.Fatalf("copies of volume %s at node %s: %v, %v", number, node, found, err)
	}
	return found[0]
}

func TestLockstepTargetMirrorsAndIsCompared(t *testing.T) {
	c, ctx := loopbackTarget(t), t.Context()
	tg := openLockstep(t, c)
	want := strings.Repeat("lockstep", 512)
	for round := range int64(2) { // each on a volume of its own
		dev, err := tg.Open(ctx)
		if err != nil {
			t.Fatal(tg.Explain(err))
		}
		if _, err := dev.WriteAt([]byte(want), round<<20); err != nil {
			t.Fatal(err)
		}
		if err := dev.Close(); err != nil {
			t.Fatal(err)
		}
		// A machine that is busy with other tests may stall for longer than a lease.
		if n, err := tg.Compare(ctx); n != c.Size || err != nil && !errors.As(err, new(*sweep.DegradedError)) {
			t.Fatalf("%d bytes compared, %v", n, err)
		}
	}
	got, err := os.ReadFile(copyAt(t, c, "b", "2"))
	if err != nil || string(got[1<<20:][:len(want)]) != want || strings.Contains(string(got[:1<<20]), "lockstep") {
		t.Errorf("the replica does not hold what was written, or more (error %v)", err)
	}
}

// pause stops a process and waits until all of it stands still.
func pause(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(threads, func(path string) bool {
			stat, err := os.ReadFile(path)
			return err == nil && !strings.Contains(string(stat), ") T ")
		}) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d does not stop", pid)
		}
	}
}

// A copy that was lost for a while is no difference: it is waited for, compared, and told.
func TestLockstepTargetTellsOfALostCopy(t *testing.T) {
	c, ctx := loopbackTarget(t), t.Context()
	var b *exec.Cmd
	start := c.Nodes[1].Command
	c.Nodes[1].Command = func(args ...string) *exec.Cmd {
		b = start(args...)
		return b
	}
	tg := openLockstep(t, c)
	dev, err := tg.Open(ctx)
	if err != nil {
		t.Fatal(tg.Explain(err))
	}
	pause(t, b.Process.Pid)
	_, err = dev.WriteAt([]byte(strings.Repeat("lockstep", 512)), 0) // it is over when b is given up
	if cont := b.Process.Signal(syscall.SIGCONT); cont != nil {
		t.Fatal(cont)
	}
	if err := errors.Join(err, dev.Close()); err != nil {
		t.Fatal(err)
	}
	n, err := tg.Compare(ctx)
	if !errors.As(err, new(*sweep.DegradedError)) || n != c.Size {
		t.Errorf("%d bytes compared, error %v", n, err)
	}
}

func TestLockstepTargetQuotesWhatCanNeverBe(t *testing.T) {
	c := loopbackTarget(t)
	c.Ack = "never" // no such contract
	if _, err := openLockstep(t, c).Open(t.Context()); err == nil || !strings.Contains(err.Error(), `"durable"`) {
		t.Errorf("error %v, want what the node answered", err)
	}
}

func TestLockstepTargetQuotesAProcessThatDies(t *testing.T) {
	c := loopbackTarget(t)
	c.Congestion = "nonsense"
	tg := openLockstep(t, c)
	_, err := tg.Open(t.Context())
	if err == nil || !strings.Contains(err.Error(), "ended too early") || !strings.Contains(tg.Explain(err).Error(), "nonsense") {
		t.Errorf("error %v, want what the node said", err)
	}
}

func TestLockstepTargetStartsNotForEver(t *testing.T) {
	c := loopbackTarget(t)
	var nodes []*exec.Cmd
	for i := range c.Nodes {
		c.Nodes[i].Command = func(...string) *exec.Cmd {
			nodes = append(nodes, exec.Command("sleep", "60"))
			return nodes[len(nodes)-1]
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	tg := openLockstep(t, c)
	if _, err := tg.Open(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	if err := tg.Close(false); err != nil {
		t.Errorf("close: %v", err)
	}
	for _, n := range nodes {
		if n.ProcessState == nil {
			t.Errorf("process %d lives on", n.Process.Pid)
		}
	}
	if _, err := os.Lstat(filepath.Join(c.Scratch, "data")); err == nil {
		t.Error("the link to the data was left behind")
	}
}

func loopbackSweep(t *testing.T) (sweep.Config, target.Config) {
	return sweep.Config{
		Km: []float64{0, 1}, Workload: sweep.Builtin, BlockSize: 4096, QueueDepth: 4,
		Duration: 100 * time.Millisecond, Repeats: 3, Idle: 10 * time.Millisecond, Out: t.TempDir(),
	}, loopbackTarget(t)
}

// sweepTimes is how often a sweep whose figures are looked at is made at most: a machine that
// is busy with other tests may give its load little time, or stall until a copy counts as lost.
const sweepTimes = 3

// Everything but the WAN is real: processes, sockets, files.
func TestSweepOnRealProcesses(t *testing.T) {
	for n := 1; ; n++ {
		conf, c := loopbackSweep(t)
		tg := openLockstep(t, c)
		report, err := sweep.Run(t.Context(), conf, sweep.Facts{}, []sweep.Target{tg})
		if err != nil {
			t.Fatal(tg.Explain(err))
		}
		if !report.ReplicasIdentical || report.BytesCompared != 10*c.Size || report.BlocksVerified == 0 {
			t.Errorf("identical %v, %d bytes, %d blocks verified", report.ReplicasIdentical, report.BytesCompared, report.BlocksVerified)
		}
		if err := tg.Close(false); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(c.Dir, "lockstep")); err == nil {
			t.Error("the volume's copies were left behind")
		}
		if _, err := os.Stat(filepath.Join(conf.Out, "report.html")); err != nil {
			t.Error(err)
		}
		poor := slices.IndexFunc(report.Points, func(p *sweep.Point) bool {
			return p.Fidelity != sweep.OK || p.Trials != 3 || p.Writes < 100 || len(p.Probes) != 2
		})
		if poor < 0 {
			return
		}
		p := report.Points[poor]
		t.Logf("sweep %d: %v km: %+v", n, p.Km, p)
		if n == sweepTimes {
			t.Fatalf("no sweep of %d was as it should be", n)
		}
	}
}

func TestSweepByFio(t *testing.T) {
	if testing.Short() {
		t.Skip("fio takes seconds to start and stop")
	}
	for n := 1; ; n++ {
		conf, c := loopbackSweep(t)
		conf.Workload, conf.Idle = sweep.Fio, 0
		tg := openLockstep(t, c)
		report, err := sweep.Run(t.Context(), conf, sweep.Facts{}, []sweep.Target{tg})
		if err != nil {
			t.Fatal(tg.Explain(err))
		}
		if !report.ReplicasIdentical {
			t.Fatal("the copies differ")
		}
		if report.Points[0].Writes >= 100 {
			return
		}
		t.Logf("sweep %d: %+v", n, report.Points[0])
		if n == sweepTimes {
			t.Fatalf("no sweep of %d has the writes that it should have", n)
		}
		if err := tg.Close(false); err != nil { // it would take time from the next one
			t.Fatal(err)
		}
	}
}

func TestSweepFindsDifferentReplicas(t *testing.T) {
	conf, c := loopbackSweep(t)
	conf.Idle, c.Keep = 0, filepath.Join(t.TempDir(), "kept")
	tg := openLockstep(t, c)
	spoiled := &spoiledTarget{tg, func() string { return copyAt(t, c, "b", "1") }}
	_, err := sweep.Run(t.Context(), conf, sweep.Facts{}, []sweep.Target{spoiled})
	if err == nil || !strings.Contains(err.Error(), "differ from offset 4711 on") || !isEvidence(err) {
		t.Fatalf("error %v", err)
	}
	if err := tg.Close(isEvidence(err)); err != nil {
		t.Fatal(err)
	}
	a, b := filepath.Join(c.Keep, "lockstep-a"), filepath.Join(c.Keep, "lockstep-b")
	if err := target.CompareFiles(t.Context(), a, b, c.Size); err == nil || !strings.Contains(err.Error(), "offset 4711") {
		t.Errorf("the evidence shows %v", err)
	}
	if _, err := os.Stat(filepath.Join(c.Dir, "lockstep")); err == nil {
		t.Error("the copies are left where they were, too")
	}
}

// spoiledTarget damages the replica's copy before the comparison.
type spoiledTarget struct {
	target.Target
	replica func() string
}

func (s *spoiledTarget) Compare(ctx context.Context) (int64, error) {
	f, err := os.OpenFile(s.replica(), os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, 4711); err != nil {
		return 0, err
	}
	if _, err := f.WriteAt([]byte{b[0] ^ 0xff}, 4711); err != nil {
		return 0, err
	}
	return s.Target.Compare(ctx)
}
