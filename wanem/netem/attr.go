package netem

import (
	"encoding/binary"
	"fmt"
)

// A netlink attribute: u16 length (header included), u16 type, value, padding
// to 4 bytes. The two top bits of the type are flags.
const (
	attrHeader   = 4
	attrNested   = 0x8000
	attrTypeMask = 0x3fff
)

func align4(n int) int { return (n + 3) &^ 3 }

// appendAttr appends one attribute; the value is at most some hundred bytes.
func appendAttr(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(attrHeader+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	return append(b, make([]byte, align4(len(value))-len(value))...)
}

// attrs holds attributes by type, flags stripped; of equal ones the last counts.
type attrs map[uint16][]byte

// parseAttrs splits b. Values alias it.
func parseAttrs(b []byte) (attrs, error) {
	found := attrs{}
	for len(b) >= attrHeader {
		n := int(binary.NativeEndian.Uint16(b))
		kind := binary.NativeEndian.Uint16(b[2:]) & attrTypeMask
		if n < attrHeader || n > len(b) {
			return nil, fmt.Errorf("attribute %d of %d bytes in a buffer of %d", kind, n, len(b))
		}
		found[kind] = b[attrHeader:n]
		b = b[min(align4(n), len(b)):]
	}
	return found, nil
}

// u32 returns the nth 32-bit field of an attribute, and 0 where it is absent.
func (a attrs) u32(kind uint16, n int) uint32 {
	if v := a[kind]; len(v) >= 4*(n+1) {
		return binary.NativeEndian.Uint32(v[4*n:])
	}
	return 0
}

// u64 returns a 64-bit attribute, and false where it is absent.
func (a attrs) u64(kind uint16) (uint64, bool) {
	if v := a[kind]; len(v) >= 8 {
		return binary.NativeEndian.Uint64(v), true
	}
	return 0, false
}
