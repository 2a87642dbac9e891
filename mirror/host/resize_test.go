package host

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"lockstep/mirror"
	"lockstep/mirror/control"
)

const grownSize = testSize + 3<<20 + 4096

// load writes at random places until it is stopped, through clients at some nodes.
type load struct {
	stop chan struct{}
	done chan error
}

// loadAt begins a load on all but the last two blocks of a volume that has not grown:
// each writer has blocks of its own, and reads what it wrote.
func (c *cluster) loadAt(nodes ...string) *load {
	l := &load{stop: make(chan struct{}), done: make(chan error, len(nodes))}
	for i, n := range nodes {
		u := c.attach(n, "")
		go func() { l.done <- l.write(u, int64(i), int64(len(nodes))) }()
	}
	return l
}

func (l *load) write(u *user, first, step int64) error {
	const blocks = testSize/4096 - 2
	for n := int64(0); ; n++ {
		select {
		case <-l.stop:
			return nil
		default:
		}
		off := (n*step + first) % blocks * 4096
		for _, op := range []*mirror.Op{
			{Kind: mirror.Write, Off: off, Len: 4096, Data: bytes.Repeat([]byte{byte(n + 1)}, 4096)},
			{Kind: mirror.Read, Off: off, Len: 4096, Data: make([]byte, 4096)},
		} {
			back := u.await(op)
			if back.Err != nil {
				return back.Err
			}
			if back.Data[0] != byte(n+1) || back.Data[4095] != byte(n+1) {
				u.t.Errorf("read at %d: %d, written was %d", off, back.Data[0], byte(n+1))
			}
		}
	}
}

func (c *cluster) end(l *load, writers int) {
	c.t.Helper()
	close(l.stop)
	for range writers {
		if err := <-l.done; err != nil {
			c.t.Errorf("a client had an error: %v", err)
		}
	}
}

// grown waits until a node leads under the grown record with these copies in sync.
func (c *cluster) grown(primary string, nodes ...string) {
	c.t.Helper()
	c.inSync(primary, nodes...)
	for _, n := range nodes {
		c.until(n+" has grown", func() bool {
			s := c.seat(n)
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.store != nil && s.store.Size() == grownSize
		})
	}
}

func TestGrowUnderLoad(t *testing.T) {
	c := newTestCluster(t, "a", "b")
	c.create("a", "b")
	c.inSync("a", "a", "b")
	before := c.attach("b", "")
	before.write(testSize-4096, 7)
	l := c.loadAt("a", "b")
	time.Sleep(50 * time.Millisecond)
	began := time.Now()
	c.do(control.ResizeVolume("vol", 0, grownSize))
	c.grown("a", "a", "b")
	t.Logf("grown after %v", time.Since(began))
	a, b := c.attach("a", ""), c.attach("b", "")
	a.write(grownSize-4096, 1)
	b.write(testSize, 2)
	c.handOver("a", "b")
	a.wantRead(grownSize-4096, 1)
	b.wantRead(testSize, 2)
	b.wantRead(testSize+4096, 0)
	before.wantRead(testSize-4096, 7)
	c.end(l, 2)
	c.inSync("b", "a", "b")
	c.nodes["a"].end()
	c.nodes["b"].end()
	c.wantGrownEqual("a", "b")
}

// handOver hands the volume over; on a slow machine the other copy may have to come back
// first, which was not heard of in time.
func (c *cluster) handOver(from, to string) {
	c.t.Helper()
	c.until("handed over to "+to, func() bool {
		_, err := c.seat(from).HandOver(context.Background(), to)
		return err == nil
	})
}

// wantGrownEqual compares the files of two nodes, which must be stopped.
func (c *cluster) wantGrownEqual(nodes ...string) {
	c.t.Helper()
	var first []byte
	for _, n := range nodes {
		files, err := filepath.Glob(filepath.Join(c.nodes[n].dir, "vol-*", "data"))
		if err != nil || len(files) != 1 {
			c.t.Fatalf("data of %s: %v, %v", n, files, err)
		}
		all, err := os.ReadFile(files[0])
		if err != nil {
			c.t.Fatal(err)
		}
		if first == nil {
			first = all
		}
		if len(all) != grownSize || !bytes.Equal(all, first) {
			c.t.Errorf("the copy of %s has %d bytes, or differs from that of %s", n, len(all), nodes[0])
		}
	}
}

// TestAttachBeforeThePrimaryGrew: who attaches between the growth on record and that of the
// primary's copy is told the new size, and waits for it; who was there goes on.
func TestAttachBeforeThePrimaryGrew(t *testing.T) {
	c := newTestCluster(t, "a", "b")
	c.create("a", "b")
	c.inSync("a", "a", "b")
	was := c.attach("b", "")
	s := c.seat("a")
	busy, release := make(chan struct{}), make(chan struct{})
	held := make(chan error, 1)
	go func() {
		held <- s.do(context.Background(), func(context.Context) error { close(busy); <-release; return nil })
	}()
	<-busy
	c.do(control.ResizeVolume("vol", 0, grownSize))
	for _, at := range []string{"a", "b"} {
		c.until("the record is at "+at, func() bool { return c.seat(at).Record().Size == grownSize })
	}
	a, b := c.attach("a", ""), c.attach("b", "")
	beyond := func(u *user, at int64) chan *mirror.Op {
		return u.start(&mirror.Op{Kind: mirror.Write, Off: at, Len: 4096, Data: bytes.Repeat([]byte{5}, 4096)})
	}
	atA, atB := beyond(a, grownSize-4096), beyond(b, testSize)
	was.write(testSize-4096, 1)
	select {
	case back := <-atA:
		t.Errorf("a write at a beyond the end of its copy ended with %v", back.Err)
	case back := <-atB:
		t.Errorf("a write at b beyond the end of the primary's copy ended with %v", back.Err)
	default:
	}
	close(release)
	if err := <-held; err != nil {
		t.Error(err)
	}
	for _, done := range []chan *mirror.Op{atA, atB} {
		select {
		case back := <-done:
			if back.Err != nil {
				t.Errorf("a write beyond the old end: %v", back.Err)
			}
		case <-time.After(patience):
			t.Fatal("a write beyond the old end: no answer")
		}
	}
	c.grown("a", "a", "b")
	b.wantRead(grownSize-4096, 5)
	a.wantRead(testSize, 5)
	was.wantRead(testSize-4096, 1)
}

// TestGrowWhileAReplicaIsAway: it grows when it comes back, and gets what it missed, old
// part and new.
func TestGrowWhileAReplicaIsAway(t *testing.T) {
	c := newTestCluster(t, "a", "b")
	c.create("a", "b")
	c.inSync("a", "a", "b")
	a := c.attach("a", "")
	a.write(0, 1)
	c.nodes["b"].end()
	a.write(4096, 2)
	c.inSync("a", "a")
	c.do(control.ResizeVolume("vol", 0, grownSize))
	c.grown("a", "a")
	grown := c.attach("a", "")
	grown.write(grownSize-4096, 3)
	a.wantRead(4096, 2)
	c.nodes["b"].start()
	c.grown("a", "a", "b")
	c.handOver("a", "b")
	grown.wantRead(grownSize-4096, 3)
	a.wantRead(4096, 2)
	c.inSync("b", "a", "b")
	c.nodes["a"].end()
	c.nodes["b"].end()
	c.wantGrownEqual("a", "b")
}

// TestGrowHeardOfLate: a replica whose node hears late that the volume has grown is out
// of sync until then, and no longer.
func TestGrowHeardOfLate(t *testing.T) {
	c := newTestCluster(t, "a", "b")
	c.create("a", "b")
	c.inSync("a", "a", "b")
	c.nodes["b"].member.isolate(true)
	c.do(control.ResizeVolume("vol", 0, grownSize))
	c.grown("a", "a")
	a := c.attach("a", "")
	a.write(grownSize-4096, 3)
	c.nodes["b"].member.isolate(false)
	c.do(control.SetPolicy("vol", 0, control.Policy{Lease: testLease})) // something for b to hear
	c.grown("a", "a", "b")
	c.handOver("a", "b")
	a.wantRead(grownSize-4096, 3)
}

// TestGrowWithoutThePrimary: a copy that is to take over, and smaller than the volume, grows
// first.
func TestGrowWithoutThePrimary(t *testing.T) {
	c := newTestCluster(t, "a", "b")
	c.create("a", "b")
	c.inSync("a", "a", "b")
	b := c.attach("b", "")
	b.write(0, 1)
	c.nodes["b"].member.isolate(true)
	c.nodes["a"].end()
	c.do(control.ResizeVolume("vol", 0, grownSize))
	c.nodes["b"].member.isolate(false)
	c.do(control.SetPolicy("vol", 0, control.Policy{Lease: testLease})) // something for b to hear
	c.grown("b", "b")
	grown := c.attach("b", "")
	grown.write(grownSize-4096, 3)
	b.wantRead(0, 1)
	c.nodes["a"].start()
	c.grown("b", "a", "b")
	c.nodes["a"].end()
	c.nodes["b"].end()
	c.wantGrownEqual("a", "b")
}

// TestPastSize: a node that starts again with a copy that has grown sees the past first,
// in which the volume was smaller: it opens its copy all the same.
func TestPastSize(t *testing.T) {
	c := newTestCluster(t, "a", "b")
	c.create("a", "b")
	c.inSync("a", "a", "b")
	n := c.nodes["b"]
	before := c.group.State()
	c.do(control.ResizeVolume("vol", 0, grownSize))
	c.until("grown", func() bool {
		s := c.seat("b")
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.store != nil && s.store.Size() == grownSize
	})
	n.end()
	n.member.isolate(true)
	n.member.mu.Lock()
	n.member.old = before
	n.member.mu.Unlock()
	n.start()
	c.until("looked at", func() bool { s := n.host.Seat("vol"); return s != nil && s.Role() == Following })
	n.member.isolate(false)
	c.do(control.AddNode("b", control.Node{Addr: n.addr, ID: "b"}))
	c.inSync("a", "a", "b")
}
