package wire

import "encoding/binary"

// OriginSize is an encoded Origin's length in bytes.
const OriginSize = 32

// Origin names an op of a client that may send it again to another primary.
type Origin struct {
	Session uint64
	Number  uint64 // in its session
	Lowest  uint64 // the client has the answers to all numbers below
	Known   bool   // nothing of the session from Lowest on is forgotten
}

// Append appends the encoded Origin to b.
func (o *Origin) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, o.Session)
	b = binary.BigEndian.AppendUint64(b, o.Number)
	b = binary.BigEndian.AppendUint64(b, o.Lowest)
	return append(b, bits(o.Known), 0, 0, 0, 0, 0, 0, 0)
}

// Decode reads an Origin from the first OriginSize bytes of b. What is reserved may
// be anything: a later version may use it.
func (o *Origin) Decode(b []byte) {
	o.Session = binary.BigEndian.Uint64(b)
	o.Number = binary.BigEndian.Uint64(b[8:])
	o.Lowest = binary.BigEndian.Uint64(b[16:])
	o.Known = b[24]&1 != 0
}

// RangeSize is an encoded Range's length in bytes.
const RangeSize = 16

// Range is a range of the volume in bytes.
type Range struct{ Off, Len uint64 }

// Append appends the encoded Range to b.
func (r *Range) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, r.Off)
	return binary.BigEndian.AppendUint64(b, r.Len)
}

// Decode reads a Range from the first RangeSize bytes of b. The caller checks
// that it lies in the volume.
func (r *Range) Decode(b []byte) {
	r.Off = binary.BigEndian.Uint64(b)
	r.Len = binary.BigEndian.Uint64(b[8:])
}
