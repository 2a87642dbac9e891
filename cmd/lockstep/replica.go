package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"lockstep/cmd/lockstep/busypoll"
	"lockstep/mirror"
	"lockstep/mirror/store"
)

type replicaCmd struct {
	Store     string        `required:"" placeholder:"FILE" help:"This replica's copy of the volume. Created, sparse, if it is not there."`
	Size      byteSize      `required:"" help:"The volume's size, the same at every site: 1GiB, 512MiB."`
	Meta      string        `placeholder:"DIR" help:"Where the metadata of --store is. Default: FILE.lockstep; to be given for a block device."`
	Direct    bool          `help:"Bypass the page cache (O_DIRECT)."`
	Overwrite bool          `help:"Let a primary overwrite what this copy holds, although it belongs to no volume (a block device, a file from elsewhere), or was itself served as the primary."`
	Listen    string        `required:"" placeholder:"HOST:PORT" help:"Where the primary connects to."`
	Poll      time.Duration `default:"0s" help:"Spin this long for the next frame before sleeping; 100us suits sites that are microseconds apart."`
}

// Help is shown by lockstep replica --help.
func (replicaCmd) Help() string {
	return `Start it before, or after, the lockstep serve that names it with --replica. It
applies every write in order and acknowledges it. Whoever can reach the port can
change the volume: keep it on a network of your own.

Example:
  lockstep replica --store /var/lib/vol.b --size 1GiB --listen 10.0.0.2:7000`
}

func (c *replicaCmd) Run(ctx context.Context) error {
	if err := validSize(c.Size); err != nil {
		return misuse{err}
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return misuse{fmt.Errorf("replica: --listen %s: use HOST:PORT", c.Listen)}
	}
	log := newLogger()
	st, err := openStore(store.Options{Path: c.Store, Size: int64(c.Size), Meta: c.Meta, Direct: c.Direct}, log)
	if err != nil {
		return err
	}
	defer st.Close()
	ln, err := mirror.Listen(ctx, c.Listen)
	if err != nil {
		return err
	}
	if c.Poll > 0 {
		ln = busypoll.Listener{Listener: ln, Limit: c.Poll}
	}
	log.Info("replica is listening", "addr", ln.Addr().String(), "store", c.Store, "size", c.Size)
	r := mirror.NewReplica(mirror.ReplicaConfig{Store: st, Overwrite: c.Overwrite, Log: log})
	if err := r.Serve(ctx, ln); err != nil {
		return err
	}
	if err := st.CloseClean(); err != nil {
		return err
	}
	log.Info("stopped; everything applied is on stable storage")
	return nil
}

// newLogger logs to standard error: standard output is for results.
func newLogger() *slog.Logger { return slog.New(slog.NewTextHandler(os.Stderr, nil)) }
