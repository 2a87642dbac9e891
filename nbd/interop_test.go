package nbd

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// run runs a program and returns its output; it skips the test if the program
// is not installed.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed (Debian: libnbd-bin, qemu-utils, fio)", name)
	}
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func mustSay(t *testing.T, out string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(out, want) {
			t.Errorf("it does not say %q:\n%s", want, out)
		}
	}
}

// image writes a file with data, zeroes and data again.
func image(t *testing.T, size int) (path string, content []byte) {
	t.Helper()
	content = make([]byte, size)
	rnd := rand.New(rand.NewPCG(5, 5))
	for i := range content {
		if i < size/3 || i > size/2 {
			content[i] = byte(rnd.Uint32())
		}
	}
	path = filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, content
}

func TestInteropNbdinfo(t *testing.T) {
	path := serve(t, Config{Exports: []Export{disk(64 << 20), {Name: "second", Size: 512, ReadOnly: true, Backend: newMemory()}}})
	uri := "nbd+unix:///disk?socket=" + path
	mustSay(t, run(t, "nbdinfo", uri), "export-size: 67108864 (64M)", "a test disk", "can_multi_conn: true", "can_fast_zero: true",
		"can_df: true", "can_cache: true", "base:allocation", "block_size_minimum: 1", "block_size_preferred: 4096", "block_size_maximum: 33554432")
	mustSay(t, run(t, "nbdinfo", "--list", "nbd+unix://?socket="+path), `export="disk"`, `export="second"`, "is_read_only: true")
	mustSay(t, run(t, "nbdinfo", "--map", uri), "67108864    3  hole,zero")
}

// TestInteropActivation has nbdinfo start the server itself.
func TestInteropActivation(t *testing.T) {
	t.Setenv(serverMode, "activated")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if out := run(t, "nbdinfo", "--size", "[", exe, "]"); out != "5242880\n" {
		t.Errorf("size %q", out)
	}
}

func TestInteropNbdcopy(t *testing.T) {
	uri := "nbd+unix:///disk?socket=" + serve(t, Config{Exports: []Export{disk(24 << 20)}})
	path, content := image(t, 24<<20)
	run(t, "nbdcopy", "--flush", path, uri)
	back := path + ".back"
	run(t, "nbdcopy", "--connections=4", uri, back)
	if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, content) {
		t.Errorf("the copy differs: %v", err)
	}
}

func TestInteropQemuImg(t *testing.T) {
	uri := "nbd+unix:///disk?socket=" + serve(t, Config{Exports: []Export{disk(24 << 20)}})
	path, _ := image(t, 24<<20)
	run(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", path, uri)
	mustSay(t, run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", path, uri), "identical")
	mustSay(t, run(t, "qemu-img", "map", "-f", "raw", "--output=json", uri), `"zero": true, "data": false`, `"zero": false, "data": true`)
}

func TestInteropQemuIO(t *testing.T) {
	for _, tc := range []struct{ name, commands, say string }{
		{"write and read", "write -P 0x5a 1M 3M;flush;read -P 0x5a 1M 3M", "read 3145728/3145728"},
		{"discard reads as zero", "write -P 1 0 1M;discard 64k 128k;read -P 0 64k 128k;read -P 1 192k 64k", "read 65536/65536"},
		{"write zeroes", "write -P 1 0 1M;write -z 64k 128k;read -P 0 64k 128k", "read 131072/131072"},
		{"write zeroes, unmapping", "write -P 1 0 1M;write -z -u 0 1M;read -P 0 0 1M", "read 1048576/1048576"},
		{"FUA", "write -f -P 7 4k 4k;read -P 7 4k 4k", "read 4096/4096"},
		{"many at once", "aio_write -P 3 0 1M;aio_write -P 4 1M 1M;aio_flush;read -P 3 0 1M;read -P 4 1M 1M", "read 1048576/1048576"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			uri := "nbd+unix:///disk?socket=" + serve(t, Config{Exports: []Export{disk(8 << 20)}})
			args := []string{"-f", "raw", "-d", "unmap"}
			for c := range strings.SplitSeq(tc.commands, ";") {
				args = append(args, "-c", c)
			}
			out := run(t, "qemu-io", append(args, uri)...)
			mustSay(t, out, tc.say)
			if strings.Contains(out, "verification failed") || strings.Contains(out, "error") {
				t.Error(out)
			}
		})
	}
}

// TestInteropFio: a mix of sizes and alignments, verified, with completion out of
// order, and small bounds.
func TestInteropFio(t *testing.T) {
	for name, cfg := range map[string]Config{
		"default": {},
		"bounded": {Limits: Limits{Requests: 3, Bytes: 300 << 10}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMemory()
			m.later = shuffled(t)
			e := disk(32 << 20)
			e.Backend = m
			cfg.Exports = []Export{e}
			uri := fmt.Sprintf("nbd+unix:///disk?socket=%s", serve(t, cfg))
			run(t, "fio", "--name=verify", "--ioengine=nbd", "--uri="+uri, "--rw=randwrite", "--bsrange=512-256k", "--bs_unaligned",
				"--iodepth=32", "--size=32m", "--verify=crc32c", "--verify_fatal=1", "--randseed=7", "--verify_state_save=0")
		})
	}
}
