package mirror

import (
	"fmt"
	"time"

	"lockstep/mirror/wire"
)

// maxAnswer bounds the payload of a frame from a replica, in bytes.
const maxAnswer = 4 << 10

// receive takes what the replica says until the connection ends. All
// acknowledgements that came in one piece count as one: they are cumulative.
func (l *link) receive(sock *socket) error {
	buf := make([]byte, 64<<10)
	have := 0
	for {
		n, err := sock.recv(buf[have:])
		if err != nil {
			return err
		}
		l.heard.Store(int64(time.Since(started)))
		have += n
		used, ack, err := l.parse(buf[:have])
		if err != nil {
			return err
		}
		have = copy(buf, buf[used:have])
		if ack.Kind == wire.KindAck {
			l.v.tell(Event{Kind: EvAcked, Replica: l.id, Applied: ack.Seq, Durable: ack.Watermark})
		}
	}
}

// parse handles the whole frames in b. It returns how many bytes they take and,
// if there was an ack, the last one, which is still to be told.
func (l *link) parse(b []byte) (used int, last wire.Header, err error) {
	for len(b)-used >= wire.HeaderSize {
		var h wire.Header
		if err := h.Decode(b[used:]); err != nil {
			return used, last, err
		}
		if h.Payload > maxAnswer {
			return used, last, fmt.Errorf("%w: %v frame with %d bytes of payload from a replica", wire.ErrCorrupt, h.Kind, h.Payload)
		}
		rest := b[used+wire.HeaderSize:]
		if len(rest) < int(h.Payload) {
			break
		}
		used += wire.HeaderSize + int(h.Payload)
		if h.Kind == wire.KindAck {
			last = newer(last, h)
			continue
		}
		if last.Kind == wire.KindAck { // events keep the order of the frames
			l.v.tell(Event{Kind: EvAcked, Replica: l.id, Applied: last.Seq, Durable: last.Watermark})
			last = wire.Header{}
		}
		if err := l.handle(&h, rest[:h.Payload]); err != nil {
			return used, last, err
		}
	}
	return used, last, nil
}

// newer joins two acks: a sync and what came meanwhile are acknowledged by two
// goroutines of the replica, so the later one may know less.
func newer(a, b wire.Header) wire.Header {
	b.Seq, b.Watermark = max(a.Seq, b.Seq), max(a.Watermark, b.Watermark)
	return b
}

// handle takes in a frame that is no ack.
func (l *link) handle(h *wire.Header, payload []byte) error {
	l.v.mu.Lock()
	p := l.peer
	a, err := p.Handle(h, payload)
	if a.Event.Kind == EvCopied && a.Told {
		l.release(a.Event.Copy)
	}
	l.v.mu.Unlock()
	switch {
	case err != nil:
		return err
	case a.Comparison != nil:
		l.v.running.Go(func() { l.goOn(p, a.Comparison, true) })
	case a.Event.Kind == EvLease:
		l.rtt.Store(int64(now() - a.Event.SentAt))
		if l.v.machine.conf.Lease > 0 {
			l.v.tell(a.Event)
		}
	case a.Told:
		a.Event.Now = now()
		l.v.turn(a.Event)
	}
	return nil
}

// prime fills the connection's pipe before anything waits for it: TCP starts
// slowly, and a first large write would pay a round trip for each doubling of
// the congestion window. Pings that carry 1 MiB are sent until they stop getting
// faster. On a path where one takes long anyway, few are sent.
func (l *link) prime(fc *frameConn) error {
	pad := make([]byte, wire.MaxPayload)
	best := time.Duration(1<<63 - 1)
	stale := 0
	for began := time.Now(); stale < 2 && time.Since(began) < 4*l.v.conf.Timeout; {
		start := time.Now()
		if err := fc.conn.SetDeadline(start.Add(4 * l.v.conf.Timeout)); err != nil {
			return err
		}
		for range primeSize / len(pad) {
			if err := fc.write(wire.Header{Kind: wire.KindPing}, pad); err != nil {
				return err
			}
		}
		for range primeSize / len(pad) {
			if _, _, err := fc.expect(wire.KindPong); err != nil {
				return err
			}
		}
		took := time.Since(start)
		if took > best*9/10 {
			stale++
		} else {
			stale = 0
		}
		best = min(best, took)
	}
	return fc.conn.SetDeadline(time.Time{})
}

// primeSize is how much a link must carry at full speed before it counts as
// primed, in bytes.
const primeSize = 4 << 20
