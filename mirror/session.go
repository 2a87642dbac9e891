package mirror

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"lockstep/mirror/store"
	"lockstep/mirror/wire"
)

// session is one primary's connection to a replica: the I/O of an [Applier]. One
// goroutine receives and applies; a second one syncs, so that a flush does not hold
// up later writes; a third marks the copy as a full one when it is.
//
// Cost: all whole frames that one recv brought are applied, then acknowledged
// by one send. Payloads are applied from the receive buffer.
type session struct {
	replica *Replica
	conn    net.Conn
	sock    *socket
	hello   wire.Hello
	epoch   uint64 // of the hello
	applier *Applier
	over    chan struct{} // closed when nothing of this session can be applied any more

	durable chan durablePing // those that wait for the disk
	wake    chan struct{}    // capacity 1: a sync is wanted

	mu   sync.Mutex // acks must not overtake each other while they are sent
	out  []byte     // the frame being sent
	iovs [1]unix.Iovec
}

// bufferSize is the receive buffer's: it holds the largest frame, and as much
// again, so that what is left of a frame rarely has to be moved.
const bufferSize = 2 * (wire.HeaderSize + wire.MaxPayload)

type durablePing struct {
	header wire.Header
	under  uint64 // the configuration's number
}

// maxDurablePings bounds the durable pings that wait; a primary has one under way.
const maxDurablePings = 8

func newSession(r *Replica, conn net.Conn, epoch uint64) (*session, error) {
	sock, err := newSocket(conn)
	if err != nil {
		return nil, err
	}
	s := &session{
		replica: r, conn: conn, sock: sock, epoch: epoch,
		over:    make(chan struct{}),
		durable: make(chan durablePing, maxDurablePings),
		wake:    make(chan struct{}, 1),
		out:     make([]byte, wire.HeaderSize, wire.HeaderSize+maxText),
	}
	s.applier = NewApplier(r.follower, &r.mu, r.conf.Store, now, s.send)
	return s, nil
}

func (s *session) run() error {
	var waiting sync.WaitGroup
	waiting.Go(s.syncs)
	waiting.Go(s.pings)
	err := s.receive()
	s.conn.Close()
	close(s.wake)
	close(s.durable)
	waiting.Wait()
	return err
}

func (s *session) receive() error {
	buf := make([]byte, bufferSize)
	start, end := 0, 0 // what was received and not yet handled
	for {
		n, err := s.sock.recv(buf[end:])
		if err != nil {
			if err == io.EOF && end > start {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		end += n
		used, need, err := s.frames(buf[start:end])
		if err != nil {
			s.report(err)
			return err
		}
		start += used
		if err := s.answer(); err != nil {
			return err
		}
		switch {
		case start == end:
			start, end = 0, 0
		case start+need > len(buf):
			start, end = 0, copy(buf, buf[start:end])
		}
	}
}

// answer acknowledges what was applied and has a sync done if one is due.
func (s *session) answer() error {
	if err := s.applier.Acknowledge(); err != nil {
		return err
	}
	if s.applier.Wanted() > 0 {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
	return nil
}

// frames handles the whole frames in b. It returns how many bytes they take and
// how many the next one needs.
func (s *session) frames(b []byte) (used, need int, err error) {
	for {
		rest := b[used:]
		if len(rest) < wire.HeaderSize {
			return used, wire.HeaderSize, nil
		}
		var h wire.Header
		if err := h.Decode(rest); err != nil {
			return used, 0, err
		}
		need := wire.HeaderSize + int(h.Payload)
		if len(rest) < need {
			return used, need, nil
		}
		if err := s.handle(&h, rest[wire.HeaderSize:need]); err != nil {
			return used, 0, err
		}
		used += need
	}
}

func (s *session) handle(h *wire.Header, payload []byte) error {
	if h.Kind != wire.KindPing || h.Flags&wire.Durable == 0 {
		return s.applier.Handle(h, payload)
	}
	if _, err := s.applier.check(h, payload); err != nil {
		return err
	}
	select {
	case s.durable <- durablePing{*h, s.applier.configurations()}:
		return nil
	default:
		return errors.New("too many durable pings at once")
	}
}

// syncs makes durable what must be, in groups: all that was applied when a sync
// begins.
func (s *session) syncs() {
	for range s.wake {
		for s.applier.Wanted() > 0 {
			if err := s.inTime(s.applier.Sync); err != nil {
				s.report(err)
				s.conn.Close()
				return
			}
		}
	}
}

// defaultSyncTimeout is ReplicaConfig.SyncTimeout's: heartbeats, which another goroutine
// answers, would hide a disk that hangs.
const defaultSyncTimeout = 30 * time.Second

// inTime ends the connection if a sync hangs. A new one is not served before the
// sync is over.
func (s *session) inTime(sync func() error) error {
	timeout := s.replica.conf.SyncTimeout
	t := time.AfterFunc(timeout, func() {
		s.report(fmt.Errorf("its disk did not sync within %v", timeout))
		s.conn.Close()
	})
	defer t.Stop()
	return sync()
}

// pings answers the pings that wait for the disk.
func (s *session) pings() {
	for p := range s.durable {
		if err := s.inTime(func() error { return s.applier.pong(&p.header, p.under) }); err != nil {
			s.report(err)
			s.conn.Close()
		}
	}
}

// report tells the primary why this session ends. After a failed sync that is the
// end of the replica too.
func (s *session) report(err error) {
	if errors.Is(err, store.ErrBroken) {
		s.replica.fail(err)
	}
	s.send(wire.Header{Kind: wire.KindFailed}, []byte(truncate(err.Error())))
}

func (s *session) send(h wire.Header, payload []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	h.Epoch = s.epoch
	h.Payload = uint32(len(payload))
	h.CRC = wire.Checksum(payload)
	s.out = s.out[:wire.HeaderSize]
	h.Encode(s.out)
	s.out = append(s.out, payload...)
	s.iovs[0] = iovec(s.out)
	// Acks are tiny and the socket nearly always has room: then a call that does
	// not sleep saves telling the scheduler.
	n, err := s.sock.trySend(s.iovs[:])
	if err == nil && n < len(s.out) {
		_, err = s.conn.Write(s.out[n:])
	}
	return err
}
