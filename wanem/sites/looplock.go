package sites

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// afterIdle says whether TCP forgets its window when it is idle. Sites have it at 0;
// the sockets of a loop are in this namespace, so it must be set here, too.
const afterIdle = "net.ipv4.tcp_slow_start_after_idle"

// loopLock lets one loop be open at a time: it is a lock on a file, and goes with the process. The
// file holds the value that afterIdle had, and is empty when nothing is changed. So what a
// process that was killed has changed is put back by the next one, or by GC.
type loopLock struct{ file *os.File }

var errLoopOpen = errors.New("another loop is open: wait for the sweep that uses it")

func loopFile() string { return filepath.Join(base(), "loop") }

// lockLoop changes nothing else; what an earlier process changed, it puts back.
func lockLoop() (*loopLock, error) {
	if err := makeBase(); err != nil {
		return nil, fmt.Errorf("lock the loop: %w", err)
	}
	file, err := os.OpenFile(loopFile(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the loop: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		file.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errLoopOpen
		}
		return nil, fmt.Errorf("lock the loop (%s): %w", file.Name(), err)
	}
	l := &loopLock{file}
	if err := l.restore(); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return l, nil
}

// set changes the sysctl and remembers what it was.
func (l *loopLock) set() error {
	if _, err := l.file.WriteAt([]byte(sysctl(afterIdle)), 0); err != nil {
		return fmt.Errorf("remember %s: %w", afterIdle, err)
	}
	return setSysctl(afterIdle, "0")
}

// restore puts the sysctl back, unless somebody else has changed it since.
func (l *loopLock) restore() error {
	text, err := io.ReadAll(io.NewSectionReader(l.file, 0, 64))
	if err != nil {
		return fmt.Errorf("read what %s was: %w", afterIdle, err)
	}
	if was := strings.TrimSpace(string(text)); was != "" && sysctl(afterIdle) == "0" {
		if err := setSysctl(afterIdle, was); err != nil {
			return err
		}
	}
	return l.file.Truncate(0)
}

// release lets the next loop in.
func (l *loopLock) release() error { return errors.Join(l.restore(), l.file.Close()) }

// mendLoop does for a dead process what it did not come to.
func mendLoop() error {
	if _, err := os.Stat(loopFile()); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	l, err := lockLoop()
	if errors.Is(err, errLoopOpen) {
		return nil // its own process will
	}
	if err != nil {
		return err
	}
	return l.release()
}
