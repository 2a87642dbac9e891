package port

import (
	"context"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// The kinds of connection, as the first byte.
const (
	kindRaft        = 'R'
	kindReplication = 'V'
	kindForward     = 'F'
)

// MaxName bounds a volume's name in bytes.
const MaxName = 255

// DialRaft connects to the raft of the node at addr, HOST:PORT.
func DialRaft(ctx context.Context, addr string) (*net.TCPConn, error) {
	return dial(ctx, addr, []byte{kindRaft})
}

// DialReplication connects to the replica of a volume at the node at addr.
func DialReplication(ctx context.Context, addr, volume string) (*net.TCPConn, error) {
	return dialVolume(ctx, addr, kindReplication, volume)
}

// DialForward connects to the node at addr as one that forwards requests to a volume.
func DialForward(ctx context.Context, addr, volume string) (*net.TCPConn, error) {
	return dialVolume(ctx, addr, kindForward, volume)
}

func dialVolume(ctx context.Context, addr string, kind byte, volume string) (*net.TCPConn, error) {
	if len(volume) == 0 || len(volume) > MaxName {
		return nil, fmt.Errorf("dial %s: a volume's name of %d bytes, 1 to %d are possible", addr, len(volume), MaxName)
	}
	return dial(ctx, addr, append([]byte{kind, byte(len(volume))}, volume...))
}

func dial(ctx context.Context, addr string, preface []byte) (*net.TCPConn, error) {
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c := nc.(*net.TCPConn) //nolint:errcheck // "tcp" yields no other
	if err := Announce(c, preface); err != nil {
		c.Close()
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
	return c, nil
}

// Preface is what a replication connection for a volume begins with, for callers
// that connect by themselves. The name has 1 to MaxName bytes.
func Preface(volume string) []byte {
	return append([]byte{kindReplication, byte(len(volume))}, volume...)
}

// Announce writes the preface so that it leaves together with what is written
// next, or after 200 ms without that.
func Announce(c *net.TCPConn, preface []byte) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Write(func(fd uintptr) bool {
		sent = unix.Sendmsg(int(fd), preface, nil, nil, unix.MSG_MORE|unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		return sent != unix.EAGAIN
	})
	if err == nil && sent != nil {
		err = fmt.Errorf("send the preface: %w", sent)
	}
	return err
}
