package main

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"lockstep/cmd/lockstep/api"
	"lockstep/mirror/control"
)

type volumeReplicaCmd struct {
	Add     replicaAddCmd     `cmd:"" help:"Give a node a copy of a volume."`
	Remove  replicaRemoveCmd  `cmd:"" help:"Take a node's copy, which is not the primary's, from a volume."`
	Replace replicaReplaceCmd `cmd:"" help:"Give another node a copy instead of one that is lost."`
}

type replicaAddCmd struct {
	asking
	Volume string `arg:"" help:"The volume's name."`
	At     string `arg:"" name:"node" help:"The node that gets a copy."`
}

// Run adds a replica.
func (c *replicaAddCmd) Run(ctx context.Context) error {
	return c.change(ctx, http.MethodPost, volumePath(c.Volume, "replicas"), api.Place{Node: c.At}, func(out io.Writer, v *control.Volume) error {
		_, err := fmt.Fprintf(out, "%s gets a copy of %s; lockstep status tells how far it is\n", c.At, v.Name)
		return err
	})
}

type replicaRemoveCmd struct {
	asking
	Volume string `arg:"" help:"The volume's name."`
	At     string `arg:"" name:"node" help:"The node whose copy is given up."`
}

// Run removes a replica.
func (c *replicaRemoveCmd) Run(ctx context.Context) error {
	return c.change(ctx, http.MethodDelete, volumePath(c.Volume, "replicas", c.At), nil, func(out io.Writer, v *control.Volume) error {
		_, err := fmt.Fprintf(out, "%s has no copy of %s any more; its files stay there, renamed, until you delete them\n", c.At, v.Name)
		return err
	})
}

type replicaReplaceCmd struct {
	asking
	Volume string `arg:"" help:"The volume's name."`
	At     string `arg:"" name:"node" help:"The node whose copy is lost."`
	By     string `required:"" placeholder:"NODE" help:"The node that gets an empty copy instead; the same one if its disk was replaced."`
}

// Help is shown by lockstep volume replica replace --help.
func (replicaReplaceCmd) Help() string {
	return `The volume stays in use. The new copy is brought up to date from the primary's, and
counts when it is in sync.

Example: site b burned down, and c takes its place
  lockstep volume replica replace vol b --by c --node 10.0.0.1:7800
  lockstep status vol --watch --node 10.0.0.1:7800
  lockstep cluster remove b --node 10.0.0.1:7800`
}

// Run replaces a replica.
func (c *replicaReplaceCmd) Run(ctx context.Context) error {
	return c.change(ctx, http.MethodPut, volumePath(c.Volume, "replicas", c.At), api.Place{Node: c.By}, func(out io.Writer, v *control.Volume) error {
		_, err := fmt.Fprintf(out, "%s gets a copy of %s instead of %s; lockstep status tells how far it is\n", c.By, v.Name, c.At)
		return err
	})
}
