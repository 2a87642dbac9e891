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
	// Overwrite lets a primary with a new store take a copy that holds something, and
	// any primary one that was the primary itself.
	Overwrite bool
	// Group says that a configuration service decides who is primary: who led before does
	// not matter then.
	Group bool
	// Agreed says that this copy's node was the primary and gave that up in good order.
	Agreed bool
	// Origins is what is remembered of retried ops, if this process led the volume until
	// now.
	Origins Origins
	// SyncTimeout is how long the disk may take to sync before this replica counts as
	// lost; default 30 s.
	SyncTimeout time.Duration
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
// in order: the driver of a [Follower]. One primary at a time: a new connection of
// the same run of a primary replaces the old one, whose last frame is applied or
// dropped before the new one is served; so does a primary of a higher epoch.
// Another one is refused while the first is connected.
type Replica struct {
	conf     ReplicaConfig
	greeting chan struct{} // a token for each connection without a hello

	mu       sync.Mutex
	current  *session
	follower *Follower
	said     string // why the last connection was refused
	failed   error  // the store's first failure to sync: nothing is accepted any more
}

// NewReplica returns a replica that [Replica.Serve] will run.
func NewReplica(conf ReplicaConfig) *Replica {
	if conf.Log == nil {
		conf.Log = slog.New(slog.DiscardHandler)
	}
	f := NewFollower(IdentityOf(conf.Store.Meta()), conf.Store.Size(), conf.Store.New() || conf.Overwrite, now())
	if inSync, was := led(conf.Store); was && !conf.Overwrite && !conf.Group {
		f.Led(inSync)
	}
	if conf.Agreed {
		f.Agreed()
	}
	f.origins = conf.Origins
	if conf.SyncTimeout == 0 {
		conf.SyncTimeout = defaultSyncTimeout
	}
	return &Replica{conf: conf, greeting: make(chan struct{}, maxGreeting), follower: f}
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
		r.refused(log, err)
		return
	}
	log.Info("primary connected", "session", s.hello.Session, "volume", s.hello.Volume, "epoch", s.epoch)
	err = s.run()
	r.leave(s)
	if ctx.Err() == nil {
		log.Warn("primary is gone", "session", s.hello.Session, "err", err)
	}
}

// refused logs why, unless that was the last thing said: a primary asks again and again.
func (r *Replica) refused(log *slog.Logger, err error) {
	r.mu.Lock()
	again := r.said == err.Error()
	r.said = err.Error()
	r.mu.Unlock()
	if !again {
		log.Warn("refused a connection", "err", err)
	}
}

// leave ends s: nothing of it can be applied any more.
func (r *Replica) leave(s *session) {
	r.mu.Lock()
	if r.current == s {
		r.current = nil
	}
	r.mu.Unlock()
	close(s.over)
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
	s, err := newSession(r, conn, h.Epoch)
	if err == nil {
		err = s.hello.Decode(payload)
	}
	if err == nil {
		err = r.admit(s)
	}
	if err != nil {
		return nil, errors.Join(err, refuse(fc, err))
	}
	if err := s.applier.Greet(&h, payload); err != nil {
		r.leave(s)
		return nil, errors.Join(err, refuse(fc, err))
	}
	if n := fc.in.Buffered(); n > 0 {
		r.leave(s)
		return nil, fmt.Errorf("%w: %d bytes before the welcome", wire.ErrCorrupt, n)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		r.leave(s)
		return nil, err
	}
	return s, nil
}

func refuse(fc *frameConn, why error) error {
	fc.write(wire.Header{Kind: wire.KindRefuse}, []byte(truncate(why.Error())))
	return fc.out.Flush()
}

// admit makes s the current session or says why it can't be. It waits until the
// connection that s replaces is over.
func (r *Replica) admit(s *session) error {
	for {
		r.mu.Lock()
		old, err := r.rivalLocked(s)
		if err == nil && old == nil {
			r.current = s
		}
		r.mu.Unlock()
		if err != nil || old == nil {
			return err
		}
		old.conn.Close()
		<-old.over
	}
}

// rivalLocked returns the connection that must end before s may begin, or why s
// may not. Whether s may at all is the follower's to say.
func (r *Replica) rivalLocked(s *session) (*session, error) {
	admissible := r.follower.Admissible(&s.hello, s.epoch)
	switch {
	case r.failed != nil:
		return nil, fmt.Errorf("the replica's store failed: %w", r.failed)
	case r.current == nil:
		return nil, nil // the follower says so again, if not
	case admissible != nil && !errors.Is(admissible, ErrWrongVolume):
		return nil, admissible
	case r.current.hello.Session == s.hello.Session || r.current.epoch < s.epoch && r.current.hello.ID == s.hello.ID:
		return r.current, nil
	}
	return nil, fmt.Errorf("another primary (session %v, %s) is connected; stop it first", r.current.hello.Session, r.current.conn.RemoteAddr())
}

// fail notes that a sync failed: what the disk holds is unknown from then on.
func (r *Replica) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed == nil {
		r.failed = err
	}
}

// maxText bounds the text of refuse and failed frames in bytes.
const maxText = 1024

func truncate(s string) string { return s[:min(len(s), maxText)] }
