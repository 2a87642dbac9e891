package nbd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// waitFor fails the test unless cond becomes true soon.
func waitFor(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 10 s", what)
		}
	}
}

// enterDefault is what a client sends to enter the default export: flags and
// EXPORT_NAME.
const enterDefault = "\x00\x00\x00\x03IHAVEOPT\x00\x00\x00\x01\x00\x00\x00\x00"

// rawClient is a client that shook hands and then sends what it likes.
func rawClient(t testing.TB, path string) net.Conn {
	t.Helper()
	nc := dialUnix(t, path)
	nc.SetDeadline(time.Now().Add(20 * time.Second)) //nolint:errcheck // the next read reports it
	if _, err := io.WriteString(nc, enterDefault); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(nc, make([]byte, 18+10)); err != nil {
		t.Fatal(err)
	}
	return nc
}

func request(h header, payload ...byte) []byte {
	return append(appendHeader(nil, h), payload...)
}

// readReply reads one simple reply and returns its error and cookie.
func readReply(t testing.TB, nc net.Conn) (errno uint32, cookie uint64) {
	t.Helper()
	var b [simpleReplySize]byte
	if _, err := io.ReadFull(nc, b[:]); err != nil {
		t.Fatal(err)
	}
	return binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint64(b[8:])
}

// TestHostileClients has clients that misbehave while another one works.
func TestHostileClients(t *testing.T) {
	m := newMemory()
	m.later = shuffled(t) // one goroutine completes for all connections
	e := disk(128 << 20)
	e.Backend = m
	path := serve(t, Config{Exports: []Export{e}, Limits: Limits{Handshake: 2 * time.Second, Drain: time.Second}})
	for name, attack := range map[string]func(nc net.Conn){
		"half a handshake": func(nc net.Conn) { nc.Write([]byte("\x00\x00\x00\x03IHAVE")) }, //nolint:errcheck // attack
		"silence":          func(net.Conn) {},
		"noise":            func(nc net.Conn) { nc.Write(bytes.Repeat([]byte{0xa5}, 1<<16)) }, //nolint:errcheck // attack
	} {
		t.Run(name, func(t *testing.T) { attack(dialUnix(t, path)) })
	}
	never := rawClient(t, path)                                                         // asks for 63 MiB again and again and never reads
	go never.Write(bytes.Repeat(request(header{cmd: CmdRead, length: 63 << 20}), 1000)) //nolint:errcheck // ends with the test
	giant := rawClient(t, path)
	giant.Write(request(header{cmd: CmdWrite, length: 1<<32 - 1}, 1, 2, 3)) //nolint:errcheck // attack
	early := rawClient(t, path)
	early.Write(request(header{cmd: CmdWrite, length: 1 << 20}, make([]byte, 1000)...)) //nolint:errcheck // attack
	early.Close()

	c := connect(t, path)
	// What waits for one of them waits for ever, which a slow machine does not.
	stuck := time.AfterFunc(30*time.Second, func() { c.Close() })
	defer stuck.Stop()
	got := make([]byte, 100<<10)
	for i := range 200 {
		stuck.Reset(30 * time.Second)
		want := bytes.Repeat([]byte{byte(i)}, len(got))
		if _, err := c.WriteAt(want, int64(i)<<17); err != nil {
			t.Fatalf("write %d: %v", i, err)
		}
		if _, err := c.ReadAt(got, int64(i)<<17); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("read %d: %v", i, err)
		}
	}
}

// TestHandshakeDeadline: a client that does not finish is hung up on.
func TestHandshakeDeadline(t *testing.T) {
	path := serve(t, Config{Exports: []Export{disk(1 << 20)}, Limits: Limits{Handshake: 50 * time.Millisecond}})
	nc := dialUnix(t, path)
	nc.SetDeadline(time.Now().Add(10 * time.Second)) //nolint:errcheck // the read reports it
	if _, err := io.ReadAll(nc); err != nil {
		t.Fatalf("not hung up on: %v", err)
	}
}

// TestInFlightBound: with a backend that holds everything, no more requests reach
// it than are allowed; when it lets go, all are answered.
func TestInFlightBound(t *testing.T) {
	for _, tc := range []struct {
		name   string
		limits Limits
		length uint32
		want   int64
	}{
		{"requests", Limits{Requests: 10}, 4096, 10},
		{"bytes", Limits{Bytes: 1 << 20}, 256 << 10, 4},
		{"memory", Limits{Memory: 1 << 20}, 512 << 10, 2},
		{"one always", Limits{Bytes: 1, Memory: 1}, 512 << 10, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			const sent = 100
			held := make(chan []*Request, sent)
			var submitted atomic.Int64
			m := newMemory()
			m.later = func(b []*Request) { submitted.Add(int64(len(b))); held <- b }
			e := disk(64 << 20)
			e.Backend = m
			nc := rawClient(t, serve(t, Config{Exports: []Export{e}, Limits: tc.limits}))
			nc.SetDeadline(time.Time{})                                                       //nolint:errcheck // a unix socket takes it; the replies are much for a slow machine
			go nc.Write(bytes.Repeat(request(header{cmd: CmdRead, length: tc.length}), sent)) //nolint:errcheck // counted below
			waitFor(t, "the bound", func() bool { return submitted.Load() == tc.want })
			go io.Copy(io.Discard, nc) //nolint:errcheck // ends with the connection
			for answered := int64(0); answered < sent; {
				if n := submitted.Load(); n > answered+tc.want {
					t.Fatalf("%d submitted, %d answered", n, answered)
				}
				b := <-held
				answered += int64(len(b))
				Complete(b)
			}
		})
	}
}

// TestReplacementWaits: a client whose connection ended with writes in the
// backend is not served again before they are over, however it ended. Another
// client's connection goes on.
func TestReplacementWaits(t *testing.T) {
	two := append(request(header{cmd: CmdWrite, length: 4}, 1, 2, 3, 4), request(header{cmd: CmdTrim, length: 4})...)
	for name, tc := range map[string]struct {
		limits Limits
		end    func(nc net.Conn)
		held   int
	}{
		"closed":                      {end: func(nc net.Conn) { nc.Close() }, held: 2},
		"closed, the reader stopped":  {end: func(nc net.Conn) { nc.Close() }, held: 1, limits: Limits{Requests: 1}},
		"disconnected but not closed": {end: func(nc net.Conn) { nc.Write(request(header{cmd: CmdDisc})) }, held: 2}, //nolint:errcheck // the test hangs without it
	} {
		t.Run(name, func(t *testing.T) {
			e, held := holding()
			s, path := start(t, Config{Exports: []Export{e}, Limits: tc.limits})
			old := rawClient(t, path)
			other := rawClient(t, path)
			old.Write(two) //nolint:errcheck // the next line waits for it
			var writes []*Request
			for len(writes) < tc.held {
				writes = append(writes, <-held...)
			}
			tc.end(old)
			waitFor(t, "the server to see the end", func() bool { return s.dying("disk") != nil })

			replacement := dialUnix(t, path)
			io.WriteString(replacement, enterDefault) //nolint:errcheck // the read reports it
			attached := make(chan error, 1)
			go func() {
				_, err := io.ReadFull(replacement, make([]byte, 18+10))
				attached <- err
			}()
			gone := dialUnix(t, path)          // gives up waiting
			io.WriteString(gone, enterDefault) //nolint:errcheck // the test does not depend on it
			gone.Close()
			other.Write(request(header{cmd: CmdFlush, cookie: 9})) //nolint:errcheck // the read reports it
			Complete(<-held)
			if _, cookie := readReply(t, other); cookie != 9 {
				t.Fatalf("reply to %d", cookie)
			}
			for i := range writes { // one by one: the first finds out that the client has gone
				select {
				case <-attached:
					t.Fatal("the replacement was served before the old writes were over")
				case <-time.After(2 * attachPoll):
				}
				Complete(writes[i : i+1])
			}
			if err := <-attached; err != nil {
				t.Fatal(err)
			}
		})
	}
}

// holding is an export whose backend holds every batch until the test takes it.
func holding() (Export, <-chan []*Request) {
	held := make(chan []*Request, 100)
	m := newMemory()
	m.later = func(b []*Request) { held <- b }
	e := disk(1 << 20)
	e.Backend = m
	return e, held
}

// TestPartialPayloadHoldsUpNothing: what came before an incomplete large write is
// executed and answered while the rest is awaited.
func TestPartialPayloadHoldsUpNothing(t *testing.T) {
	nc := rawClient(t, serve(t, Config{Exports: []Export{disk(1 << 20)}}))
	both := append(request(header{cmd: CmdFlush, cookie: 1}), request(header{cmd: CmdWrite, cookie: 2, length: 1 << 20})...)
	nc.Write(both) //nolint:errcheck // the read reports it
	if _, cookie := readReply(t, nc); cookie != 1 {
		t.Fatalf("reply to %d", cookie)
	}
	nc.Write(make([]byte, 1<<20)) //nolint:errcheck // the read reports it
	if errno, cookie := readReply(t, nc); errno != 0 || cookie != 2 {
		t.Fatalf("reply %d to %d", errno, cookie)
	}
}

// TestDrainLimit: a client that ends but does not read its replies is given up.
func TestDrainLimit(t *testing.T) {
	s, err := NewServer(Config{Exports: []Export{disk(64 << 20)}, Limits: Limits{Drain: 50 * time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	client, server := socketPair(t)
	served := make(chan error, 1)
	go func() { served <- s.ServeConn(context.Background(), server) }()
	io.WriteString(client, enterDefault)                          //nolint:errcheck // the server would not end
	client.Write(request(header{cmd: CmdRead, length: 32 << 20})) //nolint:errcheck // likewise
	client.CloseWrite()                                           //nolint:errcheck // likewise
	select {
	case err := <-served:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the connection is still served")
	}
}

// serveHolding serves an export whose backend keeps every request until the test
// completes it; served gets Serve's result.
func serveHolding(t *testing.T) (s *Server, l net.Listener, held <-chan []*Request, served chan error) {
	t.Helper()
	e, held := holding()
	s, err := NewServer(Config{Exports: []Export{e}})
	if err != nil {
		t.Fatal(err)
	}
	l, err = Listen("unix:" + t.TempDir() + "/s")
	if err != nil {
		t.Fatal(err)
	}
	served = make(chan error, 1)
	go func() { served <- s.Serve(context.Background(), l) }()
	return s, l, held, served
}

// TestShutdown: what was submitted is answered, what was not is not.
func TestShutdown(t *testing.T) {
	s, l, held, served := serveHolding(t)
	nc := rawClient(t, l.Addr().String())
	nc.Write(request(header{cmd: CmdFlush, cookie: 1})) //nolint:errcheck // the read reports it
	b := <-held

	over, cancel := context.WithCancel(context.Background())
	cancel()
	idle := rawClient(t, l.Addr().String())
	down := make(chan error, 1)
	go func() { down <- s.Shutdown(context.Background()) }()
	if _, err := io.ReadAll(idle); err != nil {
		t.Errorf("idle connection: %v", err)
	}
	Complete(b)
	if errno, cookie := readReply(t, nc); errno != 0 || cookie != 1 {
		t.Errorf("reply %d, %d", errno, cookie)
	}
	if err := errors.Join(<-down, <-served); err != nil {
		t.Error(err)
	}
	for range 100 { // nothing is left to wait for: how much time there is does not matter
		if err := s.Shutdown(over); err != nil {
			t.Fatalf("of a server that is down: %v", err)
		}
	}
}

// TestShutdownForced: a backend that keeps a request does not keep Shutdown.
func TestShutdownForced(t *testing.T) {
	s, l, held, served := serveHolding(t)
	nc := rawClient(t, l.Addr().String())
	nc.Write(request(header{cmd: CmdFlush})) //nolint:errcheck // held below
	b := <-held
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("shutdown: %v", err)
	}
	if _, err := nc.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the connection: %v", err)
	}
	Complete(b)
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// TestConnectionLimit: too many connections are closed, not queued.
func TestConnectionLimit(t *testing.T) {
	path := serve(t, Config{Exports: []Export{disk(1 << 20)}, Limits: Limits{Conns: 2}})
	first := rawClient(t, path)
	rawClient(t, path)
	third := dialUnix(t, path)
	if b, err := io.ReadAll(third); len(b) > 0 || err != nil {
		t.Fatalf("the third got %x, %v", b, err)
	}
	first.Close()
	waitFor(t, "a free place", func() bool {
		nc := dialUnix(t, path)
		n, _ := nc.Read(make([]byte, 1))
		return n == 1
	})
}

// TestCompletePanics: completing twice is a backend's bug that must not pass.
func TestCompletePanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	Complete([]*Request{{}})
}

func TestConfigErrors(t *testing.T) {
	b := newMemory()
	for name, exports := range map[string][]Export{
		"none":         nil,
		"no backend":   {{Size: 1}},
		"twice":        {{Name: "a", Size: 1, Backend: b}, {Name: "a", Size: 1, Backend: b}},
		"long name":    {{Name: string(make([]byte, 5000)), Backend: b}},
		"odd size":     {{Size: 1000, MinBlock: 512, Backend: b}},
		"odd minimum":  {{MinBlock: 3, Backend: b}},
		"preferred":    {{PreferredBlock: 100, Backend: b}},
		"maximum":      {{MaxBlock: 1 << 30, Backend: b}},
		"size too big": {{Size: 1 << 63, Backend: b}},
	} {
		var e *Error
		if _, err := NewServer(Config{Exports: exports}); !errors.As(err, &e) || e.Hint == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCompleteManyConnections completes one batch that mixes connections.
func TestCompleteManyConnections(t *testing.T) {
	e, held := holding()
	path := serve(t, Config{Exports: []Export{e}})
	var clients []net.Conn
	var batch []*Request
	for cookie := range uint64(30) {
		if cookie < 10 {
			clients = append(clients, rawClient(t, path))
		}
		clients[cookie%10].Write(request(header{cmd: CmdFlush, cookie: cookie})) //nolint:errcheck // the next line waits for it
		batch = append(batch, <-held...)
	}
	Complete(batch)
	for want := range uint64(30) {
		if _, cookie := readReply(t, clients[want%10]); cookie != want {
			t.Errorf("reply to %d, want %d", cookie, want)
		}
	}
}

// TestLargestRequest: 64 MiB are written and read in one request each.
func TestLargestRequest(t *testing.T) {
	e := disk(MaxPayload)
	e.MaxBlock = MaxPayload
	c := connect(t, serve(t, Config{Exports: []Export{e}}))
	want := make([]byte, MaxPayload)
	for i := range want {
		want[i] = byte(i >> 12)
	}
	if _, err := c.WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, MaxPayload)
	if _, err := c.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%v, equal %v", err, bytes.Equal(got, want))
	}
}
