package kernel

import (
	"context"
	"errors"
	"fmt"
	"time"

	"lockstep/nbd"
)

// reach returns a path to a server, the one in turn first, however long that takes. It
// returns an error when ctx ends, when the device is not there any more, or when every server in one round says that it will never
// be: that the export is not there, or another one, or does not fit. One server alone may
// be behind the others.
func (a *Agent) reach(ctx context.Context) (*path, error) {
	for pause := firstPause; ; pause = min(2*pause, longPause) {
		if a.backend != "" && a.gone() {
			return nil, errDisconnected
		}
		p, err := a.round(ctx)
		if p != nil || err != nil {
			return p, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

// round tries every server once. An error is final.
func (a *Agent) round(ctx context.Context) (*path, error) {
	never := 0
	var failed error
	for range a.conf.Servers {
		server := a.conf.Servers[a.next]
		a.next = (a.next + 1) % len(a.conf.Servers)
		p, err := a.attempt(ctx, server)
		if err == nil {
			return p, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if errors.Is(err, nbd.ErrUnknownExport) {
			err = fmt.Errorf("%w: %w", ErrGone, err)
		}
		if a.never(err) {
			never++
		}
		failed = errors.Join(failed, fmt.Errorf("%s: %w", server.Address, err))
	}
	if never == len(a.conf.Servers) {
		return nil, failed
	}
	a.complain(failed)
	return nil, nil
}

// never says whether an error is a server's last word. That there is no such export may
// be a mistake of whoever started this agent, as long as it has not been seen; a device that
// is in use must not end for that, nor because it can't be served as it was asked for.
func (a *Agent) never(err error) bool {
	switch {
	case errors.Is(err, ErrReplaced):
		return true
	case errors.Is(err, ErrGone):
		return a.proved || !a.adopted
	}
	return a.backend == "" && errors.As(err, new(*unfit))
}

// attempt begins a stay with one server.
func (a *Agent) attempt(ctx context.Context, server nbd.Endpoint) (*path, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, a.conf.Stall, fmt.Errorf("it did not answer within %v", a.conf.Stall))
	defer cancel()
	a.stay++
	p, err := dial(ctx, server, a.conf.export(server, a.dev, a.stay, !a.admitted), a.conf.Connections)
	if err != nil {
		return nil, err
	}
	a.admitted = true
	if err := a.fits(&p.info); err != nil {
		p.shut()
		p.close()
		return nil, err
	}
	return p, nil
}

// fits says why an export is not, or not now, what the device is made of.
func (a *Agent) fits(info *nbd.Info) error {
	block := max(a.conf.Block, MinBlock)
	if a.backend != "" {
		block = max(a.dev.block(), MinBlock)
	}
	switch {
	case a.backend == "" && info.MinBlock > MaxBlock:
		return &unfit{fmt.Sprintf("the server's smallest request is %d bytes, the kernel's largest block %d", info.MinBlock, MaxBlock)}
	case a.backend == "" && info.Size < uint64(max(block, info.MinBlock)):
		return &unfit{fmt.Sprintf("the export has %d bytes, less than a block", info.Size)}
	case a.backend == "":
		return nil
	case info.Description != a.about:
		return fmt.Errorf("%w: it is %q, and was %q", ErrReplaced, info.Description, a.about)
	case info.Size < a.size:
		return fmt.Errorf("%w: it has %d bytes, and had %d", ErrReplaced, info.Size, a.size)
	case info.MinBlock > block:
		return fmt.Errorf("its smallest request is %d bytes now, and the device's blocks have %d", info.MinBlock, block)
	case info.Flags&nbd.IsReadOnly != 0 && !a.dev.readOnly():
		return errors.New("it is read-only now, and was not")
	}
	return nil
}
