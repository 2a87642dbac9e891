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
	s, err := Open(filepath.Join(t.TempDir(), "store"), size)
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
	s, err := Open(path, size)
	if err != nil {
		t.Fatal(err)
	}
	_, busy := Open(path, size)
	s.Close()
	_, otherSize := Open(path, 2*size)
	_, unaligned := Open(filepath.Join(dir, "new"), size+1)
	_, directory := Open(dir, size)
	for want, err := range map[string]error{
		"another process has it open": busy,
		"holds 1048576 bytes":         otherSize,
		"not a positive multiple":     unaligned,
		"is a directory":              directory,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want ... %s ...", err, want)
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

func TestWriteZeroesCoversEveryByte(t *testing.T) {
	s := open(t)
	full := bytes.Repeat([]byte{1}, size)
	if err := s.WriteAt(full, 0); err != nil {
		t.Fatal(err)
	}
	if err := s.writeZeroes(1000, 500001); err != nil {
		t.Fatal(err)
	}
	clear(full[1000:501001])
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
	if err := unix.Fadvise(s.fd, 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
	if err := s.ReadCached(p, 8192); err != nil && !errors.Is(err, ErrNotCached) {
		t.Errorf("read from the disk: %v, want nil (on a file system in memory) or ErrNotCached", err)
	}
	if !bytes.Equal(read(t, s, 8192, 4096), want) {
		t.Error("ReadAt does not return what was written")
	}
}

// A store on a full disk names the cause, so that a client gets ENOSPC.
func TestFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to mount a small tmpfs")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("cannot mount a tmpfs here: %v", err)
	}
	defer unix.Unmount(dir, 0)
	s, err := Open(filepath.Join(dir, "store"), size)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	err = s.WriteAt(make([]byte, 128<<10), 0)
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "at 0+131072") {
		t.Errorf("write to a full disk: %v, want ENOSPC and where", err)
	}
}

func TestBrokenStoreTakesNothing(t *testing.T) {
	s := open(t)
	s.broken.Store(true)
	for name, err := range map[string]error{
		"write": s.WriteAt([]byte("x"), 0), "zero": s.Zero(0, 512, false), "sync": s.Sync(),
	} {
		if !errors.Is(err, ErrBroken) {
			t.Errorf("%s: %v, want ErrBroken", name, err)
		}
	}
	read(t, s, 0, 512)
}

// What a failed sync could not write may be in the page cache, called clean: a
// later process must not take the store for good.
func TestBrokenStoreIsNotOpenedAgain(t *testing.T) {
	s := open(t)
	if err := os.WriteFile(s.marker(), []byte("input/output error\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := Open(s.Path(), size); !errors.Is(err, ErrBroken) || !strings.Contains(err.Error(), "input/output error") {
		t.Errorf("%v, want ErrBroken and why", err)
	}
	if err := os.Remove(s.marker()); err != nil {
		t.Fatal(err)
	}
	again, err := Open(s.Path(), size)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}
