package sweep

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const fioJSON = `fio: this warning precedes the output
{"jobs": [
 {"jobname": "a", "error": 0,
  "read":  {"runtime": 0, "total_ios": 0, "clat_ns": {}},
  "write": {"runtime": 2000, "total_ios": 3, "clat_ns": {"bins": {"1000000": 2, "5000000": 1}}}},
 {"jobname": "b", "error": 0,
  "read":  {"runtime": 1000, "total_ios": 9, "clat_ns": {"bins": {"10": 9}}},
  "write": {"runtime": 1000, "total_ios": 1, "clat_ns": {}, "lat_ns": {"bins": {"1000000": 1}}}}
]}`

func TestParseFio(t *testing.T) {
	m, err := parseFio([]byte(fioJSON))
	if err != nil {
		t.Fatal(err)
	}
	if n := m.latency.TotalCount(); n != 4 || m.elapsed != 2*time.Second || m.iops() != 2 {
		t.Errorf("%d writes in %v: %v IOPS; want the 4 writes of both jobs in 2 s", n, m.elapsed, m.iops())
	}
	if p50, most := percentile(m.latency, 50), percentile(m.latency, 100); !near(p50, 1000, 1) || !near(most, 5000, 5) {
		t.Errorf("p50 %v us, max %v us; want 1000 and 5000", p50, most)
	}
}

func TestParseFioRefuses(t *testing.T) {
	for name, tc := range map[string]struct{ text, why string }{
		"nothing":        {"", "parse fio"},
		"no JSON":        {"fio: bad option", "parse fio"},
		"no jobs":        {`{"jobs": []}`, "no latencies"},
		"a failed job":   {`{"jobs": [{"jobname": "x", "error": 5}]}`, "job x: error 5"},
		"a bad bin":      {strings.Replace(fioJSON, "5000000", "fast", 1), `bin "fast"`},
		"a bad count":    {strings.Replace(fioJSON, `"5000000": 1`, `"5000000": -1`, 1), "-1"},
		"no percentiles": {`{"jobs": [{"write": {"runtime": 10, "total_ios": 3, "clat_ns": {}}}]}`, "clat_percentiles"},
	} {
		if _, err := parseFio([]byte(tc.text)); err == nil || !strings.Contains(err.Error(), tc.why) {
			t.Errorf("%s: error %v, want %q in it", name, err, tc.why)
		}
	}
}

func FuzzParseFio(f *testing.F) {
	f.Add([]byte(fioJSON))
	f.Add([]byte(`{"jobs": [{"write": {"runtime": 1, "total_ios": 1, "clat_ns": {"bins": {"9223372036854775807": 1}}}}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := parseFio(text)
		if err == nil && (m.latency.TotalCount() <= 0 || m.elapsed <= 0) {
			t.Fatalf("accepted %d writes in %v", m.latency.TotalCount(), m.elapsed)
		}
	})
}

func TestFioArguments(t *testing.T) {
	c := testConfig("x")
	c.Workload, c.Rate, c.QueueDepth = Fio, 500, 32
	args := fioArgs(c, Source{URI: "nbd+unix:///?socket=/s"})
	for _, want := range []string{"--uri=nbd+unix:///?socket=/s", "--bs=4096", "--iodepth=32", "--rate_iops=500", "--runtime=100000us", "--ramp_time=20000us"} {
		if !slices.Contains(args, want) {
			t.Errorf("no %s in %v", want, args)
		}
	}
}

// A busy machine, or a slow disk, has few writes for fio in enough time.
const few, enough = 10, time.Second

// memoryExport serves a volume for fio and returns its URI.
func memoryExport(t *testing.T) string {
	t.Helper()
	for _, program := range []string{"fio", "nbdkit"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed", program)
		}
	}
	socket := filepath.Join(t.TempDir(), "s")
	server := exec.Command("nbdkit", "--foreground", "--exit-with-parent", "--unix", socket, "memory", "16M")
	server.Stderr = os.Stderr
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Process.Kill()
		server.Wait()
	})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("unix", socket) // it is there before somebody listens
		if err == nil {
			c.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("nbdkit does not listen after 10 s: %v", err)
		}
	}
	return "nbd+unix:///?socket=" + socket
}

func TestFioItself(t *testing.T) {
	uri := memoryExport(t)
	jobs := filepath.Join(t.TempDir(), "jobs.fio")
	const text = "[mine]\nrw=randwrite\nbs=8k\niodepth=4\nsize=4m\nnumber_ios=200\n"
	if err := os.WriteFile(jobs, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, workload := range []string{Fio, jobs} {
		c := testConfig(t.TempDir())
		c.Workload, c.Duration = workload, enough
		m, err := runFio(context.Background(), c, Source{URI: uri})
		if err != nil {
			t.Fatalf("%s: %v", workload, err)
		}
		if n := m.latency.TotalCount(); n < few || workload == jobs && n != 200 {
			t.Errorf("%s: %d writes", workload, n)
		}
		if p50 := percentile(m.latency, 50); p50 < 1 || p50 > 1e6 {
			t.Errorf("%s: p50 = %v us", workload, p50)
		}
	}
	if _, err := runFio(context.Background(), Config{Workload: jobs, Out: t.TempDir()}, Source{URI: uri + ".gone"}); err == nil || !strings.Contains(err.Error(), "run /") {
		t.Errorf("without a server: error %v", err)
	}
}

func TestFioOnADevice(t *testing.T) {
	args := fioArgs(testConfig("x"), Source{Path: "/dev/nbd7"})
	for _, want := range []string{"--ioengine=libaio", "--direct=1", "--filename=/dev/nbd7", "--thread", "--end_fsync=1"} {
		if !slices.Contains(args, want) {
			t.Errorf("no %s in %v", want, args)
		}
	}
	if _, err := exec.LookPath("fio"); err != nil {
		t.Skip(err)
	}
	path := loopDevice(t, directFile(t, 16<<20), "512")
	c := testConfig(t.TempDir())
	c.Workload, c.Duration = Fio, enough
	m, err := runFio(t.Context(), c, Source{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	if n := m.latency.TotalCount(); n < few {
		t.Errorf("%d writes", n)
	}
}

// No worker of a program that was stopped goes on, even one that hides from it.
func TestStoppedProgramLeavesNoWorkers(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		const worker = `(trap "" TERM INT; echo $BASHPID >>"$0"; exec sleep 600) & `
		_, err := runToEnd(groupCommand(ctx, "bash", "-c", worker+worker+"wait", pids))
		ended <- err
	}()
	var list []string
	for len(list) < 2 {
		text, _ := os.ReadFile(pids)
		list = strings.Fields(string(text))
		select {
		case err := <-ended:
			t.Fatal(err)
		case <-time.After(time.Millisecond):
		}
	}
	cancel()
	if err := <-ended; err == nil {
		t.Error("no error")
	}
	for _, text := range list {
		pid, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(10 * time.Second); isAlive(pid); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("worker %d lives on", pid)
			}
		}
	}
}

// isAlive is false for one that only waits for init to collect it.
func isAlive(pid int) bool {
	state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(state), ") Z ")
}
