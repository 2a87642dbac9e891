package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"lockstep/mirror"
)

// stepVolume is a volume that does what the test says, when it says so.
type stepVolume struct {
	t     *testing.T
	ops   []*mirror.Op
	other *stepVolume
}

func (v *stepVolume) Submit(ops []*mirror.Op) {
	for _, op := range ops {
		if v.other != nil && slices.Contains(v.other.ops, op) {
			v.t.Error("an op is with two volumes")
		}
		if op.Err != nil {
			v.t.Errorf("an op comes with the error %v", op.Err)
		}
	}
	v.ops = append(v.ops, ops...)
}

// give gives the op at i back.
func (v *stepVolume) give(i int, err error) {
	op := v.ops[i]
	v.ops = slices.Delete(v.ops, i, i+1)
	op.Err = err
	Dispatch([]*mirror.Op{op})
}

// TestFrontAtRandom: whatever becomes of routes, each op is given back once, with
// its own Tag, is never with two, is marked if and only if it was sent before, and
// says truly up to where the client has answers.
func TestFrontAtRandom(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 2))
		a, b := &stepVolume{t: t}, &stepVolume{t: t}
		a.other, b.other = b, a
		volumes := []*stepVolume{a, b}
		c := newCaller(FrontConfig{})
		var calls []*call
		sent := map[uint64]bool{}
		answered := func(n uint64) bool { return int(n) > len(calls) || calls[n-1].n > 0 }
		seen := [2]int{}
		look := func() { // at what has newly come to a volume
			for i, v := range volumes {
				for _, op := range v.ops[min(seen[i], len(v.ops)):] {
					from := op.Origin
					if from.Retry != sent[from.Number] {
						t.Fatalf("seed %d: op %d has retry %v, sent before %v", seed, from.Number, from.Retry, sent[from.Number])
					}
					for n := uint64(1); n < from.Lowest; n++ {
						if !answered(n) {
							t.Fatalf("seed %d: op %d says that %d is answered", seed, from.Number, n)
						}
					}
					if answered(from.Lowest) {
						t.Fatalf("seed %d: op %d says that %d is not answered", seed, from.Number, from.Lowest)
					}
					sent[from.Number] = true
				}
				seen[i] = len(v.ops)
			}
		}
		for range 200 {
			switch i := rng.IntN(2); rng.IntN(6) {
			case 0, 1:
				calls = append(calls, c.start(mirror.Write, 0, 0))
			case 2, 3:
				if n := len(volumes[i].ops); n > 0 {
					err := []error{nil, syscall.ENOSPC, mirror.ErrDeposed, fmt.Errorf("%w: %w", mirror.ErrFailed, syscall.EIO)}[rng.IntN(4)]
					volumes[i].give(rng.IntN(n), err)
					seen[i]--
				}
			case 4:
				c.front.Route(Route{Volume: volumes[i]})
			case 5:
				c.front.Route(Route{})
			}
			look()
		}
		c.front.Fail(syscall.EIO)
		for _, v := range volumes {
			for len(v.ops) > 0 {
				v.give(0, mirror.ErrClosed)
			}
		}
		for i, k := range calls {
			if k.n != 1 || k.op.Origin != nil {
				t.Fatalf("seed %d: op %d was given back %d times", seed, i+1, k.n)
			}
		}
		if k := c.start(mirror.Flush, 0, 0); k.wait() != syscall.EIO {
			t.Errorf("after Fail: %v", k.op.Err)
		}
		c.front.Close()
	}
}

// TestParkedOpsGoOldestFirst: writes and reads in the order of their submission,
// those that came back among them.
func TestParkedOpsGoOldestFirst(t *testing.T) {
	v, w := &stepVolume{t: t}, &stepVolume{t: t}
	c := newCaller(FrontConfig{})
	defer c.front.Close()
	var calls []*call
	for i := range 6 {
		if i == 3 {
			c.front.Route(Route{Volume: v})
		}
		calls = append(calls, c.start([]mirror.OpKind{mirror.Read, mirror.Write, mirror.Flush}[i%3], 0, 0))
	}
	c.front.Route(Route{})
	for _, i := range []int{5, 1, 2, 0, 1, 0} {
		v.give(i, mirror.ErrClosed)
	}
	c.front.Route(Route{Volume: w})
	if len(w.ops) != len(calls) {
		t.Fatalf("%d ops went on, want %d", len(w.ops), len(calls))
	}
	for i, k := range calls {
		if w.ops[i] != &k.op {
			t.Errorf("op %d is not where it was", i)
		}
	}
	for range calls {
		w.give(0, nil)
	}
}

// TestNobodyWaitsNothingIsSentAgain: an op of a client that has gone comes back, and
// goes nowhere any more.
func TestNobodyWaitsNothingIsSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, w := &stepVolume{t: t}, &stepVolume{t: t}
		gone := map[any]bool{}
		c := newCaller(FrontConfig{Gone: func(tag any) bool { return gone[tag] }})
		defer c.front.Close()
		c.front.Route(Route{Volume: v})
		k, stays := c.start(mirror.Write, 0, 0), c.start(mirror.Write, 1, 0)
		c.front.Route(Route{})
		gone[k] = true
		v.give(0, mirror.ErrDeposed)
		v.give(0, mirror.ErrDeposed)
		if err := k.wait(); !errors.Is(err, ErrAbandoned) { // though there is no route
			t.Errorf("came back with %v", err)
		}
		c.front.Route(Route{Volume: w})
		if len(w.ops) != 1 || w.ops[0] != &stays.op {
			t.Errorf("%d ops were sent again", len(w.ops))
		}
		gone[stays] = true // it is with a volume: whoever has it will answer
		w.give(0, nil)
		if err := stays.wait(); err != nil {
			t.Errorf("what was answered has %v", err)
		}
	})
}

// TestWhatMayStillLandIsNotGivenBack: an op is with a connection that ended. Before
// another is welcome, which ends that at the other end too, the primary may be yet to
// read it, and its client must not come back and write newer data.
func TestWhatMayStillLandIsNotGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reachable, gone atomic.Bool
		conns := make(chan net.Conn, 1)
		reachable.Store(true)
		c := newCaller(FrontConfig{
			Gone: func(any) bool { return gone.Load() },
			Dial: func(context.Context, string) (net.Conn, error) {
				if !reachable.Load() {
					return nil, syscall.EHOSTUNREACH
				}
				client, server := net.Pipe()
				conns <- server
				return client, nil
			},
		})
		defer c.front.Close()
		welcome := func() net.Conn {
			nc := <-conns
			readHello(nc)                    //nolint:errcheck // the test hangs without it
			writeFrame(nc, kindWelcome, nil) //nolint:errcheck // likewise
			return nc
		}
		k := c.start(mirror.Flush, 0, 0)
		c.front.Route(Route{Addr: "it"})
		first := welcome()
		if _, err := io.ReadFull(first, make([]byte, HeaderSize)); err != nil {
			t.Fatal(err)
		}
		reachable.Store(false)
		gone.Store(true)
		first.Close()
		time.Sleep(time.Minute)
		select {
		case <-k.done:
			t.Fatal("the op was given back while it could still land")
		default:
		}
		reachable.Store(true)
		second := welcome()
		go drain(second)
		if err := k.wait(); !errors.Is(err, ErrAbandoned) {
			t.Errorf("it came back with %v", err)
		}
		second.Close()
	})
}

// TestIsolatedClientsAreTold: ops wait only so long for a primary, later ones not at
// all, and all is well again with the next one.
func TestIsolatedClientsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCaller(FrontConfig{Park: 5 * time.Second})
		defer c.front.Close()
		began := time.Now()
		if err := c.start(mirror.Write, 0, 0).wait(); !errors.Is(err, ErrIsolated) || !errors.Is(err, syscall.EIO) {
			t.Errorf("a parked write: %v", err)
		}
		if d := time.Since(began); d < 5*time.Second || d > 6*time.Second {
			t.Errorf("it waited %v", d)
		}
		began = time.Now()
		if err := c.start(mirror.Read, 0, 0).wait(); !errors.Is(err, ErrIsolated) || time.Since(began) > 0 {
			t.Errorf("a later read: %v after %v", err, time.Since(began))
		}
		c.front.Route(Route{Volume: instant{}})
		if err := c.start(mirror.Write, 0, 0).wait(); err != nil {
			t.Errorf("with a primary: %v", err)
		}
		c.front.Route(Route{})
		k := c.start(mirror.Write, 0, 0)
		time.Sleep(4 * time.Second)
		c.front.Route(Route{Volume: instant{}})
		if err := k.wait(); err != nil {
			t.Errorf("a primary came in time: %v", err)
		}
	})
}

// TestDispatchSortsByOwner: each Sink gets all of its ops at once.
func TestDispatchSortsByOwner(t *testing.T) {
	sinks := []*countingSink{{}, {}, {}}
	var ops []*mirror.Op
	for i := range 30 {
		ops = append(ops, &mirror.Op{Tag: sinkTag{sinks[i%3]}, Off: int64(i)})
	}
	if n := testing.AllocsPerRun(100, func() { Dispatch(ops) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	for i, s := range sinks {
		if s.calls != 101 || s.ops != 10*101 || s.sum%101 != 0 {
			t.Errorf("sink %d got %d ops in %d calls", i, s.ops, s.calls)
		}
	}
	Dispatch(nil)
}

type countingSink struct {
	calls, ops int
	sum        int64
}

func (s *countingSink) Complete(ops []*mirror.Op) {
	s.calls++
	s.ops += len(ops)
	for _, op := range ops {
		s.sum += op.Off
	}
}

type sinkTag struct{ s Sink }

func (t sinkTag) Sink() Sink { return t.s }
