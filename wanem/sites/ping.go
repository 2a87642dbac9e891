package sites

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// RTT is the round trip time of a number of probes.
type RTT struct {
	Median, P99, Min time.Duration
	Lost             int             // probes without a reply in time
	All              []time.Duration // of those with one, sorted
}

// replyTimeout is how much longer than the link's round trip a probe may take.
const replyTimeout = time.Second

// await returns when packets pass for the first time: a new interface's carrier
// comes up some time after it was set up.
func (p *path) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for {
		_, err := p.ping(ctx, forward, 1, 50*time.Millisecond)
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
}

// ping measures from the end where way begins.
func (p *path) ping(ctx context.Context, way way, n int, timeout time.Duration) (RTT, error) {
	var all []time.Duration
	err := p.ends[way].in.do(func() error {
		pinger, err := newPinger(p.link.RTT() + timeout)
		if err != nil {
			return err
		}
		defer pinger.close()
		for i := range n {
			if err := ctx.Err(); err != nil {
				return err
			}
			rtt, err := pinger.probe(p.ends[way.other()].seen, uint16(i))
			if errors.Is(err, os.ErrDeadlineExceeded) {
				continue
			}
			if err != nil {
				return err
			}
			all = append(all, rtt)
		}
		return nil
	})
	if err != nil {
		return RTT{}, fmt.Errorf("measure the round trip of %v: %w", p, err)
	}
	if len(all) == 0 {
		return RTT{}, fmt.Errorf("measure the round trip of %v: %d of %d probes were lost: the link is down", p, n, n)
	}
	slices.Sort(all)
	return RTT{Median: all[len(all)/2], P99: all[(len(all)*99)/100], Min: all[0], Lost: n - len(all), All: all}, nil
}

// pinger sends ICMP echo requests (RFC 792). The far kernel answers, so no
// process has to be woken there; the reply's time is the kernel's receive time
// stamp (SO_TIMESTAMPNS), so none has to be here either.
type pinger struct {
	fd  int
	id  uint16
	buf []byte
	oob []byte
}

const echoSize = 64

func newPinger(timeout time.Duration) (*pinger, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err != nil {
		return nil, fmt.Errorf("open an ICMP socket: %w", err)
	}
	tv := unix.NsecToTimeval(int64(timeout))
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv))
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("prepare an ICMP socket: %w", err)
	}
	return &pinger{fd: fd, id: uint16(os.Getpid()), buf: make([]byte, 1500), oob: make([]byte, 128)}, nil
}

func (p *pinger) close() { unix.Close(p.fd) }

// probe sends one request and waits for its reply.
func (p *pinger) probe(to netip.Addr, seq uint16) (time.Duration, error) {
	request := make([]byte, echoSize)
	request[0] = 8 // echo request
	binary.BigEndian.PutUint16(request[4:], p.id)
	binary.BigEndian.PutUint16(request[6:], seq)
	binary.BigEndian.PutUint16(request[2:], checksum(request))
	sent := time.Now()
	if err := unix.Sendto(p.fd, request, 0, &unix.SockaddrInet4{Addr: to.As4()}); err != nil {
		return 0, fmt.Errorf("send echo request to %v: %w", to, err)
	}
	for {
		n, oobn, _, _, err := unix.Recvmsg(p.fd, p.buf, p.oob, 0)
		switch {
		case err == unix.EAGAIN:
			return 0, os.ErrDeadlineExceeded
		case err == unix.EINTR:
			continue
		case err != nil:
			return 0, fmt.Errorf("receive echo reply: %w", err)
		}
		if p.isReply(p.buf[:n], seq) {
			return received(p.oob[:oobn]).Sub(sent.Round(0)), nil
		}
	}
}

// isReply says whether an IPv4 packet is the reply to our request seq.
func (p *pinger) isReply(b []byte, seq uint16) bool {
	if len(b) < 20 {
		return false
	}
	b = b[int(b[0]&15)*4:]
	return len(b) >= 8 && b[0] == 0 && binary.BigEndian.Uint16(b[4:]) == p.id && binary.BigEndian.Uint16(b[6:]) == seq
}

// received is the kernel's receive time stamp, on the wall clock.
func received(oob []byte) time.Time {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err == nil {
		for _, m := range messages {
			if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS {
				ts := (*unix.Timespec)(unsafe.Pointer(&m.Data[0]))
				return time.Unix(ts.Unix())
			}
		}
	}
	return time.Now().Round(0)
}

// checksum is the Internet checksum (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
