package sites

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"lockstep/wanem/netem"
)

func openLoop(t *testing.T) *Loop {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	l, err := OpenLoop(t.Context())
	if errors.Is(err, netem.ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// TestKernelLoopCarries sends through the loop by TCP, as a mirror inside the kernel would, and
// looks at who each end believes the other to be.
func TestKernelLoopCarries(t *testing.T) {
	l := openLoop(t)
	if err := l.SetLink(t.Context(), km(1000)); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", netip.AddrPortFrom(l.Addr(B), 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	port := uint16(listener.Addr().(*net.TCPAddr).Port)
	dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(l.Addr(A), 0)), Timeout: 5 * time.Second}
	begin := time.Now()
	a, err := dialer.DialContext(t.Context(), "tcp", netip.AddrPortFrom(l.Seen(B), port).String())
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if took, want := time.Since(begin), km(1000).RTT(); took < want {
		t.Errorf("connected after %v, before a round trip of %v", took, want)
	}
	b, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if from := b.RemoteAddr().(*net.TCPAddr).AddrPort().Addr(); from != l.Seen(A) {
		t.Errorf("end B sees %v, want %v", from, l.Seen(A))
	}
	text := strings.Repeat("around the loop ", 64<<10) // super-packets and checksums
	go func() {
		io.WriteString(a, text) //nolint:errcheck // the reader finds out
		a.Close()
	}()
	got, err := io.ReadAll(b)
	if err != nil || string(got) != text {
		t.Errorf("%d bytes arrived, %v; want the %d that were sent", len(got), err, len(text))
	}
	if drops, err := l.Drops(); err != nil || drops > 0 {
		t.Errorf("%d drops, %v", drops, err)
	}
}

func TestKernelLoopKeepsItsDistance(t *testing.T) {
	l := openLoop(t)
	for _, d := range []float64{0, 50, 100, 500, 0} {
		want, median := km(d).RTT(), loopCalibrated(t, l, d)
		for n := 1; n < tries && !asFarAs(want, median); n++ {
			median = loopCalibrated(t, l, d)
		}
		if !asFarAs(want, median) {
			t.Errorf("%v km: set %d times, and still off by %v", d, tries, median-want)
		}
	}
}

// loopCalibrated sets a loop's link anew and returns its median round trip.
func loopCalibrated(t *testing.T, l *Loop, d float64) time.Duration {
	t.Helper()
	if err := l.SetLink(t.Context(), km(d)); err != nil {
		t.Fatal(err)
	}
	got, err := l.MeasureRTT(t.Context(), 30)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%4.0f km: want %v, median %v, min %v, p99 %v", d, km(d).RTT(), got.Median, got.Min, got.P99)
	return got.Median
}

// TestKernelLoopLeavesNothing compares what a loop touches before and after it.
func TestKernelLoopLeavesNothing(t *testing.T) {
	before := homeState(t)
	l := openLoop(t)
	if sysctl(afterIdle) != "0" {
		t.Error("TCP forgets its window in the loop")
	}
	if during := homeState(t); during == before {
		t.Error("the loop is not in this namespace at all")
	}
	if _, err := OpenLoop(t.Context()); !errors.Is(err, errLoopOpen) {
		t.Errorf("a second loop: %v, want %v", err, errLoopOpen)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if after := homeState(t); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// homeState is what there is of addresses, routes, rules and the sysctl.
func homeState(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		b.WriteString(r.String() + "\n")
	}
	rules, err := netlink.RuleList(netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		b.WriteString(r.String() + "\n")
	}
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		b.WriteString(l.Attrs().Name + "\n")
	}
	return b.String() + afterIdle + " = " + sysctl(afterIdle)
}

// TestLoopOfADeadProcessIsMended leaves the lock as a killed process does.
func TestLoopOfADeadProcessIsMended(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	t.Setenv("TMPDIR", t.TempDir())
	was := sysctl(afterIdle)
	defer setSysctl(afterIdle, was) //nolint:errcheck // the test looks at it before
	if err := setSysctl(afterIdle, "1"); err != nil {
		t.Fatal(err)
	}
	l, err := lockLoop()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.set(); err != nil {
		t.Fatal(err)
	}
	if err := mendLoop(); err != nil || sysctl(afterIdle) != "0" {
		t.Errorf("mended while its process lives: %v, sysctl %s", err, sysctl(afterIdle))
	}
	if err := l.file.Close(); err != nil { // and the lock with it, as the kernel does
		t.Fatal(err)
	}
	if err := mendLoop(); err != nil || sysctl(afterIdle) != "1" {
		t.Errorf("mend: %v, sysctl %s; want 1", err, sysctl(afterIdle))
	}
	if err := setSysctl(afterIdle, "0"); err != nil { // by somebody else
		t.Fatal(err)
	}
	if err := mendLoop(); err != nil || sysctl(afterIdle) != "0" {
		t.Errorf("mended what nobody broke: %v, sysctl %s", err, sysctl(afterIdle))
	}
}

func TestLoopRefusesAddressesThatAreUsed(t *testing.T) {
	inOwnNetwork(t, func() {
		if used, err := loopNetUsed(); err != nil || used != "" {
			t.Errorf("in an empty namespace %q is in the way, %v", used, err)
		}
		if err := errors.Join(up("lo"), addAddr("lo", loopEnds[back].seen)); err != nil {
			t.Error(err)
		}
		if used, err := loopNetUsed(); err != nil || used != "lo" {
			t.Errorf("%q is in the way, %v; want lo", used, err)
		}
	})
}

// inOwnNetwork calls f in a new network namespace.
func inOwnNetwork(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	n, err := newNamespace()
	if err != nil {
		t.Fatal(err)
	}
	defer n.close()
	if err := n.do(func() error { f(); return nil }); err != nil {
		t.Fatal(err)
	}
}
