package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"lockstep/cmd/lockstep/busypoll"
	"lockstep/mirror"
	"lockstep/mirror/store"
	"lockstep/nbd"
)

type serveCmd struct {
	Store      string        `required:"" placeholder:"FILE" help:"The primary's copy of the volume. Created, sparse, if it is not there."`
	Size       byteSize      `required:"" help:"The volume's size, the same at every site: 1GiB, 512MiB."`
	NBD        []string      `name:"nbd" sep:"none" placeholder:"ADDR" help:"Where NBD clients connect to: unix:PATH, tcp:HOST:PORT, or stdio for the one client that started this process. May be given more than once. Sockets passed by systemd or libnbd (LISTEN_FDS) are served too."`
	Replica    []string      `sep:"none" placeholder:"HOST:PORT" help:"A lockstep replica that must have every write before it is acknowledged. May be given more than once."`
	Ack        string        `default:"written" enum:"written,durable" help:"What an acknowledgement means: written = in the memory or cache of every site, durable after flush or FUA, as on a disk; durable = every write is on stable storage at every site."`
	Export     string        `default:"" help:"The export's name; clients that name none get it too."`
	Poll       time.Duration `default:"0s" help:"Spin this long for requests and acknowledgements before sleeping: 100us halves depth-1 latency between sites that are microseconds apart, for a busy CPU under load. Over distance it stops by itself."`
	Timeout    time.Duration `default:"3s" help:"Give up a replica's connection, and make a new one, when sent bytes stay unacknowledged for this long. Keep it well above the round trip."`
	Congestion string        `placeholder:"NAME" help:"TCP congestion control towards replicas. Default: cubic, else reno, else the system's."`
}

// Help is shown by lockstep serve --help.
func (serveCmd) Help() string {
	return `It connects the replicas, makes their copies equal to the primary's (by checksum
first), then opens its NBD addresses and serves. While a replica is lost, writes
wait and reads go on; when it is back it is sent what it missed and the waiting
writes complete.

Stopping it (Ctrl-C, SIGTERM) answers what is in flight and flushes every site.

Example: one replica, then look at it from a client
  lockstep replica --store b.img --size 1GiB --listen 127.0.0.1:7000 &
  lockstep serve --store a.img --size 1GiB --replica 127.0.0.1:7000 --nbd unix:/tmp/vol.sock &
  until [ -S /tmp/vol.sock ]; do sleep 0.1; done
  nbdinfo 'nbd+unix:///?socket=/tmp/vol.sock'`
}

// stopTimeout bounds how long a stop waits for requests in flight, and then for
// the last flush.
const stopTimeout = 5 * time.Second

// Run serves the volume until ctx ends.
func (c *serveCmd) Run(ctx context.Context) error {
	activated, err := nbd.Activated()
	if err != nil {
		return err
	}
	if len(c.NBD) == 0 && len(activated) == 0 {
		return misuse{errors.New("serve: no --nbd address: give unix:PATH, tcp:HOST:PORT or stdio")}
	}
	if err := c.validate(); err != nil {
		return misuse{err}
	}
	congestion, err := pickCongestion(c.Congestion)
	if err != nil {
		return err
	}
	log := newLogger()
	st, err := store.Open(c.Store, int64(c.Size))
	if err != nil {
		return err
	}
	defer st.Close()
	exp := newExport(st.Data)
	exp.volume, err = mirror.Open(mirror.Config{
		Volume:     c.Export,
		Store:      st,
		New:        st.New(),
		Replicas:   c.Replica,
		Durable:    c.Ack == "durable",
		Complete:   exp.complete,
		Wrap:       c.busyPoll(),
		Timeout:    c.Timeout,
		Congestion: congestion,
		Log:        log,
	})
	if err != nil {
		return err
	}
	defer exp.volume.Close()
	c.warnOfSlowStart(log)
	if err := exp.volume.Wait(ctx); err != nil {
		return fmt.Errorf("stopped before every replica was in sync: %w", err)
	}
	return c.serve(ctx, exp, activated, log)
}

// validate says what about the flags can never work.
func (c *serveCmd) validate() error {
	for _, addr := range c.NBD {
		if kind, _, _ := strings.Cut(addr, ":"); addr != stdio && kind != "unix" && kind != "tcp" {
			return fmt.Errorf("serve: --nbd %s: use unix:PATH, tcp:HOST:PORT or stdio", addr)
		}
	}
	for i, addr := range c.Replica {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return fmt.Errorf("serve: --replica %s: use HOST:PORT", addr)
		}
		if slices.Contains(c.Replica[:i], addr) {
			return fmt.Errorf("serve: --replica %s is given twice", addr)
		}
	}
	switch {
	case c.Timeout <= 0:
		return fmt.Errorf("serve: --timeout %v: use a duration well above the round trip, as 3s", c.Timeout)
	case c.Poll < 0:
		return fmt.Errorf("serve: --poll %v: use 0s, or a duration as 100us", c.Poll)
	}
	return validSize(c.Size)
}

// validSize says whether a store can have that size.
func validSize(size byteSize) error {
	if size <= 0 || size%store.SectorSize != 0 {
		return fmt.Errorf("--size %v is not a positive multiple of %d bytes", size, store.SectorSize)
	}
	return nil
}

func (c *serveCmd) serve(ctx context.Context, exp *export, activated []net.Listener, log *slog.Logger) error {
	server, err := nbd.NewServer(nbd.Config{
		Exports: []nbd.Export{{Name: c.Export, Description: "lockstep volume", Size: uint64(c.Size), Backend: exp}},
		Logger:  log,
	})
	if err != nil {
		return err
	}
	d, err := c.openDoors(activated)
	if err != nil {
		return err
	}
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	group, ctx := errgroup.WithContext(ctx)
	for _, run := range d.serve(ctx, server, leave, log) {
		group.Go(run)
	}
	if len(c.Replica) == 0 {
		log.Warn("no --replica: nothing is mirrored")
	}
	log.Info("volume is ready", "export", c.Export, "size", c.Size, "replicas", len(c.Replica), "ack", c.Ack)
	group.Go(func() error {
		<-ctx.Done()
		return shutdown(server, exp.volume)
	})
	if err := group.Wait(); err != nil {
		return err
	}
	log.Info("stopped; everything acknowledged is on stable storage at every site")
	return nil
}

// busyPoll returns what --poll makes of a replica's connection; nil for nothing.
func (c *serveCmd) busyPoll() func(net.Conn) (net.Conn, error) {
	if c.Poll == 0 {
		return nil
	}
	return func(conn net.Conn) (net.Conn, error) { return busypoll.New(conn, c.Poll) }
}

// shutdown answers what is in flight and flushes every site, as far as that is
// possible in time.
func shutdown(server *nbd.Server, volume *mirror.Volume) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		volume.Close() // ends what the server still waits for
		return fmt.Errorf("stopped with requests in flight, which were not acknowledged (is a replica not in sync?): %w", err)
	}
	ctx, cancel = context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	return volume.Flush(ctx)
}

// warnOfSlowStart says what the kernel will do to writes after a pause.
func (c *serveCmd) warnOfSlowStart(log *slog.Logger) {
	const sysctl = "/proc/sys/net/ipv4/tcp_slow_start_after_idle"
	value, err := os.ReadFile(sysctl)
	if err == nil && len(c.Replica) > 0 && bytes.Equal(bytes.TrimSpace(value), []byte("1")) {
		log.Warn("large writes after a pause will cost extra round trips; mend with: sysctl -w net.ipv4.tcp_slow_start_after_idle=0")
	}
}
