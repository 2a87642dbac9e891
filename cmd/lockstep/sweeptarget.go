package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"lockstep/cmd/lockstep/target"
	"lockstep/wanem/sites"
	"lockstep/wanem/sweep"
)

// checkTargets refuses what cannot be, before anything starts.
func (c *sweepCmd) checkTargets() error {
	for i, name := range c.Target {
		if err := target.Check(name); err != nil {
			return fmt.Errorf("--target: %w", err)
		}
		if slices.Contains(c.Target[:i], name) {
			return fmt.Errorf("--target %s: named twice", name)
		}
		if c.Workload == sweep.Pgbench && c.Attach == "none" && slices.Contains(overNBD, name) {
			return fmt.Errorf("--workload pgbench: %s is served over NBD, and a file system needs a block device: use --attach kernel", name)
		}
	}
	return c.checkAttach()
}

// overNBD are the targets that are block devices only by --attach kernel.
var overNBD = []string{"lockstep", "qemu-quorum"}

// checkAttach looks whether this kernel can do what --attach asks for.
func (c *sweepCmd) checkAttach() error {
	if c.Attach != "kernel" || !slices.ContainsFunc(c.Target, func(name string) bool { return slices.Contains(overNBD, name) }) {
		return nil
	}
	control, err := openKernel()
	if err != nil {
		return fmt.Errorf("--attach kernel: %w; scripts/vm.sh run -- lockstep sweep ... runs it where there are some, as root", err)
	}
	control.Close()
	return nil
}

// openTargets prepares the targets that the flags name, on the same sites.
func (c *sweepCmd) openTargets(ctx context.Context, s *sites.Sites, congestion string) (list targetList, err error) {
	conf, err := c.targetConfig(s, congestion)
	if err != nil {
		return nil, err
	}
	for _, name := range c.Target {
		t, err := target.Open(ctx, name, conf)
		if err != nil {
			return nil, errors.Join(err, list.close(false))
		}
		list = append(list, t)
	}
	return list, nil
}

type targetList []target.Target

func (l targetList) targets() (all []sweep.Target) {
	for _, t := range l {
		all = append(all, t)
	}
	return all
}

func (l targetList) explain(err error) error {
	for _, t := range l {
		err = t.Explain(err)
	}
	return err
}

func (l targetList) close(keep bool) (err error) {
	for _, t := range l {
		err = errors.Join(err, t.Close(keep))
	}
	return err
}
