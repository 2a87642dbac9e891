package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"lockstep/mirror/wire"
)

// ReplicaConfig says what a replica holds and how it serves it.
type ReplicaConfig struct {
	// Store is the replica's copy. It stays the caller's to close.
	Store Store
	// Log gets one line for each primary that comes or goes. Default: none.
	Log *slog.Logger
}

// helloTimeout is how long a connection may take to say hello.
const helloTimeout = 10 * time.Second

// acceptPause keeps a failing accept from taking a CPU.
const acceptPause = 50 * time.Millisecond

// maxGreeting bounds the connections that have not said hello yet.
const maxGreeting = 16

// Replica holds one remote copy of a volume and applies what its primary sends,
// in order. One primary at a time: a new connection of the same run of a primary
// replaces the old one, whose last frame is applied or dropped before the new
// one is served; another primary is refused while the first is connected.
type Replica struct {
	conf     ReplicaConfig
	greeting chan struct{} // a token for each connection without a hello

	mu       sync.Mutex
	current  *session
	last     wire.ID // the session that wrote last, in sync
	epoch    uint64  // highest seen; lower ones are fenced off
	volume   string  // the name of the first primary's volume, if any was admitted
	admitted bool
	failed   error // the store's first failure to sync: nothing is accepted any more
}

// NewReplica returns a replica that [Replica.Serve] will run.
func NewReplica(conf ReplicaConfig) *Replica {
	if conf.Log == nil {
		conf.Log = slog.New(slog.DiscardHandler)
	}
	return &Replica{conf: conf, greeting: make(chan struct{}, maxGreeting)}
}

// goneTimeout is after how long a primary that answers nothing is gone.
const goneTimeout = 10 * time.Second

// Listen opens a replica's port. Connections from it notice a peer that is gone
// without a word within seconds.
func Listen(ctx context.Context, addr string) (net.Listener, error) {
	lc := net.ListenConfig{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: time.Second, Count: 5},
		// Accepted connections inherit it; it also counts while acks are unanswered.
		Control: func(_, _ string, c syscall.RawConn) error { return tune(c, "", goneTimeout) },
	}
	return lc.Listen(ctx, "tcp", addr)
}

// Serve accepts primaries on ln until ctx ends, then closes every connection
// and returns nil when all of them are done.
func (r *Replica) Serve(ctx context.Context, ln net.Listener) error {
	var running sync.WaitGroup
	defer running.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	for {
		conn, err := ln.Accept()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accept on %s: %w", ln.Addr(), err)
		}
		if err != nil { // out of descriptors, say: those who are connected go on
			r.conf.Log.Warn("can't accept a connection", "err", err)
			time.Sleep(acceptPause)
			continue
		}
		select {
		case r.greeting <- struct{}{}:
			running.Go(func() { r.serve(ctx, conn) })
		default:
			conn.Close() // a flood of silent connections
		}
	}
}

func (r *Replica) serve(ctx context.Context, conn net.Conn) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	log := r.conf.Log.With("primary", conn.RemoteAddr().String())
	s, err := r.greet(conn)
	<-r.greeting
	if err != nil {
		log.Warn("refused a connection", "err", err)
		return
	}
	log.Info("primary connected", "session", s.hello.Session, "volume", s.hello.Volume, "epoch", s.epoch)
	err = s.run()
	r.mu.Lock()
	if r.current == s {
		r.current = nil
	}
	r.mu.Unlock()
	close(s.over)
	if ctx.Err() == nil {
		log.Warn("primary is gone", "session", s.hello.Session, "err", err)
	}
}

// greet takes a hello and answers it.
func (r *Replica) greet(conn net.Conn) (*session, error) {
	if err := conn.SetDeadline(time.Now().Add(helloTimeout)); err != nil {
		return nil, err
	}
	fc := newFrameConn(conn, 0)
	h, payload, err := fc.expect(wire.KindHello)
	if err != nil {
		return nil, fmt.Errorf("no hello: %w", err)
	}
	fc.epoch = h.Epoch
	s := &session{replica: r, conn: conn, epoch: h.Epoch, over: make(chan struct{})}
	welcome, err := r.admit(s, payload)
	if err != nil {
		fc.write(wire.Header{Kind: wire.KindRefuse}, []byte(truncate(err.Error())))
		return nil, errors.Join(err, fc.out.Flush())
	}
	if err := fc.write(wire.Header{Kind: wire.KindWelcome}, welcome.Append(nil)); err != nil {
		return nil, r.dismiss(s, err)
	}
	if err := fc.out.Flush(); err != nil {
		return nil, r.dismiss(s, err)
	}
	if n := fc.in.Buffered(); n > 0 {
		return nil, r.dismiss(s, fmt.Errorf("%w: %d bytes before the welcome", wire.ErrCorrupt, n))
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, r.dismiss(s, err)
	}
	return s, nil
}

func (r *Replica) dismiss(s *session, err error) error {
	r.mu.Lock()
	if r.current == s {
		r.current = nil
	}
	r.mu.Unlock()
	close(s.over)
	return err
}

// admit makes s the current session or says why it can't be. It waits until an
// earlier connection of the same primary is over.
func (r *Replica) admit(s *session, payload []byte) (wire.Welcome, error) {
	if err := s.hello.Decode(payload); err != nil {
		return wire.Welcome{}, err
	}
	for {
		r.mu.Lock()
		old, err := r.rivalLocked(s)
		if err == nil && old == nil {
			if r.last != s.hello.Session {
				r.last = wire.ID{} // until it writes: it may go before it has
			}
			w := wire.Welcome{Size: uint64(r.conf.Store.Size()), Session: r.last}
			r.current, r.epoch, r.volume, r.admitted = s, s.epoch, s.hello.Volume, true
			r.mu.Unlock()
			return w, nil
		}
		r.mu.Unlock()
		if err != nil {
			return wire.Welcome{}, err
		}
		old.conn.Close()
		<-old.over
	}
}

// rivalLocked returns the connection that must end before s may begin, or why s
// may not.
func (r *Replica) rivalLocked(s *session) (*session, error) {
	size := uint64(r.conf.Store.Size())
	switch {
	case r.failed != nil:
		return nil, fmt.Errorf("the replica's store failed: %w", r.failed)
	case s.epoch < r.epoch:
		return nil, fmt.Errorf("epoch %d is over, this replica has seen %d; the volume has a newer primary", s.epoch, r.epoch)
	case r.admitted && s.hello.Volume != r.volume:
		return nil, fmt.Errorf("this replica holds volume %q, not %q; is the address right?", r.volume, s.hello.Volume)
	case s.hello.Size != size:
		return nil, fmt.Errorf("the volume has %d bytes, this replica's store %d; start both with the same --size", s.hello.Size, size)
	case r.current == nil:
		return nil, nil
	case r.current.hello.Session == s.hello.Session || r.current.epoch < s.epoch:
		return r.current, nil
	}
	return nil, fmt.Errorf("another primary (session %v, %s) is connected; stop it first", r.current.hello.Session, r.current.conn.RemoteAddr())
}

// wrote notes that a session is in sync: a primary sends writes only then.
func (r *Replica) wrote(session wire.ID) {
	r.mu.Lock()
	r.last = session
	r.mu.Unlock()
}

// maxText bounds the text of refuse and failed frames in bytes.
const maxText = 1024

func truncate(s string) string { return s[:min(len(s), maxText)] }
