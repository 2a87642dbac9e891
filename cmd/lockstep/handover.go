package main

import (
	"context"
	"fmt"
	"net/http"

	"lockstep/cmd/lockstep/api"
)

type handoverCmd struct {
	asking
	Volume string `arg:"" help:"The volume's name."`
	To     string `required:"" placeholder:"NODE" help:"The node that is to be primary; its copy must be in sync."`
}

// Help is shown by lockstep handover --help.
func (handoverCmd) Help() string {
	return `Nothing is lost, and no client notices more than a pause: what is in flight is
completed at every copy, then the other node goes on. Where clients are connected
does not matter.

Example: before work on node a
  lockstep handover vol --to b --node 10.0.0.1:7800`
}

// Run hands a volume over.
func (c *handoverCmd) Run(ctx context.Context) error {
	return c.move(ctx, volumePath(c.Volume, "handover"), api.Handover{To: c.To}, c.Volume, func(m api.Moved) string {
		return fmt.Sprintf("requests waited %.1f ms", m.PauseMS)
	})
}

// move asks for another primary, and prints what came of it.
func (a *asking) move(ctx context.Context, path string, ask any, volume string, more func(api.Moved) string) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	var m api.Moved
	if err := client.Get(ctx, http.MethodPost, path, ask, &m); err != nil {
		return refusedBy(err)
	}
	if a.JSON {
		return printJSON(m)
	}
	_, err = fmt.Printf("volume %s: primary was %s, is %s, epoch %d; %s\n", volume, m.From, m.To, m.Epoch, more(m))
	return err
}
