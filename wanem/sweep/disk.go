package sweep

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// disk is a block device, or a file, past the page cache (O_DIRECT): what is read was
// not kept by this machine's memory, and a write has reached the device when it returns.
type disk struct {
	file   *os.File // safe to use while another goroutine closes it
	size   int64
	sector int // bytes: offsets, lengths and memory are multiples of it
	close  func() error
}

// OpenDisk opens a block device, or a file on a file system that knows O_DIRECT, as a
// sweep's volume. It refuses a device that is mounted or is part of another. Offsets and
// lengths of reads and writes must be multiples of the device's sector; any memory will
// do, that of this package's loads without a copy. Close flushes the device's cache; it
// does not cut short what the kernel has begun, but what begins after it fails.
func OpenDisk(path string) (Device, error) {
	d := &disk{}
	if err := d.open(path); err != nil {
		return nil, fmt.Errorf("open the volume %s: %w", path, err)
	}
	d.close = sync.OnceValue(d.flushAndClose)
	return d, nil
}

func (d *disk) open(path string) (err error) {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Mode()&os.ModeDevice != 0 {
		if err := checkFree(path); err != nil {
			return err
		}
	}
	d.file, err = os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("%w: its file system has no direct I/O (as tmpfs): use another one", err)
	}
	if err != nil {
		return err
	}
	if d.size, err = d.file.Seek(0, io.SeekEnd); err == nil {
		d.sector, err = sectorOf(d.file, info.Mode()&os.ModeDevice != 0)
	}
	if err != nil {
		d.file.Close()
	}
	return err
}

// checkFree fails if a mount or another device holds the device. It only looks: mkfs
// and mount want to hold it themselves later.
func checkFree(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_EXCL, 0)
	if err != nil {
		if errors.Is(err, unix.EBUSY) {
			err = fmt.Errorf("%w: it is mounted, or part of another device", err)
		}
		return err
	}
	return f.Close()
}

// sectorOf returns the unit of direct I/O in bytes.
func sectorOf(f *os.File, device bool) (size int, err error) {
	const usual = 4096 // a multiple of all that are in use
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	outer := raw.Control(func(fd uintptr) {
		if device {
			size, err = unix.IoctlGetInt(int(fd), unix.BLKSSZGET)
			return
		}
		size = usual
		var s unix.Statx_t
		if unix.Statx(int(fd), "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &s) == nil && s.Dio_offset_align > 0 {
			size = int(max(s.Dio_offset_align, s.Dio_mem_align))
		}
	})
	return size, errors.Join(outer, err)
}

// Size is in bytes.
func (d *disk) Size() int64 { return d.size }

// ReadAt reads past the page cache.
func (d *disk) ReadAt(p []byte, off int64) (int, error) {
	if err := d.check("read", p, off); err != nil {
		return 0, err
	}
	if isAligned(p, d.sector) {
		return d.file.ReadAt(p, off)
	}
	copied := aligned(len(p), d.sector)
	n, err := d.file.ReadAt(copied, off)
	return copy(p, copied[:n]), err
}

// WriteAt writes past the page cache.
func (d *disk) WriteAt(p []byte, off int64) (int, error) {
	if err := d.check("write", p, off); err != nil {
		return 0, err
	}
	if !isAligned(p, d.sector) {
		copied := aligned(len(p), d.sector)
		copy(copied, p)
		p = copied
	}
	return d.file.WriteAt(p, off)
}

func (d *disk) check(what string, p []byte, off int64) error {
	if off%int64(d.sector) != 0 || len(p)%d.sector != 0 {
		return fmt.Errorf("%s %d bytes at offset %d of %s: its sector has %d bytes: use a multiple of it (--bs)",
			what, len(p), off, d.file.Name(), d.sector)
	}
	return nil
}

// Close flushes and closes; a later call has the same outcome.
func (d *disk) Close() error { return d.close() }

func (d *disk) flushAndClose() error {
	if err := errors.Join(d.file.Sync(), d.file.Close()); err != nil {
		return fmt.Errorf("flush and close: %w", err)
	}
	return nil
}

func isAligned(p []byte, to int) bool {
	return len(p) == 0 || uintptr(unsafe.Pointer(unsafe.SliceData(p)))%uintptr(to) == 0
}

// pageSize is the alignment that any disk takes without a copy.
const pageSize = 4096

// aligned returns memory for direct I/O, at a multiple of a power of two.
func aligned(size, to int) []byte {
	p := make([]byte, size+to)
	skip := (to - int(uintptr(unsafe.Pointer(unsafe.SliceData(p)))%uintptr(to))) % to
	return p[skip : skip+size : skip+size]
}
