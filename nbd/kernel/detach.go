package kernel

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrNotOurs: the device was not attached by an Agent.
var ErrNotOurs = errors.New("lockstep did not attach it")

// ErrNotAttached: the device is nobody's.
var ErrNotAttached = errors.New("it is not attached")

// Detach writes out what the kernel still holds of the device, and disconnects it. One
// that is mounted, or used by another device, is refused with ErrHeld. The agent of the
// device ends by itself.
func Detach(kernel controls, d Device) error {
	if err := own(d); err != nil {
		return err
	}
	f, err := d.Claim() // held until the device is disconnected: nobody mounts it meanwhile
	if err != nil {
		return fmt.Errorf("detach %s: %w", d.Path(), err)
	}
	defer f.Close()
	if err := own(d); err != nil { // open, it can't become somebody else's any more
		return err
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("detach %s: write out what is cached: %w", d.Path(), err)
	}
	return disconnect(kernel, d)
}

// Force disconnects a device whoever uses it: they see I/O errors, and what was not
// written out is lost.
func Force(kernel controls, d Device) error {
	f, err := os.OpenFile(d.Path(), os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	defer f.Close()
	if err := own(d); err != nil { // open, it can't become somebody else's any more
		return err
	}
	return disconnect(kernel, d)
}

// own says why a device is not for Detach and Force.
func own(d Device) error {
	switch {
	case !d.InUse():
		return fmt.Errorf("detach %s: %w", d.Path(), ErrNotAttached)
	case !d.Ours():
		return fmt.Errorf("detach %s: %w (nbd-client -d %s disconnects it)", d.Path(), ErrNotOurs, d.Path())
	}
	return nil
}

func disconnect(kernel controls, d Device) error {
	if err := kernel.Disconnect(d.Index); err != nil {
		return fmt.Errorf("detach %s: %w", d.Path(), err)
	}
	return nil
}
