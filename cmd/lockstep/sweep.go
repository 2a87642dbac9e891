package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"lockstep/wanem"
	"lockstep/wanem/sites"
	"lockstep/wanem/sweep"
)

type sweepCmd struct {
	KM      []distanceFlag `name:"km" placeholder:"LIST" help:"Distances, as 0,50,100 (also 500m, 62mi). Default: 0,50,100,200,300,500; with --quick 0,50,100,300,500."`
	Profile profileFlag    `default:"fibre" placeholder:"NAME" help:"What the line is made of: see lockstep wan profiles."`
	Backend string         `default:"auto" enum:"auto,netem,tun" help:"How the link is made: netem (the kernel), tun (a relay in user space), or auto, which takes netem where it is."`

	Target []string `default:"lockstep" placeholder:"LIST" help:"What is measured, each on the same link and under the same load: ${targets}."`

	Attach string `default:"none" enum:"none,kernel" help:"How the load reaches a volume that is served over NBD: none = as an NBD client; kernel = as a block device, /dev/nbdN. Those of drbd, md-nbd and local always are block devices."`

	Workload string   `default:"builtin" placeholder:"builtin|fio|pgbench|FILE" help:"builtin = random writes, each checked on read-back; fio = the same load by fio; pgbench = a PostgreSQL on the volume, commits a second, recovered and counted after a crash; FILE = an fio job file, which need not say how the volume is reached."`
	FS       string   `name:"fs" default:"ext4" enum:"ext4,xfs" help:"File system for pgbench: ${enum}."`
	BS       byteSize `name:"bs" default:"4KiB" placeholder:"SIZE" help:"Size of a write."`
	QD       int      `name:"qd" default:"1" placeholder:"N" help:"Queue depth: writes in flight; with pgbench, clients."`
	Rate     float64  `default:"0" placeholder:"N" help:"Writes per second, each timed from when it was due (open loop); 0 = the next when one is done (closed loop)."`

	Duration time.Duration   `placeholder:"DURATION" help:"Measured part of a trial. Default: 2s; with --quick 800ms."`
	WarmUp   time.Duration   `placeholder:"DURATION" help:"Load before it. Default: 500ms; with --quick 200ms."`
	Repeats  int             `placeholder:"N" help:"Trials of each distance, at least 3. Default: 3; with two distances 4, or there is no interval."`
	Idle     *time.Duration  `placeholder:"DURATION" help:"Rest before the after-idle writes; 0 = no cold and no after-idle writes. Default: 3s; with --quick 0."`
	Budget   []time.Duration `default:"1ms,2ms,5ms" placeholder:"LIST" help:"Latencies whose distance is wanted: where p99 crosses them."`
	Seed     uint64          `default:"1" placeholder:"N" help:"Fixes the order of trials and all random choices."`
	Quick    bool            `help:"At most 45 seconds, for a first look."`

	Size       byteSize      `placeholder:"SIZE" help:"Size of the volume. Default: 64MiB; with pgbench 512MiB."`
	Ack        string        `default:"written" enum:"written,durable" help:"The volume's contract: see lockstep volume create --help."`
	Poll       time.Duration `default:"0s" placeholder:"DURATION" help:"Let the nodes spin this long before they sleep: see lockstep node --help."`
	Lease      time.Duration `placeholder:"DURATION" help:"Lease of the volume, and twice the nodes' heartbeat: how long a copy may stall and not be lost. Default: the nodes' own; 4s where the CPU is emulated, because such a machine stalls."`
	WitnessRTT time.Duration `name:"witness-rtt" placeholder:"DURATION" help:"Round trip time between the witness and both sites. Default: none, it is beside site a."`
	Congestion string        `placeholder:"NAME" help:"TCP congestion control of the mirror: see lockstep node --help."`

	Out    string `placeholder:"DIR" help:"Where report.html, report.json, points.csv, trials and logs go. Default: lockstep-sweep-<time>."`
	Resume bool   `help:"Go on with the sweep in --out, which must have the same parameters."`
	JSON   bool   `help:"Print report.json instead of the table."`
}

// Help is shown by lockstep sweep --help.
func (sweepCmd) Help() string {
	return `It joins two sites by an emulated link, runs a cluster across it (or what else
--target names), sets one distance after another, writes, and fits a line: how many
round trips a write takes, and how far the sites may be apart for each latency
budget. What it needs (namespaces, processes, devices, the volume's copies) is gone
afterwards; the report stays.

Examples:
  A first look, in 45 seconds
    lockstep sweep --quick
  Where does a metro line cross 2 ms at queue depth 8?
    lockstep sweep --profile metro-dwdm --budget 2ms --qd 8
  Your own load: an fio job file
    lockstep sweep --workload jobs.fio
  As a block device, beside what else mirrors one (in the lab's VM: see scripts/vm.sh)
    lockstep sweep --attach kernel --target lockstep,drbd,local --km 0,50,100
  A database's commits a second against distance
    lockstep sweep --attach kernel --workload pgbench --fs xfs --qd 8
  Go on with one that was stopped
    lockstep sweep --resume --out lockstep-sweep-20260102-150405 ...`
}

// preset is what --quick changes.
type preset struct {
	km                     []float64
	warmUp, duration, idle time.Duration
}

var (
	fullSweep  = preset{[]float64{0, 50, 100, 200, 300, 500}, 500 * time.Millisecond, 2 * time.Second, 3 * time.Second}
	quickSweep = preset{[]float64{0, 50, 100, 300, 500}, 200 * time.Millisecond, 800 * time.Millisecond, 0}
)

// config is the sweep that the flags ask for.
func (c *sweepCmd) config() sweep.Config {
	p := fullSweep
	if c.Quick {
		p = quickSweep
	}
	conf := sweep.Config{
		Km: p.km, Profile: wanem.Profile(c.Profile),
		Workload: c.Workload, FS: c.FS, BlockSize: int(c.BS), QueueDepth: c.QD, Rate: c.Rate,
		WarmUp: p.warmUp, Duration: p.duration, Idle: p.idle,
		Repeats: c.Repeats, Budgets: slices.Sorted(slices.Values(c.Budget)), Seed: c.Seed,
		Out: c.Out, Resume: c.Resume, Progress: os.Stderr,
	}
	if len(c.KM) > 0 {
		conf.Km = nil
		for _, d := range c.KM {
			conf.Km = append(conf.Km, wanem.Distance(d).Kilometres())
		}
	}
	if conf.Repeats == 0 {
		conf.Repeats = defaultRepeats(len(conf.Km))
	}
	if c.WarmUp > 0 {
		conf.WarmUp = c.WarmUp
	}
	if c.Workload == sweep.Pgbench { // it counts in whole seconds, and a commit is long
		conf.Duration = max(conf.Duration, 2*time.Second)
	}
	if c.Duration > 0 {
		conf.Duration = c.Duration
	}
	if c.Idle != nil {
		conf.Idle = *c.Idle
	}
	return conf
}

// defaultRepeats are those that bound a slope through that many distances.
func defaultRepeats(distances int) int {
	if distances < 3 {
		return 4
	}
	return 3
}

// setSize is for a volume whose size was left open.
func (c *sweepCmd) setSize() {
	switch {
	case c.Size > 0:
	case c.Workload == sweep.Pgbench:
		c.Size = 512 << 20
	default:
		c.Size = 64 << 20
	}
}

// setLease is for a machine whose stalls would be taken for losses. It costs no write
// anything: it is only how long a loss takes to be noticed.
func (c *sweepCmd) setLease() {
	const ofAnEmulated = 4 * time.Second
	if c.Lease == 0 && sweep.ThisHost().Emulated {
		c.Lease = ofAnEmulated
	}
}

// Run does the sweep and prints what came out.
func (c *sweepCmd) Run(ctx context.Context) error {
	c.setSize()
	c.setLease()
	if c.Resume && c.Out == "" {
		return misuse{errors.New("sweep: --resume needs the --out of the sweep to go on with")}
	}
	if c.Resume {
		if _, err := os.Stat(c.Out); err != nil {
			return misuse{fmt.Errorf("sweep: nothing to go on with: %w", err)}
		}
	}
	if c.Out == "" {
		c.Out = "lockstep-sweep-" + time.Now().Format("20060102-150405")
	}
	conf := c.config()
	if err := errors.Join(conf.Validate(), c.checkTargets()); err != nil {
		return misuse{err}
	}
	if err := sites.Enter(); err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	report, err := c.measure(ctx, conf)
	if errors.As(err, new(*sweep.ParameterError)) {
		return misuse{err}
	}
	if report == nil {
		return err
	}
	return errors.Join(err, c.print(report))
}

// measure does the sweep between two sites of its own.
func (c *sweepCmd) measure(ctx context.Context, conf sweep.Config) (*sweep.Report, error) {
	s, err := c.openSites(ctx)
	if err != nil {
		return nil, err
	}
	report, err := c.measureOn(ctx, s, conf)
	if closing := s.Close(); err == nil {
		err = closing
	}
	return report, err
}

func (c *sweepCmd) measureOn(ctx context.Context, s *sites.Sites, conf sweep.Config) (*sweep.Report, error) {
	if err := dropTooShort(&conf, s.Backend()); err != nil {
		return nil, err
	}
	facts, congestion, err := c.facts(s)
	if err != nil {
		return nil, err
	}
	list, err := c.openTargets(ctx, s, congestion)
	if err != nil {
		return nil, err
	}
	report, err := sweep.Run(ctx, conf, facts, list.targets())
	if err != nil && ctx.Err() == nil {
		err = list.explain(err)
	}
	if closing := list.close(isEvidence(err)); err == nil {
		err = closing
	}
	return report, err
}

// isEvidence tells whether the volume's copies say more than the error does.
func isEvidence(err error) bool {
	return errors.As(err, new(*sweep.MismatchError)) || errors.As(err, new(*sweep.DifferenceError)) || errors.As(err, new(*sweep.LostCommitError))
}

func (c *sweepCmd) print(report *sweep.Report) error {
	if c.JSON {
		return printJSON(report)
	}
	if err := report.WriteText(os.Stdout); err != nil {
		return err
	}
	_, err := fmt.Printf("\nreport: %s\n", filepath.Join(c.Out, "report.html"))
	return err
}

// parameters are those that all targets share: a sweep is resumed only with the same.
func (c *sweepCmd) parameters() map[string]string {
	return map[string]string{"size": c.Size.String(), "witness_rtt": c.WitnessRTT.String()}
}
