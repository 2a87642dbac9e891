package forward

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

// Limits bound what one connection can make a primary hold. A zero field is its
// default.
type Limits struct {
	Ops   int   // in flight; default 1,024
	Bytes int64 // of their data; default 64 MiB. One op always fits
}

// ServerConfig says which volume a [Server] is about.
type ServerConfig struct {
	Size        int64  // of the volume, bytes
	Incarnation uint64 // of the volume
	Limits      Limits

	// Generation, if set, is the highest generation of a named client that is on
	// record; the Server remembers by itself those that it has seen.
	Generation func(client string) uint64
	// Superseded, if set, is told of the first connection of a new generation of a
	// named client before that is welcome. When it returns, nothing of an earlier
	// generation may be submitted to the volume any more. It may come late, after
	// that of a still newer one.
	Superseded func(client string, generation uint64)
	// Log gets connections coming and going. Default: none.
	Log *slog.Logger
}

// Server is the primary's end of forwarding, for as long as its node is a volume's
// primary: it takes the connections of other nodes' Fronts. Its methods may be
// called concurrently.
type Server struct {
	conf ServerConfig

	mu     sync.Mutex
	closed bool
	seats  map[string]*seat // by client, or by session for those without a name
	conns  map[*session]struct{}
	idle   sync.Cond // conns has shrunk
}

// seat is where at most one connection may submit: its client's newest.
type seat struct {
	generation uint64
	holder     *session
}

// maxSeats bounds the clients without a connection that are remembered.
const maxSeats = 4096

var errServerClosed = errors.New("the node has stopped being the volume's primary")
var errNewer = errors.New("a newer connection of the same client took this one's place")

// NewServer returns a Server without connections.
func NewServer(conf ServerConfig) *Server {
	if conf.Limits.Ops <= 0 {
		conf.Limits.Ops = 1024
	}
	if conf.Limits.Bytes <= 0 {
		conf.Limits.Bytes = MaxLength
	}
	if conf.Log == nil {
		conf.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{conf: conf, seats: map[string]*seat{}, conns: map[*session]struct{}{}}
	s.idle.L = &s.mu
	return s
}

// Serve serves one connection until it ends, closes it, and says why it ended; a
// [*Refusal] is one reason. Ops that are still with the volume then complete into
// nothing. The volume must give its ops back through [Dispatch].
func (s *Server) Serve(nc net.Conn, volume Submitter) error {
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(greeting)) //nolint:errcheck // a closed socket fails at the first read
	hi, err := readHello(nc)
	if err != nil {
		return fmt.Errorf("serve a forwarding node: read its hello: %w", err)
	}
	c, err := s.seat(nc, &hi, volume)
	if err != nil {
		var refusal *Refusal
		if errors.As(err, &refusal) {
			writeFrame(nc, kindRefuse, refusal.append(nil)) //nolint:errcheck // it will ask again
		}
		return fmt.Errorf("serve a forwarding node: %w", err)
	}
	defer s.leave(c)
	err = writeFrame(nc, kindWelcome, nil)
	if err == nil {
		err = nc.SetDeadline(time.Time{})
	}
	if err == nil {
		err = c.serve()
	}
	return fmt.Errorf("serve a forwarding node: %w", err)
}

// Refuse answers a connection that came to a node that does not serve the volume,
// and closes it. ctx may end it early.
func Refuse(ctx context.Context, nc net.Conn, why *Refusal) error {
	defer nc.Close()
	defer context.AfterFunc(ctx, func() { nc.Close() })()
	nc.SetDeadline(time.Now().Add(greeting)) //nolint:errcheck // a closed socket fails at the first read
	if _, err := readHello(nc); err != nil {
		return fmt.Errorf("refuse a forwarding node: read its hello: %w", err)
	}
	return writeFrame(nc, kindRefuse, why.append(nil))
}

// seat gives a connection its client's seat once nothing of an older connection of
// that client will be submitted any more.
func (s *Server) seat(nc net.Conn, hi *hello, volume Submitter) (*session, error) {
	key := "client " + hi.client
	if hi.client == "" {
		key = fmt.Sprintf("session %x", hi.session)
	}
	c := newSession(s, nc, hi, volume)
	older, newer, err := s.claim(key, hi, c)
	if err != nil {
		return nil, err
	}
	if older != nil {
		older.hangup(errNewer)
		<-older.ended
	}
	if newer && s.conf.Superseded != nil {
		s.conf.Superseded(hi.client, hi.generation)
	}
	return c, nil
}

// claim enters c under key, and says who was there before and whether c begins a
// named client's new generation.
func (s *Server) claim(key string, hi *hello, c *session) (older *session, newer bool, err error) {
	var floor uint64
	if hi.client != "" && s.conf.Generation != nil {
		floor = s.conf.Generation(hi.client)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.seats[key]
	if at == nil {
		at = new(seat)
	}
	switch {
	case s.closed, hi.incarnation > s.conf.Incarnation, hi.size > uint64(s.conf.Size):
		// Or the client knows of a later primary, or of a growth that is yet to come here.
		return nil, false, &Refusal{Reason: NotPrimary}
	case hi.incarnation != s.conf.Incarnation:
		return nil, false, &Refusal{Reason: OtherIncarnation}
	case hi.generation < max(floor, at.generation):
		return nil, false, &Refusal{Reason: OldGeneration}
	}
	older, newer = at.holder, hi.client != "" && hi.generation > at.generation
	*at = seat{generation: hi.generation, holder: c}
	s.forgetLocked()
	s.seats[key] = at
	s.conns[c] = struct{}{}
	return older, newer, nil
}

// forgetLocked makes room for one more seat, of those that are empty.
func (s *Server) forgetLocked() {
	if len(s.seats) < maxSeats {
		return
	}
	for key, at := range s.seats {
		if at.holder == nil {
			delete(s.seats, key)
			return
		}
	}
}

// leave ends c's time: its reader has ended.
func (s *Server) leave(c *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer close(c.ended)
	delete(s.conns, c)
	for _, at := range s.seats {
		if at.holder == c {
			at.holder = nil
		}
	}
	s.idle.Broadcast()
}

// Supersede ends the connections of a named client that are of a lower generation,
// and refuses later ones. When it returns, nothing of them is submitted any more.
func (s *Server) Supersede(client string, generation uint64) {
	s.mu.Lock()
	at := s.seats["client "+client]
	if at == nil {
		at = new(seat)
		s.forgetLocked()
		s.seats["client "+client] = at
	}
	var old *session
	if at.generation < generation {
		old, at.generation = at.holder, generation
	}
	s.mu.Unlock()
	if old != nil {
		old.hangup(errNewer)
		<-old.ended
	}
}

// Connections is how many connections are served.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Close ends every connection and refuses new ones. When it returns, nothing is
// submitted any more, and no answer is sent. The volume's completions must not wait
// for it.
func (s *Server) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for c := range s.conns {
		c.hangup(errServerClosed)
	}
	for len(s.conns) > 0 {
		s.idle.Wait()
	}
}
