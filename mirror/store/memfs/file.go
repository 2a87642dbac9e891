package memfs

import (
	"io"
	"io/fs"
	"syscall"

	"lockstep/mirror/store/vfs"
)

// file is one open file.
type file struct {
	fs     *FS
	node   *inode
	name   string
	life   int
	closed bool
}

func (h *file) begin(op string) error {
	if err := h.fs.begin(op, h.name); err != nil {
		return err
	}
	if err := h.dead(); err != nil {
		h.fs.mu.Unlock()
		return &fs.PathError{Op: op, Path: h.name, Err: err}
	}
	return nil
}

func (h *file) dead() error {
	switch {
	case h.closed:
		return fs.ErrClosed
	case h.life != h.fs.life:
		return ErrCrashed
	}
	return nil
}

func (h *file) ReadAt(p []byte, off int64) (n int, err error) {
	if err := h.begin("read"); err != nil {
		return 0, err
	}
	defer h.fs.mu.Unlock()
	if off < 0 {
		return 0, &fs.PathError{Op: "read", Path: h.name, Err: syscall.EINVAL}
	}
	end := min(off+int64(len(p)), h.node.size)
	eachPage(off, end, func(number, from, to int64) error {
		part := p[n:][:to-from]
		if page := h.node.at(number); page != nil {
			copy(part, page[from:to])
		} else {
			clear(part)
		}
		n += len(part)
		return nil
	})
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// ReadCached finds everything in the cache.
func (h *file) ReadCached(p []byte, off int64) error {
	if n, err := h.ReadAt(p, off); err != nil || n < len(p) {
		return vfs.ErrNotCached
	}
	return nil
}

func (h *file) WriteAt(p []byte, off int64) (n int, err error) {
	if err := h.begin("write"); err != nil {
		return 0, err
	}
	defer h.fs.end("write", h.name, &err)
	if off < 0 {
		return 0, syscall.EINVAL
	}
	h.fs.changing(false)
	if countDown(&h.fs.failWrite) {
		return 0, syscall.EIO
	}
	return h.fs.write(h.node, p, off)
}

// countDown reports whether this is the one that is to fail.
func countDown(n *int) bool {
	if *n == 0 {
		return false
	}
	*n--
	return *n == 0
}

func (h *file) Sync() (err error) {
	if err := h.begin("sync"); err != nil {
		return err
	}
	defer h.fs.end("sync", h.name, &err)
	if err := h.fs.changing(true); err != nil {
		return err
	}
	if countDown(&h.fs.failSync) {
		h.fs.loseSync(h.node)
		return syscall.EIO
	}
	h.node.durableSize = h.node.size
	for sector, u := range h.node.unsynced {
		if !u.lost {
			delete(h.node.unsynced, sector)
		}
	}
	return nil
}

func (h *file) Truncate(size int64) (err error) {
	if err := h.begin("truncate"); err != nil {
		return err
	}
	defer h.fs.end("truncate", h.name, &err)
	if size < 0 {
		return syscall.EINVAL
	}
	h.fs.changing(false)
	h.fs.setSize(h.node, size)
	return nil
}

func (h *file) Size() (size int64, err error) {
	if err := h.begin("size"); err != nil {
		return 0, err
	}
	defer h.fs.end("size", h.name, &err)
	return h.node.size, nil
}

func (h *file) Zero(off, length int64, _ bool) (err error) {
	if err := h.begin("zero"); err != nil {
		return err
	}
	defer h.fs.end("zero", h.name, &err)
	if off < 0 || length < 0 {
		return syscall.EINVAL
	}
	h.fs.changing(false)
	h.fs.zero(h.node, off, min(off+length, h.node.size))
	return nil
}

func (h *file) Data(off int64) (start, end int64, err error) {
	if err := h.begin("data"); err != nil {
		return 0, 0, err
	}
	defer h.fs.end("data", h.name, &err)
	size := h.node.size
	limit := (size + pageSize - 1) / pageSize
	number := h.node.next(max(off, 0)/pageSize, limit)
	if off >= size || number == limit {
		return size, size, nil
	}
	start = max(number*pageSize, off)
	for number < limit && h.node.at(number) != nil {
		number++
	}
	return start, min(number*pageSize, size), nil
}

func (h *file) Lock() (err error) {
	if err := h.begin("lock"); err != nil {
		return err
	}
	defer h.fs.end("lock", h.name, &err)
	if l := h.node.lock; l != nil && l != h && l.dead() == nil {
		return vfs.ErrLocked
	}
	h.node.lock = h
	return nil
}

func (h *file) Device() bool { return false }
func (h *file) Align() int   { return 1 }

func (h *file) Close() error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.dead(); err != nil {
		return &fs.PathError{Op: "close", Path: h.name, Err: err}
	}
	h.closed = true
	return nil
}
