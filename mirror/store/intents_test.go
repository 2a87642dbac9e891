package store

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"lockstep/mirror/store/memfs"
	"lockstep/mirror/store/vfs"
)

const (
	memSize   = 1 << 20
	memRegion = 4096
)

func bootID() ([16]byte, error) { return [16]byte{7}, nil }

func memOptions(disk vfs.FS) Options {
	return Options{Path: "/data", Size: memSize, Region: memRegion, Block: SectorSize, FS: disk, BootID: bootID}
}

func openIn(t *testing.T, disk vfs.FS) *Store {
	t.Helper()
	s, err := Open(memOptions(disk))
	must(t, err)
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func sector(b byte) []byte {
	p := make([]byte, SectorSize)
	for i := range p {
		p[i] = b
	}
	return p
}

func TestRetireByGeneration(t *testing.T) {
	s := openIn(t, memfs.New(1))
	must(t, s.WriteAt(sector(1), 0))
	must(t, s.WriteAt(sector(1), memRegion))
	first := s.Generation()
	must(t, s.WriteAt(sector(2), memRegion)) // again, in a later one
	must(t, s.Retire(first-1))
	if !s.Ready(0, 2*memRegion) {
		t.Error("what was written in a generation was retired as if before it")
	}
	must(t, s.Retire(first))
	if s.Ready(0, 1) || s.Intents().Has(0, 1) {
		t.Error("a region of an earlier generation was not retired")
	}
	if !s.Ready(memRegion, memRegion) || !s.Intents().Has(memRegion, 1) {
		t.Error("a region that was written again was retired")
	}
	must(t, s.Retire(s.Generation()))
	if !s.Intents().Empty() {
		t.Error("something is left")
	}
	if s.Ready(0, memSize+1) || s.Ready(-1, 1) || !s.Ready(0, 0) {
		t.Error("ready is wrong about the edges")
	}
}

func TestRetiredIntentsAreWrittenSoon(t *testing.T) {
	disk := memfs.New(1)
	s := openIn(t, disk)
	must(t, s.WriteAt(sector(1), 0))
	must(t, s.Retire(s.Generation()))
	disk.Kill()
	if s = openIn(t, disk); !s.Intents().Empty() {
		t.Error("a retired intent was found again after a crash")
	}
	// What is found is of generation 0, whoever wrote it.
	must(t, s.WriteAt(sector(1), 0))
	disk.Kill()
	s = openIn(t, disk)
	if !s.Ready(0, memRegion) || s.Intents().Bytes() != memRegion {
		t.Error("an intent was not found again")
	}
	must(t, s.Retire(1))
	if !s.Intents().Empty() {
		t.Error("what was found is not retired first")
	}
}

// stall holds up the first operation op on the file whose name ends in base;
// reached tells that it is there, and closing release lets it go on.
func stall(disk *memfs.FS, op, base string) (reached, release chan struct{}) {
	reached, release = make(chan struct{}), make(chan struct{})
	var once sync.Once
	disk.Stall = func(o, name string) {
		if o == op && filepath.Base(name) == base {
			once.Do(func() {
				close(reached)
				<-release
			})
		}
	}
	return reached, release
}

// A write that is in flight while a generation begins is not covered by
// the sync that follows.
func TestWriteInFlightIsOfTheLaterGeneration(t *testing.T) {
	for op, write := range map[string]func(*Store) error{
		"write": func(s *Store) error { return s.WriteAt(sector(2), 0) },
		"zero":  func(s *Store) error { return s.Zero(0, SectorSize, false) },
	} {
		disk := memfs.New(1)
		reached, release := stall(disk, op, "data")
		s := openIn(t, disk)
		must(t, s.Prepare(0, SectorSize))
		done := make(chan error)
		go func() { done <- write(s) }()
		<-reached
		gen := s.Generation()
		must(t, s.Sync())
		must(t, s.Retire(gen))
		if !s.Ready(0, SectorSize) || !s.Intents().Has(0, 1) {
			t.Errorf("%s: the intent of a write in flight was retired", op)
		}
		close(release)
		must(t, <-done)
		must(t, s.Retire(gen))
		if !s.Intents().Has(0, 1) {
			t.Errorf("%s: it counts as of the generation in which it began", op)
		}
		must(t, s.Retire(s.Generation()))
		if !s.Intents().Empty() {
			t.Errorf("%s: it was never retired", op)
		}
	}
}

// A bit that another write of the page, which nobody synced, put on the disk is not
// durable by that.
func TestBitWrittenByRetireIsSynced(t *testing.T) {
	disk := memfs.New(1)
	s := openIn(t, disk)
	must(t, s.WriteAt(sector(1), 0))
	in := s.intents
	r := in.span(memRegion, 1)
	in.begin(r)
	in.join(r)
	must(t, s.Retire(s.Generation())) // writes the page, with the bit
	must(t, in.commit(r))
	in.end(r)
	disk.Crash(0)
	if s = openIn(t, disk); !s.Intents().Has(memRegion, 1) {
		t.Error("an intent that was said to be durable is not")
	}
}

func TestPrepareThatCannotWriteIsMendedByTheNext(t *testing.T) {
	disk := memfs.New(1)
	s := openIn(t, disk)
	must(t, s.WriteAt(sector(1), 0))
	disk.FailWrite(1)
	if err := s.WriteAt(sector(1), memRegion); !errors.Is(err, syscall.EIO) {
		t.Fatalf("%v, want EIO", err)
	}
	if s.Ready(memRegion, 1) {
		t.Error("an intent that was not written is ready")
	}
	must(t, s.Prepare(memRegion, 1)) // changes no bit
	disk.Crash(0)
	if s = openIn(t, disk); !s.Intents().Has(memRegion, 1) {
		t.Error("an intent that was said to be durable is not")
	}
}

// watched checks, at every write of data, that the intent of its region is on disk
// and stays there until the write ends, whichever writes of the page get to the disk.
type watched struct {
	*memfs.FS
	t *testing.T

	mu       sync.Mutex
	versions [][]byte // of page 1 of the intents, that the disk may hold
}

type watchedFile struct {
	vfs.File
	w    *watched
	base string
}

func (w *watched) OpenFile(name string, flag int, perm fs.FileMode) (vfs.File, error) {
	f, err := w.FS.OpenFile(name, flag, perm)
	return watchedFile{f, w, filepath.Base(name)}, err
}

func (f watchedFile) WriteAt(p []byte, off int64) (int, error) {
	switch f.base {
	case "intents":
		f.w.mu.Lock()
		f.w.versions = append(f.w.versions, p)
		f.w.mu.Unlock()
	case "data":
		f.w.check(off, "before")
		defer f.w.check(off, "after")
	}
	return f.File.WriteAt(p, off)
}

func (f watchedFile) Sync() error {
	f.w.mu.Lock()
	before := len(f.w.versions)
	f.w.mu.Unlock()
	err := f.File.Sync()
	if f.base == "intents" && before > 0 {
		f.w.mu.Lock()
		f.w.versions = f.w.versions[before-1:]
		f.w.mu.Unlock()
	}
	return err
}

func (w *watched) check(off int64, when string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	region := off / memRegion
	for _, page := range w.versions {
		if page[pageHead+region/8]>>(region%8)&1 == 0 {
			w.t.Errorf("%s a write of region %d its intent may not be on disk", when, region)
			return
		}
	}
	if len(w.versions) == 0 {
		w.t.Errorf("%s a write of region %d there is no intent", when, region)
	}
}

func TestIntentsCoverConcurrentWrites(t *testing.T) {
	w := &watched{FS: memfs.New(1), t: t}
	s := openIn(t, w)
	var writers, retirer sync.WaitGroup
	stop := make(chan struct{})
	retirer.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if err := errors.Join(s.Sync(), s.Retire(s.Generation())); err != nil {
					t.Error(err)
				}
				runtime.Gosched()
			}
		}
	})
	for seed := range uint64(8) {
		writers.Go(func() {
			r := rand.New(rand.NewPCG(seed, 3))
			for range 1500 {
				// Each in regions of its own and in one of all, without overlaps.
				region := []int64{0, int64(1 + 2*seed), int64(2 + 2*seed)}[r.IntN(3)]
				if err := s.WriteAt(sector(byte(seed)), region*memRegion+int64(seed%8)*SectorSize); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	retirer.Wait()
	must(t, s.Retire(s.Generation()))
	if in := s.Intents(); !in.Empty() {
		t.Errorf("%d bytes of intents are left, though nothing is in flight", in.Bytes())
	}
}

// Opening a large volume that is sparse is fast and takes little memory.
func TestOpenLarge(t *testing.T) {
	const large = 1 << 40
	path := filepath.Join(t.TempDir(), "store")
	s, err := Open(Options{Path: path, Size: large})
	if errors.Is(err, syscall.EFBIG) || errors.Is(err, syscall.EINVAL) {
		t.Skipf("no file of 1 TiB can be made here: %v", err)
	}
	must(t, err)
	id := [16]byte{1}
	missed := s.newOutOfSync()
	for off := int64(0); off < large; off += large / 1000 {
		must(t, s.WriteAt(sector(1), off/SectorSize*SectorSize))
		missed.Add(off, 1)
	}
	must(t, s.SaveOutOfSync(id, missed))
	must(t, s.CloseClean())

	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := time.Now()
	s, err = Open(Options{Path: path, Size: large})
	must(t, err)
	took := time.Since(began)
	runtime.ReadMemStats(&after)
	defer s.Close()
	allocated := after.TotalAlloc - before.TotalAlloc
	t.Logf("opened 1 TiB in %v, %d KiB allocated", took, allocated>>10)
	if allocated > 16<<20 {
		t.Errorf("opening took %d bytes of memory", allocated)
	}
	if n := s.Intents().Bytes(); n < 1000*DefaultRegion {
		t.Errorf("found intents of %d bytes", n)
	}
	if info, err := os.Stat(filepath.Join(path+".lockstep", "intents")); err != nil || info.Size() != 68*pageSize {
		t.Errorf("the intents are %v: %v", info, err)
	}
}
