package sites

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// runVar is in the environment of every process that Command starts, and so of
// those that they start: it names the run, whatever became of their parents.
const runVar = "LOCKSTEP_RUN"

// strayTimeout is how long a killed process may take to end, in ms.
const strayTimeout = 2000

// killStrays kills what a dead run's children started themselves: only children
// die with their parent. The name of a run is never used again, so nothing else
// can be hit.
func killStrays(dir string) error {
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	for _, process := range processes {
		pid, err := strconv.Atoi(filepath.Base(process))
		if err != nil {
			continue
		}
		if err := killStray(pid, runVar+"="+dir); err != nil {
			return fmt.Errorf("kill process %d of run %s: %w", pid, dir, err)
		}
	}
	return nil
}

// killStray kills a process that has the mark in its environment. One that is
// gone, or somebody else's, is no error.
func killStray(pid int, mark string) error {
	// The descriptor stays with the process, even if its ID is used again.
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	environment, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil || !slices.Contains(strings.Split(string(environment), "\x00"), mark) {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		return err
	}
	ended := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(ended, strayTimeout)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return err
		case n == 0:
			return fmt.Errorf("it lives on after %d ms: is it stuck on a dead disk or mount?", strayTimeout)
		default:
			return nil
		}
	}
}
