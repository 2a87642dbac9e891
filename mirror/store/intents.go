package store

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"

	"lockstep/mirror/dirty"
	"lockstep/mirror/store/vfs"
)

// The state of a region is one word, so that a write begins and ends with one
// atomic operation each:
//
//	bits 0-19   how many writes are in flight
//	bit 20      the intent is durable
//	bits 21-63  the generation that wrote last
const (
	inFlight    = 1
	flightMask  = regionReady - 1
	regionReady = 1 << 20
	genShift    = 21
)

// intents is the write-intent bitmap.
//
// A region whose intent is not durable is never written, and one that is in flight
// never retired: whoever is about to write counts itself first and looks at
// the bit after, and retire clears the bit only of a word without a count.
type intents struct {
	bitmapFile
	f      vfs.File
	broke  func(error) error // is told about a failed sync
	shift  int               // of a byte's offset, to its region
	region []atomic.Uint64
	gen    atomic.Uint64 // in force; regions found at open are of generation 0

	mu   sync.Mutex // guards set and next; held for no I/O
	set  *dirty.Map // what the file holds when it is next written
	next *commit    // joined by who comes while another one is written

	io       sync.Mutex // guards f and the rest
	pending  []int      // pages that could not be written
	unsynced bool       // something was written since the last sync
	failed   error      // of a sync, for ever
}

// commit is the regions that become durable with one sync.
type commit struct {
	regions []span
	done    bool // guarded by io, as is err
	err     error
}

// span is a half-open range of regions.
type span struct{ from, to int64 }

func newIntents(d metadata, m Meta) *intents {
	in := &intents{
		bitmapFile: intentFile(d), shift: bits.TrailingZeros64(uint64(m.Region)), set: dirty.New(m.Size, m.Region),
		region: make([]atomic.Uint64, (m.Size-1)/m.Region+1),
	}
	in.gen.Store(1)
	return in
}

func intentFile(d metadata) bitmapFile {
	return bitmapFile{metadata: d, name: "intents", kind: intentKind}
}

func (in *intents) span(off, length int64) span {
	from := off >> in.shift
	if length <= 0 {
		return span{from, from}
	}
	return span{from, (off+length-1)>>in.shift + 1}
}

// ready reports whether all intents of the range are durable.
func (in *intents) ready(r span) bool {
	for i := r.from; i < r.to; i++ {
		if in.region[i].Load()&regionReady == 0 {
			return false
		}
	}
	return true
}

// begin counts a write that is about to begin and reports whether all its intents
// are durable; then they stay so until end.
func (in *intents) begin(r span) bool {
	all := uint64(regionReady)
	for i := r.from; i < r.to; i++ {
		all &= in.region[i].Add(inFlight)
	}
	return all != 0
}

// end uncounts a write. It belongs to the generation in force now that it ended:
// one that began meanwhile may be synced without it.
func (in *intents) end(r span) {
	gen := in.gen.Load()
	for i := r.from; i < r.to; i++ {
		in.stamp(i, gen, func(w uint64) uint64 { return w - inFlight })
	}
}

// stamp changes the word of a region and raises its generation to gen at least.
func (in *intents) stamp(i int64, gen uint64, change func(uint64) uint64) {
	word := &in.region[i]
	for {
		was := word.Load()
		next := change(was)
		if gen > next>>genShift {
			next = gen<<genShift | next&(1<<genShift-1)
		}
		if word.CompareAndSwap(was, next) {
			return
		}
	}
}

// commit makes the intents of regions that are in flight durable. Callers that
// come while the file is synced share the next sync.
func (in *intents) commit(r span) error {
	c := in.join(r)
	in.io.Lock()
	defer in.io.Unlock()
	if c.done {
		return c.err
	}
	in.mu.Lock()
	in.next = nil // before the pages are taken: who joins later may miss them
	in.mu.Unlock()
	c.done, c.err = true, in.flush(true)
	if c.err != nil {
		return c.err
	}
	gen := in.gen.Load()
	for _, r := range c.regions {
		for i := r.from; i < r.to; i++ {
			in.stamp(i, gen, func(w uint64) uint64 { return w | regionReady })
		}
	}
	return nil
}

func (in *intents) join(r span) *commit {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.set.Add(r.from<<in.shift, (r.to-r.from)<<in.shift)
	if in.next == nil {
		in.next = new(commit)
	}
	in.next.regions = append(in.next.regions, r)
	return in.next
}

// flush writes the pages that changed; with durable it returns when they, and
// all that were written before, are on stable storage. in.io is held.
func (in *intents) flush(durable bool) error {
	if in.failed != nil {
		return in.failed
	}
	segments, pages := in.take()
	for _, s := range segments {
		in.unsynced = true
		if _, err := in.f.WriteAt(s.bytes, s.off); err != nil {
			in.pending = pages
			return fmt.Errorf("write intents: %w", err)
		}
	}
	if !durable || !in.unsynced {
		return nil
	}
	if err := in.f.Sync(); err != nil {
		in.failed = in.broke(fmt.Errorf("sync intents: %w", err))
		return in.failed
	}
	in.unsynced = false
	return nil
}

// take encodes what changed since it was last written.
func (in *intents) take() (segments []segment, pages []int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	pages = append(in.pending, in.set.TakeChanged()...)
	in.pending = nil
	slices.Sort(pages)
	pages = slices.Compact(pages)
	for left := pages; len(left) > 0; {
		var s segment
		s, left = in.encode(in.set, left)
		segments = append(segments, s)
	}
	return segments, pages
}

// retire clears the intents of regions last written before a generation. The file
// is written if nobody else is at it, else by who comes next; a sync is not
// needed, since a bit that is still set on disk costs but a comparison.
func (in *intents) retire(before uint64) error {
	in.forget(before)
	if !in.io.TryLock() {
		return nil
	}
	defer in.io.Unlock()
	return in.flush(false)
}

func (in *intents) forget(before uint64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for off := int64(0); ; {
		start, length, ok := in.set.Next(off, math.MaxInt64)
		if !ok {
			return
		}
		for r, i := in.span(start, length), int64(0); r.from+i < r.to; i++ {
			if in.clear(r.from+i, before) {
				in.set.Remove((r.from+i)<<in.shift, 1<<in.shift)
			}
		}
		off = start + length
	}
}

// clear makes a region unready unless it is in flight, in a commit, or was
// written from generation before on.
func (in *intents) clear(i int64, before uint64) bool {
	word := &in.region[i]
	for {
		was := word.Load()
		if was&regionReady == 0 || was&flightMask != 0 || was>>genShift >= before {
			return false
		}
		if word.CompareAndSwap(was, was&^regionReady) {
			return true
		}
	}
}

// copy is what the file holds or is about to.
func (in *intents) copy() *dirty.Map {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.set.Clone()
}
