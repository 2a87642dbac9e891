package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"lockstep/cmd/lockstep/node"
	"lockstep/nbd"
	"lockstep/nbd/kernel"
)

type attachCmd struct {
	Target      string        `arg:"" name:"volume|uri" help:"A volume of the cluster that --nodes names; or what any NBD server exports: nbd://HOST:PORT/EXPORT or nbd+unix:///EXPORT?socket=PATH."`
	Nodes       []string      `placeholder:"ADDR" help:"Where nodes serve NBD, as node --nbd spells it (unix:PATH, tcp:HOST:PORT) or HOST:PORT. The first that answers is used; when it is lost, the next."`
	Device      string        `placeholder:"/dev/nbdN" help:"The device. Default: the one that this command left when it was killed, else the first that is free."`
	Name        string        `placeholder:"CLIENT" help:"This client's name with the volume: whoever attaches under it last is the only one who may still write. Default: the host's name and the device's."`
	Connections int           `default:"1" help:"Sockets, all to one node. More than one is faster at depth, and less safe: see --help."`
	BlockSize   uint32        `placeholder:"BYTES" help:"The device's logical and physical block size: 512 to 4096. Default: 512, or the smallest that the server does."`
	Timeout     time.Duration `placeholder:"1s" help:"How long the kernel waits for a reply before it gives the connection up and asks again by the next one; whole seconds. Default: 1s for a volume, 60s for a URI (see --help)."`
	Stall       time.Duration `default:"5s" help:"How long a node may take to let this client in before the next one is tried."`
	DeadTimeout time.Duration `default:"24h" help:"How long requests wait while no node can be reached, before they fail."`
	JSON        bool          `help:"Print the line about the device as JSON."`
}

// Help is shown by lockstep attach --help.
func (attachCmd) Help() string {
	return `The volume becomes a block device of this machine, through the kernel's NBD driver.
The command stays: it is the agent that connects the device to another node when the
one that it is with is lost. What uses the device sees a pause, never an error: as
long as the request timeout (the kernel's timer has seconds, so one to two and a half
of them) and the failover, whichever is longer. A volume that grows is seen to have
grown when the device is connected anew.

One line on standard output says that the device is ready (and READY=1 to systemd).
Ctrl-C or SIGTERM detaches: if the device is mounted, when it is not any more. A
second signal ends the agent at once, as kill -9 does: the device stays, works as long
as its node does, and is taken over when the same command is run again.

A request keeps the timeout that it began with: one whose reply always takes longer is
asked again for ever. Where a volume can be that slow, begin with a longer --timeout.

A volume that is deleted, made anew or brought back without what it acknowledged ends
the device, when every node says so: I/O errors rather than other data. Errors remain, too:
what the primary's disk cannot read, a full disk with no other copy, a volume's policy
--on-isolation error, and what has waited for --dead-timeout.

An NBD server that is not lockstep's is not known to end what a lost connection had asked
for. A write that it takes longer over than --timeout is sent again, and its first copy
may land on newer data: leave --timeout above what the server's disk can take.

With --connections above 1 the kernel may move a request from a connection that was
lost to another without telling anybody. If the first copy is still on its way then,
on a network that holds it up for seconds, it may land on newer data.

--json: {"device":"/dev/nbd0","size":1073741824,"block":512,"server":"tcp:10.0.0.1:10809",
  "connections":1,"adopted":false}

Examples:
  lockstep attach vol --nodes unix:/run/lockstep/nbd.sock,tcp:10.0.0.2:10809 &
  until [ "$(blockdev --getsize64 /dev/nbd0)" != 0 ]; do sleep 0.1; done
  mkfs.ext4 /dev/nbd0 && mount /dev/nbd0 /mnt
  lockstep attach nbd://10.0.0.9/disk --device /dev/nbd3
  umount /mnt; lockstep detach /dev/nbd0

Exit status: 0 detached, 1 it failed or the device was ended, 2 it was asked wrongly.`
}

// Run keeps the device attached until ctx ends or somebody detaches it.
func (c *attachCmd) Run(ctx context.Context) error {
	conf, err := c.conf()
	if err != nil {
		return misuse{fmt.Errorf("attach: %w", err)}
	}
	control, err := openKernel()
	if err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	serveStorage(conf.Log)
	lockMemory(conf.Log)
	defer control.Close()
	agent, err := kernel.Attach(ctx, control, conf)
	if err != nil {
		return err
	}
	if err := c.ready(agent.Ready()); err != nil {
		return err
	}
	notify(conf.Log, "READY=1")
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	done := make(chan error, 1)
	go func() { done <- agent.Run(life) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	notify(conf.Log, "STOPPING=1")
	return detachWhenFree(agent.Device(), conf.Log, done)
}

// detachWhenFree detaches as soon as nobody uses the device. The agent, whose end done
// tells, keeps it connected meanwhile.
func detachWhenFree(d kernel.Device, log *slog.Logger, done <-chan error) error {
	const interval = 200 * time.Millisecond
	for said := false; ; {
		detached := make(chan error, 1)
		go func() { detached <- detachInChild(d) }()
		select {
		case err := <-done: // and if the other one still waits, it is for what is no more
			return err
		case err := <-detached:
			switch {
			case err == nil:
				return <-done
			case !d.InUse(): // somebody else was first
				return <-done
			case !errors.Is(err, exitHeld):
				return err
			case !said:
				said = true
				log.Warn("the device is detached when it is not used any more; a second signal leaves it attached, without an agent", "err", err)
			}
		}
		select {
		case err := <-done:
			return err
		case <-time.After(interval):
		}
	}
}

// detachInChild is lockstep detach. It writes out what is cached, and that can wait for a
// connection without end: an agent that did it itself could neither bring that connection
// when it is killed nor, because its thread can't end, give its place to another.
func detachInChild(d kernel.Device) error {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("detach %s: %w", d.Path(), err)
	}
	cmd := exec.Command(exe, "detach", d.Path())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C is for the agent
	said, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	text := strings.TrimSpace(strings.TrimPrefix(string(said), "lockstep: "))
	if cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == int(exitHeld) {
		return fmt.Errorf("%w: %s", exitHeld, text)
	}
	return fmt.Errorf("%s: %w", text, err)
}

func (c *attachCmd) ready(r kernel.Ready) error {
	if c.JSON {
		return json.NewEncoder(os.Stdout).Encode(r)
	}
	_, err := fmt.Printf("%s: %s, %d bytes, blocks of %d\n", r.Device, c.Target, r.Size, r.Block)
	return err
}

func notify(log *slog.Logger, state string) {
	if err := systemdNotify(state); err != nil {
		log.Warn("the service manager was not told", "state", state, "err", err)
	}
}

// openKernel finds the kernel's NBD interface, loading its module if it is not there.
func openKernel() (*kernel.Netlink, error) {
	control, err := kernel.Open()
	if errors.Is(err, kernel.ErrNoModule) && exec.Command("modprobe", "nbd").Run() == nil {
		control, err = kernel.Open()
	}
	return control, err
}

// conf makes of the flags what the agent needs, or says what about them can never work.
func (c *attachCmd) conf() (conf kernel.Config, err error) {
	conf = kernel.Config{
		Connections: c.Connections, Block: c.BlockSize, Timeout: c.Timeout, Stall: c.Stall, DeadAfter: c.DeadTimeout,
		Log: newLogger(),
	}
	if c.Device != "" {
		d, err := kernel.ParseDevice(c.Device)
		if err != nil {
			return conf, err
		}
		conf.Device = &d
	}
	if strings.Contains(c.Target, ":") {
		err = c.toServer(&conf)
	} else {
		err = c.toVolume(&conf)
	}
	if err == nil {
		err = conf.Check()
	}
	return conf, err
}

// toServer is for any NBD server.
func (c *attachCmd) toServer(conf *kernel.Config) error {
	server, err := nbd.ParseURI(c.Target)
	if len(c.Nodes) > 0 || c.Name != "" {
		err = errors.Join(err, errors.New("--nodes and --name are for volumes, not for a URI"))
	}
	conf.Servers = []nbd.Endpoint{server}
	conf.Owner = func(d kernel.Device) string { return strings.ReplaceAll(c.Target, " ", "%20") + "@" + d.Name() }
	return err
}

// toVolume is for a volume of a cluster.
func (c *attachCmd) toVolume(conf *kernel.Config) error {
	if len(c.Nodes) == 0 {
		return errors.New("no --nodes: give addresses where nodes serve NBD")
	}
	for _, addr := range c.Nodes {
		if kind, _, _ := strings.Cut(addr, ":"); kind != "unix" && kind != "tcp" {
			addr = "tcp:" + addr
		}
		server, err := nbd.ParseURI(addr)
		if err != nil {
			return err
		}
		conf.Servers = append(conf.Servers, server)
	}
	client := clientName(c.Name)
	agent := node.NewAgent()
	conf.Export = func(d kernel.Device, stay int, first bool) string {
		return node.Session(c.Target, client(d), agent, stay, first)
	}
	conf.Owner = func(d kernel.Device) string { return node.Client(c.Target, client(d)) }
	if !nodeNamePattern.MatchString(c.Target) || c.Name != "" && !nodeNamePattern.MatchString(c.Name) {
		return fmt.Errorf("%s, --name %s: use 1 to 100 letters, digits, dots, dashes and underscores, a letter or digit first", c.Target, c.Name)
	}
	return nil
}

// clientName is what a device is called towards nodes: the name given, or one that is
// this machine's and the device's own, and the same when the agent is started again.
func clientName(given string) func(kernel.Device) string {
	if given != "" {
		return func(kernel.Device) string { return given }
	}
	host, err := os.Hostname()
	if err != nil || !nodeNamePattern.MatchString(host) {
		host = "host"
	}
	host = host[:min(len(host), 60)]
	if id, err := os.ReadFile("/etc/machine-id"); err == nil { // hosts of the same name must not take each other's devices
		sum := sha256.Sum256(append([]byte("lockstep client "), id...))
		host += "-" + hex.EncodeToString(sum[:4])
	}
	return func(d kernel.Device) string { return host + "-" + d.Name() }
}
