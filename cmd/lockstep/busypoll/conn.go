package busypoll

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Conn is a stream socket whose reads spin before they sleep. It is a net.Conn
// and a syscall.Conn. One goroutine may read while one writes, and any may close
// it or set deadlines.
type Conn struct {
	fd            int
	local, remote net.Addr
	in, out       waiter
	spin          spinner // the reader's

	// users hold it for reading while they use fd; Close for writing.
	users  sync.RWMutex
	closed atomic.Bool
}

// waiter is one direction's way to sleep and to be woken.
type waiter struct {
	events   int16
	wake     int // eventfd: look at closed and deadline again
	woken    atomic.Bool
	deadline atomic.Int64 // Unix nanoseconds; 0 is none
}

// New takes the socket out of conn, which is a TCP or unix connection and is
// used up, also when New fails. A wait for data spins for at most limit.
func New(conn net.Conn, limit time.Duration) (*Conn, error) {
	defer conn.Close()
	sc, ok := conn.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, fmt.Errorf("busy polling needs a TCP or unix socket, not a %T", conn)
	}
	file, err := sc.File()
	if err != nil {
		return nil, fmt.Errorf("take over a socket: %w", err)
	}
	defer file.Close()
	c := &Conn{local: conn.LocalAddr(), remote: conn.RemoteAddr(), spin: spinner{limit: limit}}
	c.in.events, c.out.events = unix.POLLIN, unix.POLLOUT
	if c.in.wake, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	if c.out.wake, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		unix.Close(c.in.wake)
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	c.fd, err = unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = unix.SetNonblock(c.fd, true)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("take over a socket: %w", err), c.Close())
	}
	return c, nil
}

// SyscallConn returns the way past Read and Write to the descriptor.
func (c *Conn) SyscallConn() (syscall.RawConn, error) { return rawConn{c}, nil }

type rawConn struct{ c *Conn }

// Control calls f with the descriptor, which is non-blocking.
func (r rawConn) Control(f func(fd uintptr)) error {
	return r.c.use(func() error {
		f(uintptr(r.c.fd))
		return nil
	})
}

// Read calls f until it returns true, spinning and then sleeping in between.
func (r rawConn) Read(f func(fd uintptr) bool) error { return r.c.until(&r.c.in, f) }

// Write calls f until it returns true, sleeping in between.
func (r rawConn) Write(f func(fd uintptr) bool) error { return r.c.until(&r.c.out, f) }

// use runs f while the descriptor can't be closed.
func (c *Conn) use(f func() error) error {
	c.users.RLock()
	defer c.users.RUnlock()
	if c.closed.Load() {
		return net.ErrClosed
	}
	return f()
}

func (c *Conn) until(w *waiter, f func(fd uintptr) bool) error {
	c.users.RLock()
	defer c.users.RUnlock()
	for slept := false; ; slept = true {
		w.clear()
		if c.closed.Load() {
			return net.ErrClosed
		}
		if w.expired() {
			return os.ErrDeadlineExceeded
		}
		if f(uintptr(c.fd)) {
			if w == &c.in && !slept {
				c.spin.load()
			}
			return nil
		}
		if w == &c.in && c.spinUntil(f) {
			return nil
		}
		if err := w.sleep(c.fd); err != nil {
			return err
		}
	}
}

// spinUntil tries f again and again for as long as the spinner allows.
func (c *Conn) spinUntil(f func(fd uintptr) bool) bool {
	budget := c.spin.budget()
	if budget == 0 {
		return false
	}
	for start := time.Now(); time.Since(start) < budget; {
		unix.RawSyscallNoError(unix.SYS_SCHED_YIELD, 0, 0, 0)
		if f(uintptr(c.fd)) {
			c.spin.hit()
			return true
		}
	}
	c.spin.miss()
	return false
}

// sleep returns when the socket is ready, w was woken or its deadline is over.
func (w *waiter) sleep(fd int) error {
	fds := [2]unix.PollFd{{Fd: int32(fd), Events: w.events}, {Fd: int32(w.wake), Events: unix.POLLIN}}
	var timeout *unix.Timespec
	if d := w.deadline.Load(); d != 0 {
		t := unix.NsecToTimespec(max(0, d-time.Now().UnixNano()))
		timeout = &t
	}
	if _, err := unix.Ppoll(fds[:], timeout, nil); err != nil && err != unix.EINTR {
		return fmt.Errorf("ppoll: %w", err)
	}
	return nil
}

func (w *waiter) expired() bool {
	d := w.deadline.Load()
	return d != 0 && time.Now().UnixNano() >= d
}

// clear forgets earlier wake-ups; their reasons are looked at after it.
func (w *waiter) clear() {
	if w.woken.Swap(false) {
		var b [8]byte
		unix.Read(w.wake, b[:]) //nolint:errcheck // empty is what it is for
	}
}

func (w *waiter) poke() {
	// In this order: a clear in between leaves the flag set and reads once more in
	// vain. The other way round it would leave the eventfd set for ever.
	unix.Write(w.wake, []byte{0, 0, 0, 0, 0, 0, 0, 1}) //nolint:errcheck // full is awake enough
	w.woken.Store(true)
}

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	waitErr := c.until(&c.in, func(fd uintptr) bool {
		n, err = unix.Read(int(fd), p)
		return !retry(err)
	})
	if waitErr != nil {
		err = waitErr
	}
	if err != nil {
		return 0, c.wrap("read", err)
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// Write implements net.Conn: it returns when all of p was taken by the socket.
func (c *Conn) Write(p []byte) (done int, err error) {
	for done < len(p) && err == nil {
		var n int
		waitErr := c.until(&c.out, func(fd uintptr) bool {
			n, err = unix.SendmsgN(int(fd), p[done:], nil, nil, unix.MSG_NOSIGNAL)
			return !retry(err)
		})
		if waitErr != nil {
			n, err = 0, waitErr
		}
		done += max(n, 0)
	}
	if err != nil {
		return done, c.wrap("write", err)
	}
	return done, nil
}

func retry(err error) bool { return err == unix.EAGAIN || err == unix.EINTR }

func (c *Conn) wrap(op string, err error) error {
	return &net.OpError{Op: op, Net: c.local.Network(), Source: c.local, Addr: c.remote, Err: err}
}

// Close wakes whoever sleeps and closes the socket when nobody uses it.
func (c *Conn) Close() error {
	if c.closed.Swap(true) {
		return net.ErrClosed
	}
	unix.Shutdown(c.fd, unix.SHUT_RDWR) //nolint:errcheck // not connected any more is fine
	c.in.poke()
	c.out.poke()
	c.users.Lock()
	defer c.users.Unlock()
	return errors.Join(unix.Close(c.fd), unix.Close(c.in.wake), unix.Close(c.out.wake))
}

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadline(&c.in, t) }

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(&c.out, t) }

func (c *Conn) setDeadline(w *waiter, t time.Time) error {
	return c.use(func() error {
		if t.IsZero() {
			w.deadline.Store(0)
		} else {
			w.deadline.Store(max(1, t.UnixNano()))
		}
		w.poke()
		return nil
	})
}
