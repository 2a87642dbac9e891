package sweep

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"lockstep/wanem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// inBubble runs a sweep in virtual time, so that it is exact and takes none.
func inBubble(t *testing.T, c Config, targets ...Target) (report *Report, err error) {
	t.Helper()
	synctest.Test(t, func(*testing.T) { report, err = Run(context.Background(), c, testFacts(), targets) })
	return report, err
}

func TestSweepFindsOneRoundTrip(t *testing.T) {
	c := tailConfig(t.TempDir())
	var progress bytes.Buffer
	c.Progress = &progress
	target := newFakeTarget()
	r, err := inBubble(t, c, target)
	if err != nil {
		t.Fatal(err)
	}
	if got := *r.RoundTrips; math.Abs(got-1) > 0.005 {
		t.Errorf("round trips per write = %v, want 1", got)
	}
	if got := *r.USPerKm; math.Abs(got-9.795) > 0.05 {
		t.Errorf("slope = %v us/km, want 9.795", got)
	}
	if got := *r.InterceptUS; math.Abs(got-114) > 5 { // 100 + 20 ln 2
		t.Errorf("intercept = %v us, want 114", got)
	}
	if r.Points[2].Km != 100 || math.Abs(r.Points[2].P50US-979.5-114) > 5 {
		t.Errorf("point = %+v, want 100 km with 1094 us", r.Points[2])
	}
	if !r.ReplicasIdentical || r.BlocksVerified == 0 {
		t.Errorf("identical %v, %d blocks verified", r.ReplicasIdentical, r.BlocksVerified)
	}
	checkLimits(t, r)
	checkProbes(t, r)
	checkFiles(t, c.Out)
	if n := strings.Count(progress.String(), "\n"); n != 12 {
		t.Errorf("%d lines of progress, want one for each of 12 trials:\n%s", n, &progress)
	}
	inOrder := slices.IsSorted(target.links)
	if inOrder || len(target.links) != 13 {
		t.Errorf("links were set in the order %v: want the bare one and 12 in random order", target.links)
	}
}

func checkLimits(t *testing.T, r *Report) {
	t.Helper()
	want := []Limit{ // p99 is 100 + 20 ln 100 = 192 us above the RTT
		{BudgetUS: 1000, Km: 82.5, How: Interpolated, KmTwo: 41.2, HowTwo: Interpolated},
		{BudgetUS: 2000, Km: 184.6, How: Interpolated, KmTwo: 92.3, HowTwo: Interpolated},
		{BudgetUS: 10000, Km: 1001, How: Extrapolated, KmTwo: 500.6, HowTwo: Extrapolated},
	}
	if len(r.Limits) != len(want) {
		t.Fatalf("limits = %+v", r.Limits)
	}
	for i, w := range want {
		got := r.Limits[i]
		if got.BudgetUS != w.BudgetUS || got.How != w.How || math.Abs(got.Km-w.Km) > 0.02*w.Km+3 || math.Abs(got.KmTwo-w.KmTwo) > 0.02*w.KmTwo+3 {
			t.Errorf("limit = %+v, want about %+v", got, w)
		}
	}
}

func checkProbes(t *testing.T, r *Report) {
	t.Helper()
	for _, p := range r.Points {
		if len(p.Probes) != 2 {
			t.Fatalf("%v km: probes %+v, want 4 KiB and 1 MiB", p.Km, p.Probes)
		}
		for _, probe := range p.Probes {
			floor := p.RTTWantUS + 100
			if probe.ColdUS < floor || probe.WarmUS < floor || probe.IdleUS < floor || probe.IdleForUS != 3e6 {
				t.Errorf("%v km: probe %+v below its floor of %v us", p.Km, probe, floor)
			}
		}
	}
}

// checkFiles looks at the files as another program would.
func checkFiles(t *testing.T, out string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(out, "report.json"))
	if err != nil {
		t.Fatal(err)
	}
	var report map[string]any
	if err := json.Unmarshal(text, &report); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"round_trips_per_write", "slope_us_per_km", "intercept_us"} {
		if _, ok := report[key].(float64); !ok {
			t.Errorf("report.json: %s is %v, want a number", key, report[key])
		}
	}
	if report["replicas_identical"] != true {
		t.Errorf("report.json: replicas_identical is %v", report["replicas_identical"])
	}
	hasKeys(t, report["points"], "km", "rtt_want_us", "rtt_got_us", "p50_us", "p99_us", "iops", "fidelity")
	hasKeys(t, report["limits"], "budget_us", "km")
	table, err := os.ReadFile(filepath.Join(out, "points.csv"))
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(bytes.NewReader(table)).ReadAll()
	if err != nil || len(rows) != 5 || rows[0][0] != "km" || rows[1][0] != "0" || rows[4][0] != "500" {
		t.Errorf("points.csv: %v, error %v", rows, err)
	}
}

func hasKeys(t *testing.T, list any, keys ...string) {
	t.Helper()
	items, _ := list.([]any)
	if len(items) == 0 {
		t.Errorf("report.json: %v is no list of objects", list)
	}
	for _, item := range items {
		for _, key := range keys {
			if _, ok := item.(map[string]any)[key]; !ok {
				t.Errorf("report.json: no %s in %v", key, item)
			}
		}
	}
}

func TestDamagedWriteFailsTheSweep(t *testing.T) {
	target := newFakeTarget()
	c := testConfig(t.TempDir())
	c.Idle = 0
	target.size, target.corrupt = 64<<10, 3*4096+100 // 16 blocks: each is hit soon
	_, err := inBubble(t, c, target)
	var mismatch *MismatchError
	if !errors.As(err, &mismatch) {
		t.Fatalf("error %v, want a mismatch", err)
	}
	if mismatch.Block != 3 || mismatch.Offset != 12288 || !strings.Contains(err.Error(), "block 3 at offset 12288") ||
		!strings.Contains(mismatch.Got, "checksum is wrong") {
		t.Errorf("error %v does not say what is wrong with block 3", err)
	}
}

func TestDifferentReplicasFailTheSweep(t *testing.T) {
	target := newFakeTarget()
	target.differ = true
	c := testConfig(t.TempDir())
	r, err := inBubble(t, c, target)
	if err == nil || !strings.Contains(err.Error(), "4711") {
		t.Fatalf("error %v, want the offset of the difference", err)
	}
	if _, err := os.Stat(filepath.Join(c.Out, "report.json")); r != nil || err == nil {
		t.Error("there is a report, though the replicas differ")
	}
}

func TestBadLinkIsLabelledAndLeftOut(t *testing.T) {
	target := newFakeTarget()
	target.rttError = func(link wanem.Link) time.Duration {
		if link.Distance == 500*wanem.Km {
			return time.Millisecond
		}
		return 0
	}
	r, err := inBubble(t, testConfig(t.TempDir()), target)
	if err != nil {
		t.Fatal(err)
	}
	last := r.Points[3]
	if last.Fidelity != Off || last.LeftOut != 3 || r.TrialsLeftOut != 3 || r.TrialsFitted != 9 {
		t.Errorf("500 km: %+v; %d left out, %d fitted", last, r.TrialsLeftOut, r.TrialsFitted)
	}
	if math.Abs(*r.RoundTrips-1) > 0.01 {
		t.Errorf("round trips = %v: the bad point is in the fit", *r.RoundTrips)
	}
	page, err := r.html()
	if err != nil || !bytes.Contains(page, []byte("500 km, repeat 1: off: RTT 5897 us, wanted 4897, and 4779 to 5015 would do")) {
		t.Errorf("the page does not say what is left out (error %v)", err)
	}
}

func TestLinkIsSetAgainIfItIsOff(t *testing.T) {
	target := newFakeTarget()
	measured := 0
	target.rttError = func(wanem.Link) time.Duration {
		if measured++; measured == attempts+1 { // the first one after those of the bare link
			return time.Millisecond
		}
		return 0
	}
	r, err := inBubble(t, testConfig(t.TempDir()), target)
	if err != nil {
		t.Fatal(err)
	}
	if r.TrialsLeftOut != 0 || len(target.links) != 14 {
		t.Errorf("%d trials left out; the link was set %d times for none and 12 trials", r.TrialsLeftOut, len(target.links))
	}
	if !strings.Contains(r.integrity(), "of the RTT measurements 1 were off at first") {
		t.Errorf("the report hides it: %s", r.integrity())
	}
}

func TestDriftIsLabelled(t *testing.T) {
	target := newFakeTarget()
	loaded := false
	target.setLink = func() error { loaded = false; return nil }
	target.rttError = func(link wanem.Link) time.Duration {
		was := loaded
		loaded = true // every measurement but the first after SetLink follows the load
		if was && link.Distance == 100*wanem.Km {
			return -100 * time.Microsecond
		}
		return 0
	}
	r, err := inBubble(t, testConfig(t.TempDir()), target)
	if err != nil {
		t.Fatal(err)
	}
	if p := r.Points[2]; p.Fidelity != Drift || p.LeftOut != 3 || !strings.Contains(p.Why, "979 us before, 879 after") {
		t.Errorf("100 km: %+v", p)
	}
}

func TestNothingMeasuredWell(t *testing.T) {
	target := newFakeTarget()
	target.drops = 7
	c := testConfig(t.TempDir())
	r, err := inBubble(t, c, target)
	if err != nil {
		t.Fatal(err)
	}
	if r.RoundTrips != nil || !strings.HasPrefix(r.Answer, "No answer") || r.Points[0].Fidelity != Drops || r.Limits[0].How != Unknown {
		t.Errorf("answer %q, limits %+v", r.Answer, r.Limits)
	}
}

// What a volume does while it has lost a copy is no mirror's latency.
func TestLostCopyIsLabelled(t *testing.T) {
	target := newFakeTarget()
	target.lost = "epoch 2 became 4"
	r, err := inBubble(t, testConfig(t.TempDir()), target)
	if err != nil {
		t.Fatal(err)
	}
	if p := r.Points[0]; p.Fidelity != Degraded || p.LeftOut != 3 || !r.ReplicasIdentical || !strings.Contains(r.integrity(), "their set of copies, was not as wanted") {
		t.Errorf("%+v, identical %v: %s", p, r.ReplicasIdentical, r.integrity())
	}
}

func TestResume(t *testing.T) {
	c := testConfig(t.TempDir())
	whole, err := inBubble(t, testConfig(t.TempDir()), newFakeTarget())
	if err != nil {
		t.Fatal(err)
	}
	target := newFakeTarget()
	ctx, cancel := context.WithCancel(context.Background())
	target.setLink = func() error {
		if len(target.links) == 6 {
			cancel()
			return ctx.Err()
		}
		return nil
	}
	synctest.Test(t, func(*testing.T) { _, err = Run(ctx, c, testFacts(), []Target{target}) })
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "--resume --out "+c.Out) {
		t.Fatalf("error %v, want how to go on", err)
	}
	if _, err := inBubble(t, c, newFakeTarget()); err == nil || !strings.Contains(err.Error(), "--resume") {
		t.Errorf("a second sweep into the same directory: error %v", err)
	}
	checkRefusals(t, c)

	c.Resume = true
	rest := newFakeTarget()
	r, err := inBubble(t, c, rest)
	if err != nil {
		t.Fatal(err)
	}
	if len(rest.links) != 9 {
		t.Errorf("%d trials after 4 of 12 were done", len(rest.links))
	}
	if math.Abs(*r.RoundTrips-*whole.RoundTrips) > 0.005 || len(r.Points) != 4 {
		t.Errorf("resumed: %v round trips; in one go: %v", *r.RoundTrips, *whole.RoundTrips)
	}
}

func checkRefusals(t *testing.T, c Config) {
	t.Helper()
	c.Resume = true
	other := c
	other.QueueDepth = 2
	if _, err := inBubble(t, other, newFakeTarget()); err == nil || !strings.Contains(err.Error(), `qd was "1", now "2"`) {
		t.Errorf("resumed with another depth: error %v", err)
	}
	target := newFakeTarget()
	target.different = "durable"
	if _, err := inBubble(t, c, target); err == nil || !strings.Contains(err.Error(), `fake.ack was "", now "durable"`) {
		t.Errorf("resumed on another target: error %v", err)
	}
}

func TestStopsWithinASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testConfig(t.TempDir())
		c.Duration = time.Minute
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(5*time.Second, cancel) // in the load or in the pause of a probe
		began := time.Now()
		_, err := Run(ctx, c, testFacts(), []Target{newFakeTarget()})
		if took := time.Since(began); !errors.Is(err, context.Canceled) || took > 6*time.Second {
			t.Errorf("stopped after %v with %v", took, err)
		}
	})
}

func TestHangingVolumeIsNoticed(t *testing.T) {
	target := newFakeTarget()
	target.overhead = 24 * time.Hour
	_, err := inBubble(t, testConfig(t.TempDir()), target)
	if err == nil || !strings.Contains(err.Error(), "hangs") {
		t.Errorf("error %v", err)
	}
}
