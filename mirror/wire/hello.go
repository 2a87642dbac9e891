package wire

import (
	"encoding/binary"
	"fmt"
)

// ID is a random or derived 16-byte identity.
type ID [16]byte

func (id ID) String() string { return fmt.Sprintf("%x", id[:4]) }

// MaxName bounds a volume's name in bytes.
const MaxName = 255

const (
	helloFixed  = 60
	welcomeSize = 40
)

// Hello is the primary's first word.
type Hello struct {
	Size    uint64 // of the volume, bytes
	Session ID     // one a run of the primary
	ID      ID     // the volume's
	Replica ID     // the primary's own store's
	Fresh   bool   // the primary's store was just created
	Volume  string // its name, at most MaxName bytes; for people
}

// Append appends the encoded Hello to b.
func (h *Hello) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, h.Size)
	b = append(b, h.Session[:]...)
	b = append(b, h.ID[:]...)
	b = append(b, h.Replica[:]...)
	b = append(b, bits(h.Fresh), 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(h.Volume)))
	return append(b, h.Volume...)
}

// Decode reads a Hello. Its error wraps ErrCorrupt.
func (h *Hello) Decode(b []byte) error {
	if len(b) < helloFixed {
		return fmt.Errorf("%w: hello of %d bytes, at least %d are needed", ErrCorrupt, len(b), helloFixed)
	}
	n := int(binary.BigEndian.Uint16(b[58:]))
	if n > MaxName || len(b) != helloFixed+n {
		return fmt.Errorf("%w: hello of %d bytes with a name of %d", ErrCorrupt, len(b), n)
	}
	if b[56] > 1 || b[57] != 0 {
		return fmt.Errorf("%w: hello with unknown flags %#02x %#02x", ErrCorrupt, b[56], b[57])
	}
	h.Size = binary.BigEndian.Uint64(b)
	copy(h.Session[:], b[8:])
	copy(h.ID[:], b[24:])
	copy(h.Replica[:], b[40:])
	h.Fresh = b[56]&1 != 0
	h.Volume = string(b[helloFixed:])
	return nil
}

// Welcome is the replica's answer to a Hello that it accepts.
type Welcome struct {
	Size      uint64 // of the replica's store, bytes
	Epoch     uint64 // the highest it has seen
	Replica   ID     // its store's
	Complete  bool   // it is a full copy, as far as it knows
	Lossy     bool   // it was one until its machine lost power
	Known     bool   // it held this volume before
	Remembers bool   // the ranges that follow are its writes above the watermark, not its write-intent bitmap
}

// Append appends the encoded Welcome to b.
func (w *Welcome) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, w.Size)
	b = binary.BigEndian.AppendUint64(b, w.Epoch)
	b = append(b, w.Replica[:]...)
	b = append(b, bits(w.Complete, w.Known, w.Remembers, w.Lossy))
	return append(b, 0, 0, 0, 0, 0, 0, 0)
}

// Decode reads a Welcome. Its error wraps ErrCorrupt.
func (w *Welcome) Decode(b []byte) error {
	if len(b) != welcomeSize {
		return fmt.Errorf("%w: welcome of %d bytes, want %d", ErrCorrupt, len(b), welcomeSize)
	}
	if b[32] > 15 || [7]byte(b[33:]) != [7]byte{} {
		return fmt.Errorf("%w: welcome with unknown flags %#02x or reserved bytes %x", ErrCorrupt, b[32], b[33:])
	}
	w.Size = binary.BigEndian.Uint64(b)
	w.Epoch = binary.BigEndian.Uint64(b[8:])
	copy(w.Replica[:], b[16:])
	w.Complete, w.Known, w.Remembers, w.Lossy = b[32]&1 != 0, b[32]&2 != 0, b[32]&4 != 0, b[32]&8 != 0
	return nil
}

// bits packs flags, the first one lowest.
func bits(flags ...bool) (b byte) {
	for i, set := range flags {
		if set {
			b |= 1 << i
		}
	}
	return b
}
