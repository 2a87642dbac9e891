package control

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/goleak"
)

// cluster is a whole group in one synctest bubble.
type cluster struct {
	t     *testing.T
	net   *network
	peers []Peer
	nodes map[string]*member
	moved map[string]string // hosts by node, if not of that name
}

type member struct {
	*Control
	name   string
	stores *stores
	server *http.Server
	client *http.Client
	peers  *listener
}

func newCluster(t *testing.T, oneWay time.Duration, names ...string) *cluster {
	c := &cluster{t: t, net: newNetwork(oneWay), nodes: map[string]*member{}}
	for _, name := range names {
		c.peers = append(c.peers, Peer{Name: name, Addr: name + ":1", Witness: name == "w"})
	}
	for _, name := range names {
		c.start(name)
	}
	t.Cleanup(func() {
		for _, name := range slices.Collect(c.running()) {
			c.stop(name)
		}
		time.Sleep(dialTimeout) // http.Transport leaves a dial alone that nobody waits for any more
	})
	return c
}

func (c *cluster) running() func(func(string) bool) {
	return func(yield func(string) bool) {
		for name, m := range c.nodes {
			if m.Control != nil && !yield(name) {
				return
			}
		}
	}
}

func memoryStores() *stores {
	s := raft.NewInmemStore()
	return &stores{logs: s, stable: s, snaps: raft.NewInmemSnapshotStore(), guard: &guard{}, close: func() error { return nil }}
}

// start runs a node, with what it remembers from before.
func (c *cluster) start(name string, tune ...func(*Config)) *member {
	c.t.Helper()
	m := c.nodes[name]
	if m == nil {
		m = &member{name: name, stores: memoryStores()}
		c.nodes[name] = m
	}
	host := cmp.Or(c.moved[name], name)
	m.peers = c.net.listen(host + ":2")
	dial := func(ctx context.Context, addr string) (net.Conn, error) { return c.net.dial(ctx, host, addr) }
	m.client = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) { return dial(ctx, addr) },
	}}
	conf := Config{
		Name: name, Addr: host + ":1", Voters: c.peers, Raft: m.peers, HTTP: m.client, Witness: name == "w", stores: m.stores,
		DialRaft: func(ctx context.Context, addr string) (net.Conn, error) { return dial(ctx, hostOf(addr)+":2") },
	}
	if os.Getenv("CONTROL_LOG") != "" {
		conf.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug - 4}))
	}
	for _, f := range tune {
		f(&conf)
	}
	control, err := Open(conf)
	if err != nil {
		c.t.Fatal(err)
	}
	m.Control = control
	m.server = &http.Server{Handler: control.Handler()}
	go m.server.Serve(c.net.listen(host + ":1"))
	return m
}

// stop ends a node as kill -9 would; its stores stay.
func (c *cluster) stop(name string) {
	c.t.Helper()
	m := c.nodes[name]
	m.server.Close()
	c.net.kill(cmp.Or(c.moved[name], name))
	if err := m.Close(); err != nil {
		c.t.Errorf("close %s: %v", name, err)
	}
	m.client.CloseIdleConnections()
	m.Control = nil
}

// within waits for what has to become true, in virtual time.
func (c *cluster) within(d time.Duration, what string, ok func() bool) time.Duration {
	c.t.Helper()
	begin := time.Now()
	for !ok() {
		if time.Since(begin) > d {
			for name := range c.running() {
				c.t.Logf("%s: %+v", name, c.nodes[name].Status())
			}
			c.t.Fatalf("not within %v: %s", d, what)
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
	}
	return time.Since(begin)
}

// leader waits for the one that decides.
func (c *cluster) leader() *member {
	c.t.Helper()
	var leader *member
	c.within(10*time.Second, "a leader", func() bool {
		for name := range c.running() {
			if c.nodes[name].Status().Ready {
				leader = c.nodes[name]
			}
		}
		return leader != nil
	})
	return leader
}

func (c *cluster) do(at string, cmd Command) Result {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
	defer cancel()
	result, err := c.nodes[at].Do(ctx, cmd)
	if err != nil {
		c.t.Fatalf("%s at %s: %v", cmd.Kind, at, err)
	}
	return result
}

// settle waits until all nodes know what r came to.
func (c *cluster) settle(r Result) {
	c.t.Helper()
	c.within(10*time.Second, "all nodes know", func() bool {
		for name := range c.running() {
			if c.nodes[name].applied.Load() < r.Index {
				return false
			}
		}
		return true
	})
}

func volumeOn(name string, nodes ...string) Command {
	return CreateVolume(name, ID{1}, 1<<20, Policy{}, nodes...)
}

func TestClusterBegins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, time.Millisecond/2, "a", "b", "w")
		took := c.within(10*time.Second, "the first state", func() bool { return len(c.nodes["a"].State().Nodes) == 3 })
		if took > time.Second {
			t.Errorf("began only within %v", took)
		}
		if r := c.do("a", volumeOn("v", "a", "b")); !r.Won || r.Volume.Epoch != 0 {
			t.Fatalf("created: %+v", r)
		}
		leader := c.leader()
		for name := range c.running() {
			begin := time.Now()
			r := c.do(name, Attach("v", "vm"))
			took := time.Since(begin)
			// A round trip from the leader to a majority, perhaps one before it that is
			// still under way, and one from elsewhere to the leader.
			if most := 3 * time.Millisecond; took > most || name == leader.name && took > most-time.Millisecond {
				t.Errorf("a command at %s took %v", name, took)
			}
			for other := range c.running() {
				begin := time.Now()
				if err := c.nodes[other].Await(t.Context(), r.Index); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(begin); took > 3*time.Millisecond {
					t.Errorf("%s learned of it only after %v", other, took)
				}
			}
		}
		if n := c.nodes["b"].State().Nodes["w"]; !n.Witness || !n.Voter || n.ID == "" {
			t.Errorf("the witness as b knows it: %+v", n)
		}
	})
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestOneVoter: a cluster of one needs nobody.
func TestOneVoter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 0, "a")
		if took := c.within(2*time.Second, "it begins", func() bool { return len(c.nodes["a"].State().Nodes) == 1 }); took > time.Second {
			t.Errorf("began only within %v", took)
		}
		c.do("a", volumeOn("v", "a"))
		c.do("a", Propose("v", 1, "a", "a", []int{0}, nil))
		if err := c.renew("a", 1); err != nil {
			t.Error(err)
		}
		c.refused("a", RemoveNode("a"), "last voter")
		c.refused("a", Demote("a"), "last voter")
	})
}
