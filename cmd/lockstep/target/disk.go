package target

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// newFile makes an empty, sparse file, as lockstep's own copies are when a volume is
// made: so all targets begin with the same.
func newFile(path string, size int64) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("make a copy: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err == nil {
		err = errors.Join(f.Truncate(size), f.Close())
	}
	if err != nil {
		return fmt.Errorf("make a copy: %w", err)
	}
	return nil
}

// newDisk makes a file and a loop device over it: a disk with a volatile write cache, which
// is the page cache, and a flush, which is fsync. The device frees itself when nobody
// has it open, this process included: a killed one leaves none.
func newDisk(r *run, path string, size int64) (device string, err error) {
	if err := newFile(path, size); err != nil {
		return "", err
	}
	backing, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return "", fmt.Errorf("make a disk: %w", err)
	}
	defer backing.Close()
	loop, err := configureLoop(backing)
	if err != nil {
		return "", fmt.Errorf("make a disk of %s: %w", path, err)
	}
	r.did("attach "+loop.Name(), func(ctx context.Context) error {
		return errors.Join(loop.Close(), awaitFree(ctx, loop.Name(), path))
	})
	return loop.Name(), nil
}

// configureLoop attaches a file to a free loop device.
func configureLoop(backing *os.File) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: modprobe loop", err)
	}
	defer control.Close()
	const tries = 8 // somebody else may take the one that was free
	for range tries {
		var n int
		if n, err = unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE); err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}
		var loop *os.File
		if loop, err = os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0); err != nil {
			return nil, err
		}
		conf := &unix.LoopConfig{Fd: uint32(backing.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
		copy(conf.Info.File_name[:len(conf.Info.File_name)-1], backing.Name())
		if err = unix.IoctlLoopConfigure(int(loop.Fd()), conf); err == nil {
			return loop, nil
		}
		loop.Close()
	}
	return nil, fmt.Errorf("attach %s to a loop device: %w", backing.Name(), err)
}

// backingFile is what a loop device is attached to; "" if it is free, or no loop device.
func backingFile(device string) string {
	text, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(device), "loop/backing_file"))
	if err != nil {
		return ""
	}
	return trimDeleted(string(text))
}

// awaitFree waits until a loop device has let go of a file: until then it may have
// something to write.
func awaitFree(ctx context.Context, device, path string) error {
	for backingFile(device) == path {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is still in use: %w", device, context.Cause(ctx))
		case <-time.After(lookEvery):
		}
	}
	return nil
}
