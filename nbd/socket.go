package nbd

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rawLimit is the most bytes that are moved by a system call that the Go
// scheduler is not told of. Such a call must never wait: it keeps its P. On a
// non-blocking socket it only copies, about 40 us for this much, and saves
// waking sysmon on another CPU, which costs more than the call at depth 1.
const rawLimit = 256 << 10

// transfer is a reusable non-blocking sendmsg or recvmsg.
type transfer struct {
	iov  []unix.Iovec
	msg  unix.Msghdr
	size int // bytes in iov
}

// reset empties the vector; add fills it.
func (t *transfer) reset() { t.iov, t.size = t.iov[:0], 0 }

// add appends b, which must not be empty.
func (t *transfer) add(b []byte) {
	v := unix.Iovec{Base: unsafe.SliceData(b)}
	v.SetLen(len(b))
	t.iov = append(t.iov, v)
	t.size += len(b)
}

func (t *transfer) recv(fd uintptr) (int, syscall.Errno) {
	return t.do(unix.SYS_RECVMSG, fd, unix.MSG_DONTWAIT)
}

func (t *transfer) send(fd uintptr) (int, syscall.Errno) {
	return t.do(unix.SYS_SENDMSG, fd, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
}

func (t *transfer) do(trap, fd, flags uintptr) (int, syscall.Errno) {
	t.msg.Iov = unsafe.SliceData(t.iov)
	t.msg.SetIovlen(len(t.iov))
	for {
		var n uintptr
		var errno syscall.Errno
		if t.size <= rawLimit {
			n, _, errno = syscall.RawSyscall(trap, fd, uintptr(unsafe.Pointer(&t.msg)), flags)
		} else {
			n, _, errno = syscall.Syscall(trap, fd, uintptr(unsafe.Pointer(&t.msg)), flags)
		}
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}

// peerGone reports whether the other side of the socket has closed it, even if
// unread bytes are still queued.
func peerGone(raw syscall.RawConn) bool {
	gone := true
	err := raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(p, 0)
		gone = err == nil && n > 0 && p[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
	})
	return err != nil || gone
}
