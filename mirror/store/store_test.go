package store

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const size = 1 << 20

func open(t *testing.T) *Store {
	t.Helper()
	return openAt(t, filepath.Join(t.TempDir(), "store"))
}

func openAt(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(Options{Path: path, Size: size})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func read(t *testing.T, s *Store, off, n int64) []byte {
	t.Helper()
	p := make([]byte, n)
	if err := s.ReadAt(p, off); err != nil {
		t.Fatal(err)
	}
	return p
}

func blocks(t *testing.T, s *Store) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(s.Path(), &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks
}

func TestNewStoreIsSparseAndReadsAsZeroes(t *testing.T) {
	s := open(t)
	if !bytes.Equal(read(t, s, 0, size), make([]byte, size)) {
		t.Error("a new store does not read as zeroes")
	}
	if n := blocks(t, s); n != 0 {
		t.Errorf("a new store takes %d blocks", n)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "store")
	refused := func(o Options) error {
		s, err := Open(o)
		if err == nil {
			s.Close()
		}
		return err
	}
	s := openAt(t, path)
	busy := refused(Options{Path: path, Size: size})
	// Another file with the same metadata would mix two stores up.
	stray := filepath.Join(dir, "stray")
	if err := os.WriteFile(stray, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	shared := refused(Options{Path: stray, Size: size, Meta: path + ".lockstep"})
	s.Close()
	for _, c := range []struct {
		want string
		err  error
	}{
		{"another process has it open", busy},
		{"another process has it open", shared},
		{"its size is 1048576 bytes, not the 2097152 asked for", refused(Options{Path: path, Size: 2 * size})},
		{"its region is 4194304 bytes", refused(Options{Path: path, Size: size, Region: 1 << 20})},
		{"its block is 4096 bytes", refused(Options{Path: path, Size: size, Block: 512})},
		{"holds 1048576 bytes, not the 2097152 asked for", refused(Options{Path: stray, Size: 2 * size, Meta: filepath.Join(dir, "m")})},
		{"not a positive multiple", refused(Options{Path: filepath.Join(dir, "new"), Size: size + 1})},
		{"not a power of two", refused(Options{Path: filepath.Join(dir, "new"), Size: size, Block: 1000})},
		{"take larger ones", refused(Options{Path: filepath.Join(dir, "new"), Size: 1 << 40, Region: 512})},
		{"is a directory", refused(Options{Path: dir, Size: size})},
		{"no such file", refused(Options{Path: "/dev/lockstep-no-such-disk", Size: size})},
		{"neither a regular file nor a block device", refused(Options{Path: "/dev/null", Size: size})},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("got %v, want ... %s ...", c.err, c.want)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Size() != size {
		t.Errorf("a refused open changed the store: %v, %v", info.Size(), err)
	}
}

func TestZeroPunchesOrKeeps(t *testing.T) {
	s := open(t)
	full := bytes.Repeat([]byte{1}, size)
	if err := s.WriteAt(full, 0); err != nil {
		t.Fatal(err)
	}
	before := blocks(t, s)
	if err := s.Zero(4096, 65536, true); err != nil {
		t.Fatal(err)
	}
	if n := blocks(t, s); n < before {
		t.Errorf("zeroes that keep the range allocated gave back %d blocks", before-n)
	}
	if err := s.Zero(131072, 65536, false); err != nil {
		t.Fatal(err)
	}
	if n := blocks(t, s); n > before-65536/512 {
		t.Errorf("%d blocks after punching 64 KiB, %d before", n, before)
	}
	if err := s.Zero(262144+100, 1000, false); err != nil {
		t.Fatal(err)
	}
	clear(full[4096:][:65536])
	clear(full[131072:][:65536])
	clear(full[262144+100:][:1000])
	if !bytes.Equal(read(t, s, 0, size), full) {
		t.Error("zeroes are not exactly where they were asked for")
	}
}

func TestData(t *testing.T) {
	s := open(t)
	if start, end, err := s.Data(0); err != nil || start != size || end != size {
		t.Errorf("an empty store has data at %d-%d, %v", start, end, err)
	}
	if err := s.WriteAt(make([]byte, 65536), 131072); err != nil {
		t.Fatal(err)
	}
	start, end, err := s.Data(0)
	if err != nil || start > 131072 || start < 65536 || end < 196608 {
		t.Errorf("data at %d-%d, %v; want about 131072-196608", start, end, err)
	}
	if start, _, err := s.Data(end); err != nil || start != size {
		t.Errorf("data after the last at %d, %v", start, err)
	}
	if start, end, err := s.Data(size); err != nil || start != size || end != size {
		t.Errorf("data at the end: %d-%d, %v", start, end, err)
	}
}

func TestReadCached(t *testing.T) {
	s := open(t)
	want := bytes.Repeat([]byte{7}, 4096)
	if err := s.WriteAt(want, 8192); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 4096)
	if err := s.ReadCached(p, 8192); err != nil || !bytes.Equal(p, want) {
		t.Errorf("read of what was just written: %v", err)
	}
	if err := s.ReadCached(nil, 0); err != nil {
		t.Errorf("read of nothing: %v", err)
	}
	// Out of the page cache, it must say so instead of waiting for the disk.
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	dropFromCache(t, s.Path())
	if err := s.ReadCached(p, 8192); err != nil && !errors.Is(err, ErrNotCached) {
		t.Errorf("read from the disk: %v, want nil (on a file system in memory) or ErrNotCached", err)
	}
	if !bytes.Equal(read(t, s, 8192, 4096), want) {
		t.Error("ReadAt does not return what was written")
	}
}

func dropFromCache(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
}

// A store on a full disk names the cause, so that a client gets ENOSPC.
func TestFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to mount a small tmpfs")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("cannot mount a tmpfs here: %v", err)
	}
	defer unix.Unmount(dir, 0)
	s, err := Open(Options{Path: filepath.Join(dir, "store"), Size: size})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	err = s.WriteAt(make([]byte, 512<<10), 0)
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "at 0+524288") {
		t.Errorf("write to a full disk: %v, want ENOSPC and where", err)
	}
}
