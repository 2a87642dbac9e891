package store

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// loopDevice is a block device of so many bytes that lasts as long as the test.
func loopDevice(t *testing.T, size int64) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to set up a loop device")
	}
	backing := filepath.Join(t.TempDir(), "disk")
	must(t, os.WriteFile(backing, nil, 0o600))
	must(t, os.Truncate(backing, size))
	out, err := exec.Command("losetup", "--find", "--show", backing).CombinedOutput()
	if err != nil {
		t.Skipf("no loop device can be set up here: %v: %s", err, out)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", device).CombinedOutput(); err != nil {
			t.Errorf("detach %s: %v: %s", device, err, out)
		}
	})
	return device
}

func TestBlockDevice(t *testing.T) {
	device := loopDevice(t, size)
	_, err := Open(Options{Path: device, Size: size})
	if err == nil || !strings.Contains(err.Error(), "say which directory is to hold its metadata") {
		t.Errorf("without a directory: %v", err)
	}
	_, err = Open(Options{Path: device, Size: size / 2, Meta: filepath.Join(t.TempDir(), "meta")})
	if err == nil || !strings.Contains(err.Error(), "holds 1048576 bytes") {
		t.Errorf("with another size: %v", err)
	}
	for _, direct := range []bool{false, true} {
		o := Options{Path: device, Size: size, Meta: filepath.Join(t.TempDir(), "meta"), Direct: direct}
		s, err := Open(o)
		must(t, err)
		if s.New() || s.Meta().Complete || (s.Align() > 1) != direct {
			t.Errorf("direct %v: new %v, aligned to %d, %+v", direct, s.New(), s.Align(), s.Meta())
		}
		inOut(t, s)
		must(t, s.CloseClean())
		s, err = Open(o)
		must(t, err)
		if !bytes.Equal(read(t, s, 4096, 4096), bytes.Repeat([]byte{3}, 4096)) {
			t.Errorf("direct %v: what was written is not there", direct)
		}
		must(t, s.Close())
	}
}

func TestDirectFile(t *testing.T) {
	s, err := Open(Options{Path: filepath.Join(t.TempDir(), "store"), Size: size, Direct: true})
	if errors.Is(err, syscall.EINVAL) {
		t.Skipf("the file system here has no direct I/O: %v", err)
	}
	must(t, err)
	defer s.Close()
	if s.Align() < 2 {
		t.Errorf("aligned to %d", s.Align())
	}
	inOut(t, s)
}

// inOut writes with a buffer at an odd address, zeroes and reads back.
func inOut(t *testing.T, s *Store) {
	t.Helper()
	p := bytes.Repeat([]byte{3}, 16385)[1:]
	must(t, s.WriteAt(p, 4096))
	must(t, s.Zero(8192, 4096, false))
	must(t, s.Zero(12288, 4096, true))
	must(t, s.Sync())
	clear(p[4096:][:8192])
	if !bytes.Equal(read(t, s, 4096, 16384), p) {
		t.Error("what was written is not what is read")
	}
}
