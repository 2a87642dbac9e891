package host

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lockstep/mirror"
	"lockstep/mirror/control"
	"lockstep/mirror/forward"
	"lockstep/mirror/port"
	"lockstep/mirror/store"
)

const (
	testSize = 8 << 20
	patience = 20 * time.Second
	// A node counts as dead after a lease, or half as long again: whatever else this machine
	// has to do, the others of a test must have been heard by then.
	testLease = 2 * time.Second
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// group is a raft group that never fails: it stands for package control.
type group struct {
	mu      sync.Mutex
	state   *control.State
	changed chan struct{}
	seq     uint64
}

func (g *group) State() *control.State {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.state
}

func (g *group) Changed() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changed
}

func (g *group) Do(_ context.Context, c control.Command) (control.Result, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seq++
	c.Client, c.Seq = "test", g.seq
	next, r := g.state.Apply(c)
	g.state = next
	close(g.changed)
	g.changed = make(chan struct{})
	if r.Refused != "" {
		return r, &control.Refused{Reason: r.Refused}
	}
	return r, nil
}

func (g *group) Renew(context.Context, string, uint64) error { return nil }

// member is one node's link to the group, which can be cut.
type member struct {
	*group
	mu     sync.Mutex
	cut    bool
	old    *control.State
	before func(control.Command) // a command of this node, which is about to be done; may be nil
}

func (m *member) isolate(cut bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cut, m.old = cut, m.group.State()
}

func (m *member) isolated() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cut
}

func (m *member) State() *control.State {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cut {
		return m.old
	}
	return m.group.State()
}

func (m *member) Do(ctx context.Context, c control.Command) (control.Result, error) {
	if m.isolated() {
		<-ctx.Done()
		return control.Result{}, ctx.Err()
	}
	m.mu.Lock()
	before := m.before
	m.mu.Unlock()
	if before != nil {
		before(c)
	}
	return m.group.Do(ctx, c)
}

func (m *member) Renew(ctx context.Context, _ string, _ uint64) error {
	if m.isolated() {
		return errors.New("cut off")
	}
	return nil
}

// node is a process of the cluster.
type node struct {
	t      *testing.T
	name   string
	dir    string
	addr   string
	member *member
	host   *Host
	stop   context.CancelFunc
	done   sync.WaitGroup
	conns  context.CancelFunc
}

type cluster struct {
	t     *testing.T
	group *group
	nodes map[string]*node
}

func newTestCluster(t *testing.T, names ...string) *cluster {
	c := &cluster{t: t, group: &group{state: control.NewState(), changed: make(chan struct{})}, nodes: map[string]*node{}}
	for _, name := range names {
		n := &node{t: t, name: name, dir: t.TempDir(), member: &member{group: c.group}}
		c.nodes[name] = n
		n.start()
		c.do(control.AddNode(name, control.Node{Addr: n.addr, ID: name}))
	}
	t.Cleanup(func() {
		for _, n := range c.nodes {
			n.end()
		}
	})
	return c
}

func (c *cluster) do(cmd control.Command) control.Result {
	c.t.Helper()
	r, err := c.group.Do(context.Background(), cmd)
	if err != nil {
		c.t.Fatal(err)
	}
	return r
}

func (c *cluster) create(on ...string) {
	c.do(control.CreateVolume("vol", control.ID{1}, testSize, control.Policy{Lease: testLease}, on...))
}

func (n *node) start() {
	addr := n.addr
	if addr == "" {
		// Not where connections come from: one would take the port of a node that is down.
		addr = "127.0.2.1:0"
	}
	ctx, stop := context.WithCancel(context.Background())
	ln, err := mirror.Listen(ctx, addr)
	if err != nil {
		n.t.Fatal(err)
	}
	n.addr = ln.Addr().String()
	split := port.Split(ln, nil)
	n.host = New(Config{Name: n.name, Dir: n.dir, Group: n.member, Preface: port.Preface, IsolationTimeout: time.Second,
		DiskTimeout: patience, SyncTimeout: patience})
	conns, hangUp := context.WithCancel(context.Background())
	n.stop, n.conns = stop, func() { hangUp(); split.Close() }
	n.done.Go(func() { n.host.Run(ctx) })
	accept := func(ln net.Listener, serve func(*Seat, net.Conn)) {
		n.done.Go(func() {
			for {
				nc, err := ln.Accept()
				if err != nil {
					return
				}
				conn := nc.(*port.Conn)
				n.done.Go(func() {
					if s := n.host.Seat(conn.Volume); s != nil {
						serve(s, conn.TCPConn)
					} else {
						conn.Close()
					}
				})
			}
		})
	}
	accept(split.Replication(), func(s *Seat, c net.Conn) { s.ServeReplication(conns, c) })
	accept(split.Forward(), func(s *Seat, c net.Conn) { s.ServeForward(conns, c) })
}

// end stops the node in good order.
func (n *node) end() {
	if n.stop == nil {
		return
	}
	n.stop()
	n.conns()
	n.done.Wait()
	n.stop = nil
}

// user is a client of the volume at one node.
type user struct {
	t     *testing.T
	front *forward.Front
}

func (c *cluster) attach(at, name string) *user {
	c.t.Helper()
	seat := c.seat(at)
	u := &user{t: c.t}
	c.until("attached at "+at, func() bool {
		front, err := seat.Attach(context.Background(), Client{Name: name}, func(ops []*mirror.Op) {
			for _, op := range ops {
				op.Tag.(chan *mirror.Op) <- op
			}
		}, nil)
		u.front = front
		return err == nil
	})
	c.t.Cleanup(func() { seat.Detach(u.front) })
	return u
}

func (c *cluster) seat(at string) (s *Seat) {
	c.t.Helper()
	c.until("seat at "+at, func() bool {
		s = c.nodes[at].host.Seat("vol")
		return s != nil
	})
	return s
}

// start begins an op; what it returns gets the op that comes back, which is a copy if a
// volume that ended has kept the one that was submitted.
func (u *user) start(op *mirror.Op) chan *mirror.Op {
	done := make(chan *mirror.Op, 1)
	op.Tag = done
	u.front.Submit([]*mirror.Op{op})
	return done
}

// await returns what comes back of an op.
func (u *user) await(op *mirror.Op) *mirror.Op {
	u.t.Helper()
	select {
	case back := <-u.start(op):
		return back
	case <-time.After(patience):
		u.t.Fatalf("%v at %d: no answer", op.Kind, op.Off)
		return nil
	}
}

func (u *user) do(op *mirror.Op) error {
	u.t.Helper()
	return u.await(op).Err
}

func (u *user) write(off int64, value byte) {
	u.t.Helper()
	data := bytes.Repeat([]byte{value}, 4096)
	if err := u.do(&mirror.Op{Kind: mirror.Write, Off: off, Len: 4096, Data: data}); err != nil {
		u.t.Fatalf("write: %v", err)
	}
}

func (u *user) wantRead(off int64, value byte) {
	u.t.Helper()
	back := u.await(&mirror.Op{Kind: mirror.Read, Off: off, Len: 4096, Data: make([]byte, 4096)})
	if back.Err != nil {
		u.t.Fatalf("read: %v", back.Err)
	}
	if !bytes.Equal(back.Data, bytes.Repeat([]byte{value}, 4096)) {
		u.t.Fatalf("read at %d: %d, want %d", off, back.Data[0], value)
	}
}

func (c *cluster) until(what string, ok func() bool) {
	c.t.Helper()
	for began := time.Now(); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > patience {
			c.t.Fatalf("not within %v: %s; the record is %+v", patience, what, c.group.State().Volumes["vol"])
		}
	}
}

// inSync waits until the volume is led by a node and these have copies in sync.
func (c *cluster) inSync(primary string, nodes ...string) {
	c.t.Helper()
	c.until("primary "+primary, func() bool {
		v := c.group.State().Volumes["vol"]
		for _, n := range nodes {
			if slot := v.Slot(n); slot < 0 || !v.Replicas[slot].InSync {
				return false
			}
		}
		return v.Primary == primary && v.By == primary && len(v.InSync()) == len(nodes)
	})
}

// wantEqual compares the files of two nodes, which must be stopped.
func (c *cluster) wantEqual(a, b string) {
	c.t.Helper()
	read := func(n string) []byte {
		files, err := filepath.Glob(filepath.Join(c.nodes[n].dir, "vol-????????", "data"))
		if err != nil || len(files) != 1 {
			c.t.Fatalf("data of %s: %v, %v", n, files, err)
		}
		s, err := store.Open(store.Options{Path: files[0], Size: testSize})
		if err != nil {
			c.t.Fatal(err)
		}
		defer s.Close()
		all := make([]byte, testSize)
		if err := s.ReadAt(all, 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
			c.t.Fatal(err)
		}
		return all
	}
	if !bytes.Equal(read(a), read(b)) {
		c.t.Fatalf("the copies of %s and %s differ", a, b)
	}
}
