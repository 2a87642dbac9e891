package mirror

import (
	"bytes"
	"fmt"

	"lockstep/mirror/wire"
)

// Comparison does an ActCompare for one Copy: it asks the replica for digests,
// piece by piece, and compares them with the primary's own. Use is
//
//	for Next: send the sum; when the peer answered: Check
//
// Comparing needs no order with writes: both copies take the same writes in the
// same order, so a block that was equal once, at whatever moments the two were
// read, differs at most where a write on its way will make it equal.
type Comparison struct {
	Copy *Copy

	off   int64
	fine  int64 // up to here holes are compared by digest too, to find where they differ
	asked Range
	hole  bool // the primary's range reads as zeroes

	theirs  []byte
	zero    bool
	invalid error
}

// NewComparison begins to compare c's range.
func NewComparison(c *Copy) *Comparison {
	c.Differs, c.Cost = nil, 0
	return &Comparison{Copy: c, off: c.Off}
}

// Next returns the sum to send next; false when the range was compared, or so much
// of it that the rest, Copy.Rest, should have its turn later.
func (c *Comparison) Next(s Store) (h wire.Header, more bool, err error) {
	end := c.Copy.end()
	c.Copy.Rest = end - c.off
	if c.Copy.Rest == 0 || c.Copy.Kind == Compare && c.Copy.Cost >= maxCompared {
		return h, false, nil
	}
	start, stop, err := s.Data(c.off)
	if err != nil {
		return h, false, err
	}
	c.hole = start > c.off && c.off >= c.fine
	switch {
	case c.hole:
		c.asked = Range{c.off, min(start, end) - c.off}
		h.Flags = wire.Zero
	case start > c.off:
		c.asked = Range{c.off, min(start, end, c.off+maxSum) - c.off}
	default:
		c.asked = Range{c.off, min(stop, end, c.off+maxSum) - c.off}
	}
	h.Kind, h.Offset, h.Length = wire.KindSum, uint64(c.asked.Off), uint32(c.asked.Len)
	return h, true, nil
}

// answer notes what the replica said.
func (c *Comparison) answer(h *wire.Header, payload []byte) {
	c.theirs, c.zero, c.invalid = bytes.Clone(payload), h.Flags&wire.Zero != 0, nil
	if c.hole && c.zero && h.Length > 0 && h.Length < uint32(c.asked.Len) { // it did not look farther
		c.asked.Len = int64(h.Length)
	}
	if h.Offset != uint64(c.asked.Off) || h.Length != uint32(c.asked.Len) {
		c.invalid = fmt.Errorf("%w: digest of %d+%d where %d+%d was due", wire.ErrCorrupt, h.Offset, h.Length, c.asked.Off, c.asked.Len)
	}
}

// Check compares the replica's answer with this copy.
func (c *Comparison) Check(s Store) error {
	if c.invalid != nil {
		return c.invalid
	}
	if c.hole {
		if c.zero {
			c.off = c.asked.end()
		} else {
			c.fine = c.asked.end()
		}
		return nil
	}
	ours, err := digestsOf(s, c.asked)
	if err != nil {
		return err
	}
	if len(c.theirs) != len(ours) {
		return fmt.Errorf("%w: %d bytes of digests for %d+%d, not %d", wire.ErrCorrupt, len(c.theirs), c.asked.Off, c.asked.Len, len(ours))
	}
	c.Copy.Cost += c.asked.Len
	for i := 0; i*digestSize < len(ours); i++ {
		if !bytes.Equal(ours[i*digestSize:][:digestSize], c.theirs[i*digestSize:][:digestSize]) {
			off := c.asked.Off + int64(i)*digestBlock
			c.Copy.differs(Range{off, min(digestBlock, c.asked.end()-off)})
		}
	}
	c.off = c.asked.end()
	return nil
}

// differs notes a block, as one range with the one before it if they touch.
func (c *Copy) differs(r Range) {
	if n := len(c.Differs); n > 0 && c.Differs[n-1].end() == r.Off {
		c.Differs[n-1].Len += r.Len
		return
	}
	c.Differs = append(c.Differs, r)
}

// ReadCopy reads the data of an ActCopy into buf, which has room for it; nil
// stands for zeroes.
func ReadCopy(s Store, c *Copy, buf []byte) ([]byte, error) {
	start, _, err := s.Data(c.Off)
	if err != nil || start >= c.end() {
		return nil, err
	}
	data := buf[:c.Len]
	if err := s.ReadAt(data, c.Off); err != nil {
		return nil, err
	}
	if isZero(data) {
		return nil, nil
	}
	return data, nil
}
