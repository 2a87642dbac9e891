package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// preferredCongestion are the TCP congestion controls for replication, best
// first. Loss-based ones send a large write at once when the window is open; bbr,
// the default of some systems, paces it out, which cost a 1 MiB write at 500 km a
// third of a round trip more here.
var preferredCongestion = []string{"cubic", "reno"}

// pickCongestion returns the congestion control to use: the one asked for, or the
// first preferred one that this process may use, or "" for the system's.
func pickCongestion(asked string) (string, error) {
	if asked != "" {
		if err := tryCongestion(asked); err != nil {
			return "", misuse{fmt.Errorf("--congestion %s: %w (see sysctl net.ipv4.tcp_allowed_congestion_control)", asked, err)}
		}
		return asked, nil
	}
	for _, name := range preferredCongestion {
		if tryCongestion(name) == nil {
			return name, nil
		}
	}
	return "", nil
}

func tryCongestion(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, name)
}
