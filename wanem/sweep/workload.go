package sweep

import (
	"context"
	"fmt"
	"os/exec"
)

// workload is one kind of load. One goroutine uses it.
type workload interface {
	// run loads an open volume. verified is how many things it read back and found
	// right; what is not right is an error.
	run(ctx context.Context, seed uint64, dev Device, source Source) (m measured, verified int64, err error)
	// close removes what trials had in common.
	close() error
}

func newWorkload(c Config) workload {
	switch c.Workload {
	case Builtin:
		return builtin{c}
	case Pgbench:
		return &pgbench{config: c}
	}
	return fio{c}
}

// checkPrograms says what is not installed, before anything starts.
func (c Config) checkPrograms() error {
	switch c.Workload {
	case Builtin:
		return nil
	case Pgbench:
		return c.checkPgbench()
	}
	if _, err := exec.LookPath("fio"); err != nil {
		return fmt.Errorf("sweep workload: %w: install the package fio, or use --workload builtin", err)
	}
	return nil
}

// builtin is random writes that know what they wrote.
type builtin struct{ config Config }

func (b builtin) run(ctx context.Context, seed uint64, dev Device, _ Source) (m measured, verified int64, err error) {
	c := b.config
	ledger, err := newLedger(seed, dev.Size(), c.BlockSize, c.QueueDepth)
	if err != nil {
		return m, 0, err
	}
	l := &load{dev: dev, ledger: ledger, rate: c.Rate, warmUp: c.WarmUp, duration: c.Duration, sleep: sleep}
	if m, err = l.run(ctx); err != nil {
		return m, 0, err
	}
	verified, err = ledger.check(ctx, dev)
	return m, verified, err
}

func (builtin) close() error { return nil }

// fio is a load by that program.
type fio struct{ config Config }

func (f fio) run(ctx context.Context, _ uint64, _ Device, source Source) (measured, int64, error) {
	m, err := runFio(ctx, f.config, source)
	return m, 0, err
}

func (fio) close() error { return nil }
