package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"text/tabwriter"
	"time"

	"golang.org/x/term"

	"lockstep/cmd/lockstep/api"
	"lockstep/mirror"
)

type statusCmd struct {
	asking
	Volume string `arg:"" optional:"" help:"Only this volume."`
	Watch  bool   `help:"Look every second until Ctrl-C; with --json a line each."`
}

// Help is shown by lockstep status --help.
func (statusCmd) Help() string {
	return `It says who is primary, who is in sync, and how far the others are; ask any node.
A replica that is in sync has every acknowledged write. One that is not is brought
up to date: LEFT is what is still to be copied, or to be compared and copied where
it differs, RATE how fast that becomes less, ETA when nothing is left. A rate far
below what the line carries is meant so: writes come first (--resync-share). Where
a person can help, a line "next:" says how.

  STANDING     WHAT IT MEANS
  in sync      every write waits for it
  joining      it has everything; its last flush is awaited
  learner      it is sent new writes, and what it lacks
  reconciling  it is made equal before the volume takes writes
  suspect      its machine went down: it may lack writes it had acknowledged
  lost         it does not answer, and writes wait for it
  absent       it does not answer, and writes go on without it

Exit status: 0 every volume takes writes and every replica is in sync, 3 something is
degraded, 1 it could not be asked, 2 asked wrongly. With --watch that of the last look.

Examples:
  lockstep status --watch --admin /var/lib/lockstep
  until lockstep status vol --node 10.0.0.1:7800 >/dev/null; do sleep 1; done`
}

// As mirror.MemberStatus has them.
const (
	standingInSync = "in sync"
	standingLost   = "lost"
	standingAbsent = "absent"
)

// watchEvery is the time between two looks.
const watchEvery = time.Second

// Run asks and prints.
func (c *statusCmd) Run(ctx context.Context) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	if !c.Watch {
		_, err := c.look(ctx, client, os.Stdout, "")
		return err
	}
	next := time.NewTicker(watchEvery)
	defer next.Stop()
	return c.watch(ctx, client, os.Stdout, next.C)
}

// watch looks once, and again whenever next says so, until ctx ends or there is
// nobody to ask any more.
func (c *statusCmd) watch(ctx context.Context, client *api.Client, out io.Writer, next <-chan time.Time) (last error) {
	first, between := "", "\n"
	switch {
	case c.JSON:
		between = ""
	case isTerminal(out):
		first = "\x1b[H\x1b[2J" // to the top left; clear
		between = first
	}
	for before := first; ; before = between {
		seen, err := c.look(ctx, client, out, before)
		if !seen && ctx.Err() == nil {
			return err
		}
		if seen {
			last = err
		}
		select {
		case <-next:
		case <-ctx.Done():
			return last
		}
	}
}

// look asks once and prints what it saw, if it did, with before before it. The
// error is exitDegraded where that is the answer.
func (c *statusCmd) look(ctx context.Context, client *api.Client, out io.Writer, before string) (seen bool, err error) {
	s, err := c.ask(ctx, client)
	if err != nil {
		return false, err
	}
	fmt.Fprint(out, before)
	if err := c.print(out, s); err != nil {
		return false, err
	}
	if !s.healthy() {
		return true, exitDegraded
	}
	return true, nil
}

// seen is what was answered: by a node, or by a lockstep serve, which has one volume.
type seen struct {
	cluster *api.Status
	serve   *mirror.Status
}

func (c *statusCmd) ask(ctx context.Context, client *api.Client) (s seen, err error) {
	path := "/status"
	if c.Volume != "" {
		path += "?" + url.Values{"volume": {c.Volume}}.Encode()
	}
	var text json.RawMessage
	if err := client.Get(ctx, http.MethodGet, path, nil, &text); err != nil {
		return s, fmt.Errorf("status: %w", err)
	}
	s.cluster = new(api.Status)
	if err := json.Unmarshal(text, s.cluster); err == nil && s.cluster.Node != "" {
		return s, nil
	}
	s = seen{serve: new(mirror.Status)}
	if err := json.Unmarshal(text, s.serve); err != nil {
		return s, fmt.Errorf("status: read the answer of %s: %w", client.At(), err)
	}
	return s, nil
}

func (s seen) healthy() bool {
	if s.cluster != nil {
		return clusterHealthy(s.cluster)
	}
	return healthy(*s.serve)
}

// healthy says whether the volume takes writes and is as redundant as it should be.
func healthy(s mirror.Status) bool {
	for _, r := range s.Replicas {
		// In the in-sync set it is also while it is lost, until it was taken out.
		if !r.InSync || r.Standing != standingInSync {
			return false
		}
	}
	return s.Serving && s.Ready && len(s.Replicas) > 0
}

func (c *statusCmd) print(out io.Writer, s seen) error {
	if !c.JSON {
		if s.cluster != nil {
			return printCluster(out, s.cluster)
		}
		return printStatus(out, *s.serve)
	}
	var answer any = s.serve
	if s.cluster != nil {
		answer = s.cluster
	}
	lines := json.NewEncoder(out)
	if !c.Watch {
		lines.SetIndent("", "  ")
	}
	return lines.Encode(answer)
}

func isTerminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// printStatus is for people.
func printStatus(out io.Writer, s mirror.Status) error {
	fmt.Fprintf(out, "volume %q, %s, epoch %d: %s\n", s.Volume, sizeText(s.Size), s.Epoch, stateText(s))
	fmt.Fprintf(out, "ack %s, on replica loss %s; %d in flight, watermark %d\n", s.Contract, s.Policy, s.InFlight, s.Watermark)
	if len(s.Replicas) == 0 {
		_, err := fmt.Fprintln(out, "no replicas: nothing is mirrored")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nREPLICA\tSTANDING\tLEFT\tRATE\tETA\tRTT\tCOPIED\tCOMPARED")
	for _, r := range s.Replicas {
		printReplica(w, r.Addr, r)
	}
	for _, r := range s.Replicas {
		if r.Err != "" {
			fmt.Fprintf(w, "\n%s: %s\n", r.Addr, r.Err)
		}
	}
	return w.Flush()
}

func stateText(s mirror.Status) string {
	switch {
	case !s.Serving:
		return "not serving (replicas are made equal first, or it has stopped)"
	case s.Failed != "":
		return "serving reads; " + s.Failed
	case !s.Ready:
		return "serving reads; writes wait for a replica that is lost"
	case len(s.Replicas) == 0:
		return "serving, NOT MIRRORED"
	case !healthy(s):
		return "serving, degraded"
	default:
		return "serving, every replica in sync"
	}
}

// resyncText says how far a replica's resync is.
func resyncText(r mirror.ReplicaStatus) (left, rate, eta string) {
	switch {
	case r.Left == 0:
		return "-", "-", "-"
	case r.ETA < 0:
		return sizeText(r.Left), "-", "unknown"
	}
	seconds := min(r.ETA, (1000 * time.Hour).Seconds())
	return sizeText(r.Left), sizeText(r.Rate) + "/s", time.Duration(seconds * float64(time.Second)).Round(time.Second).String()
}

// sizeText is a number of bytes for people: at most five digits, rounded.
func sizeText(n int64) string {
	const letters = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n)/1024, 0
	for f >= 1023.95 && unit+1 < len(letters) {
		f, unit = f/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", f, letters[unit])
}
