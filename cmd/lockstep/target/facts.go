package target

import (
	"context"
	"os"
	"strconv"
	"strings"

	"lockstep/wanem"
	"lockstep/wanem/sites"
	"lockstep/wanem/sweep"
)

// diskSetting is said of every target whose disks are in the kernel.
var diskSetting = sweep.Setting{Name: "disk", Value: "a loop device over a new, sparse file",
	Why: "every copy of every target is such a file in one directory: the page cache takes writes, a flush is its fsync"}

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
