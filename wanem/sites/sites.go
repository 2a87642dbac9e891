package sites

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"lockstep/wanem"
	"lockstep/wanem/netem"
	"lockstep/wanem/tun"
)

// Site names one of the two sites.
type Site int

// The sites. A link's forward direction is from A to B.
const (
	A Site = iota
	B
)

func (s Site) String() string { return [...]string{"a", "b"}[s] }

// Addr is the site's address, on which its processes listen.
func (s Site) Addr() netip.Addr {
	return netip.AddrFrom4([4]byte{10, 254, 0, byte(s) + 1})
}

// Backend is a way to keep a link's delay.
type Backend string

// The backends. Auto takes Netem where the kernel has it, otherwise Tun.
const (
	Auto  Backend = "auto"
	Netem Backend = "netem"
	Tun   Backend = "tun"
)

// Config says what to make.
type Config struct {
	Backend Backend // empty is Auto
}

// Sites are two sites and the wire. One goroutine at a time may call its
// methods, except Command, Do and Close.
type Sites struct {
	backend Backend
	why     string
	dir     string

	a, b, wire *namespace
	devices    [2]*tun.Device
	relay      *tun.Relay // nil until a link needs it
	onRelay    bool       // the routes go over it, not over the veth pairs
	cut        bool       // it loses everything

	link       wanem.Link
	correction time.Duration // of the round trip, as calibrated last
	dropsThen  uint64        // when the link was set

	closing sync.Once
	closed  error
}

// Open makes the sites at no distance. The error says what is missing and how to
// get it; nothing is left behind.
func Open(ctx context.Context, conf Config) (*Sites, error) {
	s := &Sites{}
	if err := s.choose(conf.Backend); err != nil {
		return nil, err
	}
	err := s.build()
	if err == nil {
		err = s.awaitLink(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make the sites: %w", err), s.Close())
	}
	return s, nil
}

func (s *Sites) choose(b Backend) error {
	missing := netem.Available()
	switch b {
	case Netem:
		if missing != nil {
			return fmt.Errorf("backend netem: %w (or use the tun backend)", missing)
		}
		s.backend, s.why = Netem, "asked for"
	case Tun:
		s.backend, s.why = Tun, "asked for"
	case Auto, "":
		s.backend, s.why = Netem, "this kernel has sch_netem"
		if missing != nil {
			s.backend, s.why = Tun, missing.Error()
		}
	default:
		return fmt.Errorf("unknown backend %q: use auto, netem or tun", b)
	}
	return nil
}

// Backend is the one in use and Why it was chosen.
func (s *Sites) Backend() Backend { return s.backend }

// Why says in words why Backend was chosen.
func (s *Sites) Why() string { return s.why }

// Dir is a scratch directory that goes with the sites.
func (s *Sites) Dir() string { return s.dir }

// Command prepares a process in a site's network namespace. It is killed when
// ctx ends or this process dies; GC finds what it started itself by a mark in its
// environment, so add to Env and do not replace it.
func (s *Sites) Command(ctx context.Context, site Site, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + s.namespace(site).path(), "--", name}, args...)...)
	cmd.Env = append(os.Environ(), runVar+"="+s.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// Do calls f on a thread that is in a site's network namespace: sockets that f
// opens belong to the site for good.
func (s *Sites) Do(site Site, f func() error) error { return s.namespace(site).do(f) }

func (s *Sites) namespace(site Site) *namespace {
	if site == A {
		return s.a
	}
	return s.b
}

// Close removes everything. It returns the same error every time.
func (s *Sites) Close() error {
	s.closing.Do(func() {
		var errs []error
		if s.relay != nil {
			errs = append(errs, s.relay.Close())
		}
		for _, d := range s.devices {
			if d != nil {
				errs = append(errs, d.Close())
			}
		}
		for _, n := range []*namespace{s.a, s.wire, s.b} {
			if n != nil {
				errs = append(errs, n.close())
			}
		}
		if s.dir != "" {
			errs = append(errs, removeRun(s.dir))
		}
		s.closed = errors.Join(errs...)
	})
	return s.closed
}
