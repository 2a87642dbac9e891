package sites

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"lockstep/wanem"
	"lockstep/wanem/tun"
)

// way is a direction of a path, and the end at which it begins.
type way int

const (
	forward way = iota
	back
)

var ways = [2]way{forward, back}

func (w way) other() way { return 1 - w }

// path joins two sites: a wire, which is a namespace that forwards between two
// veth pairs, and beside it, for the tun backend, a relay.
type path struct {
	backend Backend
	ends    [2]end
	wire    *namespace
	addr    netip.Addr // of the wire, as the sites' next hop

	relay   *tun.Relay // nil until a link needs it
	onRelay bool       // the routes go over it, not over the veth pairs
	cut     [2]bool    // each direction loses everything

	wanted     wanem.Link               // as SetLink said
	link       wanem.Link               // as it is now: wanted, or slower
	correction time.Duration            // of the round trip, as calibrated last
	overheads  map[wanem.Link]*overhead // of the links that were set, for delay alone
	dropsThen  uint64                   // when the link was set
}

// end is one site's part in a path.
type end struct {
	site Site
	addr netip.Addr
	seen netip.Addr // the address by which the other end reaches it
	in   *namespace

	up, far string      // the site's interfaces: towards the wire, towards the relay
	wire    string      // the wire's interface towards the site
	device  *tun.Device // behind far
}

func (p *path) String() string { return fmt.Sprintf("%s-%s", p.ends[forward].site, p.ends[back].site) }

func (p *path) setLink(ctx context.Context, link wanem.Link) error {
	p.wanted = link
	if err := errors.Join(p.cutOne(forward, false), p.cutOne(back, false)); err != nil {
		return err
	}
	// Jitter, loss and rate would only blur what calibration looks for.
	delay := wanem.Link{Distance: link.Distance, Profile: link.Profile, Asymmetry: link.Asymmetry}
	if err := p.set(delay); err != nil {
		return err
	}
	if err := p.calibrate(ctx); err != nil {
		return fmt.Errorf("calibrate: %w", err)
	}
	if err := p.set(link); err != nil {
		return err
	}
	drops, err := p.countDrops()
	p.dropsThen = drops
	return err
}

// A link that is set for the first time is measured newRounds times, and another
// knownRounds times whenever it is set again.
const (
	newRounds   = 3
	knownRounds = 2
)

// calibrate finds the correction of the delay that is set now.
func (p *path) calibrate(ctx context.Context) error {
	want := p.link.RTT()
	if want == 0 {
		return nil // nothing to subtract from
	}
	if p.overheads == nil {
		p.overheads = map[wanem.Link]*overhead{}
	}
	known, rounds := p.overheads[p.link], knownRounds
	if known == nil {
		known, rounds = &overhead{}, newRounds
		p.overheads[p.link] = known
	}
	for range rounds {
		got, err := p.ping(ctx, forward, probesFor(want), replyTimeout)
		if err != nil {
			return err
		}
		p.correction = known.add(got.Median - p.delaySet())
		if err := p.set(p.link); err != nil {
			return err
		}
	}
	return nil
}

// delaySet is the delay of both directions that is set now: what the correction left
// of the link's. It may have left nothing.
func (p *path) delaySet() time.Duration {
	there, back := p.link.Delays()
	return p.corrected(there) + p.corrected(back)
}

// overhead is what rounds of probes found that packets take beyond the delay that was
// set, the latest last.
type overhead []time.Duration

// memory is how many rounds count: enough that some in which the machine was busy
// with something else do not decide, and few enough that a machine that stays busy
// is believed when the link is set for the second time.
const memory = 9

// add notes another and returns what is typical, the median.
func (o *overhead) add(d time.Duration) time.Duration {
	*o = append(*o, d)
	if len(*o) > memory {
		*o = slices.Delete(*o, 0, 1)
	}
	sorted := slices.Sorted(slices.Values(*o))
	return sorted[(len(sorted)-1)/2]
}

// probesFor is how many probes fit into about 100 ms, and enough of them that one
// that a busy machine held up does not become the correction.
func probesFor(rtt time.Duration) int {
	return int(min(40, max(5, 100*time.Millisecond/max(rtt, time.Millisecond))))
}

// set programmes the link with the present correction.
func (p *path) set(link wanem.Link) error {
	p.link = link
	if p.backend == Netem {
		return p.setNetem(link)
	}
	return p.setTun(link)
}

// corrected takes half of the correction from each direction.
func (p *path) corrected(delay time.Duration) time.Duration {
	return max(0, delay-p.correction/2)
}

// cutOne cuts one direction, on the relay and on the wire.
func (p *path) cutOne(way way, cut bool) error {
	if p.cut[way] == cut {
		return nil
	}
	p.cut[way] = cut
	if p.onRelay {
		if err := p.setTun(p.link); err != nil {
			return err
		}
	}
	value := "1"
	if cut {
		value = "0"
	}
	// What arrives at an interface that does not forward is dropped without a word.
	return p.wire.do(func() error { return setSysctl("net.ipv4.conf."+p.ends[way].wire+".forwarding", value) })
}

// asOnAWire says whether packets must be as large as on a wire: a loss takes one
// of them, and a rate spaces them. For delay alone TCP's super-packets are as good.
func asOnAWire(link wanem.Link) bool { return link.Loss > 0 || link.RateBits > 0 }

func (p *path) close() error {
	var errs []error
	if p.relay != nil {
		errs = append(errs, p.relay.Close())
	}
	for _, e := range p.ends {
		if e.device != nil {
			errs = append(errs, e.device.Close())
		}
	}
	if p.wire != nil {
		errs = append(errs, p.wire.close())
	}
	return errors.Join(errs...)
}
