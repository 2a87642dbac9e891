package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// Sizes of the fixed parts of a generic netlink message, in bytes.
const (
	nlHeaderSize   = 16
	genlHeaderSize = 4
	attrHeaderSize = 4
)

// message is one generic netlink message, all in the machine's byte order:
//
//	 0  4  length of all of it
//	 4  2  type: the family's number
//	 6  2  flags: 1 request, 4 acknowledge
//	 8  4  sequence number, echoed
//	12  4  port, 0 is the kernel
//	16  1  command
//	17  1  version
//	18  2  reserved
//	20     attributes, each: length (2), type (2), value, padding to 4
type message struct {
	family  uint16
	flags   uint16
	seq     uint32
	command uint8
	version uint8
	attrs   []byte
}

func (m *message) encode() []byte {
	e := binary.NativeEndian
	b := e.AppendUint32(nil, uint32(nlHeaderSize+genlHeaderSize+len(m.attrs)))
	b = e.AppendUint16(b, m.family)
	b = e.AppendUint16(b, m.flags)
	b = e.AppendUint32(b, m.seq)
	b = e.AppendUint32(b, 0)
	b = append(b, m.command, m.version, 0, 0)
	return append(b, m.attrs...)
}

// appendAttr appends an attribute.
func appendAttr(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(attrHeaderSize+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func appendUint32(b []byte, kind uint16, v uint32) []byte {
	return appendAttr(b, kind, binary.NativeEndian.AppendUint32(nil, v))
}

func appendUint64(b []byte, kind uint16, v uint64) []byte {
	return appendAttr(b, kind, binary.NativeEndian.AppendUint64(nil, v))
}

// appendText appends a string with the zero byte that ends it.
func appendText(b []byte, kind uint16, v string) []byte {
	return appendAttr(b, kind, append([]byte(v), 0))
}

// appendNest appends an attribute that holds attributes.
func appendNest(b []byte, kind uint16, nested []byte) []byte {
	return appendAttr(b, kind|unix.NLA_F_NESTED, nested)
}

// attrs are a message's attributes by type; of those that come twice the last.
type attrs map[uint16][]byte

var errMalformed = errors.New("the kernel's message is malformed")

// walk calls f for each attribute in b.
func walk(b []byte, f func(kind uint16, value []byte)) error {
	for len(b) > 0 {
		if len(b) < attrHeaderSize {
			return errMalformed
		}
		n := int(binary.NativeEndian.Uint16(b))
		if n < attrHeaderSize || n > len(b) {
			return errMalformed
		}
		f(binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[attrHeaderSize:n])
		b = b[min(len(b), (n+3)&^3):]
	}
	return nil
}

func parseAttrs(b []byte) (attrs, error) {
	a := attrs{}
	err := walk(b, func(kind uint16, value []byte) { a[kind] = value })
	return a, err
}

// uint is a number of whichever size, 0 if it is not there.
func (a attrs) uint(kind uint16) uint32 {
	switch v := a[kind]; len(v) {
	case 1:
		return uint32(v[0])
	case 2:
		return uint32(binary.NativeEndian.Uint16(v))
	case 4:
		return binary.NativeEndian.Uint32(v)
	}
	return 0
}

// reply is one message from the kernel.
type reply struct {
	kind    uint16 // the family's number, or one of unix.NLMSG_*
	seq     uint32
	command uint8
	attrs   attrs
	errno   syscall.Errno // of an NLMSG_ERROR; 0 acknowledges
}

// parseReplies decodes what one receive brought.
func parseReplies(b []byte) (all []reply, err error) {
	for len(b) > 0 {
		if len(b) < nlHeaderSize {
			return nil, errMalformed
		}
		n := int(binary.NativeEndian.Uint32(b))
		if n < nlHeaderSize || n > len(b) {
			return nil, errMalformed
		}
		r := reply{kind: binary.NativeEndian.Uint16(b[4:]), seq: binary.NativeEndian.Uint32(b[8:])}
		if err := r.parseBody(b[nlHeaderSize:n]); err != nil {
			return nil, err
		}
		all = append(all, r)
		b = b[min(len(b), (n+3)&^3):]
	}
	return all, nil
}

func (r *reply) parseBody(b []byte) (err error) {
	switch {
	case r.kind == unix.NLMSG_ERROR:
		if len(b) < 4 {
			return errMalformed
		}
		r.errno = syscall.Errno(-int32(binary.NativeEndian.Uint32(b)))
		return nil
	case r.kind < unix.NLMSG_MIN_TYPE:
		return nil
	case len(b) < genlHeaderSize:
		return errMalformed
	}
	r.command = b[0]
	r.attrs, err = parseAttrs(b[genlHeaderSize:])
	return err
}

// socket is a generic netlink socket.
type socket struct {
	fd  int
	seq uint32
}

// answerTimeout bounds how long the kernel may take over a command. DISCONNECT waits
// for what is in flight to end.
const answerTimeout = 30 // s

func openSocket() (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_GENERIC)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	if err == nil {
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: answerTimeout})
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	return &socket{fd: fd}, nil
}

func (s *socket) close() { unix.Close(s.fd) }

// do sends a command and returns the answer's attributes, if it has one beside the
// acknowledgement.
func (s *socket) do(family uint16, version, command uint8, attributes []byte) (attrs, error) {
	s.seq++
	m := message{family: family, flags: unix.NLM_F_REQUEST | unix.NLM_F_ACK, seq: s.seq, command: command, version: version, attrs: attributes}
	if err := unix.Sendto(s.fd, m.encode(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("send to the kernel: %w", err)
	}
	var answer attrs
	for {
		replies, err := s.receive()
		if err != nil {
			return nil, err
		}
		for _, r := range replies {
			switch {
			case r.seq != s.seq: // of an earlier command that nobody waits for
			case r.kind == unix.NLMSG_ERROR && r.errno != 0:
				return nil, r.errno
			case r.kind == unix.NLMSG_ERROR:
				return answer, nil
			case r.kind >= unix.NLMSG_MIN_TYPE:
				answer = r.attrs
			}
		}
	}
}

func (s *socket) receive() ([]reply, error) {
	b := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(s.fd, b, 0)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return nil, fmt.Errorf("the kernel did not answer within %d s: %w", answerTimeout, unix.ETIMEDOUT)
		case err != nil:
			return nil, fmt.Errorf("receive from the kernel: %w", err)
		default:
			return parseReplies(b[:n])
		}
	}
}

// family looks a generic netlink family up by name.
func (s *socket) family(name string) (uint16, error) {
	a, err := s.do(unix.GENL_ID_CTRL, 1, unix.CTRL_CMD_GETFAMILY, appendText(nil, unix.CTRL_ATTR_FAMILY_NAME, name))
	if err != nil {
		return 0, err
	}
	if id := a.uint(unix.CTRL_ATTR_FAMILY_ID); id != 0 {
		return uint16(id), nil
	}
	return 0, errMalformed
}
