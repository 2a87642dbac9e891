package nbd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// firstInherited is the first descriptor that socket activation passes
// (sd_listen_fds(3)).
const firstInherited = 3

// Activated returns the listeners that the process was started with by socket
// activation (LISTEN_PID and LISTEN_FDS, as systemd and libnbd set them), nil if
// there are none. It unsets the variables, so that no child takes them for its
// own; call it once, before other descriptors are opened.
func Activated() ([]net.Listener, error) {
	pid, fds := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	if pid != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		os.Unsetenv(name)
	}
	n, err := strconv.Atoi(fds)
	if err != nil || n < 1 || n > 64 {
		return nil, &Error{Op: "socket activation", Subject: fmt.Sprintf("LISTEN_FDS=%.16q", fds), Err: errors.New("not a count from 1 to 64")}
	}
	var all []net.Listener
	for fd := firstInherited; fd < firstInherited+n; fd++ {
		l, err := inheritListener(fd)
		if err != nil {
			for _, l := range all {
				l.Close()
			}
			return nil, &Error{Op: "socket activation", Subject: fmt.Sprintf("descriptor %d", fd), Err: err, Hint: "pass listening stream sockets"}
		}
		all = append(all, l)
	}
	return all, nil
}

func inheritListener(fd int) (net.Listener, error) {
	f := os.NewFile(uintptr(fd), "inherited")
	defer f.Close() // FileListener works on a duplicate that exec closes
	return net.FileListener(f)
}

// Stdio returns the client that the process was started for, as inetd and
// libnbd's nbd_connect_command do: descriptor 0 is a connected socket. It takes
// descriptors 0 and 1 out of use: reading 0 ends at once, and what is printed goes
// to standard error instead of into the protocol.
func Stdio() (net.Conn, error) {
	if _, err := unix.GetsockoptInt(0, unix.SOL_SOCKET, unix.SO_TYPE); err != nil {
		return nil, &Error{Op: "serve standard input", Err: err,
			Hint: "descriptor 0 must be a connected socket, not a pipe, terminal or file; to listen, use unix:PATH or tcp:HOST:PORT"}
	}
	nc, err := net.FileConn(os.Stdin)
	if err != nil {
		return nil, &Error{Op: "serve standard input", Err: err, Hint: "descriptor 0 must be a connected stream socket"}
	}
	if err := releaseStdio(); err != nil {
		nc.Close()
		return nil, &Error{Op: "serve standard input", Err: err}
	}
	return nc, nil
}

// releaseStdio closes the socket's copies: the client must see the connection end
// when the returned one is closed.
func releaseStdio() error {
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(null)
	if err := unix.Dup3(null, 0, 0); err != nil {
		return err
	}
	if _, err := unix.GetsockoptInt(1, unix.SOL_SOCKET, unix.SO_TYPE); err != nil {
		return nil // descriptor 1 is no socket
	}
	return unix.Dup3(2, 1, 0)
}
