package sites

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

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"lockstep/wanem"
)

// asChild makes the test binary open sites and wait to be killed, or enter a
// user namespace and measure.
const asChild = "LOCKSTEP_TEST_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(asChild) {
	case "hold":
		holdSites()
	case "enter":
		enterAndMeasure()
	default:
		goleak.VerifyTestMain(m)
	}
}

func fatal(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func holdSites() {
	s, err := Open(context.Background(), Config{})
	fatal(err)
	// The shell is our child; the second sleep is its child, so not killed with us.
	sh := s.Command(context.Background(), B, "sh", "-c", "sleep 1000 & echo $$ $!; wait")
	stdout, err := sh.StdoutPipe()
	fatal(err)
	fatal(sh.Start())
	var children [2]int
	_, err = fmt.Fscan(stdout, &children[0], &children[1])
	fatal(err)
	fmt.Println(children[0], children[1], s.Dir())
	select {}
}

func enterAndMeasure() {
	fatal(Enter())
	s, err := Open(context.Background(), Config{})
	fatal(err)
	fatal(s.SetLink(context.Background(), A, B, km(100)))
	rtt, err := s.MeasureRTT(context.Background(), A, B, 20)
	fatal(err)
	fatal(s.Close())
	fmt.Println("uid", os.Getuid(), "rtt", rtt.Median)
}

func km(n float64) wanem.Link { return wanem.Link{Distance: wanem.Distance(n) * wanem.Km} }

func openSites(t *testing.T, names ...Site) *Sites {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root; TestWithoutRoot covers the other way")
	}
	s, err := Open(t.Context(), Config{Sites: names})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// tries is how often a test looks at what others on this machine can spoil for a while:
// the calibration of a link, or the look itself.
const tries = 5

// asFarAs says whether a round trip is about the wanted one. The bound is wide, for
// machines that are busy with other tests.
func asFarAs(want, got time.Duration) bool {
	return (got - want).Abs() <= max(500*time.Microsecond, want/5)
}

// TestCalibration prints what a link achieves: what it adds by itself, what is
// left of that, and what it costs (the whole process: relay, probes and test).
func TestCalibration(t *testing.T) {
	s := openSites(t)
	t.Logf("backend %s: %s", s.Backend(), s.Why())
	for _, d := range []float64{0, 50, 100, 500, 100, 1000} {
		want, median := km(d).RTT(), calibrated(t, s, d)
		for n := 1; n < tries && !asFarAs(want, median); n++ {
			median = calibrated(t, s, d)
		}
		if !asFarAs(want, median) {
			t.Errorf("%v km: set %d times, and still off by %v", d, tries, median-want)
		}
	}
}

// calibrated sets a link anew and returns its median round trip.
func calibrated(t *testing.T, s *Sites, d float64) time.Duration {
	t.Helper()
	begin := time.Now()
	if err := s.SetLink(t.Context(), A, B, km(d)); err != nil {
		t.Fatal(err)
	}
	took := time.Since(begin)
	begin, cpu := time.Now(), cpuTime(t)
	got, err := s.MeasureRTT(t.Context(), A, B, 50)
	if err != nil {
		t.Fatal(err)
	}
	cpu = cpuTime(t) - cpu
	busy := 100 * cpu.Seconds() / time.Since(begin).Seconds()
	if drops, err := s.Drops(A, B); err != nil || drops > 0 {
		t.Errorf("%v km: %d drops, %v", d, drops, err)
	}
	want := km(d).RTT()
	t.Logf("%4.0f km: want %v, median %v (off by %v), min %v, p99 %v; corrected by %v, set in %v; CPU %v a round trip, %.0f %% of one",
		d, want, got.Median, got.Median-want, got.Min, got.P99, s.paths[0].correction, took, cpu/50, busy)
	return got.Median
}

// cpuTime is what this process has used.
func cpuTime(t *testing.T) time.Duration {
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

func TestCutAndMend(t *testing.T) {
	s := openSites(t)
	for _, d := range []float64{0, 50} {
		if err := s.SetLink(t.Context(), A, B, km(d)); err != nil {
			t.Fatal(err)
		}
		if err := s.CutBoth(A, B, true); err != nil {
			t.Fatal(err)
		}
		if _, err := s.MeasureRTT(t.Context(), A, B, 1); err == nil || !strings.Contains(err.Error(), "lost") {
			t.Errorf("%v km, cut: %v, want lost probes", d, err)
		}
		if err := s.CutBoth(A, B, false); err != nil {
			t.Fatal(err)
		}
		if _, err := s.MeasureRTT(t.Context(), A, B, 3); err != nil {
			t.Errorf("%v km, mended: %v", d, err)
		}
		// A new link is a mended one, whichever way packets went before.
		if err := s.CutBoth(A, B, true); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []float64{100, 0} {
		if err := s.SetLink(t.Context(), A, B, km(d)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.MeasureRTT(t.Context(), A, B, 3); err != nil {
			t.Errorf("%v km, set while cut: %v", d, err)
		}
	}
}

// TestSecondSitesLeaveChildrenAlone: making and closing sites must not end a
// thread that started somebody's child.
func TestSecondSitesLeaveChildrenAlone(t *testing.T) {
	first := openSites(t)
	var children []*exec.Cmd
	for range 8 {
		c := first.Command(t.Context(), B, "sleep", "100")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			c.Process.Kill()
			c.Wait()
		}()
		children = append(children, c)
	}
	second := openSites(t)
	if err := second.SetLink(t.Context(), A, B, km(100)); err != nil {
		t.Fatal(err)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range children {
		if zombie(c.Process.Pid) {
			t.Errorf("child %d died", c.Process.Pid)
		}
	}
}

func TestShortDistancesAreRefusedByTheRelay(t *testing.T) {
	s := openSites(t)
	if s.Backend() != Tun {
		t.Skip("only the relay has a least delay")
	}
	if err := s.SetLink(t.Context(), A, B, km(5)); err == nil || !strings.Contains(err.Error(), "use 0 km") {
		t.Errorf("5 km: %v, want a refusal with a hint", err)
	}
}

func TestCommandRunsInItsSite(t *testing.T) {
	s := openSites(t)
	out, err := s.Command(t.Context(), B, "ip", "-br", "addr", "show", "lo").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "10.254.0.2") {
		t.Errorf("%s, %v", out, err)
	}
	values, err := s.Sysctls(A)
	if err != nil || values["net.ipv4.tcp_slow_start_after_idle"] != "0" {
		t.Errorf("sysctls %v, %v", values, err)
	}
}

func child(t *testing.T, mode string) *exec.Cmd {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), asChild+"="+mode)
	cmd.Stderr = t.Output()
	return cmd
}

// TestKillLeavesNothing kills a process that holds sites in the hardest way.
func TestKillLeavesNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	t.Setenv("TMPDIR", t.TempDir()) // or another test's process may find first what is left
	cmd := child(t, "hold")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var shell, stray int
	var dir string
	if _, err := fmt.Fscan(stdout, &shell, &stray, &dir); err != nil {
		t.Fatal(err)
	}
	// Of all namespaces only the one of site b still has a process in it then.
	site, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", stray))
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	eventually(t, "the child in site b is gone", func() bool { return zombie(shell) })
	if _, err := os.Stat(dir); err != nil {
		t.Fatalf("the scratch directory should be there for GC: %v", err)
	}
	removed, err := GC(t.Context())
	if err != nil || !slices.Contains(removed, dir) {
		t.Errorf("GC removed %v, %v; want %s", removed, err, dir)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after GC: %v", err)
	}
	if !zombie(stray) {
		t.Errorf("process %d, started by a child in site b, outlived GC", stray)
	}
	eventually(t, "site b is gone", func() bool { return !inUse(t, site) })
}

// inUse says whether a process is in a network namespace or holds it open.
func inUse(t *testing.T, namespace string) bool {
	var all []string
	for _, pattern := range []string{"/proc/[0-9]*/ns/net", "/proc/[0-9]*/fd/*"} {
		links, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, links...)
	}
	return slices.ContainsFunc(all, func(link string) bool {
		name, err := os.Readlink(link)
		return err == nil && name == namespace
	})
}

func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(b), ") Z ")
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !cond(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func TestGCLeavesTheLivingAlone(t *testing.T) {
	s := openSites(t)
	if removed, err := GC(t.Context()); err != nil || strings.Contains(strings.Join(removed, "\n"), s.Dir()) {
		t.Errorf("GC removed %v, %v", removed, err)
	}
	if _, err := os.Stat(s.Dir()); err != nil {
		t.Error(err)
	}
}

// TestGCLeavesWhatIsBeingMade: another process may be at any point of making a run.
func TestGCLeavesWhatIsBeingMade(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	dir := filepath.Join(base(), "run-1")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"no owner yet", "an owner file that is still empty"} {
		if removed, err := GC(t.Context()); err != nil || len(removed) > 0 {
			t.Fatalf("%s: removed %v, %v", what, removed, err)
		}
		if err := os.WriteFile(filepath.Join(dir, ownerFile), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	long := time.Now().Add(-2 * makingTime)
	if err := os.Chtimes(dir, long, long); err != nil {
		t.Fatal(err)
	}
	if removed, err := GC(t.Context()); err != nil || !slices.Equal(removed, []string{dir}) {
		t.Errorf("of a process that died over it: removed %v, %v", removed, err)
	}
}

// asUdevSetsIt gives a device the permissions that it has on a usual Debian, for
// the time of a test.
func asUdevSetsIt(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Skip(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(path, info.Mode().Perm()) })
}

func TestWithoutRoot(t *testing.T) {
	cmd := child(t, "enter")
	if os.Geteuid() == 0 {
		asUdevSetsIt(t, "/dev/net/tun", 0o666)
		// The binary must be where nobody may read it.
		exe := filepath.Join("/tmp", fmt.Sprintf("lockstep-sites-test-%d", os.Getpid()))
		b, err := os.ReadFile(cmd.Path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(exe, b, 0o755); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(exe)
		cmd.Path, cmd.Args[0], cmd.Dir = exe, exe, "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		cmd.Env = append(cmd.Env, "TMPDIR=/tmp", "HOME=/")
	}
	out, err := cmd.Output()
	if err != nil && strings.Contains(err.Error(), "operation not permitted") {
		t.Skip("this kernel allows no user namespaces")
	}
	if err != nil || !strings.HasPrefix(string(out), "uid 0 rtt ") {
		t.Errorf("%q, %v", out, err)
	}
	t.Logf("as uid 65534: %s", out)
}
