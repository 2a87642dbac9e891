package forward

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"

	"lockstep/mirror"
)

// maxErrorText is the most of an error's text that a reply carries, in bytes.
const maxErrorText = 256

// session is one connection of a Front to the primary. Its goroutines are the
// reader, which is Serve's, and the line's.
type session struct {
	*line
	srv    *Server
	volume Submitter
	id     uint64 // the client's session
	size   uint64 // what its ops may touch, bytes
	in     *bufio.Reader
	batch  []*mirror.Op
	ended  chan struct{} // closed when nothing is submitted any more

	flowMu sync.Mutex
	room   sync.Cond // a request was answered, or the line is over
	ops    int       // in flight
	bytes  int64     // of their data
	halted bool
}

// request is an op of a session. It is the op's Tag.
type request struct {
	session *session
	tag     uint64
	op      mirror.Op
	origin  mirror.Origin
	buf     *buffer
	cost    int64
	err     error // what became of it
	lent    bool  // a hung disk still has op and buf
}

// Sink implements [Tag].
func (r *request) Sink() Sink { return r.session }

var requestPool = sync.Pool{New: func() any { return new(request) }}

func newSession(s *Server, nc net.Conn, hi *hello, volume Submitter) *session {
	c := &session{line: newLine(nc), srv: s, volume: volume, id: hi.session, size: hi.size, ended: make(chan struct{})}
	c.room.L = &c.flowMu
	return c
}

// serve reads and submits until the connection ends, and returns why.
func (c *session) serve() error {
	var writer sync.WaitGroup
	writer.Go(c.line.run)
	writer.Go(c.halt)
	c.in = bufio.NewReaderSize(c.line, receiveBuffer)
	c.hangup(c.read())
	writer.Wait()
	return c.reason()
}

// halt wakes the reader when the line is over.
func (c *session) halt() {
	<-c.over
	c.flowMu.Lock()
	c.halted = true
	c.flowMu.Unlock()
	c.room.Signal()
}

// read takes requests: all that have arrived become one batch.
func (c *session) read() error {
	var h header
	for {
		if c.in.Buffered() < HeaderSize {
			c.submit()
		}
		b, err := c.in.Peek(HeaderSize)
		if err != nil {
			return err
		}
		if err := h.decode(b); err != nil {
			return err
		}
		c.in.Discard(HeaderSize) //nolint:errcheck // it was peeked
		switch h.kind {
		case kindPing:
		case kindRead, kindWrite, kindZero, kindFlush:
			if err := c.take(&h); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%w: a Front sent a %v", ErrCorrupt, h.kind)
		}
	}
}

func (c *session) submit() {
	if len(c.batch) == 0 {
		return
	}
	c.volume.Submit(c.batch)
	clear(c.batch)
	c.batch = c.batch[:0]
}

// take makes a request of a frame, and reads its data.
func (c *session) take(h *header) error {
	if h.offset+uint64(h.length) > c.size {
		return fmt.Errorf("%w: a %v at %d+%d is outside the volume of %d bytes", ErrCorrupt, h.kind, h.offset, h.length, c.size)
	}
	var cost int64
	if h.kind == kindRead || h.kind == kindWrite {
		cost = int64(h.length)
	}
	if err := c.admit(cost); err != nil {
		return err
	}
	r := c.request(h, cost)
	if h.kind == kindWrite {
		if c.in.Buffered() < len(r.op.Data) {
			c.submit() // never sit on whole requests while waiting
		}
		_, err := io.ReadFull(c.in, r.op.Data)
		if err == nil {
			err = h.verify(r.op.Data)
		}
		if err != nil {
			r.sent()
			return err
		}
	}
	c.batch = append(c.batch, &r.op)
	return nil
}

// request fills a pooled request.
func (c *session) request(h *header, cost int64) *request {
	r := requestPool.Get().(*request)
	r.session, r.tag, r.cost = c, h.tag, cost
	r.op.Tag = r
	r.op.Kind, r.op.Off, r.op.Len = opOfKind(h.kind), int64(h.offset), int64(h.length)
	r.op.FUA, r.op.NoHole = h.flags&flagFUA != 0, h.flags&flagNoHole != 0
	if cost > 0 {
		r.buf = getBuffer(int(cost))
		r.op.Data = r.buf.b[:cost:cost]
	}
	if h.number > 0 {
		r.origin = mirror.Origin{Session: c.id, Number: h.number, Lowest: h.lowest, Retry: h.flags&flagRetry != 0}
		r.op.Origin = &r.origin
	}
	return r
}

// admit waits until a request with n bytes of data may be in flight.
func (c *session) admit(n int64) error {
	c.flowMu.Lock()
	defer c.flowMu.Unlock()
	if !c.roomLocked(n) {
		c.flowMu.Unlock()
		c.submit()
		c.flowMu.Lock()
		c.paused.Store(true)
		defer c.paused.Store(false)
		for !c.roomLocked(n) && !c.halted {
			c.room.Wait()
		}
	}
	if c.halted {
		return net.ErrClosed
	}
	c.ops++
	c.bytes += n
	return nil
}

// roomLocked says whether n bytes more fit. One request always does.
func (c *session) roomLocked(n int64) bool {
	l := &c.srv.conf.Limits
	return c.ops == 0 || c.ops < l.Ops && c.bytes+n <= l.Bytes
}

// Complete implements [Sink]: ops come back from the volume, and are answered if the
// connection is still there.
func (c *session) Complete(ops []*mirror.Op) {
	for _, op := range ops {
		r := op.Tag.(*request) //nolint:errcheck // the session set it
		r.err, r.lent = op.Err, op != &r.op
	}
	c.mu.Lock()
	gone := c.closed || c.err != nil
	if !gone {
		for _, op := range ops {
			c.line.queue = append(c.line.queue, op.Tag.(*request)) //nolint:errcheck // likewise
		}
	}
	c.mu.Unlock()
	if gone {
		for _, op := range ops {
			op.Tag.(*request).sent() //nolint:errcheck // likewise
		}
		return
	}
	c.wake()
}

// encode implements frame: the answer.
func (r *request) encode(b []byte) (head, payload []byte) {
	h := header{kind: kindReply, tag: r.tag}
	switch err := r.err; {
	case retryable(err):
		h.flags = flagAgain
	case err != nil:
		if errors.Is(err, mirror.ErrForgotten) {
			h.flags = flagForgotten
		}
		text := err.Error()
		h.errno, payload = errnoOf(err), []byte(text[:min(len(text), maxErrorText)])
	case r.op.Kind == mirror.Read:
		payload = r.op.Data
	}
	return h.encode(b, payload), payload
}

// errnoOf is what an error is on the wire; EIO if it is no errno.
func errnoOf(err error) uint16 {
	var e syscall.Errno
	if errors.As(err, &e) && e > 0 && e < 1<<16 {
		return uint16(e)
	}
	return uint16(syscall.EIO)
}

// sent implements frame: the request is over.
func (r *request) sent() {
	c, cost := r.session, r.cost
	if !r.lent {
		putBuffer(r.buf)
		r.op.Reset()
		r.op.Tag = nil
		r.session, r.buf, r.origin, r.err = nil, nil, mirror.Origin{}, nil
		requestPool.Put(r)
	}
	c.flowMu.Lock()
	c.ops--
	c.bytes -= cost
	c.flowMu.Unlock()
	c.room.Signal()
}
