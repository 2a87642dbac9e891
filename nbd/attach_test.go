package nbd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// shelf is a catalogue of exports by name; NAME@CLIENT is NAME for one client.
type shelf struct {
	mu      sync.Mutex
	exports map[string]Export
}

func (s *shelf) put(e Export) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.exports == nil {
		s.exports = map[string]Export{}
	}
	s.exports[e.Name] = e
}

func (s *shelf) remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.exports, name)
}

func (s *shelf) List() (all []Export) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.exports {
		all = append(all, Export{Name: e.Name})
	}
	return all
}

func (s *shelf) Find(name string) (Export, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	volume, _, _ := strings.Cut(name, "@")
	if volume == "secret" {
		return Export{}, errors.New("not for you")
	}
	e, ok := s.exports[volume]
	if !ok {
		return Export{}, fmt.Errorf("%q: %w", name, fs.ErrNotExist)
	}
	e.Group = name
	return e, nil
}

// attachment is a backend that says when it is closed.
type attachment struct {
	Backend
	closed chan struct{}
	over   chan struct{}
}

func (a *attachment) Close() { close(a.closed) }

func (a *attachment) Over() <-chan struct{} { return a.over }

// attaching is an export whose connections each get an attachment, which is sent to
// the channel.
func attaching(b Backend) (Export, <-chan *attachment) {
	got := make(chan *attachment, 10)
	e := disk(1 << 20)
	e.Backend = nil
	e.Attach = func(context.Context) (Attachment, error) {
		a := &attachment{Backend: b, closed: make(chan struct{})}
		got <- a
		return a, nil
	}
	return e, got
}

func dialName(t testing.TB, path, name string) (*Client, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := Dial(ctx, "nbd+unix:///"+name+"?socket="+path)
	if err == nil {
		t.Cleanup(func() { c.Close() })
	}
	return c, err
}

// TestExportsComeAndGo: a catalogue is asked each time, and a client of a dropped
// export is hung up on.
func TestExportsComeAndGo(t *testing.T) {
	s := new(shelf)
	server, path := start(t, Config{Catalog: s})
	for _, name := range []string{"disk", "secret"} {
		if _, err := dialName(t, path, name); err == nil || (name == "secret") != strings.Contains(err.Error(), "not for you") {
			t.Errorf("%s: %v", name, err)
		}
	}
	e, got := attaching(newMemory())
	s.put(e)
	one, err := dialName(t, path, "disk")
	if err != nil {
		t.Fatal(err)
	}
	two, err := dialName(t, path, "disk@vm")
	if err != nil {
		t.Fatal(err)
	}
	a, b := <-got, <-got
	if a == b {
		t.Error("two connections share a backend")
	}
	for _, c := range []*Client{one, two} {
		if err := c.Flush(); err != nil {
			t.Error(err)
		}
	}
	s.remove("disk")
	server.DropExport("another")
	if err := one.Flush(); err != nil {
		t.Errorf("after another was dropped: %v", err)
	}
	server.DropExport("disk")
	<-a.closed
	<-b.closed
	for _, c := range []*Client{one, two} {
		if err := c.Flush(); err == nil {
			t.Error("a client of a dropped export is served")
		}
	}
	if _, err := dialName(t, path, "disk"); err == nil {
		t.Error("a removed export is served")
	}
}

// TestInfoOpensNothing: who only asks gets an answer and no backend.
func TestInfoOpensNothing(t *testing.T) {
	e, got := attaching(newMemory())
	s := new(shelf)
	s.put(e)
	nc := dialUnix(t, serve(t, Config{Catalog: s}))
	nc.SetDeadline(time.Now().Add(10 * time.Second))                                                              //nolint:errcheck // the read reports it
	io.WriteString(nc, "\x00\x00\x00\x03"+"IHAVEOPT\x00\x00\x00\x06\x00\x00\x00\x0a\x00\x00\x00\x04disk\x00\x00"+ //nolint:errcheck // likewise
		"IHAVEOPT\x00\x00\x00\x03\x00\x00\x00\x00"+"IHAVEOPT\x00\x00\x00\x02\x00\x00\x00\x00")
	b, err := io.ReadAll(nc)
	if err != nil || !strings.Contains(string(b), "\x00\x00\x00\x04disk") {
		t.Errorf("answer %q, %v", b, err)
	}
	select {
	case <-got:
		t.Error("INFO or LIST opened the export")
	default:
	}
}

// TestAttachMayFailAndBeTriedAgain: the client hears why, on the same connection.
func TestAttachMayFailAndBeTriedAgain(t *testing.T) {
	e, _ := attaching(newMemory())
	attach, tries := e.Attach, 0
	e.Attach = func(ctx context.Context) (Attachment, error) {
		if tries++; tries == 1 {
			return nil, errors.New("no primary yet")
		}
		return attach(ctx)
	}
	nc := dialUnix(t, serve(t, Config{Exports: []Export{e}}))
	nc.SetDeadline(time.Now().Add(10 * time.Second)) //nolint:errcheck // the read reports it
	const enter = "IHAVEOPT\x00\x00\x00\x07\x00\x00\x00\x0a\x00\x00\x00\x04disk\x00\x00"
	io.WriteString(nc, "\x00\x00\x00\x03"+enter) //nolint:errcheck // likewise
	b := make([]byte, 18+20+len("the export cannot be used now: no primary yet"))
	if _, err := io.ReadFull(nc, b); err != nil || !strings.HasSuffix(string(b), "no primary yet") {
		t.Fatalf("first answer %q, %v", b, err)
	}
	io.WriteString(nc, enter) //nolint:errcheck // likewise
	b = make([]byte, 20+12+20+14+20)
	if _, err := io.ReadFull(nc, b); err != nil {
		t.Fatalf("second answer %q, %v", b, err)
	}
	nc.Write(request(header{cmd: CmdFlush, cookie: 7})) //nolint:errcheck // likewise
	if errno, cookie := readReply(t, nc); errno != 0 || cookie != 7 {
		t.Errorf("reply %d to %d", errno, cookie)
	}
}

// TestAttachEndsWithItsClient: nothing is opened for who does not wait, nor waited for
// beyond the handshake's time.
func TestAttachEndsWithItsClient(t *testing.T) {
	for name, limits := range map[string]Limits{"client gone": {}, "time over": {Handshake: 100 * time.Millisecond}} {
		t.Run(name, func(t *testing.T) {
			e := disk(1 << 20)
			began, ended := make(chan struct{}), make(chan struct{})
			e.Attach = func(ctx context.Context) (Attachment, error) {
				close(began)
				<-ctx.Done()
				close(ended)
				return nil, ctx.Err()
			}
			nc := dialUnix(t, serve(t, Config{Exports: []Export{e}, Limits: limits}))
			io.WriteString(nc, enterDefault) //nolint:errcheck // the next line waits for it
			<-began
			if name == "client gone" {
				nc.Close()
			}
			<-ended
		})
	}
}

// TestNamedClientsDoNotWaitForEachOther: only who may be the same waits for a dying
// connection.
func TestNamedClientsDoNotWaitForEachOther(t *testing.T) {
	held := make(chan []*Request, 10)
	m := newMemory()
	m.later = func(b []*Request) { held <- b }
	e, got := attaching(m)
	shelf := new(shelf)
	shelf.put(e)
	s, path := start(t, Config{Catalog: shelf})
	old := dialUnix(t, path)
	enter := func(nc net.Conn, name string) {
		nc.SetDeadline(time.Now().Add(10 * time.Second)) //nolint:errcheck // the read reports it
		fmt.Fprintf(nc, "\x00\x00\x00\x03IHAVEOPT\x00\x00\x00\x01\x00\x00\x00%c%s", len(name), name)
	}
	enter(old, "disk@a")
	first := <-got
	old.Write(request(header{cmd: CmdFlush})) //nolint:errcheck // the next line waits for it
	batch := <-held
	if batch[0].Abandoned() {
		t.Error("abandoned, and its client is there")
	}
	old.Close()
	waitFor(t, "the server to see the end", batch[0].Abandoned)
	same := dialUnix(t, path)
	enter(same, "disk@a")
	if _, err := dialName(t, path, "disk@b"); err != nil {
		t.Fatal(err)
	}
	<-got
	if s.dying("disk@a") == nil || s.dying("disk@b") != nil {
		t.Error("the wrong client is dying")
	}
	select {
	case <-got:
		t.Error("the same client was let in before its old connection was drained")
	default:
	}
	Complete(batch)
	<-first.closed
	<-got
}

// TestFreshMemory: a read is answered from memory that a late disk cannot reach.
func TestFreshMemory(t *testing.T) {
	held := make(chan []*Request, 1)
	m := newMemory()
	m.later = func(b []*Request) { held <- b }
	e := disk(1 << 20)
	e.Backend = m
	nc := rawClient(t, serve(t, Config{Exports: []Export{e}}))
	nc.Write(request(header{cmd: CmdRead, length: 4})) //nolint:errcheck // the next line waits for it
	batch := <-held
	late := batch[0].Data
	batch[0].Fresh()
	copy(batch[0].Data, "good")
	copy(late, "late")
	Complete(batch)
	b := make([]byte, simpleReplySize+4)
	if _, err := io.ReadFull(nc, b); err != nil || string(b[simpleReplySize:]) != "good" {
		t.Errorf("the client reads %q, %v", b[simpleReplySize:], err)
	}
}
