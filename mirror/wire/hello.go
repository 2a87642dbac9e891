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
	helloFixed  = 26
	welcomeSize = 24
)

// Hello is the primary's first word.
type Hello struct {
	Size    uint64 // of the volume, bytes
	Session ID     // one a run of the primary
	Volume  string // at most MaxName bytes
}

// Append appends the encoded Hello to b.
func (h *Hello) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, h.Size)
	b = append(b, h.Session[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(h.Volume)))
	return append(b, h.Volume...)
}

// Decode reads a Hello. Its error wraps ErrCorrupt.
func (h *Hello) Decode(b []byte) error {
	if len(b) < helloFixed {
		return fmt.Errorf("%w: hello of %d bytes, at least %d are needed", ErrCorrupt, len(b), helloFixed)
	}
	n := int(binary.BigEndian.Uint16(b[24:]))
	if n > MaxName || len(b) != helloFixed+n {
		return fmt.Errorf("%w: hello of %d bytes with a name of %d", ErrCorrupt, len(b), n)
	}
	h.Size = binary.BigEndian.Uint64(b)
	copy(h.Session[:], b[8:])
	h.Volume = string(b[helloFixed:])
	return nil
}

// Welcome is the replica's answer to a Hello that it accepts.
type Welcome struct {
	Size    uint64 // of the replica's store, bytes
	Session ID     // the last session that wrote to it in this run of the replica; zero if none
}

// Append appends the encoded Welcome to b.
func (w *Welcome) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, w.Size)
	return append(b, w.Session[:]...)
}

// Decode reads a Welcome. Its error wraps ErrCorrupt.
func (w *Welcome) Decode(b []byte) error {
	if len(b) != welcomeSize {
		return fmt.Errorf("%w: welcome of %d bytes, want %d", ErrCorrupt, len(b), welcomeSize)
	}
	w.Size = binary.BigEndian.Uint64(b)
	copy(w.Session[:], b[8:])
	return nil
}
