package store

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"lockstep/mirror/dirty"
	"lockstep/mirror/store/vfs"
)

// ErrBroken is wrapped by the errors of a store whose sync failed once: what is
// on its disk is unknown.
var ErrBroken = errors.New("store is broken: a sync failed, so what its disk holds is unknown")

// ErrNotCached is returned by ReadCached when the read would wait for the disk.
var ErrNotCached = vfs.ErrNotCached

// Store is one replica's data and what it knows of itself. All methods may be
// called concurrently, Close and CloseClean excepted; ranges that overlap are the
// caller's to order.
type Store struct {
	metadata
	data     vfs.File
	path     string
	size     int64
	intents  *intents
	warnings []error

	broken atomic.Bool
	blank  atomic.Bool // Meta.blank, for the hot path

	asked   atomic.Uint64 // calls of Sync so far
	syncing sync.Mutex    // held during a sync of the data; guards synced
	synced  uint64        // calls of Sync that the last one covered

	records sync.Mutex // orders writes of records

	updates sync.Mutex // orders changes of meta; taken before records and metaMu
	doubt   bool       // an update failed, so the disk may not hold meta
	metaMu  sync.Mutex // guards meta
	meta    Meta

	outOfSync outOfSync
}

// New reports whether nothing was ever written to the store: then it holds nothing
// but zeroes. It is durable, so a crash right after creation changes nothing.
func (s *Store) New() bool { return s.blank.Load() }

// Path is the data's name as given to Open.
func (s *Store) Path() string { return s.path }

// Size is the volume's size in bytes.
func (s *Store) Size() int64 { return s.size }

// Align is what offsets and lengths must be multiples of, in bytes: 1, or the
// logical block size with Options.Direct.
func (s *Store) Align() int { return s.data.Align() }

// Warnings is what Open found damaged and mended at the cost of more to compare.
func (s *Store) Warnings() []error { return s.warnings }

// ReadAt fills p from off; a hole reads as zeroes.
func (s *Store) ReadAt(p []byte, off int64) error {
	if _, err := s.data.ReadAt(p, off); err != nil {
		return s.fail("read", off, int64(len(p)), err)
	}
	return nil
}

// ReadCached is ReadAt if all of it is in the page cache; otherwise it returns
// ErrNotCached at once and leaves p undefined.
func (s *Store) ReadCached(p []byte, off int64) error { return s.data.ReadCached(p, off) }

// Ready reports whether every region of the range has a durable intent, so that
// WriteAt there waits for none. A Retire that comes in between can undo that.
func (s *Store) Ready(off, length int64) bool {
	return s.inside(off, length) && s.intents.ready(s.intents.span(off, length))
}

// Prepare makes the intents of the range durable. Concurrent calls share a sync.
func (s *Store) Prepare(off, length int64) error {
	if err := s.begin("prepare", off, length); err != nil {
		return err
	}
	s.intents.end(s.intents.span(off, length))
	return nil
}

// WriteAt writes p at off, to the page cache, once its intents are durable.
func (s *Store) WriteAt(p []byte, off int64) error {
	length := int64(len(p))
	if err := s.begin("write", off, length); err != nil {
		return err
	}
	_, err := s.data.WriteAt(p, off)
	s.intents.end(s.intents.span(off, length))
	if err != nil {
		return s.fail("write", off, length, err)
	}
	return nil
}

// Zero makes length bytes from off read as zeroes, once its intents are durable.
// It punches a hole, so that the store stays thin, or with allocate keeps the range
// allocated. What can do neither gets zeroes written.
func (s *Store) Zero(off, length int64, allocate bool) error {
	if err := s.begin("zero", off, length); err != nil {
		return err
	}
	err := s.data.Zero(off, length, allocate)
	s.intents.end(s.intents.span(off, length))
	if err != nil {
		return s.fail("zero", off, length, err)
	}
	return nil
}

// begin counts a write as in flight, to be ended by intents.end unless it fails.
func (s *Store) begin(op string, off, length int64) error {
	if !s.inside(off, length) {
		return s.fail(op, off, length, fmt.Errorf("not within the volume's %d bytes", s.size))
	}
	if s.broken.Load() {
		return s.fail(op, off, length, ErrBroken)
	}
	r := s.intents.span(off, length)
	if s.intents.begin(r) {
		return nil
	}
	err := s.use()
	if err == nil {
		err = s.intents.commit(r)
	}
	if err != nil {
		s.intents.end(r)
		return s.fail(op, off, length, err)
	}
	return nil
}

// use makes it durable that the store holds something, before it does.
func (s *Store) use() error {
	if !s.blank.Load() {
		return nil
	}
	return s.update(func(m *Meta) { m.blank = false })
}

func (s *Store) inside(off, length int64) bool {
	return off >= 0 && length >= 0 && off <= s.size-length
}

// Sync returns when everything written before the call is on stable storage.
// Concurrent calls share one. Once it has failed it fails for ever, for those
// that wait too: the kernel tells of a failure once, and the next sync succeeds.
func (s *Store) Sync() error {
	ticket := s.asked.Add(1)
	s.syncing.Lock()
	defer s.syncing.Unlock()
	if s.broken.Load() {
		return s.fail("sync", 0, s.size, ErrBroken)
	}
	if s.synced >= ticket {
		return nil
	}
	covered := s.asked.Load()
	if err := s.data.Sync(); err != nil {
		return s.fail("sync", 0, s.size, s.breakDown(err))
	}
	s.synced = covered
	return nil
}

// Data returns the first range at or after off that may hold something other
// than zeroes; start is Size if there is none.
func (s *Store) Data(off int64) (start, end int64, err error) {
	start, end, err = s.data.Data(off)
	if err != nil {
		return 0, 0, s.fail("look for data", off, s.size-off, err)
	}
	return min(start, s.size), min(end, s.size), nil
}

// Intents returns a copy of the write-intent bitmap: what may differ here after an
// unclean stop. That is what was found at Open and what was prepared since,
// without what was retired.
func (s *Store) Intents() *dirty.Map { return s.intents.copy() }

// Generation begins a new generation of writes and returns its number. Writes that
// ended before the call are of an earlier one; what is in flight will be of this.
func (s *Store) Generation() uint64 { return s.intents.gen.Add(1) }

// Retire clears the intents of regions last written before a generation, those
// found at Open among them. The caller says with it that what was written then is
// durable here and on every other replica that counts. It waits for no disk.
func (s *Store) Retire(before uint64) error {
	if s.broken.Load() {
		return s.fail("retire intents", 0, s.size, ErrBroken)
	}
	if err := s.intents.retire(before); err != nil {
		return s.fail("retire intents", 0, s.size, err)
	}
	return nil
}

func (s *Store) fail(op string, off, length int64, err error) error {
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: the file was cut while it was open", io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("%s %s at %d+%d: %w", op, s.path, off, length, err)
}
