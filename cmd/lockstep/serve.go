package main

import "errors"

type serveCmd struct{}

func (serveCmd) Run() error { return errors.New("being built") }
