package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"lockstep/wanem"
	"lockstep/wanem/check"
	"lockstep/wanem/netem"
	"lockstep/wanem/sites"
)

type wanCheckCmd struct {
	Backend string         `default:"netem" enum:"netem,tun" help:"What is to be proved: netem (the kernel) or tun (the relay in user space)."`
	KM      []distanceFlag `name:"km" default:"0,50,100,200,500,1000" placeholder:"LIST" help:"Distances whose round trips are measured."`
	Quick   bool           `help:"Fewer probes, so wider bands, in a third of the time."`
	JSON    bool           `help:"Print JSON when all is done instead of the table."`
}

// Help is shown by lockstep wan check --help.
func (wanCheckCmd) Help() string {
	return `It joins two sites by an emulated link and, for each thing that a link can do
(distance, asymmetry, jitter, loss alone and in bursts, reordering, duplicates,
damage, rate, limit), sets it, reads back what the kernel holds, and measures with
probes what packets experience. What it needs is gone afterwards.

A median delay may be off by 20 us and the round trip that this machine has without
a link, which is measured too and must be at most 250 us. A share may be off by four
standard errors, which chance does to less than one figure in 10,000; a rate by 2 %.
Nothing may be lost that was not asked for. READ BACK is less than ASKED for a delay:
the link is calibrated, so that packets meet what was asked for together with their
own way.

Exit status: 0 all figures are as allowed, 1 some are not or it can't be measured.

Examples:
  Is the link of this kernel what it is said to be?
    lockstep wan check
  On a kernel without sch_netem, or on a machine that others keep busy: in the lab's
  virtual machine, whose clock then counts instructions, so that all else stands still
    scripts/vm.sh run --clock instructions -- lockstep wan check
  What does the relay in user space keep, which sweeps use here?
    lockstep wan check --backend tun --km 0,100 --quick
  For a program
    lockstep wan check --json | jq '.rows[] | select(.verdict == "FAIL")'`
}

// Run measures, and prints each figure when it is there.
func (c wanCheckCmd) Run(ctx context.Context) error {
	if err := sites.Enter(); err != nil {
		return err
	}
	conf, err := c.config()
	if err != nil {
		return err
	}
	if !c.JSON {
		conf.Each = func(r check.Row) { err = errors.Join(err, r.Write(os.Stdout)) }
		conf.Begin = func() { err = errors.Join(err, check.Header(os.Stdout)) }
	}
	report, failed := check.Run(ctx, conf)
	if errors.Is(failed, netem.ErrUnavailable) {
		failed = fmt.Errorf("%w; or run it in the lab's virtual machine: scripts/vm.sh run --clock instructions -- lockstep wan check", failed)
	}
	if err = errors.Join(failed, err); err != nil {
		return fmt.Errorf("check the link: %w", err)
	}
	if c.JSON {
		err = printJSON(report)
	} else {
		err = report.Conclude(os.Stdout)
	}
	if err == nil && report.Failed > 0 {
		err = fmt.Errorf("check the link: %d of %d figures are not as allowed", report.Failed, len(report.Rows))
	}
	return err
}

func (c wanCheckCmd) config() (check.Config, error) {
	conf := check.Config{Backend: sites.Backend(c.Backend), Quick: c.Quick}
	for _, d := range c.KM {
		if err := (wanem.Link{Distance: wanem.Distance(d)}).Validate(); err != nil {
			return conf, misuse{err}
		}
		conf.KM = append(conf.KM, wanem.Distance(d).Kilometres())
	}
	return conf, nil
}
