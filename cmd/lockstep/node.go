package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"lockstep/cmd/lockstep/node"
	"lockstep/mirror"
	"lockstep/mirror/control"
	"lockstep/nbd"
)

type nodeCmd struct {
	Config     kong.ConfigFlag `placeholder:"FILE" help:"Take flags from a JSON file; those on the command line win."`
	Name       string          `required:"" help:"This node's name, its own in the cluster for ever: a, site-b."`
	Data       string          `required:"" placeholder:"DIR" help:"Where everything of this node is kept. Made if it is not there."`
	Listen     string          `placeholder:"HOST:PORT" help:"The node port, for everything that nodes say to each other. Default: a free one on loopback if there is no --cluster."`
	Advertise  string          `placeholder:"HOST:PORT" help:"Where other nodes reach this one. Default: what --cluster says of it, else --listen."`
	Cluster    []string        `placeholder:"NAME=HOST:PORT" help:"The nodes that the cluster begins with, the same list at each: those that vote on who is primary, so an odd number. A node that joins later names them too, without itself. Default: this node alone."`
	Witness    bool            `help:"Vote, and hold no data: for a third place that sees two fail."`
	NBD        []string        `name:"nbd" sep:"none" placeholder:"ADDR" help:"Where NBD clients connect to: unix:PATH or tcp:HOST:PORT. May be given more than once. Sockets passed by systemd (LISTEN_FDS) are served too."`
	AdminTCP   string          `name:"admin-tcp" placeholder:"HOST:PORT" help:"Serve the admin API here too. It is always served on DATA/admin.sock and on the node port."`
	Heartbeat  time.Duration   `default:"200ms" help:"How long a voter bears silence of the control plane's leader: well above the round trip to the farthest voter."`
	Direct     bool            `help:"Bypass the page cache (O_DIRECT). Clients then see the disk's block size as the smallest request. The same at every node."`
	Share      float64         `name:"resync-share" default:"0.5" help:"How much writes' p99 may grow while a replica is brought up to date: 0.5 = by half."`
	Floor      byteSize        `name:"resync-min" default:"4MiB" help:"What resync may always take, per second."`
	Ceiling    byteSize        `name:"resync-max" default:"1GiB" help:"The most that resync may take, per second."`
	Redundancy time.Duration   `name:"resync-within" default:"1h" help:"Bring a replica up to date within this time, whatever writes feel."`
	Poll       time.Duration   `default:"0s" help:"Spin this long for requests and acknowledgements before sleeping: 100us halves depth-1 latency between sites that are microseconds apart, for a busy CPU under load."`
	Congestion string          `help:"TCP congestion control towards replicas. Default: cubic, else reno, else the system's." placeholder:"NAME"`
}

// Help is shown by lockstep node --help.
func (nodeCmd) Help() string {
	return `A cluster is this command on three machines or more: two or more with data, and a
witness, so that any one can be lost. Every node serves every volume on its NBD
addresses, as export VOLUME; who is primary only decides which way requests go, and
clients stay through a failover: their I/O pauses. A client that moves between nodes
(a VM in live migration) uses VOLUME@CLIENT, with a name of its own: what its last
place still has in flight is then refused.

Whoever can reach the node port can do everything: keep it on a network of your own.
Ctrl-C or SIGTERM answers clients and hands over what is led here; a second one ends
at once. The admin API is HTTP and JSON, with /healthz and /metrics (Prometheus):
curl --unix-socket DATA/admin.sock http://x/status. With systemd use Type=notify (scripts/systemd/lockstep-node.service).

--config FILE is JSON, with flags' names as keys:
  {"name": "a", "data": "/var/lib/lockstep", "listen": "10.0.0.1:7800",
   "nbd": ["unix:/run/lockstep/nbd.sock"],
   "cluster": ["a=10.0.0.1:7800", "b=10.0.0.2:7800", "w=10.0.0.3:7800"]}

Example: one node
  lockstep node --name a --data /var/lib/lockstep --nbd unix:/tmp/nbd.sock &
  lockstep volume create vol --size 1GiB --on a --admin /var/lib/lockstep/admin.sock

Example: three, each on its own machine
  C=a=10.0.0.1:7800,b=10.0.0.2:7800,w=10.0.0.3:7800
  lockstep node --name a --data D --listen 10.0.0.1:7800 --nbd unix:/run/nbd.sock --cluster $C
  lockstep node --name b --data D --listen 10.0.0.2:7800 --nbd unix:/run/nbd.sock --cluster $C
  lockstep node --name w --data D --listen 10.0.0.3:7800 --witness --cluster $C`
}

// Run takes part in the cluster until ctx ends.
func (c *nodeCmd) Run(ctx context.Context) error {
	inherit, err := nbd.Activated()
	if err != nil {
		return err
	}
	conf, err := c.conf()
	if err != nil {
		return misuse{fmt.Errorf("node: %w", err)}
	}
	if conf.Congestion, err = pickCongestion(c.Congestion); err != nil {
		return err
	}
	if len(conf.NBD) == 0 && len(inherit) == 0 && !c.Witness {
		return misuse{errors.New("node: no --nbd address: give unix:PATH or tcp:HOST:PORT (only a --witness needs none)")}
	}
	conf.Inherit = inherit
	serveStorage(conf.Log)
	return node.Run(ctx, conf)
}

// conf makes of the flags what the node needs, or says what about them can never work.
func (c *nodeCmd) conf() (node.Config, error) {
	voters, err := parseCluster(c.Cluster)
	if err != nil {
		return node.Config{}, err
	}
	conf := node.Config{
		Name: c.Name, Dir: c.Data, Listen: c.Listen, Reach: c.Advertise, Voters: voters, Witness: c.Witness,
		NBD: c.NBD, AdminTCP: c.AdminTCP, Heartbeat: c.Heartbeat, Direct: c.Direct, Poll: c.Poll,
		Resync: mirror.PaceConfig{Share: c.Share, Floor: int64(c.Floor), Ceiling: int64(c.Ceiling), Redundancy: c.Redundancy},
		Build:  thisBuild().Version, Log: newLogger().With("node", c.Name), Notify: systemdNotify, Watchdog: systemdWatchdog(),
	}
	if i := slices.IndexFunc(voters, func(p control.Peer) bool { return p.Name == c.Name }); i >= 0 {
		voters[i].Witness = c.Witness
		if conf.Reach == "" {
			conf.Reach = voters[i].Addr
		}
	}
	if conf.Listen == "" && len(voters) == 0 {
		conf.Listen = "127.0.0.1:0"
	}
	return conf, c.check(conf)
}

var nodeNamePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

func (c *nodeCmd) check(conf node.Config) error {
	host, _, err := net.SplitHostPort(conf.Listen)
	ip := net.ParseIP(host)
	switch {
	case !nodeNamePattern.MatchString(c.Name):
		return fmt.Errorf("--name %.120q: use 1 to 100 letters, digits, dots, dashes and underscores, a letter or digit first", c.Name)
	case conf.Listen == "":
		return errors.New("no --listen: give HOST:PORT")
	case err != nil:
		return fmt.Errorf("--listen %s: use HOST:PORT", conf.Listen)
	case conf.Reach == "" && (host == "" || ip != nil && ip.IsUnspecified()):
		return fmt.Errorf("--listen %s says nothing about where other nodes reach this one: say it with --advertise HOST:PORT", conf.Listen)
	case c.Heartbeat <= 0 || c.Redundancy <= 0:
		return fmt.Errorf("--heartbeat %v, --resync-within %v: use durations as 200ms, 1h", c.Heartbeat, c.Redundancy)
	case c.Share <= 0 || c.Floor <= 0 || c.Ceiling < c.Floor:
		return errors.New("--resync-share and --resync-min are above 0, --resync-max is at least --resync-min")
	case c.Poll < 0:
		return fmt.Errorf("--poll %v: use 0s, or a duration as 100us", c.Poll)
	}
	for _, addr := range c.NBD {
		if kind, _, _ := strings.Cut(addr, ":"); kind != "unix" && kind != "tcp" {
			return fmt.Errorf("--nbd %s: use unix:PATH or tcp:HOST:PORT", addr)
		}
	}
	return nil
}

// parseCluster reads NAME=HOST:PORT entries.
func parseCluster(entries []string) (voters []control.Peer, err error) {
	for _, entry := range entries {
		name, addr, ok := strings.Cut(entry, "=")
		_, _, err := net.SplitHostPort(addr)
		switch {
		case !ok || err != nil || !nodeNamePattern.MatchString(name):
			return nil, fmt.Errorf("--cluster %s: use NAME=HOST:PORT, and commas between them", entry)
		case slices.ContainsFunc(voters, func(p control.Peer) bool { return p.Name == name || p.Addr == addr }):
			return nil, fmt.Errorf("--cluster %s: its name or its address is there twice", entry)
		}
		voters = append(voters, control.Peer{Name: name, Addr: addr})
	}
	return voters, nil
}
