package memfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"

	"lockstep/mirror/store/vfs"
)

func create(t *testing.T, f *FS, name string) vfs.File {
	t.Helper()
	h, err := f.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, h vfs.File, p []byte, off int64) {
	t.Helper()
	_, err := h.WriteAt(p, off)
	must(t, err)
}

func contents(t *testing.T, f *FS, name string) []byte {
	t.Helper()
	h, err := f.OpenFile(name, os.O_RDWR, 0)
	must(t, err)
	size, err := h.Size()
	must(t, err)
	p := make([]byte, size)
	_, err = h.ReadAt(p, 0)
	must(t, err)
	return p
}

func fill(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }

// The file is compared with a slice of bytes, over random operations.
func TestFileIsBytes(t *testing.T) {
	const size = 3 * chunkPages * pageSize
	r := rand.New(rand.NewPCG(1, 2))
	f := New(1)
	h := create(t, f, "/a")
	must(t, h.Truncate(size))
	model := make([]byte, size)
	for range 2000 {
		off := r.Int64N(size)
		n := min(r.Int64N(3*pageSize), size-off)
		switch r.IntN(4) {
		case 0:
			must(t, h.Zero(off, n, false))
			clear(model[off:][:n])
		default:
			p := fill(byte(r.IntN(255)+1), int(n))
			write(t, h, p, off)
			copy(model[off:], p)
		}
		for start, end, at := int64(0), int64(0), off; at < size; at = end {
			var err error
			start, end, err = h.Data(at)
			must(t, err)
			if !bytes.Equal(model[at:start], make([]byte, start-at)) {
				t.Fatalf("data between %d and %d is not told", at, start)
			}
			if start == end || start > off+1<<20 {
				break
			}
		}
	}
	if !bytes.Equal(contents(t, f, "/a"), model) {
		t.Error("the file is not what was written")
	}
}

// After a crash a sector is what was synced or something that was written since;
// over many seeds each of them occurs, and never half of one.
func TestCrashTearsBetweenSectors(t *testing.T) {
	seen := map[byte]int{}
	mixed := false
	for seed := range uint64(100) {
		f := New(seed)
		h := create(t, f, "/a")
		write(t, h, fill(1, 4*sectorSize), 0)
		must(t, h.Sync())
		must(t, f.SyncDir("/"))
		write(t, h, fill(2, 4*sectorSize), 0)
		write(t, h, fill(3, 4*sectorSize), 0)
		f.Crash(0.5)
		p := contents(t, f, "/a")
		for s := range 4 {
			sector := p[s*sectorSize:][:sectorSize]
			if !bytes.Equal(sector, fill(sector[0], sectorSize)) {
				t.Fatalf("seed %d: sector %d is torn", seed, s)
			}
			seen[sector[0]]++
			mixed = mixed || sector[0] != p[0]
		}
	}
	if len(seen) != 3 || seen[1] == 0 || seen[2] == 0 || seen[3] == 0 || !mixed {
		t.Errorf("sectors as synced, written first, written last: %v; writes torn: %v", seen, mixed)
	}
}

func TestTearSectors(t *testing.T) {
	torn := false
	for seed := range uint64(20) {
		f := New(seed)
		f.TearSectors = true
		h := create(t, f, "/a")
		write(t, h, fill(1, sectorSize), 0)
		must(t, h.Sync())
		must(t, f.SyncDir("/"))
		write(t, h, fill(2, sectorSize), 0)
		f.Crash(0)
		p := contents(t, f, "/a")
		torn = torn || p[0] != p[sectorSize-1]
	}
	if !torn {
		t.Error("no sector is torn in 20 crashes")
	}
}

func TestCrashKeepsWhatIsDurable(t *testing.T) {
	f := New(7)
	must(t, f.MkdirAll("/d/e", 0o700))
	must(t, f.SyncDir("/"))
	must(t, f.SyncDir("/d"))
	h := create(t, f, "/d/e/kept")
	write(t, h, []byte("data"), 10)
	must(t, h.Sync())
	must(t, f.SyncDir("/d/e"))
	write(t, create(t, f, "/d/e/lost"), []byte("x"), 0)
	must(t, h.Truncate(1<<20))
	must(t, f.Rename("/d/e/kept", "/d/e/renamed"))
	f.Crash(0)
	if p := contents(t, f, "/d/e/kept"); string(p) != "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00data" {
		t.Errorf("what was durable is %q", p)
	}
	for _, name := range []string{"/d/e/lost", "/d/e/renamed"} {
		if _, err := f.OpenFile(name, os.O_RDWR, 0); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, want that it is not there", name, err)
		}
	}
	if _, err := h.Size(); !errors.Is(err, ErrCrashed) {
		t.Errorf("a file that was open: %v", err)
	}
}

func TestKillKeepsEverythingAndFreesLocks(t *testing.T) {
	f := New(1)
	h := create(t, f, "/a")
	must(t, h.Lock())
	write(t, h, []byte("data"), 0)
	if err := create(t, f, "/a").Lock(); !errors.Is(err, vfs.ErrLocked) {
		t.Errorf("a second lock: %v", err)
	}
	f.Kill()
	if err := create(t, f, "/a").Lock(); err != nil {
		t.Error(err)
	}
	if p := contents(t, f, "/a"); string(p) != "data" {
		t.Errorf("what a killed process wrote is %q", p)
	}
}

// A failed sync may throw away what it could not write; that shows only at a crash.
func TestFailedSyncLosesForGood(t *testing.T) {
	lost := 0
	for seed := range uint64(40) {
		f := New(seed)
		h := create(t, f, "/a")
		must(t, h.Truncate(sectorSize))
		must(t, h.Sync())
		must(t, f.SyncDir("/"))
		write(t, h, fill(1, sectorSize), 0)
		f.FailSync(1)
		if err := h.Sync(); !errors.Is(err, syscall.EIO) {
			t.Fatal(err)
		}
		must(t, h.Sync())
		if contents(t, f, "/a")[0] != 1 {
			t.Fatal("what was not written is not readable")
		}
		if f.Crash(1); contents(t, f, "/a")[0] == 0 {
			lost++
		}
	}
	if lost < 5 || lost > 35 {
		t.Errorf("%d of 40 failed syncs lost their write", lost)
	}
}

func TestFaults(t *testing.T) {
	f := New(1)
	h := create(t, f, "/a")
	f.FailWrite(2)
	write(t, h, []byte("1"), 0)
	if _, err := h.WriteAt([]byte("2"), 0); !errors.Is(err, syscall.EIO) {
		t.Errorf("second write: %v", err)
	}
	must(t, f.FlipBit("/a", 0))
	if p := contents(t, f, "/a"); string(p) != "0" {
		t.Errorf("flipped: %q", p)
	}
	f.Full(2 * pageSize)
	n, err := h.WriteAt(make([]byte, 4*pageSize), pageSize)
	if n != 2*pageSize || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("write to a full disk: %d, %v", n, err)
	}
	must(t, h.Zero(pageSize, pageSize, false))
	write(t, h, make([]byte, pageSize), pageSize)
	f.Fail = func(op, name string) error { return fmt.Errorf("%s of %s", op, name) }
	if err := h.Sync(); err == nil || err.Error() != "sync /a: sync of /a" {
		t.Errorf("failed by the hook: %v", err)
	}
}

func TestCrashAt(t *testing.T) {
	f := New(1)
	var ops []string
	f.Stall = func(op, name string) { ops = append(ops, op) }
	h := create(t, f, "/a")
	before := f.Ops()
	f.CrashAt(2)
	write(t, h, []byte("1"), 0)
	if err := h.Sync(); !errors.Is(err, ErrCrashed) {
		t.Errorf("the sync at the crash: %v", err)
	}
	if _, err := h.ReadAt(make([]byte, 1), 0); !errors.Is(err, ErrCrashed) {
		t.Errorf("a read after it: %v", err)
	}
	if n := f.Ops() - before; n != 2 {
		t.Errorf("%d operations", n)
	}
	if want := "[open write sync read]"; fmt.Sprint(ops) != want {
		t.Errorf("told of %v, want %v", ops, want)
	}
	f.Crash(0)
	create(t, f, "/a")
}

func TestSameSeedSameCrash(t *testing.T) {
	run := func(seed uint64) []byte {
		f := New(seed)
		h := create(t, f, "/a")
		must(t, h.Truncate(50*sectorSize))
		must(t, h.Sync())
		must(t, f.SyncDir("/"))
		for i := range 10 {
			write(t, h, fill(byte(i), 20*sectorSize), int64(i)*3*sectorSize)
		}
		f.Crash(0.5)
		return contents(t, f, "/a")
	}
	if !bytes.Equal(run(5), run(5)) {
		t.Error("the same seed leaves two different disks")
	}
	if bytes.Equal(run(5), run(6)) {
		t.Error("different seeds leave the same disk")
	}
}
