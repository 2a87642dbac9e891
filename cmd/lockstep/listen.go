package main

import (
	"context"
	"errors"
	"log/slog"
	"net"

	"lockstep/cmd/lockstep/busypoll"
	"lockstep/nbd"
)

// stdio is the address of the client that started this process.
const stdio = "stdio"

// doors are the ways in for NBD clients.
type doors struct {
	listeners []net.Listener
	client    net.Conn // on standard input, or nil
}

// openDoors listens on every --nbd address and on the sockets that the process
// was activated with.
func (c *serveCmd) openDoors(activated []net.Listener) (doors, error) {
	d := doors{listeners: activated}
	for _, addr := range c.NBD {
		if addr == stdio {
			conn, err := nbd.Stdio()
			if err != nil {
				return d, errors.Join(err, d.close())
			}
			d.client = conn
			continue
		}
		ln, err := nbd.Listen(addr)
		if err != nil {
			return d, errors.Join(err, d.close())
		}
		d.listeners = append(d.listeners, ln)
	}
	if c.Poll > 0 {
		for i, ln := range d.listeners {
			d.listeners[i] = busypoll.Listener{Listener: ln, Limit: c.Poll}
		}
	}
	return d, nil
}

func (d doors) close() (err error) {
	for _, ln := range d.listeners {
		err = errors.Join(err, ln.Close())
	}
	if d.client != nil {
		err = errors.Join(err, d.client.Close())
	}
	return err
}

// serve lets clients in until ctx ends, or until the client on standard input
// leaves. Each function returned is to be run; they end with the server.
func (d doors) serve(ctx context.Context, server *nbd.Server, leave context.CancelFunc, log *slog.Logger) []func() error {
	// The server is shut down, not cancelled: what was submitted is answered.
	ctx = context.WithoutCancel(ctx)
	var all []func() error
	for _, ln := range d.listeners {
		log.Info("serving", "nbd", ln.Addr().String())
		all = append(all, func() error { return server.Serve(ctx, ln) })
	}
	if d.client != nil {
		log.Info("serving", "nbd", stdio)
		all = append(all, func() error {
			defer leave()
			return server.ServeConn(ctx, d.client)
		})
	}
	return all
}
