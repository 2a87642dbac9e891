package target

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"lockstep/wanem"
	"lockstep/wanem/sites"
	"lockstep/wanem/sweep"
)

// disk is said of every target whose disks are in the kernel.
func (c *Config) disk() sweep.Setting {
	return sweep.Setting{Name: "disk", Value: "a loop device over a new, sparse file on " + fileSystem(c.Dir),
		Why: "every copy of every target is such a file in one directory: memory takes its writes, a flush is its fsync"}
}

// file is said of every target whose copies are files.
func (c *Config) file() sweep.Setting {
	return sweep.Setting{Name: "disk", Value: "a new, sparse file on " + fileSystem(c.Dir), Why: "as the disks of the other targets are, without a loop device"}
}

// IsTmpfs tells whether files in a directory are in memory.
func IsTmpfs(dir string) bool { return fileSystem(dir) == "tmpfs" }

// fileSystem is the kind of a directory's file system.
func fileSystem(dir string) string {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return "an unknown file system"
	}
	switch fs.Type {
	case unix.TMPFS_MAGIC:
		return "tmpfs"
	case unix.EXT4_SUPER_MAGIC:
		return "ext4"
	case unix.XFS_SUPER_MAGIC:
		return "xfs"
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs"
	}
	return fmt.Sprintf("a file system of type %#x", fs.Type)
}

// parameters are those that are every target's.
func (c *Config) parameters() map[string]string {
	return map[string]string{"size": strconv.FormatInt(c.Size, 10), "kernel": strconv.FormatBool(c.Kernel)}
}

// kernelVersion is of the kernel that runs.
func kernelVersion() string {
	text, _ := os.ReadFile("/proc/sys/kernel/osrelease") //nolint:errcheck // empty says it
	return "Linux " + strings.TrimSpace(string(text))
}

// toolVersion is the first line of what a program says of its version.
func toolVersion(ctx context.Context, program string) string {
	out, err := tool(ctx, program, "--version")
	if err != nil {
		return program
	}
	line, _, _ := strings.Cut(strings.TrimSpace(out), "\n")
	return line
}

// SiteWire is the link between sites A and B.
func SiteWire(s *sites.Sites) sweep.Wire { return siteWire{s} }

type siteWire struct{ *sites.Sites }

func (w siteWire) SetLink(ctx context.Context, link wanem.Link) error {
	return w.Sites.SetLink(ctx, sites.A, sites.B, link)
}

func (w siteWire) MeasureRTT(ctx context.Context, probes int) (sweep.RTT, error) {
	rtt, err := w.Sites.MeasureRTT(ctx, sites.A, sites.B, probes)
	return sweep.RTT{Median: rtt.Median, P99: rtt.P99, Min: rtt.Min}, err
}

func (w siteWire) Drops() (uint64, error) { return w.Sites.Drops(sites.A, sites.B) }

// loopWire is the link of what the kernel itself sends.
type loopWire struct{ *sites.Loop }

func (w loopWire) MeasureRTT(ctx context.Context, probes int) (sweep.RTT, error) {
	rtt, err := w.Loop.MeasureRTT(ctx, probes)
	return sweep.RTT{Median: rtt.Median, P99: rtt.P99, Min: rtt.Min}, err
}
