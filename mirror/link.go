package mirror

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"lockstep/mirror/wire"
)

// link is the primary's side of one replica's connection: it connects, makes
// the replica equal, keeps it so, and begins again when the connection ends.
//
//	connecting --welcome--> priming --> comparing --equal--> up
//	    ^                      |            |                 |
//	    +------- error, after a pause that doubles -----------+
//
// Comparing is skipped when the same run of the replica comes back to the same
// run of the primary: then it misses only what it has not acknowledged.
type link struct {
	v    *Volume
	id   ReplicaID
	addr string

	mu    sync.Mutex
	out   *outbox // nil while down
	err   error   // why it is down
	known bool    // it was in sync before; likewise
	equal bool    // this run of the replica was made equal; only run's goroutine uses it
}

const (
	minPause = 20 * time.Millisecond
	maxPause = time.Second
)

func newLink(v *Volume, id ReplicaID, addr string) *link {
	return &link{v: v, id: id, addr: addr, err: errors.New("not connected yet")}
}

func (l *link) lastError() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

func (l *link) setError(err error) {
	l.mu.Lock()
	l.err = err
	l.mu.Unlock()
}

// queue takes frames while the link is up. The volume's lock is held, so the
// order of calls is the order of seqs.
func (l *link) queue(frames []frame) {
	l.mu.Lock()
	if l.out != nil {
		l.out.put(frames...)
	}
	l.mu.Unlock()
}

func (l *link) kick() {
	l.mu.Lock()
	out := l.out
	l.mu.Unlock()
	if out != nil {
		out.kick()
	}
}

// run keeps the replica connected until ctx ends.
func (l *link) run(ctx context.Context) {
	pause := minPause
	for ctx.Err() == nil {
		began := time.Now()
		err := l.connection(ctx)
		if ctx.Err() != nil {
			return
		}
		if last := l.lastError(); last == nil || last.Error() != err.Error() {
			l.v.conf.Log.Warn("replica is not in sync; writes wait for it", "replica", l.addr, "err", err)
		}
		l.setError(err)
		if time.Since(began) > maxPause {
			pause = minPause
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, maxPause)
	}
}

// connection makes one connection and lives it to its end; the error says why
// it ended.
func (l *link) connection(ctx context.Context) error {
	conf := &l.v.conf
	conn, err := dial(ctx, l.addr, conf.Congestion, conf.Timeout)
	if err == nil && conf.Wrap != nil {
		conn, err = conf.Wrap(conn)
	}
	if err != nil {
		return l.fail("connect", err, "is `lockstep replica` running there, and is the path up?")
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	fc := newFrameConn(conn, firstEpoch)
	same, err := l.greet(fc)
	if err != nil {
		return l.fail("connect", err, "")
	}
	if !same {
		l.equal = false // also for the next connection, should this one end half-way
	}
	if !l.equal { // else writes are waiting that need no more than to be sent
		if err := l.prime(fc); err != nil {
			return l.fail("prime", err, "")
		}
		l.v.tell(Event{Kind: EvCompare, Replica: l.id})
		if err := l.makeEqual(ctx, fc); err != nil {
			return l.fail("compare", err, "it is compared again from the start when it is back")
		}
	}
	return l.mirror(ctx, conn)
}

func (l *link) fail(op string, err error, hint string) error {
	return &OpError{Op: op, Volume: l.v.conf.Volume, Replica: l.addr, Epoch: firstEpoch, Err: err, Hint: hint}
}

// greet says hello. It returns whether the replica is in the same run as when
// this primary last wrote to it.
func (l *link) greet(fc *frameConn) (same bool, err error) {
	if err := fc.conn.SetDeadline(time.Now().Add(2 * l.v.conf.Timeout)); err != nil {
		return false, err
	}
	hello := wire.Hello{Size: uint64(l.v.conf.Store.Size()), Session: l.v.session, Volume: l.v.conf.Volume}
	if err := fc.write(wire.Header{Kind: wire.KindHello}, hello.Append(nil)); err != nil {
		return false, err
	}
	_, payload, err := fc.expect(wire.KindWelcome)
	if err != nil {
		return false, err
	}
	var welcome wire.Welcome
	if err := welcome.Decode(payload); err != nil {
		return false, err
	}
	if welcome.Size != hello.Size {
		return false, fmt.Errorf("its store has %d bytes, the volume has %d; start it with the same --size", welcome.Size, hello.Size)
	}
	return welcome.Session == l.v.session, fc.conn.SetDeadline(time.Time{})
}

// mirror lets writes flow until the connection ends.
func (l *link) mirror(ctx context.Context, conn net.Conn) error {
	sock, err := newSocket(conn)
	if err != nil {
		return l.fail("connect", err, "")
	}
	var once sync.Once
	var cause error
	end := func(err error) {
		once.Do(func() { cause = err; conn.Close() })
	}
	out := newOutbox(sock, end)
	l.mu.Lock()
	l.out, l.err = out, nil
	l.mu.Unlock()
	l.equal, l.known = true, true
	l.v.conf.Log.Info("replica is in sync", "replica", l.addr)
	l.v.turn(Event{Kind: EvUp, Replica: l.id})

	pinging, stopPings := context.WithCancel(ctx)
	var pings sync.WaitGroup
	pings.Go(func() { l.ping(pinging, out) })

	end(l.receive(sock))
	l.v.turn(Event{Kind: EvDown, Replica: l.id})
	l.mu.Lock()
	l.out = nil
	l.mu.Unlock()
	stopPings()
	pings.Wait()
	out.close()
	return l.fail("mirror", cause, "it is sent what it missed when it is back")
}

// turn is tell for a replica that came or went: it also wakes those who wait
// for that.
func (v *Volume) turn(ev Event) {
	v.tell(ev)
	v.mu.Lock()
	close(v.changed)
	v.changed = make(chan struct{})
	v.mu.Unlock()
}

// ping keeps bytes in flight, so that the kernel notices a dead path
// (TCP_USER_TIMEOUT) even when no writes flow.
func (l *link) ping(ctx context.Context, out *outbox) {
	h := wire.Header{Kind: wire.KindPing, Epoch: firstEpoch}
	b := make([]byte, wire.HeaderSize)
	h.Encode(b)
	tick := time.NewTicker(l.v.conf.Timeout / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			out.put(frame{header: b})
			out.kick()
		}
	}
}

// receive takes acknowledgements until the connection ends. All that came in
// one piece count as one: they are cumulative.
func (l *link) receive(sock *socket) error {
	buf := make([]byte, 64<<10)
	have := 0
	for {
		n, err := sock.recv(buf[have:])
		if err != nil {
			return err
		}
		have += n
		used, ack, err := parseAcks(buf[:have])
		if err != nil {
			return err
		}
		have = copy(buf, buf[used:have])
		if ack.Kind == wire.KindAck {
			l.v.tell(Event{Kind: EvAcked, Replica: l.id, Applied: ack.Seq, Durable: ack.Watermark})
		}
	}
}

// parseAcks reads the whole frames in b. It returns how many bytes they take
// and, if there was an ack, the last one.
func parseAcks(b []byte) (used int, last wire.Header, err error) {
	for len(b)-used >= wire.HeaderSize {
		var h wire.Header
		if err := h.Decode(b[used:]); err != nil {
			return used, last, err
		}
		if len(b)-used < wire.HeaderSize+int(h.Payload) && h.Payload <= maxText {
			break
		}
		switch {
		case h.Kind == wire.KindAck && h.Payload == 0:
			last = h
		case h.Kind == wire.KindPong && h.Payload == 0:
		case h.Kind == wire.KindFailed && h.Payload <= maxText:
			text := b[used+wire.HeaderSize:][:h.Payload]
			return used, last, fmt.Errorf("the replica's store failed: %s", text)
		default:
			return used, last, fmt.Errorf("%w: %v frame with %d bytes of payload from a replica in sync", wire.ErrCorrupt, h.Kind, h.Payload)
		}
		used += wire.HeaderSize + int(h.Payload)
	}
	return used, last, nil
}
