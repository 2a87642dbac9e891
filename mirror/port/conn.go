package port

import (
	"errors"
	"net"
	"sync"
)

// Conn is a connection about one volume, just after its preface.
type Conn struct {
	*net.TCPConn
	Volume string // its name
}

// replayed is a connection whose first byte was read already.
type replayed struct {
	net.Conn
	first []byte
}

// Read returns the first byte, then what follows.
func (r *replayed) Read(p []byte) (int, error) {
	if len(r.first) == 0 || len(p) == 0 {
		return r.Conn.Read(p)
	}
	n := copy(p, r.first)
	r.first = r.first[n:]
	return n, nil
}

// listener is the connections of one kind.
type listener struct {
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *listener) Addr() net.Addr { return l.addr }

func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.closed: // first: what is left is being closed
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept. What comes later is closed at once.
func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	for {
		select {
		case c := <-l.conns:
			c.Close()
		default:
			return nil
		}
	}
}

var errBacklog = errors.New("too many connections of this kind wait to be accepted")

// give puts c in line.
func (l *listener) give(c net.Conn) error {
	select {
	case <-l.closed:
		return net.ErrClosed
	default:
	}
	select {
	case l.conns <- c:
	default:
		return errBacklog
	}
	select {
	case <-l.closed: // Close may have looked before c was there
		return l.Close()
	default:
		return nil
	}
}
