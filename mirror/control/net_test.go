package control

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

// network is a small internet in memory, for testing/synctest: every direction between
// two hosts has its delay and can be cut, and everything is virtual time.
type network struct {
	mu     sync.Mutex
	delay  map[direction]time.Duration
	cut    map[direction]bool
	open   map[string]*listener // by HOST:PORT
	conns  map[*conn]bool
	usual  time.Duration // one way
	opened int
}

type direction struct{ from, to string }

func newNetwork(oneWay time.Duration) *network {
	return &network{
		delay: map[direction]time.Duration{}, cut: map[direction]bool{}, usual: oneWay,
		open: map[string]*listener{}, conns: map[*conn]bool{},
	}
}

func (n *network) distance(a, b string, oneWay time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.delay[direction{a, b}], n.delay[direction{b, a}] = oneWay, oneWay
}

// block loses everything that from sends to to, until heal.
func (n *network) block(from, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[direction{from, to}] = true
}

// isolate cuts host off from all others.
func (n *network) isolate(host string, others ...string) {
	for _, o := range others {
		if o != host {
			n.block(host, o)
			n.block(o, host)
		}
	}
}

func (n *network) heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cut)
}

func (n *network) path(d direction) (delay time.Duration, up bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delay, known := n.delay[d]
	if !known && d.from != d.to {
		delay = n.usual
	}
	return delay, !n.cut[d]
}

// kill resets every connection of host, as the death of its process does.
func (n *network) kill(host string) {
	n.mu.Lock()
	var dead []*conn
	for c := range n.conns {
		if c.at == host || c.peer.at == host {
			dead = append(dead, c)
		}
	}
	n.mu.Unlock()
	for _, c := range dead {
		c.fail(io.ErrUnexpectedEOF)
		c.peer.fail(io.ErrUnexpectedEOF)
	}
}

func hostOf(addr string) string { return strings.Split(addr, ":")[0] }

func (n *network) listen(addr string) *listener {
	l := &listener{net: n, addr: addr, queue: make(chan *conn, 64), closed: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.open[addr] = l
	return l
}

// dialTimeout is how long a dial takes at most.
const dialTimeout = 3 * time.Second

// dial connects from host; it takes a round trip, or as long as ctx allows if the
// way is cut, and no longer than a real one would.
func (n *network) dial(ctx context.Context, host, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	there, up1 := n.path(direction{host, hostOf(addr)})
	back, up2 := n.path(direction{hostOf(addr), host})
	if !up1 || !up2 {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if !sleep(ctx, there+back) {
		return nil, ctx.Err()
	}
	n.mu.Lock()
	l := n.open[addr]
	n.mu.Unlock()
	if l == nil {
		return nil, errors.New("connection refused")
	}
	a, b := newConn(n, host), newConn(n, hostOf(addr))
	a.peer, b.peer = b, a
	n.mu.Lock()
	n.conns[a], n.conns[b] = true, true
	n.opened++
	n.mu.Unlock()
	select {
	case l.queue <- b:
		return a, nil
	case <-l.closed:
		return nil, errors.New("connection refused")
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 { // Go 1.26's race detector crashes when goroutines of a bubble look at timers that are due
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

type listener struct {
	net    *network
	addr   string
	queue  chan *conn
	closed chan struct{}
	once   sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Addr() net.Addr { return tcpAddr(l.addr) }

func (l *listener) Close() error {
	l.once.Do(func() {
		l.net.mu.Lock()
		if l.net.open[l.addr] == l {
			delete(l.net.open, l.addr)
		}
		l.net.mu.Unlock()
		close(l.closed)
	})
	return nil
}

// conn is one end. What is sent into a cut is lost, and so is all that follows on that
// connection: TCP would keep order and retry, but not within the time that matters.
type conn struct {
	net  *network
	at   string
	peer *conn

	mu       sync.Mutex
	more     chan struct{} // closed at each change
	in       bytes.Buffer
	lost     bool // a byte to this end was lost
	err      error
	deadline time.Time
	last     time.Time // when what was sent last arrives, to keep order
}

func newConn(n *network, at string) *conn {
	return &conn{net: n, at: at, more: make(chan struct{})}
}

func (c *conn) wake() {
	close(c.more)
	c.more = make(chan struct{})
}

func (c *conn) fail(err error) {
	c.net.mu.Lock()
	delete(c.net.conns, c)
	c.net.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
		c.wake()
	}
}

func (c *conn) Read(p []byte) (int, error) {
	for {
		c.mu.Lock()
		if c.in.Len() > 0 {
			defer c.mu.Unlock()
			return c.in.Read(p)
		}
		err, more, deadline := c.err, c.more, c.deadline
		c.mu.Unlock()
		if err != nil {
			return 0, err
		}
		if deadline.IsZero() {
			<-more
			continue
		}
		left := time.Until(deadline)
		if left <= 0 {
			return 0, os.ErrDeadlineExceeded
		}
		timer := time.NewTimer(left)
		select {
		case <-more:
		case <-timer.C:
		}
		timer.Stop()
	}
}

func (c *conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	err := c.err
	c.mu.Unlock()
	if err != nil {
		return 0, err
	}
	delay, up := c.net.path(direction{c.at, c.peer.at})
	data := bytes.Clone(p)
	peer := c.peer
	peer.mu.Lock()
	defer peer.mu.Unlock()
	if !up {
		peer.lost = true
	}
	if peer.lost {
		return len(p), nil
	}
	at := time.Now().Add(delay)
	if at.Before(peer.last) {
		at = peer.last
	}
	peer.last = at
	if at.Equal(time.Now()) {
		peer.in.Write(data)
		peer.wake()
		return len(p), nil
	}
	peer.last = at.Add(1) // timers of the same instant fire in any order
	time.AfterFunc(time.Until(at), func() {
		peer.mu.Lock()
		defer peer.mu.Unlock()
		peer.in.Write(data)
		peer.wake()
	})
	return len(p), nil
}

func (c *conn) Close() error {
	delay, up := c.net.path(direction{c.at, c.peer.at})
	c.fail(net.ErrClosed)
	if up {
		time.AfterFunc(delay+1, func() { c.peer.fail(io.EOF) })
	}
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return tcpAddr(c.at) }
func (c *conn) RemoteAddr() net.Addr { return tcpAddr(c.peer.at) }

func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	c.wake()
	return nil
}

func (c *conn) SetDeadline(t time.Time) error    { return c.SetReadDeadline(t) }
func (c *conn) SetWriteDeadline(time.Time) error { return nil }
