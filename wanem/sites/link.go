package sites

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/vishvananda/netlink"

	"lockstep/wanem"
	"lockstep/wanem/netem"
	"lockstep/wanem/tun"
)

// SetLink makes the path between the sites behave as the link says, calibrated:
// the median round trip meets the wanted one as nearly as it can be measured.
// A link that was cut is mended. What is on its way at the moment may be lost or
// late. It takes up to a hundred round trips, and no more than about 0.2 s unless
// one round trip takes longer.
func (s *Sites) SetLink(ctx context.Context, link wanem.Link) error {
	if err := link.Validate(); err != nil {
		return err
	}
	if err := s.Cut(false); err != nil {
		return err
	}
	// Jitter, loss and rate would only blur what calibration looks for.
	delay := wanem.Link{Distance: link.Distance, Profile: link.Profile, Asymmetry: link.Asymmetry}
	if err := s.set(delay); err != nil {
		return fmt.Errorf("set link to %v: %w", link, err)
	}
	if err := s.calibrate(ctx); err != nil {
		return fmt.Errorf("calibrate %v: %w", link, err)
	}
	if err := s.set(link); err != nil {
		return fmt.Errorf("set link to %v: %w", link, err)
	}
	drops, err := s.countDrops()
	s.dropsThen = drops
	return err
}

// calibrationRounds is how often the correction is improved. The first starts
// from the last link's, which is nearly right.
const calibrationRounds = 2

func (s *Sites) calibrate(ctx context.Context) error {
	want := s.link.RTT()
	if want == 0 {
		return nil // nothing to subtract from
	}
	for range calibrationRounds {
		got, err := s.ping(ctx, probesFor(want), replyTimeout)
		if err != nil {
			return err
		}
		s.correction += got.Median - want
		if err := s.set(s.link); err != nil {
			return err
		}
	}
	return nil
}

// probesFor is how many probes fit into about 100 ms.
func probesFor(rtt time.Duration) int {
	return int(min(40, max(1, 100*time.Millisecond/max(rtt, time.Millisecond))))
}

// set programmes the link with the present correction.
func (s *Sites) set(link wanem.Link) error {
	s.link = link
	if s.backend == Netem {
		return s.setNetem(link)
	}
	return s.setTun(link)
}

// corrected takes half of the correction from each direction.
func (s *Sites) corrected(delay time.Duration) time.Duration {
	return max(0, delay-s.correction/2)
}

func (s *Sites) setNetem(link wanem.Link) error {
	forward, back := netem.ForLink(link)
	if link.RTT() > 0 {
		forward.Delay, back.Delay = s.corrected(forward.Delay), s.corrected(back.Delay)
	}
	for _, site := range []Site{A, B} {
		if err := s.Do(site, func() error { return setSegments(upName, !asOnAWire(link)) }); err != nil {
			return err
		}
	}
	return s.wire.do(func() error {
		for site, conf := range map[Site]netem.Config{B: forward, A: back} {
			if err := setQdisc(site.String(), conf); err != nil {
				return err
			}
		}
		return nil
	})
}

// setQdisc makes an interface do what conf says, with no qdisc if that is nothing.
func setQdisc(name string, conf netem.Config) error {
	index, err := indexOf(name)
	if err != nil {
		return err
	}
	if conf != (netem.Config{}) {
		return netem.Apply(index, conf)
	}
	if err := netem.Clear(index); !errors.Is(err, netem.ErrNone) {
		return err
	}
	return nil
}

// asOnAWire says whether packets must be as large as on a wire: a loss takes one
// of them, and a rate spaces them. For delay alone TCP's super-packets are as good.
func asOnAWire(link wanem.Link) bool { return link.Loss > 0 || link.RateBits > 0 }

// maxSegments is the kernel's own bound of packets in a super-packet
// (GSO_MAX_SEGS in linux/netdevice.h).
const maxSegments = 65535

// setSegments says whether an interface takes super-packets. With a bound of one
// packet the kernel takes them apart before the interface, of connections that
// exist too.
func setSegments(name string, super bool) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	segments := 1
	if super {
		segments = maxSegments
	}
	if err := netlink.LinkSetGSOMaxSegs(link, segments); err != nil {
		return fmt.Errorf("bound the super-packets of %s: %w", name, err)
	}
	return nil
}

func (s *Sites) setTun(link wanem.Link) error {
	forward, back := link.Delays()
	if forward == 0 && back == 0 && link.Loss == 0 && link.RateBits == 0 {
		return s.takeRelay(false)
	}
	confs := [2]tun.Config{}
	for i, delay := range []time.Duration{forward, back} {
		if delay < tun.MinDelay {
			return fmt.Errorf("%v one way is below the %v that a relay in user space can keep: use 0 km, a longer distance, or a kernel with sch_netem", delay, tun.MinDelay)
		}
		confs[i] = tun.Config{Delay: s.corrected(delay), Jitter: link.Jitter, Loss: link.Loss,
			RateBits: link.RateBits, Cut: s.cut, Seed: rand.Uint64()}
	}
	for _, d := range s.devices {
		if err := d.SetOffload(!asOnAWire(link)); err != nil {
			return err
		}
	}
	return s.startRelay(confs[0], confs[1])
}

func (s *Sites) startRelay(forward, back tun.Config) error {
	if s.relay == nil {
		relay, err := tun.Start(s.devices[A], s.devices[B], forward, back)
		if err != nil {
			return err
		}
		s.relay = relay
	} else if err := s.relay.Set(forward, back); err != nil {
		return err
	}
	return s.takeRelay(true)
}

// takeRelay routes over the relay, or over the veth pairs.
func (s *Sites) takeRelay(relay bool) error {
	for _, site := range []Site{A, B} {
		if err := s.Do(site, func() error { return s.routeSite(site, relay) }); err != nil {
			return err
		}
	}
	s.onRelay = relay
	return nil
}

// Cut loses everything between the sites, or with false mends the link. Losing it
// is silent, as a broken fibre is.
func (s *Sites) Cut(cut bool) error {
	s.cut = cut
	if s.onRelay {
		if err := s.setTun(s.link); err != nil {
			return err
		}
	}
	forward := "1"
	if cut {
		forward = "0"
	}
	return s.wire.do(func() error { return setSysctl("net.ipv4.ip_forward", forward) })
}

// Drops is how many packets were lost since SetLink that should not have been.
// With netem and a lossy link it counts those too that should: the kernel does
// not tell them apart.
func (s *Sites) Drops() (uint64, error) {
	now, err := s.countDrops()
	return now - s.dropsThen, err
}

func (s *Sites) countDrops() (total uint64, err error) {
	if s.backend == Tun {
		if s.relay != nil {
			if err := s.relay.Err(); err != nil {
				return 0, err
			}
			forward, back := s.relay.Stats()
			total = forward.Drops + back.Drops
		}
		for _, site := range []Site{A, B} {
			err := s.Do(site, func() error {
				link, err := netlink.LinkByName(farName)
				if err == nil && link.Attrs().Statistics != nil {
					total += link.Attrs().Statistics.TxDropped
				}
				return err
			})
			if err != nil {
				return 0, err
			}
		}
		return total, nil
	}
	err = s.wire.do(func() error {
		for _, site := range []Site{A, B} {
			index, err := indexOf(site.String())
			if err != nil {
				return err
			}
			shown, err := netem.Show(index)
			if err != nil {
				return err
			}
			total += uint64(shown.Stats.Drops)
		}
		return nil
	})
	return total, err
}

func indexOf(name string) (int, error) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return 0, fmt.Errorf("find %s: %w", name, err)
	}
	return link.Attrs().Index, nil
}
