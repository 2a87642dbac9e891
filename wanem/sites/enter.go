package sites

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// entered marks the environment of a program that Enter has started anew; its
// value is the user ID outside.
const entered = "LOCKSTEP_USER_NAMESPACE"

// Enter makes sure that this process may make sites. As root it returns at once.
// Otherwise it starts the program anew, with the same arguments, as root of a
// user namespace, waits for it and exits with its exit code. It returns only
// with an error, or in the new process. Call it before anything with an effect.
func Enter() error {
	if os.Geteuid() == 0 {
		return nil
	}
	if os.Getenv(entered) != "" {
		return errors.New("enter a user namespace: not root in it; run as root")
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(exe, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", entered, os.Geteuid()))
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	// A Ctrl-C reaches the child too; it is the one that cleans up.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("enter a user namespace: %w (run as root, or allow it: sysctl kernel.unprivileged_userns_clone=1, and on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0)", err)
	}
	go func() {
		for sig := range signals {
			if sig == syscall.SIGTERM {
				cmd.Process.Signal(sig) //nolint:errcheck // gone already is fine
			}
		}
	}()
	err = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code >= 0 {
		os.Exit(code)
	}
	return fmt.Errorf("the program in the user namespace: %w", err)
}
