package sim

import (
	"math/rand/v2"
	"time"
)

// place is who can send and receive: the nodes from 0 on, then the witness, then the
// clients.
type place int

// path is one direction between two places.
type path struct {
	delay   time.Duration // one way, the least
	jitter  time.Duration // at most that much more
	slow    time.Duration // more, by a fault
	cut     bool          // nothing arrives until it is healed
	corrupt bool          // the next bytes of a stream arrive with one of them changed
	loss    float64       // of datagrams; as many again arrive twice
}

// network carries datagrams, which may be lost, doubled and overtaken, and
// streams of bytes, which may be late, or break.
type network struct {
	c       *cluster
	rand    *rand.Rand
	paths   [][]path
	streams []*stream
	dials   int
}

func newNetwork(c *cluster, places int, rand *rand.Rand) *network {
	n := &network{c: c, rand: rand, paths: make([][]path, places)}
	for i := range n.paths {
		n.paths[i] = make([]path, places)
	}
	return n
}

func (n *network) path(from, to place) *path { return &n.paths[from][to] }

func (n *network) delayOf(p *path) time.Duration {
	d := p.delay + p.slow
	if p.jitter > 0 {
		d += time.Duration(n.rand.Int64N(int64(p.jitter)))
	}
	return d
}

// datagram lets deliver happen at the receiver, later, twice, or never.
func (n *network) datagram(from, to place, deliver func()) {
	p := n.path(from, to)
	switch {
	case p.cut || n.rand.Float64() < p.loss:
		return
	case n.rand.Float64() < p.loss:
		n.arrive(p, to, deliver)
	}
	n.arrive(p, to, deliver)
}

func (n *network) arrive(p *path, to place, deliver func()) {
	n.c.after(n.delayOf(p), func() {
		if p.cut {
			return
		}
		switch {
		case int(to) < len(n.c.nodes):
			n.c.nodes[to].run(deliver)
		case to == n.c.witness.at:
			n.c.witness.run(deliver)
		default:
			deliver() // a client's machine
		}
	})
}

// end is one end of a connection, held by the process at its place.
type end struct {
	name    int // of the connection
	peer    *end
	out     *stream
	receive func([]byte)
	ended   func() // the other end closed
	closed  bool
}

// stream is one direction of a connection: bytes in order, each after a delay.
type stream struct {
	net      *network
	path     *path
	to       place
	end      *end // the receiver's
	queue    []chunk
	stuck    time.Duration // nothing arrives before
	arrived  bool          // anything did
	accepted bool
}

type chunk struct {
	made, at time.Duration
	bytes    []byte
	fin      bool
}

// dial connects a node to another, whose accept gets the other end with the
// first bytes that arrive.
func (n *network) dial(from, to place) *end {
	n.dials++
	a, b := &end{name: n.dials}, &end{name: n.dials}
	a.peer, b.peer = b, a
	a.out = &stream{net: n, path: n.path(from, to), to: to, end: b}
	b.out = &stream{net: n, path: n.path(to, from), to: from, end: a, accepted: true}
	n.streams = append(n.streams, a.out, b.out)
	return a
}

// send queues bytes; what is sent at one moment travels together.
func (e *end) send(b []byte) {
	if e.closed || len(b) == 0 {
		return
	}
	s := e.out
	if i := len(s.queue) - 1; i >= 0 && s.queue[i].made == s.net.c.now && !s.queue[i].fin {
		s.queue[i].bytes = append(s.queue[i].bytes, b...)
		return
	}
	s.put(chunk{bytes: append([]byte(nil), b...)})
}

func (s *stream) put(c chunk) {
	now := s.net.c.now
	c.made, c.at = now, max(now+s.net.delayOf(s.path), s.stuck)
	if i := len(s.queue) - 1; i >= 0 {
		c.at = max(c.at, s.queue[i].at)
	}
	s.queue = append(s.queue, c)
	s.net.c.at(c.at, s.pump)
}

// close ends the connection in good order: the other end learns of it behind the
// bytes that are on their way. One that was never established is mostly forgotten.
func (e *end) close() {
	if e.closed {
		return
	}
	e.closed = true
	if s := e.out; !s.accepted && !s.arrived && s.path.cut && s.net.rand.IntN(8) > 0 {
		s.queue = nil
		return
	}
	e.out.put(chunk{fin: true})
}

// vanish ends the connection without a word, as a power cut does: what is on its way
// arrives up to where something is lost, because nobody sends that again.
func (e *end) vanish() {
	e.closed = true
	if s := e.out; len(s.queue) > 0 && s.net.rand.IntN(2) == 0 {
		s.tear(s.net.rand.IntN(len(s.queue)))
	}
}

// tear loses what is queued from somewhere in a chunk on.
func (s *stream) tear(i int) {
	s.queue = s.queue[:i+1]
	c := &s.queue[i]
	c.bytes, c.fin = c.bytes[:s.net.rand.IntN(len(c.bytes)+1)], false
}

// pump delivers what is due.
func (s *stream) pump() {
	for len(s.queue) > 0 && !s.path.cut {
		c := s.queue[0]
		if now := s.net.c.now; c.at > now || s.stuck > now {
			return
		}
		s.queue = s.queue[1:]
		s.arrived = true
		if s.path.corrupt && len(c.bytes) > 0 {
			s.path.corrupt = false
			c.bytes[s.net.rand.IntN(len(c.bytes))] ^= 1 << s.net.rand.IntN(8)
		}
		s.net.c.nodes[s.to].run(func() { s.deliver(c) })
	}
}

func (s *stream) deliver(c chunk) {
	if !s.accepted {
		s.accepted = true
		s.net.c.nodes[s.to].accept(s.end)
	}
	switch e := s.end; {
	case e.closed:
	case !c.fin:
		e.receive(c.bytes)
	case e.ended != nil:
		e.ended()
	}
}

// reset breaks the connections between two places: of what was on its way, the
// rest is lost from somewhere on.
func (n *network) reset(a, b place) {
	for _, s := range append([]*stream(nil), n.streams...) {
		if s.path != n.path(a, b) && s.path != n.path(b, a) {
			continue
		}
		e, queue := s.end, s.queue
		if len(queue) > 0 {
			s.tear(n.rand.IntN(len(queue)))
			queue = s.queue
		}
		s.queue = nil
		n.c.nodes[s.to].run(func() {
			for _, c := range queue {
				s.deliver(c)
			}
			if !e.closed && e.ended != nil {
				e.ended()
			}
		})
	}
}

// heal ends a cut: what was held up arrives within a while, each connection's in
// its order.
func (n *network) heal(from, to place) {
	p := n.path(from, to)
	p.cut, p.slow = false, 0
	live := n.streams[:0]
	for _, s := range n.streams {
		if s.end.closed && s.end.peer.closed && len(s.queue) == 0 {
			continue
		}
		live = append(live, s)
		if s.path == p && len(s.queue) > 0 {
			s.stuck = n.c.now + time.Duration(n.rand.Int64N(int64(200*time.Millisecond)))
			n.c.at(s.stuck, s.pump)
		}
	}
	clear(n.streams[len(live):])
	n.streams = live
}
