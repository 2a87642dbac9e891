package nbd

import (
	"context"
	"errors"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// enter negotiates for an export over a new connection.
func enter(t *testing.T, path, export string) (net.Conn, Info, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	nc := dialUnix(t, path)
	info, err := Negotiate(ctx, nc, export)
	return nc, info, err
}

// readRaw reads a sector as nbd.ko would: with what follows a handshake for simple replies.
func readRaw(t *testing.T, nc net.Conn) {
	t.Helper()
	nc.SetDeadline(time.Now().Add(10 * time.Second)) //nolint:errcheck // the read reports it
	if _, err := nc.Write(appendHeader(nil, header{cmd: CmdRead, cookie: 77, length: 512})); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, simpleReplySize+512)
	if _, err := io.ReadFull(nc, b); err != nil {
		t.Fatal(err)
	}
	if got := string(b[:8]); got != "\x67\x44\x66\x98\x00\x00\x00\x00" || b[15] != 77 {
		t.Errorf("the reply is % x, want a simple one", b[:simpleReplySize])
	}
}

func TestNegotiateLeavesTheConnection(t *testing.T) {
	path := serve(t, Config{Exports: []Export{disk(1 << 20), {Name: "ro", Size: 512, ReadOnly: true, MinBlock: 512, Backend: newMemory()}}})
	nc, info, err := enter(t, path, "disk")
	if err != nil {
		t.Fatal(err)
	}
	if info.Size != 1<<20 || info.Description != "a test disk" || info.Structured || info.Flags&(SendFlush|SendFUA|SendTrim|CanMultiConn) != SendFlush|SendFUA|SendTrim|CanMultiConn {
		t.Errorf("%+v", info)
	}
	readRaw(t, nc)
	if _, info, err = enter(t, path, "ro"); err != nil || info.Flags&IsReadOnly == 0 || info.MinBlock != 512 {
		t.Errorf("%+v, %v", info, err)
	}
	if _, _, err = enter(t, path, "none"); !errors.Is(err, ErrUnknownExport) {
		t.Errorf("no such export: %v", err)
	}
}

func TestNegotiateEndsWithItsContext(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := Negotiate(ctx, dialUnix(t, l.Addr().String()), ""); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a server that says nothing: %v", err)
	}
}

// TestInteropNegotiate enters other people's servers.
func TestInteropNegotiate(t *testing.T) {
	image, _ := image(t, 1<<20)
	for name, args := range map[string][]string{
		"nbdkit":   {"nbdkit", "-f", "-U", "SOCKET", "-e", "disk", "file", image},
		"qemu-nbd": {"qemu-nbd", "-f", "raw", "-k", "SOCKET", "-x", "disk", "-D", "of qemu", image},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := exec.LookPath(args[0]); err != nil {
				t.Skipf("%s is not installed", args[0])
			}
			path := filepath.Join(t.TempDir(), "s")
			cmd := exec.CommandContext(t.Context(), args[0], strings.Split(strings.ReplaceAll(strings.Join(args[1:], "\n"), "SOCKET", path), "\n")...)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Wait()         //nolint:errcheck // it was killed
			defer cmd.Process.Kill() //nolint:errcheck // gone already is fine
			for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
				if c, err := net.Dial("unix", path); err == nil {
					c.Close()
					break
				} else if time.Now().After(end) {
					t.Fatal(err)
				}
			}
			var nc net.Conn
			var info Info
			var err error
			for range 50 { // qemu-nbd serves one client at a time: the one above may not have gone yet
				if nc, info, err = enter(t, path, "disk"); err == nil {
					break
				}
				time.Sleep(20 * time.Millisecond)
			}
			if err != nil || info.Size != 1<<20 || info.Structured || name == "qemu-nbd" && info.Description != "of qemu" {
				t.Fatalf("%+v, %v", info, err)
			}
			readRaw(t, nc)
		})
	}
}

// TestHangupIsNoReply: a request that its backend gives up for another server to do
// closes the connection, and gets no reply that would be final.
func TestHangupIsNoReply(t *testing.T) {
	m := newMemory()
	m.fault = func(r *Request) error {
		if r.Offset == 512 {
			return errors.Join(ErrHangup, errors.New("no longer here"))
		}
		return nil
	}
	nc, _, err := enter(t, serve(t, Config{Exports: []Export{{Name: "disk", Size: 4096, Backend: m}}}), "disk")
	if err != nil {
		t.Fatal(err)
	}
	readRaw(t, nc)
	if _, err := nc.Write(appendHeader(nil, header{cmd: CmdRead, offset: 512, length: 512})); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(nc); len(b) != 0 {
		t.Errorf("it got % x, %v", b, err)
	}
}

// TestABackendThatIsOver closes its connection, which has nothing in flight.
func TestABackendThatIsOver(t *testing.T) {
	over := make(chan struct{})
	a := &attachment{Backend: newMemory(), closed: make(chan struct{}), over: over}
	e := Export{Name: "disk", Size: 4096, Attach: func(context.Context) (Attachment, error) { return a, nil }}
	nc, _, err := enter(t, serve(t, Config{Exports: []Export{e}}), "disk")
	if err != nil {
		t.Fatal(err)
	}
	readRaw(t, nc)
	close(over)
	if b, err := io.ReadAll(nc); len(b) != 0 || err != nil {
		t.Errorf("it got % x, %v", b, err)
	}
	<-a.closed
}
