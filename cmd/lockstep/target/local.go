package target

import (
	"context"
	"errors"
	"path/filepath"

	"lockstep/wanem/sweep"
)

func checkLocal() error { return errors.Join(needRoot(), needModule("loop")) }

// localDisk is one disk without a mirror: what all the others are held against.
type localDisk struct {
	conf *Config
}

func newLocal(ctx context.Context, c *Config, _ *run) (driver, error) {
	return &localDisk{c}, loadModule(ctx, "loop")
}

func (d *localDisk) wire() sweep.Wire { return nil }

func (d *localDisk) open(_ context.Context, r *run) (volume, error) {
	copyFile := filepath.Join(d.conf.Dir, "copy")
	disk, err := newDisk(r, copyFile, d.conf.Size)
	return volume{source: sweep.Source{Path: disk}, copies: []string{copyFile}}, err
}

func (d *localDisk) facts() sweep.TargetFacts {
	return sweep.TargetFacts{
		Version:    kernelVersion(),
		Settings:   []sweep.Setting{d.conf.disk()},
		Commands:   []string{"losetup --find --show copy"},
		Parameters: d.conf.parameters(),
		OneCopy:    true,
	}
}
