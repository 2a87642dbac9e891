package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"

	"lockstep/cmd/lockstep/api"
	"lockstep/cmd/lockstep/node"
	"lockstep/nbd"
)

// enter makes a connection for an export at a node, as lockstep attach does.
func (p *processes) enter(name, export string) (net.Conn, nbd.Info, error) {
	p.Helper()
	nc, err := net.Dial("unix", p.socket(name))
	if err != nil {
		p.Fatal(err)
	}
	p.Cleanup(func() { nc.Close() })
	ctx, cancel := context.WithTimeout(p.Context(), 10*time.Second)
	defer cancel()
	info, err := nbd.Negotiate(ctx, nc, export)
	return nc, info, err
}

// mustClose waits until the node closes a connection that nothing is asked on.
func (p *processes) mustClose(nc net.Conn) {
	p.Helper()
	nc.SetReadDeadline(time.Now().Add(10 * time.Second)) //nolint:errcheck // the read reports it
	if b, err := io.ReadAll(nc); len(b) != 0 || err != nil {
		p.Errorf("an earlier stay got %d bytes, %v, want its connection closed", len(b), err)
	}
}

// TestSessions takes an agent from node to node.
func TestSessions(t *testing.T) {
	p := newProcesses(t)
	p.mustAsk("w", http.MethodPost, "/volumes", api.Create{Name: "vol", Size: 16 << 20, On: []string{"a", "b"}}, nil)
	p.awaitVolume("w", "in sync", bothInSync)
	agent := node.NewAgent()
	stay := func(n int) string { return node.Session("vol", "vm", agent, n, n == 1) }

	one, other := p.dial("a", stay(1)), p.dial("a", stay(1))
	idle, info, err := p.enter("a", stay(1))
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte{7}, 512)
	for _, c := range []*nbd.Client{one, other} { // of one generation: neither fences the other
		if _, err := c.WriteAt(want, 0); err != nil {
			t.Fatal(err)
		}
	}
	moved := p.dial("b", stay(2))
	p.mustClose(idle)
	_, err = one.WriteAt(make([]byte, 512), 0)
	if err == nil || errors.As(err, new(syscall.Errno)) && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a write of an earlier stay: %v, want its connection closed without a reply", err)
	}
	got := make([]byte, 512)
	if _, err := moved.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%v, it reads %d", err, got[0])
	}
	if _, _, err := p.enter("a", stay(1)); !errors.Is(err, nbd.ErrUnknownExport) {
		t.Errorf("an earlier stay comes late: %v", err)
	}

	// Another agent under the name; the one before does not take it back.
	taker := p.dial("a", node.Session("vol", "vm", node.NewAgent(), 5, true))
	if _, err := taker.WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{"a", "b"} {
		if _, _, err := p.enter(at, stay(3)); !errors.Is(err, nbd.ErrUnknownExport) {
			t.Errorf("an agent whose name was taken over, at %s: %v", at, err)
		}
	}

	// A volume that is made anew says so.
	p.mustAsk("w", http.MethodDelete, "/volumes/vol", nil, nil)
	p.mustAsk("w", http.MethodPost, "/volumes", api.Create{Name: "vol", Size: 16 << 20, On: []string{"a", "b"}}, nil)
	p.awaitVolume("w", "in sync", bothInSync)
	_, anew, err := p.enter("a", stay(4))
	if err != nil || anew.Description == info.Description || anew.Size != info.Size {
		t.Errorf("the new volume is %q, %v, and the old one was %q", anew.Description, err, info.Description)
	}
}

// TestSessionOutlivesWhatIsForgotten has an agent at the witness while the only copy is
// killed and started again: what was applied of its writes is forgotten then, and it must
// lose its connection, not get an error that would be final.
func TestSessionOutlivesWhatIsForgotten(t *testing.T) {
	p := newProcesses(t)
	p.mustAsk("w", http.MethodPost, "/volumes", api.Create{Name: "vol", Size: 16 << 20, On: []string{"a", "b"}}, nil)
	p.awaitVolume("w", "in sync", bothInSync)
	p.procs["b"].Kill()
	p.awaitVolume("w", "without b, led by a", func(v *api.VolumeStatus) bool {
		return len(v.InSync()) == 1 && v.Primary == "a" && v.Standing != nil && v.Standing.Ready
	})
	agent := node.NewAgent()
	for round := 1; !p.forget(node.Session("vol", "vm", agent, round, round == 1)); round++ {
		if round == 10 {
			t.Fatal("in no round was anything forgotten")
		}
	}
}

// forget kills and starts the only copy's node under load, and says whether the client at
// the witness lost its connection over that.
func (p *processes) forget(session string) (hungUp bool) {
	c := p.dial("w", session)
	errs := make(chan error, 4)
	var writers sync.WaitGroup
	defer writers.Wait()
	defer c.Close()
	for i := range int64(cap(errs)) {
		writers.Go(func() {
			var err error
			for n := int64(0); err == nil; n++ {
				_, err = c.WriteAt(make([]byte, 4096), (i*64+n%64)*4096)
			}
			errs <- err
		})
	}
	time.Sleep(50 * time.Millisecond)
	p.procs["a"].Kill()
	p.start("a")
	select {
	case err := <-errs:
		if errors.Is(err, syscall.EIO) || errors.Is(err, syscall.ESHUTDOWN) {
			p.Errorf("a write came to %v", err)
		}
		return true
	case <-time.After(3 * time.Second): // nothing was in flight that could be forgotten
		return false
	}
}
