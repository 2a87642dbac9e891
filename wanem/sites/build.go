package sites

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"

	"lockstep/wanem/tun"
)

const (
	upName  = "up"  // in a site: towards the wire
	farName = "far" // in a site: towards the relay
	// queueLength of the TUN devices, in packets: more than a congestion window.
	queueLength = 10000
)

var wireAddr = netip.AddrFrom4([4]byte{10, 254, 1, 1})

// build makes the namespaces, joins them and routes over the veth pairs.
func (s *Sites) build() (err error) {
	if s.dir, err = makeRun(); err != nil {
		return err
	}
	for _, n := range []**namespace{&s.a, &s.wire, &s.b} {
		if *n, err = newNamespace(); err != nil {
			return err
		}
	}
	if err := s.wire.do(s.buildWire); err != nil {
		return fmt.Errorf("wire: %w", err)
	}
	for _, site := range []Site{A, B} {
		if err := s.Do(site, func() error { return s.buildSite(site) }); err != nil {
			return fmt.Errorf("site %v: %w", site, err)
		}
	}
	return nil
}

// buildWire makes the veth pairs, gives their other ends to the sites, and
// forwards between them.
func (s *Sites) buildWire() error {
	if err := up("lo"); err != nil {
		return err
	}
	if err := addAddr("lo", wireAddr); err != nil {
		return err
	}
	for _, site := range []Site{A, B} {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = site.String()
		pair := &netlink.Veth{LinkAttrs: attrs, PeerName: upName, PeerNamespace: netlink.NsFd(s.namespace(site).fd)}
		if err := netlink.LinkAdd(pair); err != nil {
			return fmt.Errorf("make veth pair %s: %w", site, err)
		}
		if err := up(site.String()); err != nil {
			return err
		}
		if err := route(site.Addr(), site.String(), netip.Addr{}); err != nil {
			return err
		}
	}
	return setSysctl("net.ipv4.ip_forward", "1")
}

func (s *Sites) buildSite(site Site) error {
	for _, name := range []string{"lo", upName} {
		if err := up(name); err != nil {
			return err
		}
	}
	if err := addAddr("lo", site.Addr()); err != nil {
		return err
	}
	if err := route(wireAddr, upName, site.Addr()); err != nil {
		return err
	}
	// TCP must not forget its window when a site is idle.
	if err := setSysctl("net.ipv4.tcp_slow_start_after_idle", "0"); err != nil {
		return err
	}
	if s.backend == Tun {
		d, err := tun.NewDevice(farName)
		if err != nil {
			return err
		}
		s.devices[site] = d
		link, err := netlink.LinkByName(farName)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetTxQLen(link, queueLength); err != nil {
			return fmt.Errorf("set the queue of %s: %w", farName, err)
		}
		if err := up(farName); err != nil {
			return err
		}
	}
	return s.routeSite(site, false)
}

// routeSite sets how a site reaches the other: over the relay or the veth pairs.
func (s *Sites) routeSite(site Site, relay bool) error {
	other := (1 - site).Addr()
	if relay {
		return route(other, farName, site.Addr())
	}
	link, err := netlink.LinkByName(upName)
	if err != nil {
		return err
	}
	return replaceRoute(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: host(other), Gw: net.IP(wireAddr.AsSlice()),
		Src: net.IP(site.Addr().AsSlice()), Flags: int(netlink.FLAG_ONLINK)})
}

func up(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	// A neighbour that was asked for before the carrier came up is asked for again
	// soon, and not after a second.
	return setSysctl("net.ipv4.neigh."+name+".retrans_time_ms", "20")
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
