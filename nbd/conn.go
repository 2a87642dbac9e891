package nbd

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
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

	transmitting atomic.Bool // the handshake is over
	empty        atomic.Bool // the reader holds nothing that was received, and waits

	parting atomic.Bool // nothing more is received

	stopped  atomic.Bool   // the reader must end
	draining atomic.Bool   // the reader has ended
	gone     atomic.Bool   // nobody can get an answer any more
	ended    chan struct{} // closed when nothing is in flight any more

	own   Attachment // the backend, if it is this connection's only
	place place      // guarded by srv.mu
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
	c.transmitting.Store(true)
	quit := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() { c.write(quit) })

	err := c.receive()
	if c.parting.Load() && err == io.EOF {
		err = errStopped
	}
	if !errors.Is(err, errDisconnect) && !errors.Is(err, errStopped) {
		c.gone.Store(true)
	}
	c.draining.Store(true)
	c.limitDrain()
	late := time.AfterFunc(c.srv.limits.Drain, func() { c.gone.Store(true) })
	defer late.Stop()
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
