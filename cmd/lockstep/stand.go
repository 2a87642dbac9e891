package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"lockstep/wanem/sweep"
)

// stand is lockstep as a target of a sweep: a cluster across the link.
type stand struct {
	wire  sweep.Wire
	rig   *rig
	facts sweep.TargetFacts
}

// Name is what --target calls it.
func (s *stand) Name() string { return "lockstep" }

// Wire is the link between the sites of the copies.
func (s *stand) Wire() sweep.Wire { return s.wire }

// Open makes a new volume: what the connections and buffers of the last one went
// through would otherwise be part of the next trial.
func (s *stand) Open(ctx context.Context) (sweep.Device, error) {
	if err := s.rig.remove(ctx); err != nil {
		return nil, err
	}
	if err := s.rig.start(ctx); err != nil {
		return nil, err
	}
	return device{s.rig.client}, nil
}

// Source is the volume over NBD.
func (s *stand) Source() sweep.Source { return sweep.Source{URI: s.rig.uri()} }

// Compare compares the copies where they lie, when the client has gone: every write
// that was answered is in both.
func (s *stand) Compare(ctx context.Context) (bytes int64, err error) {
	if err := s.rig.disconnect(); err != nil {
		return 0, err
	}
	a, b, err := s.rig.copies()
	if err != nil {
		return 0, err
	}
	bytes = int64(s.rig.size)
	return bytes, compareFiles(a, b, bytes)
}

// Facts says what the cluster is made of.
func (s *stand) Facts() sweep.TargetFacts { return s.facts }

// Explain adds to an error what the processes said last.
func (s *stand) Explain(err error) error { return s.rig.explain(err) }

// Close ends the processes, if any run. The copies are removed, unless they are
// evidence.
func (s *stand) Close(keep bool) error {
	// Not the command's context: after Ctrl-C there is still this to do. The
	// processes are asked, not waited for: what they hold is thrown away or has
	// been compared.
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.rig.stop(ended); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	if keep {
		return nil
	}
	if err := os.RemoveAll(s.rig.dir); err != nil {
		return fmt.Errorf("remove the sweep's volume: %w", err)
	}
	return nil
}
