package nbd

import (
	"os/exec"
	"strings"
	"testing"
)

// run runs a program and returns its output; it skips the test if the program
// is not installed.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed", name)
	}
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestInteropFioVerify(t *testing.T) {
	path := serve(t, Config{Exports: []Export{disk(64 << 20)}})
	run(t, "fio", "--name=v", "--ioengine=nbd", "--uri=nbd+unix:///disk?socket="+path, "--rw=randwrite",
		"--bsrange=512-256k", "--bs_unaligned", "--iodepth=32", "--size=64m", "--io_size=128m", "--verify=crc32c", "--verify_fatal=1")
}

func TestInteropNbdinfo(t *testing.T) {
	path := serve(t, Config{Exports: []Export{disk(64 << 20)}})
	out := run(t, "nbdinfo", "nbd+unix:///disk?socket="+path)
	for _, want := range []string{"export-size: 67108864 (64M)", "can_multi_conn: true", "base:allocation", "block_size_maximum: 33554432"} {
		if !strings.Contains(out, want) {
			t.Errorf("nbdinfo does not say %q:\n%s", want, out)
		}
	}
}
