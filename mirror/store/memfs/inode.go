package memfs

import "syscall"

const (
	sectorSize = 512
	pageSize   = 4096
	chunkPages = 512
)

type (
	page  [pageSize]byte
	chunk [chunkPages]*page
)

// inode is a file or a directory.
type inode struct {
	dir               bool
	size, durableSize int64
	chunks            []*chunk // nil for a hole
	pages             int64    // how many there are
	unsynced          map[int64]unsynced
	lock              *file
}

// unsynced is a sector that differs, or may, from what is on the disk.
type unsynced struct {
	disk *[sectorSize]byte // nil for zeroes
	lost bool              // a sync failed: no later one writes it
}

func newInode() *inode { return &inode{unsynced: make(map[int64]unsynced)} }

// at returns page n, or nil for a hole.
func (n *inode) at(number int64) *page {
	c := number / chunkPages
	if c >= int64(len(n.chunks)) || n.chunks[c] == nil {
		return nil
	}
	return n.chunks[c][number%chunkPages]
}

// page returns page n, which is made if it is not there.
func (n *inode) page(number int64) *page {
	c := number / chunkPages
	for c >= int64(len(n.chunks)) {
		n.chunks = append(n.chunks, nil)
	}
	if n.chunks[c] == nil {
		n.chunks[c] = new(chunk)
	}
	p := &n.chunks[c][number%chunkPages]
	if *p == nil {
		*p = new(page)
		n.pages++
	}
	return *p
}

// drop makes page n a hole.
func (n *inode) drop(number int64) {
	if n.at(number) != nil {
		n.chunks[number/chunkPages][number%chunkPages] = nil
		n.pages--
	}
}

// next returns the first page from number on that is there, or limit.
func (n *inode) next(number, limit int64) int64 {
	for number < limit {
		c := number / chunkPages
		if c >= int64(len(n.chunks)) {
			return limit
		}
		if n.chunks[c] == nil {
			number = (c + 1) * chunkPages
			continue
		}
		if n.chunks[c][number%chunkPages] != nil {
			return number
		}
		number++
	}
	return limit
}

// eachPage calls visit for the part of every page that a range touches.
func eachPage(off, end int64, visit func(number, from, to int64) error) error {
	for off < end {
		number := off / pageSize
		to := min(end-number*pageSize, pageSize)
		if err := visit(number, off-number*pageSize, to); err != nil {
			return err
		}
		off = (number + 1) * pageSize
	}
	return nil
}

// touch remembers what the disk has of the sectors of a range of a page before
// they change. The kernel may have written back, just before, what was changed earlier.
func (f *FS) touch(n *inode, number, from, to int64) {
	p := n.at(number)
	for s := from / sectorSize; s*sectorSize < to; s++ {
		sector := number*(pageSize/sectorSize) + s
		u, dirty := n.unsynced[sector]
		if dirty && (u.lost || f.rand.IntN(2) == 0) {
			u.lost = false
			n.unsynced[sector] = u
			continue
		}
		u = unsynced{}
		if p != nil {
			u.disk = new([sectorSize]byte)
			copy(u.disk[:], p[s*sectorSize:])
		}
		n.unsynced[sector] = u
	}
}

// restore puts back what the disk has of a sector, from a byte on.
func (n *inode) restore(sector int64, from int, disk *[sectorSize]byte) {
	number := sector * sectorSize / pageSize
	if disk == nil && n.at(number) == nil {
		return
	}
	if disk == nil {
		disk = new([sectorSize]byte)
	}
	copy(n.page(number)[sector*sectorSize%pageSize+int64(from):], disk[from:])
}

// write returns how much it wrote: less than all of p when the disk is full.
func (f *FS) write(n *inode, p []byte, off int64) (int, error) {
	done := 0
	err := eachPage(off, off+int64(len(p)), func(number, from, to int64) error {
		if n.at(number) == nil && !f.take() {
			return syscall.ENOSPC
		}
		f.touch(n, number, from, to)
		done += copy(n.page(number)[from:to], p[done:])
		return nil
	})
	if done > 0 {
		n.size = max(n.size, off+int64(done))
	}
	return done, err
}

// zero leaves holes where it can.
func (f *FS) zero(n *inode, off, end int64) {
	for number := n.next(off/pageSize, (end+pageSize-1)/pageSize); number*pageSize < end; number = n.next(number+1, (end+pageSize-1)/pageSize) {
		from, to := max(off-number*pageSize, 0), min(end-number*pageSize, pageSize)
		f.touch(n, number, from, to)
		if clear(n.at(number)[from:to]); to-from == pageSize {
			n.drop(number)
			f.free(1)
		}
	}
}

func (f *FS) setSize(n *inode, size int64) {
	if size < n.size {
		f.zero(n, size, n.size)
	}
	n.size = size
}

// cut drops what is beyond the end: a file that grows again has zeroes there.
func (n *inode) cut() {
	end := int64(len(n.chunks)) * chunkPages
	for number := n.next(n.size/pageSize, end); number < end; number = n.next(number+1, end) {
		if inside := n.size - number*pageSize; inside > 0 {
			clear(n.at(number)[inside:])
		} else {
			n.drop(number)
		}
	}
}

func (f *FS) take() bool {
	if f.room == 0 {
		return false
	}
	if f.room > 0 {
		f.room--
	}
	return true
}

func (f *FS) free(pages int64) {
	if f.room >= 0 {
		f.room += pages
	}
}

// giveBack frees the pages of a file that loses its name.
func (f *FS) giveBack(n *inode) {
	if n != nil {
		f.free(n.pages)
	}
}
