package nbd

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
)

// splitAddr splits "unix:PATH" and "tcp:HOST:PORT".
func splitAddr(addr string) (network, address string, err error) {
	network, address, ok := strings.Cut(addr, ":")
	if !ok || address == "" || network != "unix" && network != "tcp" {
		return "", "", &Error{Op: "parse address", Subject: fmt.Sprintf("%q", addr), Err: errors.New("unknown form"),
			Hint: "use unix:PATH or tcp:HOST:PORT"}
	}
	return network, address, nil
}

// Listen listens on "unix:PATH" or "tcp:HOST:PORT". A socket file that nobody
// listens on any more is replaced; closing the listener removes its own.
func Listen(addr string) (net.Listener, error) {
	network, address, err := splitAddr(addr)
	if err != nil {
		return nil, err
	}
	if network == "unix" {
		if err := removeStale(address); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen(network, address)
	if err != nil {
		return nil, &Error{Op: "listen", Subject: addr, Err: err, Hint: listenHint(err)}
	}
	return l, nil
}

func listenHint(err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return "another process has it; choose another address or stop that process"
	case errors.Is(err, fs.ErrNotExist):
		return "create the directory first"
	case errors.Is(err, fs.ErrPermission):
		return "choose an address that this user may bind"
	}
	return ""
}

// removeStale removes the socket file at path if no process listens on it. Only a
// refused connection proves that.
func removeStale(path string) error {
	fi, err := os.Lstat(path)
	if err != nil {
		return nil // missing, or net.Listen will say it better
	}
	if fi.Mode().Type() != fs.ModeSocket {
		return &Error{Op: "listen", Subject: "unix:" + path, Err: errors.New("the file exists and is not a socket"),
			Hint: "choose another path or remove the file"}
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		c.Close()
		return &Error{Op: "listen", Subject: "unix:" + path, Err: syscall.EADDRINUSE, Hint: listenHint(syscall.EADDRINUSE)}
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return nil
	}
	if err := os.Remove(path); err != nil {
		return &Error{Op: "listen", Subject: "unix:" + path, Err: err, Hint: "remove the stale socket file"}
	}
	return nil
}
