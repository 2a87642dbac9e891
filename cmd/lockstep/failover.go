package main

import (
	"context"

	"lockstep/cmd/lockstep/api"
)

type failoverCmd struct {
	asking
	Volume     string `arg:"" help:"The volume's name."`
	To         string `required:"" placeholder:"NODE" help:"The node whose copy is the volume from now on."`
	AcceptLoss bool   `name:"accept-data-loss" help:"Take that copy although it is not in sync: what it lacks is lost."`
}

// Help is shown by lockstep failover --help.
func (failoverCmd) Help() string {
	return `For when the primary is lost and nothing takes over by itself: the volume's policy
says manual, or the only copy in sync is gone for good. A copy that is in sync loses
nothing. One that is not needs --accept-data-loss; without it this says what would be
lost, and changes nothing. With it, whoever has the volume open gets errors until he
opens it again: his device must not silently forget.

Before --accept-data-loss make sure that the other copies are down. Two of them in sync
that reach each other, but not the cluster, go on acknowledging writes meanwhile, and
those are lost.

Do not use it to move a volume whose primary is alive: that is lockstep handover.

Example: site a burned down while b was being brought up to date
  lockstep failover vol --to b --node 10.0.0.2:7800 --accept-data-loss`
}

// Run makes another copy the volume.
func (c *failoverCmd) Run(ctx context.Context) error {
	return c.move(ctx, volumePath(c.Volume, "failover"), api.Failover{To: c.To, AcceptDataLoss: c.AcceptLoss}, c.Volume, func(api.Moved) string {
		return "it is served again (see lockstep status)"
	})
}
