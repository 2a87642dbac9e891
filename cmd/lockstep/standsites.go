package main

import (
	"context"
	"errors"

	"lockstep/wanem/sweep"
)

// openStand is where the sites come in.
func (c *sweepCmd) openStand(context.Context, *sweep.Config) (*stand, error) {
	return nil, errors.New("being built")
}
