package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"lockstep/nbd"
)

// path is the sockets of one stay with a server. The kernel has them, too.
type path struct {
	server nbd.Endpoint
	info   nbd.Info
	fds    []int
}

// dial makes a path: count connections to one server, each past its handshake. ctx
// bounds it.
func dial(ctx context.Context, server nbd.Endpoint, export string, count int) (*path, error) {
	p := &path{server: server}
	for range count {
		fd, info, err := dialOne(ctx, server, export)
		if err == nil && len(p.fds) > 0 && info != p.info {
			err = errors.New("its connections are not told the same of the export")
			unix.Close(fd)
		}
		if err != nil {
			p.close()
			return nil, err
		}
		p.fds, p.info = append(p.fds, fd), info
	}
	if count > 1 && p.info.Flags&nbd.CanMultiConn == 0 {
		p.close()
		return nil, &unfit{fmt.Sprintf("the server does not say that %d connections may be used at once (CAN_MULTI_CONN): use one", count)}
	}
	return p, nil
}

func dialOne(ctx context.Context, server nbd.Endpoint, export string) (fd int, info nbd.Info, err error) {
	nc, err := new(net.Dialer).DialContext(ctx, server.Network, server.Address)
	if err != nil {
		return 0, info, err
	}
	defer nc.Close() // which leaves the copy open
	if info, err = nbd.Negotiate(ctx, nc, export); err != nil {
		return 0, info, err
	}
	fd, err = duplicate(nc)
	return fd, info, err
}

// duplicate returns a descriptor of nc's socket that is not Go's.
func duplicate(nc net.Conn) (fd int, err error) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return 0, errors.New("the connection is not a socket")
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0, err
	}
	failed := raw.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 3) })
	return fd, errors.Join(failed, err)
}

// shut ends the connections, so that the kernel gives them up.
func (p *path) shut() {
	for _, fd := range p.fds {
		unix.Shutdown(fd, unix.SHUT_RDWR) //nolint:errcheck // it is closed already, or the kernel notices by itself
	}
}

// close gives up what this process has of the sockets; the kernel's stay open.
func (p *path) close() {
	for _, fd := range p.fds {
		unix.Close(fd)
	}
	p.fds = nil
}

// watchEvery bounds how long a path is watched without a look at the context.
const watchEvery = 100 * time.Millisecond

// watch returns true when a connection has ended, by either side, and false when ctx
// ends first.
func (p *path) watch(ctx context.Context) bool {
	for ctx.Err() == nil {
		if p.lost(watchEvery) {
			return true
		}
	}
	return false
}

// lost waits, at most for a time, until a connection has ended, and says whether one has.
func (p *path) lost(wait time.Duration) bool {
	polled := make([]unix.PollFd, len(p.fds))
	for i, fd := range p.fds {
		polled[i] = unix.PollFd{Fd: int32(fd), Events: unix.POLLRDHUP}
	}
	n, err := unix.Poll(polled, int(wait.Milliseconds()))
	return err == nil && n > 0
}

// left lists the sockets that the kernel has not taken.
func (p *path) left() (fds []int) {
	for _, fd := range p.fds {
		if !taken(fd) {
			fds = append(fds, fd)
		}
	}
	return fds
}

// where names the server, for people.
func (p *path) where() string { return p.server.Network + ":" + p.server.Address }

// unfit says why an export can never be used as it is wanted.
type unfit struct{ why string }

func (u *unfit) Error() string { return u.why }
