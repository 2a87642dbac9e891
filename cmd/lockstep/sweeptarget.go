package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"lockstep/wanem/sites"
	"lockstep/wanem/sweep"
)

// sweepTarget is a target that this command opened and has to close.
type sweepTarget interface {
	sweep.Target
	// Explain adds to an error what the target's processes said last.
	Explain(error) error
	// Close ends and removes everything; the copies are kept if they are evidence.
	Close(keep bool) error
}

// targetNames are what --target may name, in the order of --help.
var targetNames = []string{"lockstep"}

// checkTargets refuses what cannot be, before anything starts.
func (c *sweepCmd) checkTargets() error {
	for i, name := range c.Target {
		if !slices.Contains(targetNames, name) {
			return fmt.Errorf("--target %s: unknown; there are %s", name, strings.Join(targetNames, ", "))
		}
		if slices.Contains(c.Target[:i], name) {
			return fmt.Errorf("--target %s: named twice", name)
		}
	}
	return nil
}

// openTargets prepares the targets that the flags name, on the same sites.
func (c *sweepCmd) openTargets(ctx context.Context, s *sites.Sites, congestion string) (list targetList, err error) {
	for range c.Target {
		t, err := c.openStand(ctx, s, congestion)
		if err != nil {
			return nil, errors.Join(err, list.close(false))
		}
		list = append(list, t)
	}
	return list, nil
}

type targetList []sweepTarget

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
