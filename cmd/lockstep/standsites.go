package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"lockstep/cmd/lockstep/target"
	"lockstep/wanem"
	"lockstep/wanem/sites"
	"lockstep/wanem/sweep"
	"lockstep/wanem/tun"
)

// targetConfig is what the flags say of every target. Lockstep's primary and the witness
// are in site a and the other copy in site b.
func (c *sweepCmd) targetConfig(s *sites.Sites, congestion string) (target.Config, error) {
	out, err := filepath.Abs(c.Out)
	if err != nil {
		return target.Config{}, err
	}
	exe, err := os.Executable()
	if err != nil {
		return target.Config{}, fmt.Errorf("find this program, to run its nodes: %w", err)
	}
	build := thisBuild()
	conf := target.Config{
		Sites: s, Wire: target.SiteWire(s), Exe: exe, Version: fmt.Sprintf("%s (commit %s)", build.Version, build.Commit),
		Dir: filepath.Join(out, "volume"), Logs: filepath.Join(out, "logs"), Scratch: s.Dir(),
		Lease: c.Lease, Heartbeat: c.Lease / 2,
		Size: int64(c.Size), Ack: c.Ack, Kernel: c.Attach == "kernel", Poll: c.Poll, Congestion: congestion,
	}
	if c.inMemory(s.Dir()) {
		conf.Dir, conf.Keep = filepath.Join(s.Dir(), "volume"), conf.Dir
	}
	for _, p := range []struct {
		name string
		site sites.Site
		port string
	}{{"a", sites.A, nodePort}, {"b", sites.B, nodePort}, {target.Witness, c.witnessSite(), witnessPort}} {
		conf.Nodes = append(conf.Nodes, target.Node{
			Name: p.name, Listen: net.JoinHostPort(s.Addr(p.site).String(), p.port),
			// Not with the sweep's context: what is attached is detached before they end.
			Command: func(args ...string) *exec.Cmd { return s.Command(context.Background(), p.site, exe, args...) },
		})
	}
	return conf, nil
}

// inMemory tells whether the copies are to be in the sites' own directory: for a comparison,
// if that is in memory and has room. A disk's flushes would else be part of some targets'
// writes, as DRBD's, and not of others'. A database wants flushes that cost something.
func (c *sweepCmd) inMemory(dir string) bool {
	if len(c.Target) == 1 && c.Target[0] == "lockstep" || c.Workload == sweep.Pgbench || !target.IsTmpfs(dir) {
		return false
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return false
	}
	const copies = 2
	need := (int64(c.Size) + 16<<20) * copies * int64(len(c.Target)) // metadata included
	return int64(fs.Bavail)*fs.Bsize > need
}

// openSites makes sites a and b, and one for the witness if that is at a distance.
func (c *sweepCmd) openSites(ctx context.Context) (*sites.Sites, error) {
	conf := sites.Config{Backend: sites.Backend(c.Backend), Sites: []sites.Site{sites.A, sites.B}}
	if w := c.witnessSite(); w != sites.A {
		conf.Sites = append(conf.Sites, w)
	}
	s, err := sites.Open(ctx, conf)
	if err != nil || c.WitnessRTT == 0 {
		return s, err
	}
	far := wanem.Link{Profile: wanem.Profile{Equipment: c.WitnessRTT / 2}}
	if err := errors.Join(s.SetLink(ctx, sites.A, sites.W, far), s.SetLink(ctx, sites.B, sites.W, far)); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (c *sweepCmd) witnessSite() sites.Site {
	if c.WitnessRTT > 0 {
		return sites.W
	}
	return sites.A
}

// witnessPort is that of a witness that shares its site with a node.
const witnessPort = "7801"

// facts are those of the machine and its link; congestion is what TCP is to use at
// both sites, "" if that is left to the system.
func (c *sweepCmd) facts(s *sites.Sites) (facts sweep.Facts, congestion string, err error) {
	sysctls, err := s.Sysctls(sites.A)
	if err != nil {
		return facts, "", err
	}
	err = s.Do(sites.A, func() (err error) {
		congestion, err = pickCongestion(c.Congestion)
		return err
	})
	if err != nil {
		return facts, "", err
	}
	facts = sweep.Facts{
		Backend: string(s.Backend()), BackendWhy: s.Why(),
		Congestion: congestion, Sysctls: sysctls, Parameters: c.parameters(),
	}
	if congestion == "" {
		facts.Congestion = sysctls["net.ipv4.tcp_congestion_control"]
	}
	return facts, congestion, nil
}

// dropTooShort removes the distances whose delay the relay cannot keep; no
// distance at all is no matter, it needs no relay.
func dropTooShort(conf *sweep.Config, backend sites.Backend) error {
	if backend != sites.Tun {
		return nil
	}
	kept := slices.DeleteFunc(slices.Clone(conf.Km), func(km float64) bool {
		forward, back := conf.Link(km).Delays()
		short := min(forward, back) < tun.MinDelay && max(forward, back) > 0
		if short {
			fmt.Fprintf(os.Stderr, "%g km is left out: the tun backend cannot keep a delay below %v one way (use --backend netem on a kernel with sch_netem)\n", km, tun.MinDelay)
		}
		return short
	})
	conf.Km = kept
	if err := conf.Validate(); err != nil {
		return misuse{err}
	}
	return nil
}
