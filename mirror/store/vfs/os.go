package vfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// OS is the operating system's file system.
var OS FS = system{}

type system struct{}

func (system) MkdirAll(dir string, perm fs.FileMode) error { return os.MkdirAll(dir, perm) }
func (system) Rename(old, new string) error                { return os.Rename(old, new) }
func (system) Remove(name string) error                    { return os.Remove(name) }

func (system) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (system) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	f, err := os.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	file := &osFile{File: f, fd: int(f.Fd()), align: 1}
	if err := file.inspect(flag&unix.O_DIRECT != 0); err != nil {
		f.Close()
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return file, nil
}

type osFile struct {
	*os.File
	fd     int
	device bool
	align  int     // of offsets and lengths
	memory uintptr // alignment of buffers, 0 if any will do
}

// inspect finds out what kind of file this is and what it asks of its users.
func (f *osFile) inspect(direct bool) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	switch mode := info.Mode(); {
	case mode&fs.ModeDevice != 0 && mode&fs.ModeCharDevice == 0:
		f.device = true
	case !mode.IsRegular():
		return errors.New("is neither a regular file nor a block device")
	}
	if direct {
		return f.inspectAlignment()
	}
	return nil
}

func (f *osFile) inspectAlignment() error {
	var st unix.Statx_t
	err := unix.Statx(f.fd, "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &st)
	switch {
	case err == nil && st.Mask&unix.STATX_DIOALIGN != 0 && st.Dio_offset_align > 0:
		f.align, f.memory = int(st.Dio_offset_align), uintptr(st.Dio_mem_align)
	case f.device:
		if f.align, err = unix.IoctlGetInt(f.fd, unix.BLKSSZGET); err != nil {
			return fmt.Errorf("logical block size: %w", err)
		}
		f.memory = uintptr(f.align)
	default: // before Linux 6.1 a file system cannot be asked: no disk needs more
		f.align, f.memory = 4096, 4096
	}
	return nil
}

func (f *osFile) Device() bool { return f.device }
func (f *osFile) Align() int   { return f.align }
func (f *osFile) Sync() error  { return f.try("sync", func() error { return unix.Fdatasync(f.fd) }) }

func (f *osFile) ReadAt(p []byte, off int64) (int, error) {
	if f.aligned(p) {
		return f.File.ReadAt(p, off)
	}
	b := bounce(len(p), f.memory)
	defer b.free()
	n, err := f.File.ReadAt(b.bytes, off)
	copy(p, b.bytes[:n])
	return n, err
}

func (f *osFile) WriteAt(p []byte, off int64) (int, error) {
	if f.aligned(p) {
		return f.File.WriteAt(p, off)
	}
	b := bounce(len(p), f.memory)
	defer b.free()
	copy(b.bytes, p)
	return f.File.WriteAt(b.bytes, off)
}

func (f *osFile) aligned(p []byte) bool {
	return f.memory == 0 || uintptr(unsafe.Pointer(unsafe.SliceData(p)))%f.memory == 0
}

func (f *osFile) ReadCached(p []byte, off int64) error {
	if len(p) == 0 {
		return nil
	}
	if f.memory != 0 { // a direct read is never served by the cache
		return ErrNotCached
	}
	iov := unix.Iovec{Base: &p[0]}
	iov.SetLen(len(p))
	// preadv2(2) with RWF_NOWAIT never waits for the disk, so the raw call may
	// keep its P: the scheduler's bookkeeping would cost more than the copy.
	n, _, errno := unix.RawSyscall6(unix.SYS_PREADV2, uintptr(f.fd), uintptr(unsafe.Pointer(&iov)), 1, uintptr(off), 0, unix.RWF_NOWAIT)
	if errno != 0 || int(n) != len(p) {
		return ErrNotCached
	}
	return nil
}

func (f *osFile) Size() (int64, error) {
	if f.device {
		var size uint64
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(f.fd), unix.BLKGETSIZE64, uintptr(unsafe.Pointer(&size)))
		if errno != 0 {
			return 0, &fs.PathError{Op: "size", Path: f.Name(), Err: errno}
		}
		return int64(size), nil
	}
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (f *osFile) Lock() error {
	return f.try("lock", func() error {
		err := unix.Flock(f.fd, unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			return ErrLocked
		}
		return err
	})
}

// try repeats a system call that a signal interrupted and names what failed.
func (f *osFile) try(op string, call func() error) error {
	for {
		switch err := call(); {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EINTR):
			return &fs.PathError{Op: op, Path: f.Name(), Err: err}
		}
	}
}
