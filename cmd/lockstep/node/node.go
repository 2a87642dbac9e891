package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"lockstep/cmd/lockstep/busypoll"
	"lockstep/mirror"
	"lockstep/mirror/control"
	"lockstep/mirror/host"
	"lockstep/mirror/port"
	"lockstep/nbd"
)

// stopTimeout bounds how long a stop waits for requests in flight.
const stopTimeout = 5 * time.Second

// node is a running one.
type node struct {
	conf    Config
	addr    string // where other nodes reach it
	log     *slog.Logger
	split   *port.Splitter
	group   *control.Control
	host    *host.Host
	server  *nbd.Server
	metrics *metrics
	peers   *http.Client // reaches other nodes at their node ports
	timings chan timing
	current atomic.Bool // its state is not of the past any more

	verifying sync.Map // names of the volumes that are being verified
}

// Run takes part in a cluster until ctx ends: then NBD clients are answered, what this
// node leads is handed over, and everything is closed in good order.
func Run(ctx context.Context, conf Config) error {
	unlock, err := lock(conf.Dir)
	if err != nil {
		return err
	}
	defer unlock()
	n := &node{conf: conf, log: conf.Log, timings: make(chan timing, timingQueue)}
	doors, err := n.open(ctx)
	if err != nil {
		return err
	}
	defer n.split.Close() // after what it carries
	err = n.run(ctx, doors)
	return errors.Join(err, n.group.Close())
}

// lock makes sure that a data directory has one node at a time.
func lock(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("node: make the data directory: %w", err)
	}
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("node: lock %s: %w (another lockstep node runs in this directory: stop it, or give another --data)", path, err)
	}
	return func() { f.Close() }, nil
}

// doors are where the node is waiting for others.
type doors struct {
	nbd   []net.Listener
	admin []net.Listener
}

func (d *doors) close() {
	for _, l := range append(d.nbd, d.admin...) {
		l.Close()
	}
}

// open listens everywhere, and joins the group.
func (n *node) open(ctx context.Context) (d *doors, err error) {
	d = &doors{nbd: n.conf.Inherit}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	if d.admin, err = n.openAdmin(ctx); err != nil {
		return nil, err
	}
	for _, addr := range n.conf.NBD {
		l, err := nbd.Listen(addr)
		if err != nil {
			return nil, err
		}
		if n.conf.Poll > 0 {
			l = busypoll.Listener{Listener: l, Limit: n.conf.Poll}
		}
		d.nbd = append(d.nbd, l)
	}
	l, err := mirror.Listen(ctx, n.conf.Listen)
	if err != nil {
		return nil, err
	}
	n.addr = n.conf.Reach
	if n.addr == "" {
		n.addr = l.Addr().String()
	}
	n.split = port.Split(l, n.log)
	if err := n.join(); err != nil {
		n.split.Close()
		return nil, err
	}
	return d, nil
}

// join makes the node a part of the group, and gives it its volumes.
func (n *node) join() (err error) {
	voters := n.conf.Voters
	if len(voters) == 0 { // a cluster of its own
		voters = []control.Peer{{Name: n.conf.Name, Addr: n.addr, Witness: n.conf.Witness}}
	}
	n.peers = &http.Client{Transport: &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 2 * time.Second}).DialContext,
		MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute,
	}}
	n.group, err = control.Open(control.Config{
		Name: n.conf.Name, Dir: filepath.Join(n.conf.Dir, "control"), Addr: n.addr, Voters: voters, Witness: n.conf.Witness,
		Raft: n.split.Raft(), DialRaft: func(ctx context.Context, addr string) (net.Conn, error) { return dialRaft(ctx, addr) },
		HTTP: n.peers, Heartbeat: n.conf.Heartbeat, Log: n.log,
	})
	if err != nil {
		return err
	}
	n.host = host.New(host.Config{
		Name: n.conf.Name, Dir: filepath.Join(n.conf.Dir, "volumes"), Group: n.group, Direct: n.conf.Direct,
		Resync: n.conf.Resync, Congestion: n.conf.Congestion, Volume: n.tuneVolume, Preface: port.Preface,
		Log: n.log,
	})
	n.metrics = newMetrics(n)
	n.server, err = nbd.NewServer(nbd.Config{Catalog: &catalog{n}, Logger: n.log})
	if err != nil {
		err = errors.Join(err, n.group.Close())
	}
	return err
}

// dialRaft is port.DialRaft whose failure is a nil net.Conn.
func dialRaft(ctx context.Context, addr string) (net.Conn, error) {
	c, err := port.DialRaft(ctx, addr)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// tuneVolume has a volume that is led here tell where the time of writes goes, and spin
// for acknowledgements, if it is to.
func (n *node) tuneVolume(c *mirror.Config) {
	c.Timing = n.timed(c.Volume)
	if n.conf.Poll > 0 {
		c.Wrap = func(conn net.Conn) (net.Conn, error) { return busypoll.New(conn, n.conf.Poll) }
	}
}

// run serves until ctx ends, or the node can never take part.
func (n *node) run(ctx context.Context, d *doors) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	life, end := context.WithCancel(context.WithoutCancel(ctx)) // of what others need until the node's part is over
	defer end()
	var others errgroup.Group
	for _, l := range append(d.admin, n.split.HTTP()) {
		others.Go(func() error { return n.serveHTTP(life, l) })
	}
	others.Go(func() error { return n.accept(life, n.split.Replication(), n.serveReplication) })
	others.Go(func() error { return n.accept(life, n.split.Forward(), n.serveForward) })
	var clients errgroup.Group
	for _, l := range d.nbd {
		n.log.Info("serving", "nbd", l.Addr().String())
		clients.Go(func() error {
			err := n.server.Serve(life, l)
			if err != nil {
				stop(err)
			}
			return err
		})
	}
	hosting, leave := context.WithCancel(life)
	defer leave()
	var hosted sync.WaitGroup
	hosted.Go(func() {
		n.catchUp(hosting)
		n.current.Store(hosting.Err() == nil)
		n.host.Run(hosting)
	})
	hosted.Go(func() { n.dropDeleted(hosting) })
	hosted.Go(func() { n.observeTimings(hosting) })
	hosted.Go(func() { n.watchdog(hosting) })
	n.log.Info("node is up", "name", n.conf.Name, "addr", n.addr, "witness", n.conf.Witness)
	n.notify("READY=1")
	err := n.awaitEnd(ctx)
	n.log.Info("stopping: clients are answered, and what is led here is handed over")
	n.notify("STOPPING=1")
	err = errors.Join(err, n.shutdown(), clients.Wait())
	leave()
	hosted.Wait()
	end()
	return errors.Join(err, others.Wait())
}

func (n *node) notify(state string) {
	if n.conf.Notify == nil {
		return
	}
	if err := n.conf.Notify(state); err != nil {
		n.log.Warn("the service manager was not told", "state", state, "err", err)
	}
}

// watchdog says that the node lives, as long as it does: what it asks takes the locks of
// all that it is made of.
func (n *node) watchdog(ctx context.Context) {
	if n.conf.Watchdog == 0 {
		return
	}
	tick := time.NewTicker(n.conf.Watchdog / 3)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		n.group.Status()
		for _, seat := range n.host.Seats() {
			seat.Status()
		}
		n.notify("WATCHDOG=1")
	}
}

// awaitEnd returns when the node is to stop; an error says why it must.
func (n *node) awaitEnd(ctx context.Context) error {
	select {
	case <-n.group.Failed():
		return n.group.Err()
	case <-ctx.Done():
		if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
			return cause
		}
		return nil
	}
}

// shutdown answers what clients have in flight, as far as that is possible in time.
func (n *node) shutdown() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if err := n.server.Shutdown(ctx); err != nil {
		return fmt.Errorf("stopped with requests in flight, which were not acknowledged (is a volume suspended?): %w", err)
	}
	return nil
}

// accept has serve see to each connection of a kind until ctx ends.
func (n *node) accept(ctx context.Context, l net.Listener, serve func(context.Context, *port.Conn)) error {
	var running sync.WaitGroup
	defer running.Wait()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		c, err := l.Accept()
		if err != nil { // only when it is closed
			return nil
		}
		running.Go(func() { serve(ctx, c.(*port.Conn)) })
	}
}

func (n *node) serveReplication(ctx context.Context, c *port.Conn) {
	seat := n.host.Seat(c.Volume)
	if seat == nil {
		n.log.Debug("replication of a volume that is not here", "volume", c.Volume, "remote", c.RemoteAddr())
		c.Close()
		return
	}
	var conn net.Conn = c
	if n.conf.Poll > 0 {
		polled, err := busypoll.New(c.TCPConn, n.conf.Poll)
		if err != nil {
			n.log.Warn("cannot poll a connection", "err", err)
		} else {
			conn = polled
		}
	}
	seat.ServeReplication(ctx, conn)
}

func (n *node) serveForward(ctx context.Context, c *port.Conn) {
	seat := n.host.Seat(c.Volume)
	if seat == nil {
		n.log.Debug("requests to a volume that is not known here", "volume", c.Volume, "remote", c.RemoteAddr())
		c.Close()
		return
	}
	seat.ServeForward(ctx, c)
}
