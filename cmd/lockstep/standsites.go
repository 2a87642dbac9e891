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
	"strings"

	"lockstep/wanem"
	"lockstep/wanem/sites"
	"lockstep/wanem/sweep"
	"lockstep/wanem/tun"
)

// siteWAN is the link between the sweep's two sites, A and B.
type siteWAN struct{ *sites.Sites }

func (w siteWAN) SetLink(ctx context.Context, link wanem.Link) error {
	return w.Sites.SetLink(ctx, sites.A, sites.B, link)
}

func (w siteWAN) MeasureRTT(ctx context.Context, probes int) (sweep.RTT, error) {
	rtt, err := w.Sites.MeasureRTT(ctx, sites.A, sites.B, probes)
	return sweep.RTT{Median: rtt.Median, P99: rtt.P99, Min: rtt.Min}, err
}

func (w siteWAN) Drops() (uint64, error) { return w.Sites.Drops(sites.A, sites.B) }

// openStand prepares a cluster, with the primary and the witness in site a and the
// other copy in site b.
func (c *sweepCmd) openStand(ctx context.Context, s *sites.Sites, congestion string) (*stand, error) {
	t, err := c.newRig()
	if err != nil {
		return nil, err
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program, to run its nodes: %w", err)
	}
	t.short, t.congestion = filepath.Join(s.Dir(), "data"), congestion
	for _, p := range []struct {
		name string
		site sites.Site
		port string
	}{{"a", sites.A, nodePort}, {"b", sites.B, nodePort}, {witness, c.witnessSite(), witnessPort}} {
		t.places = append(t.places, place{p.name, net.JoinHostPort(s.Addr(p.site).String(), p.port), func(args ...string) *exec.Cmd {
			return s.Command(ctx, p.site, exe, args...)
		}})
	}
	return &stand{wire: siteWAN{s}, rig: t, facts: c.standFacts(t)}, nil
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

func (c *sweepCmd) standFacts(t *rig) sweep.TargetFacts {
	build := thisBuild()
	return sweep.TargetFacts{
		Version: fmt.Sprintf("%s (commit %s)", build.Version, build.Commit),
		Commands: []string{
			"site a: lockstep " + strings.Join(t.args(t.places[0]), " "),
			"site b: lockstep " + strings.Join(t.args(t.places[1]), " "),
			"site a: lockstep " + strings.Join(t.args(t.places[2]), " "),
			fmt.Sprintf("lockstep volume create sweepN --size %v --on a,b --ack %s", t.size, t.ack),
		},
		Parameters: map[string]string{
			"ack": c.Ack, "poll": c.Poll.String(), "congestion": c.Congestion, "witness_rtt": c.WitnessRTT.String(),
		},
	}
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
