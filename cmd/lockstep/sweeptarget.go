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
	}
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
