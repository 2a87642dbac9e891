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
	"lockstep/cmd/lockstep/export"
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
	Loss       string        `name:"on-replica-loss" default:"suspend" enum:"suspend,continue" help:"suspend = writes wait until every replica is in sync; continue = a replica that is lost for --loss-timeout is left behind, and brought up to date when it is back. With continue nothing but this process may write to the volume: if this site is lost too, a replica that was left behind lacks what was written since."`
	LossWait   time.Duration `name:"loss-timeout" default:"5s" help:"How long a lost replica holds writes up with --on-replica-loss continue."`
	AcceptLoss bool          `name:"accept-data-loss" help:"Serve this copy although it may lack acknowledged writes (its machine lost power, or it was being brought up to date). Replicas are made equal to it."`
	Forget     []string      `name:"forget-replica" sep:"none" placeholder:"HOST:PORT" help:"Give up a replica that was in sync and is not named any more. May be given more than once."`
	Meta       string        `placeholder:"DIR" help:"Where the metadata of --store is. Default: FILE.lockstep; to be given for a block device."`
	Direct     bool          `help:"Bypass the page cache (O_DIRECT). Clients then see the disk's block size as the smallest request."`
	Checkpoint time.Duration `hidden:"" default:"15s"`
	Admin      string        `placeholder:"PATH" help:"A unix socket for lockstep status and lockstep verify."`
	Share      float64       `name:"resync-share" default:"0.5" help:"How much writes' p99 may grow while a replica is brought up to date: 0.5 = by half."`
	Floor      byteSize      `name:"resync-min" default:"4MiB" help:"What resync may always take, per second."`
	Ceiling    byteSize      `name:"resync-max" default:"1GiB" help:"The most that resync may take, per second."`
	Redundancy time.Duration `name:"resync-within" default:"1h" help:"Bring a replica up to date within this time, whatever writes feel."`
	Poll       time.Duration `default:"0s" help:"Spin this long for requests and acknowledgements before sleeping: 100us halves depth-1 latency between sites that are microseconds apart, for a busy CPU under load. Over distance it stops by itself."`
	Timeout    time.Duration `default:"3s" help:"Give up a replica's connection, and make a new one, when sent bytes stay unacknowledged for this long. Keep it well above the round trip."`
	Congestion string        `placeholder:"NAME" help:"TCP congestion control towards replicas. Default: cubic, else reno, else the system's."`
}

// Help is shown by lockstep serve --help.
func (serveCmd) Help() string {
	return `It connects the replicas, brings them up to date (only what they lack, compared by
checksum first where that is not known), then opens its NBD addresses and serves.
While a replica is lost, writes wait and reads go on; when it is back it is sent
what it missed and the waiting writes complete. With --on-replica-loss continue
writes wait for --loss-timeout only, and the replica catches up while they go on.

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
	st, err := openStore(store.Options{Path: c.Store, Size: int64(c.Size), Meta: c.Meta, Direct: c.Direct}, log)
	if err != nil {
		return err
	}
	defer st.Close()
	exp := &export.Export{Data: dataOf(st)}
	volume, err := mirror.Open(mirror.Config{
		Volume:         c.Export,
		Store:          st,
		Replicas:       c.Replica,
		Durable:        c.Ack == "durable",
		Continue:       c.Loss == "continue",
		LossTimeout:    c.LossWait,
		AcceptDataLoss: c.AcceptLoss,
		Checkpoint:     c.Checkpoint,
		Forget:         c.Forget,
		Resync:         mirror.PaceConfig{Share: c.Share, Floor: int64(c.Floor), Ceiling: int64(c.Ceiling), Redundancy: c.Redundancy},
		Complete:       exp.Complete,
		Wrap:           c.busyPoll(),
		Timeout:        c.Timeout,
		Congestion:     congestion,
		Log:            log,
	})
	if err != nil {
		return err
	}
	defer volume.Close()
	exp.Volume = volume
	stopAdmin, err := startAdmin(ctx, c.Admin, volume, log)
	if err != nil {
		return err
	}
	defer stopAdmin()
	c.warnOfSlowStart(log)
	err = volume.Wait(ctx)
	if err != nil {
		err = fmt.Errorf("stopped before the volume was ready: %w", err)
	} else {
		err = c.serve(ctx, exp, volume, minBlock(st), activated, log)
	}
	volume.Close()
	// Whatever other sites lack, this copy lost nothing: a restart of the machine must not make it doubtful.
	if err := errors.Join(err, st.CloseClean()); err != nil {
		return err
	}
	log.Info("stopped; everything acknowledged is on stable storage at every site in sync")
	return nil
}

// openStore opens a copy and says what was found wrong with it.
func openStore(o store.Options, log *slog.Logger) (*store.Store, error) {
	st, err := store.Open(o)
	if err != nil {
		return nil, err
	}
	for _, w := range st.Warnings() {
		log.Warn("store", "warning", w)
	}
	if m := st.Meta(); m.Lossy {
		log.Warn("this copy may lack writes that were not flushed", "why", m.Why)
	}
	return st, nil
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
	case c.LossWait <= 0 || c.Redundancy <= 0 || c.Checkpoint <= 0:
		return fmt.Errorf("serve: --loss-timeout %v, --resync-within %v: use durations as 5s, 1h", c.LossWait, c.Redundancy)
	case c.Share <= 0 || c.Floor <= 0 || c.Ceiling < c.Floor:
		return errors.New("serve: --resync-share and --resync-min are above 0, --resync-max is at least --resync-min")
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

func (c *serveCmd) serve(ctx context.Context, exp nbd.Backend, volume *mirror.Volume, minBlock uint32, activated []net.Listener, log *slog.Logger) error {
	server, err := nbd.NewServer(nbd.Config{
		Exports: []nbd.Export{{Name: c.Export, Description: "lockstep volume", Size: uint64(c.Size), Backend: exp, MinBlock: minBlock}},
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
		log.Info("stopping: what is in flight is answered and every site flushed, as far as that takes no longer than " + stopTimeout.String())
		return shutdown(server, volume)
	})
	group.Go(func() error {
		select {
		case <-ctx.Done():
			return nil
		case <-volume.Ended():
			return volume.Cause()
		}
	})
	return group.Wait()
}

// dataOf says what of a copy holds data.
func dataOf(st *store.Store) func(off int64) (start, end int64, ok bool, err error) {
	return func(off int64) (start, end int64, ok bool, err error) {
		start, end, err = st.Data(off)
		return start, end, true, err
	}
}

// minBlock is the smallest request that a copy can do, in bytes; 0 if any.
func minBlock(st *store.Store) uint32 {
	if align := st.Align(); align > 1 {
		return uint32(align)
	}
	return 0
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
	return volume.Settle(ctx)
}

// warnOfSlowStart says what the kernel will do to writes after a pause.
func (c *serveCmd) warnOfSlowStart(log *slog.Logger) {
	const sysctl = "/proc/sys/net/ipv4/tcp_slow_start_after_idle"
	value, err := os.ReadFile(sysctl)
	if err == nil && len(c.Replica) > 0 && bytes.Equal(bytes.TrimSpace(value), []byte("1")) {
		log.Warn("large writes after a pause will cost extra round trips; mend with: sysctl -w net.ipv4.tcp_slow_start_after_idle=0")
	}
}
