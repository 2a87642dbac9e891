package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// HeaderSize is the length of every frame's header in bytes.
const HeaderSize = 56

// MaxPayload bounds one frame's payload in bytes. A longer write goes in parts:
// the replica applies the first while the others are on their way, its receive
// buffer stays in the CPU's cache, and no peer can ask for more memory.
const MaxPayload = 256 << 10

const magic = 0x4c534b33

// Kind says what a frame is. The package's page lists them.
type Kind uint8

// The kinds of frame.
const (
	KindHello Kind = iota + 1
	KindWelcome
	KindRefuse
	KindWrite
	KindZero
	KindFlush
	KindAck
	KindSum
	KindDigest
	KindCopy
	KindPing
	KindPong
	KindFailed
	KindConfigure
	KindRanges
	KindOrigin
	KindOrigins
	KindMark
	KindRetire
)

var kindNames = [...]string{
	KindHello: "hello", KindWelcome: "welcome", KindRefuse: "refuse", KindWrite: "write",
	KindZero: "zero", KindFlush: "flush", KindAck: "ack", KindSum: "sum", KindDigest: "digest",
	KindCopy: "copy", KindPing: "ping", KindPong: "pong", KindFailed: "failed",
	KindConfigure: "configure", KindRanges: "ranges", KindOrigin: "origin", KindOrigins: "origins",
	KindMark: "mark", KindRetire: "retire",
}

func (k Kind) String() string {
	if k.valid() {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

func (k Kind) valid() bool { return k >= KindHello && k <= KindRetire }

// Flags qualify a frame.
type Flags uint8

// The flags of a frame. Other bits are an error.
const (
	Durable  Flags = 1 << iota // acknowledge from stable storage
	NoHole                     // zero: keep the range allocated
	Zero                       // sum, digest, copy: the range is all zeroes
	More                       // write, ranges, origins: the next frame goes on with it
	Learner                    // configure, copy: the receiver is a learner
	Complete                   // ping: the receiver is a full copy now; origins: nothing was forgotten

	allFlags = Durable | NoHole | Zero | More | Learner | Complete
)

// Header is a decoded frame header. The package's page says what each field
// means for each kind.
type Header struct {
	Kind      Kind
	Flags     Flags
	Epoch     uint64
	Seq       uint64
	Watermark uint64
	Offset    uint64
	Length    uint32
	Payload   uint32
	CRC       uint32 // of the payload
}

// ErrCorrupt is wrapped by every error that Decode and Check return: the bytes
// are not what a peer of this version sent.
var ErrCorrupt = errors.New("corrupt replication frame")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checksum is the CRC-32C (RFC 3720, appendix B.4) of a payload; 0 for none.
func Checksum(payload []byte) uint32 {
	if len(payload) == 0 {
		return 0
	}
	return crc32.Checksum(payload, castagnoli)
}

// Encode writes h into the first HeaderSize bytes of b.
func (h *Header) Encode(b []byte) {
	_ = b[HeaderSize-1]
	be := binary.BigEndian
	be.PutUint32(b[0:], magic)
	b[4] = byte(h.Kind)
	b[5] = byte(h.Flags)
	be.PutUint16(b[6:], 0)
	be.PutUint64(b[8:], h.Epoch)
	be.PutUint64(b[16:], h.Seq)
	be.PutUint64(b[24:], h.Watermark)
	be.PutUint64(b[32:], h.Offset)
	be.PutUint32(b[40:], h.Length)
	be.PutUint32(b[44:], h.Payload)
	be.PutUint32(b[48:], h.CRC)
	be.PutUint32(b[52:], crc32.Checksum(b[:52], castagnoli))
}

// Stamp completes an encoded header with what is known only when its turn comes.
func Stamp(b []byte, epoch, seq, watermark uint64, durable bool) {
	be := binary.BigEndian
	be.PutUint64(b[8:], epoch)
	be.PutUint64(b[16:], seq)
	be.PutUint64(b[24:], watermark)
	if durable {
		b[5] |= byte(Durable)
	}
	be.PutUint32(b[52:], crc32.Checksum(b[:52], castagnoli))
}

// Decode reads a header from the first HeaderSize bytes of b. Its error wraps
// ErrCorrupt and names the field.
func (h *Header) Decode(b []byte) error {
	_ = b[HeaderSize-1]
	be := binary.BigEndian
	if m := be.Uint32(b[0:]); m != magic {
		return fmt.Errorf("%w: magic %#08x, want %#08x (another program or version on this port?)", ErrCorrupt, m, magic)
	}
	if want, got := be.Uint32(b[52:]), crc32.Checksum(b[:52], castagnoli); want != got {
		return fmt.Errorf("%w: header CRC-32C is %#08x, computed %#08x", ErrCorrupt, want, got)
	}
	*h = Header{
		Kind:      Kind(b[4]),
		Flags:     Flags(b[5]),
		Epoch:     be.Uint64(b[8:]),
		Seq:       be.Uint64(b[16:]),
		Watermark: be.Uint64(b[24:]),
		Offset:    be.Uint64(b[32:]),
		Length:    be.Uint32(b[40:]),
		Payload:   be.Uint32(b[44:]),
		CRC:       be.Uint32(b[48:]),
	}
	return h.check(be.Uint16(b[6:]))
}

func (h *Header) check(reserved uint16) error {
	switch {
	case !h.Kind.valid():
		return fmt.Errorf("%w: unknown %v", ErrCorrupt, h.Kind)
	case h.Flags&^allFlags != 0 || reserved != 0:
		return fmt.Errorf("%w: %v frame with unknown flags %#02x or reserved bytes %#04x", ErrCorrupt, h.Kind, uint8(h.Flags), reserved)
	case h.Payload > MaxPayload:
		return fmt.Errorf("%w: %v frame with %d bytes of payload, at most %d are allowed", ErrCorrupt, h.Kind, h.Payload, MaxPayload)
	case h.Offset+uint64(h.Length) < h.Offset:
		return fmt.Errorf("%w: %v frame at %d+%d overflows", ErrCorrupt, h.Kind, h.Offset, h.Length)
	case h.Kind == KindWrite && h.Payload != h.Length,
		h.Kind == KindCopy && h.Flags&Zero == 0 && h.Payload != h.Length,
		h.Kind == KindOrigin && h.Payload != OriginSize,
		h.Kind == KindOrigins && h.Payload%OriginSize != 0,
		h.Kind == KindRanges && h.Payload%RangeSize != 0:
		return fmt.Errorf("%w: %v frame for %d bytes carries %d", ErrCorrupt, h.Kind, h.Length, h.Payload)
	}
	return nil
}

// Check compares a payload with the header's CRC. Its error wraps ErrCorrupt.
func (h *Header) Check(payload []byte) error {
	if got := Checksum(payload); got != h.CRC {
		return fmt.Errorf("%w: %v frame seq %d at %d+%d: payload CRC-32C is %#08x, computed %#08x", ErrCorrupt, h.Kind, h.Seq, h.Offset, h.Length, h.CRC, got)
	}
	return nil
}
