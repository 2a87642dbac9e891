package main

import "errors"

type wanCmd struct{}

func (wanCmd) Run() error { return errors.New("being built") }
