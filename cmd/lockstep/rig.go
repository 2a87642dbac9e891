package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"lockstep/cmd/lockstep/api"
	"lockstep/cmd/lockstep/child"
	"lockstep/cmd/lockstep/node"
	"lockstep/mirror/control"
	"lockstep/nbd"
)

const (
	startTimeout = 30 * time.Second // until a volume is in sync and served
	endTimeout   = 10 * time.Second // of one process, with its flush
	pollInterval = 2 * time.Millisecond
)

// rig is a cluster of three processes of this program, a and b with copies and the
// witness w, that run where their commands put them; and one volume of it at a time,
// whose primary is a. One goroutine uses it.
type rig struct {
	dir, logs  string // of the nodes' data; of what the processes said
	short      string // a link to dir: a socket's path has 107 bytes
	size       byteSize
	ack        string
	poll       time.Duration
	congestion string // empty leaves the choice to the node
	places     []place

	running []*child.Process
	volumes int // made so far
	client  *nbd.Client
}

// place is where one node runs.
type place struct {
	name    string
	listen  string // HOST:PORT
	command func(args ...string) *exec.Cmd
}

// witness is the place without a copy.
const witness = "w"

func (r *rig) data(name string) string { return filepath.Join(r.short, name) }
func (r *rig) socket() string          { return filepath.Join(r.data("a"), "nbd.sock") }
func (r *rig) volume() string          { return fmt.Sprintf("sweep%d", r.volumes) }
func (r *rig) uri() string             { return "nbd+unix:///" + r.volume() + "?socket=" + r.socket() }

func (r *rig) args(p place) []string {
	var cluster []string
	for _, p := range r.places {
		cluster = append(cluster, p.name+"="+p.listen)
	}
	args := []string{"node", "--name=" + p.name, "--data=" + r.data(p.name), "--listen=" + p.listen, "--cluster=" + strings.Join(cluster, ",")}
	if p.name == witness {
		return append(args, "--witness")
	}
	args = append(args, "--nbd=unix:"+filepath.Join(r.data(p.name), "nbd.sock"), "--poll="+r.poll.String())
	if r.congestion != "" {
		args = append(args, "--congestion="+r.congestion)
	}
	return args
}

// start makes a new volume and connects to it, starting the nodes first if they do not
// run. After an error stop is still needed.
func (r *rig) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("no volume after %v", startTimeout))
	defer cancel()
	if len(r.running) == 0 {
		if err := r.startNodes(); err != nil {
			return err
		}
	}
	r.volumes++
	ask := api.Create{Name: r.volume(), Size: int64(r.size), On: []string{"a", "b"}, Policy: control.Policy{Ack: r.ack}}
	if err := r.until(ctx, func() error { return r.ask(ctx, http.MethodPost, "/volumes", ask, nil) }); err != nil {
		return err
	}
	if err := r.until(ctx, func() error { return r.inSync(ctx) }); err != nil {
		return err
	}
	return r.until(ctx, func() (err error) {
		r.client, err = nbd.Dial(ctx, r.uri())
		return err
	})
}

func (r *rig) startNodes() error {
	if err := errors.Join(os.MkdirAll(r.dir, 0o755), os.MkdirAll(r.logs, 0o755)); err != nil {
		return fmt.Errorf("start the nodes: %w", err)
	}
	if err := os.Symlink(r.dir, r.short); err != nil {
		return fmt.Errorf("start the nodes: %w", err)
	}
	for _, p := range r.places {
		started, err := child.Start("node "+p.name, filepath.Join(r.logs, p.name+".log"), p.command(r.args(p)...))
		if err != nil {
			return err
		}
		r.running = append(r.running, started)
	}
	return nil
}

// until tries again until there is no error; that a node ends, or was asked for what can
// never be, is one for good. When ctx ends, the error says what was in the way before.
func (r *rig) until(ctx context.Context, try func() error) error {
	var last error
	for {
		err := try()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil && last != nil {
			err = last // this try was only cut short
		}
		last = err
		if refused := new(api.Refused); errors.As(err, &refused) && refused.Code == http.StatusBadRequest {
			return err
		}
		for _, n := range r.running {
			if e := n.Pause(ctx, pollInterval); e != nil {
				return fmt.Errorf("%w: %w", e, err)
			}
		}
	}
}

func (r *rig) ask(ctx context.Context, method, path string, ask, out any) error {
	client := api.Unix(filepath.Join(r.data("a"), node.AdminSocket))
	defer client.Close()
	return client.Get(ctx, method, path, ask, out)
}

func (r *rig) inSync(ctx context.Context) error {
	var status api.Status
	if err := r.ask(ctx, http.MethodGet, "/status", nil, &status); err != nil {
		return err
	}
	for _, v := range status.Volumes {
		if v.Volume != nil && v.Name == r.volume() {
			return settled(&v)
		}
	}
	return errNoVolume
}

// copies are the files of the volume at a and b.
func (r *rig) copies() (a, b string, err error) {
	find := func(name string) string {
		found, e := filepath.Glob(filepath.Join(r.dir, name, "volumes", r.volume()+"-*", "data"))
		if e != nil || len(found) != 1 {
			err = errors.Join(err, fmt.Errorf("the copy of %s at node %s: %d found", r.volume(), name, len(found)))
			return ""
		}
		return found[0]
	}
	return find("a"), find("b"), err
}

// disconnect ends the client's connection, if there is one.
func (r *rig) disconnect() (err error) {
	if r.client != nil {
		err = r.client.Close()
		r.client = nil
	}
	return err
}

// remove deletes the volume.
func (r *rig) remove(ctx context.Context) error {
	if err := r.disconnect(); err != nil || r.volumes == 0 || len(r.running) == 0 {
		return err
	}
	return r.ask(ctx, http.MethodDelete, "/volumes/"+r.volume(), nil, nil)
}

// stop ends the nodes. When ctx ends they are killed. It may be called again.
func (r *rig) stop(ctx context.Context) (err error) {
	err = r.disconnect()
	for _, n := range r.running {
		err = errors.Join(err, n.Stop(ctx, endTimeout))
	}
	if len(r.running) > 0 {
		err = errors.Join(err, os.Remove(r.short))
	}
	r.running = nil
	return err
}

// explain adds to an error what the processes said last.
func (r *rig) explain(err error) error {
	for _, n := range r.running {
		err = n.Quote(err)
	}
	return err
}

// device is the volume as the sweep sees it.
type device struct{ *nbd.Client }

// Size is in bytes.
func (d device) Size() int64 { return int64(d.Client.Size()) }
