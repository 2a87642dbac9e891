package forward

import (
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"lockstep/mirror"
)

// fakeNode is a node that may be primary, and is asked over TCP.
type fakeNode struct {
	l       net.Listener
	running sync.WaitGroup

	mu     sync.Mutex
	server *Server // nil: not primary
	volume *fakeVolume
	submit Submitter // volume, or a benchmark's
	conns  []net.Conn
}

func newFakeNode(t testing.TB) *fakeNode {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &fakeNode{l: l}
	n.running.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			n.running.Go(func() { n.serve(nc) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		n.stepDown()
		n.cut()
		n.running.Wait()
	})
	return n
}

func (n *fakeNode) serve(nc net.Conn) {
	n.mu.Lock()
	server, volume := n.server, n.submit
	n.conns = append(n.conns, nc)
	n.mu.Unlock()
	if server == nil {
		Refuse(context.Background(), nc, &Refusal{Reason: NotPrimary, Primary: "another"}) //nolint:errcheck // it may have gone
		return
	}
	server.Serve(nc, volume) //nolint:errcheck // connections are cut all the time
}

func (n *fakeNode) promote(d *fakeDisk, seed uint64, conf ServerConfig) {
	n.mu.Lock()
	defer n.mu.Unlock()
	conf.Size = testSize
	n.server, n.volume = NewServer(conf), newFakeVolume(d, seed)
	n.submit = n.volume
}

func (n *fakeNode) stepDown() {
	n.mu.Lock()
	server, volume := n.server, n.volume
	n.server, n.volume = nil, nil
	n.mu.Unlock()
	if volume != nil {
		volume.close()
	}
	if server != nil {
		server.Close()
	}
}

// cut ends every connection, at whatever byte it is.
func (n *fakeNode) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, nc := range n.conns {
		nc.Close()
	}
	n.conns = nil
}

func dialPlain(ctx context.Context, addr string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", addr)
}

// TestEveryOpOnceWhateverHappens: primaries change, connections break anywhere, and
// each client sees its own writes in order, every one applied once.
func TestEveryOpOnceWhateverHappens(t *testing.T) {
	const writers, perWriter, rounds = 8, 400, 60
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	d := newFakeDisk()
	nodes := []*fakeNode{newFakeNode(t), newFakeNode(t)}
	primary := nodes[0]
	primary.promote(d, rng.Uint64(), ServerConfig{})
	fronts := []*caller{newCaller(FrontConfig{Dial: dialPlain}), newCaller(FrontConfig{Dial: dialPlain})}
	route := func() { // the first front's node is nodes[0]
		if primary == nodes[0] {
			fronts[0].front.Route(Route{Volume: primary.volume})
		} else {
			fronts[0].front.Route(Route{Addr: primary.l.Addr().String()})
		}
		fronts[1].front.Route(Route{Addr: primary.l.Addr().String()})
	}
	route()

	var progress atomic.Int64
	turn := make(chan struct{}, 1)
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			client := fronts[w%len(fronts)]
			for v := range uint64(perWriter) {
				a, b := client.start(mirror.Write, int64(2*w), v), client.start(mirror.Write, int64(2*w+1), v)
				if err := a.wait(); err != nil {
					t.Errorf("writer %d: %v", w, err)
					return
				}
				got := client.start(mirror.Read, int64(2*w), 1<<60)
				if err := got.wait(); err != nil || got.value() != v {
					t.Errorf("writer %d reads %d, %v; it wrote %d", w, got.value(), err, v)
				}
				if err := b.wait(); err != nil {
					t.Errorf("writer %d: %v", w, err)
				}
				if progress.Add(1)%(writers*perWriter/rounds) == 0 {
					select {
					case turn <- struct{}{}:
					default:
					}
				}
			}
		})
	}
	over := make(chan struct{})
	go func() { all.Wait(); close(over) }()
	for running := true; running; {
		select {
		case <-turn:
		case <-over:
			running = false
			continue
		}
		switch rng.IntN(3) {
		case 0:
			primary.cut()
		case 1:
			old := primary
			if primary = nodes[rng.IntN(2)]; primary != old {
				old.stepDown()
			} else {
				primary.stepDown()
			}
			primary.promote(d, rng.Uint64(), ServerConfig{})
			route()
		case 2:
			for _, c := range fronts {
				c.front.Route(Route{})
			}
			route()
		}
	}
	for _, c := range fronts {
		c.front.Close()
	}
	d.check(t)
}
