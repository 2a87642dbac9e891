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

// stand joins a link and a cluster for a sweep.
type stand struct {
	wan
	rig   *rig
	facts sweep.Facts
}

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

func (s *stand) URI() string { return s.rig.uri() }

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

func (s *stand) Facts() sweep.Facts { return s.facts }

// close ends the processes, if any run, and removes the sites. The copies are
// removed too, unless they are evidence.
func (s *stand) close(keep bool) error {
	// Not the command's context: after Ctrl-C there is still this to do. The
	// processes are asked, not waited for: what they hold is thrown away or has
	// been compared.
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.rig.stop(ended); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	err := s.wan.Close()
	if keep {
		return err
	}
	if removing := os.RemoveAll(s.rig.dir); removing != nil {
		err = errors.Join(err, fmt.Errorf("remove the sweep's volume: %w", removing))
	}
	return err
}
