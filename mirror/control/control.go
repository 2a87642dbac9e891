package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// Peer is one of the voters that a cluster begins with.
type Peer struct {
	Name    string
	Addr    string // HOST:PORT of its node
	Witness bool   // votes and holds no data
}

// Config is what a node needs to take part.
type Config struct {
	// Name is the node's, 1 to 255 bytes, and its own in the cluster for ever.
	Name string
	// Dir holds raft's log, votes and snapshots. Losing it is losing the votes: the
	// node then has to be removed and added again.
	Dir string
	// Addr is where the other nodes reach this one, HOST:PORT.
	Addr string
	// Voters are those that the cluster begins with, the identical list at each of
	// them and at every node that joins later. The first start waits for all of them.
	Voters []Peer
	// Witness says that this node holds no data.
	Witness bool
	// Raft accepts the connections that DialRaft makes; Close closes it.
	Raft     net.Listener
	DialRaft func(ctx context.Context, addr string) (net.Conn, error)
	// HTTP reaches Handler of the other nodes, at http://ADDR/.
	HTTP *http.Client
	// Heartbeat is how long a follower bears silence, 200 ms if zero: shorter elects
	// sooner, and does so for a pause of that length too. It must be longer than 1.3
	// round trips to the farthest voter.
	Heartbeat time.Duration
	Log       *slog.Logger // nil: silent

	stores *stores // of a test, instead of Dir's
}

// Control is a node's part in the group. Its methods may be called at any time from
// any goroutine.
type Control struct {
	conf   Config
	id     string // of Dir
	stores *stores
	trans  *transport

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	raft    atomic.Pointer[raft.Raft] // nil until this node may vote
	state   atomic.Pointer[State]
	applied atomic.Uint64 // index of raft's log in state

	mu struct {
		sync.Mutex
		changed  chan struct{}
		failed   error
		idle     []*sender         // of commands
		founders map[string]string // see begin.go
	}
	failed  chan struct{}
	pending futures
	reign   reign
}

// Open makes the node take part. It returns at once; what it takes to become a
// member goes on behind, and [Control.Failed] tells if that can never be.
func Open(conf Config) (*Control, error) {
	conf, err := conf.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Control{conf: conf, failed: make(chan struct{})}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.mu.changed = make(chan struct{})
	c.reign.promises, c.reign.wanted, c.reign.takeovers = map[string]time.Time{}, map[string]time.Time{}, map[string]int{}
	c.state.Store(NewState())
	if c.stores = conf.stores; c.stores == nil {
		if c.stores, err = openStores(conf.Dir, conf.Log); err != nil {
			return nil, err
		}
	}
	if c.id, c.mu.founders, err = c.stores.identity(); err != nil {
		return nil, errors.Join(err, c.stores.close())
	}
	c.trans = c.newTransport()
	c.start(c.begin)
	return c, nil
}

func (conf Config) withDefaults() (Config, error) {
	conf.Heartbeat = cmp.Or(conf.Heartbeat, 200*time.Millisecond)
	if conf.Log == nil {
		conf.Log = slog.New(slog.DiscardHandler)
	}
	conf.Log = conf.Log.With("node", conf.Name)
	conf.Voters = slices.Clone(conf.Voters)
	slices.SortFunc(conf.Voters, func(a, b Peer) int { return cmp.Compare(a.Name, b.Name) })
	for i, v := range conf.Voters {
		if v.Name == "" || v.Addr == "" {
			return conf, fmt.Errorf("control: voter %d of the cluster has no name or no address", i+1)
		}
		if i > 0 && v.Name == conf.Voters[i-1].Name {
			return conf, fmt.Errorf("control: voter %q is named twice", v.Name)
		}
		if v.Name == conf.Name {
			conf.Witness = conf.Witness || v.Witness
		}
	}
	switch {
	case conf.Name == "" || len(conf.Name) > 255 || conf.Name == Operator:
		return conf, fmt.Errorf("control: a node cannot be called %q", conf.Name)
	case conf.Addr == "":
		return conf, errors.New("control: the node has no address that others reach it at")
	case conf.Raft == nil || conf.DialRaft == nil || conf.HTTP == nil:
		return conf, errors.New("control: the node has no way to the others: Raft, DialRaft and HTTP are needed")
	case len(conf.Voters) == 0:
		return conf, errors.New("control: name the voters that the cluster begins with")
	}
	return conf, nil
}

// Close takes the node out: to the others it is as if it had been killed.
func (c *Control) Close() error {
	c.cancel()
	err := c.trans.Close()
	c.pending.drain(2 * c.conf.Heartbeat)
	early := c.shutDown(nil)
	c.wg.Wait()
	c.shutDown(early) // if it started only meanwhile
	c.trans.CloseStreams()
	return errors.Join(err, c.stores.close())
}

// shutDown ends raft, unless that is already done, and returns it.
func (c *Control) shutDown(done *raft.Raft) *raft.Raft {
	r := c.raft.Load()
	if r != nil && r != done {
		_ = r.Shutdown().Error() // which is always nil
	}
	return r
}

func (c *Control) start(f func()) { c.wg.Go(f) }

// State is what this node knows; it may lag behind the leader's by a round trip.
func (c *Control) State() *State { return c.state.Load() }

// Changed is closed at the next change of State, Leader or Failed. Take it before
// looking at them.
func (c *Control) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.changed
}

func (c *Control) announceChange() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.mu.changed)
	c.mu.changed = make(chan struct{})
}

// Await returns when State has the command that came to a [Result] of that index.
func (c *Control) Await(ctx context.Context, index uint64) error {
	for {
		changed := c.Changed()
		if c.applied.Load() >= index {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("control: wait for entry %d: %w", index, ctx.Err())
		case <-c.ctx.Done():
			return errClosed
		}
	}
}

// Leader returns the node that leads the group, as far as this one knows.
func (c *Control) Leader() (name string, ok bool) {
	r := c.raft.Load()
	if r == nil {
		return "", false
	}
	_, id := r.LeaderWithID()
	if string(id) == c.conf.Name && c.trans.stalled() {
		return "", false // the others are about to elect another
	}
	return string(id), id != ""
}

// Failed is closed when this node can never take part as it is; Err says why and
// what to do. Until Close its Handler and Do go on.
func (c *Control) Failed() <-chan struct{} { return c.failed }

// Err is why Failed is closed, or nil.
func (c *Control) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.failed
}

func (c *Control) fail(err error) {
	c.conf.Log.Error("this node cannot take part", "err", err)
	c.mu.Lock()
	first := c.mu.failed == nil
	c.mu.failed = cmp.Or(c.mu.failed, err)
	c.mu.Unlock()
	if first {
		close(c.failed)
		c.announceChange()
	}
}

// address of a node: what the group knows, else what this node was told.
func (c *Control) address(name string) (string, bool) {
	if n, ok := c.State().Nodes[name]; ok && n.Addr != "" {
		return n.Addr, true
	}
	for _, v := range c.conf.Voters {
		if v.Name == name {
			return v.Addr, true
		}
	}
	return "", false
}

// wait sleeps for d or until something changed; false if the node closes or ctx ends.
func (c *Control) wait(ctx context.Context, d time.Duration, changed <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-changed:
	case <-ctx.Done():
		return false
	case <-c.ctx.Done():
		return false
	}
	return true
}

var errClosed = fmt.Errorf("control: this node was closed: %w", os.ErrClosed)
