package store

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"lockstep/mirror/dirty"
	"lockstep/mirror/store/memfs"
)

var peer = [16]byte{0xab, 15: 1}

const peerFile = "/data.lockstep/outofsync-ab000000000000000000000000000001"

func sameMap(a, b *dirty.Map) bool {
	for off := int64(0); off < a.Size(); off += a.Block() {
		if a.Has(off, 1) != b.Has(off, 1) {
			return false
		}
	}
	return a.Size() == b.Size()
}

// largeOptions have more than one page of out-of-sync blocks.
func largeOptions(disk *memfs.FS) Options {
	o := memOptions(disk)
	o.Size = 8 << 20
	return o
}

// What is saved is found again, by maps that live on, are copied or made anew.
func TestOutOfSyncIsFoundAgain(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	disk := memfs.New(1)
	s, err := Open(largeOptions(disk))
	must(t, err)
	m := s.newOutOfSync()
	for step := range 200 {
		switch r.IntN(6) {
		case 0:
			m = s.newOutOfSync()
		case 1:
			copied := m.Clone()
			m.TakeChanged()
			m = copied
		case 2:
			m.Remove(r.Int64N(m.Size()), r.Int64N(4<<20))
		case 3:
			m.Add(r.Int64N(m.Size()), r.Int64N(4<<20))
		default:
			m.Add(r.Int64N(m.Size()), r.Int64N(10000))
		}
		must(t, s.SaveOutOfSync(peer, m))
		if r.IntN(3) == 0 {
			disk.Crash(r.Float64())
			s, err = Open(largeOptions(disk))
			must(t, err)
		}
		found, err := s.OutOfSync(peer)
		must(t, err)
		if !sameMap(found, m) {
			t.Fatalf("step %d: found %d bytes, saved %d", step, found.Bytes(), m.Bytes())
		}
		if r.IntN(2) == 0 {
			m = found
		}
	}
}

func TestOutOfSyncIsSavedIncrementally(t *testing.T) {
	disk := memfs.New(1)
	s, err := Open(largeOptions(disk))
	must(t, err)
	m := s.newOutOfSync()
	m.AddAll()
	must(t, s.SaveOutOfSync(peer, m))
	var ops []string
	disk.Stall = func(op, name string) { ops = append(ops, op+" "+filepath.Base(name)[:9]) }
	m.Remove(0, SectorSize)
	must(t, s.SaveOutOfSync(peer, m))
	if got, want := strings.Join(ops, ", "), "open outofsync, write outofsync, sync outofsync"; got != want {
		t.Errorf("a small change took %s; want %s", got, want)
	}
}

// A save that failed leaves a file of which nothing is known: the next writes it whole.
func TestSaveAfterOneThatFailed(t *testing.T) {
	disk := memfs.New(1)
	s, err := Open(largeOptions(disk))
	must(t, err)
	m := s.newOutOfSync()
	must(t, s.SaveOutOfSync(peer, m))
	m.AddAll()
	disk.FailSync(1)
	if err := s.SaveOutOfSync(peer, m); err == nil || errors.Is(err, ErrBroken) {
		t.Fatalf("got %v, want an error that leaves the store whole", err)
	}
	must(t, s.SaveOutOfSync(peer, m))
	disk.Crash(0)
	s, err = Open(largeOptions(disk))
	must(t, err)
	found, err := s.OutOfSync(peer)
	must(t, err)
	if !sameMap(found, m) {
		t.Errorf("found %d bytes, saved %d", found.Bytes(), m.Bytes())
	}
}

func TestCorruptOutOfSyncCountsAsMissed(t *testing.T) {
	const stride = dirty.PageBits * SectorSize
	for name, c := range map[string]struct {
		off       int64
		from, end int64
	}{
		"page 1": {pageSize + 77, 0, stride},
		"page 2": {2*pageSize + pageHead, stride, 2 * stride},
		"header": {3, 0, 8 << 20},
	} {
		disk := memfs.New(1)
		s, err := Open(largeOptions(disk))
		must(t, err)
		m := s.newOutOfSync()
		m.Add(0, SectorSize)
		m.Add(stride, SectorSize)
		must(t, s.SaveOutOfSync(peer, m))
		must(t, disk.FlipBit(peerFile, c.off))
		found, err := s.OutOfSync(peer)
		wantError(t, err, ErrCorrupt, peerFile)
		m.Add(c.from, c.end-c.from)
		if !sameMap(found, m) {
			t.Errorf("%s: found %d bytes, want %d", name, found.Bytes(), m.Bytes())
		}
		must(t, s.SaveOutOfSync(peer, found)) // mends it
		if _, err := s.OutOfSync(peer); err != nil {
			t.Error(err)
		}
	}
}

func TestOutOfSyncOfAnotherReplicaOrVolume(t *testing.T) {
	disk := memfs.New(1)
	s := openIn(t, disk)
	must(t, s.SaveOutOfSync(peer, s.newOutOfSync()))
	other := peerFile[:len(peerFile)-1] + "2"
	must(t, disk.Rename(peerFile, other))
	found, err := s.OutOfSync([16]byte{0xab, 15: 2})
	wantError(t, err, ErrCorrupt, "is for ab000000000000000000000000000001")
	if found.Bytes() != memSize {
		t.Errorf("%d bytes are missed, want all", found.Bytes())
	}
	if err := s.SaveOutOfSync(peer, dirty.New(memSize, 4096)); err == nil {
		t.Error("a map of another granularity was saved")
	}
}

func TestRemoveOutOfSync(t *testing.T) {
	disk := memfs.New(1)
	s := openIn(t, disk)
	must(t, s.RemoveOutOfSync(peer))
	_, err := s.OutOfSync(peer)
	wantError(t, err, fs.ErrNotExist)
	must(t, s.SaveOutOfSync(peer, s.newOutOfSync()))
	must(t, s.RemoveOutOfSync(peer))
	disk.Crash(0)
	_, err = openIn(t, disk).OutOfSync(peer)
	wantError(t, err, fs.ErrNotExist)
}
