package port

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

func split(t *testing.T) (*Splitter, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := Split(l, quiet)
	t.Cleanup(func() { s.Close() })
	return s, l.Addr().String()
}

// TestEveryKindFindsItsWay: with all that follows the preface, and nothing of it.
func TestEveryKindFindsItsWay(t *testing.T) {
	s, addr := split(t)
	long := strings.Repeat("v", MaxName)
	ctx := context.Background()
	for name, tc := range map[string]struct {
		dial   func() (*net.TCPConn, error)
		l      net.Listener
		volume string
	}{
		"raft":        {func() (*net.TCPConn, error) { return DialRaft(ctx, addr) }, s.Raft(), ""},
		"replication": {func() (*net.TCPConn, error) { return DialReplication(ctx, addr, "vol") }, s.Replication(), "vol"},
		"forward":     {func() (*net.TCPConn, error) { return DialForward(ctx, addr, long) }, s.Forward(), long},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := tc.dial()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			fmt.Fprint(c, "what follows") //nolint:errcheck // the read reports it
			c.CloseWrite()                //nolint:errcheck // likewise
			got, err := tc.l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer got.Close()
			if v, ok := got.(*Conn); ok != (tc.volume != "") || ok && v.Volume != tc.volume {
				t.Errorf("it comes as a %T", got)
			}
			if b, err := io.ReadAll(got); string(b) != "what follows" || err != nil {
				t.Errorf("%q, %v follow", b, err)
			}
		})
	}
}

// TestHTTPGetsItsFirstByte: the request is whole.
func TestHTTPGetsItsFirstByte(t *testing.T) {
	s, addr := split(t)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Method) })}
	done := make(chan error, 1)
	go func() { done <- server.Serve(s.HTTP()) }()
	defer func() { server.Close(); <-done }()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE"} {
		req, err := http.NewRequest(method, "http://"+addr+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(b) != method || err != nil {
			t.Errorf("a %s arrives as %q, %v", method, b, err)
		}
	}
}

// TestPrefaceLeavesWithTheFirstWrite: there is one segment, not two.
func TestPrefaceLeavesWithTheFirstWrite(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := DialForward(context.Background(), l.Addr().String(), "v")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	fmt.Fprint(c, "hello") //nolint:errcheck // the read reports it
	b := make([]byte, 100)
	if n, err := peer.Read(b); string(b[:n]) != "F\x01vhello" || err != nil {
		t.Errorf("first comes %q, %v", b[:n], err)
	}
}

// TestStrangersAreShown: what begins in no known way is closed, at once.
func TestStrangersAreShown(t *testing.T) {
	s, addr := split(t)
	for _, first := range []string{"X", "\x00", "\x16\x03\x01", "V\x00", "F\x00v"} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(5 * time.Second)) //nolint:errcheck // the read reports it
		io.WriteString(c, first)                       //nolint:errcheck // likewise
		if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%q is answered with %d bytes, %v", first, n, err)
		}
		c.Close()
	}
	if _, err := DialForward(context.Background(), addr, ""); err == nil {
		t.Error("a volume without a name can be dialled")
	}
	if _, err := DialReplication(context.Background(), addr, strings.Repeat("v", MaxName+1)); err == nil {
		t.Error("a volume with a boundless name can be dialled")
	}
	s.Close()
	for _, l := range []net.Listener{s.Raft(), s.Replication(), s.Forward(), s.HTTP()} {
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
}

// TestSilentConnectionsKeepNobodyOut: the one that has waited longest makes room.
func TestSilentConnectionsKeepNobodyOut(t *testing.T) {
	s, addr := split(t)
	var silent []net.Conn
	for range MaxUndecided + 1 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		silent = append(silent, c)
	}
	silent[0].SetDeadline(time.Now().Add(5 * time.Second)) //nolint:errcheck // the read reports it
	if _, err := silent[0].Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the oldest: %v", err)
	}
	c, err := DialRaft(context.Background(), addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write([]byte{1}) //nolint:errcheck // Accept waits for it
	got, err := s.Raft().Accept()
	if err != nil {
		t.Fatal(err)
	}
	got.Close()
}

// memory is a listener of connections that a test makes.
type memory chan net.Conn

func (m memory) Accept() (net.Conn, error) {
	if c, ok := <-m; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (m memory) Close() error   { close(m); return nil }
func (m memory) Addr() net.Addr { return &net.TCPAddr{} }

// TestPatienceEnds: a preface that does not come is waited for that long.
func TestPatienceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := make(memory)
		s := Split(m, quiet)
		defer s.Close()
		client, server := net.Pipe()
		m <- server
		began := time.Now()
		client.Write([]byte("V\x05hal")) //nolint:errcheck // the read reports it
		if _, err := client.Read(make([]byte, 1)); err != io.EOF || time.Since(began) != Patience {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// FuzzPreface: whatever comes first, it is one of the kinds or refused, and what
// follows is left.
func FuzzPreface(f *testing.F) {
	for _, seed := range []string{"R", "V\x01vx", "F\x02vwxyz", "GET /", "", "V", "V\x05ab"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s := &Splitter{raft: new(listener), http: new(listener)}
		client, server := net.Pipe()
		go func() {
			client.Write(b) //nolint:errcheck // it may not be read to the end
			client.Close()
		}()
		defer server.Close()
		to, c, err := s.preface(server)
		if (to == nil) == (err == nil) || (c == nil) == (err == nil) {
			t.Fatalf("%q: %v, %v, %v", b, to, c, err)
		}
		if err != nil {
			return
		}
		want := b
		if to == s.raft {
			want = b[1:]
		}
		if rest, err := io.ReadAll(c); !bytes.Equal(rest, want) || err != nil {
			t.Errorf("%q: %q, %v are left, want %q", b, rest, err, want)
		}
	})
}
