package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"lockstep/wanem"
	"lockstep/wanem/sweep"
)

// wan is the link between the sites, as a stand needs it.
type wan interface {
	SetLink(context.Context, wanem.Link) error
	MeasureRTT(ctx context.Context, probes int) (sweep.RTT, error)
	Drops() (uint64, error)
	Close() error
}

// stand joins a link and a mirrored pair for a sweep.
type stand struct {
	wan
	pair  *pair
	facts sweep.Facts
}

// Open starts both processes anew: what the volume's connections and buffers
// went through before would otherwise be part of the next trial.
func (s *stand) Open(ctx context.Context) (sweep.Device, error) {
	if err := s.pair.stop(ctx); err != nil {
		return nil, err
	}
	if err := s.pair.start(ctx); err != nil {
		return nil, err
	}
	return device{s.pair.client}, nil
}

func (s *stand) URI() string { return s.pair.uri() }

// Compare stops both processes: their last flush is part of what is compared.
func (s *stand) Compare(ctx context.Context) (bytes int64, err error) {
	if err := s.pair.stop(ctx); err != nil {
		return 0, err
	}
	bytes = int64(s.pair.size)
	return bytes, compareFiles(s.pair.primaryFile(), s.pair.replicaFile(), bytes)
}

func (s *stand) Facts() sweep.Facts { return s.facts }

// close ends the processes, if any run, and removes the sites. The copies are
// removed too, unless they are evidence.
func (s *stand) close(keep bool) error {
	// Not the command's context: after Ctrl-C there is still this to do. The
	// processes are asked, not waited for: what they hold is thrown away or has
	// been compared.
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.pair.stop(ended); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	err := s.wan.Close()
	if keep {
		return err
	}
	if removing := os.RemoveAll(s.pair.dir); removing != nil {
		err = errors.Join(err, fmt.Errorf("remove the sweep's volume: %w", removing))
	}
	return err
}
