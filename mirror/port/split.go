package port

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"
)

const (
	// Patience is how long a connection may take to say what it is.
	Patience = 10 * time.Second
	// MaxUndecided bounds the connections that have not said it yet.
	MaxUndecided = 128
	// backlog is how many connections of a kind may wait to be accepted.
	backlog = 64
)

// Splitter takes a listener's connections apart by their first bytes. Its methods
// may be called concurrently.
type Splitter struct {
	listener    net.Listener
	log         *slog.Logger
	raft        *listener
	replication *listener
	forward     *listener
	http        *listener
	running     sync.WaitGroup

	mu        sync.Mutex
	closed    bool
	undecided []net.Conn // the oldest first
}

// Split begins to accept from l, which is the Splitter's from here on. A nil log
// is slog.Default().
func Split(l net.Listener, log *slog.Logger) *Splitter {
	if log == nil {
		log = slog.Default()
	}
	s := &Splitter{listener: l, log: log}
	for _, part := range []**listener{&s.raft, &s.replication, &s.forward, &s.http} {
		*part = &listener{addr: l.Addr(), conns: make(chan net.Conn, backlog), closed: make(chan struct{})}
	}
	s.running.Go(s.accept)
	return s
}

// Raft accepts the connections of raft.
func (s *Splitter) Raft() net.Listener { return s.raft }

// Replication accepts connections from primaries. Each is a [*Conn].
func (s *Splitter) Replication() net.Listener { return s.replication }

// Forward accepts connections that carry clients' requests. Each is a [*Conn].
func (s *Splitter) Forward() net.Listener { return s.forward }

// HTTP accepts connections whose first request has arrived in part.
func (s *Splitter) HTTP() net.Listener { return s.http }

// Addr is where the Splitter listens.
func (s *Splitter) Addr() net.Addr { return s.listener.Addr() }

// Close ends the listener, the connections that nobody accepted, and every Accept.
// Accepted connections stay.
func (s *Splitter) Close() error {
	s.mu.Lock()
	s.closed = true
	for _, c := range s.undecided {
		c.Close()
	}
	s.mu.Unlock()
	err := s.listener.Close()
	s.running.Wait()
	for _, part := range []*listener{s.raft, s.replication, s.forward, s.http} {
		part.Close()
	}
	return err
}

func (s *Splitter) accept() {
	for delay := time.Duration(0); ; {
		c, err := s.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors or memory: it may pass
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			s.log.Warn("port: accept failed", "addr", s.Addr(), "err", err, "retry_in", delay)
			time.Sleep(delay)
			continue
		}
		delay = 0
		if !s.enter(c) {
			c.Close()
			return
		}
		s.running.Go(func() { s.decide(c) })
	}
}

// enter counts c among the undecided, unless the Splitter is closed.
func (s *Splitter) enter(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if len(s.undecided) == MaxUndecided {
		s.undecided[0].Close() // its goroutine sees that
		s.undecided = slices.Delete(s.undecided, 0, 1)
	}
	s.undecided = append(s.undecided, c)
	return true
}

// leave says whether c was still waited for.
func (s *Splitter) leave(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.undecided, c)
	if i >= 0 {
		s.undecided = slices.Delete(s.undecided, i, i+1)
	}
	return i >= 0 && !s.closed
}

// decide reads c's preface and gives it to whom it is for.
func (s *Splitter) decide(c net.Conn) {
	c.SetReadDeadline(time.Now().Add(Patience)) //nolint:errcheck // a closed socket fails at the first read
	to, given, err := s.preface(c)
	if !s.leave(c) {
		c.Close()
		return
	}
	if err == nil {
		err = c.SetReadDeadline(time.Time{})
	}
	if err == nil {
		err = to.give(given)
	}
	if err != nil {
		c.Close()
		s.log.Debug("port: connection ended", "remote", c.RemoteAddr(), "err", err)
	}
}

func (s *Splitter) preface(c net.Conn) (*listener, net.Conn, error) {
	var b [2 + MaxName]byte
	if _, err := io.ReadFull(c, b[:1]); err != nil {
		return nil, nil, fmt.Errorf("read what the connection is: %w", err)
	}
	var to *listener
	switch b[0] {
	case 'G', 'P', 'D':
		return s.http, &replayed{Conn: c, first: b[:1]}, nil
	case kindRaft:
		return s.raft, c, nil
	case kindReplication:
		to = s.replication
	case kindForward:
		to = s.forward
	default:
		return nil, nil, fmt.Errorf("a connection begins with %#02x, which means nothing here: another program or version?", b[0])
	}
	if _, err := io.ReadFull(c, b[1:2]); err != nil {
		return nil, nil, fmt.Errorf("read a volume's name: %w", err)
	}
	name := b[2 : 2+int(b[1])]
	if _, err := io.ReadFull(c, name); err != nil || len(name) == 0 {
		return nil, nil, fmt.Errorf("read a volume's name of %d bytes: %w", len(name), err)
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return nil, nil, fmt.Errorf("a connection by %s: only TCP is possible", c.LocalAddr().Network())
	}
	return to, &Conn{TCPConn: tcp, Volume: string(name)}, nil
}
