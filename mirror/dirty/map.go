package dirty

import (
	"fmt"
	"slices"
)

// Map is a set of blocks of one volume. It is not safe for concurrent use.
type Map struct {
	size    int64 // bytes
	block   int64 // bytes, a power of two
	blocks  int64 // bits in the map
	set     int64 // bits that are set
	pages   []*page
	changed []bool // by page, since TakeChanged
}

// New returns an empty set for a volume of size bytes, in blocks of block bytes.
// It panics if block is not a power of two or size is not positive.
func New(size, block int64) *Map {
	if size <= 0 || block <= 0 || block&(block-1) != 0 {
		panic(fmt.Sprintf("dirty: a volume of %d bytes in blocks of %d", size, block))
	}
	blocks := (size-1)/block + 1
	pages := (blocks-1)/PageBits + 1
	return &Map{size: size, block: block, blocks: blocks, pages: make([]*page, pages), changed: make([]bool, pages)}
}

// Size is the volume's size in bytes.
func (m *Map) Size() int64 { return m.size }

// Block is the granularity in bytes.
func (m *Map) Block() int64 { return m.block }

// Bytes is how much the set covers; a last block that the size cuts short
// counts with what there is of it.
func (m *Map) Bytes() int64 {
	n := m.set * m.block
	if m.has(m.blocks - 1) {
		n -= m.blocks*m.block - m.size
	}
	return n
}

// Empty reports whether nothing is in the set.
func (m *Map) Empty() bool { return m.set == 0 }

// Clone returns a copy that shares nothing that can change, with the same pages changed.
func (m *Map) Clone() *Map {
	c := *m
	c.pages = slices.Clone(m.pages)
	c.changed = slices.Clone(m.changed)
	for i, p := range c.pages {
		if p != nil && p != full {
			own := *p
			c.pages[i] = &own
		}
	}
	return &c
}

// AddAll puts the whole volume into the set.
func (m *Map) AddAll() { m.Add(0, m.size) }

// Clear empties the set.
func (m *Map) Clear() { m.Remove(0, m.size) }

// Add puts every block into the set that the range touches.
func (m *Map) Add(off, length int64) {
	if from, to, ok := m.touched(off, length); ok {
		m.update(from, to, (*Map).addIn)
	}
}

// Remove takes every block out of the set that lies in the range wholly.
func (m *Map) Remove(off, length int64) {
	off, end, ok := m.clip(off, length)
	if !ok {
		return
	}
	from, to := (off+m.block-1)/m.block, end/m.block
	if end == m.size {
		to = m.blocks
	}
	if from < to {
		m.update(from, to, (*Map).removeIn)
	}
}

// Has reports whether any block that the range touches is in the set.
func (m *Map) Has(off, length int64) bool {
	from, to, ok := m.touched(off, length)
	return ok && m.nextSet(from, to) < to
}

// Next returns the first run of blocks in the set, from the block that holds
// off on, cut to max bytes, but never below a block, and to the volume's
// size. A run begins and ends at a multiple of the block or at the volume's end,
// so Remove of a run removes it. ok is false if there is none.
func (m *Map) Next(off, max int64) (start, length int64, ok bool) {
	off, _, ok = m.clip(off, m.size)
	if !ok {
		return 0, 0, false
	}
	from := m.nextSet(off/m.block, m.blocks)
	if from == m.blocks {
		return 0, 0, false
	}
	limit := m.blocks
	if max < m.block {
		max = m.block // a volume smaller than a block: its run is the volume
	}
	if most := max / m.block; most < limit-from {
		limit = from + most
	}
	to := m.nextClear(from, limit)
	start = from * m.block
	return start, min(to*m.block, m.size) - start, true
}

// Union adds everything that is in o, a set of the same volume at any granularity.
func (m *Map) Union(o *Map) {
	for off := int64(0); ; {
		start, length, ok := o.Next(off, o.size)
		if !ok {
			return
		}
		m.Add(start, length)
		off = start + length
	}
}

// TakeChanged returns the numbers of the pages that differ, or differed for a
// while, from what they were at the last call, ascending.
func (m *Map) TakeChanged() []int {
	var pages []int
	for i, c := range m.changed {
		if c {
			pages = append(pages, i)
		}
	}
	clear(m.changed)
	return pages
}

// clip cuts a range to the volume; ok is false if nothing is left.
func (m *Map) clip(off, length int64) (start, end int64, ok bool) {
	if off < 0 {
		off, length = 0, length+off
	}
	if length <= 0 || off >= m.size {
		return 0, 0, false
	}
	return off, off + min(length, m.size-off), true
}

// touched returns the half-open range of blocks that a range of bytes touches.
func (m *Map) touched(off, length int64) (from, to int64, ok bool) {
	off, end, ok := m.clip(off, length)
	if !ok {
		return 0, 0, false
	}
	return off / m.block, (end-1)/m.block + 1, true
}
