package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"lockstep/mirror/dirty"
	"lockstep/mirror/store/vfs"
)

// The format of a bitmap file; doc.go has the table.
const (
	bitmapMagic = 0x4c534231 // "LSB1"
	pageSize    = SectorSize
	pageHead    = 12
	pageSum     = pageHead + dirty.PageBytes

	intentKind    = 1
	outOfSyncKind = 2
)

// bitmapFile is one dirty.Map on disk: a header page, then the map's pages.
type bitmapFile struct {
	metadata
	name string
	kind uint32
	peer [16]byte // whose out-of-sync bitmap it is
}

// fileSize is that of a bitmap of a volume of size bytes.
func fileSize(size, block int64) int64 {
	blocks := (size-1)/block + 1
	return ((blocks-1)/dirty.PageBits + 2) * pageSize
}

// encodePage completes a page whose bits or header are in place.
func (b bitmapFile) encodePage(p []byte, number int) {
	binary.BigEndian.PutUint32(p, bitmapMagic)
	binary.BigEndian.PutUint32(p[4:], b.kind)
	binary.BigEndian.PutUint32(p[8:], uint32(number))
	binary.BigEndian.PutUint32(p[pageSum:], crc32.Checksum(p[:pageSum], castagnoli))
}

func (b bitmapFile) checkPage(p []byte, number int) error {
	field := func(off int) uint32 { return binary.BigEndian.Uint32(p[off:]) }
	var what string
	switch sum := crc32.Checksum(p[:pageSum], castagnoli); {
	case field(0) != bitmapMagic:
		what = fmt.Sprintf("magic is %08x, not %08x", field(0), uint32(bitmapMagic))
	case field(pageSum) != sum:
		what = fmt.Sprintf("checksum is %08x, not %08x", field(pageSum), sum)
	case field(4) != b.kind:
		what = fmt.Sprintf("kind is %d, not %d", field(4), b.kind)
	case field(8) != uint32(number):
		what = fmt.Sprintf("it is page %d", field(8))
	default:
		return nil
	}
	return fmt.Errorf("%w: %s page %d: %s", ErrCorrupt, b.path(b.name), number, what)
}

func (b bitmapFile) header(m *dirty.Map) []byte {
	p := make([]byte, pageSize)
	binary.BigEndian.PutUint64(p[pageHead:], uint64(m.Size()))
	binary.BigEndian.PutUint64(p[pageHead+8:], uint64(m.Block()))
	copy(p[pageHead+16:], b.peer[:])
	b.encodePage(p, 0)
	return p
}

// checkHeader returns the size of the volume when the file was made: at most what it
// is now.
func (b bitmapFile) checkHeader(p []byte, m *dirty.Map) (size int64, err error) {
	if err := b.checkPage(p, 0); err != nil {
		return 0, err
	}
	size, block := int64(binary.BigEndian.Uint64(p[pageHead:])), binary.BigEndian.Uint64(p[pageHead+8:])
	if size <= 0 || size > m.Size() || block != uint64(m.Block()) || [16]byte(p[pageHead+16:]) != b.peer {
		return 0, fmt.Errorf("%w: %s is for %x, %d bytes in blocks of %d, not for %x, %d in %d", ErrCorrupt, b.path(b.name),
			p[pageHead+16:][:16], size, block, b.peer, m.Size(), m.Block())
	}
	return size, nil
}

// create puts a file that holds m in the place of what was there, durably.
func (b bitmapFile) create(m *dirty.Map) error {
	m.TakeChanged()
	return b.replace(b.name, func(f vfs.File) error {
		if err := f.Truncate(fileSize(m.Size(), m.Block())); err != nil {
			return err
		}
		if _, err := f.WriteAt(b.header(m), 0); err != nil {
			return err
		}
		return b.write(f, m, pagesIn(m))
	})
}

// pagesIn returns the pages of m that have a bit.
func pagesIn(m *dirty.Map) (pages []int) {
	stride := m.Block() * dirty.PageBits
	for off := int64(0); ; {
		start, _, ok := m.Next(off, m.Block())
		if !ok {
			return pages
		}
		page := start / stride
		pages = append(pages, int(page))
		off = (page + 1) * stride
	}
}

// segment is a run of pages as they are on disk.
type segment struct {
	off   int64
	bytes []byte
}

// encode encodes the first run of pages of m, which are ascending, and returns
// the pages that are left.
func (b bitmapFile) encode(m *dirty.Map, pages []int) (segment, []int) {
	const most = 256 // pages in one write
	run := 1
	for run < min(len(pages), most) && pages[run] == pages[0]+run {
		run++
	}
	s := segment{off: int64(pages[0]+1) * pageSize, bytes: make([]byte, run*pageSize)}
	for i, page := range pages[:run] {
		p := s.bytes[i*pageSize:][:pageSize]
		m.Page(page, p[pageHead:])
		b.encodePage(p, page+1)
	}
	return s, pages[run:]
}

// write writes pages of m to the file, and syncs nothing.
func (b bitmapFile) write(f vfs.File, m *dirty.Map, pages []int) error {
	for len(pages) > 0 {
		var s segment
		s, pages = b.encode(m, pages)
		if _, err := f.WriteAt(s.bytes, s.off); err != nil {
			return err
		}
	}
	return nil
}

// load reads the file into the empty map m. What is corrupt counts as set: the
// error then wraps ErrCorrupt and m is usable, a superset of what was kept. A file
// from before the volume grew has the first part of m, and is to be replaced: whole
// is false.
func (b bitmapFile) load(f vfs.File, m *dirty.Map) (whole bool, err error) {
	had, err := b.sizeOf(f, m)
	if errors.Is(err, ErrCorrupt) {
		m.AddAll()
	}
	if err != nil {
		return false, err
	}
	err = b.loadPages(f, m, fileSize(had, m.Block()))
	m.TakeChanged()
	return err == nil && had == m.Size(), err
}

// sizeOf is the size of the volume when the file was made, which is all there.
func (b bitmapFile) sizeOf(f vfs.File, m *dirty.Map) (int64, error) {
	size, err := f.Size()
	if err != nil {
		return 0, err
	}
	head := make([]byte, pageSize)
	if size < pageSize {
		return 0, fmt.Errorf("%w: %s has %d bytes, not even a header", ErrCorrupt, b.path(b.name), size)
	}
	if _, err := f.ReadAt(head, 0); err != nil {
		return 0, err
	}
	had, err := b.checkHeader(head, m)
	if err != nil {
		return 0, err
	}
	if want := fileSize(had, m.Block()); size != want {
		return 0, fmt.Errorf("%w: %s has %d bytes, not %d", ErrCorrupt, b.path(b.name), size, want)
	}
	return had, nil
}

// loadPages reads only what is no hole: a large bitmap is mostly that.
func (b bitmapFile) loadPages(f vfs.File, m *dirty.Map, size int64) error {
	var corrupt corruptPages
	buf := make([]byte, 256*pageSize)
	for off := int64(pageSize); off < size; {
		start, end, err := f.Data(off)
		if err != nil {
			return err
		}
		off = max(start/pageSize*pageSize, off)
		for off < end {
			p := buf[:min(int64(len(buf)), size-off)]
			if _, err := f.ReadAt(p, off); err != nil {
				return err
			}
			for ; len(p) > 0; p, off = p[pageSize:], off+pageSize {
				corrupt.add(b.loadPage(p[:pageSize], int(off/pageSize), m))
			}
		}
	}
	return corrupt.err()
}

var zeroPage [pageSize]byte

func (b bitmapFile) loadPage(p []byte, number int, m *dirty.Map) error {
	if [pageSize]byte(p) == zeroPage {
		return nil
	}
	if err := b.checkPage(p, number); err != nil {
		stride := m.Block() * dirty.PageBits
		m.Add(int64(number-1)*stride, stride)
		return err
	}
	m.SetPage(number-1, p[pageHead:])
	return nil
}

// corruptPages gathers what is wrong with a file, in words that stay readable.
type corruptPages struct {
	first []error
	more  int
}

func (c *corruptPages) add(err error) {
	switch {
	case err == nil:
	case len(c.first) < 8:
		c.first = append(c.first, err)
	default:
		c.more++
	}
}

func (c *corruptPages) err() error {
	if c.more > 0 {
		return errors.Join(append(c.first, fmt.Errorf("and %d pages more", c.more))...)
	}
	return errors.Join(c.first...)
}
