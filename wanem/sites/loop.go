package sites

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"lockstep/wanem"
	"lockstep/wanem/netem"
)

// Loop is a path from this process's own network namespace through a wire and back
// to it: for what the kernel itself sends, as DRBD does, from no namespace but the
// first. It has two ends, A and B. What is sent from Addr(A) to Seen(B) arrives at
// Addr(B) and seems to come from Seen(A); the other way likewise:
//
//	            this namespace                    wire
//	A  10.254.2.1 on lockstep-a -- veth -- to-a  translates
//	B  10.254.2.2 on lockstep-b -- veth -- to-b  and forwards
//
// A packet to an address of its own never leaves a kernel. So each end knows the other
// by an address that is not its own kernel's, 10.254.3.1 or 10.254.3.2, and the
// wire translates the two without state (the action nat of tc). No rule and no
// setting of the namespace is changed but one sysctl (see loopLock): all else goes with the
// wire, whose namespace nobody holds but this process.
//
// One goroutine at a time may call its methods.
type Loop struct {
	lock *loopLock
	path *path
}

// loopEnd is where an end of a loop is, and as what the other end sees it.
type loopEnd struct{ addr, seen netip.Addr }

var loopEnds = [2]loopEnd{
	{netip.AddrFrom4([4]byte{10, 254, 2, 1}), netip.AddrFrom4([4]byte{10, 254, 3, 1})},
	{netip.AddrFrom4([4]byte{10, 254, 2, 2}), netip.AddrFrom4([4]byte{10, 254, 3, 2})},
}

// loopWire is the wire, as the ends' next hop.
var loopWire = netip.AddrFrom4([4]byte{10, 254, 2, 3})

// loopNet is what a loop needs of the namespace's addresses.
var loopNet = net.IPNet{IP: net.IPv4(10, 254, 2, 0).To4(), Mask: net.CIDRMask(23, 32)}

// OpenLoop makes a loop of no distance. It needs root, sch_netem and the tc action nat.
// There can be one at a time. The error says what is missing or in the way; nothing is left behind.
func OpenLoop(ctx context.Context) (*Loop, error) {
	if err := netem.Available(); err != nil {
		return nil, fmt.Errorf("make a loop: %w", err)
	}
	l := &Loop{path: &path{backend: Netem, addr: loopWire}}
	err := l.build(ctx)
	if err == nil {
		err = l.path.await(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make a loop: %w", err), l.Close())
	}
	return l, nil
}

func (l *Loop) build(ctx context.Context) (err error) {
	if l.lock, err = lockLoop(); err != nil {
		return err
	}
	if err := loopNetFree(ctx); err != nil {
		return err
	}
	if err := l.lock.set(); err != nil {
		return err
	}
	p := l.path
	for way, site := range []Site{A, B} {
		home, err := ownNetwork()
		if err != nil {
			return err
		}
		at := loopEnds[way]
		p.ends[way] = end{site: site, addr: at.addr, seen: at.seen, in: home, up: "lockstep-" + string(site), wire: "to-" + string(site)}
	}
	if p.wire, err = newNamespace(); err != nil {
		return err
	}
	if err := p.wire.do(l.buildWire); err != nil {
		return fmt.Errorf("wire: %w", err)
	}
	for _, way := range ways {
		if err := l.buildEnd(way); err != nil {
			return fmt.Errorf("end %v: %w", p.ends[way].site, err)
		}
	}
	return nil
}

// loopNetFree waits until the addresses of an earlier loop are gone, which they are
// some time after its process; what stays is somebody else's.
func loopNetFree(ctx context.Context) error {
	const patience, interval = 5 * time.Second, 20 * time.Millisecond
	for until := time.Now().Add(patience); ; {
		used, err := loopNetUsed()
		if err != nil || used == "" {
			return err
		}
		if time.Now().After(until) {
			return fmt.Errorf("%s has an address or a route in %v, which the loop needs: remove it", used, &loopNet)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(interval):
		}
	}
}

// loopNetUsed names an interface with an address or a route among the loop's.
func loopNetUsed() (string, error) {
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return "", fmt.Errorf("list the routes: %w", err)
	}
	for _, r := range routes { // an address is a route of the table local
		if r.Dst == nil || !loopNet.Contains(r.Dst.IP) {
			continue
		}
		link, err := netlink.LinkByIndex(r.LinkIndex)
		if err != nil {
			return fmt.Sprintf("interface %d", r.LinkIndex), nil
		}
		return link.Attrs().Name, nil
	}
	return "", nil
}

func (l *Loop) buildWire() error {
	for way, e := range l.path.ends {
		if err := addPair(&e); err != nil {
			return err
		}
		if err := route(e.addr, e.wire, netip.Addr{}); err != nil {
			return err
		}
		other := loopEnds[1-way]
		if err := translate(e.wire, e.addr, e.seen, other.seen, other.addr); err != nil {
			return err
		}
	}
	return setSysctl("net.ipv4.ip_forward", "1")
}

// buildEnd gives an end its address and its way to the other.
func (l *Loop) buildEnd(way way) error {
	e, other := &l.path.ends[way], loopEnds[way.other()].seen
	err := e.in.do(func() error {
		if err := up(e.up); err != nil {
			return err
		}
		if err := addAddr(e.up, e.addr); err != nil {
			return err
		}
		return routeVia(other, e.up, loopWire, e.addr)
	})
	if err != nil {
		return err
	}
	return l.path.introduce(e)
}

// Addr is the address of an end, A or B, to bind to and to listen on.
func (l *Loop) Addr(site Site) netip.Addr { return l.end(site).addr }

// Seen is the address of an end, A or B, as the other end reaches it.
func (l *Loop) Seen(site Site) netip.Addr { return l.end(site).seen }

func (l *Loop) end(site Site) loopEnd {
	if site == A {
		return loopEnds[forward]
	}
	return loopEnds[back]
}

// SetLink makes the path behave as the link says, calibrated as Sites.SetLink does.
func (l *Loop) SetLink(ctx context.Context, link wanem.Link) error {
	if err := link.Validate(); err != nil {
		return err
	}
	if err := l.path.setLink(ctx, link); err != nil {
		return fmt.Errorf("set the link of the loop to %v: %w", link, err)
	}
	return nil
}

// MeasureRTT sends n probes, one after the other, from end A to end B. It fails if
// every one is lost.
func (l *Loop) MeasureRTT(ctx context.Context, n int) (RTT, error) {
	return l.path.ping(ctx, forward, n, replyTimeout)
}

// Drops is how many packets were lost since SetLink, as Sites.Drops counts them.
func (l *Loop) Drops() (uint64, error) {
	now, err := l.path.countDrops()
	return now - l.path.dropsThen, err
}

// Close removes the path and puts back what was changed.
func (l *Loop) Close() error {
	var errs []error
	if l.path != nil {
		errs = append(errs, l.removeEnds(), l.path.close())
		for _, e := range l.path.ends {
			if e.in != nil {
				errs = append(errs, e.in.close())
			}
		}
		l.path = nil
	}
	if l.lock != nil {
		errs = append(errs, l.lock.release())
		l.lock = nil
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close the loop: %w", err)
	}
	return nil
}

// removeEnds takes the interfaces away at once: with the wire they would go, but some
// time later.
func (l *Loop) removeEnds() error {
	p := l.path
	if p.wire == nil {
		return nil
	}
	return p.wire.do(func() error {
		for _, e := range p.ends {
			link, err := netlink.LinkByName(e.wire)
			if errors.As(err, new(netlink.LinkNotFoundError)) {
				continue
			}
			if err == nil {
				err = netlink.LinkDel(link)
			}
			if err != nil {
				return fmt.Errorf("remove %s: %w", e.wire, err)
			}
		}
		return nil
	})
}
