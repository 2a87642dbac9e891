package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"lockstep/cmd/lockstep/api"
	"lockstep/cmd/lockstep/drill"
	"lockstep/mirror/control"
	"lockstep/nbd"
	"lockstep/wanem/sites"
)

// drillCluster is three nodes in three sites, as processes of this program.
type drillCluster struct {
	sites *sites.Sites
	size  int64
	nodes []*drillNode // a, b, w
}

// newDrillCluster prepares the nodes. With disks, those with data get file systems of
// their own, which can be frozen.
func newDrillCluster(s *sites.Sites, logs string, size int64, disks bool, flags []string) (*drillCluster, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program, to run its node: %w", err)
	}
	c := &drillCluster{sites: s, size: size}
	var voters []string
	for _, site := range s.Names() {
		n := &drillNode{sites: s, site: site, exe: exe, log: filepath.Join(logs, string(site)+".log"),
			data: filepath.Join(s.Dir(), string(site)), socket: filepath.Join(s.Dir(), string(site)+".nbd")}
		voters = append(voters, string(site)+"="+n.addr())
		c.nodes = append(c.nodes, n)
	}
	for _, n := range c.nodes {
		n.args = append([]string{"node", "--name=" + string(n.site), "--data=" + n.data, "--listen=" + n.addr(),
			"--cluster=" + strings.Join(voters, ",")}, flags...)
		if n.site == sites.W {
			n.args = append(n.args, "--witness")
			continue
		}
		n.args = append(n.args, "--nbd=unix:"+n.socket)
		if disks {
			if n.image, err = makeImage(n.data+".img", size); err != nil {
				return nil, err
			}
		}
	}
	return c, nil
}

// start starts the nodes, makes the volume and waits until it is in sync.
func (c *drillCluster) start(ctx context.Context) error {
	for _, n := range c.nodes {
		if err := n.start(); err != nil {
			return err
		}
	}
	ask := api.Create{Name: volumeName, Size: c.size, On: []string{string(sites.A), string(sites.B)},
		Policy: control.Policy{Ack: "written", Failover: "auto", OnIsolation: "suspend", OnLoss: "continue"}}
	err := c.retry(ctx, func(ctx context.Context) error {
		return c.nodes[0].ask(ctx, http.MethodPost, "/volumes", ask, nil)
	})
	if err != nil {
		return fmt.Errorf("make the volume: %w", err)
	}
	return c.Settle(ctx)
}

// askEvery is how often what is waited for is looked at.
const askEvery = 50 * time.Millisecond

// retry calls f until it has no error, or ctx ends; then with both errors.
func (c *drillCluster) retry(ctx context.Context, f func(context.Context) error) error {
	for {
		once, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := f(once)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-time.After(askEvery):
		}
		for _, n := range c.nodes {
			if n.proc != nil && n.proc.Exited() {
				return n.proc.Quote(fmt.Errorf("node %s ended by itself: %w", n.site, n.proc.Wait()))
			}
		}
	}
}

// Sites are those with data.
func (c *drillCluster) Sites() []string { return []string{string(sites.A), string(sites.B)} }

// Dial opens the volume at a site's node.
func (c *drillCluster) Dial(ctx context.Context, site string) (drill.Device, error) {
	return nbd.Dial(ctx, "nbd+unix:///"+volumeName+"?socket="+c.node(sites.Site(site)).socket)
}

func (c *drillCluster) node(site sites.Site) *drillNode {
	return c.nodes[slices.IndexFunc(c.nodes, func(n *drillNode) bool { return n.site == site })]
}

// Settle waits until all nodes say that all is well.
func (c *drillCluster) Settle(ctx context.Context) error {
	return c.retry(ctx, func(ctx context.Context) error {
		var first *api.VolumeStatus
		for _, n := range c.nodes {
			v, err := n.volume(ctx)
			if err == nil {
				err = v.Settled()
			}
			if err == nil && first != nil && v.Epoch != first.Epoch {
				err = fmt.Errorf("epoch %d, and not %d", v.Epoch, first.Epoch)
			}
			if err != nil {
				return fmt.Errorf("node %s: %w", n.site, err)
			}
			first = v
		}
		return nil
	})
}

// Compare has the primary compare all copies.
func (c *drillCluster) Compare(ctx context.Context) (blocks int64, err error) {
	// A copy that falls out of sync meanwhile can't be compared: that begins again.
	err = c.retry(ctx, func(context.Context) error {
		if err := c.Settle(ctx); err != nil {
			return err
		}
		blocks, err = c.nodes[0].verify(ctx)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("compare: %w", err)
	}
	return blocks, nil
}

func (n *drillNode) verify(ctx context.Context) (blocks int64, err error) {
	client := n.client()
	defer client.Close()
	answer, err := client.Ask(ctx, http.MethodPost, "/volumes/"+volumeName+"/verify", nil)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	for lines := json.NewDecoder(answer.Body); ; {
		var line api.VerifyLine
		if err := lines.Decode(&line); err != nil {
			return 0, err
		}
		switch {
		case line.Error != "":
			return 0, errors.New(line.Error)
		case line.Result != nil && line.Result.Checked == 0:
			return 0, errors.New("nothing was compared")
		case line.Result != nil:
			for _, d := range line.Result.Differs {
				blocks += (d.Off+d.Len+drill.BlockSize-1)/drill.BlockSize - d.Off/drill.BlockSize
			}
			return blocks, nil
		}
	}
}

// dump ends the nodes so that their logs have what each of their goroutines was at: for
// when they did not do what they should.
func (c *drillCluster) dump() {
	for _, n := range c.nodes {
		if n.proc != nil && !n.proc.Exited() {
			n.proc.Cmd.Process.Signal(syscall.SIGQUIT) //nolint:errcheck // gone already is fine
			n.proc.Wait()                              //nolint:errcheck // how it ended is in its log
		}
	}
}

// endTimeout is for one node, with its flush.
const endTimeout = 10 * time.Second

// stop ends the nodes in good order; one that was not is killed.
func (c *drillCluster) stop() error {
	var errs []error
	for _, n := range c.nodes {
		if n.proc != nil && !n.proc.Exited() {
			errs = append(errs, n.proc.Stop(context.Background(), endTimeout))
		}
	}
	return errors.Join(errs...)
}
