package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"lockstep/mirror"
)

// shake connects a client to s over a pipe. served gets Serve's result.
func shake(s *Server, v Submitter, hi hello) (nc net.Conn, served chan error, err error) {
	client, server := net.Pipe()
	served = make(chan error, 1)
	go func() { served <- s.Serve(server, v) }()
	if hi.size == 0 {
		hi.size = testSize
	}
	err = greet(client, &hi)
	return client, served, err
}

// drain reads what the other end says until that is over.
func drain(nc net.Conn) { io.Copy(io.Discard, nc) } //nolint:errcheck // it ends with an error

func TestWhoIsWelcome(t *testing.T) {
	onRecord := map[string]uint64{"moved": 7}
	for name, tc := range map[string]struct {
		before []hello
		hi     hello
		want   Reason // 0: welcome
	}{
		"without a name":          {hi: hello{session: 1, incarnation: 2}},
		"the same session again":  {before: []hello{{session: 1, incarnation: 2}}, hi: hello{session: 1, incarnation: 2}},
		"another client":          {before: []hello{{client: "a", generation: 9, incarnation: 2}}, hi: hello{client: "b", generation: 1, incarnation: 2}},
		"a newer generation":      {before: []hello{{client: "a", generation: 1, incarnation: 2}}, hi: hello{client: "a", generation: 2, incarnation: 2}},
		"an older one":            {before: []hello{{client: "a", generation: 2, incarnation: 2}}, hi: hello{client: "a", generation: 1, incarnation: 2}, want: OldGeneration},
		"older than on record":    {hi: hello{client: "moved", generation: 6, incarnation: 2}, want: OldGeneration},
		"as on record":            {hi: hello{client: "moved", generation: 7, incarnation: 2}},
		"an earlier incarnation":  {hi: hello{session: 1, incarnation: 1}, want: OtherIncarnation},
		"from a later primary":    {hi: hello{session: 1, incarnation: 3}, want: NotPrimary},
		"of a smaller volume":     {hi: hello{session: 1, incarnation: 2, size: testSize - 1}},
		"of a larger volume":      {hi: hello{session: 1, incarnation: 2, size: testSize + 1}, want: NotPrimary},
		"a refused one is no bar": {before: []hello{{client: "a", generation: 9, incarnation: 1}}, hi: hello{client: "a", generation: 1, incarnation: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			s := NewServer(ServerConfig{Size: testSize, Incarnation: 2, Generation: func(c string) uint64 { return onRecord[c] }})
			defer s.Close()
			for _, hi := range tc.before {
				nc, _, _ := shake(s, instant{}, hi) //nolint:errcheck // refused or not
				defer nc.Close()
			}
			nc, served, err := shake(s, instant{}, tc.hi)
			defer nc.Close()
			var refusal *Refusal
			switch {
			case tc.want == 0 && err != nil:
				t.Errorf("it is told %v", err)
			case tc.want != 0 && (!errors.As(err, &refusal) || refusal.Reason != tc.want):
				t.Errorf("it is told %v, want %v", err, tc.want)
			case tc.want != 0 && !errors.As(<-served, &refusal):
				t.Error("Serve does not say so")
			}
		})
	}
}

// TestANewerConnectionEndsTheOlderFirst: the newer one is welcome when nothing that
// the older one had not submitted can be any more, and when the node's own clients
// of an earlier generation are ended.
func TestANewerConnectionEndsTheOlderFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // who says nothing for 400 ms is given up
		var s *Server
		var told []uint64
		s = NewServer(ServerConfig{Size: testSize, Superseded: func(client string, generation uint64) {
			told = append(told, generation)
			if n := s.Connections(); n != 1 { // the newcomer's
				t.Errorf("%d connections when generation %d is told of", n, generation)
			}
		}})
		defer s.Close()
		v := &stepVolume{t: t}
		first, ended, err := shake(s, v, hello{client: "vm", session: 1, generation: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer first.Close()
		b := encode(header{kind: kindWrite, tag: 1, number: 1, lowest: 1, length: 512}, make([]byte, 512))
		if _, err := first.Write(b[:100]); err != nil { // half of a write
			t.Fatal(err)
		}
		second, _, err := shake(s, v, hello{client: "vm", session: 2, generation: 2})
		if err != nil {
			t.Fatal(err)
		}
		defer second.Close()
		if _, err := first.Write(b[100:]); err == nil {
			t.Error("the older connection takes the rest of its write")
		}
		if err := <-ended; !errors.Is(err, errNewer) {
			t.Errorf("the older connection ended with %v", err)
		}
		s.Supersede("vm", 3)
		if _, err := second.Write(b); err == nil {
			t.Error("a connection of a superseded generation takes a write")
		}
		if _, _, err := shake(s, v, hello{client: "vm", session: 2, generation: 2}); err == nil {
			t.Error("a superseded generation is welcome")
		}
		if len(v.ops) != 0 || len(told) != 2 || s.Connections() != 0 {
			t.Errorf("%d ops submitted, told of generations %v, %d connections", len(v.ops), told, s.Connections())
		}
	})
}

// TestCloseSilencesTheServer: after it no answer is sent and nothing is submitted;
// what the volume has completes into nothing.
func TestCloseSilencesTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // who says nothing for 400 ms is given up
		s := NewServer(ServerConfig{Size: testSize})
		submitted := make(chan []*mirror.Op, 1)
		nc, served, err := shake(s, submitterFunc(func(ops []*mirror.Op) { submitted <- append([]*mirror.Op(nil), ops...) }), hello{session: 1})
		if err != nil {
			t.Fatal(err)
		}
		nc.Write(encode(header{kind: kindFlush, tag: 1}, nil)) //nolint:errcheck // the next line waits for it
		ops := <-submitted
		s.Close()
		if err := <-served; !errors.Is(err, errServerClosed) {
			t.Errorf("Serve: %v", err)
		}
		Dispatch(ops)
		if b, err := io.ReadAll(nc); len(b) > 0 || err != nil {
			t.Errorf("the client reads %x, %v", b, err)
		}
		var refusal *Refusal
		if _, _, err := shake(s, instant{}, hello{session: 1}); !errors.As(err, &refusal) || refusal.Reason != NotPrimary {
			t.Errorf("a later client is told %v", err)
		}
	})
}

// TestErrorsCrossTheConnection: what a client does about an error depends on which it is.
func TestErrorsCrossTheConnection(t *testing.T) {
	for name, tc := range map[string]struct{ err, is, not error }{
		"forgotten":   {mirror.ErrForgotten, mirror.ErrForgotten, mirror.ErrDeposed},
		"a full disk": {fmt.Errorf("write: %w", syscall.ENOSPC), syscall.ENOSPC, mirror.ErrForgotten},
		"any other":   {errors.New("no"), syscall.EIO, mirror.ErrForgotten},
	} {
		t.Run(name, func(t *testing.T) {
			s := NewServer(ServerConfig{Size: testSize})
			v := submitterFunc(func(ops []*mirror.Op) {
				for _, op := range ops {
					op.Err = tc.err
				}
				Dispatch(ops)
			})
			c := newCaller(FrontConfig{Dial: func(context.Context, string) (net.Conn, error) {
				client, server := net.Pipe()
				go s.Serve(server, v) //nolint:errcheck // it ends with the test
				return client, nil
			}})
			defer s.Close()
			defer c.front.Close()
			c.front.Route(Route{Addr: "it"})
			for _, kind := range []mirror.OpKind{mirror.Write, mirror.Read} {
				if err := c.start(kind, 0, 0).wait(); !errors.Is(err, tc.is) || errors.Is(err, tc.not) {
					t.Errorf("a %v: %v, want %v", kind, err, tc.is)
				}
			}
		})
	}
}

type submitterFunc func([]*mirror.Op)

func (f submitterFunc) Submit(ops []*mirror.Op) { f(ops) }

// TestOneConnectionHoldsOnlySoMuch: no more ops and bytes reach the volume than are
// allowed, one always does, and waiting is not taken for silence.
func TestOneConnectionHoldsOnlySoMuch(t *testing.T) {
	for name, tc := range map[string]struct {
		limits Limits
		want   int
	}{
		"ops":        {Limits{Ops: 3}, 3},
		"bytes":      {Limits{Bytes: 2 * testBlock}, 2},
		"one always": {Limits{Bytes: 1}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var ops []*mirror.Op
				v := submitterFunc(func(more []*mirror.Op) {
					mu.Lock()
					defer mu.Unlock()
					ops = append(ops, more...)
				})
				s := NewServer(ServerConfig{Size: testSize, Limits: tc.limits})
				defer s.Close()
				c := newCaller(FrontConfig{Dial: pipeTo(s, v)})
				defer c.front.Close()
				c.front.Route(Route{Addr: "it"})
				var calls []*call
				for range 8 {
					calls = append(calls, c.start(mirror.Read, 0, 0))
				}
				for answered := 0; answered < len(calls); {
					time.Sleep(time.Minute)
					synctest.Wait()
					mu.Lock()
					batch := ops
					ops = nil
					mu.Unlock()
					if want := min(tc.want, len(calls)-answered); len(batch) != want {
						t.Fatalf("the volume has %d ops, want %d", len(batch), want)
					}
					answered += len(batch)
					Dispatch(batch)
				}
				for _, k := range calls {
					if err := k.wait(); err != nil || k.op.Origin != nil {
						t.Error(err)
					}
				}
			})
		})
	}
}

// pipeTo connects to s and v in memory.
func pipeTo(s *Server, v Submitter) func(context.Context, string) (net.Conn, error) {
	return func(context.Context, string) (net.Conn, error) {
		client, server := net.Pipe()
		go s.Serve(server, v) //nolint:errcheck // ends with the connection
		return client, nil
	}
}

// TestSilence: an end that hears nothing gives up, and one that hears heartbeats
// does not.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(ServerConfig{Size: testSize})
		nc, served, err := shake(s, instant{}, hello{session: 1})
		if err != nil {
			t.Fatal(err)
		}
		go drain(nc)
		began := time.Now()
		if err := <-served; !errors.Is(err, errSilent) {
			t.Errorf("a silent client: %v", err)
		}
		if d := time.Since(began); d < 300*time.Millisecond || d > 600*time.Millisecond {
			t.Errorf("a silent client was served for %v", d)
		}

		var dials []time.Time
		c := newCaller(FrontConfig{Dial: func(context.Context, string) (net.Conn, error) {
			dials = append(dials, time.Now())
			client, server := net.Pipe()
			if len(dials) > 1 {
				go s.Serve(server, instant{}) //nolint:errcheck // ends with the test
				return client, nil
			}
			go func() { // it is polite, and then dead
				readHello(server)                    //nolint:errcheck // the test hangs without it
				writeFrame(server, kindWelcome, nil) //nolint:errcheck // likewise
				drain(server)
			}()
			return client, nil
		}})
		c.front.Route(Route{Addr: "it"})
		if err := c.start(mirror.Write, 0, 0).wait(); err != nil {
			t.Error(err)
		}
		if d := dials[1].Sub(dials[0]); d < 300*time.Millisecond || d > 600*time.Millisecond {
			t.Errorf("a silent primary was waited for for %v", d)
		}
		time.Sleep(time.Hour)
		if err := c.start(mirror.Write, 0, 0).wait(); err != nil || len(dials) != 2 {
			t.Errorf("after an idle hour: %v, %d connections", err, len(dials))
		}
		c.front.Close()
		s.Close()
	})
}

// TestRefusalsEndASession: who has been to another node since, or whose volume may
// have forgotten, is told, once and for all.
func TestRefusalsEndASession(t *testing.T) {
	for _, reason := range []Reason{OldGeneration, OtherIncarnation} {
		told := make(chan *Refusal, 1)
		c := newCaller(FrontConfig{Refused: func(r *Refusal) { told <- r }, Dial: func(context.Context, string) (net.Conn, error) {
			client, server := net.Pipe()
			go Refuse(context.Background(), server, &Refusal{Reason: reason}) //nolint:errcheck // the client sees it
			return client, nil
		}})
		k := c.start(mirror.Write, 0, 0)
		c.front.Route(Route{Addr: "it"})
		var refusal *Refusal
		if err := k.wait(); !errors.As(err, &refusal) || refusal.Reason != reason {
			t.Errorf("%v: the op has %v", reason, err)
		}
		moved := reason == OldGeneration // its client goes on elsewhere: that is no I/O error
		if err := k.op.Err; errors.Is(err, ErrSuperseded) != moved || errors.Is(err, syscall.EIO) == moved {
			t.Errorf("%v: the op has %v", reason, err)
		}
		select {
		case <-c.front.Over():
			if !moved {
				t.Errorf("%v: its client is not told an error", reason)
			}
		default:
			if moved {
				t.Errorf("%v: its client is not let go", reason)
			}
		}
		if r := <-told; r.Reason != reason {
			t.Errorf("%v: told of %v", reason, r.Reason)
		}
		if err := c.start(mirror.Read, 0, 0).wait(); !errors.As(err, &refusal) {
			t.Errorf("%v: a later op has %v", reason, err)
		}
		c.front.Close()
	}
}

// TestTheRealPrimaryIsNamed: a Front that asked the wrong node tells whom to ask.
func TestTheRealPrimaryIsNamed(t *testing.T) {
	n := newFakeNode(t)
	told := make(chan *Refusal, 1000)
	c := newCaller(FrontConfig{Dial: dialPlain, Refused: func(r *Refusal) { told <- r }})
	defer c.front.Close()
	c.front.Route(Route{Addr: n.l.Addr().String()})
	if r := <-told; r.Reason != NotPrimary || r.Primary != "another" {
		t.Errorf("told %+v", r)
	}
}
