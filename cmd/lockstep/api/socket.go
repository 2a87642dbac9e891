package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Listen opens the socket at path with mode 0600. One that a killed process
// left there is replaced; one that somebody answers on is not.
func Listen(path string) (net.Listener, error) {
	if err := removeDeadSocket(path); err != nil {
		return nil, fmt.Errorf("listen on admin socket %s: %w", path, err)
	}
	// The file has its mode from the moment that it exists: chmod afterwards would
	// leave a gap in which others could connect.
	private := func(_, _ string, conn syscall.RawConn) (err error) {
		if ctl := conn.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); ctl != nil {
			return ctl
		}
		return err
	}
	ln, err := (&net.ListenConfig{Control: private}).Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on admin socket %s: %w%s", path, err, listenHint(err, path))
	}
	return ln, nil
}

func listenHint(err error, path string) string {
	switch {
	case len(path) >= len(unix.RawSockaddrUnix{}.Path):
		return fmt.Sprintf(" (a socket's path has at most %d bytes: give a shorter one)", len(unix.RawSockaddrUnix{}.Path)-1)
	case errors.Is(err, fs.ErrNotExist):
		return " (create its directory first)"
	case errors.Is(err, fs.ErrPermission):
		return " (choose a directory that this user may write to)"
	}
	return ""
}

// removeDeadSocket removes a socket's file if that nobody listens on it is sure.
func removeDeadSocket(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("there is a file of that name which is not a socket (choose another path, or remove it)")
	}
	conn, err := net.Dial("unix", path)
	switch {
	case err == nil:
		conn.Close()
		return errors.New("another process serves it (choose another path, or stop that process)")
	case errors.Is(err, syscall.ECONNREFUSED):
		return os.Remove(path)
	default:
		return fmt.Errorf("find out whether it is in use: %w", err)
	}
}
