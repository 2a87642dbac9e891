package check

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// receiveBuffer holds what arrives while this process does not run: more than any
// stream is long. Without CAP_NET_ADMIN outside of a user namespace the kernel
// gives less, and overruns tells if it was not enough.
const receiveBuffer = 64 << 20

// patience is how long a receive waits before it looks at whether to go on.
const patience = 20 * time.Millisecond

// socket is a UDP socket of a site; it blocks, for at most patience.
type socket struct {
	fd  int
	oob [128]byte
}

// newSocket opens one in the network namespace of the calling thread.
func newSocket(addr netip.Addr) (*socket, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open a UDP socket: %w", err)
	}
	tv := unix.NsecToTimeval(int64(patience))
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_NO_CHECK, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv),
		unix.Bind(fd, &unix.SockaddrInet4{Addr: addr.As4()}))
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer))
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("prepare a UDP socket at %v: %w", addr, err)
	}
	return &socket{fd: fd}, nil
}

func (s *socket) close() error { return unix.Close(s.fd) }

// addr is where the socket receives.
func (s *socket) addr() (unix.Sockaddr, error) {
	to, err := unix.Getsockname(s.fd)
	if err != nil {
		return nil, fmt.Errorf("name a UDP socket: %w", err)
	}
	return to, nil
}

func (s *socket) send(b []byte, to unix.Sockaddr) error {
	for {
		err := unix.Sendto(s.fd, b, 0, to)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("send a probe: %w", err)
		}
		return nil
	}
}

// receive returns the next datagram's length and when the kernel received it; ok is
// false if none came within patience.
func (s *socket) receive(b []byte) (n int, at time.Time, ok bool, err error) {
	n, oobn, _, _, err := unix.Recvmsg(s.fd, b, s.oob[:], 0)
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return 0, at, false, nil
	case err != nil:
		return 0, at, false, fmt.Errorf("receive a probe: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(s.oob[:oobn])
	if err != nil {
		return 0, at, false, fmt.Errorf("receive a probe: %w", err)
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= int(unsafe.Sizeof(unix.Timespec{})) {
			return n, time.Unix((*unix.Timespec)(unsafe.Pointer(&m.Data[0])).Unix()), true, nil
		}
	}
	return 0, at, false, errors.New("receive a probe: the kernel did not stamp it")
}

// overruns is how many datagrams the calling thread's network namespace had no room
// for: RcvbufErrors in its /proc/net/snmp (proc_net_snmp, RFC 4113's counters).
func overruns() (uint64, error) {
	b, err := os.ReadFile("/proc/thread-self/net/snmp")
	if err != nil {
		return 0, fmt.Errorf("read UDP's counters: %w", err)
	}
	return parseOverruns(string(b))
}

// parseOverruns reads two lines that begin with "Udp:": names, then values.
func parseOverruns(text string) (uint64, error) {
	var names []string
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0 || fields[0] != "Udp:":
		case names == nil:
			names = fields
		default:
			if i := slices.Index(names, "RcvbufErrors"); i >= 0 && i < len(fields) {
				return strconv.ParseUint(fields[i], 10, 64)
			}
		}
	}
	return 0, errors.New("read UDP's counters: no RcvbufErrors in /proc/net/snmp")
}
