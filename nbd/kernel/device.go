package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// sysfs is where the kernel tells of block devices.
var sysfs = "/sys/block" // a test has its own

// lockDir has a lock for each device that has an agent.
var lockDir = "/run"

// Device is one of the kernel's NBD devices.
type Device struct{ Index int }

// ParseDevice understands /dev/nbdN and nbdN.
func ParseDevice(path string) (Device, error) {
	text, ok := strings.CutPrefix(strings.TrimPrefix(path, "/dev/"), "nbd")
	n, err := strconv.ParseUint(text, 10, 16)
	if !ok || err != nil || text != strconv.FormatUint(n, 10) {
		return Device{}, fmt.Errorf("%q is no NBD device: use /dev/nbdN", path)
	}
	return Device{int(n)}, nil
}

// Name is the kernel's: nbdN.
func (d Device) Name() string { return "nbd" + strconv.Itoa(d.Index) }

// devices is where the devices' files are; a test has its own.
var devices = "/dev"

// Path is the device's file.
func (d Device) Path() string { return filepath.Join(devices, d.Name()) }

// attribute reads one from sysfs; it is empty if it isn't there.
func (d Device) attribute(name string) string {
	text, err := os.ReadFile(filepath.Join(sysfs, d.Name(), name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// Exists reports whether the kernel has the device, in use or not.
func (d Device) Exists() bool {
	_, err := os.Stat(filepath.Join(sysfs, d.Name()))
	return err == nil
}

// InUse reports whether the device is connected, by whomever. What is so now may not be
// when the answer arrives: only [Netlink.Connect] decides.
func (d Device) InUse() bool { return d.attribute("pid") != "" || d.sectors() != 0 }

// Backend is whom the device says that it belongs to; empty if nobody said.
func (d Device) Backend() string { return d.attribute("backend") }

// sectors is its size in units of 512 bytes.
func (d Device) sectors() uint64 {
	n, _ := strconv.ParseUint(d.attribute("size"), 10, 64) //nolint:errcheck // it has none then
	return n
}

// Size is its size in bytes, 0 if it is not connected.
func (d Device) Size() uint64 { return d.sectors() * 512 }

// Devices lists those that the kernel has.
func Devices() (all []Device) {
	for i := 0; (Device{i}).Exists(); i++ {
		all = append(all, Device{i})
	}
	return all
}

// ErrHeld: a file system, or another device, is on the device.
var ErrHeld = errors.New("the device is in use")

// Claim opens the device for nobody else to mount it, until the file is closed. An error
// wraps ErrHeld if somebody has it: it is mounted, swapped to, or part of another device.
// Who merely has it open is not seen.
func (d Device) Claim() (*os.File, error) {
	f, err := os.OpenFile(d.Path(), os.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.EBUSY):
		return nil, fmt.Errorf("%w: %s", ErrHeld, d.holder())
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no %s", d.Path())
	case err != nil:
		return nil, fmt.Errorf("claim %s: %w", d.Path(), err)
	}
	return f, nil
}

// holder says in words who has the device.
func (d Device) holder() string {
	number := d.attribute("dev")
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err == nil {
		for line := range strings.Lines(string(mounts)) {
			if f := strings.Fields(line); len(f) > 4 && f[2] == number {
				return "it is mounted on " + f[4] + " (umount it first)"
			}
		}
	}
	if held, err := os.ReadDir(filepath.Join(sysfs, d.Name(), "holders")); err == nil && len(held) > 0 {
		return "it is part of " + held[0].Name() + " (stop that first)"
	}
	return "it is mounted, a swap area or part of another device (end that first)"
}

// block is its logical block size in bytes, 0 if there is no such device.
func (d Device) block() uint32 {
	n, _ := strconv.ParseUint(d.attribute("queue/logical_block_size"), 10, 32) //nolint:errcheck // it has none then
	return uint32(n)
}

func (d Device) readOnly() bool { return d.attribute("ro") == "1" }

// lockDevice makes sure that a device has one agent at a time. The file stays, so that
// nobody locks one that was just removed.
func lockDevice(d Device) (*os.File, error) {
	path := filepath.Join(lockDir, "lockstep-"+d.Name()+".lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", d.Path(), err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: lock %s: %w (another lockstep attach has %s)", errTaken, path, err, d.Path())
	}
	return f, nil
}
