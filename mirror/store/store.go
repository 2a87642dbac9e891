package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrBroken is wrapped by the errors of a store whose sync failed once: what is
// on its disk is unknown.
var ErrBroken = errors.New("store is broken: a sync failed, so what its disk holds is unknown")

// ErrNotCached is returned by ReadCached when the read would wait for the disk.
var ErrNotCached = errors.New("not in the page cache")

// SectorSize is the smallest unit that a store keeps whole, in bytes.
const SectorSize = 512

// Store is one replica's data. All methods may be called concurrently; ranges
// that overlap are the caller's to order.
type Store struct {
	file   *os.File
	fd     int
	path   string
	size   int64
	fresh  bool
	broken atomic.Bool
}

// Open opens the store at path, or creates it as a sparse file of size bytes.
// An existing file must have exactly that size: a store is never cut or grown
// silently. It fails if another process has it open.
func Open(path string, size int64) (*Store, error) {
	if size <= 0 || size%SectorSize != 0 {
		return nil, fmt.Errorf("open store %s: size %d is not a positive multiple of %d bytes", path, size, SectorSize)
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s := &Store{file: file, fd: int(file.Fd()), path: path, size: size}
	if err := s.prepare(); err != nil {
		file.Close()
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	return s, nil
}

func (s *Store) prepare() error {
	if err := unix.Flock(s.fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return errors.New("another process has it open; stop that one, or use another file")
		}
		return fmt.Errorf("lock: %w", err)
	}
	if why, err := os.ReadFile(s.marker()); err == nil {
		return fmt.Errorf("%w: %s; if another copy is good, remove %s and %s, and it is copied anew; if this is the only one, check the disk and remove %s",
			ErrBroken, bytes.TrimSpace(why), s.path, s.marker(), s.marker())
	}
	info, err := s.file.Stat()
	if err != nil {
		return err
	}
	switch {
	case !info.Mode().IsRegular():
		return fmt.Errorf("is a %s; a store is a regular file", describe(info.Mode()))
	case info.Size() == s.size:
		return nil
	case info.Size() != 0:
		return fmt.Errorf("holds %d bytes, not the %d asked for; give its true --size, or another file", info.Size(), s.size)
	}
	s.fresh = true
	return s.file.Truncate(s.size)
}

// New says whether Open created the store: then it holds nothing but zeroes.
func (s *Store) New() bool { return s.fresh }

// marker is the file beside a store that says that it is broken: a new process
// would find what could not be written in the page cache, and call it durable.
func (s *Store) marker() string { return s.path + ".broken" }

func describe(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "directory"
	case m&fs.ModeDevice != 0:
		return "device"
	}
	return "special file"
}

// Path is the file's name as given to Open.
func (s *Store) Path() string { return s.path }

// Size is the volume's size in bytes.
func (s *Store) Size() int64 { return s.size }

// Close releases the file without syncing it.
func (s *Store) Close() error { return s.file.Close() }

// ReadAt fills p from off; a hole reads as zeroes.
func (s *Store) ReadAt(p []byte, off int64) error {
	if _, err := s.file.ReadAt(p, off); err != nil {
		return s.fail("read", off, int64(len(p)), err)
	}
	return nil
}

// ReadCached is ReadAt if all of it is in the page cache; otherwise it returns
// ErrNotCached at once and leaves p undefined.
func (s *Store) ReadCached(p []byte, off int64) error {
	if len(p) == 0 {
		return nil
	}
	iov := unix.Iovec{Base: &p[0]}
	iov.SetLen(len(p))
	// preadv2(2) with RWF_NOWAIT never waits for the disk, so the raw call may
	// keep its P: the scheduler's bookkeeping would cost more than the copy.
	n, _, errno := unix.RawSyscall6(unix.SYS_PREADV2, uintptr(s.fd), uintptr(unsafe.Pointer(&iov)), 1, uintptr(off), 0, unix.RWF_NOWAIT)
	if errno != 0 || int(n) != len(p) {
		return ErrNotCached
	}
	return nil
}

// WriteAt writes p at off, to the page cache.
func (s *Store) WriteAt(p []byte, off int64) error {
	if s.broken.Load() {
		return s.fail("write", off, int64(len(p)), ErrBroken)
	}
	if _, err := s.file.WriteAt(p, off); err != nil {
		return s.fail("write", off, int64(len(p)), err)
	}
	return nil
}

// Zero makes length bytes from off read as zeroes. It punches a hole, so that
// the store stays thin, or with allocate keeps the range allocated. A file
// system that can do neither gets zeroes written.
func (s *Store) Zero(off, length int64, allocate bool) error {
	if s.broken.Load() {
		return s.fail("zero", off, length, ErrBroken)
	}
	if length == 0 {
		return nil
	}
	mode := uint32(unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE)
	if allocate {
		mode = unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE
	}
	err := retryInterrupted(func() error { return unix.Fallocate(s.fd, mode, off, length) })
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = s.writeZeroes(off, length)
	}
	if err != nil {
		return s.fail("zero", off, length, err)
	}
	return nil
}

func (s *Store) writeZeroes(off, length int64) error {
	zeroes := make([]byte, min(length, 1<<20))
	for end := off + length; off < end; off += int64(len(zeroes)) {
		zeroes = zeroes[:min(int64(len(zeroes)), end-off)]
		if _, err := s.file.WriteAt(zeroes, off); err != nil {
			return err
		}
	}
	return nil
}

// Sync returns when everything written before the call is on stable storage.
// Once it has failed it fails for ever.
func (s *Store) Sync() error {
	if s.broken.Load() {
		return s.fail("sync", 0, s.size, ErrBroken)
	}
	if err := retryInterrupted(func() error { return unix.Fdatasync(s.fd) }); err != nil {
		s.broken.Store(true)
		marking := os.WriteFile(s.marker(), fmt.Appendln(nil, err), 0o600) // the best that can be done on a bad disk
		return s.fail("sync", 0, s.size, errors.Join(fmt.Errorf("%w (%w)", ErrBroken, err), marking))
	}
	return nil
}

// Data returns the first range at or after off that may hold something other
// than zeroes; start is Size if there is none.
func (s *Store) Data(off int64) (start, end int64, err error) {
	start, err = unix.Seek(s.fd, off, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) || off >= s.size {
		return s.size, s.size, nil
	}
	if err == nil {
		end, err = unix.Seek(s.fd, start, unix.SEEK_HOLE)
		if err == nil && end <= start { // a hole was punched between the two
			return s.Data(start + 1)
		}
	}
	if err != nil {
		return 0, 0, s.fail("look for data", off, s.size-off, err)
	}
	return start, min(end, s.size), nil
}

func (s *Store) fail(op string, off, length int64, err error) error {
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: the file was cut while it was open", io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("%s %s at %d+%d: %w", op, s.path, off, length, err)
}

func retryInterrupted(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
