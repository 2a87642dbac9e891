package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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

func loopbackSweep(t *testing.T) (sweep.Config, *stand) {
	p := loopbackRig(t)
	return sweep.Config{
		Km: []float64{0, 1}, Workload: sweep.Builtin, BlockSize: 4096, QueueDepth: 4,
		Duration: 100 * time.Millisecond, Repeats: 3, Idle: 10 * time.Millisecond, Out: t.TempDir(),
	}, &stand{wire: &loopbackWAN{}, rig: p}
}

// Everything but the WAN is real: processes, sockets, files.
func TestSweepOnRealProcesses(t *testing.T) {
	conf, st := loopbackSweep(t)
	report, err := sweep.Run(t.Context(), conf, sweep.Facts{}, []sweep.Target{st})
	if err != nil {
		t.Fatal(st.rig.explain(err))
	}
	if !report.ReplicasIdentical || report.BytesCompared != 10*int64(st.rig.size) || report.BlocksVerified == 0 {
		t.Errorf("identical %v, %d bytes, %d blocks verified", report.ReplicasIdentical, report.BytesCompared, report.BlocksVerified)
	}
	for _, p := range report.Points {
		if p.Fidelity != sweep.OK || p.Trials != 3 || p.Writes < 100 || len(p.Probes) != 2 {
			t.Errorf("%v km: %+v", p.Km, p)
		}
	}
	if err := st.Close(false); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(st.rig.dir); err == nil {
		t.Error("the volume's copies were left behind")
	}
	if _, err := os.Stat(filepath.Join(conf.Out, "report.html")); err != nil {
		t.Error(err)
	}
}

func TestSweepByFio(t *testing.T) {
	if testing.Short() {
		t.Skip("fio takes seconds to start and stop")
	}
	conf, st := loopbackSweep(t)
	conf.Workload, conf.Idle = sweep.Fio, 0
	report, err := sweep.Run(t.Context(), conf, sweep.Facts{}, []sweep.Target{st})
	if err != nil {
		t.Fatal(st.rig.explain(err))
	}
	if !report.ReplicasIdentical || report.Points[0].Writes < 100 {
		t.Errorf("identical %v, %+v", report.ReplicasIdentical, report.Points[0])
	}
}

func TestSweepFindsDifferentReplicas(t *testing.T) {
	conf, st := loopbackSweep(t)
	conf.Idle = 0
	spoiled := &spoilingStand{stand: st}
	_, err := sweep.Run(t.Context(), conf, sweep.Facts{}, []sweep.Target{spoiled})
	if err == nil || !strings.Contains(err.Error(), "differ from offset 4711 on") || !isEvidence(err) {
		t.Fatalf("error %v", err)
	}
	if err := st.Close(isEvidence(err)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := st.rig.copies(); err != nil {
		t.Errorf("the evidence is gone: %v", err)
	}
}

// spoilingStand damages the replica's copy before the comparison.
type spoilingStand struct{ *stand }

func (s *spoilingStand) Compare(ctx context.Context) (int64, error) {
	_, replica, err := s.rig.copies()
	if err != nil {
		return 0, err
	}
	f, err := os.OpenFile(replica, os.O_RDWR, 0)
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
	return s.stand.Compare(ctx)
}

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
		{"--target=floppy", "unknown; there are lockstep"},
		{"--target=lockstep,lockstep", "named twice"},
		{"--workload=nowhere.fio", "fio job file"},
		{"--fs=ntfs", "must be one of"},
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
