package store

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"lockstep/mirror/dirty"
	"lockstep/mirror/store/memfs"
)

func grown(o Options, size int64) Options {
	o.Size, o.Grow = size, true
	return o
}

func says(t *testing.T, err error, words string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), words) {
		t.Errorf("%v does not say %q", err, words)
	}
}

// TestGrow: what was kept is kept, what is new reads as zeroes and has no bit, and the
// bitmaps, which get more pages, can be written and read from then on.
func TestGrow(t *testing.T) {
	const before, after = 3000 * SectorSize, 3 * 3968 * SectorSize
	peer := [16]byte{9}
	disk := memfs.New(1)
	o := memOptions(disk)
	o.Size, o.Region = before, SectorSize
	s, err := Open(o)
	must(t, err)
	must(t, s.WriteAt(sector(7), before-SectorSize))
	must(t, s.Update(complete))
	must(t, s.WriteRecord("mine", []byte("kept")))
	missed := dirty.New(before, SectorSize)
	missed.Add(before-SectorSize, 1)
	must(t, s.SaveOutOfSync(peer, missed))
	must(t, s.Close())

	s, err = Open(grown(o, after))
	must(t, err)
	was := read(t, s, before-SectorSize, 2*SectorSize)
	mine, err := s.ReadRecord("mine")
	must(t, err)
	missed, err = s.OutOfSync(peer)
	must(t, err)
	switch m := s.Meta(); {
	case s.Size() != after || m.Size != after || !m.Complete || string(mine) != "kept":
		t.Errorf("%d bytes, %+v, record %q", s.Size(), m, mine)
	case !bytes.Equal(was, append(sector(7), sector(0)...)):
		t.Error("what was at the end changed, or what comes after it is not zero")
	case missed.Size() != after || missed.Bytes() != SectorSize || !missed.Has(before-SectorSize, 1):
		t.Errorf("missed are %d bytes", missed.Bytes())
	case s.Intents().Bytes() != SectorSize || len(s.Warnings()) > 0:
		t.Errorf("intents of %d bytes; %v", s.Intents().Bytes(), s.Warnings())
	}
	missed.Add(after-SectorSize, 1)
	must(t, s.SaveOutOfSync(peer, missed))
	must(t, s.WriteAt(sector(8), after-SectorSize))
	must(t, s.Sync())
	disk.Crash(0)

	s, err = Open(grown(o, after))
	must(t, err)
	missed, err = s.OutOfSync(peer)
	must(t, err)
	if missed.Bytes() != 2*SectorSize || s.Intents().Bytes() != 2*SectorSize || len(s.Warnings()) > 0 {
		t.Errorf("after a crash: missed %d bytes, intents of %d; %v", missed.Bytes(), s.Intents().Bytes(), s.Warnings())
	}
	if !bytes.Equal(read(t, s, after-SectorSize, SectorSize), sector(8)) {
		t.Error("what was written to the new end is lost")
	}
}

// TestGrowBlank: a store that holds nothing stays new.
func TestGrowBlank(t *testing.T) {
	disk := memfs.New(1)
	must(t, openIn(t, disk).CloseClean())
	s, err := Open(grown(memOptions(disk), 2*memSize))
	must(t, err)
	if !s.New() || s.Size() != 2*memSize {
		t.Errorf("new %v, %d bytes", s.New(), s.Size())
	}
}

func TestGrowRefuses(t *testing.T) {
	disk := memfs.New(1)
	o := memOptions(disk)
	s := openIn(t, disk)
	must(t, s.WriteAt(sector(1), 0))
	stray := o
	stray.Path, stray.Meta = "/stray", "/data.lockstep"
	f, err := disk.OpenFile("/stray", os.O_CREATE|os.O_RDWR, 0o600)
	must(t, err)
	must(t, f.Truncate(memSize))
	refused := func(o Options, size int64, words string) {
		t.Helper()
		s, err := Open(grown(o, size))
		if err == nil {
			s.Close()
		}
		says(t, err, words)
	}
	o.Region = 0 // what a store was made with counts
	refused(o, 2*memSize, "another process has it open")
	refused(stray, 2*memSize, "another process has it open")
	must(t, s.Close())
	refused(o, memSize-SectorSize, "its size is")
	refused(o, memRegion*(maxRegions+1), "take larger ones")
	disk.Kill()
	if s = openIn(t, disk); s.Meta().growing || !bytes.Equal(read(t, s, 0, SectorSize), sector(1)) {
		t.Errorf("something changed: %+v", s.Meta())
	}
}

// TestGrowFails: a file that cannot become larger stays a store of the old size; one whose
// sync failed is broken.
func TestGrowFails(t *testing.T) {
	disk := memfs.New(1)
	s := openIn(t, disk)
	must(t, s.WriteAt(sector(1), 0))
	must(t, s.Close())
	failing := errors.New("file too large")
	disk.Fail = func(op, _ string) error {
		if op == "truncate" {
			return failing
		}
		return nil
	}
	_, err := Open(grown(memOptions(disk), 2*memSize))
	wantError(t, err, failing, "grow from")
	disk.Fail = nil
	s = openIn(t, disk)
	if s.Meta().growing || s.Size() != memSize {
		t.Errorf("after a growth that failed: %+v", s.Meta())
	}
	must(t, s.Close())
	disk.Fail = func(op, name string) error {
		if op == "sync" && name == "/data" {
			return failing
		}
		return nil
	}
	_, err = Open(grown(memOptions(disk), 2*memSize))
	wantError(t, err, ErrBroken, "file too large")
	disk.Fail = nil
	_, err = Open(memOptions(disk))
	wantError(t, err, ErrBroken)
}

// TestGrowDevice: a device gets its size by other means first, and what it held there
// before is gone.
func TestGrowDevice(t *testing.T) {
	device := loopDevice(t, size)
	o := Options{Path: device, Size: size, Meta: filepath.Join(t.TempDir(), "meta")}
	s, err := Open(o)
	must(t, err)
	must(t, s.WriteAt(sector(5), size-SectorSize))
	must(t, s.CloseClean())
	_, err = Open(grown(o, 2*size))
	says(t, err, "make it that large first")
	enlarge(t, device, 2*size)
	f, err := os.OpenFile(device, os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt(bytes.Repeat([]byte{9}, size), size)
	must(t, errors.Join(err, f.Close()))
	s, err = Open(grown(o, 2*size))
	must(t, err)
	defer s.Close()
	want := append(sector(5), make([]byte, size)...)
	if !bytes.Equal(read(t, s, size-SectorSize, size+SectorSize), want) {
		t.Error("the end of the old part changed, or the new part is not zeroes")
	}
}

func enlarge(t *testing.T, device string, size int64) {
	t.Helper()
	backing, err := exec.Command("losetup", "--noheadings", "--output", "BACK-FILE", device).Output()
	must(t, err)
	must(t, unix.Truncate(string(bytes.TrimSpace(backing)), size))
	must(t, exec.Command("losetup", "--set-capacity", device).Run())
}
