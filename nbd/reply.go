package nbd

import (
	"encoding/binary"
	"errors"
	"math"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// baseAllocationID is the number under which BLOCK_STATUS replies carry the
// base:allocation context; ours to choose.
const baseAllocationID = 1

// MaxExtents is the most that one BLOCK_STATUS reply carries: 512 KiB of reply. A
// backend may stop there; the client asks again for the rest of its range.
const MaxExtents = 1 << 16

// maxErrorText is the most of an error's text that a reply carries, in bytes.
const maxErrorText = 256

var errNoExtents = errors.New("the backend gave no extents")

// encodeReply turns r's outcome into the bytes to send, r.reply. Every reply is
// one contiguous piece, so that a connection sends one iovec per request.
func encodeReply(r *Request, structured bool) {
	if r.Err == nil && r.Cmd == CmdBlockStatus {
		r.Extents = clampExtents(r.Extents, r.Length, r.Flags&FlagReqOne != 0)
		if len(r.Extents) == 0 {
			r.Err = errNoExtents
		}
	}
	switch {
	case r.Err != nil && structured:
		r.reply = appendErrorChunk(r.head[:0], r)
	case r.Err != nil:
		r.reply = appendSimpleReply(r.head[:0], errnoOf(r.Err), r.cookie)
	case r.Cmd == CmdBlockStatus:
		encodeBlockStatus(r)
	case r.Cmd == CmdRead && structured:
		encodeReadChunk(r)
	case r.Cmd == CmdRead && r.buf != nil:
		r.reply = r.buf.withHead(simpleReplySize, len(r.Data))
		appendSimpleReply(r.reply[:0], 0, r.cookie)
	default:
		r.reply = appendSimpleReply(r.head[:0], 0, r.cookie)
	}
}

func appendSimpleReply(b []byte, errno uint32, cookie uint64) []byte {
	b = binary.BigEndian.AppendUint32(b, protocol.TRANSMISSION_MAGIC_REPLY)
	b = binary.BigEndian.AppendUint32(b, errno)
	return binary.BigEndian.AppendUint64(b, cookie)
}

// appendChunkHeader begins the only chunk of a structured reply.
func appendChunkHeader(b []byte, kind uint16, cookie uint64, length int) []byte {
	b = binary.BigEndian.AppendUint32(b, NBD_STRUCTURED_REPLY_MAGIC)
	b = binary.BigEndian.AppendUint16(b, NBD_REPLY_FLAG_DONE)
	b = binary.BigEndian.AppendUint16(b, kind)
	b = binary.BigEndian.AppendUint64(b, cookie)
	return binary.BigEndian.AppendUint32(b, uint32(length))
}

// encodeReadChunk answers a READ; one of zero bytes has no buffer and no data
// chunk, as the specification forbids empty ones.
func encodeReadChunk(r *Request) {
	if r.buf == nil {
		r.reply = appendChunkHeader(r.head[:0], NBD_REPLY_TYPE_NONE, r.cookie, 0)
		return
	}
	r.reply = r.buf.withHead(offsetDataSize, len(r.Data))
	b := appendChunkHeader(r.reply[:0], NBD_REPLY_TYPE_OFFSET_DATA, r.cookie, 8+len(r.Data))
	binary.BigEndian.AppendUint64(b, r.Offset)
}

func appendErrorChunk(b []byte, r *Request) []byte {
	text := r.Err.Error()
	text = text[:min(len(text), maxErrorText)]
	b = appendChunkHeader(b, NBD_REPLY_TYPE_ERROR, r.cookie, 6+len(text))
	b = binary.BigEndian.AppendUint32(b, errnoOf(r.Err))
	b = binary.BigEndian.AppendUint16(b, uint16(len(text)))
	return append(b, text...)
}

func encodeBlockStatus(r *Request) {
	n := 4 + 8*len(r.Extents)
	r.buf = getBuffer(chunkHeaderSize + n)
	b := appendChunkHeader(r.buf.data(chunkHeaderSize + n)[:0], NBD_REPLY_TYPE_BLOCK_STATUS, r.cookie, n)
	b = binary.BigEndian.AppendUint32(b, baseAllocationID)
	for _, e := range r.Extents {
		b = binary.BigEndian.AppendUint32(b, uint32(e.Length))
		b = binary.BigEndian.AppendUint32(b, e.state())
	}
	r.reply = b
}

func (e Extent) state() uint32 {
	var s uint32
	if e.Hole {
		s |= NBD_STATE_HOLE
	}
	if e.Zero {
		s |= NBD_STATE_ZERO
	}
	return s
}

// clampExtents joins neighbours in the same state, drops empty ones, and cuts
// off what lies beyond the request's length, the first if only one is wanted,
// or what exceeds MaxExtents. It works in place.
func clampExtents(in []Extent, length uint64, one bool) []Extent {
	limit, rest := MaxExtents, min(length, math.MaxUint32)
	if one {
		limit = 1
	}
	out := in[:0]
	for _, e := range in {
		e.Length = min(e.Length, rest)
		rest -= e.Length
		last := len(out) - 1
		switch {
		case e.Length == 0:
		case last >= 0 && out[last].state() == e.state():
			out[last].Length += e.Length
		case len(out) == limit:
			return out
		default:
			out = append(out, e)
		}
	}
	return out
}
