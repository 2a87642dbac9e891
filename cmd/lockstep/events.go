package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"

	"lockstep/cmd/lockstep/api"
	"lockstep/mirror/control"
)

type eventsCmd struct {
	asking
	Volume string `arg:"" optional:"" help:"Only of this volume."`
	Follow bool   `short:"f" help:"Go on as things happen, until Ctrl-C."`
}

// Help is shown by lockstep events --help.
func (eventsCmd) Help() string {
	return `What happened when and why, the oldest first: volumes made, primaries that took over,
replicas lost and back in sync, nodes that came and went. The cluster remembers the
last 1,000. The time is by the clock of the node that asked for it.

Example:
  lockstep events vol --follow --node 10.0.0.1:7800`
}

// followWait is how long a node is asked to wait for an event.
const followWait = "30s"

// Run prints events.
func (c *eventsCmd) Run(ctx context.Context) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	events, err := c.ask(ctx, client, 0, "0s")
	if err != nil {
		return err
	}
	if c.JSON && !c.Follow {
		return printJSON(events)
	}
	for {
		if err := c.print(os.Stdout, events); err != nil || !c.Follow {
			return err
		}
		after := uint64(0)
		if n := len(events); n > 0 {
			after = events[n-1].Index
		}
		for events = nil; len(events) == 0; {
			if events, err = c.ask(ctx, client, after, followWait); err != nil {
				if ctx.Err() != nil {
					return nil // Ctrl-C is how it is meant to end
				}
				return err
			}
		}
	}
}

func (c *eventsCmd) ask(ctx context.Context, client *api.Client, after uint64, wait string) (events []control.Event, err error) {
	query := url.Values{"after": {strconv.FormatUint(after, 10)}, "wait": {wait}}
	if c.Volume != "" {
		query.Set("volume", c.Volume)
	}
	err = client.Get(ctx, http.MethodGet, "/events?"+query.Encode(), nil, &events)
	return events, err
}

// print prints a line an event.
func (c *eventsCmd) print(out io.Writer, events []control.Event) error {
	for _, e := range events {
		if c.JSON {
			if err := json.NewEncoder(out).Encode(e); err != nil {
				return err
			}
			continue
		}
		if _, err := fmt.Fprintln(out, eventText(e)); err != nil {
			return err
		}
	}
	return nil
}

func eventText(e control.Event) string {
	text := e.At.Format("2006-01-02T15:04:05.000Z") + "  "
	if e.Volume != "" {
		text += e.Volume + ": "
	}
	text += e.What
	if e.Why != "" {
		text += " (" + e.Why + ")"
	}
	return text
}
