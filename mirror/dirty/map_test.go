package dirty

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// model is the same set as one bool for each block.
type model struct {
	size, block int64
	set         []bool
}

func newModel(size, block int64) *model {
	return &model{size: size, block: block, set: make([]bool, (size-1)/block+1)}
}

// end is where block i ends.
func (m *model) end(i int) int64 { return min(int64(i+1)*m.block, m.size) }

func (m *model) add(off, length int64) {
	for i := range m.set {
		if length > 0 && int64(i)*m.block < off+length && m.end(i) > off {
			m.set[i] = true
		}
	}
}

func (m *model) remove(off, length int64) {
	for i := range m.set {
		if int64(i)*m.block >= off && m.end(i) <= off+length {
			m.set[i] = false
		}
	}
}

func (m *model) has(off, length int64) bool {
	other := newModel(m.size, m.block)
	other.add(off, length)
	for i, set := range m.set {
		if set && other.set[i] {
			return true
		}
	}
	return false
}

func (m *model) bytes() (n int64) {
	for i, set := range m.set {
		if set {
			n += m.end(i) - int64(i)*m.block
		}
	}
	return n
}

func (m *model) next(off, most int64) (start, length int64, ok bool) {
	for i := int(max(off, 0) / m.block); off < m.size && i < len(m.set); i++ {
		if !m.set[i] {
			continue
		}
		end := i
		for end < len(m.set) && m.set[end] && int64(end-i) < most/m.block {
			end++
		}
		start = int64(i) * m.block
		return start, m.end(end-1) - start, true
	}
	return 0, 0, false
}

func compare(t *testing.T, m *Map, want *model) {
	t.Helper()
	for i, set := range want.set {
		if m.has(int64(i)) != set {
			t.Fatalf("block %d is %v", i, !set)
		}
	}
	if m.Bytes() != want.bytes() || m.Empty() != (want.bytes() == 0) {
		t.Fatalf("%d bytes, empty %v; want %d", m.Bytes(), m.Empty(), want.bytes())
	}
}

// someRange is mostly short, sometimes long, and now and then beyond an end.
func someRange(r *rand.Rand, size int64) (off, length int64) {
	off = r.Int64N(size+size/8+1) - size/16
	length = r.Int64N(size/50 + 2)
	if r.IntN(4) == 0 {
		length = r.Int64N(2 * size)
	}
	return off, length - 1
}

func TestMapIsASetOfBlocks(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		block := int64(1) << r.IntN(4)
		blocks := []int64{1, 63, 64, 100, PageBits - 1, PageBits, PageBits + 1, 2*PageBits + 77}[seed%8]
		size := blocks*block - r.Int64N(block)
		m, want := New(size, block), newModel(size, block)
		var kept [][PageBytes]byte
		for i := range m.Pages() {
			kept = append(kept, [PageBytes]byte{})
			m.Page(i, kept[i][:])
		}
		for range 60 {
			off, length := someRange(r, size)
			switch r.IntN(5) {
			case 0:
				m.Remove(off, length)
				want.remove(off, length)
			case 1:
				m.Union(other(r, m, want))
			default:
				m.Add(off, length)
				want.add(off, length)
			}
			compare(t, m, want)
			off, length = someRange(r, size)
			if got := m.Has(off, length); got != want.has(off, length) {
				t.Fatalf("seed %d: has %d+%d is %v", seed, off, length, got)
			}
			checkNext(t, m, want, off, block*(1+r.Int64N(blocks+1)))
			checkChanged(t, m, kept)
		}
	}
}

// other is a set of another granularity, which is added to the model.
func other(r *rand.Rand, m *Map, want *model) *Map {
	block := int64(1) << r.IntN(6)
	for block > m.Size() {
		block /= 2
	}
	o := New(m.Size(), block)
	for range 3 {
		o.Add(someRange(r, m.Size()))
	}
	for off := int64(0); ; {
		start, length, ok := o.Next(off, o.Size())
		if !ok {
			return o
		}
		want.add(start, length)
		off = start + length
	}
}

func checkNext(t *testing.T, m *Map, want *model, off, most int64) {
	t.Helper()
	start, length, ok := m.Next(off, most)
	wantStart, wantLength, wantOK := want.next(off, most)
	if start != wantStart || length != wantLength || ok != wantOK {
		t.Fatalf("next from %d of at most %d is %d+%d %v, want %d+%d %v", off, most, start, length, ok, wantStart, wantLength, wantOK)
	}
}

// checkChanged keeps the pages that are said to have changed; then none differs.
func checkChanged(t *testing.T, m *Map, kept [][PageBytes]byte) {
	t.Helper()
	changed := m.TakeChanged()
	if !slices.IsSorted(changed) {
		t.Fatalf("changed pages are %v", changed)
	}
	for _, i := range changed {
		m.Page(i, kept[i][:])
	}
	var p [PageBytes]byte
	for i := range kept {
		if m.Page(i, p[:]); p != kept[i] {
			t.Fatalf("page %d differs, but only %v are said to", i, changed)
		}
	}
	if again := m.TakeChanged(); len(again) != 0 {
		t.Fatalf("%v changed while nothing did", again)
	}
}

func TestEverything(t *testing.T) {
	m := New(10*PageBits*512+100, 512)
	m.AddAll()
	if m.Bytes() != m.Size() {
		t.Errorf("all are %d of %d bytes", m.Bytes(), m.Size())
	}
	if start, length, ok := m.Next(0, m.Size()+512); start != 0 || length != m.Size() || !ok {
		t.Errorf("the first run is %d+%d", start, length)
	}
	m.Clear()
	if !m.Empty() {
		t.Error("something is left")
	}
}

// Going through a set by Next and Remove ends, and leaves nothing.
func TestNextAndRemoveGoThrough(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	m := New(3*PageBits*64-17, 64)
	for range 100 {
		m.Add(someRange(r, m.Size()))
	}
	left := m.Bytes()
	for !m.Empty() {
		start, length, ok := m.Next(0, 1000)
		if !ok || length > 1000 || start%64 != 0 {
			t.Fatalf("%d+%d, %v with %d bytes left", start, length, ok, m.Bytes())
		}
		m.Remove(start, length)
		if left -= length; left != m.Bytes() {
			t.Fatalf("%d bytes are left, want %d", m.Bytes(), left)
		}
	}
}

func TestCloneIsIndependent(t *testing.T) {
	m := New(2*PageBits*512, 512)
	m.Add(0, PageBits*512) // a page that all maps share
	m.Add(PageBits*512, 512)
	c := m.Clone()
	c.Remove(0, 512)
	c.Remove(PageBits*512, 512)
	m.Add((PageBits+5)*512, 512)
	if !m.Has(0, 512) || !m.Has(PageBits*512, 512) || c.Has((PageBits+5)*512, 512) || c.Has(0, 512) {
		t.Error("a change of one shows in the other")
	}
	if m2 := New(PageBits*512, 512); !func() bool { m2.AddAll(); return m2.Has(0, 512) }() {
		t.Error("the shared page was changed")
	}
	if len(c.TakeChanged()) != 2 || len(m.TakeChanged()) != 2 {
		t.Error("a copy does not have the changes, or takes them from the other")
	}
}

// On disk and on the wire a page is bits in bytes, least significant first.
func TestGoldenPage(t *testing.T) {
	m := New(PageBits*512+512, 512)
	for _, block := range []int64{0, 9, 10, 71, PageBits - 1, PageBits} {
		m.Add(block*512, 1)
	}
	var first, last [PageBytes]byte
	m.Page(0, first[:])
	m.Page(1, last[:])
	want := [PageBytes]byte{0: 0x01, 1: 0x06, 8: 0x80, PageBytes - 1: 0x80}
	if first != want {
		t.Errorf("page 0 is %x", first)
	}
	if last != [PageBytes]byte{0x01} {
		t.Errorf("page 1 is %x", last)
	}
}

func TestSetPage(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	from := New(2*PageBits*512-100*512, 512)
	for range 30 {
		from.Add(someRange(r, from.Size()))
	}
	to := New(from.Size(), 512)
	var p [PageBytes]byte
	for i := range from.Pages() {
		from.Page(i, p[:])
		to.SetPage(i, p[:])
	}
	for off := int64(0); off < from.Size(); off += 512 {
		if from.Has(off, 1) != to.Has(off, 1) {
			t.Fatalf("block %d differs", off/512)
		}
	}
	if from.Bytes() != to.Bytes() {
		t.Errorf("%d bytes, want %d", to.Bytes(), from.Bytes())
	}
	to.TakeChanged()
	to.SetPage(1, p[:])
	if c := to.TakeChanged(); len(c) != 0 {
		t.Errorf("the same page again changed %v", c)
	}
	for i := range p {
		p[i] = 0xff
	}
	to.Clear()
	to.SetPage(1, p[:]) // with bits beyond the end
	if want := int64(PageBits-100) * 512; to.Bytes() != want {
		t.Errorf("%d bytes, want %d", to.Bytes(), want)
	}
}

func TestNewPanics(t *testing.T) {
	for _, c := range [][2]int64{{0, 512}, {-1, 512}, {512, 0}, {512, 3}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("a volume of %d bytes in blocks of %d", c[0], c[1])
				}
			}()
			New(c[0], c[1])
		}()
	}
}

// What the package page says of memory: nothing for an empty page, one pointer for a full one.
func TestMemory(t *testing.T) {
	// The map, its two slices, and the last page, which is never the shared one.
	if n := testing.AllocsPerRun(10, func() { New(1<<30, 4096).AddAll() }); n > 4 {
		t.Errorf("%v allocations for a map that is full", n)
	}
	m := New(1<<30, 4096)
	m.Add(0, 1)
	if n := testing.AllocsPerRun(10, func() { m.Add(8192, 4096); m.Remove(8192, 4096) }); n != 0 {
		t.Errorf("%v allocations for a block in a page that is there", n)
	}
}

func BenchmarkAdd(b *testing.B) {
	m := New(1<<40, 4096)
	m.Add(0, 1)
	for off := int64(0); b.Loop(); off = (off + 4096) % (1 << 24) {
		m.Add(off, 4096)
	}
}

func BenchmarkNextOfEmpty1TiB(b *testing.B) {
	m := New(1<<40, 4096)
	for b.Loop() {
		m.Next(0, 1<<20)
	}
}

// A volume smaller than a block has one run, which is the whole of it.
func TestVolumeSmallerThanABlock(t *testing.T) {
	m := New(1<<20, 4<<20)
	m.Add(4096, 512)
	if start, n, ok := m.Next(0, m.Size()); start != 0 || n != 1<<20 || !ok {
		t.Errorf("run %d+%d, %v", start, n, ok)
	}
	o := New(1<<20, 4<<10)
	o.Union(m)
	if o.Bytes() != 1<<20 {
		t.Errorf("%d bytes", o.Bytes())
	}
}
