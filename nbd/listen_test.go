package nbd

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestListenReplacesOnlyStaleSockets(t *testing.T) {
	path := t.TempDir() + "/s"
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	l, err := Listen("unix:" + path)
	if err != nil {
		t.Fatalf("a stale socket file: %v", err)
	}
	if _, err := Listen("unix:" + path); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a socket in use: %v", err)
	}
	l.Close()
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Close the socket file is still there: %v", err)
	}
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen("unix:" + path); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("a regular file: %v", err)
	}
	for _, addr := range []string{"", "unix:", "tcp", "udp:1.2.3.4:5", "/tmp/s", "unix:/no/such/dir/s", "tcp:127.0.0.1:99999"} {
		var e *Error
		if _, err := Listen(addr); !errors.As(err, &e) {
			t.Errorf("%q: %v", addr, err)
		}
	}
}

func TestTCP(t *testing.T) {
	l, err := Listen("tcp:127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewServer(Config{Exports: []Export{disk(1 << 20)}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	c, err := Dial(ctx, "nbd://"+l.Addr().String()+"/disk")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Flush(); err != nil {
		t.Error(err)
	}
	if _, err := Dial(ctx, "nbd://"+l.Addr().String()+"/other"); err == nil || !strings.Contains(err.Error(), "no such export") {
		t.Errorf("a missing export: %v", err)
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if err := c.Flush(); err == nil {
		t.Error("a flush succeeded after the server ended")
	}
}

func TestDialGivesUp(t *testing.T) {
	l, err := Listen("tcp:127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	if _, err := Dial(ctx, "tcp:"+l.Addr().String()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a silent server: %v", err)
	}
}

// self is the command that makes this test binary a server with an inherited
// socket.
func self(t *testing.T, mode string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), serverMode+"="+mode)
	cmd.Stderr = os.Stderr
	return cmd
}

// TestStdio: descriptor 0 and 1 are the connection, and nothing printed gets
// into it.
func TestStdio(t *testing.T) {
	client, server := socketPair(t)
	file, err := server.File()
	if err != nil {
		t.Fatal(err)
	}
	cmd := self(t, "stdio")
	var printed strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = file, file, &printed
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	file.Close()
	server.Close()
	n := newNegotiation(client, "")
	if err := n.run(); err != nil {
		t.Fatal(err)
	}
	c := newClient(client, n.r, n.info, n.contextID)
	if c.Size() != 5<<20 {
		t.Errorf("size %d", c.Size())
	}
	if err := c.Flush(); err != nil {
		t.Error(err)
	}
	c.Close()
	if err := cmd.Wait(); err != nil || !strings.Contains(printed.String(), "must not reach") {
		t.Errorf("%v, %s", err, printed.String())
	}
}

func TestStdioPipe(t *testing.T) {
	cmd := self(t, "stdio")
	cmd.Stdin, cmd.Stderr = strings.NewReader("hello"), nil
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "not a pipe") {
		t.Errorf("%v: %s", err, out)
	}
}

// TestActivated starts the server the way systemd does, with the listening
// socket as descriptor 3.
func TestActivated(t *testing.T) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: t.TempDir() + "/s"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	// LISTEN_PID must be the server's own: a shell that becomes it knows it.
	cmd := self(t, "activated")
	cmd.Args = []string{"sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$0"`, cmd.Path}
	cmd.Path = "/bin/sh"
	cmd.ExtraFiles = []*os.File{file}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := connect(t, l.Addr().String())
	if c.Size() != 5<<20 {
		t.Errorf("size %d", c.Size())
	}
	cmd.Process.Signal(syscall.SIGTERM) //nolint:errcheck // Wait reports it
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestActivatedAbsent(t *testing.T) {
	t.Setenv("LISTEN_PID", "1")
	t.Setenv("LISTEN_FDS", "1")
	if l, err := Activated(); l != nil || err != nil {
		t.Errorf("meant for another process: %v, %v", l, err)
	}
}
