package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socket is one end of a replication connection. It is read by one goroutine
// and written, without ever waiting, by whichever goroutine has something to
// send. The calls are raw: a non-blocking socket call is over in microseconds,
// and telling the scheduler about it costs a wake-up of sysmon on another CPU.
type socket struct {
	conn net.Conn
	raw  syscall.RawConn

	in struct { // of the recv in progress; owned by the reading goroutine
		buf   []byte
		n     int
		errno syscall.Errno
		step  func(fd uintptr) bool
	}
	out struct { // of the send in progress; owned by the sending goroutine
		iovs  []unix.Iovec
		n     int
		errno syscall.Errno
		step  func(fd uintptr) bool
		try   func(fd uintptr)
	}
}

func newSocket(conn net.Conn) (*socket, error) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("connection of type %T has no file descriptor", conn)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &socket{conn: conn, raw: raw}
	s.in.step, s.out.step = s.recvOnce, s.sendStep
	s.out.try = func(fd uintptr) { s.sendStep(fd) }
	return s, nil
}

// recv waits for bytes and returns how many came: io.EOF at the end.
func (s *socket) recv(buf []byte) (int, error) {
	s.in.buf = buf
	if err := s.raw.Read(s.in.step); err != nil {
		return 0, err
	}
	switch {
	case s.in.errno != 0:
		return 0, fmt.Errorf("receive: %w", s.in.errno)
	case s.in.n == 0:
		return 0, io.EOF
	}
	return s.in.n, nil
}

func (s *socket) recvOnce(fd uintptr) bool {
	n, errno := recvNow(fd, s.in.buf)
	s.in.n, s.in.errno = n, errno
	return errno != syscall.EAGAIN
}

// trySend sends some of iovs without ever sleeping and returns how many bytes
// that was; 0 and no error means that nothing fits now. One goroutine at a time
// may use trySend and send.
func (s *socket) trySend(iovs []unix.Iovec) (int, error) {
	s.out.iovs = iovs
	return s.sent(s.raw.Control(s.out.try))
}

// send is trySend that sleeps until something fits.
func (s *socket) send(iovs []unix.Iovec) (int, error) {
	s.out.iovs = iovs
	return s.sent(s.raw.Write(s.out.step))
}

func (s *socket) sendStep(fd uintptr) bool {
	s.out.n, s.out.errno = sendNow(fd, s.out.iovs)
	return s.out.errno != syscall.EAGAIN
}

func (s *socket) sent(err error) (int, error) {
	switch {
	case err != nil:
		return 0, err
	case s.out.errno == syscall.EAGAIN:
		return 0, nil
	case s.out.errno != 0:
		return 0, fmt.Errorf("send: %w", s.out.errno)
	}
	return s.out.n, nil
}

// dial connects to a replica so that a dead path is noticed within timeout: the
// kernel gives up when sent bytes stay unacknowledged for that long.
func dial(ctx context.Context, addr, congestion string, timeout time.Duration) (net.Conn, error) {
	d := net.Dialer{Timeout: timeout, Control: func(_, _ string, c syscall.RawConn) error {
		return tune(c, congestion, timeout)
	}}
	return d.DialContext(ctx, "tcp", addr)
}

func tune(c syscall.RawConn, congestion string, timeout time.Duration) error {
	var err error
	ctlErr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(timeout.Milliseconds()))
		if err == nil && congestion != "" {
			err = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, congestion)
			if err != nil {
				err = fmt.Errorf("congestion control %q: %w (see sysctl net.ipv4.tcp_allowed_congestion_control)", congestion, err)
			}
		}
	})
	return errors.Join(ctlErr, err)
}
