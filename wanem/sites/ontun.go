package sites

import (
	"fmt"
	"math/rand/v2"

	"github.com/vishvananda/netlink"

	"lockstep/wanem"
	"lockstep/wanem/tun"
)

// setTun sends packets over a relay that delays them, or over the veth pairs if
// there is nothing for it to do.
func (p *path) setTun(link wanem.Link) error {
	var confs [2]tun.Config
	confs[forward].Delay, confs[back].Delay = link.Delays()
	if link.RTT() == 0 && link.Loss == 0 && link.RateBits == 0 {
		return p.takeRelay(false)
	}
	for i, conf := range confs {
		if conf.Delay < tun.MinDelay {
			return fmt.Errorf("%v one way is below the %v that a relay in user space can keep: use 0 km, a longer distance, or a kernel with sch_netem", conf.Delay, tun.MinDelay)
		}
		confs[i] = tun.Config{Delay: p.corrected(conf.Delay), Jitter: link.Jitter, Loss: link.Loss,
			RateBits: link.RateBits, Cut: p.cut[i], Seed: rand.Uint64()}
	}
	for _, e := range p.ends {
		if err := e.device.SetOffload(!asOnAWire(link)); err != nil {
			return err
		}
	}
	return p.startRelay(confs)
}

func (p *path) startRelay(confs [2]tun.Config) error {
	if p.relay == nil {
		relay, err := tun.Start(p.ends[forward].device, p.ends[back].device, confs[forward], confs[back])
		if err != nil {
			return err
		}
		p.relay = relay
	} else if err := p.relay.Set(confs[forward], confs[back]); err != nil {
		return err
	}
	return p.takeRelay(true)
}

// takeRelay routes over the relay, or over the veth pairs.
func (p *path) takeRelay(relay bool) error {
	for _, way := range ways {
		if err := p.routeEnd(way, relay); err != nil {
			return err
		}
	}
	p.onRelay = relay
	return nil
}

func (p *path) tunDrops() (total uint64, err error) {
	if p.relay != nil {
		if err := p.relay.Err(); err != nil {
			return 0, err
		}
		forward, back := p.relay.Stats()
		total = forward.Drops + back.Drops
	}
	for _, e := range p.ends {
		err := e.in.do(func() error {
			link, err := netlink.LinkByName(e.far)
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
