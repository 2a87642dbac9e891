package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"lockstep/cmd/lockstep/api"
	"lockstep/cmd/lockstep/drill"
	"lockstep/wanem/sites"
)

// slowFactor is how much longer a slow path is.
const slowFactor = 20

// Break does one kind of harm and returns what takes it back.
func (c *drillCluster) Break(ctx context.Context, kind drill.Kind) (func(context.Context) error, error) {
	primary, err := c.primary(ctx)
	if err != nil {
		return nil, fmt.Errorf("find the primary: %w", err)
	}
	replica, witness := c.node(sites.A), c.node(sites.W)
	if replica == primary {
		replica = c.node(sites.B)
	}
	switch kind {
	case drill.Kill:
		return primary.kill()
	case drill.KillReplica:
		return replica.kill()
	case drill.WitnessKill:
		return witness.kill()
	case drill.Stop:
		return primary.pause()
	case drill.StopReplica:
		return replica.pause()
	case drill.DiskStall:
		return primary.freeze()
	case drill.Handover:
		ask := api.Handover{To: string(replica.site)}
		return nothing, primary.ask(ctx, http.MethodPost, "/volumes/"+volumeName+"/handover", ask, nil)
	default:
		return c.breakPath(kind, primary.site, replica.site)
	}
}

func nothing(context.Context) error { return nil }

func (c *drillCluster) breakPath(kind drill.Kind, primary, replica sites.Site) (func(context.Context) error, error) {
	cut := func(f func(cut bool) error) (func(context.Context) error, error) {
		return func(context.Context) error { return f(false) }, f(true)
	}
	switch kind {
	case drill.CutAB:
		return cut(func(cut bool) error { return c.sites.CutBoth(primary, replica, cut) })
	case drill.CutABOneway:
		return cut(func(cut bool) error { return c.sites.Cut(primary, replica, cut) })
	case drill.CutBAOneway:
		return cut(func(cut bool) error { return c.sites.Cut(replica, primary, cut) })
	case drill.CutAW:
		return cut(func(cut bool) error { return c.sites.CutBoth(primary, sites.W, cut) })
	case drill.CutBW:
		return cut(func(cut bool) error { return c.sites.CutBoth(replica, sites.W, cut) })
	case drill.IsolatePrimary:
		return cut(func(cut bool) error { return c.sites.Isolate(primary, cut) })
	case drill.Slow:
		mend := func(context.Context) error { return c.sites.Slow(primary, replica, 1) }
		return mend, c.sites.Slow(primary, replica, slowFactor)
	}
	return nil, fmt.Errorf("there is no fault of kind %q", kind)
}

// primary is the node that leads.
func (c *drillCluster) primary(ctx context.Context) (*drillNode, error) {
	v, err := c.nodes[0].volume(ctx)
	if err != nil {
		return nil, err
	}
	for _, n := range c.nodes {
		if string(n.site) == v.Primary {
			return n, nil
		}
	}
	return nil, fmt.Errorf("%q is no node of the drill", v.Primary)
}

func (n *drillNode) kill() (func(context.Context) error, error) {
	n.proc.Kill()
	return func(context.Context) error { return n.start() }, nil
}

func (n *drillNode) pause() (func(context.Context) error, error) {
	signal := func(s syscall.Signal) error { return n.proc.Cmd.Process.Signal(s) }
	return func(context.Context) error { return signal(syscall.SIGCONT) }, signal(syscall.SIGSTOP)
}

// canStall says why no disk can be stalled here.
func canStall() error {
	f, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("a disk that can be stalled is a loop device: %w (run as root, and modprobe loop)", err)
	}
	return f.Close()
}

// holdFrozen freezes a file system until its standard input ends, so also when this
// program is killed: nothing that writes there could be killed then.
const holdFrozen = `exec 3<"$1" && fsfreeze -f /proc/self/fd/3 && echo frozen && read -r _; fsfreeze -u /proc/self/fd/3`

// freeze makes every write to the node's file system wait, as a disk does that has
// stopped to answer.
func (n *drillNode) freeze() (func(context.Context) error, error) {
	cmd := exec.Command("sh", "-c", holdFrozen, "sh", n.inside(n.data))
	var complaint strings.Builder
	cmd.Stderr = &complaint
	hold, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("freeze the disk of node %s: %w", n.site, err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil && !errors.Is(err, io.EOF) || line != "frozen\n" {
		hold.Close()
		return nil, fmt.Errorf("freeze the disk of node %s: %w: %s", n.site, errors.Join(err, cmd.Wait()), complaint.String())
	}
	return func(context.Context) error {
		hold.Close()
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("thaw the disk of node %s: %w: %s", n.site, err, complaint.String())
		}
		return nil
	}, nil
}
