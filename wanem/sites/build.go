package sites

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"

	"lockstep/wanem/tun"
)

// queueLength of the TUN devices, in packets: more than a congestion window.
const queueLength = 10000

// build makes the namespaces, then a path between each two of them.
func (s *Sites) build() (err error) {
	if s.dir, err = makeRun(); err != nil {
		return err
	}
	for _, site := range s.names {
		n, err := newNamespace()
		if err != nil {
			return err
		}
		s.namespaces[site] = n
		if err := n.do(func() error { return buildSite(s.Addr(site)) }); err != nil {
			return fmt.Errorf("site %v: %w", site, err)
		}
	}
	for i, site := range s.names {
		for _, other := range s.names[i+1:] {
			p := &path{backend: s.backend, addr: netip.AddrFrom4([4]byte{10, 254, 1, byte(len(s.paths)) + 1})}
			p.ends = [2]end{s.newEnd(site, other), s.newEnd(other, site)}
			s.paths = append(s.paths, p)
			if err := p.build(); err != nil {
				return fmt.Errorf("path of %v: %w", p, err)
			}
		}
	}
	return nil
}

func (s *Sites) newEnd(site, other Site) end {
	return end{site: site, addr: s.Addr(site), seen: s.Addr(site), in: s.namespaces[site],
		up: "up-" + string(other), far: "far-" + string(other), wire: "to-" + string(site)}
}

func buildSite(addr netip.Addr) error {
	if err := up("lo"); err != nil {
		return err
	}
	if err := addAddr("lo", addr); err != nil {
		return err
	}
	// TCP must not forget its window when a site is idle.
	return setSysctl("net.ipv4.tcp_slow_start_after_idle", "0")
}

func (p *path) build() (err error) {
	if p.wire, err = newNamespace(); err != nil {
		return err
	}
	if err := p.wire.do(p.buildWire); err != nil {
		return fmt.Errorf("wire: %w", err)
	}
	for _, way := range ways {
		e := &p.ends[way]
		err := e.in.do(func() error { return p.buildEnd(e) })
		if err == nil {
			err = p.routeEnd(way, false)
		}
		if err == nil {
			err = p.introduce(e)
		}
		if err != nil {
			return fmt.Errorf("at site %v: %w", e.site, err)
		}
	}
	return nil
}

// introduce tells both ends of a veth pair the other's hardware address for good:
// nothing is asked on the wire then, where the question itself could be late,
// lost or counted.
func (p *path) introduce(e *end) error {
	var site, wire net.HardwareAddr
	return errors.Join(
		e.in.do(func() (err error) { site, err = hardwareAddr(e.up); return err }),
		p.wire.do(func() (err error) { wire, err = hardwareAddr(e.wire); return err }),
		e.in.do(func() error { return setNeighbour(e.up, p.addr, wire) }),
		p.wire.do(func() error { return setNeighbour(e.wire, e.addr, site) }))
}

func hardwareAddr(name string) (net.HardwareAddr, error) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", name, err)
	}
	return link.Attrs().HardwareAddr, nil
}

func setNeighbour(name string, addr netip.Addr, hardware net.HardwareAddr) error {
	index, err := indexOf(name)
	if err != nil {
		return err
	}
	n := &netlink.Neigh{LinkIndex: index, IP: net.IP(addr.AsSlice()), HardwareAddr: hardware, State: netlink.NUD_PERMANENT}
	if err := netlink.NeighSet(n); err != nil {
		return fmt.Errorf("say who %v is on %s: %w", addr, name, err)
	}
	return nil
}

// buildWire makes the veth pairs, gives their other ends to the sites, and
// forwards between them.
func (p *path) buildWire() error {
	if err := up("lo"); err != nil {
		return err
	}
	if err := addAddr("lo", p.addr); err != nil {
		return err
	}
	for _, e := range p.ends {
		if err := addPair(&e); err != nil {
			return err
		}
		if err := route(e.addr, e.wire, netip.Addr{}); err != nil {
			return err
		}
	}
	return setSysctl("net.ipv4.ip_forward", "1")
}

// addPair makes the veth pair between the wire, where it is called, and an end.
func addPair(e *end) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = e.wire
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: e.up, PeerNamespace: netlink.NsFd(e.in.fd)}
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("make veth pair %s: %w", e.wire, err)
	}
	return up(e.wire)
}

func (p *path) buildEnd(e *end) error {
	if err := up(e.up); err != nil {
		return err
	}
	if err := route(p.addr, e.up, e.addr); err != nil {
		return err
	}
	if p.backend != Tun {
		return nil
	}
	d, err := tun.NewDevice(e.far)
	if err != nil {
		return err
	}
	e.device = d
	link, err := netlink.LinkByName(e.far)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetTxQLen(link, queueLength); err != nil {
		return fmt.Errorf("set the queue of %s: %w", e.far, err)
	}
	return up(e.far)
}

// routeEnd sets how the site where way begins reaches the other: over the relay
// or the veth pairs.
func (p *path) routeEnd(way way, relay bool) error {
	e, other := p.ends[way], p.ends[way.other()].addr
	return e.in.do(func() error {
		if relay {
			return route(other, e.far, e.addr)
		}
		return routeVia(other, e.up, p.addr, e.addr)
	})
}

func up(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}

func addAddr(name string, addr netip.Addr) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: host(addr)}); err != nil {
		return fmt.Errorf("give %s address %v: %w", name, addr, err)
	}
	return nil
}

// route makes dst reachable directly behind an interface.
func route(dst netip.Addr, name string, src netip.Addr) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	r := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: host(dst), Scope: netlink.SCOPE_LINK}
	if src.IsValid() {
		r.Src = net.IP(src.AsSlice())
	}
	return replaceRoute(r)
}

// routeVia makes dst reachable through a gateway behind an interface.
func routeVia(dst netip.Addr, name string, gateway, src netip.Addr) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return replaceRoute(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: host(dst), Gw: net.IP(gateway.AsSlice()),
		Src: net.IP(src.AsSlice()), Flags: int(netlink.FLAG_ONLINK)})
}

func replaceRoute(r *netlink.Route) error {
	if err := netlink.RouteReplace(r); err != nil {
		return fmt.Errorf("route to %v: %w", r.Dst, err)
	}
	return nil
}

func host(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: net.IP(a.AsSlice()), Mask: net.CIDRMask(32, 32)}
}

// reported are the sysctls that decide how fast a write crosses a distance.
var reported = []string{
	"net.ipv4.tcp_congestion_control", "net.ipv4.tcp_slow_start_after_idle", "net.ipv4.tcp_no_metrics_save",
	"net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem", "net.ipv4.tcp_notsent_lowat",
}

// Sysctls are those of a site that decide how fast a write crosses a distance.
func (s *Sites) Sysctls(site Site) (map[string]string, error) {
	values := map[string]string{}
	err := s.Do(site, func() error {
		for _, name := range reported {
			values[name] = sysctl(name)
		}
		return nil
	})
	return values, err
}

func sysctlPath(name string) string {
	return filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/"))
}

func setSysctl(name, value string) error {
	if err := os.WriteFile(sysctlPath(name), []byte(value), 0o644); err != nil {
		return fmt.Errorf("set sysctl %s=%s: %w", name, value, err)
	}
	return nil
}

// sysctl is a value of the calling thread's network namespace, empty if the
// kernel does not have it.
func sysctl(name string) string {
	b, _ := os.ReadFile(sysctlPath(name)) //nolint:errcheck // empty says it
	return strings.Join(strings.Fields(string(b)), " ")
}
