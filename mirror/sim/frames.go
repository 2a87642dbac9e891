package sim

import "lockstep/mirror/wire"

// frames cuts the bytes of a stream into frames.
type frames struct{ rest []byte }

func (f *frames) add(b []byte) { f.rest = append(f.rest, b...) }

// next returns the next whole frame; false if there is none yet.
func (f *frames) next() (h wire.Header, payload []byte, whole bool, err error) {
	if len(f.rest) < wire.HeaderSize {
		return h, nil, false, nil
	}
	if err := h.Decode(f.rest); err != nil {
		return h, nil, false, err
	}
	size := wire.HeaderSize + int(h.Payload)
	if len(f.rest) < size {
		return h, nil, false, nil
	}
	payload = f.rest[wire.HeaderSize:size:size]
	f.rest = f.rest[size:]
	return h, payload, true, nil
}

// encode makes the bytes of one frame.
func encode(h wire.Header, payload []byte) []byte {
	h.Payload, h.CRC = uint32(len(payload)), wire.Checksum(payload)
	b := make([]byte, wire.HeaderSize, wire.HeaderSize+len(payload))
	h.Encode(b)
	return append(b, payload...)
}
