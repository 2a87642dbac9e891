package main

import "errors"

type replicaCmd struct{}

func (replicaCmd) Run() error { return errors.New("being built") }
