package netem

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// ErrUnavailable is the error where this kernel has no sch_netem.
var ErrUnavailable = errors.New("this kernel has no sch_netem")

// Available returns nil if netem works here, otherwise why not and what to do.
// It tries: it adds a qdisc in a network namespace of its own, which is gone
// when it returns. That takes some milliseconds and CAP_SYS_ADMIN.
func Available() error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			runtime.UnlockOSThread()
			result <- fmt.Errorf("try netem: %w", err)
			return
		}
		defer unix.Close(home)
		err = tryNetem()
		// A thread that ended would take the children with it that it started
		// (PDEATHSIG), so it goes home rather than away.
		if unix.Setns(home, unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		result <- err
	}()
	return <-result
}

func tryNetem() error {
	const loopback = 1 // the only interface of a new namespace
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("try netem: new network namespace: %w: run as root or in a user namespace", err)
	}
	return Apply(loopback, Config{Delay: 1, Limit: 1})
}

// opError says what was done to which interface, why it failed and how to mend it.
func opError(operation string, index int, err error) error {
	switch {
	case errors.Is(err, unix.ENOENT) && operation == "add netem to":
		err = fmt.Errorf("%w (%w): run modprobe sch_netem; where the module is missing, install the kernel's extra modules "+
			"(Ubuntu: apt install linux-modules-extra-$(uname -r); a Debian cloud kernel has it; Fedora: kernel-modules-extra)",
			ErrUnavailable, err)
	case errors.Is(err, unix.EPERM):
		err = fmt.Errorf("%w: run as root or in a user namespace", err)
	}
	return fmt.Errorf("%s interface %d: %w", operation, index, err)
}
