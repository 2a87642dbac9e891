package main

import (
	"errors"
	"fmt"
	"os"

	"lockstep/nbd/kernel"
)

type detachCmd struct {
	Device string `arg:"" placeholder:"/dev/nbdN" help:"The device, as lockstep attach printed it."`
	Force  bool   `help:"Also if it is in use: who uses it sees I/O errors, and what was not written out is lost."`
}

// Help is shown by lockstep detach --help.
func (detachCmd) Help() string {
	return `What the kernel holds in its cache is written out first. A device that is mounted, a
swap area or part of another one (dm, md, LVM) is refused; one that a program merely
has open is not. Its agent, the lockstep attach that made it, ends by itself. A device
that lockstep did not attach is left alone.

Example:
  umount /mnt && lockstep detach /dev/nbd0

Exit status: 0 detached, 1 it failed or is not attached, 2 it was asked wrongly, 5 it is
in use.`
}

// Run detaches a device.
func (c *detachCmd) Run() error {
	d, err := kernel.ParseDevice(c.Device)
	if err != nil {
		return misuse{fmt.Errorf("detach: %w", err)}
	}
	control, err := openKernel()
	if err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	defer control.Close()
	if c.Force {
		return kernel.Force(control, d)
	}
	if err = kernel.Detach(control, d); errors.Is(err, kernel.ErrHeld) {
		fmt.Fprintf(os.Stderr, "lockstep: %v\n", err)
		return exitHeld
	}
	return err
}
