package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"lockstep/cmd/lockstep/drill"
	"lockstep/wanem"
	"lockstep/wanem/sites"
)

type drillCmd struct {
	Rounds     int            `default:"28" help:"How many faults, the kinds in turn."`
	Kinds      string         `default:"all" placeholder:"LIST" help:"Which: kill, kill-replica, stop, stop-replica, cut-ab, cut-ab-oneway, cut-ba-oneway, cut-aw, cut-bw, isolate-primary, slow, disk-stall, witness-kill, handover."`
	KM         distanceFlag   `name:"km" default:"100" placeholder:"N" help:"Distance between the sites with data, as 100, 500m or 62mi."`
	WitnessKM  *distanceFlag  `name:"witness-km" placeholder:"N" help:"Distance of the witness from both. Default: as --km."`
	WitnessRTT *time.Duration `name:"witness-rtt" placeholder:"DURATION" help:"Round trip time to the witness instead, as 100ms."`
	Size       byteSize       `default:"16MiB" help:"Of the volume."`
	Hold       time.Duration  `default:"2s" help:"How long a fault lasts, up to half more."`
	Think      time.Duration  `default:"3ms" help:"How long each of a site's 4 writers and its reader wait between two requests: less is more load."`
	Timeout    time.Duration  `default:"60s" help:"Within which all must be in sync again after a fault."`
	Backend    string         `enum:"auto,netem,tun" default:"auto" help:"What keeps the distance: auto, netem or tun."`
	NodeFlag   []string       `name:"node-flag" sep:"none" placeholder:"FLAG" help:"Passed to every lockstep node, as --node-flag=--heartbeat=400ms."`
	Logs       string         `placeholder:"DIR" help:"Keep what the nodes say here. Default: a new directory, which is kept only if something went wrong."`
	JSON       string         `name:"json" placeholder:"FILE" help:"Write the result here too: [{kind, rounds, lost, differing, two_primaries, stall_ms_p50, stall_ms_p99, stall_ms_max}]."`
}

// Help is shown by lockstep drill --help.
func (drillCmd) Help() string {
	return `Three nodes run in three sites, a and b with copies of a volume and w as witness,
the distances as asked for. Round after round one of them is killed, stopped or cut
off, and mended again, while writers and readers at a and b check that nothing that
was acknowledged is lost or read too late, and measure how long they had to wait.
After each round the whole volume is read back at both and the copies are compared.

LOST, DIFFERING and TWO PRIMARIES count blocks and have to be 0. STALL is the longest
time between two acknowledgements at a site: where the fault took a site away, at the
other one, else at the worse. Of rounds of kind handover it is the handover's pause.

disk-stall freezes the file system that the node's data are on, which needs root and
loop devices.

Exit status: 0 nothing was lost, 1 something was, or all was not well again in time.

Examples:
  lockstep drill --rounds 100 --json failover.json
  lockstep drill --rounds 20 --kinds kill,handover --witness-rtt 100ms`
}

// volumeName is the drill's volume on its cluster.
const volumeName = "drill"

// Run drills.
func (c *drillCmd) Run(ctx context.Context) (err error) {
	if err := sites.Enter(); err != nil {
		return err
	}
	kinds, err := c.kinds()
	if err != nil {
		return misuse{fmt.Errorf("drill: %w", err)}
	}
	if c.Rounds < 1 || c.Size%drill.BlockSize != 0 || c.Size < 1<<20 {
		return misuse{fmt.Errorf("drill: --rounds %d, --size %v: use at least one round, and whole blocks of %d from 1MiB up", c.Rounds, c.Size, drill.BlockSize)}
	}
	logs, err := openDrillLogs(c.Logs)
	if err != nil {
		return err
	}
	err = c.drill(ctx, kinds, logs)
	return errors.Join(err, logs.close(err == nil && c.Logs == ""))
}

// kinds leaves out what can't be done here, unless it was asked for by name.
func (c *drillCmd) kinds() ([]drill.Kind, error) {
	kinds, err := drill.ParseKinds(c.Kinds)
	if err != nil {
		return nil, err
	}
	impossible := map[drill.Kind]error{drill.DiskStall: canStall()}
	if c.KM == 0 {
		impossible[drill.Slow] = errors.New("there is no distance to multiply: give --km")
	}
	var possible []drill.Kind
	for _, kind := range kinds {
		switch err := impossible[kind]; {
		case err == nil:
			possible = append(possible, kind)
		case c.Kinds != "all":
			return nil, fmt.Errorf("%s: %w", kind, err)
		default:
			fmt.Fprintf(os.Stderr, "%s is left out: %v\n", kind, err)
		}
	}
	return possible, nil
}

func (c *drillCmd) drill(ctx context.Context, kinds []drill.Kind, logs *drillLogs) (err error) {
	s, err := c.openSites(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	cluster, err := newDrillCluster(s, logs.dir, int64(c.Size), slices.Contains(kinds, drill.DiskStall), c.NodeFlag)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cluster.stop()) }()
	if err := c.bounded(ctx, cluster.start); err != nil {
		return err
	}
	d := drill.New(cluster, drill.Config{Size: int64(c.Size), Hold: c.Hold, Think: c.Think, Timeout: c.Timeout, Log: logs.say})
	defer d.Close()
	results, err := c.rounds(ctx, d, kinds, logs)
	if err != nil && ctx.Err() == nil && !errors.Is(err, errPromise) {
		cluster.dump()
	}
	return errors.Join(err, c.print(results))
}

// openSites makes the sites at their distances.
func (c *drillCmd) openSites(ctx context.Context) (*sites.Sites, error) {
	between := wanem.Link{Distance: wanem.Distance(c.KM)}
	witness := between
	switch {
	case c.WitnessRTT != nil:
		witness = wanem.Link{Profile: wanem.Profile{Equipment: *c.WitnessRTT / 2}}
	case c.WitnessKM != nil:
		witness = wanem.Link{Distance: wanem.Distance(*c.WitnessKM)}
	}
	s, err := sites.Open(ctx, sites.Config{Backend: sites.Backend(c.Backend), Sites: []sites.Site{sites.A, sites.B, sites.W}})
	if err != nil {
		return nil, err
	}
	err = errors.Join(s.SetLink(ctx, sites.A, sites.B, between),
		s.SetLink(ctx, sites.A, sites.W, witness), s.SetLink(ctx, sites.B, sites.W, witness))
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	fmt.Fprintf(os.Stderr, "sites a and b: %v; the witness to both: %v; backend %s\n", between, witness, s.Backend())
	return s, nil
}

func (c *drillCmd) bounded(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.Timeout, fmt.Errorf("not within %v", c.Timeout))
	defer cancel()
	return f(ctx)
}

// errPromise is for a drill that went to its end and found something.
var errPromise = errors.New("the volume did not keep its promises")

func (c *drillCmd) rounds(ctx context.Context, d *drill.Drill, kinds []drill.Kind, logs *drillLogs) (results []drill.Result, err error) {
	for i := range c.Rounds {
		kind := kinds[i%len(kinds)]
		logs.say(fmt.Sprintf("round %d of kind %s begins", i+1, kind))
		r, e := d.Round(ctx, kind)
		if e != nil {
			logs.say(fmt.Sprintf("round %d: %v", i+1, e))
			return results, errors.Join(err, fmt.Errorf("drill: round %d: %w", i+1, e))
		}
		results = append(results, r)
		line := fmt.Sprintf("round %d/%d %s: %s", i+1, c.Rounds, kind, roundText(r))
		logs.say(line)
		fmt.Fprintln(os.Stderr, line)
		if !r.Good() {
			err = errPromise
		}
	}
	return results, err
}

func roundText(r drill.Result) string {
	text := "good"
	if !r.Good() {
		text = fmt.Sprintf("%d LOST, %d DIFFERING, %d TWO PRIMARIES", r.Lost, r.Differing, r.TwoPrimaries)
	}
	var by []string
	for _, site := range []sites.Site{sites.A, sites.B} {
		by = append(by, fmt.Sprintf("%s %d ms", site, r.Stalls[string(site)].Milliseconds()))
	}
	return fmt.Sprintf("%s, stall %d ms (%s)", text, r.Stall.Milliseconds(), strings.Join(by, ", "))
}

func (c *drillCmd) print(results []drill.Result) error {
	if len(results) == 0 {
		return nil
	}
	if err := drill.WriteTable(os.Stdout, results); err != nil || c.JSON == "" {
		return err
	}
	text, err := json.MarshalIndent(drill.Rows(results), "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.JSON, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("drill: write the result: %w", err)
	}
	return nil
}

// drillLogs is a directory with what happened.
type drillLogs struct {
	dir  string
	file *os.File
}

func openDrillLogs(dir string) (*drillLogs, error) {
	var err error
	if dir == "" {
		dir, err = os.MkdirTemp("", "lockstep-drill-")
	} else {
		err = os.MkdirAll(dir, 0o755)
	}
	l := &drillLogs{dir: dir}
	if err == nil {
		l.file, err = os.OpenFile(filepath.Join(dir, "drill.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	}
	if err != nil {
		return nil, fmt.Errorf("drill: open the logs: %w", err)
	}
	return l, nil
}

// say adds a line, with its time as the nodes' logs have it. It may be called
// concurrently: each line is one write.
func (l *drillLogs) say(line string) {
	fmt.Fprintf(l.file, "%s %s\n", time.Now().Format("2006-01-02T15:04:05.000000Z07:00"), line) //nolint:errcheck // a log
}

func (l *drillLogs) close(remove bool) error {
	err := l.file.Close()
	if remove {
		return errors.Join(err, os.RemoveAll(l.dir))
	}
	fmt.Fprintf(os.Stderr, "what the drill and the nodes said: %s\n", l.dir)
	return err
}
