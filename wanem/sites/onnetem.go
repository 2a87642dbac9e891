package sites

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"

	"lockstep/wanem"
	"lockstep/wanem/netem"
)

// setNetem delays each direction on the wire's way out to where it ends.
func (p *path) setNetem(link wanem.Link) error {
	confs := [2]netem.Config{}
	confs[forward], confs[back] = netem.ForLink(link)
	for _, e := range p.ends {
		if err := e.in.do(func() error { return setSegments(e.up, !asOnAWire(link)) }); err != nil {
			return err
		}
	}
	return p.wire.do(func() error {
		for _, way := range ways {
			conf := confs[way]
			if link.RTT() > 0 {
				conf.Delay = p.corrected(conf.Delay)
			}
			if err := setQdisc(p.ends[way.other()].wire, conf); err != nil {
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

func (p *path) countDrops() (uint64, error) {
	if p.backend == Tun {
		return p.tunDrops()
	}
	return p.netemDrops()
}

func (p *path) netemDrops() (total uint64, err error) {
	for _, way := range ways {
		q, err := p.qdisc(way)
		if err != nil {
			return 0, err
		}
		total += uint64(q.Stats.Drops)
	}
	return total, nil
}

func indexOf(name string) (int, error) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return 0, fmt.Errorf("find %s: %w", name, err)
	}
	return link.Attrs().Index, nil
}
