package forward

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"lockstep/mirror"
)

// HeaderSize is the length of every frame's header in bytes.
const HeaderSize = 56

// MaxLength bounds a read or a write in bytes: what an NBD request may have.
const MaxLength = 64 << 20

const magic = 0x4c534631

// ErrCorrupt is wrapped by the errors of what no peer of this version sends.
var ErrCorrupt = errors.New("corrupt forwarding frame")

// kind says what a frame is; the package's page lists them.
type kind uint8

const (
	kindHello kind = iota + 1
	kindWelcome
	kindRefuse
	kindRead
	kindWrite
	kindZero
	kindFlush
	kindReply
	kindPing
)

var kindNames = [...]string{
	kindHello: "hello", kindWelcome: "welcome", kindRefuse: "refuse", kindRead: "read", kindWrite: "write",
	kindZero: "zero", kindFlush: "flush", kindReply: "reply", kindPing: "ping",
}

func (k kind) String() string {
	if k.valid() {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

func (k kind) valid() bool { return k >= kindHello && k <= kindPing }

// flags qualify a frame. Other bits are an error.
type flags uint8

const (
	flagFUA       flags = 1 << iota // acknowledge from stable storage
	flagNoHole                      // zero: keep the range allocated
	flagRetry                       // it was sent before, to whomever
	flagAgain                       // reply: not done for good; send it to the next primary
	flagForgotten                   // reply: an error; whether the op was done before is not known

	allFlags = flagFUA | flagNoHole | flagRetry | flagAgain | flagForgotten
)

var kindOfOp = [...]kind{mirror.Read: kindRead, mirror.Write: kindWrite, mirror.Zero: kindZero, mirror.Flush: kindFlush}

// opOfKind is the inverse of kindOfOp.
func opOfKind(k kind) mirror.OpKind { return mirror.OpKind(k - kindRead) }

// header is a decoded frame header.
type header struct {
	kind    kind
	flags   flags
	errno   uint16
	tag     uint64
	number  uint64
	lowest  uint64
	offset  uint64
	length  uint32
	payload uint32
	crc     uint32 // of the payload
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum is the CRC-32C (RFC 3720, appendix B.4) of a payload; 0 for none.
func checksum(payload []byte) uint32 {
	if len(payload) == 0 {
		return 0
	}
	return crc32.Checksum(payload, castagnoli)
}

// encode appends h to b, made for payload.
func (h *header) encode(b, payload []byte) []byte {
	h.payload, h.crc = uint32(len(payload)), checksum(payload)
	at, be := len(b), binary.BigEndian
	b = be.AppendUint32(b, magic)
	b = append(b, byte(h.kind), byte(h.flags))
	b = be.AppendUint16(b, h.errno)
	b = be.AppendUint64(b, h.tag)
	b = be.AppendUint64(b, h.number)
	b = be.AppendUint64(b, h.lowest)
	b = be.AppendUint64(b, h.offset)
	b = be.AppendUint32(b, h.length)
	b = be.AppendUint32(b, h.payload)
	b = be.AppendUint32(b, h.crc)
	return be.AppendUint32(b, crc32.Checksum(b[at:], castagnoli))
}

// decode reads a header from the first HeaderSize bytes of b. Its error wraps
// ErrCorrupt.
func (h *header) decode(b []byte) error {
	_ = b[HeaderSize-1]
	be := binary.BigEndian
	if m := be.Uint32(b); m != magic {
		return fmt.Errorf("%w: magic %#08x, want %#08x (another program or version on this port?)", ErrCorrupt, m, magic)
	}
	if want, got := be.Uint32(b[52:]), crc32.Checksum(b[:52], castagnoli); want != got {
		return fmt.Errorf("%w: header CRC-32C is %#08x, computed %#08x", ErrCorrupt, want, got)
	}
	*h = header{
		kind: kind(b[4]), flags: flags(b[5]), errno: be.Uint16(b[6:]),
		tag: be.Uint64(b[8:]), number: be.Uint64(b[16:]), lowest: be.Uint64(b[24:]), offset: be.Uint64(b[32:]),
		length: be.Uint32(b[40:]), payload: be.Uint32(b[44:]), crc: be.Uint32(b[48:]),
	}
	return h.check()
}

// check finds what no peer sends, whatever the volume.
func (h *header) check() error {
	data := h.kind == kindRead || h.kind == kindWrite
	switch {
	case !h.kind.valid():
		return fmt.Errorf("%w: unknown %v", ErrCorrupt, h.kind)
	case h.flags&^allFlags != 0:
		return fmt.Errorf("%w: %v with unknown flags %#02x", ErrCorrupt, h.kind, uint8(h.flags))
	case data && h.length > MaxLength, (data || h.kind == kindZero) && h.length == 0:
		return fmt.Errorf("%w: %v of %d bytes, 1 to %d are possible", ErrCorrupt, h.kind, h.length, MaxLength)
	case h.offset+uint64(h.length) < h.offset:
		return fmt.Errorf("%w: %v at %d+%d overflows", ErrCorrupt, h.kind, h.offset, h.length)
	case h.payload > h.maxPayload(), h.kind == kindWrite && h.payload != h.length:
		return fmt.Errorf("%w: %v of %d bytes carries %d", ErrCorrupt, h.kind, h.length, h.payload)
	case (h.kind == kindWrite || h.kind == kindZero) == (h.number == 0):
		return fmt.Errorf("%w: %v with number %d", ErrCorrupt, h.kind, h.number)
	case h.lowest > h.number:
		return fmt.Errorf("%w: %v number %d with lowest %d", ErrCorrupt, h.kind, h.number, h.lowest)
	}
	return nil
}

// maxPayload is the most that may follow, in bytes.
func (h *header) maxPayload() uint32 {
	switch h.kind {
	case kindHello, kindRefuse:
		return maxGreeting
	case kindWrite, kindReply:
		return MaxLength
	}
	return 0
}

// verify compares a payload with the header's CRC. Its error wraps ErrCorrupt.
func (h *header) verify(payload []byte) error {
	if got := checksum(payload); got != h.crc {
		return fmt.Errorf("%w: %v at %d+%d: payload CRC-32C is %#08x, computed %#08x", ErrCorrupt, h.kind, h.offset, h.length, h.crc, got)
	}
	return nil
}
