package sites

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"

	"lockstep/wanem/netem"
)

// Site names a site: one to eight lower-case letters and digits.
type Site string

// The usual sites: two with data, and a witness without. Any other name will do too.
const (
	A Site = "a"
	B Site = "b"
	W Site = "w"
)

// MaxSites is how many there can be: every pair of them costs a namespace and two
// threads.
const MaxSites = 5

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
	Sites   []Site  // two to MaxSites, each once; none is A and B
}

// Sites are some sites and a path between each two of them. One goroutine at a
// time may call its methods, except Addr, Command, Do and Close.
type Sites struct {
	backend Backend
	why     string
	dir     string

	names      []Site // in the order of their addresses
	namespaces map[Site]*namespace
	paths      []*path

	closing sync.Once
	closed  error
}

// Open makes the sites at no distance from each other. The error says what is
// missing and how to get it; nothing is left behind.
func Open(ctx context.Context, conf Config) (*Sites, error) {
	s := &Sites{names: slices.Clone(conf.Sites), namespaces: map[Site]*namespace{}}
	if len(s.names) == 0 {
		s.names = []Site{A, B}
	}
	if err := checkNames(s.names); err != nil {
		return nil, err
	}
	if err := s.choose(conf.Backend); err != nil {
		return nil, err
	}
	err := s.build()
	for _, p := range s.paths {
		if err == nil {
			err = p.await(ctx)
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make the sites: %w", err), s.Close())
	}
	return s, nil
}

// maxName keeps an interface that is called after a site within the kernel's 15
// bytes.
const maxName = 8

func checkNames(names []Site) error {
	if len(names) < 2 || len(names) > MaxSites {
		return fmt.Errorf("%d sites: ask for 2 to %d", len(names), MaxSites)
	}
	for i, name := range names {
		odd := slices.ContainsFunc([]byte(name), func(c byte) bool {
			return !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9')
		})
		if odd || name == "" || len(name) > maxName {
			return fmt.Errorf("site name %q: use 1 to %d lower-case letters and digits", name, maxName)
		}
		if slices.Contains(names[:i], name) {
			return fmt.Errorf("site %s is asked for twice", name)
		}
	}
	return nil
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

// Names are the sites there are, in the order of Config.
func (s *Sites) Names() []Site { return slices.Clone(s.names) }

// Addr is a site's address, on which its processes listen; the zero Addr if there
// is no such site.
func (s *Sites) Addr(site Site) netip.Addr {
	i := slices.Index(s.names, site)
	if i < 0 {
		return netip.Addr{}
	}
	return netip.AddrFrom4([4]byte{10, 254, 0, byte(i) + 1})
}

// Command prepares a process in a site's network namespace. It is killed when
// ctx ends or this process dies; GC finds what it started itself by a mark in its
// environment, so add to Env and do not replace it.
func (s *Sites) Command(ctx context.Context, site Site, name string, args ...string) *exec.Cmd {
	n, err := s.namespace(site)
	if err != nil {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Err = err
		return cmd
	}
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + n.path(), "--", name}, args...)...)
	cmd.Env = append(os.Environ(), runVar+"="+s.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// Do calls f on a thread that is in a site's network namespace: sockets that f
// opens belong to the site for good.
func (s *Sites) Do(site Site, f func() error) error {
	n, err := s.namespace(site)
	if err != nil {
		return err
	}
	return n.do(f)
}

func (s *Sites) namespace(site Site) (*namespace, error) {
	if n := s.namespaces[site]; n != nil {
		return n, nil
	}
	return nil, fmt.Errorf("there is no site %q: there are %v", site, s.names)
}

// Close removes everything. It returns the same error every time.
func (s *Sites) Close() error {
	s.closing.Do(func() {
		var errs []error
		for _, p := range s.paths {
			errs = append(errs, p.close())
		}
		for _, n := range s.namespaces {
			errs = append(errs, n.close())
		}
		if s.dir != "" {
			errs = append(errs, removeRun(s.dir))
		}
		s.closed = errors.Join(errs...)
	})
	return s.closed
}
