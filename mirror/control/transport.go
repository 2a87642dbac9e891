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

// errStalled is what heartbeats of a leader with a stalled disk come to: the others
// shall elect one that can write.
var errStalled = errors.New("control: this node's disk has stalled")

// transport is raft's, with three changes. Heartbeats take no short cut past the main
// loop (hashicorp/raft#695). A leader whose disk stalls falls silent. And it remembers
// how the others answer.
type transport struct {
	*raft.NetworkTransport
	guard    *guard
	patience time.Duration // with the disk

	mu    sync.Mutex
	peers map[string]contact
}

// contact is how another node answered last.
type contact struct {
	at      time.Time
	rtt     time.Duration // shortest of the last answers, decaying upwards
	lastLog uint64
}

func newTransport(conf Config, g *guard, address func(string) (string, bool)) *transport {
	timeout := max(400*time.Millisecond, 2*conf.Heartbeat)
	return &transport{
		guard: g, patience: 2 * conf.Heartbeat, peers: map[string]contact{},
		NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			ServerAddressProvider: addresses(address),
			Logger:                newLogger(conf.Log),
			Stream:                stream{conf.Raft, conf.Addr, conf.DialRaft},
			MaxPool:               3,
			MaxRPCsInFlight:       1,
			Timeout:               timeout,
		}),
	}
}

// SetHeartbeatHandler keeps heartbeats in raft's main loop, with everything else.
func (t *transport) SetHeartbeatHandler(func(raft.RPC)) {}

// AppendEntries sends entries, or a heartbeat, unless the disk has stalled.
func (t *transport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if t.stalled() {
		return errStalled
	}
	sent := time.Now()
	if err := t.NetworkTransport.AppendEntries(id, target, args, resp); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	rtt, last := now.Sub(sent), t.peers[string(id)]
	if last.rtt > 0 {
		rtt = min(rtt, last.rtt+last.rtt/16+time.Microsecond)
	}
	t.peers[string(id)] = contact{at: now, rtt: rtt, lastLog: resp.LastLog}
	return nil
}

// stalled says that the disk has been at one write for too long.
func (t *transport) stalled() bool { return t.guard.writing() > t.patience }

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
