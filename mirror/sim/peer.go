package sim

import (
	"time"

	"lockstep/mirror"
	"lockstep/mirror/wire"
)

// peer is a connection to a replica, from the primary's side.
type peer struct {
	l     *lead
	id    mirror.ReplicaID
	end   *end
	in    frames
	p     *mirror.Peer
	up    bool
	over  bool
	heard time.Duration // when anything last came, on the node's clock
	mark  uint64        // the last checkpoint that began on this connection
}

// peerTimeout is how long a connection may be silent. It is longer than a lease,
// so that the machine's rules, not this, keep reads from being stale.
const peerTimeout = 700 * time.Millisecond

// connect connects to a member that is not connected, and ends a connection that
// is dead.
func (l *lead) connect(id mirror.ReplicaID) {
	now := l.n.now()
	p := l.peers[id]
	switch {
	case id == l.n.id:
		return
	case p != nil && now-p.heard > peerTimeout:
		p.fail("it is silent")
		return
	case p != nil || now < l.retry[id]:
		return
	}
	epoch := l.m.Configuration().Epoch
	p = &peer{l: l, id: id, heard: now, end: l.n.c.net.dial(l.n.place(), place(id)), p: mirror.NewPeer(id, epoch, l.conf)}
	p.end.receive, p.end.ended = p.received, func() { p.fail("it closed") }
	l.peers[id] = p
	p.end.send(p.p.AppendHello(nil, &wire.Hello{Size: volumeSize, Session: l.session, ID: l.n.c.volume, Fresh: l.fresh, Volume: "sim"}))
}

func (p *peer) received(b []byte) {
	p.heard = p.l.n.now()
	p.in.add(b)
	for !p.over {
		h, payload, whole, err := p.in.next()
		if err == nil && !whole {
			return
		}
		if err == nil {
			err = p.handle(&h, payload)
		}
		if err != nil {
			p.fail(err.Error())
		}
	}
}

func (p *peer) handle(h *wire.Header, payload []byte) error {
	if p.l.n.c.out != nil {
		p.l.n.trace("from member %d, connection %d: %v %x seq %d watermark %d", p.id, p.end.name, h.Kind, uint8(h.Flags), h.Seq, h.Watermark)
	}
	a, err := p.p.Handle(h, payload)
	switch {
	case err != nil:
		return err
	case a.Comparison != nil:
		p.l.after(p.l.n.diskTime(), func() {
			if !p.over {
				p.compare(a.Comparison, true)
			}
		})
	case a.Told && a.Event.Kind == mirror.EvUp:
		p.welcome(a.Event)
	case a.Told:
		p.l.step(a.Event)
	}
	return nil
}

// welcome takes a replica in, which counts as known only if it is the store that
// it was.
func (p *peer) welcome(ev mirror.Event) {
	w := p.p.Welcome()
	ev.State.Known = ev.State.Known && p.l.ids[p.id] == w.Replica
	p.l.ids[p.id] = w.Replica
	p.up = true
	p.l.n.trace("member %d is up: complete %v, lossy %v, known %v, remembers %v, wrote %v", p.id, w.Complete, w.Lossy, ev.State.Known, w.Remembers, ev.State.Written)
	p.l.step(ev)
}

// fail ends the connection.
func (p *peer) fail(why string) {
	if p.over {
		return
	}
	p.over = true
	p.l.n.trace("ends connection %d to member %d: %s", p.end.name, p.id, why)
	p.end.close()
	l := p.l
	l.peers[p.id] = nil
	l.retry[p.id] = l.n.now() + l.n.between(20*time.Millisecond, 250*time.Millisecond)
	if p.up {
		l.step(mirror.Event{Kind: mirror.EvDown, Replica: p.id})
	}
}

// copy reads a range and puts it in line for a replica, at once or after a while,
// unless the copy is over by then.
func (l *lead) copy(c *mirror.Copy) {
	data, err := mirror.ReadCopy(l.n.store, c, make([]byte, c.Len))
	queue := func() {
		p := l.peers[c.Replica]
		if p == nil || c.Over() {
			return
		}
		if err == nil {
			p.end.send(p.p.AppendCopy(nil, c, data, l.m))
		}
		l.step(mirror.Event{Kind: mirror.EvQueued, Copy: c, Err: err})
	}
	if l.n.rand.IntN(2) == 0 {
		queue()
		return
	}
	l.after(l.n.diskTime(), queue)
}

// compare begins a comparison.
func (l *lead) compare(c *mirror.Copy) {
	if p := l.peers[c.Replica]; p != nil {
		p.compare(mirror.NewComparison(c), false)
	}
}

// compare goes on with a comparison; answered says that an answer is there.
func (p *peer) compare(c *mirror.Comparison, answered bool) {
	var err error
	if answered {
		err = c.Check(p.l.n.store)
	}
	var sum wire.Header
	more := false
	if err == nil {
		sum, more, err = c.Next(p.l.n.store)
	}
	if more && err == nil {
		p.end.send(p.p.AppendSum(nil, c, sum))
		return
	}
	p.l.step(mirror.Event{Kind: mirror.EvCompared, Copy: c.Copy, Err: err})
}
