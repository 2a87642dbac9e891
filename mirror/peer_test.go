package mirror

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"lockstep/mirror/store"
	"lockstep/mirror/store/memfs"
	"lockstep/mirror/wire"
)

// TestPeer runs testdata/peer/*.txt: a primary's and a replica's end of a connection, frame
// by frame. Commands are
//
//	replica [new] [lossy]             with a copy of the volume, or a store just created
//	connect [epoch=N] [again] [fresh] again: in another run of the primary
//	write OFF+LEN [fua] [from=N]
//	flush | configure [epoch=N] [learner] | finish | heartbeat | origins
//	copy OFF+LEN [zero] [learner] | sum OFF+LEN [zero]
//	sync                              the replica makes durable what it was asked to
//	state                             what the replica keeps
//
// -> is a frame to the replica and <- one back; ! is what it means to the machine.
func TestPeer(t *testing.T) {
	datadriven.Walk(t, "testdata/peer", func(t *testing.T, path string) {
		var p pair
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			p.t, p.out = t, strings.Builder{}
			p.run(d)
			if p.out.Len() == 0 {
				return "-\n"
			}
			return p.out.String()
		})
	})
}

const peerSize = 1 << 20

// pair is both ends of a connection and what is behind them.
type pair struct {
	t        testing.TB
	out      strings.Builder
	m        *Machine
	peer     *Peer
	applier  *Applier
	follower *Follower
	store    *store.Store
	now      time.Duration
	mu       sync.Mutex
}

// newReplica gives the pair a replica with a store of its own.
func (p *pair) newReplica(meta func(*store.Meta)) {
	s, err := store.Open(store.Options{Path: "/store", Size: peerSize, FS: memfs.New(1), Region: 64 << 10, Block: 4 << 10})
	if err != nil {
		p.t.Fatal(err)
	}
	if meta != nil {
		if err := s.Update(meta); err != nil {
			p.t.Fatal(err)
		}
	}
	p.store, p.follower = s, NewFollower(IdentityOf(s.Meta()), peerSize, s.New(), 0)
	p.m = NewMachine(MachineConfig{Members: SetOf(0, 1), Size: peerSize, Block: 4 << 10, Region: 64 << 10})
	p.m.Step(Event{Kind: EvCommitted, Conf: Configuration{Epoch: 5, InSync: SetOf(0)}, Own: &Promotion{State: ReplicaState{Complete: true}}})
	p.m.Step(Event{Kind: EvFinished})
}

// connect makes both ends, and has the primary say hello.
func (p *pair) connect(hello wire.Hello, epoch uint64) {
	p.peer = NewPeer(1, epoch, p.m.conf)
	p.applier = NewApplier(p.follower, &p.mu, p.store, func() time.Duration { return p.now }, p.back)
	h, payload := p.decode(p.peer.AppendHello(nil, &hello))
	p.show("->", h, payload)
	if err := p.applier.Greet(&h, payload); err != nil {
		fmt.Fprintf(&p.out, "refused: %v\n", err)
	}
}

// decode takes the first frame off b.
func (p *pair) decode(b []byte) (h wire.Header, payload []byte) {
	if err := h.Decode(b); err != nil {
		p.t.Fatal(err)
	}
	return h, b[wire.HeaderSize:][:h.Payload]
}

// back is a frame from the replica.
func (p *pair) back(h wire.Header, payload []byte) error {
	h.Payload, h.CRC = uint32(len(payload)), wire.Checksum(payload)
	p.show("<-", h, payload)
	a, err := p.peer.Handle(&h, payload)
	switch {
	case err != nil:
		fmt.Fprintf(&p.out, "! %v\n", err)
	case a.Comparison != nil:
		fmt.Fprintf(&p.out, "! sum of %d+%d answered\n", a.Comparison.Copy.Off, a.Comparison.Copy.Len)
	case a.Told:
		p.tell(a.Event)
	}
	return nil
}

func (p *pair) tell(ev Event) {
	switch ev.Kind {
	case EvUp:
		fmt.Fprintf(&p.out, "! up: complete %v, lossy %v, known %v, written %v", ev.State.Complete, ev.State.Lossy, ev.State.Known, ev.State.Written)
		if ev.State.Intents != nil {
			fmt.Fprintf(&p.out, ", intents %v", rangesOf(ev.State.Intents))
		}
		p.out.WriteString("\n")
	case EvAcked:
		fmt.Fprintf(&p.out, "! acked: applied %d, durable %d\n", ev.Applied, ev.Durable)
	case EvCopied:
		fmt.Fprintf(&p.out, "! copied %d+%d\n", ev.Copy.Off, ev.Copy.Len)
	case EvFinished:
		p.out.WriteString("! finished\n")
	case EvLease:
		fmt.Fprintf(&p.out, "! lease from %v\n", ev.SentAt)
	default:
		fmt.Fprintf(&p.out, "! event %d\n", ev.Kind)
	}
}

func (p *pair) show(arrow string, h wire.Header, payload []byte) {
	fmt.Fprintf(&p.out, "%s %v epoch=%d seq=%d watermark=%d", arrow, h.Kind, h.Epoch, h.Seq, h.Watermark)
	if h.Length > 0 {
		fmt.Fprintf(&p.out, " %d+%d", h.Offset, h.Length)
	}
	for bit, name := range []string{"durable", "no-hole", "zero", "more", "learner", "complete"} {
		if h.Flags&(1<<bit) != 0 {
			fmt.Fprintf(&p.out, " %s", name)
		}
	}
	if len(payload) > 0 {
		fmt.Fprintf(&p.out, " (%d bytes)", len(payload))
	}
	p.out.WriteString("\n")
}

// forward has the replica handle frames.
func (p *pair) forward(b []byte) {
	for len(b) > 0 {
		h, payload := p.decode(b)
		b = b[wire.HeaderSize+len(payload):]
		p.show("->", h, payload)
		if err := p.applier.Handle(&h, payload); err != nil {
			fmt.Fprintf(&p.out, "broken: %v\n", err)
			return
		}
	}
	if err := p.applier.Acknowledge(); err != nil {
		p.t.Fatal(err)
	}
}

func (p *pair) run(d *datadriven.TestData) {
	switch d.Cmd {
	case "replica":
		var meta func(*store.Meta)
		if !d.HasArg("new") {
			meta = func(m *store.Meta) {
				m.Volume, m.Epoch, m.Complete, m.Lossy = volumeA, 4, !d.HasArg("lossy"), d.HasArg("lossy")
			}
		}
		p.newReplica(meta)
	case "connect":
		hello, epoch := wire.Hello{Size: peerSize, ID: volumeA, Session: reignOne, Volume: "vol", Fresh: d.HasArg("fresh")}, uint64(5)
		d.MaybeScanArgs(p.t, "epoch", &epoch)
		if d.HasArg("again") {
			hello.Session = reignTwo
		}
		p.connect(hello, epoch)
	case "sync":
		if p.applier.Wanted() > 0 {
			if err := p.applier.Sync(); err != nil {
				p.t.Fatal(err)
			}
		}
	case "state":
		id := p.follower.Identity()
		meta := p.store.Meta()
		fmt.Fprintf(&p.out, "epoch %d, complete %v, lossy %v; on disk epoch %d, complete %v, lossy %v; origins %v\n",
			id.Epoch, id.Complete, id.Lossy, meta.Epoch, meta.Complete, meta.Lossy, all(p.follower.Origins()))
	case "write", "flush":
		p.write(d)
	default:
		p.forward(p.frame(d))
	}
}

// write sends an op as a machine gives it a number.
func (p *pair) write(d *datadriven.TestData) {
	op := &Op{Kind: Flush, FUA: d.HasArg("fua")}
	if d.Cmd == "write" {
		r := p.rangeArg(d)
		op.Kind, op.Off, op.Len, op.Data = Write, r.Off, r.Len, bytes.Repeat([]byte{1}, int(r.Len))
	}
	var number uint64
	if d.MaybeScanArgs(p.t, "from", &number) {
		op.Origin = &Origin{Session: 7, Number: number, Lowest: 1}
	}
	p.m.Step(Event{Kind: EvSubmit, Op: op})
	p.forward(p.peer.AppendAction(nil, Action{Kind: ActSend, Op: op}, p.m))
	p.m.Step(Event{Kind: EvApplied, Op: op})
	p.m.Step(Event{Kind: EvSynced, Op: op})
}

func (p *pair) frame(d *datadriven.TestData) []byte {
	switch d.Cmd {
	case "configure":
		a := Action{Kind: ActConfigure, Conf: Configuration{Epoch: 5}, Learner: d.HasArg("learner")}
		d.MaybeScanArgs(p.t, "epoch", &a.Conf.Epoch)
		return p.peer.AppendAction(nil, a, p.m)
	case "finish":
		return p.peer.AppendAction(nil, Action{Kind: ActFinish}, p.m)
	case "origins":
		o := p.m.origins.Clone()
		return p.peer.AppendAction(nil, Action{Kind: ActOrigins, Origins: &o}, p.m)
	case "heartbeat":
		p.now += time.Second
		return p.peer.AppendHeartbeat(nil, p.now)
	case "copy":
		c := &Copy{Kind: Data, Range: p.rangeArg(d)}
		data := bytes.Repeat([]byte{2}, int(c.Len))
		if d.HasArg("zero") {
			data = nil
		}
		p.m.members[1].standing = absent
		if d.HasArg("learner") {
			p.m.members[1].standing = learner
		}
		return p.peer.AppendCopy(nil, c, data, p.m)
	case "sum":
		c := NewComparison(&Copy{Kind: Compare, Range: p.rangeArg(d)})
		h := wire.Header{Kind: wire.KindSum, Offset: uint64(c.Copy.Off), Length: uint32(c.Copy.Len)}
		if d.HasArg("zero") {
			h.Flags = wire.Zero
		}
		return p.peer.AppendSum(nil, c, h)
	}
	p.t.Fatalf("%s: unknown command %q", d.Pos, d.Cmd)
	return nil
}

func (p *pair) rangeArg(d *datadriven.TestData) (r Range) {
	if _, err := fmt.Sscanf(d.CmdArgs[0].Key, "%d+%d", &r.Off, &r.Len); err != nil {
		p.t.Fatalf("%s: %v", d.Pos, err)
	}
	return r
}

// frames reads b as frames that a peer of this version could have sent: what is in
// them is arbitrary, their checksums are right.
func frames(b []byte, payload []byte, handle func(*wire.Header, []byte)) {
	const each = 16
	for ; len(b) >= each; b = b[each:] {
		h := wire.Header{
			Kind: wire.Kind(b[0]), Flags: wire.Flags(b[1]), Epoch: uint64(b[2]), Seq: uint64(b[3]),
			Watermark: uint64(int8(b[4])), Offset: uint64(binary.BigEndian.Uint32(b[5:])), Length: binary.BigEndian.Uint32(b[9:]),
		}
		data := payload[:min(len(payload), int(b[13]))]
		if h.Kind == wire.KindWrite || h.Kind == wire.KindCopy && h.Flags&wire.Zero == 0 {
			h.Length = uint32(len(data))
		}
		h.Payload, h.CRC = uint32(len(data)), wire.Checksum(data)
		var header [wire.HeaderSize]byte
		h.Encode(header[:])
		if h.Decode(header[:]) == nil {
			handle(&h, data)
		}
	}
}

// FuzzApplier: whatever a primary sends, a replica breaks the connection at worst. It
// acknowledges no seq that it was not sent.
func FuzzApplier(f *testing.F) {
	for kind := wire.KindHello; kind <= wire.KindRetire; kind++ {
		f.Add([]byte{byte(kind), 0, 5, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 48, 0, 0}, bytes.Repeat([]byte{1}, 96))
		f.Add([]byte{byte(kind), 63, 5, 1, 0, 0, 16, 0, 0, 255, 255, 255, 255, 16, 0, 0}, bytes.Repeat([]byte{0}, 96))
	}
	f.Fuzz(func(t *testing.T, b, payload []byte) {
		p := &pair{t: t}
		p.newReplica(nil)
		p.connect(wire.Hello{Size: peerSize, ID: volumeA, Session: reignOne}, 5)
		var sent uint64
		frames(b, payload, func(h *wire.Header, data []byte) {
			if h.Kind == wire.KindHello {
				return
			}
			sent = max(sent, h.Seq)
			if p.applier.Handle(h, data) != nil {
				return // a real connection would be over; this one goes on and finds more
			}
			if ack := p.applier.acknowledgement(); ack.Seq > sent {
				t.Errorf("acknowledges %d, was sent at most %d", ack.Seq, sent)
			}
		})
		if p.applier.Wanted() > 0 {
			if err := p.applier.Sync(); err != nil {
				t.Error(err)
			}
		}
		if ack := p.applier.acknowledgement(); ack.Watermark > ack.Seq {
			t.Errorf("durable %d is above applied %d", ack.Watermark, ack.Seq)
		}
	})
}

// FuzzPeer: whatever a replica says, what the machine is told lies in the volume, and
// nothing is answered that was not asked.
func FuzzPeer(f *testing.F) {
	welcome := (&wire.Welcome{Size: peerSize, Known: true, Remembers: true}).Append(nil)
	for kind := wire.KindWelcome; kind <= wire.KindRanges; kind++ {
		f.Add([]byte{2, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 40, 0, 0, byte(kind), 0, 5, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, welcome)
	}
	f.Fuzz(func(t *testing.T, b, payload []byte) {
		m := NewMachine(MachineConfig{Members: SetOf(0, 1), Size: peerSize, Block: 4 << 10, Region: 64 << 10})
		p := NewPeer(1, 5, m.conf)
		c := &Copy{Kind: Data, Range: Range{0, 4096}}
		p.AppendCopy(nil, c, nil, m)
		p.AppendSum(nil, NewComparison(&Copy{Kind: Compare, Range: Range{0, 4096}}), wire.Header{Kind: wire.KindSum, Length: 4096})
		answered := 0
		frames(b, payload, func(h *wire.Header, data []byte) {
			a, err := p.Handle(h, data)
			switch {
			case err != nil && a.Told:
				t.Errorf("an error (%v) and an event", err)
			case err != nil:
				return
			case a.Comparison != nil, a.Told && a.Event.Kind == EvCopied:
				answered++
			case a.Told && a.Event.Kind == EvUp:
				for _, r := range a.Event.State.Written {
					if r.Off < 0 || r.Len < 0 || r.end() > peerSize {
						t.Errorf("told of %v, outside the volume", r)
					}
				}
			case a.Told && (a.Event.Kind == EvLease || a.Event.Kind == EvFinished):
				t.Errorf("told of event %d, which was not asked for", a.Event.Kind)
			}
		})
		if answered > 2 {
			t.Errorf("two requests, %d answers", answered)
		}
	})
}

func TestPeerNamesWhyItIsRefused(t *testing.T) {
	p := NewPeer(1, 5, MachineConfig{Size: peerSize, Region: 64 << 10})
	text := []byte("it holds another volume")
	h := wire.Header{Kind: wire.KindRefuse, Payload: uint32(len(text)), CRC: wire.Checksum(text)}
	if _, err := p.Handle(&h, text); !errors.Is(err, errRefused) || !strings.Contains(err.Error(), string(text)) {
		t.Errorf("refused: %v", err)
	}
}
