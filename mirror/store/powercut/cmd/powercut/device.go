package main

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"lockstep/mirror/store/powercut"
)

// maxWrite is the most that an operation of a plan writes, in bytes.
const maxWrite = 64 << 10

// device is a block device, past the page cache: what was written has been there.
type device struct {
	f   *os.File
	buf []byte // aligned as O_DIRECT asks
}

var _ interface {
	powercut.Target
	powercut.Durable
} = (*device)(nil)

func openDevice(name string, size int64) (*device, error) {
	f, err := os.OpenFile(name, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return nil, err
	}
	have, err := f.Seek(0, 2)
	if err == nil && have != size {
		err = fmt.Errorf("it has %d bytes, not %d: say so with -size", have, size)
	}
	sector := 0
	if err == nil {
		sector, err = unix.IoctlGetInt(int(f.Fd()), unix.BLKSSZGET)
	}
	if err == nil && sector > powercut.SectorSize {
		err = fmt.Errorf("its blocks have %d bytes, and %d are written at a time", sector, powercut.SectorSize)
	}
	var buf []byte
	if err == nil {
		buf, err = unix.Mmap(-1, 0, maxWrite, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open device %s: %w", name, err)
	}
	return &device{f, buf}, nil
}

func (d *device) close() {
	_ = unix.Munmap(d.buf) // it was mapped above
	d.f.Close()
}

func (d *device) WriteAt(p []byte, off int64) error { return d.write(p, off, 0) }

// WriteDurably is one request with FUA, where the device has that.
func (d *device) WriteDurably(p []byte, off int64) error { return d.write(p, off, unix.RWF_DSYNC) }

func (d *device) write(p []byte, off int64, flags int) error {
	buf := d.buf[:copy(d.buf, p)]
	n, err := unix.Pwritev2(int(d.f.Fd()), [][]byte{buf}, off, flags)
	if err == nil && n != len(p) {
		err = fmt.Errorf("%d bytes of %d", n, len(p))
	}
	if err != nil {
		return fmt.Errorf("write %s at %d+%d: %w", d.f.Name(), off, len(p), err)
	}
	return nil
}

// Zero has the device make the zeroes.
func (d *device) Zero(off, length int64) error {
	span := [2]uint64{uint64(off), uint64(length)}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, d.f.Fd(), unix.BLKZEROOUT, uintptr(unsafe.Pointer(&span)))
	if errno != 0 {
		return fmt.Errorf("zero %s at %d+%d: %w", d.f.Name(), off, length, errno)
	}
	return nil
}

// Sync is a flush.
func (d *device) Sync() error {
	if err := unix.Fdatasync(int(d.f.Fd())); err != nil {
		return fmt.Errorf("flush %s: %w", d.f.Name(), err)
	}
	return nil
}
