package node

import (
	"log/slog"
	"net"
	"time"

	"lockstep/mirror"
	"lockstep/mirror/control"
)

// Config says what a node is and where it listens.
type Config struct {
	Name    string // its own in the cluster for ever
	Dir     string // its data directory; made if it is not there
	Listen  string // HOST:PORT of the node port
	Reach   string // where other nodes reach it, HOST:PORT; "" is where it listens
	Voters  []control.Peer
	Witness bool // it votes, and holds no replicas

	NBD      []string       // addresses for nbd.Listen
	Inherit  []net.Listener // more of them, open already
	AdminTCP string         // HOST:PORT to serve the admin API at too; "" is nowhere

	Heartbeat time.Duration // of raft
	Direct    bool          // bypass the page cache
	Resync    mirror.PaceConfig
	// Congestion is the TCP congestion control towards replicas; "" is the system's.
	Congestion string
	// Poll is how long to spin for a frame or a request before sleeping.
	Poll time.Duration

	// Build is what /metrics says of the program.
	Build string
	Log   *slog.Logger
	// Notify tells the service manager what the node is at, in its words: READY=1,
	// STOPPING=1, and WATCHDOG=1 more often than Watchdog, unless that is 0.
	Notify   func(state string) error
	Watchdog time.Duration
}

// Defaults of [Config]; zero fields have these too.
const (
	DefaultHeartbeat = 200 * time.Millisecond
)

// AdminSocket is the name of the admin API's unix socket in the data directory.
const AdminSocket = "admin.sock"
