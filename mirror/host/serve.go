package host

import (
	"context"
	"net"
	"time"

	"lockstep/mirror"
	"lockstep/mirror/forward"
)

// readyTimeout is how long a connection waits for this node to be what it is for: a
// handover changes that within milliseconds.
const readyTimeout = time.Second

// ServeReplication serves a connection of the volume's primary until it ends, and
// closes it.
func (s *Seat) ServeReplication(ctx context.Context, conn net.Conn) {
	r, ok := awaitRole(ctx, s, func() *mirror.Replica { return s.replica })
	if !ok {
		conn.Close()
		return
	}
	r.ServeConn(ctx, conn)
}

// ServeForward serves a connection of another node that forwards requests, until it
// ends, and closes it.
func (s *Seat) ServeForward(ctx context.Context, conn net.Conn) {
	l, ok := awaitRole(ctx, s, func() *lead {
		if s.lead == nil || s.lead.server == nil {
			return nil
		}
		return &lead{volume: s.lead.volume, server: s.lead.server}
	})
	if !ok {
		s.refuse(ctx, conn)
		return
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if err := l.server.Serve(conn, l.volume); err != nil {
		s.log.Debug("a forwarding node", "addr", conn.RemoteAddr().String(), "err", err)
	}
}

// awaitRole waits, not long, until get finds what the seat has in a role.
func awaitRole[T any](ctx context.Context, s *Seat, get func() *T) (got *T, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	err := s.await(ctx, func() bool {
		got = get()
		return got != nil
	})
	return got, err == nil
}

// refuse tells a forwarding node who is primary, as far as this one knows.
func (s *Seat) refuse(ctx context.Context, conn net.Conn) {
	why := &forward.Refusal{Reason: forward.NotPrimary}
	if v := s.Record(); v != nil && v.Primary != s.h.conf.Name {
		why.Primary = v.Primary
	}
	// It asks again, or has gone.
	_ = forward.Refuse(ctx, conn, why)
}
