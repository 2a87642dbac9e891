package dirty

import (
	"encoding/binary"
	"math/bits"
)

// PageBits is how many blocks a page has; PageBytes is its size encoded.
const (
	PageBits  = 3968
	PageBytes = PageBits / 8
	pageWords = PageBits / 64
)

// page is the bits of PageBits blocks. In a Map a page with no bit is nil and one
// with PageBits of them is full. The last page may have fewer blocks: the bits
// beyond stay 0, so it is never full.
type page struct {
	words [pageWords]uint64
	set   int
}

// full is the page that has every bit; it is never written to.
var full = func() *page {
	p := &page{set: PageBits}
	for i := range p.words {
		p.words[i] = ^uint64(0)
	}
	return p
}()

// Pages is how many pages the volume has.
func (m *Map) Pages() int { return len(m.pages) }

// Page encodes page i into the first PageBytes of p: block n of the page is bit
// n%8, counted from the least significant, of byte n/8.
func (m *Map) Page(i int, p []byte) {
	clear(p[:PageBytes])
	if m.pages[i] == nil {
		return
	}
	for w, word := range m.pages[i].words {
		binary.LittleEndian.PutUint64(p[8*w:], word)
	}
}

// SetPage makes page i what Page encoded into p; bits beyond the volume's end are
// ignored. It counts as a change like any other.
func (m *Map) SetPage(i int, p []byte) {
	var next page
	left := int(min(m.blocks-int64(i)*PageBits, PageBits))
	for w := range next.words {
		word := binary.LittleEndian.Uint64(p[8*w:]) & below(left-64*w)
		next.words[w] = word
		next.set += bits.OnesCount64(word)
	}
	if before := m.pages[i]; before == nil && next.set == 0 || before != nil && before.words == next.words {
		return
	}
	m.put(i, &next)
	m.changed[i] = true
}

// below is a word with the bits under n set.
func below(n int) uint64 {
	switch {
	case n <= 0:
		return 0
	case n >= 64:
		return ^uint64(0)
	}
	return 1<<n - 1
}

// put makes p page i, in the form in which a Map holds it.
func (m *Map) put(i int, p *page) {
	if before := m.pages[i]; before != nil {
		m.set -= int64(before.set)
	}
	m.set += int64(p.set)
	switch p.set {
	case 0:
		p = nil
	case PageBits:
		p = full
	}
	m.pages[i] = p
}

// update calls change for the part of every page that the blocks from up to to touch.
func (m *Map) update(from, to int64, change func(m *Map, i, from, to int)) {
	for from < to {
		i := from / PageBits
		first := i * PageBits
		end := min(to, first+PageBits)
		change(m, int(i), int(from-first), int(end-first))
		from = end
	}
}

// addIn sets the bits from up to to of page i.
func (m *Map) addIn(i, from, to int) {
	p := m.pages[i]
	switch {
	case p == full:
		return
	case to-from == PageBits:
		m.put(i, full)
		m.changed[i] = true
		return
	case p == nil:
		p = new(page)
		m.pages[i] = p
	}
	before := p.set
	for w := from / 64; w <= (to-1)/64; w++ {
		mask := below(to-64*w) &^ below(from-64*w)
		p.set += bits.OnesCount64(mask &^ p.words[w])
		p.words[w] |= mask
	}
	m.settle(i, p, before)
}

// removeIn clears the bits from up to to of page i.
func (m *Map) removeIn(i, from, to int) {
	p := m.pages[i]
	if p == nil {
		return
	}
	if to-from == PageBits {
		m.put(i, new(page))
		m.changed[i] = true
		return
	}
	if p == full {
		own := *full
		p = &own
		m.pages[i] = p
	}
	before := p.set
	for w := from / 64; w <= (to-1)/64; w++ {
		mask := below(to-64*w) &^ below(from-64*w)
		p.set -= bits.OnesCount64(mask & p.words[w])
		p.words[w] &^= mask
	}
	m.settle(i, p, before)
}

// settle accounts for what became of page i, which had before bits.
func (m *Map) settle(i int, p *page, before int) {
	if p.set == before {
		return
	}
	m.changed[i] = true
	m.set += int64(p.set - before)
	switch p.set {
	case 0:
		m.pages[i] = nil
	case PageBits:
		m.pages[i] = full
	}
}

func (m *Map) has(block int64) bool { return m.nextSet(block, block+1) == block }

// nextSet returns the first block from from on that is in the set, or limit.
func (m *Map) nextSet(from, limit int64) int64 {
	for from < limit {
		i := from / PageBits
		if p := m.pages[i]; p != nil {
			if n := p.next(int(from-i*PageBits), 0); n < PageBits {
				return min(i*PageBits+int64(n), limit)
			}
		}
		from = (i + 1) * PageBits
	}
	return limit
}

// nextClear returns the first block from from on that is not in the set, or limit.
func (m *Map) nextClear(from, limit int64) int64 {
	for from < limit {
		i := from / PageBits
		p := m.pages[i]
		if p == nil {
			return from
		}
		if p != full {
			if n := p.next(int(from-i*PageBits), ^uint64(0)); n < PageBits {
				return min(i*PageBits+int64(n), limit)
			}
		}
		from = (i + 1) * PageBits
	}
	return limit
}

// next returns the first bit from from on that is set once the words are
// combined with flip, or PageBits.
func (p *page) next(from int, flip uint64) int {
	skip := below(from % 64)
	for w := from / 64; w < pageWords; w++ {
		if word := (p.words[w] ^ flip) &^ skip; word != 0 {
			return 64*w + bits.TrailingZeros64(word)
		}
		skip = 0
	}
	return PageBits
}
