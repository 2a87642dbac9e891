package powercut

import (
	"errors"
	"testing"

	"lockstep/mirror/store"
	"lockstep/mirror/store/memfs"
	"lockstep/mirror/store/vfs"
)

const (
	testSectors = 1024
	testOps     = 60
)

func options(fs vfs.FS) store.Options {
	return store.Options{
		Path: "vol", Size: testSectors * SectorSize, Region: 16 << 10, FS: fs,
		BootID: func() ([16]byte, error) { return [16]byte{1}, nil },
	}
}

// run writes until the power fails at the n-th change of the disk, and returns what
// the check then finds.
func run(t *testing.T, seed uint64, n int, wrap func(vfs.FS) vfs.FS) []Loss {
	t.Helper()
	disk := memfs.New(seed)
	plan := Plan{Seed: seed, Sectors: testSectors}
	m := NewModel(plan, testOps)
	disk.CrashAt(n)
	s, err := store.Open(options(wrap(disk)))
	if err == nil {
		w := Writer{Plan: plan, To: ToStore(s), Mark: func(text string) error { m.Mark(text); return nil }, SyncEvery: 8}
		err = w.Run(1, testOps)
		s.Close()
	}
	if err != nil && !errors.Is(err, memfs.ErrCrashed) {
		t.Fatal(err)
	}
	disk.Crash(0.3)
	losses, err := CheckStore(options(disk), m, true)
	if err != nil {
		if m.Synced() == 0 {
			return nil // nothing was promised
		}
		return []Loss{{Why: err.Error()}}
	}
	return losses
}

func TestStoreKeepsItsPromises(t *testing.T) {
	for seed := range uint64(10) {
		for n := 1; n < 300; n += 7 {
			if losses := run(t, seed, n, func(f vfs.FS) vfs.FS { return f }); len(losses) > 0 {
				t.Errorf("seed %d, power cut at %d: %v", seed, n, losses)
			}
		}
	}
}

// A check that can't fail proves nothing.
func TestUnsyncedIsFound(t *testing.T) {
	found := 0
	for seed := range uint64(10) {
		if losses := run(t, seed, 200, Unsynced); len(losses) > 0 {
			found++
		}
	}
	if found < 8 {
		t.Errorf("a store without syncs was found wrong by %d of 10 power cuts", found)
	}
}

func TestModelRefuses(t *testing.T) {
	plan := Plan{Seed: 1, Sectors: testSectors}
	const ops = 400
	m := NewModel(plan, ops)
	m.Mark("synced-200")
	m.Mark("something else")
	if m.Synced() != 200 {
		t.Fatalf("synced-%d", m.Synced())
	}
	// A sector that a write and then another one covered, both promised, no zeroes after.
	first, second, number := overlap(t, m)
	sectorOf := func(o Op) []byte { return plan.Bytes(o)[(number-o.From)*SectorSize:][:SectorSize] }
	good := sectorOf(second)
	torn := append(sectorOf(second)[:256:256], sectorOf(first)[256:]...)
	if loss, ok := m.Check(number, good); !ok {
		t.Errorf("what was promised: %v", loss)
	}
	for name, sector := range map[string][]byte{
		"older":         sectorOf(first),
		"zeroes":        make([]byte, SectorSize),
		"torn":          torn,
		"nonsense":      fill('x', SectorSize),
		"another run's": Plan{Seed: 2, Sectors: testSectors}.Bytes(Op{N: second.N, From: number, Count: 1}),
		"misplaced":     plan.Bytes(Op{N: second.N, From: number + 1, Count: 1}),
		"not begun":     plan.Bytes(Op{N: ops + 1, From: number, Count: 1}),
	} {
		if _, ok := m.Check(number, sector); ok {
			t.Errorf("%s was taken", name)
		}
	}
}

func overlap(t *testing.T, m *Model) (first, second Op, number int64) {
	t.Helper()
	for number := range m.plan.Sectors {
		second := m.plan.Op(max(m.floor[number], 1))
		if m.floor[number] == 0 || second.Zero || m.zeroed[number] > second.N {
			continue
		}
		for n := second.N - 1; n > 0; n-- {
			if first := m.plan.Op(n); !first.Zero && first.covers(number) {
				return first, second, number
			}
		}
	}
	t.Fatal("no sector was written twice")
	return
}

func TestFUAIsPromised(t *testing.T) {
	plan := Plan{Seed: 3, Sectors: testSectors}
	m := NewModel(plan, 100)
	n := uint64(1)
	for plan.Op(n).Zero {
		n++
	}
	o := plan.Op(n)
	if _, ok := m.Check(o.From, make([]byte, SectorSize)); !ok {
		t.Error("zeroes were refused before anything was promised")
	}
	if !m.Unpromised(o.From, plan.Bytes(o)[:SectorSize]) {
		t.Error("a write that was not promised counts as one that was")
	}
	m.Mark("fua-" + string(rune('0'+n)))
	if m.floor[o.From] != n || m.Unpromised(o.From, plan.Bytes(o)[:SectorSize]) {
		t.Error("a FUA write was not promised")
	}
}
