package mirror

import "lockstep/mirror/wire"

// frame is one frame to send: its header and, if it has one, its payload. Both
// stay as they are until the frame is acknowledged or the outbox is closed.
type frame struct{ header, payload []byte }

var opFrameKinds = [...]wire.Kind{Write: wire.KindWrite, Zero: wire.KindZero, Flush: wire.KindFlush}

// cut lays out the frames of an op and computes what is costly, the checksums,
// before the volume's lock is taken.
func (o *Op) cut() {
	if o.Kind == Read {
		return
	}
	o.frames = o.frames[:0]
	for rest := o.payload(); ; {
		part := rest[:min(len(rest), wire.MaxPayload)]
		rest = rest[len(part):]
		h := wire.Header{
			Kind:    opFrameKinds[o.Kind],
			Offset:  uint64(o.Off),
			Length:  uint32(o.Len),
			Payload: uint32(len(part)),
			CRC:     wire.Checksum(part),
		}
		if o.Kind == Write {
			h.Offset += uint64(o.Len) - uint64(len(part)+len(rest))
			h.Length = uint32(len(part))
		}
		if len(rest) > 0 {
			h.Flags = wire.More
		}
		if o.NoHole {
			h.Flags |= wire.NoHole
		}
		o.addFrame(h, part)
		if len(rest) == 0 {
			return
		}
	}
}

// originFrame is the length of a frame that carries an origin. It goes before the
// op's first one, in one piece with its header.
const originFrame = wire.HeaderSize + wire.OriginSize

// addFrame appends a frame; the first one's header needs no memory of its own.
func (o *Op) addFrame(h wire.Header, payload []byte) {
	switch {
	case len(o.frames) > 0:
		b := make([]byte, wire.HeaderSize)
		h.Encode(b)
		o.frames = append(o.frames, frame{header: b, payload: payload})
	case o.Origin == nil:
		b := o.header[:wire.HeaderSize]
		h.Encode(b)
		o.frames = append(o.frames, frame{header: b, payload: payload})
	default:
		h.Encode(o.header[originFrame:])
		o.encodeOrigin(o.header[:originFrame])
		o.frames = append(o.frames, frame{header: o.header[:], payload: payload})
	}
}

func (o *Op) encodeOrigin(b []byte) {
	from := wire.Origin{Session: o.Origin.Session, Number: o.Origin.Number, Lowest: o.Origin.Lowest, Known: o.Origin.opens()}
	payload := from.Append(b[wire.HeaderSize:wire.HeaderSize])
	h := wire.Header{Kind: wire.KindOrigin, Payload: uint32(len(payload)), CRC: wire.Checksum(payload)}
	h.Encode(b)
}

// encode completes the frames with what is only known under the lock. It does so
// once: another link may be sending them while a returning replica is sent them
// again.
func (o *Op) encode(epoch, watermark uint64) []frame {
	if o.core.encoded {
		return o.frames
	}
	o.core.encoded = true
	for _, f := range o.frames {
		wire.Stamp(f.header, epoch, o.core.seq, watermark, o.core.durable)
		if len(f.header) > wire.HeaderSize {
			wire.Stamp(f.header[originFrame:], epoch, o.core.seq, watermark, o.core.durable)
		}
	}
	return o.frames
}

// AppendFrames appends the frames of an op that has its seq to b: for who sends
// them as one piece.
func (o *Op) AppendFrames(b []byte, epoch, watermark uint64) []byte {
	if len(o.frames) == 0 {
		o.cut()
	}
	for _, f := range o.encode(epoch, watermark) {
		b = append(append(b, f.header...), f.payload...)
	}
	return b
}

// Seq is the op's number among the writes of a volume, once the machine asked to
// send it; 0 for a read.
func (o *Op) Seq() uint64 { return o.core.seq }

// flushFor is the frame of ActSendFlush.
func flushFor(op *Op, epoch, watermark uint64) []frame {
	h := wire.Header{Kind: wire.KindFlush, Flags: wire.Durable, Epoch: epoch, Seq: op.core.seq, Watermark: watermark}
	b := make([]byte, wire.HeaderSize)
	h.Encode(b)
	return []frame{{header: b}}
}

func (o *Op) payload() []byte {
	if o.Kind == Write {
		return o.Data
	}
	return nil
}
