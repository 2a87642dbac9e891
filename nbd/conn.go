package nbd

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// conn is one client's connection in the transmission phase.
//
//	reading --disconnect, error, stop--> draining --all replied or failed--> ended
//
// Its goroutines are the reader, which is the one that ServeConn runs on, and
// the writer, which the reader starts and waits for.
type conn struct {
	session
	srv   *Server
	nc    net.Conn
	raw   syscall.RawConn
	recv  receiver
	batch []*Request
	one   [1]*Request // enqueue1's argument
	send  sender
	flow  flow

	stopped  atomic.Bool   // the reader must end
	draining atomic.Bool   // the reader has ended
	ended    chan struct{} // closed when nothing is in flight any more
}

func (s *Server) newConn(nc net.Conn) (*conn, error) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil, &Error{Op: "serve", Subject: nc.RemoteAddr().String(), Err: errors.New("the connection is not a socket"),
			Hint: "use a unix or TCP connection"}
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, &Error{Op: "serve", Subject: nc.RemoteAddr().String(), Err: err}
	}
	c := &conn{srv: s, nc: nc, raw: raw, ended: make(chan struct{})}
	c.flow = flow{
		maxRequests: int64(s.limits.Requests), maxBytes: s.limits.Bytes,
		memory: &s.memory, maxMemory: s.limits.Memory, wake: make(chan struct{}, 1),
	}
	return c, nil
}

// transmit serves requests until the connection ends, and returns when nothing
// of it is in flight any more.
func (c *conn) transmit() error {
	c.initReceiver()
	c.initSender()
	quit := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() { c.write(quit) })

	err := c.receive()
	c.draining.Store(true)
	c.limitDrain()
	c.flow.wait(func() bool { return c.flow.requests.Load() == 0 })
	close(quit)
	writer.Wait()
	if errors.Is(err, errDisconnect) || errors.Is(err, errStopped) || errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// limitDrain bounds how long a client that does not read may hold up the end.
func (c *conn) limitDrain() {
	c.nc.SetWriteDeadline(time.Now().Add(c.srv.limits.Drain)) //nolint:errcheck // a closed socket needs none
}

// stop makes the reader end; what was submitted is still answered.
func (c *conn) stop() {
	c.stopReading()
	c.limitDrain()
}

func (c *conn) stopReading() {
	c.stopped.Store(true)
	c.nc.SetReadDeadline(time.Unix(1, 0)) //nolint:errcheck // a closed socket needs none
	c.flow.interrupt()
}

// enqueue1 queues the reply of a request that the backend never saw. Reader only.
func (c *conn) enqueue1(r *Request) {
	c.one[0] = r
	c.enqueue(c.one[:])
}

// attachPoll is how often a connection that waits to be attached looks whether
// its client is still there.
const attachPoll = 50 * time.Millisecond

// attach lets c into transmission once every connection of the export whose
// client has gone is drained: the client may send again what it had no reply
// for, and the old copy must not land after the new one.
func (c *conn) attach(ctx context.Context) error {
	tick := time.NewTicker(attachPoll)
	defer tick.Stop()
	for {
		old := c.export.dying()
		if old == nil {
			break
		}
		select {
		case <-old.ended:
		case <-ctx.Done():
			return errStopped
		case <-tick.C:
			if peerGone(c.raw) {
				return io.EOF
			}
		}
	}
	c.export.mu.Lock()
	c.export.conns[c] = struct{}{}
	c.export.mu.Unlock()
	return nil
}

func (c *conn) detach() {
	c.export.mu.Lock()
	delete(c.export.conns, c)
	c.export.mu.Unlock()
	close(c.ended)
}

// dying returns a connection whose client has gone but which is not drained yet,
// or nil.
func (e *export) dying() *conn {
	e.mu.Lock()
	defer e.mu.Unlock()
	for c := range e.conns {
		if c.draining.Load() || peerGone(c.raw) {
			return c
		}
	}
	return nil
}

// hangup closes the socket at once; what is in flight is dropped when the
// backend completes it.
func (c *conn) hangup() {
	c.stopReading()
	c.raw.Control(func(fd uintptr) { unix.Shutdown(int(fd), unix.SHUT_RDWR) }) //nolint:errcheck // closed already is fine
	c.nc.SetWriteDeadline(time.Unix(1, 0))                                     //nolint:errcheck // likewise
}
