package nbd

import (
	"errors"
	"fmt"
	"io"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// recvSize is what one receive may take. It holds 63 writes of 4 KiB.
	recvSize = 256 << 10
	// directMin is the payload size from which the part that has not arrived
	// yet is received straight into its buffer. Smaller ones wait in the
	// receive buffer until they are complete and are copied out.
	directMin = 32 << 10
	// directTail is how much may be received behind such a payload: the next
	// headers, and little of the next payload, as it is copied.
	directTail = 4 << 10
)

var (
	errDisconnect = errors.New("the client disconnected")
	errStopped    = errors.New("the connection was stopped")
	errMagic      = errors.New("the request does not begin with the request magic")
)

// receiver is the reader goroutine's: buf[r:w] was received and not parsed.
type receiver struct {
	buf    []byte
	r, w   int
	window int // how much the next receive may take

	in     transfer
	n      int
	errno  syscall.Errno
	recvFn func(fd uintptr) bool
}

func (c *conn) initReceiver() {
	in := &c.recv
	in.buf, in.window = make([]byte, recvSize), recvSize
	in.recvFn = c.recvOnce
}

// receive runs the transmission phase until the connection ends or fails.
func (c *conn) receive() error {
	for {
		err := c.parse()
		c.submit()
		if err != nil {
			return err
		}
		c.empty.Store(c.recv.r == c.recv.w)
		if err := c.fill(); err != nil {
			return err
		}
	}
}

// submit hands the parsed requests to the backend, then sends what it completed
// meanwhile, and the replies to refused requests.
func (c *conn) submit() {
	if len(c.batch) > 0 {
		c.cork()
		c.backend.Submit(c.batch)
		c.batch = c.batch[:0]
	}
	c.uncork()
}

// parse turns everything in the receive buffer into requests.
func (c *conn) parse() error {
	in := &c.recv
	for in.w-in.r >= requestSize {
		h, ok := parseHeader(in.buf[in.r:in.w])
		if !ok {
			return errMagic
		}
		if h.cmd == CmdDisc {
			return errDisconnect
		}
		size := h.payloadSize()
		if size < directMin && in.w-in.r < requestSize+size {
			return nil
		}
		if err := c.admit(h.cost()); err != nil {
			return err
		}
		in.r += requestSize
		if err := c.take(c.newRequest(h), size); err != nil {
			return err
		}
	}
	return nil
}

// admit waits until a request of n buffer bytes may be in flight.
func (c *conn) admit(n int64) error {
	if !c.flow.room(n) {
		c.submit()
		c.flow.wait(func() bool { return c.flow.room(n) || c.stopped.Load() })
	}
	if c.stopped.Load() {
		return errStopped
	}
	c.flow.add(n)
	return nil
}

// take finishes one request: it goes into the batch, or is answered here when it
// is refused or there is nothing to do. Its payload is consumed in any case.
func (c *conn) take(r *Request, payload int) error {
	r.Err = c.validate(r)
	if r.Err != nil || r.Length == 0 && r.Cmd != CmdFlush {
		c.submit() // so that an inline backend's replies keep the order of requests
		c.enqueue1(r)
		return c.discard(payload)
	}
	switch r.Cmd {
	case CmdRead:
		r.allocData()
	case CmdWrite:
		r.allocData()
		if err := c.payload(r.Data); err != nil {
			c.release([]*Request{r})
			return err
		}
	}
	c.batch = append(c.batch, r)
	return nil
}

// payload fills dst from the receive buffer and, for what has not arrived, from
// the socket.
func (c *conn) payload(dst []byte) error {
	in := &c.recv
	n := copy(dst, in.buf[in.r:in.w])
	in.r += n
	if n == len(dst) {
		in.window = recvSize
		return nil
	}
	c.submit() // never sit on complete requests while waiting
	in.window = directTail
	for n < len(dst) {
		m, err := c.recvInto(dst[n:])
		if err != nil {
			return err
		}
		n += m
	}
	return nil
}

// discard drops n bytes of payload.
func (c *conn) discard(n int) error {
	in := &c.recv
	for {
		m := min(n, in.w-in.r)
		in.r += m
		if n -= m; n == 0 {
			return nil
		}
		c.submit()
		if err := c.fill(); err != nil {
			return err
		}
	}
}

// fill receives behind what is left in the buffer, which is less than one small
// request.
func (c *conn) fill() error {
	in := &c.recv
	in.w = copy(in.buf, in.buf[in.r:in.w])
	in.r = 0
	in.in.reset()
	in.in.add(in.buf[in.w:max(in.window, in.w+directTail)])
	n, err := c.recvWait()
	in.w += n
	in.window = recvSize
	return err
}

// recvInto receives into dst, and what follows into the empty receive buffer. It
// returns how much of dst was filled.
func (c *conn) recvInto(dst []byte) (int, error) {
	in := &c.recv
	in.in.reset()
	in.in.add(dst)
	in.in.add(in.buf[:directTail])
	n, err := c.recvWait()
	in.r, in.w = 0, max(0, n-len(dst))
	return n - in.w, err
}

// recvWait receives once, waiting for data if there is none.
func (c *conn) recvWait() (int, error) {
	in := &c.recv
	if c.stopped.Load() {
		return 0, errStopped
	}
	if err := c.raw.Read(in.recvFn); err != nil {
		if c.stopped.Load() {
			err = errStopped
		}
		return 0, err
	}
	switch {
	case in.errno != 0:
		return 0, fmt.Errorf("receive: %w", in.errno)
	case in.n == 0:
		return 0, io.EOF
	}
	return in.n, nil
}

// recvOnce is one turn of recvWait; false makes it wait for data.
func (c *conn) recvOnce(fd uintptr) bool {
	in := &c.recv
	in.n, in.errno = in.in.recv(fd)
	if in.n > 0 {
		c.empty.Store(false)
	}
	return in.errno != unix.EAGAIN
}
