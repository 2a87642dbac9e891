package main

import "errors"

type sweepCmd struct{}

func (sweepCmd) Run() error { return errors.New("being built") }
