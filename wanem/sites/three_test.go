package sites

import (
	"net"
	"strings"
	"testing"
	"time"

	"lockstep/wanem"
)

// apart is a link of a given round trip.
func apart(rtt time.Duration) wanem.Link {
	return wanem.Link{Profile: wanem.Profile{Equipment: rtt / 2}}
}

func openThree(t *testing.T) *Sites {
	t.Helper()
	s := openSites(t, A, B, W)
	for _, l := range []struct {
		a, b Site
		rtt  time.Duration
	}{{A, B, time.Millisecond}, {A, W, 100 * time.Millisecond}, {B, W, 100 * time.Millisecond}} {
		if err := s.SetLink(t.Context(), l.a, l.b, apart(l.rtt)); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// near fails unless the round trip is about the wanted one, from whichever end: the
// shortest one, as others share the machine with a test, and may have it for a while. If
// they had it when the link was calibrated, the correction is what the shortest is short
// of: the link is calibrated again, and where they have it all the time the median is
// what the correction is for.
func near(t *testing.T, s *Sites, a, b Site, want time.Duration) {
	t.Helper()
	p, _, err := s.find(a, b)
	must(t, err)
	n, off := max(10, probesFor(want)/2), max(time.Millisecond, want/10)
	is := func(d time.Duration) bool { return (d - want).Abs() <= off }
	var got RTT
	for try := range tries {
		if short := want - got.Min; try > 0 && short > off && short < p.correction+off {
			must(t, p.calibrate(t.Context()))
		}
		if got, err = s.MeasureRTT(t.Context(), a, b, n); err != nil {
			t.Error(err)
			return
		}
		if is(got.Min) || is(got.Median) {
			break
		}
	}
	t.Logf("%s-%s: want %v, least %v, median %v, corrected by %v", a, b, want, got.Min, got.Median, p.correction)
	if !is(got.Min) && !is(got.Median) {
		t.Errorf("%s-%s: %v, median %v, want %v", a, b, got.Min, got.Median, want)
	}
}

// down fails unless probes between two sites are lost.
func down(t *testing.T, s *Sites, a, b Site) {
	t.Helper()
	p, _, err := s.find(a, b)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := p.ping(t.Context(), forward, 1, 100*time.Millisecond); err == nil || !strings.Contains(err.Error(), "lost") {
		t.Errorf("%s-%s: %+v, %v, want lost probes", a, b, got, err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestThreeSites keeps three distances at once, and each path has faults of its own.
func TestThreeSites(t *testing.T) {
	s := openThree(t)
	all := func() {
		t.Helper()
		near(t, s, A, B, time.Millisecond)
		near(t, s, W, A, 100*time.Millisecond)
		near(t, s, B, W, 100*time.Millisecond)
	}
	all()

	must(t, s.CutBoth(A, B, true))
	down(t, s, A, B)
	near(t, s, A, W, 100*time.Millisecond)
	near(t, s, B, W, 100*time.Millisecond)
	must(t, s.CutBoth(B, A, false))

	must(t, s.Isolate(W, true))
	down(t, s, A, W)
	down(t, s, W, B)
	near(t, s, A, B, time.Millisecond)
	must(t, s.Isolate(W, false))

	must(t, s.Slow(A, B, 20))
	near(t, s, A, B, 20*time.Millisecond)
	must(t, s.Slow(A, B, 1))
	all()
	for _, pair := range [][2]Site{{A, B}, {A, W}, {B, W}} {
		if drops, err := s.Drops(pair[0], pair[1]); err != nil || drops > 0 {
			t.Errorf("%v: %d drops, %v", pair, drops, err)
		}
	}
}

// TestOneWayCut: what is sent one way arrives, the other way nothing does, with
// and without a delay.
func TestOneWayCut(t *testing.T) {
	s := openSites(t)
	for _, link := range []wanem.Link{{}, km(50)} {
		must(t, s.SetLink(t.Context(), A, B, link))
		fromA, fromB := heard(t, s, A, B), heard(t, s, B, A)
		for _, c := range []struct {
			from, to Site
			a, b     bool // whether what a and b send arrives
		}{{A, B, false, true}, {B, A, true, false}} {
			must(t, s.Cut(c.from, c.to, true))
			if got := fromA(c.a); got != c.a {
				t.Errorf("%v, cut %s to %s: what a sends arrives: %v", link, c.from, c.to, got)
			}
			if got := fromB(c.b); got != c.b {
				t.Errorf("%v, cut %s to %s: what b sends arrives: %v", link, c.from, c.to, got)
			}
			must(t, s.Cut(c.from, c.to, false))
		}
		if !fromA(true) || !fromB(true) {
			t.Errorf("%v, mended: nothing arrives", link)
		}
	}
}

// heard returns a function that says whether a datagram from one site reaches
// the other now. One that should is waited for, however busy the machine is.
func heard(t *testing.T, s *Sites, from, to Site) func(should bool) bool {
	t.Helper()
	in, out := datagrams(t, s, from, to)
	return func(should bool) bool {
		patience := 100 * time.Millisecond
		if should {
			patience = 10 * time.Second
		}
		if _, err := out.Write([]byte("x")); err != nil {
			return false
		}
		must(t, in.SetReadDeadline(time.Now().Add(patience)))
		_, _, err := in.ReadFrom(make([]byte, 1))
		return err == nil
	}
}

// datagrams returns the two ends of a way for datagrams from one site to the other.
func datagrams(t *testing.T, s *Sites, from, to Site) (in net.PacketConn, out net.Conn) {
	t.Helper()
	must(t, s.Do(to, func() (err error) {
		in, err = net.ListenPacket("udp", net.JoinHostPort(s.Addr(to).String(), "0"))
		return err
	}))
	t.Cleanup(func() { in.Close() })
	must(t, s.Do(from, func() (err error) {
		out, err = net.Dial("udp", in.LocalAddr().String())
		return err
	}))
	t.Cleanup(func() { out.Close() })
	return in, out
}

// TestAsymmetryFollowsTheNames: a link's forward direction is from the site that
// is named first, in whichever order the sites were made.
func TestAsymmetryFollowsTheNames(t *testing.T) {
	s := openSites(t)
	link := apart(20 * time.Millisecond)
	link.Asymmetry = 0.5
	must(t, s.SetLink(t.Context(), B, A, link))
	if got := s.paths[0].link.Asymmetry; got != -0.5 {
		t.Errorf("from a to b it is %v, want -0.5", got)
	}
	near(t, s, B, A, 20*time.Millisecond)
}

func TestRefusals(t *testing.T) {
	for _, names := range [][]Site{{A}, {A, A}, {A, "up-b"}, {A, ""}, {A, "abcdefghi"}, {"1", "2", "3", "4", "5", "6"}} {
		if s, err := Open(t.Context(), Config{Sites: names}); err == nil {
			t.Errorf("%q: no error", names)
			s.Close()
		}
	}
	s := openSites(t)
	if err := s.Slow(A, B, 20); err == nil {
		t.Error("a path of no distance was slowed")
	}
	for what, err := range map[string]error{
		"cut": s.Cut(A, W, true), "isolate": s.Isolate(W, true), "do": s.Do(W, func() error { return nil }),
		"set link": s.SetLink(t.Context(), W, A, km(100)), "command": s.Command(t.Context(), W, "true").Run(),
	} {
		if err == nil || !strings.Contains(err.Error(), `"w"`) {
			t.Errorf("%s at a site that there is not: %v", what, err)
		}
	}
	if s.Addr(W).IsValid() {
		t.Error("a site that there is not has an address")
	}
}
