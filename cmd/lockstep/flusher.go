package main

import (
	"log/slog"
	"syscall"

	"golang.org/x/sys/unix"
)

// serveStorage tells the kernel that this process is on the way of what others write out:
// when memory is short, that may be what has to be written out to get some, so that the
// process must not wait for it. Its allocations in the kernel start no I/O, and its own
// writes are throttled by their own disk alone. Where that is not permitted it stays as it is.
func serveStorage(log *slog.Logger) {
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_IO_FLUSHER, 1, 0); errno != 0 {
		log.Debug("not marked as an I/O flusher", "err", errno, "hint", "needs CAP_SYS_RESOURCE, and a build without cgo")
	}
}

// lockMemory keeps the pages of this process from being swapped out, for the same reason.
func lockMemory(log *slog.Logger) {
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		log.Debug("memory is not locked", "err", err, "hint", "LimitMEMLOCK=infinity")
	}
}
