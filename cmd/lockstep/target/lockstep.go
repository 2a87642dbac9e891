package target

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"lockstep/cmd/lockstep/api"
	"lockstep/cmd/lockstep/node"
	"lockstep/mirror/control"
	"lockstep/wanem/sweep"
)

// Node is one of lockstep's nodes: where it runs, and how.
type Node struct {
	Name    string // a and b have copies, a is primary; Witness has none
	Listen  string // HOST:PORT
	Command func(args ...string) *exec.Cmd
}

// Witness is the name of the node without a copy.
const Witness = "w"

func checkLockstep() error { return nil }

// cluster is three nodes as processes of this program, that run where their commands
// put them; and one volume of theirs at a time.
type cluster struct {
	conf    *Config
	life    *run
	link    string // to the nodes' data: a socket's path has 107 bytes
	running bool
	volumes int // made so far
}

func newLockstep(ctx context.Context, c *Config, life *run) (driver, error) {
	return &cluster{conf: c, life: life, link: filepath.Join(c.Scratch, "data")}, c.keepDevices(ctx, life)
}

func (c *cluster) wire() sweep.Wire          { return c.conf.Wire }
func (c *cluster) data(name string) string   { return filepath.Join(c.link, name) }
func (c *cluster) socket(name string) string { return filepath.Join(c.data(name), "nbd.sock") }
func (c *cluster) volume() string            { return fmt.Sprintf("sweep%d", c.volumes) }
func (c *cluster) uri() string               { return "nbd+unix:///" + c.volume() + "?socket=" + c.socket("a") }

func (c *cluster) args(n Node) []string {
	var all []string
	for _, n := range c.conf.Nodes {
		all = append(all, n.Name+"="+n.Listen)
	}
	args := []string{"node", "--name=" + n.Name, "--data=" + c.data(n.Name), "--listen=" + n.Listen, "--cluster=" + strings.Join(all, ",")}
	if c.conf.Heartbeat > 0 {
		args = append(args, "--heartbeat="+c.conf.Heartbeat.String())
	}
	if n.Name == Witness {
		return append(args, "--witness")
	}
	args = append(args, "--nbd=unix:"+c.socket(n.Name), "--poll="+c.conf.Poll.String())
	if c.conf.Congestion != "" {
		args = append(args, "--congestion="+c.conf.Congestion)
	}
	return args
}

// open makes a new volume, starting the nodes first if they do not run. What the connections
// and buffers of the last volume went through is not part of it.
func (c *cluster) open(ctx context.Context, r *run) (v volume, err error) {
	if err := c.startNodes(); err != nil {
		return v, err
	}
	if c.volumes > 0 {
		if err := c.ask(ctx, http.MethodDelete, "/volumes/"+c.volume(), nil, nil); err != nil {
			return v, fmt.Errorf("remove the volume before: %w", err)
		}
	}
	c.volumes++
	ask := api.Create{Name: c.volume(), Size: c.conf.Size, On: []string{"a", "b"}, Policy: control.Policy{Ack: c.conf.Ack, Lease: c.conf.Lease}}
	if err := c.life.await(ctx, func() error { return c.create(ctx, ask) }); err != nil {
		return v, err
	}
	begun, err := c.awaitSync(ctx)
	if err != nil {
		return v, err
	}
	v.whole = func(ctx context.Context) error {
		epoch, err := c.awaitSync(ctx)
		if err == nil && epoch != begun {
			err = &sweep.DegradedError{Why: fmt.Sprintf("a copy was lost and came back, or another became primary (epoch %d, now %d)", begun, epoch)}
		}
		return err
	}
	if v.copies, err = c.copies(); err != nil {
		return v, err
	}
	v.source, err = c.conf.attach(ctx, r, c.uri())
	return v, err
}

func (c *cluster) startNodes() error {
	if c.running {
		return nil
	}
	if err := os.Symlink(c.conf.Dir, c.link); err != nil {
		return fmt.Errorf("start the nodes: %w", err)
	}
	c.life.did("link to the nodes' data", func(context.Context) error { return os.Remove(c.link) })
	c.running = true
	for _, n := range c.conf.Nodes {
		// What they hold at the end is thrown away, or has been compared.
		if err := c.life.startDisposable("node "+n.Name, n.Command(c.args(n)...)); err != nil {
			return err
		}
	}
	return nil
}

// create asks for a volume; what can never be is hopeless.
func (c *cluster) create(ctx context.Context, ask api.Create) error {
	err := c.ask(ctx, http.MethodPost, "/volumes", ask, nil)
	if refused := new(api.Refused); errors.As(err, &refused) && refused.Code == http.StatusBadRequest {
		return hopeless{err}
	}
	return err
}

func (c *cluster) ask(ctx context.Context, method, path string, ask, out any) error {
	client := api.Unix(filepath.Join(c.data("a"), node.AdminSocket))
	defer client.Close()
	return client.Get(ctx, method, path, ask, out)
}

// awaitSync waits until every copy is in sync, and returns the epoch of that.
func (c *cluster) awaitSync(ctx context.Context) (epoch uint64, err error) {
	err = c.life.await(ctx, func() (err error) {
		epoch, err = c.inSync(ctx)
		return err
	})
	return epoch, err
}

func (c *cluster) inSync(ctx context.Context) (epoch uint64, err error) {
	var status api.Status
	if err := c.ask(ctx, http.MethodGet, "/status", nil, &status); err != nil {
		return 0, err
	}
	for _, v := range status.Volumes {
		if v.Volume != nil && v.Name == c.volume() {
			return v.Epoch, v.Settled()
		}
	}
	return 0, fmt.Errorf("node a does not know volume %s", c.volume())
}

// copies are the files of the volume at a and b.
func (c *cluster) copies() (files []string, err error) {
	for _, name := range []string{"a", "b"} {
		found, e := filepath.Glob(filepath.Join(c.conf.Dir, name, "volumes", c.volume()+"-*", "data"))
		if e != nil || len(found) != 1 {
			err = errors.Join(err, fmt.Errorf("the copy of %s at node %s: %d found", c.volume(), name, len(found)))
			continue
		}
		files = append(files, found[0])
	}
	return files, err
}

func (c *cluster) facts() sweep.TargetFacts {
	f := sweep.TargetFacts{Version: c.conf.Version, Parameters: c.conf.parameters(), Settings: []sweep.Setting{
		{Name: "ack", Value: c.conf.Ack, Why: "what an acknowledged write is: in every site's memory, or on its stable storage"},
		{Name: "flush", Value: "waits for both sites", Why: "it returns when both have made everything durable: a round trip"},
		c.conf.file(),
	}}
	for name, value := range map[string]string{"ack": c.conf.Ack, "poll": c.conf.Poll.String(), "congestion": c.conf.Congestion, "lease": c.conf.Lease.String()} {
		f.Parameters[name] = value
	}
	for _, n := range c.conf.Nodes {
		f.Commands = append(f.Commands, "node "+n.Name+": lockstep "+strings.Join(c.args(n), " "))
	}
	f.Commands = append(f.Commands, fmt.Sprintf("lockstep volume create sweepN --size %d --on a,b --ack %s", c.conf.Size, c.conf.Ack))
	if c.conf.Kernel {
		f.Commands = append(f.Commands, "lockstep attach 'nbd+unix:///sweepN?socket="+c.socket("a")+"'")
	}
	return f
}
