package sites

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// namespace is a network namespace without a name, held by a descriptor.
type namespace struct{ fd int }

const ownNamespace = "/proc/thread-self/ns/net"

// newNamespace makes one.
func newNamespace() (*namespace, error) {
	n := &namespace{}
	err := away(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w (run as root, or allow user namespaces: sysctl kernel.unprivileged_userns_clone=1)", err)
		}
		n.fd, err = unix.Open(ownNamespace, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return err
	})
	return n, err
}

// ownNetwork is the namespace that this thread is in.
func ownNetwork() (*namespace, error) {
	fd, err := unix.Open(ownNamespace, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("look at the network namespace: %w", err)
	}
	return &namespace{fd}, nil
}

// path names the namespace for other processes while this one holds it.
func (n *namespace) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.fd) }

func (n *namespace) close() error { return unix.Close(n.fd) }

// do calls f inside.
func (n *namespace) do(f func() error) error {
	return away(func() error {
		if err := unix.Setns(n.fd, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter a network namespace: %w", err)
		}
		return f()
	})
}

// away calls f on a thread of its own, which f may take into another network
// namespace, and brings the thread home. Only if that fails is the thread thrown
// away: a thread that ends takes the children with it that it started (PDEATHSIG
// is about the parent's thread).
func away(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		home, err := unix.Open(ownNamespace, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			done <- fmt.Errorf("look at the network namespace: %w", err)
			return
		}
		defer unix.Close(home)
		err = f()
		if unix.Setns(home, unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}
