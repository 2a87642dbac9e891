package vfs

import (
	"errors"
	"io/fs"
)

// ErrNotCached is returned by File.ReadCached when the read would wait for the disk.
var ErrNotCached = errors.New("not in the page cache")

// ErrLocked is returned by File.Lock when someone else holds the lock.
var ErrLocked = errors.New("another process has it open")

// FS is a file system. Its methods may be called concurrently.
type FS interface {
	// OpenFile is os.OpenFile for a regular file or a block device; flag may
	// hold O_DIRECT. What does not exist is fs.ErrNotExist.
	OpenFile(name string, flag int, perm fs.FileMode) (File, error)
	// MkdirAll makes a directory and its parents. SyncDir of the parent makes it durable.
	MkdirAll(dir string, perm fs.FileMode) error
	// Rename puts old in the place of new, atomically; both are in one directory.
	Rename(old, new string) error
	// Remove removes a file.
	Remove(name string) error
	// SyncDir makes durable what was created, renamed and removed in dir.
	SyncDir(dir string) error
}

// File is one open file or block device. Its methods may be called concurrently,
// Close excepted; what ranges that overlap then hold is not defined.
type File interface {
	// ReadAt and WriteAt are io.ReaderAt's and io.WriterAt's. On a file opened
	// with O_DIRECT off and len(p) are multiples of Align.
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	// ReadCached fills p if that needs no disk; it fails at once if it does,
	// and then p is undefined.
	ReadCached(p []byte, off int64) error
	// Sync makes durable all that was written before the call, and the size.
	// After a failure nothing is known about what was not durable before.
	Sync() error
	// Truncate sets the size of a regular file.
	Truncate(size int64) error
	// Size is in bytes, a block device's too.
	Size() (int64, error)
	// Zero makes a range within the file read as zeroes: as a hole, or
	// with allocate as blocks that need not be found again.
	Zero(off, length int64, allocate bool) error
	// Data returns the first range at or after off that may hold something
	// other than zeroes; start and end are the size if there is none.
	Data(off int64) (start, end int64, err error)
	// Lock takes the file for this handle alone until it is closed; ErrLocked
	// says that another one has it.
	Lock() error
	// Device reports whether this is a block device, whose size is given.
	Device() bool
	// Align is what offsets and lengths must be multiples of, in bytes: 1,
	// or the logical block size if the file was opened with O_DIRECT.
	Align() int
	// Close releases the file without making anything durable.
	Close() error
}
