package sweep

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// makeFS leaves nothing to do in the background, where it would be measured.
func makeFS(ctx context.Context, kind, device string) error {
	args := map[string][]string{
		"ext4": {"-q", "-F", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1"},
		"xfs":  {"-q", "-f", "-K"},
	}[kind]
	if _, err := runToEnd(groupCommand(ctx, "mkfs."+kind, append(args, device)...)); err != nil {
		return fmt.Errorf("make a file system: %w", err)
	}
	return nil
}

func mount(device, dir, kind string) error {
	options := map[string]string{"ext4": "noinit_itable"}[kind]
	if err := unix.Mount(device, dir, kind, unix.MS_NOATIME|unix.MS_NODEV|unix.MS_NOSUID, options); err != nil {
		return fmt.Errorf("mount %s (%s) on %s: %w", device, kind, dir, err)
	}
	return nil
}

// unmount waits for what still uses the mount as it ends.
func unmount(dir string) (err error) {
	const patience = 10 * time.Second
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		err = unix.Unmount(dir, 0)
		if !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	return nil
}

func syncFS(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("write the file system on %s out: %w", dir, err)
	}
	return nil
}

// dropCache makes this machine forget what it knows of an unmounted device.
func dropCache(device string) error {
	f, err := os.Open(device)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.IoctlSetInt(int(f.Fd()), unix.BLKFLSBUF, 0); err != nil {
		return fmt.Errorf("drop the cache of %s: %w", device, err)
	}
	return nil
}

// leftBehind is what could not be cleaned up: it is told even where a sweep was stopped.
type leftBehind struct{ error }

func (l *leftBehind) Unwrap() error { return l.error }
