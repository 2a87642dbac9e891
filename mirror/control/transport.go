package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// requestTime is how long a request of raft's may take: three round trips to the
// farthest node that Heartbeat allows for.
func (conf Config) requestTime() time.Duration { return max(400*time.Millisecond, 2*conf.Heartbeat) }

// errStalled is what heartbeats of a leader with a stalled disk come to: the others
// shall elect one that can write.
var errStalled = errors.New("control: this node's disk has stalled")

// transport is raft's, with some changes. Heartbeats take no short cut past the main
// loop (hashicorp/raft#695). A leader whose disk stalls falls silent. Candidates go
// first or wait, see votes.go. And it remembers how the others answer.
type transport struct {
	*raft.NetworkTransport
	guard     *guard
	heartbeat time.Duration
	closed    context.Context
	witness   bool
	ahead     func() []string // whose turn in an election is before this node's

	mu     sync.Mutex
	peers  map[string]contact
	rivals map[string]rival
}

// contact is how another node answered last.
type contact struct {
	at      time.Time
	rtt     time.Duration // shortest of the last answers, decaying upwards
	lastLog uint64
}

func (c *Control) newTransport() *transport {
	conf := c.conf
	return &transport{
		guard: c.stores.guard, heartbeat: conf.Heartbeat, closed: c.ctx, witness: conf.Witness, ahead: c.ahead,
		peers: map[string]contact{}, rivals: map[string]rival{},
		NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			ServerAddressProvider: addresses(c.address),
			Logger:                newLogger(conf.Log),
			Stream:                stream{conf.Raft, conf.Addr, conf.DialRaft},
			MaxPool:               3,
			MaxRPCsInFlight:       1,
			Timeout:               conf.requestTime(),
		}),
	}
}

// SetHeartbeatHandler keeps heartbeats in raft's main loop, with everything else.
func (t *transport) SetHeartbeatHandler(func(raft.RPC)) {}

// AppendEntries sends entries, or a heartbeat, unless the disk has stalled.
func (t *transport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	switch {
	case t.closed.Err() != nil:
		return raft.ErrTransportShutdown
	case t.stalled():
		return errStalled
	}
	sent := time.Now()
	if err := t.NetworkTransport.AppendEntries(id, target, args, resp); err != nil {
		return err
	}
	t.heard(string(id), time.Since(sent), resp.LastLog)
	return nil
}

// heard notes an answer of another node; lastLog is 0 if it did not say.
func (t *transport) heard(name string, rtt time.Duration, lastLog uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	last := t.peers[name]
	if last.rtt > 0 {
		rtt = min(rtt, last.rtt+last.rtt/16+time.Microsecond)
	}
	if lastLog == 0 {
		lastLog = last.lastLog
	}
	t.peers[name] = contact{at: time.Now(), rtt: rtt, lastLog: lastLog}
}

// stalled says that the disk has been at one write for too long.
func (t *transport) stalled() bool { return t.guard.writing() > 2*t.heartbeat }

func (t *transport) contact(name string) contact {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.peers[name]
}

// addresses is raft's way to ask where a node is.
type addresses func(string) (string, bool)

// ServerAddr returns a node's address.
func (a addresses) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	if addr, ok := a(string(id)); ok {
		return raft.ServerAddress(addr), nil
	}
	return "", fmt.Errorf("control: the address of node %q is not known", id)
}

// stream gives raft its connections.
type stream struct {
	net.Listener
	addr string
	dial func(context.Context, string) (net.Conn, error)
}

// Addr is the address that others know.
func (s stream) Addr() net.Addr { return tcpAddr(s.addr) }

// Dial connects to another node.
func (s stream) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return s.dial(ctx, string(addr))
}

type tcpAddr string

// Network is what net.Addr wants.
func (tcpAddr) Network() string  { return "tcp" }
func (a tcpAddr) String() string { return string(a) }
