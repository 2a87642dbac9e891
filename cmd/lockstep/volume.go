package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"lockstep/cmd/lockstep/api"
	"lockstep/mirror/control"
)

type volumeCmd struct {
	Create  volumeCreateCmd  `cmd:"" help:"Make a volume."`
	List    volumeListCmd    `cmd:"" help:"List the volumes of the cluster."`
	Show    volumeShowCmd    `cmd:"" help:"Show what the cluster has on record of a volume."`
	Resize  volumeResizeCmd  `cmd:"" help:"Make a volume larger."`
	Policy  volumePolicyCmd  `cmd:"" help:"Change what a volume does when something is lost."`
	Delete  volumeDeleteCmd  `cmd:"" help:"Delete a volume and every copy of it."`
	Replica volumeReplicaCmd `cmd:"" help:"Change which nodes have a copy of a volume."`
}

type volumeCreateCmd struct {
	asking
	Name      string        `arg:"" help:"The volume's name, and its NBD export's: letters, digits, dots, dashes and underscores."`
	Size      byteSize      `required:"" help:"Its size: 1GiB, 512MiB."`
	On        []string      `required:"" placeholder:"NODE" help:"The nodes that are to have a copy, 1 to 5; the first is the first primary."`
	Ack       string        `default:"written" enum:"written,durable" help:"What an acknowledgement means: written = in the memory or cache of every site in sync, durable after flush or FUA, as on a disk; durable = every write is on stable storage there."`
	Failover  string        `default:"auto" enum:"auto,manual" help:"auto = a copy in sync takes over when the primary is lost; manual = it waits for lockstep failover."`
	Isolation string        `name:"on-isolation" default:"suspend" enum:"suspend,error" help:"What clients get while no primary can be reached: suspend = their requests wait; error = they fail after 10 s."`
	Lease     time.Duration `default:"300ms" help:"How long a copy promises its primary not to take over: well above their round trip. A primary that is lost is replaced half as long again after that. It cannot be changed later."`
	Loss      string        `name:"on-loss" default:"continue" enum:"continue,suspend" help:"When a replica is lost: continue = it is left behind and brought up to date later; suspend = writes wait for it."`
}

// Help is shown by lockstep volume create --help.
func (volumeCreateCmd) Help() string {
	return `Every node serves the volume, as the NBD export of its name. It reads as zeroes. The
command waits until every copy is in sync, at most 10 s (with --json it does not wait).

Example:
  lockstep volume create vol --size 10GiB --on a,b --admin /var/lib/lockstep/admin.sock
  nbdinfo 'nbd+unix:///vol?socket=/run/lockstep/nbd.sock'`
}

// Run makes the volume.
func (c *volumeCreateCmd) Run(ctx context.Context) error {
	ask := api.Create{Name: c.Name, Size: int64(c.Size), On: c.On, Policy: control.Policy{
		Ack: c.Ack, Failover: c.Failover, OnIsolation: c.Isolation, OnLoss: c.Loss, Lease: c.Lease,
	}}
	return c.change(ctx, http.MethodPost, "/volumes", ask, func(out io.Writer, v *control.Volume) error {
		state := "created, and in sync"
		if err := c.awaitSync(ctx); err != nil {
			state = fmt.Sprintf("created; not in sync within %v (%v): see lockstep status", syncTimeout, err)
		}
		_, err := fmt.Fprintf(out, "volume %s, %v, on %s: %s\n", v.Name, byteSize(v.Size), strings.Join(c.On, ", "), state)
		return err
	})
}

// syncTimeout is how long a new volume's copies are waited for: they are empty.
const syncTimeout = 10 * time.Second

// awaitSync returns when every copy of the new volume is in sync, or with why not.
func (c *volumeCreateCmd) awaitSync(ctx context.Context) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	for {
		var status api.Status
		last := client.Get(ctx, http.MethodGet, "/status", nil, &status)
		if last == nil {
			last = errNoVolume
		}
		for _, v := range status.Volumes {
			if v.Volume != nil && v.Name == c.Name {
				last = v.Settled()
			}
		}
		if last == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return last
		case <-time.After(askEvery):
		}
	}
}

// change asks for something about a volume, and prints what came of it.
func (a *asking) change(ctx context.Context, method, path string, ask any, print func(io.Writer, *control.Volume) error) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	v := new(control.Volume)
	if err := client.Get(ctx, method, path, ask, v); err != nil {
		return refusedBy(err)
	}
	if a.JSON {
		return printJSON(v)
	}
	return print(os.Stdout, v)
}

type volumeListCmd struct{ asking }

// Run lists the volumes.
func (c *volumeListCmd) Run(ctx context.Context) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	var all []control.Volume
	if err := client.Get(ctx, http.MethodGet, "/volumes", nil, &all); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(all)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "VOLUME\tSIZE\tPRIMARY\tEPOCH\tIN SYNC\tNOT IN SYNC\tACK\tFAILOVER")
	for _, v := range all {
		in, out := copies(&v)
		fmt.Fprintf(w, "%s\t%v\t%s\t%d\t%s\t%s\t%s\t%s\n", v.Name, byteSize(v.Size), v.Primary, v.Epoch,
			orDash(strings.Join(in, ",")), orDash(strings.Join(out, ",")), v.Policy.Ack, v.Policy.Failover)
	}
	return w.Flush()
}

// copies are the nodes with a copy of a volume.
func copies(v *control.Volume) (inSync, others []string) {
	for _, r := range v.Replicas {
		switch {
		case r.InSync:
			inSync = append(inSync, r.Node)
		case r.Node != "":
			others = append(others, r.Node)
		}
	}
	return inSync, others
}

type volumeShowCmd struct {
	asking
	Volume string `arg:"" help:"The volume's name."`
}

// Run shows a volume's record.
func (c *volumeShowCmd) Run(ctx context.Context) error {
	return c.change(ctx, http.MethodGet, volumePath(c.Volume), nil, printRecord)
}

func printRecord(out io.Writer, v *control.Volume) error {
	by := "proposed by " + v.By
	switch {
	case v.Epoch == 0:
		by = "not begun"
	case v.Forced:
		by = "forced by an operator"
	case v.By == control.Operator:
		by = "asked for by an operator"
	}
	fmt.Fprintf(out, "volume %s, %v, id %s\n", v.Name, byteSize(v.Size), v.ID)
	fmt.Fprintf(out, "primary %s in epoch %d, %s; incarnation %d\n", v.Primary, v.Epoch, by, v.Incarnation)
	fmt.Fprintln(out, policyText(v))
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nSLOT\tNODE\tIN SYNC\tSTORE")
	for i, r := range v.Replicas {
		store := ""
		if r.Store != (control.ID{}) {
			store = r.Store.String()
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\n", i, orDash(r.Node), yesNo(r.InSync), orDash(store))
	}
	return w.Flush()
}

func policyText(v *control.Volume) string {
	p := v.Policy
	return fmt.Sprintf("ack %s, failover %s, on isolation %s, on loss %s, lease %v", p.Ack, p.Failover, p.OnIsolation, p.OnLoss, v.Lease())
}

func yesNo(is bool) string {
	if is {
		return "yes"
	}
	return "no"
}

type volumeResizeCmd struct {
	asking
	Volume string   `arg:"" help:"The volume's name."`
	Size   byteSize `required:"" help:"Its size from now on, larger than now."`
}

// Run makes a volume larger.
func (c *volumeResizeCmd) Run(ctx context.Context) error {
	return c.change(ctx, http.MethodPut, volumePath(c.Volume, "size"), api.Resize{Size: int64(c.Size)}, func(out io.Writer, v *control.Volume) error {
		_, err := fmt.Fprintf(out, "volume %s has %v now; clients see that when they connect again\n", v.Name, byteSize(v.Size))
		return err
	})
}

type volumePolicyCmd struct {
	asking
	Volume    string `arg:"" help:"The volume's name."`
	Ack       string `default:"" enum:",written,durable" help:"As for volume create; likewise the others. What is not given stays as it is."`
	Failover  string `default:"" enum:",auto,manual" help:"auto or manual."`
	Isolation string `name:"on-isolation" default:"" enum:",suspend,error" help:"suspend or error."`
	Loss      string `name:"on-loss" default:"" enum:",continue,suspend" help:"continue or suspend."`
}

// Run changes a volume's policy.
func (c *volumePolicyCmd) Run(ctx context.Context) error {
	ask := control.Policy{Ack: c.Ack, Failover: c.Failover, OnIsolation: c.Isolation, OnLoss: c.Loss}
	if ask == (control.Policy{}) {
		return misuse{errors.New("volume policy: what is to change? --ack, --failover, --on-isolation or --on-loss")}
	}
	return c.change(ctx, http.MethodPut, volumePath(c.Volume, "policy"), ask, printRecord)
}

type volumeDeleteCmd struct {
	asking
	Volume string `arg:"" help:"The volume's name."`
	Yes    bool   `help:"Really: every copy is deleted, and clients are hung up on."`
}

// Run deletes a volume.
func (c *volumeDeleteCmd) Run(ctx context.Context) error {
	if !c.Yes {
		return misuse{errors.New("delete removes every copy of the volume: say --yes if that is meant")}
	}
	return c.change(ctx, http.MethodDelete, volumePath(c.Volume), nil, func(out io.Writer, v *control.Volume) error {
		_, err := fmt.Fprintf(out, "volume %s: deleted\n", v.Name)
		return err
	})
}
