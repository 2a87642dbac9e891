package netem

import (
	"errors"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// inNamespace runs f on a thread of its own in an empty network namespace,
// where interface 1 is a loopback that nobody else uses.
func inNamespace(t *testing.T, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread and the namespace end with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		defer func() { done <- err }()
		if err == nil {
			f()
		}
	}()
	if err := <-done; errors.Is(err, unix.EPERM) {
		t.Skip("needs root for a network namespace")
	} else if err != nil {
		t.Fatal(err)
	}
}

// TestAvailable pins what a missing module looks like: the error says so and how to get it.
func TestAvailable(t *testing.T) {
	err := Available()
	if err != nil && !errors.Is(err, ErrUnavailable) && !errors.Is(err, unix.EPERM) {
		t.Fatalf("Available: %v: neither works, nor says why", err)
	}
	t.Logf("Available: %v", err)
}

func TestDefaultQdiscIsNobodys(t *testing.T) {
	inNamespace(t, func() {
		q, err := Show(1)
		if err != nil || q.Handle != 0 || q.Ours() {
			t.Errorf("Show(loopback) = %+v, %v; want handle 0", q, err)
		}
		if err := Clear(1); !errors.Is(err, ErrNone) {
			t.Errorf("Clear(loopback) = %v; want ErrNone", err)
		}
		if _, err := Show(99); err == nil {
			t.Error("Show(99) found an interface that does not exist")
		}
	})
}

// TestForeignQdiscStays puts another's qdisc on the interface; pfifo is built into every kernel.
func TestForeignQdiscStays(t *testing.T) {
	inNamespace(t, func() {
		const theirs = 0x42
		foreign := appendAttr(words(0, 1, theirs<<16, root, 0), attrKind, []byte("pfifo\x00"))
		if err := sendRaw(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_EXCL, foreign); err != nil {
			t.Errorf("add pfifo: %v", err)
			return
		}
		if err := Apply(1, Config{Delay: time.Millisecond}); !errors.Is(err, ErrForeign) {
			t.Errorf("Apply over pfifo: %v; want ErrForeign", err)
		}
		if q, err := Show(1); err != nil || q.Kind != "pfifo" || q.Handle != theirs {
			t.Errorf("Show = %+v, %v; want pfifo 42:", q, err)
		}
		if err := Remove(1); err != nil {
			t.Error(err)
		}
		if q, err := Show(1); err != nil || q.Handle != 0 {
			t.Errorf("after Remove: %+v, %v; want the default", q, err)
		}
	})
}

func TestKernelApply(t *testing.T) {
	if err := Available(); err != nil {
		t.Skipf("needs netem: %v", err)
	}
	configs := []Config{
		{},
		{Delay: 489739},
		{Delay: 300 * time.Millisecond, Jitter: 5 * time.Millisecond, RateBits: orderingRate},
		{Delay: time.Millisecond, Loss: 0.001, RateBits: 10_000_000_000, Limit: 5000},
		{Delay: time.Millisecond, Bursts: Bursts(0.01, 4)},
		{Delay: 9 * time.Second},
		{Delay: 10 * time.Millisecond, Reorder: 0.25},
		{Delay: 10 * time.Millisecond, Reorder: 1, ReorderGap: 5, RateBits: 8},
		{Duplicate: 0.02},
		{Corrupt: 0.001},
		{Delay: time.Millisecond, Jitter: MaxJitter, Loss: 1, RateBits: 800_000_000_000, Limit: 1},
		{Delay: 3, Jitter: 2, Bursts: GilbertElliott{Enter: 0.01, Leave: 0.25, LossBad: 0.75, LossGood: 0.001}, RateBits: 1_000_000,
			Reorder: 0.5, ReorderGap: 7, Duplicate: 0.125, Corrupt: 0.25, Limit: 1 << 20},
		{Delay: time.Microsecond},
	}
	inNamespace(t, func() {
		for _, c := range configs { // each over the one before: nothing may stay
			if err := Apply(1, c); err != nil { // it reads back
				t.Errorf("Apply(%v): %v", c, err)
			}
		}
		if err := Clear(1); err != nil {
			t.Error(err)
		}
		if err := Clear(1); !errors.Is(err, ErrNone) {
			t.Errorf("second Clear: %v; want ErrNone", err)
		}
	})
}

// TestKernelApplyWire sends datagrams over a loopback with a link on it: they arrive
// after the delay and not before, and with certain loss all of them are counted.
func TestKernelApplyWire(t *testing.T) {
	if err := Available(); err != nil {
		t.Skipf("needs netem: %v", err)
	}
	const delay, count = 20 * time.Millisecond, 5
	inNamespace(t, func() {
		conn, err := loopbackSocket()
		if err != nil {
			t.Errorf("socket on loopback: %v", err)
			return
		}
		defer conn.Close()
		if err := Apply(1, Config{Delay: delay}); err != nil {
			t.Error(err)
			return
		}
		for range count {
			took, err := sendToSelf(conn)
			if err != nil || took < delay {
				t.Errorf("a datagram took %v (%v), want at least %v", took, err, delay)
			}
		}
		if q, err := Show(1); err != nil || q.Stats.Packets != count || q.Stats.Drops != 0 {
			t.Errorf("after %d datagrams: %+v, %v", count, q.Stats, err)
		}
		if err := Apply(1, Config{Loss: 1}); err != nil {
			t.Error(err)
			return
		}
		for range count {
			_, _ = conn.WriteTo([]byte("lost"), conn.LocalAddr()) // netem may say ENOBUFS
		}
		if q, err := Show(1); err != nil || q.Stats.Drops != count {
			t.Errorf("after %d lost datagrams: %+v, %v", count, q.Stats, err)
		}
	})
}

func loopbackSocket() (net.PacketConn, error) {
	lo, err := netlink.LinkByIndex(1)
	if err != nil {
		return nil, err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return nil, err
	}
	return net.ListenPacket("udp4", "127.0.0.1:0")
}

func sendToSelf(conn net.PacketConn) (time.Duration, error) {
	start := time.Now()
	if _, err := conn.WriteTo([]byte("ping"), conn.LocalAddr()); err != nil {
		return 0, err
	}
	if err := conn.SetReadDeadline(start.Add(5 * time.Second)); err != nil {
		return 0, err
	}
	_, _, err := conn.ReadFrom(make([]byte, 16))
	return time.Since(start), err
}
