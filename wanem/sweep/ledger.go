package sweep

import (
	"bytes"
	"context"
	"fmt"
)

// readBack is the size of the reads that check what was written.
const readBack = 1 << 20

// ledger remembers the last write to each block. Writer w owns the blocks w,
// w+writers, w+2*writers, …: nobody else touches them, so the order of writes
// to one block is known and no lock is needed.
type ledger struct {
	stamps    *stamper
	blockSize int
	writers   int
	seq       []uint64 // by block; 0 is not written
}

func newLedger(seed uint64, size int64, blockSize, writers int) (*ledger, error) {
	blocks := min(size/int64(blockSize), maxBlocks)
	if blocks < int64(writers) {
		return nil, fmt.Errorf("load a volume of %d bytes: it has %d blocks of %d bytes for %d writers: use a larger --size or a smaller --qd",
			size, blocks, blockSize, writers)
	}
	return &ledger{stamps: newStamper(seed, blockSize), blockSize: blockSize, writers: writers, seq: make([]uint64, blocks)}, nil
}

// owned is the number of blocks that writer w owns.
func (l *ledger) owned(w int) int64 { return int64((len(l.seq) - w + l.writers - 1) / l.writers) }

// block returns the i-th block of writer w.
func (l *ledger) block(w int, i int64) int64 { return i*int64(l.writers) + int64(w) }

func (l *ledger) offset(block int64) int64 { return block * int64(l.blockSize) }

// check reads every written block back and returns how many there were. The
// error names the first block that is not as it was last written.
func (l *ledger) check(ctx context.Context, dev Device) (checked int64, err error) {
	perRead := int64(max(1, readBack/l.blockSize))
	got := aligned(int(perRead)*l.blockSize, pageSize)
	want := make([]byte, l.blockSize)
	for first := int64(0); first < int64(len(l.seq)); first += perRead {
		n := min(perRead, int64(len(l.seq))-first)
		if !l.anyWritten(first, n) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return checked, context.Cause(ctx)
		}
		chunk := got[:n*int64(l.blockSize)]
		if _, err := dev.ReadAt(chunk, l.offset(first)); err != nil {
			return checked, fmt.Errorf("read back %d bytes at offset %d: %w", len(chunk), l.offset(first), err)
		}
		for block := first; block < first+n; block++ {
			if l.seq[block] == 0 {
				continue
			}
			checked++
			if err := l.compare(block, chunk[(block-first)*int64(l.blockSize):][:l.blockSize], want); err != nil {
				return checked, err
			}
		}
	}
	return checked, nil
}

func (l *ledger) anyWritten(first, n int64) bool {
	for _, seq := range l.seq[first : first+n] {
		if seq != 0 {
			return true
		}
	}
	return false
}

func (l *ledger) compare(block int64, got, scratch []byte) error {
	writer := int(block % int64(l.writers))
	l.stamps.fill(scratch, l.offset(block), l.seq[block], writer)
	if bytes.Equal(got, scratch) {
		return nil
	}
	return &MismatchError{
		Block: block, Offset: l.offset(block),
		Want: describe(scratch), Got: describe(got),
	}
}

// MismatchError is an acknowledged write that the volume does not hold.
type MismatchError struct {
	Block, Offset int64
	Want, Got     string // what the block should hold and does hold
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("verify block %d at offset %d: it should hold %s, but holds %s: this is a fault of the volume, not of the sweep",
		e.Block, e.Offset, e.Want, e.Got)
}
