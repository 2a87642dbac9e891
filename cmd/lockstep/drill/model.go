package drill

import (
	"fmt"
	"sync/atomic"
)

// model is what the volume has to hold. Its methods may be called concurrently; a
// block has one writer at a time.
type model struct {
	writers int
	blocks  []expected
	newest  []atomic.Int64 // by writer: the block acknowledged last, -1 at first
}

type expected struct {
	floor, submitted atomic.Uint64
	suspect          atomic.Bool // a read was wrong: it is left as it is until the read-back
}

// newModel is of a volume that holds only zeroes.
func newModel(writers int, size int64) *model {
	m := &model{writers: writers, blocks: make([]expected, size/BlockSize), newest: make([]atomic.Int64, writers)}
	for i := range m.newest {
		m.newest[i].Store(-1)
	}
	return m
}

// writer is whose block it is: neighbours belong to different ones, so that they
// meet in what a mirror keeps per region.
func (m *model) writer(block int64) int { return int(block % int64(m.writers)) }

// submit begins a write and returns its generation.
func (m *model) submit(block int64) uint64 { return m.blocks[block].submitted.Add(1) }

// acknowledged ends a write well.
func (m *model) acknowledged(block int64, generation uint64) {
	m.blocks[block].raise(generation)
	m.newest[m.writer(block)].Store(block)
}

func (e *expected) raise(generation uint64) {
	for {
		now := e.floor.Load()
		if now >= generation || e.floor.CompareAndSwap(now, generation) {
			return
		}
	}
}

// floor is what a read that begins now has to return at least.
func (m *model) floor(block int64) uint64 { return m.blocks[block].floor.Load() }

// violation is a read that returned what it must not.
type violation struct {
	block int64
	what  string
}

func (v *violation) Error() string { return fmt.Sprintf("block %d: %s", v.block, v.what) }

// check judges a read that began when the block had that floor.
func (m *model) check(block int64, floor uint64, p []byte) *violation {
	low, high, err := unstamp(p, m.writer(block), block)
	e := &m.blocks[block]
	switch {
	case err != nil:
		return &violation{block, err.Error()}
	case low < floor:
		return &violation{block, fmt.Sprintf("generation %d was read after generation %d was acknowledged or read", low, floor)}
	case high > e.submitted.Load():
		return &violation{block, fmt.Sprintf("generation %d was read, and none after %d written", high, e.submitted.Load())}
	}
	e.raise(low)
	return nil
}

// suspects are the blocks that were read wrong since the last call.
func (m *model) suspects() (blocks []int64) {
	for i := range m.blocks {
		if m.blocks[i].suspect.Swap(false) {
			blocks = append(blocks, int64(i))
		}
	}
	return blocks
}

// forgive takes what a block holds now for what it has to hold, so that one loss is
// counted once. Nobody may be writing.
func (m *model) forgive(block int64, p []byte) {
	low, _, err := unstamp(p, m.writer(block), block)
	if err != nil {
		low = 0
	}
	m.blocks[block].floor.Store(low)
}
