package kernel

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Numbers of the interface, spelled as linux/nbd-netlink.h spells them.
const (
	NBD_GENL_FAMILY_NAME = "nbd"
	NBD_GENL_VERSION     = 1

	NBD_CMD_CONNECT     = 1
	NBD_CMD_DISCONNECT  = 2
	NBD_CMD_RECONFIGURE = 3

	NBD_ATTR_INDEX              = 1
	NBD_ATTR_SIZE_BYTES         = 2
	NBD_ATTR_BLOCK_SIZE_BYTES   = 3
	NBD_ATTR_TIMEOUT            = 4
	NBD_ATTR_SERVER_FLAGS       = 5
	NBD_ATTR_CLIENT_FLAGS       = 6
	NBD_ATTR_SOCKETS            = 7
	NBD_ATTR_DEAD_CONN_TIMEOUT  = 8
	NBD_ATTR_BACKEND_IDENTIFIER = 10

	NBD_SOCK_ITEM = 1
	NBD_SOCK_FD   = 1
)

// Spec is what a device is to be.
type Spec struct {
	Size      uint64        // bytes
	Block     uint32        // logical and physical block size, bytes: a power of two, 512 to 4096
	Flags     uint16        // transmission flags, as the server sent them
	Timeout   time.Duration // of a request, whole seconds; then its socket is given up and it is sent again
	DeadAfter time.Duration // without a connection, whole seconds; then requests fail
	Backend   string        // who the device belongs to
}

// encode lists the attributes for device index and its sockets.
func (s *Spec) encode(index int, fds []int) []byte {
	b := appendUint32(nil, NBD_ATTR_INDEX, uint32(index))
	b = appendUint64(b, NBD_ATTR_SIZE_BYTES, s.Size)
	b = appendUint64(b, NBD_ATTR_BLOCK_SIZE_BYTES, uint64(s.Block))
	b = appendUint64(b, NBD_ATTR_TIMEOUT, uint64(s.Timeout/time.Second))
	b = appendUint64(b, NBD_ATTR_SERVER_FLAGS, uint64(s.Flags))
	b = appendUint64(b, NBD_ATTR_DEAD_CONN_TIMEOUT, uint64(s.DeadAfter/time.Second))
	b = appendSockets(b, fds)
	return appendText(b, NBD_ATTR_BACKEND_IDENTIFIER, s.Backend)
}

func appendSockets(b []byte, fds []int) []byte {
	var nested []byte
	for _, fd := range fds {
		nested = appendNest(nested, NBD_SOCK_ITEM, appendUint32(nil, NBD_SOCK_FD, uint32(fd)))
	}
	return appendNest(b, NBD_ATTR_SOCKETS, nested)
}

// Change is what becomes of a device that is connected; what is zero stays as it is.
type Change struct {
	Size    uint64        // bytes
	Timeout time.Duration // see Spec; of requests that are yet to come
	Sockets []int         // in the places of dead ones
}

func (c *Change) encode(index int, backend string) []byte {
	b := appendUint32(nil, NBD_ATTR_INDEX, uint32(index))
	if c.Size != 0 {
		b = appendUint64(b, NBD_ATTR_SIZE_BYTES, c.Size)
	}
	if c.Timeout != 0 {
		b = appendUint64(b, NBD_ATTR_TIMEOUT, uint64(c.Timeout/time.Second))
	}
	if len(c.Sockets) > 0 {
		b = appendSockets(b, c.Sockets)
	}
	return appendText(b, NBD_ATTR_BACKEND_IDENTIFIER, backend)
}

// Netlink is the kernel's interface to its NBD devices. Its methods may be called
// concurrently; the kernel does one at a time.
type Netlink struct {
	mu     sync.Mutex
	sock   *socket
	family uint16
}

// ErrNoModule: the kernel offers no NBD.
var ErrNoModule = errors.New("the kernel has no NBD devices (load its module: modprobe nbd)")

// Open finds the interface. The kernel offers it in its first network namespace only;
// elsewhere, the socket is opened in that of process 1, which needs root.
func Open() (*Netlink, error) {
	n, err := open()
	if errors.Is(err, unix.ENOENT) {
		var there *Netlink
		inside := inNamespace("/proc/1/ns/net", func() { there, err = open() })
		n, err = there, errors.Join(inside, err)
	}
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil, ErrNoModule
	case err != nil:
		return nil, fmt.Errorf("find the kernel's NBD interface: %w", err)
	}
	return n, nil
}

func open() (*Netlink, error) {
	s, err := openSocket()
	if err != nil {
		return nil, err
	}
	family, err := s.family(NBD_GENL_FAMILY_NAME)
	if err != nil {
		s.close()
		return nil, err
	}
	return &Netlink{sock: s, family: family}, nil
}

// inNamespace calls do on a thread in another network namespace. A thread that can't
// come back ends.
func inNamespace(path string, do func()) error {
	failed := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			failed <- err
			return
		}
		defer unix.Close(home)
		there, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			failed <- fmt.Errorf("open %s: %w", path, err)
			return
		}
		defer unix.Close(there)
		if err := unix.Setns(there, unix.CLONE_NEWNET); err != nil {
			failed <- fmt.Errorf("enter network namespace %s: %w", path, err)
			return
		}
		do()
		if unix.Setns(home, unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		failed <- nil
	}()
	return <-failed
}

// Close gives the interface back. Devices stay as they are.
func (n *Netlink) Close() { n.sock.close() }

func (n *Netlink) do(command uint8, attributes []byte) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, err := n.sock.do(n.family, NBD_GENL_VERSION, command, attributes)
	return err
}

// Connect makes device index of sockets that are in the transmission phase. unix.EBUSY
// means that somebody else has the device.
func (n *Netlink) Connect(index int, spec *Spec, fds []int) error {
	return n.do(NBD_CMD_CONNECT, spec.encode(index, fds))
}

// Reconfigure changes a device of that backend. The kernel answers with success also when
// it had no place for a socket: see [taken]. unix.EINVAL means that the device is not
// connected, or another backend's.
func (n *Netlink) Reconfigure(index int, backend string, change Change) error {
	return n.do(NBD_CMD_RECONFIGURE, change.encode(index, backend))
}

// Disconnect ends a device: what is in flight, and what still comes, fails. It is free
// again when nobody holds it open.
func (n *Netlink) Disconnect(index int) error {
	return n.do(NBD_CMD_DISCONNECT, appendUint32(nil, NBD_ATTR_INDEX, uint32(index)))
}

// taken reports whether the kernel sends requests by a socket: it gives each that it
// takes the send timeout of a request.
func taken(fd int) bool {
	tv, err := unix.GetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO)
	return err == nil && (tv.Sec != 0 || tv.Usec != 0)
}
