package nbd

import (
	"encoding/binary"
	"errors"
	"io"
	"strings"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// Bounds of the handshake; beyond them the connection is closed.
const (
	maxOptions    = 32
	maxOptionData = 64 << 10 // bytes
)

// contextName is the one metadata context offered.
const contextName = "base:allocation"

var (
	errMalformed = errors.New("the option's data is malformed")
	errTooBig    = errors.New("the option's data is too big")
)

// option is one negotiation option as the client sent it.
type option struct {
	id   uint32
	data []byte
}

// readOption reads one option. It takes no byte of what follows.
func readOption(r io.Reader) (option, error) {
	var h [16]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return option{}, err
	}
	if binary.BigEndian.Uint64(h[:]) != protocol.NEGOTIATION_MAGIC_OPTION {
		return option{}, errors.New("the option does not begin with the option magic")
	}
	o := option{id: binary.BigEndian.Uint32(h[8:])}
	length := binary.BigEndian.Uint32(h[12:])
	if length > maxOptionData {
		return o, errTooBig
	}
	o.data = make([]byte, length)
	_, err := io.ReadFull(r, o.data)
	return o, err
}

// appendOptionReply appends a reply to option id.
func appendOptionReply(b []byte, id, kind uint32, data []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, protocol.NEGOTIATION_MAGIC_REPLY)
	b = binary.BigEndian.AppendUint32(b, id)
	b = binary.BigEndian.AppendUint32(b, kind)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

// cutString takes a 32-bit length and as many bytes from the front of b.
func cutString(b []byte) (s string, rest []byte, err error) {
	if len(b) < 4 {
		return "", nil, errMalformed
	}
	n := binary.BigEndian.Uint32(b)
	b = b[4:]
	switch {
	case uint64(n) > uint64(len(b)):
		return "", nil, errMalformed
	case n > maxString:
		return "", nil, errTooBig
	}
	return string(b[:n]), b[n:], nil
}

// parseInfoRequest decodes the data of INFO and GO: an export name and the
// kinds of information wanted.
func parseInfoRequest(b []byte) (name string, kinds []uint16, err error) {
	name, b, err = cutString(b)
	if err != nil {
		return "", nil, err
	}
	if len(b) < 2 || len(b) != 2+2*int(binary.BigEndian.Uint16(b)) {
		return "", nil, errMalformed
	}
	for b = b[2:]; len(b) > 0; b = b[2:] {
		kinds = append(kinds, binary.BigEndian.Uint16(b))
	}
	return name, kinds, nil
}

// parseContextRequest decodes the data of LIST_META_CONTEXT and
// SET_META_CONTEXT: an export name and queries.
func parseContextRequest(b []byte) (name string, queries []string, err error) {
	name, b, err = cutString(b)
	if err != nil {
		return "", nil, err
	}
	if len(b) < 4 {
		return "", nil, errMalformed
	}
	n := binary.BigEndian.Uint32(b)
	b = b[4:]
	if uint64(n)*4 > uint64(len(b)) {
		return "", nil, errMalformed
	}
	for range n {
		var q string
		if q, b, err = cutString(b); err != nil {
			return "", nil, err
		}
		queries = append(queries, q)
	}
	if len(b) != 0 {
		return "", nil, errMalformed
	}
	return name, queries, nil
}

// wantsContext reports whether a query selects base:allocation. Listing accepts
// the bare namespace and no query at all as wildcards; setting does not.
func wantsContext(queries []string, list bool) bool {
	if list && len(queries) == 0 {
		return true
	}
	for _, q := range queries {
		if q == contextName || list && q == contextName[:strings.IndexByte(contextName, ':')+1] {
			return true
		}
	}
	return false
}
