package sweep

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const pgbenchLog = `0 1 1500 0 1700000000 2000
1 1 2500 0 1700000000 600000
0 2 1000 0 1700000000 900000 25
`

func TestParsePgbenchLog(t *testing.T) {
	list, err := parsePgbenchLog(strings.NewReader(pgbenchLog))
	if err != nil {
		t.Fatal(err)
	}
	want := transaction{began: time.Unix(1700000000, 500_000), took: 1500 * time.Microsecond}
	if len(list) != 3 || list[0] != want {
		t.Errorf("%v, want 3 with %v first", list, want)
	}
	// The first began at 0.0005 s; the others are within 0.5 to 1.5 s of it.
	m, err := window(list, 500*time.Millisecond, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if n := m.latency.TotalCount(); n != 2 || m.elapsed != 399500*time.Microsecond {
		t.Errorf("%d transactions in %v, want 2 in 399.5ms", n, m.elapsed)
	}
	if p := percentile(m.latency, 100); !near(p, 2500, 3) {
		t.Errorf("max %v us, want 2500", p)
	}
	if _, err := window(list, time.Hour, time.Second); err == nil || !strings.Contains(err.Error(), "no transaction began") {
		t.Errorf("an empty window: error %v", err)
	}
	if _, err := window(nil, 0, time.Second); err == nil {
		t.Error("nothing at all is no error")
	}
}

func TestParsePgbenchLogRefuses(t *testing.T) {
	for name, tc := range map[string]struct{ text, why string }{
		"a failed one":  {"0 1 failed 0 1700000000 2000", "line 1 .*a transaction failed"},
		"a short line":  {"0 1 1500\n", "3 fields"},
		"no latency":    {pgbenchLog + "0 1 fast 0 1700000000 2000", "line 4"},
		"before 1970":   {"0 1 1500 0 -1 2000", "field 5"},
		"no such time":  {"0 1 9223372036854775807 0 1 1", "field 3"},
		"an empty line": {"\n", "0 fields"},
	} {
		_, err := parsePgbenchLog(strings.NewReader(tc.text))
		if parts := strings.Split(tc.why, ".*"); err == nil || slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(err.Error(), p) }) {
			t.Errorf("%s: error %v, want %q in it", name, err, tc.why)
		}
	}
}

func FuzzParsePgbenchLog(f *testing.F) {
	f.Add(pgbenchLog)
	f.Fuzz(func(t *testing.T, text string) {
		list, err := parsePgbenchLog(strings.NewReader(text))
		if err != nil {
			return
		}
		if m, err := window(list, 0, time.Second); err == nil && (m.latency.TotalCount() == 0 || m.elapsed < 0) {
			t.Errorf("%d transactions in %v", m.latency.TotalCount(), m.elapsed)
		}
	})
}

func TestCheckSums(t *testing.T) {
	for name, tc := range map[string]struct{ row, why string }{
		"all there":          {"10 5 5 5 5", ""},
		"more than was told": {"12 5 5 5 5", ""}, // those in flight at the end
		"a lost one":         {"9 5 5 5 5", "10 transactions were committed and 9"},
		"a torn one":         {"10 5 6 5 5", "sums 5, 6, 5 and 5"},
		"no numbers":         {"10 5 x 5 5", "invalid syntax"},
		"too few":            {"10", "not five numbers"},
	} {
		err := checkSums(strings.Fields(tc.row), 10)
		if (err == nil) != (tc.why == "") || err != nil && !strings.Contains(err.Error(), tc.why) {
			t.Errorf("%s: error %v, want %q", name, err, tc.why)
		}
	}
	if err := checkSums(strings.Fields("9 5 5 5 5"), 10); !errors.As(err, new(*LostCommitError)) {
		t.Errorf("%v is no evidence", err)
	}
}

func TestPgbenchArguments(t *testing.T) {
	c := Config{WarmUp: 200 * time.Millisecond, Duration: 2 * time.Second, QueueDepth: 4, Rate: 250}
	args := strings.Join(pgbenchArgs(c, "/x/t"), " ")
	for _, want := range []string{"-T 3 ", "-c 4 ", "--rate=250", "--log-prefix=/x/t"} {
		if !strings.Contains(args, want) {
			t.Errorf("no %q in %s", want, args)
		}
	}
}

func pgbenchConfig(t *testing.T) Config {
	t.Helper()
	c := testConfig(t.TempDir())
	c.Workload, c.FS, c.QueueDepth = Pgbench, "ext4", 1
	c.WarmUp, c.Duration = 200*time.Millisecond, time.Second
	if err := c.Validate(); err != nil {
		t.Skip(err)
	}
	return c
}

// A database on a real block device, killed and recovered.
func TestPgbenchItself(t *testing.T) {
	if testing.Short() {
		t.Skip("a database takes seconds to make")
	}
	c := pgbenchConfig(t)
	path := loopDevice(t, directFile(t, c.databaseSize()), "512")
	dev := openDisk(t, path)
	p := &pgbench{config: c}
	defer p.close()
	for range 2 { // the second is on a used device and a prepared database
		m, commits, err := p.run(t.Context(), 1, dev, Source{Path: path})
		if err != nil {
			t.Fatal(err)
		}
		if n := m.latency.TotalCount(); n < 10 || commits < n || m.iops() < 10 {
			t.Errorf("%d transactions, %d commits, %.0f a second", n, commits, m.iops())
		}
	}
	dir := p.dir
	if err := p.close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s was left behind", dir)
	}
	checkUnmounted(t, path)
}

func checkUnmounted(t *testing.T, device string) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), device+" ") {
		t.Errorf("%s is still mounted:\n%s", device, mounts)
	}
}

// A sweep that is stopped leaves no server, no mount and no directory.
func TestPgbenchIsStopped(t *testing.T) {
	if testing.Short() {
		t.Skip("a database takes seconds to make")
	}
	c := pgbenchConfig(t)
	c.Duration = time.Minute
	tmp, err := os.MkdirTemp("", "")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil { // the user postgres goes through it
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", tmp)
	path := loopDevice(t, directFile(t, c.databaseSize()), "512")
	dev := openDisk(t, path)
	p := &pgbench{config: c}
	defer p.close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ran := make(chan struct{})
	go func() { // when transactions run
		for ctx.Err() == nil {
			if logs, _ := filepath.Glob(filepath.Join(tmp, "lockstep-pgbench-*", "log", "t.*")); len(logs) > 0 {
				close(ran)
				cancel()
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	began := time.Now()
	_, _, err = p.run(ctx, 1, dev, Source{Path: path})
	select {
	case <-ran:
	default:
		t.Fatalf("it never ran: %v", err)
	}
	if err == nil || time.Since(began) > 50*time.Second {
		t.Errorf("error %v after %v", err, time.Since(began))
	}
	checkUnmounted(t, path)
	if _, err := os.Stat(filepath.Join(p.dir, "mnt", "data")); !errors.Is(err, os.ErrNotExist) {
		t.Error("the database is still there")
	}
	if left, _ := filepath.Glob(filepath.Join(p.dir, "s", ".s.PGSQL.*")); len(left) > 0 && serverAnswers(p) {
		t.Error("the server runs on")
	}
}

func serverAnswers(p *pgbench) bool {
	_, err := p.onVolume().run(context.Background(), "pg_isready", "-q")
	return err == nil
}

func TestPgbenchSaysWhatItNeeds(t *testing.T) {
	c := testConfig(t.TempDir())
	c.Workload, c.Duration = Pgbench, time.Second
	for name, change := range map[string]func(*Config){
		"ext4 or xfs": func(c *Config) { c.FS = "ntfs" },
		"at least 1s": func(c *Config) { c.FS, c.Duration = "ext4", 500*time.Millisecond },
	} {
		if os.Geteuid() != 0 && name != "ext4 or xfs" {
			continue
		}
		bad := c
		change(&bad)
		if err := bad.Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("error %v, want %q", err, name)
		}
	}
	p := &pgbench{config: c}
	if _, _, err := p.run(t.Context(), 1, newFakeDevice(1<<20, nil), Source{URI: "nbd://x"}); err == nil || !strings.Contains(err.Error(), "--attach kernel") {
		t.Errorf("over NBD: error %v", err)
	}
	if _, _, err := p.run(t.Context(), 1, newFakeDevice(1<<20, nil), Source{Path: "/dev/x"}); err == nil || !strings.Contains(err.Error(), "--size 344MiB") {
		t.Errorf("a small volume: error %v", err)
	}
}
