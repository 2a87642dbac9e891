package target

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// block is a block device without the page cache (O_DIRECT): a write returns when
// the device has acknowledged it. Calls may be concurrent. A call that the kernel holds can't be ended
// from here: it returns when the driver below fails it.
type block struct {
	file    *os.File
	size    int64
	buffers sync.Pool // of *[]byte, aligned
}

// alignment is what direct I/O asks of a buffer, at most.
const alignment = 4096

func openBlock(path string, size int64) (*block, error) {
	file, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return nil, fmt.Errorf("open the volume: %w", err)
	}
	var has uint64
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, file.Fd(), unix.BLKGETSIZE64, uintptr(unsafe.Pointer(&has)))
	if errno != 0 {
		err = fmt.Errorf("read the size of %s: %w", path, errno)
	} else if has < uint64(size) {
		err = fmt.Errorf("%s has %d bytes, fewer than the volume's %d", path, has, size)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &block{file: file, size: size}, nil
}

// Size is in bytes.
func (b *block) Size() int64 { return b.size }

// ReadAt reads whole sectors.
func (b *block) ReadAt(p []byte, off int64) (int, error) {
	buf := b.buffer(len(p))
	defer b.buffers.Put(buf)
	n, err := b.file.ReadAt(*buf, off)
	copy(p, (*buf)[:n])
	return n, err
}

// WriteAt writes whole sectors.
func (b *block) WriteAt(p []byte, off int64) (int, error) {
	buf := b.buffer(len(p))
	defer b.buffers.Put(buf)
	copy(*buf, p)
	return b.file.WriteAt(*buf, off)
}

// Close lets the device go when calls in progress have returned.
func (b *block) Close() error { return b.file.Close() }

// buffer returns an aligned buffer of n bytes.
func (b *block) buffer(n int) *[]byte {
	if buf, ok := b.buffers.Get().(*[]byte); ok && cap(*buf) >= n {
		*buf = (*buf)[:n]
		return buf
	}
	raw := make([]byte, n+alignment)
	skip := -int(uintptr(unsafe.Pointer(&raw[0]))) & (alignment - 1)
	aligned := raw[skip:][:n:n]
	return &aligned
}
