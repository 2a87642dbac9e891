package mirror

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"lockstep/mirror/wire"
)

// link is the primary's side of one replica's connection: it connects, lets the
// machine have what the replica says, sends what the machine asks for, and begins
// again when the connection ends.
//
//	connecting --welcome, ranges--> priming --> up
//	    ^                              |         |
//	    +--- error, after a pause that doubles --+
//
// A replica that writes wait for is not primed.
type link struct {
	v    *Volume
	id   ReplicaID
	addr string

	peer    *Peer            // nil while down; guarded by v.mu, as is what it does
	buffers map[*Copy][]byte // of copies on their way; likewise

	mu  sync.Mutex
	out *outbox // nil while down; changed under v.mu too
	err error   // why it is down

	heard    atomic.Int64 // when the replica last said something, since started
	rtt      atomic.Int64 // of the last heartbeat, ns
	copied   atomic.Int64 // bytes that resync sent, holes not counted
	compared atomic.Int64 // bytes that were read to be compared
}

const (
	minPause = 20 * time.Millisecond
	maxPause = time.Second
)

func newLink(v *Volume, id ReplicaID, addr string) *link {
	return &link{v: v, id: id, addr: addr, err: errors.New("not connected yet"), buffers: map[*Copy][]byte{}}
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

// queueOp puts an op in line while the link is up. The volume's lock is held, so
// the order of calls is the order of seqs. What a learner is sent may be complete
// before it is gone, and its memory the client's again: that is copied.
func (l *link) queueOp(a Action) {
	if l.out == nil {
		return
	}
	frames := l.peer.frames(a, l.v.machine)
	if l.v.machine.members[l.id].standing == learner {
		frames = cloned(frames)
	}
	l.out.put(frames...)
}

func cloned(frames []frame) []frame {
	size := 0
	for _, f := range frames {
		size += len(f.header) + len(f.payload)
	}
	return []frame{{header: appendFrames(make([]byte, 0, size), frames)}}
}

// queueAction is queueOp for what is no op's.
func (l *link) queueAction(a Action) {
	if l.out != nil {
		l.out.put(l.peer.frames(a, l.v.machine)...)
	}
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
			l.v.conf.Log.Warn("replica is lost", "replica", l.addr, "err", err)
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
		return l.fail("connect", err, "is `lockstep replica`, or the node, running there, and is the path up?")
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	p := NewPeer(l.id, l.v.epoch(), l.v.machine.conf)
	fc := newFrameConn(conn, p.Epoch())
	ev, err := l.greet(p, fc)
	if err != nil {
		return l.fail("connect", err, "")
	}
	if !l.awaited() {
		if err := l.prime(fc); err != nil {
			return l.fail("prime", err, "")
		}
	}
	return l.mirror(ctx, conn, p, ev)
}

// awaited says whether writes wait for this replica to come back.
func (l *link) awaited() bool {
	l.v.mu.Lock()
	defer l.v.mu.Unlock()
	promoting := l.v.conf.Reign != nil // its clients wait
	return (l.v.machine.Serving() || promoting) && l.v.machine.members[l.id].standing == lost
}

func (l *link) fail(op string, err error, hint string) error {
	return &OpError{Op: op, Volume: l.v.conf.Volume, Replica: l.addr, Epoch: l.v.epoch(), Err: err, Hint: hint}
}

// greet says hello and returns the event by which the machine takes the replica in.
func (l *link) greet(p *Peer, fc *frameConn) (ev Event, err error) {
	if err := fc.conn.SetDeadline(time.Now().Add(4 * l.v.conf.Timeout)); err != nil {
		return ev, err
	}
	store := l.v.conf.Store
	hello := wire.Hello{Size: uint64(store.Size()), Session: l.v.session, ID: store.Meta().Volume, Replica: store.Meta().Replica, Fresh: store.New(), Volume: l.v.conf.Volume}
	if _, err := fc.out.Write(p.AppendHello(slices.Clone(l.v.conf.Preface), &hello)); err != nil {
		return ev, err
	}
	for {
		h, payload, err := fc.read()
		if err != nil {
			return ev, err
		}
		switch answer, err := p.Handle(&h, payload); {
		case err != nil:
			return ev, err
		case answer.Told:
			s := answer.Event.State
			s.Known = s.Known && l.v.roster.same(l.id, p.Welcome().Replica)
			return answer.Event, fc.conn.SetDeadline(time.Time{})
		}
	}
}

// mirror lets writes flow until the connection ends.
func (l *link) mirror(ctx context.Context, conn net.Conn, p *Peer, ev Event) error {
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
	l.set(p, out)
	l.v.conf.Log.Info("replica is connected", "replica", l.addr, "full_copy", ev.State.Complete && ev.State.Known)
	l.v.turn(ev)
	if err := l.v.roster.identify(l.id, p.Welcome().Replica); err != nil {
		end(err)
	}

	beating, stop := context.WithCancel(ctx)
	var beats sync.WaitGroup
	beats.Go(func() { l.heartbeats(beating, end) })
	end(l.receive(sock))
	stop()
	beats.Wait()
	l.set(nil, nil)
	out.close() // before the machine may complete what it still held
	l.v.turn(Event{Kind: EvDown, Replica: l.id, Now: now()})
	return l.fail("mirror", cause, "it is sent what it missed when it is back")
}

func (l *link) set(p *Peer, out *outbox) {
	l.v.mu.Lock()
	if l.peer != nil {
		l.giveUp(l.peer)
	}
	l.mu.Lock()
	l.peer, l.out = p, out
	if out != nil {
		l.err = nil
	}
	l.mu.Unlock()
	clear(l.buffers)
	l.v.mu.Unlock()
	l.heard.Store(int64(time.Since(started)))
}

// heartbeats keeps bytes in flight, so that a path or a replica that is dead is
// noticed when no writes flow.
func (l *link) heartbeats(ctx context.Context, end func(error)) {
	tick := time.NewTicker(l.v.conf.Beat)
	defer tick.Stop()
	for {
		if silent := time.Since(started) - time.Duration(l.heard.Load()); silent > l.v.conf.Silence {
			end(fmt.Errorf("nothing was heard of it for %v", silent.Round(time.Millisecond)))
			return
		}
		l.beat()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (l *link) beat() {
	l.v.mu.Lock()
	if l.out != nil && l.v.machine.stopped == nil { // others may take over
		l.out.put(l.peer.heartbeat(now()))
	}
	l.v.mu.Unlock()
	l.kick()
}
