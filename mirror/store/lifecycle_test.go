package store

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"lockstep/mirror/store/memfs"
)

func wantError(t *testing.T, err error, is error, words ...string) {
	t.Helper()
	if !errors.Is(err, is) {
		t.Errorf("got %v, want %v", err, is)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%v does not say %q", err, w)
		}
	}
}

// booted opens the store in a machine that was started for the n-th time.
func booted(t *testing.T, disk *memfs.FS, n byte) *Store {
	t.Helper()
	o := memOptions(disk)
	o.BootID = func() ([16]byte, error) { return [16]byte{n}, nil }
	s, err := Open(o)
	must(t, err)
	return s
}

func complete(m *Meta) { m.Complete, m.Lossy, m.Why = true, false, "" }

func TestNewStore(t *testing.T) {
	disk := memfs.New(1)
	s := openIn(t, disk)
	m := s.Meta()
	if !s.New() || m.Complete || m.Lossy || m.Clean || m.Volume != [16]byte{} || m.Replica == [16]byte{} || m.Why == "" {
		t.Errorf("a new store is new: %v, %+v", s.New(), m)
	}
	if m.Size != memSize || m.Region != memRegion || m.Block != SectorSize {
		t.Errorf("its geometry is %+v", m)
	}
	disk.Crash(0)
	if s = openIn(t, disk); !s.New() || s.Meta().Replica != m.Replica {
		t.Error("a crash right after creation made it another store")
	}
	must(t, s.Prepare(0, 1))
	if s.New() {
		t.Error("a store that was prepared for writing is new")
	}
	disk.Crash(0)
	if openIn(t, disk).New() {
		t.Error("a store that was prepared for writing is new after a crash")
	}
}

func TestPowerLossCrashAndCleanStop(t *testing.T) {
	disk := memfs.New(1)
	s := booted(t, disk, 1)
	must(t, s.Update(complete))
	disk.Crash(1)
	s = booted(t, disk, 2)
	if m := s.Meta(); !m.Complete || m.Lossy {
		t.Errorf("a store without a write lost one in a power loss: %+v", m)
	}
	must(t, s.WriteAt(sector(1), 0))
	disk.Kill()
	s = booted(t, disk, 2)
	if m := s.Meta(); !m.Complete || m.Lossy {
		t.Errorf("a killed process made a copy lossy: %+v", m)
	}
	must(t, s.CloseClean())
	s = booted(t, disk, 3)
	if m := s.Meta(); !m.Complete || m.Lossy || m.Clean {
		t.Errorf("a machine that was stopped made a copy lossy: %+v", m)
	}
	disk.Crash(1)
	for range 2 { // it stays so until someone says otherwise
		s = booted(t, disk, 4)
		if m := s.Meta(); m.Complete || !m.Lossy || m.Why != whyLossy || !s.Intents().Has(0, 1) {
			t.Errorf("after a power loss: %+v, intents %v", m, s.Intents().Has(0, 1))
		}
		disk.Crash(1)
	}
	s = booted(t, disk, 4)
	must(t, s.Update(complete))
	if m := s.Meta(); !m.Complete || m.Lossy {
		t.Errorf("after an update: %+v", m)
	}
}

func TestUpdate(t *testing.T) {
	disk := memfs.New(1)
	s := openIn(t, disk)
	must(t, s.Update(func(m *Meta) {
		m.Volume, m.Epoch, m.Incarnation, m.Why = [16]byte{3}, 4, 5, strings.Repeat("y", 300)
		m.Size, m.Region, m.Block, m.Clean, m.Boot, m.Broken = 1, 2, 3, true, [16]byte{}, "no"
	}))
	m := s.Meta()
	if m.Size != memSize || m.Region != memRegion || m.Block != SectorSize || m.Clean || m.Boot != [16]byte{7} || m.Broken != "" {
		t.Errorf("an update changed what is not its to change: %+v", m)
	}
	if m.Volume != [16]byte{3} || m.Epoch != 4 || m.Incarnation != 5 || m.Why != strings.Repeat("y", 200) {
		t.Errorf("an update did not change what it may: %+v", m)
	}
	disk.Crash(0)
	if again := openIn(t, disk).Meta(); again != m {
		t.Errorf("found again: %+v\nwant %+v", again, m)
	}
}

// After an update that failed the disk may have the new: going back must be written.
func TestUpdateAfterOneThatFailed(t *testing.T) {
	disk := memfs.New(1)
	s := openIn(t, disk)
	fail := errors.New("cannot")
	disk.Fail = func(op, name string) error {
		if op == "syncdir" {
			return fail
		}
		return nil
	}
	wantError(t, s.Update(func(m *Meta) { m.Epoch = 9 }), fail, `record "meta"`)
	if s.Meta().Epoch != 0 {
		t.Error("a failed update took effect")
	}
	disk.Fail = nil
	must(t, s.Update(func(*Meta) {}))
	disk.Crash(1)
	if e := openIn(t, disk).Meta().Epoch; e != 0 {
		t.Errorf("epoch %d came back", e)
	}
}

func TestNoBootID(t *testing.T) {
	o := memOptions(memfs.New(1))
	o.BootID = func() (id [16]byte, err error) { return id, os.ErrNotExist }
	_, err := Open(o)
	wantError(t, err, os.ErrNotExist, "open store /data")
	if id, err := kernelBootID(); err != nil || id == [16]byte{} {
		t.Errorf("the kernel's boot ID is %x, %v", id, err)
	}
}

// A plain image becomes a store that is no copy of anything yet.
func TestImageWithoutMetadata(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	image := bytes.Repeat([]byte{5}, size)
	must(t, os.WriteFile(path, image, 0o600))
	s := openAt(t, path)
	m := s.Meta()
	if s.New() || m.Complete || m.Volume != [16]byte{} || m.Replica == [16]byte{} || !strings.Contains(m.Why, "without metadata") {
		t.Errorf("new: %v, %+v", s.New(), m)
	}
	if !bytes.Equal(read(t, s, 0, size), image) {
		t.Error("it was changed")
	}
}

func TestDataGone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	s := openAt(t, path)
	must(t, s.WriteAt(sector(1), 0))
	s.Close()
	must(t, os.Remove(path))
	_, err := Open(Options{Path: path, Size: size})
	if err == nil || !strings.Contains(err.Error(), "the data is gone") {
		t.Errorf("got %v", err)
	}
}

func TestFailedSyncBreaksTheStore(t *testing.T) {
	for name, fail := range map[string]func(*Store) error{
		"data":    (*Store).Sync,
		"intents": func(s *Store) error { return s.Prepare(memRegion, 1) },
	} {
		disk := memfs.New(1)
		s := openIn(t, disk)
		must(t, s.WriteAt(sector(1), 0))
		disk.FailSync(1)
		wantError(t, fail(s), ErrBroken, syscall.EIO.Error())
		for op, err := range map[string]error{
			"write": s.WriteAt(sector(2), 0), "zero": s.Zero(0, 512, false), "sync": s.Sync(), "prepare": s.Prepare(0, 1),
			"retire": s.Retire(1), "clean stop": s.CloseClean(),
		} {
			if !errors.Is(err, ErrBroken) {
				t.Errorf("%s: %s: %v, want ErrBroken", name, op, err)
			}
		}
		if s.Meta().Broken == "" {
			t.Errorf("%s: the metadata does not say why", name)
		}
		_, err := Open(memOptions(disk))
		wantError(t, err, ErrBroken, syscall.EIO.Error(), "serve that one, remove /data and /data.lockstep, and use this as its replica", "remove /data.lockstep/broken.record")
		must(t, disk.Remove("/data.lockstep/broken.record"))
		openIn(t, disk)
	}
}

func TestBrokenStoreReads(t *testing.T) {
	disk := memfs.New(1)
	s := openIn(t, disk)
	must(t, s.WriteAt(sector(1), 0))
	disk.FailSync(1)
	wantError(t, s.Sync(), ErrBroken)
	if !bytes.Equal(read(t, s, 0, SectorSize), sector(1)) {
		t.Error("a broken store does not return what it has")
	}
}

func TestCorruptMetadata(t *testing.T) {
	disk := memfs.New(1)
	openIn(t, disk)
	disk.Kill()
	must(t, disk.FlipBit("/data.lockstep/meta.record", 30))
	_, err := Open(memOptions(disk))
	wantError(t, err, ErrCorrupt, "/data.lockstep/meta.record", "checksum", "remove the directory /data.lockstep")
}

func TestDamagedIntentsCountAsWritten(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(*memfs.FS) error
		want   int64 // bytes
		says   string
	}{
		"nothing": {func(*memfs.FS) error { return nil }, memRegion, ""},
		"page":    {func(d *memfs.FS) error { return d.FlipBit("/data.lockstep/intents", pageSize+100) }, memSize, "page 1: checksum"},
		"header":  {func(d *memfs.FS) error { return d.FlipBit("/data.lockstep/intents", 20) }, memSize, "page 0: checksum"},
		"missing": {func(d *memfs.FS) error { return d.Remove("/data.lockstep/intents") }, memSize, "not exist"},
	} {
		disk := memfs.New(1)
		s := openIn(t, disk)
		must(t, s.WriteAt(sector(1), 0))
		disk.Kill()
		must(t, c.damage(disk))
		for opening := range 2 {
			s = openIn(t, disk)
			if n := s.Intents().Bytes(); n != c.want || !s.Ready(0, n) {
				t.Errorf("%s: intents of %d bytes, want %d", name, n, c.want)
			}
			warned := s.Warnings()
			switch {
			case (len(warned) > 0) != (c.says != "" && opening == 0):
				t.Errorf("%s: warnings at opening %d: %v", name, opening, warned)
			case len(warned) > 0:
				wantError(t, warned[0], ErrCorrupt, c.says)
			}
			disk.Crash(0)
		}
	}
}

func TestRangesOutside(t *testing.T) {
	s := openIn(t, memfs.New(1))
	for name, err := range map[string]error{
		"write":   s.WriteAt(sector(1), memSize),
		"zero":    s.Zero(memSize-1, 2, false),
		"prepare": s.Prepare(-1, 1),
	} {
		if err == nil || !strings.Contains(err.Error(), "not within the volume") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFileCutWhileOpen(t *testing.T) {
	s := open(t)
	must(t, os.Truncate(s.Path(), 0))
	if err := s.ReadAt(make([]byte, 1), 0); err == nil || !strings.Contains(err.Error(), "was cut while it was open") {
		t.Errorf("got %v", err)
	}
}

func TestRecords(t *testing.T) {
	disk := memfs.New(1)
	s := openIn(t, disk)
	_, err := s.ReadRecord("mine")
	wantError(t, err, os.ErrNotExist)
	must(t, s.WriteRecord("mine", []byte("one")))
	must(t, s.WriteRecord("mine", []byte("two")))
	disk.Crash(0)
	s = openIn(t, disk)
	if p, err := s.ReadRecord("mine"); err != nil || string(p) != "two" {
		t.Errorf("%q, %v", p, err)
	}
	for _, name := range []string{"", "a/b"} {
		if s.WriteRecord(name, nil) == nil {
			t.Errorf("a record of the name %q", name)
		}
	}
	if s.WriteRecord("large", make([]byte, maxRecord+1)) == nil {
		t.Error("a record that is too large was written")
	}
	must(t, s.WriteRecord("large", make([]byte, maxRecord)))
	_, err = s.ReadRecord("large")
	must(t, err)
	must(t, disk.FlipBit("/data.lockstep/mine.record", 9))
	_, err = s.ReadRecord("mine")
	wantError(t, err, ErrCorrupt, "/data.lockstep/mine.record")
}

// A volume may be smaller than a region, and end within one.
func TestVolumeSmallerThanARegion(t *testing.T) {
	for _, size := range []int64{SectorSize, DefaultRegion - SectorSize, DefaultRegion + SectorSize} {
		disk := memfs.New(1)
		o := Options{Path: "/data", Size: size, FS: disk, BootID: bootID}
		s, err := Open(o)
		must(t, err)
		must(t, s.WriteAt(sector(1), size-SectorSize))
		disk.Crash(0)
		s, err = Open(o)
		must(t, err)
		if !s.Ready(size-1, 1) || !s.Intents().Has(size-1, 1) {
			t.Errorf("size %d: the intent was not found again", size)
		}
		must(t, s.Retire(s.Generation()))
		if !s.Intents().Empty() {
			t.Errorf("size %d: the intent was not retired", size)
		}
		must(t, s.CloseClean())
	}
}

// A disk that is full when a sync fails has no room to say so: the store must be
// known as broken all the same.
func TestBrokenOnAFullDisk(t *testing.T) {
	disk := memfs.New(1)
	o := Options{Path: "/store", Size: 1 << 20, FS: disk}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.WriteAt(make([]byte, 4096), 0); err != nil {
		t.Fatal(err)
	}
	disk.Full(0)
	disk.FailSync(1)
	if err := s.Sync(); !errors.Is(err, ErrBroken) {
		t.Fatalf("%v, want ErrBroken", err)
	}
	disk.Full(-1)
	disk.Kill()
	if _, err := Open(o); !errors.Is(err, ErrBroken) {
		t.Errorf("the next process: %v, want ErrBroken", err)
	}
}
