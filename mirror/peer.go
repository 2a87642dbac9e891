package mirror

import (
	"fmt"
	"time"

	"lockstep/mirror/dirty"
	"lockstep/mirror/wire"
)

// Peer is the primary's side of one replica's connection, less its I/O: it makes
// the frames that a machine's actions ask for, and turns what the replica says
// into events. It is not safe for concurrent use.
//
//	greeting --welcome--> listing --last ranges, EvUp--> up
//
// An answer carries the number of its request. A copy is acknowledged by a ping
// behind it, because frames are applied in their order.
type Peer struct {
	id      ReplicaID
	epoch   uint64 // of the connection: what is no op carries it
	conf    MachineConfig
	phase   peerPhase
	welcome wire.Welcome
	state   ReplicaState
	last    uint64 // number of the last request
	pending map[uint64]request
}

type peerPhase uint8

const (
	greeting peerPhase = iota
	listing
	up
)

// request is what waits for an answer; one of the fields is set.
type request struct {
	copy    *Copy
	compare *Comparison
	finish  bool
	sentAt  time.Duration // of a heartbeat: a peer must not be able to stretch a lease
}

// NewPeer begins a connection to member id under epoch, for a machine of conf.
func NewPeer(id ReplicaID, epoch uint64, conf MachineConfig) *Peer {
	return &Peer{id: id, epoch: epoch, conf: conf, pending: map[uint64]request{}}
}

// Epoch is the connection's.
func (p *Peer) Epoch() uint64 { return p.epoch }

// Welcome is what the replica said of itself, once the event that Handle returned is EvUp.
func (p *Peer) Welcome() wire.Welcome { return p.welcome }

// AppendHello appends the connection's first frame to b.
func (p *Peer) AppendHello(b []byte, hello *wire.Hello) []byte {
	f := p.frame(wire.Header{Kind: wire.KindHello}, hello.Append(nil))
	return append(append(b, f.header...), f.payload...)
}

// frame completes a frame that is no op's.
func (p *Peer) frame(h wire.Header, payload []byte) frame {
	if h.Epoch == 0 {
		h.Epoch = p.epoch
	}
	h.Payload, h.CRC = uint32(len(payload)), wire.Checksum(payload)
	b := make([]byte, wire.HeaderSize)
	h.Encode(b)
	return frame{header: b, payload: payload}
}

func (p *Peer) request(r request) uint64 {
	p.last++
	p.pending[p.last] = r
	return p.last
}

// Answer is what a frame from a replica meant.
type Answer struct {
	Event      Event       // for the machine, if Told
	Told       bool        // there is an event
	Comparison *Comparison // this one can go on
}

// Handle takes one frame from the replica. Its error ends the connection.
func (p *Peer) Handle(h *wire.Header, payload []byte) (a Answer, err error) {
	if err := h.Check(payload); err != nil {
		return a, err
	}
	switch {
	case h.Kind == wire.KindRefuse:
		return a, fmt.Errorf("%w: %s", errRefused, payload)
	case h.Kind == wire.KindFailed:
		return a, fmt.Errorf("the replica failed: %s", payload)
	case p.phase == greeting && h.Kind == wire.KindWelcome:
		p.phase = listing
		return a, p.welcomed(payload)
	case p.phase == listing && h.Kind == wire.KindRanges:
		return p.ranges(h, payload)
	case p.phase == up:
		return p.answered(h, payload)
	}
	return a, fmt.Errorf("%w: unexpected %v frame from a replica", wire.ErrCorrupt, h.Kind)
}

func (p *Peer) welcomed(payload []byte) error {
	w := &p.welcome
	if err := w.Decode(payload); err != nil {
		return err
	}
	if w.Size != uint64(p.conf.Size) {
		return fmt.Errorf("its store has %d bytes, the volume has %d; start both with the same --size (a node of a cluster makes its copy grow by itself)", w.Size, p.conf.Size)
	}
	p.state = ReplicaState{Complete: w.Complete, Lossy: w.Lossy, Known: w.Known}
	if !w.Remembers {
		p.state.Intents = dirty.New(p.conf.Size, p.conf.Region)
	}
	return nil
}

// ranges gathers what may differ on the replica, which is up after the last of it.
func (p *Peer) ranges(h *wire.Header, payload []byte) (a Answer, err error) {
	for ; len(payload) > 0; payload = payload[wire.RangeSize:] {
		var r wire.Range
		r.Decode(payload)
		if r.Off > uint64(p.conf.Size) || r.Len > uint64(p.conf.Size)-r.Off {
			return a, fmt.Errorf("%w: range %d+%d is outside the volume", wire.ErrCorrupt, r.Off, r.Len)
		}
		if p.state.Intents != nil {
			p.state.Intents.Add(int64(r.Off), int64(r.Len))
			continue
		}
		if len(p.state.Written) == 2*maxRecent {
			return a, fmt.Errorf("%w: more than %d ranges", wire.ErrCorrupt, 2*maxRecent)
		}
		p.state.Written = append(p.state.Written, Range{int64(r.Off), int64(r.Len)})
	}
	if h.Flags&wire.More == 0 {
		p.phase = up
		a = Answer{Told: true, Event: Event{Kind: EvUp, Replica: p.id, State: &p.state}}
	}
	return a, nil
}

func (p *Peer) answered(h *wire.Header, payload []byte) (a Answer, err error) {
	a.Told, a.Event.Replica = true, p.id
	if h.Kind == wire.KindAck {
		a.Event.Kind, a.Event.Applied, a.Event.Durable = EvAcked, h.Seq, h.Watermark
		return a, nil
	}
	r, ok := p.pending[h.Seq]
	if !ok || (h.Kind == wire.KindDigest) != (r.compare != nil) || h.Kind != wire.KindDigest && h.Kind != wire.KindPong {
		return a, fmt.Errorf("%w: %v frame answers no request (number %d)", wire.ErrCorrupt, h.Kind, h.Seq)
	}
	delete(p.pending, h.Seq)
	switch {
	case r.compare != nil:
		r.compare.answer(h, payload)
		return Answer{Comparison: r.compare}, nil
	case r.copy != nil:
		a.Event.Kind, a.Event.Copy = EvCopied, r.copy
	case r.finish:
		a.Event.Kind = EvFinished
	default:
		a.Event.Kind, a.Event.SentAt = EvLease, r.sentAt
	}
	return a, nil
}

// AppendAction appends to b the frames that a asks for, which is one of ActSend,
// ActSendFlush, ActConfigure, ActOrigins and ActFinish for this replica.
func (p *Peer) AppendAction(b []byte, a Action, m *Machine) []byte {
	return appendFrames(b, p.frames(a, m))
}

func appendFrames(b []byte, frames []frame) []byte {
	for _, f := range frames {
		b = append(append(b, f.header...), f.payload...)
	}
	return b
}

func (p *Peer) frames(a Action, m *Machine) []frame {
	switch a.Kind {
	case ActSend:
		if len(a.Op.frames) == 0 {
			a.Op.cut()
		}
		return a.Op.encode(m.current.Epoch, m.Watermark())
	case ActSendFlush:
		return flushFor(a.Op, m.current.Epoch, m.Watermark())
	case ActConfigure:
		return []frame{p.frame(wire.Header{Kind: wire.KindConfigure, Epoch: a.Conf.Epoch, Flags: learnerFlag(a.Learner)}, nil)}
	case ActOrigins:
		return p.origins(a.Origins)
	case ActFinish:
		return []frame{p.frame(wire.Header{Kind: wire.KindPing, Flags: wire.Durable | wire.Complete, Seq: p.request(request{finish: true})}, nil)}
	}
	panic(fmt.Sprintf("mirror: action %d asks for no frame", a.Kind))
}

func learnerFlag(learner bool) wire.Flags {
	if learner {
		return wire.Learner
	}
	return 0
}

// maxOrigins is how many origins go in one frame.
const maxOrigins = wire.MaxPayload / wire.OriginSize

func (p *Peer) origins(o *Origins) (frames []frame) {
	var all []byte
	for from := range o.All {
		w := wire.Origin{Session: from.Session, Number: from.Number, Lowest: from.Lowest, Known: from.Known}
		all = w.Append(all)
	}
	for {
		part := all[:min(len(all), maxOrigins*wire.OriginSize)]
		all = all[len(part):]
		h := wire.Header{Kind: wire.KindOrigins}
		if len(all) > 0 {
			h.Flags = wire.More
		} else if o.Whole {
			h.Flags = wire.Complete
		}
		frames = append(frames, p.frame(h, part))
		if len(all) == 0 {
			return frames
		}
	}
}

// AppendHeartbeat appends a heartbeat sent now to b: its answer is an EvLease.
func (p *Peer) AppendHeartbeat(b []byte, now time.Duration) []byte {
	return appendFrames(b, []frame{p.heartbeat(now)})
}

func (p *Peer) heartbeat(now time.Duration) frame {
	return p.frame(wire.Header{Kind: wire.KindPing, Seq: p.request(request{sentAt: now})}, nil)
}

// AppendCopy appends the frames of an ActCopy to b, whose data [ReadCopy] read:
// nil for zeroes. An EvCopied will answer.
func (p *Peer) AppendCopy(b []byte, c *Copy, data []byte, m *Machine) []byte {
	return appendFrames(b, p.copyFrames(c, data, m))
}

func (p *Peer) copyFrames(c *Copy, data []byte, m *Machine) (frames []frame) {
	learner := m.members[p.id].standing == learner
	// The data may hold writes that are not complete: until they are, other copies may lack them.
	h := wire.Header{Kind: wire.KindCopy, Flags: learnerFlag(learner), Seq: m.LastSeq()}
	if data == nil {
		h.Offset, h.Length = uint64(c.Off), uint32(c.Len)
		h.Flags |= wire.Zero
		frames = append(frames, p.frame(h, nil))
	}
	for off := 0; off < len(data); off += wire.MaxPayload {
		part := data[off:min(off+wire.MaxPayload, len(data))]
		h.Offset, h.Length = uint64(c.Off)+uint64(off), uint32(len(part))
		frames = append(frames, p.frame(h, part))
	}
	ping := wire.Header{Kind: wire.KindPing, Seq: p.request(request{copy: c})}
	return append(frames, p.frame(ping, nil))
}

// AppendSum appends the next request of a comparison, as [Comparison.Next] made
// it, to b. Its answer goes on with the comparison.
func (p *Peer) AppendSum(b []byte, c *Comparison, h wire.Header) []byte {
	return appendFrames(b, []frame{p.sum(c, h)})
}

func (p *Peer) sum(c *Comparison, h wire.Header) frame {
	h.Seq = p.request(request{compare: c})
	return p.frame(h, nil)
}

// AppendGeneration appends to b that a generation of writes begins, with a number
// of the caller's, or that all before it is durable everywhere.
func (p *Peer) AppendGeneration(b []byte, number uint64, over bool) []byte {
	return appendFrames(b, []frame{p.generation(number, over)})
}

func (p *Peer) generation(number uint64, over bool) frame {
	kind := wire.KindMark
	if over {
		kind = wire.KindRetire
	}
	return p.frame(wire.Header{Kind: kind, Seq: number}, nil)
}
